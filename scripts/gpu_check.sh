#!/usr/bin/env bash
# Checks Infermark on a GPU, in three steps of less than ten minutes each on a data centre's card, the most telling first:
#
#   speed   where an iteration goes, how fast svi-gpu is, what Nsight Compute says of its kernels, and how fast laplace-gpu is
#   peer    NumPyro on the same card and panels, in turns with svi-gpu
#   tests   all tests of svi-gpu, of laplace-gpu, then those of svi-tensor
#
#   scripts/gpu_check.sh                the three in this order
#   scripts/gpu_check.sh --only speed   one of them
#   scripts/gpu_check.sh --pack         packs target/gpu-check.tar.xz, at most 44 MB, which needs neither cargo nor anything else of
#                                       the project: unpack it where the card is and run gpu-check/scripts/gpu_check.sh
#
#   --device D        as `infermark devices` lists it; gpu, the default, is the first card
#   --minutes M       each step is cut short to end within M minutes (9)
#   --products N,..   sizes (speed 10000,100000,1000000; peer 10000,100000)
#   --quick           1,000 products and short repeats
#   --out DIR         the folder for the results (results)
#
# A step writes one file, <date>-<card>-<step>.tar.gz, which is up to date after each of its parts, and ends with a summary on stdout.
# The peer needs a Python with numpyro, optax, pandas, pyarrow and a JAX that sees the GPU: $PYTHON, .venv/bin/python or python3.
# Exit status: 0 all that ran passed, 1 something failed, was cut short or interrupted, 2 usage, or nothing to check with or on.
# What the machine lacks (NumPyro, Nsight Compute), and sizes that do not fit the card's memory, are told and are no failure.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
most_bytes=44000000

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "gpu_check.sh: $*"
    exit 2
}

pack=false quick=false device=gpu minutes=9 products='' out=results steps=(speed peer tests) given=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    --pack) pack=true ;;
    --quick) quick=true ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
        exit 0
        ;;
    --device | --only | --minutes | --products | --out)
        [ -n "${2:-}" ] || fail "$1 needs a value (see --help)"
        case $1=$2 in
        --device=*) device=$2 ;;
        --only=speed | --only=peer | --only=tests) steps=("$2") ;;
        --only=*) fail "--only takes speed, peer or tests, not '$2'" ;;
        --minutes=*[!0-9]* | --minutes=0*) fail "--minutes takes a whole number from 1 on, not '$2'" ;;
        --minutes=*) minutes=$2 ;;
        --products=*[!0-9,]* | --products=[0,]* | --products=*,[0,]* | --products=*,)
            fail "--products takes numbers of products, with commas between them, not '$2'"
            ;;
        --products=*) products=$2 ;;
        --out=*) out=$2 ;;
        esac
        shift
        ;;
    *) fail "'$1' is not understood (see --help)" ;;
    esac
    shift
done

# --- In a checkout: build, and run what was built, as it will run elsewhere --

# Lays out in target/gpu-check all that a check needs.
build() {
    local folder=$root/target/gpu-check package name path tests=()
    command -v cargo >/dev/null || fail "no cargo on the PATH: run this where there is one, with --pack, or install it (https://rustup.rs)"
    command -v python3 >/dev/null || fail "no python3 on the PATH, which reads cargo's messages"
    rm -rf -- "$folder"
    mkdir -p "$folder/tests" "$folder/scripts" "$folder/data"
    for path in "$root"/crates/{svi-gpu,gaussian-gpu,svi-tensor}/tests/*.rs; do tests+=(--test "$(basename "$path" .rs)"); done
    {
        cargo build --release --locked --features infermark-cli/tensor --message-format=json &&
            # With the first two packages the dependencies have the features that they have above, and are not built again.
            cargo test --release --locked --no-run --message-format=json -p infermark-cli -p infermark-gpu-devices \
                -p infermark-svi-gpu -p infermark-gaussian-gpu -p infermark-svi-tensor --lib "${tests[@]}"
    } >"$folder/messages.json" || fail "the program or its tests did not build (see above)"
    # Package, target and path of each program in cargo's messages.
    python3 -c '
import json, pathlib, sys
for message in filter(lambda found: found.get("executable"), map(json.loads, sys.stdin)):
    name = message["target"]["name"] if "lib" not in message["target"]["kind"] else "unit"
    print(pathlib.Path(message["manifest_path"]).parent.name, name, message["executable"], sep="\t")' \
        <"$folder/messages.json" >"$folder/programs.tsv"
    while IFS=$'\t' read -r package name path; do
        case $package/$name in
        cli/infermark) strip -o "$folder/infermark" -- "$path" ;;
        svi-gpu/* | gaussian-gpu/* | svi-tensor/*) strip -o "$folder/tests/$package-$name" -- "$path" ;;
        esac
    done <"$folder/programs.tsv"
    rm -- "$folder/messages.json" "$folder/programs.tsv"
    for name in infermark tests/svi-gpu-unit tests/{svi-gpu,gaussian-gpu}-against_cpu tests/svi-tensor-unit tests/svi-tensor-parity; do
        [ -x "$folder/$name" ] || fail "cargo's messages do not name what becomes $name: did it move?"
    done
    cp -- "$here"/*.py "$here/gpu_check.sh" "$folder/scripts/"
    cp -R -- "$root/peers" "$folder/"
    cp -- "$root"/crates/test-support/data/* "$folder/data/"
    printf 'commit %s; %s; %s, %s\n' "$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)" "$(rustc --version)" \
        "$(uname -sm)" "$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'C library unknown')" >"$folder/BUILD"
}

if [ ! -f "$root/BUILD" ]; then
    (cd "$root" && build)
    archive=$root/target/gpu-check.tar.xz
    if $pack; then
        # The dictionary is larger than the binaries before: they share most of their code.
        tar -C "$root/target" -cf - gpu-check | xz -T1 --x86 --lzma2=preset=6,dict=256MiB >"$archive.new"
        bytes=$(wc -c <"$archive.new")
        [ "$bytes" -le $most_bytes ] || fail "the archive would have $bytes bytes, more than $most_bytes (44 MB): $archive.new"
        mv -- "$archive.new" "$archive"
        awk -v path="$archive" -v n="$bytes" 'BEGIN { printf "%s: %.1f MB (%.1f MiB)\n", path, n / 1e6, n / 1048576 }'
        exit 0
    fi
    [ -n "${PYTHON:-}" ] || [ ! -x "$root/.venv/bin/python" ] || export PYTHON=$root/.venv/bin/python
    exec "$root/target/gpu-check/scripts/gpu_check.sh" ${given[@]+"${given[@]}"}
fi
! $pack || fail "--pack needs a checkout; this is what it packed"

# --- The device, and where the results go ------------------------------------

infermark=$root/infermark
version=$("$infermark" --version) || fail "the program does not run here (see above); it was built on: $(cat "$root/BUILD")"
# Id and name of each device of svi-gpu.
listed=$("$infermark" devices | sed -n 's/^svi-gpu  *--device \([^ ]*\)  */\1 /p')
case $device in
gpu) card=$(grep -v '(software' <<<"$listed" | head -n 1 || true) ;;
*) card=$(grep "^$device " <<<"$listed" || true) ;;
esac
if [ -z "$card" ]; then
    [ "$device" = gpu ] || fail "there is no device '$device' here; there are: $(cut -d' ' -f1 <<<"$listed" | paste -sd' ' -)"
    fail "there is no GPU here, as \`infermark devices\` tells; software Vulkan, where it is installed, is checked with --device vulkan"
fi
device=${card%% *} card=${card#* }
mkdir -p -- "$out" && out=$(CDPATH='' cd -- "$out" && pwd) && [ -w "$out" ] || fail "the folder for the results cannot be written: $out"
for tool in setsid timeout tar gzip; do command -v $tool >/dev/null || fail "no $tool on the PATH"; done
label=$(printf '%s' "${card%%[,(]*}" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9\n' '-')
label=$(date -u +%Y-%m-%d)-${label%-}
temporary=$(mktemp -d)

# --- A step: its folder, its summary, its file --------------------------------

step='' child='' any_failed=false any_ran=false kept=true
# Brings the step's file up to date. Files that programs are writing are taken as they are.
keep() {
    local status=0
    tar -C "$temporary" -czf "$file.new" "${work##*/}" 2>/dev/null || status=$?
    if [ $status -gt 1 ] || ! mv -- "$file.new" "$file"; then kept=false && say "$file could not be written"; fi
}
tell() {
    printf -- '- %s\n' "$*" >>"$work/summary.md"
    say "$step: $*"
    keep
}
# Adds what it reads to the summary, if it is anything, between empty lines.
quote() {
    local text
    text=$(cut -c 1-"${1:-400}")
    [ -z "$text" ] || printf '\n%s\n\n' "$text" >>"$work/summary.md"
}

# Runs a command in the time that the step has left; what it says goes to the file $1. Sets log, and status, 124 where it was cut short.
run() {
    local rest=$((60 * minutes - (SECONDS - began) - 15))
    log=$1 status=0 since=$SECONDS
    : >"$work/$log"
    shift
    if [ $rest -le 0 ]; then
        status=124
        return
    fi
    # In a session of its own: a signal to this script reaches it once, by stop.
    setsid timeout --foreground --kill-after 10 $rest "$@" >"$work/$log" 2>&1 &
    child=$!
    wait $child || status=$?
    kill -KILL -- -$child 2>/dev/null || true # what it may have left running
    child=''
}
# Tells how what was run last went: its name, what to say of it where it passed.
ended() {
    ran=true
    case $status in
    0) tell "$1: ${2:-done} in $((SECONDS - since)) s" ;;
    124) failed=true && tell "$1: **cut short** after $((SECONDS - since)) s" ;;
    *)
        failed=true
        tell "$1: **failed** with status $status after $((SECONDS - since)) s; the end of $log:"
        tail -n 12 "$work/$log" | quote 200
        ;;
    esac
    [ "$status" -eq 0 ]
}

stop() {
    trap '' INT TERM HUP
    keep # at once: there may be no time for more
    if [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null || true
        wait "$child" || true
        kill -KILL -- "-$child" 2>/dev/null || true
    fi
    exit 1
}
finish() {
    local status=$?
    trap '' INT TERM HUP
    if [ -n "$step" ]; then
        tell "**interrupted** after $((SECONDS - began)) s${log:+, in $log}: what follows is missing"
        cat "$work/summary.md"
    fi
    if $kept; then rm -rf -- "$temporary"; else say "what there is lies in $temporary"; fi
    exit $status
}
trap finish EXIT
trap stop INT TERM HUP

begin() {
    local number=1
    step=$1 began=$SECONDS failed=false ran=false log=''
    file=$out/$label-$step.tar.gz
    while [ -e "$file" ]; do number=$((number + 1)) && file=$out/$label-$step-$number.tar.gz; done
    work=$temporary/$(basename -- "$file" .tar.gz)
    mkdir "$work"
    {
        uname -a
        grep -hm 1 -e PRETTY_NAME -e 'model name' -e MemTotal /etc/os-release /proc/cpuinfo /proc/meminfo || true
        printf '%s cores, load %s\n%s\n%s\n\n' "$(nproc)" "$(cat /proc/loadavg)" "$version" "$(cat "$root/BUILD")"
        "$infermark" devices
        nvidia-smi || echo "no nvidia-smi"
    } >"$work/system.txt" 2>&1
    printf '# %s of %s (%s), %s\n\n' "$step" "$card" "$device" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$work/summary.md"
    tell "$version, $(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg); more in system.txt"
}
end() {
    local result='all that ran passed'
    ! $ran || any_ran=true
    $kept || any_failed=true
    $ran || result='**nothing could be measured**'
    ! $failed || { result='**something failed**' && any_failed=true; }
    tell "ended after $((SECONDS - began)) s: $result; written to $file"
    cat "$work/summary.md"
    step=''
}

# --- speed ---------------------------------------------------------------------

speed() {
    local sizes=${products:-10000,100000,1000000} size options=(--repeats 5 --repeat-seconds 1 --warmup-seconds 1 --settle-seconds 20)
    if $quick; then
        sizes=${products:-1000} options=(--repeats 2 --repeat-seconds 0.2 --warmup-seconds 0.2 --warmup-iterations 20 --settle-seconds 0)
    fi
    for size in ${sizes//,/ }; do
        run "profile-$size.txt" "$infermark" profile --device "$device" --products "$size"
        if ended "profile of $size products"; then quote <"$work/$log"; fi
    done
    run bench.log "$infermark" bench --backends svi-gpu --devices "$device" --products "$sizes" --quality-seconds 0 "${options[@]}" \
        --out "$work/bench"
    ended "bench of $sizes products" "parity, then speed," || true
    # What was measured, and why the rest was not.
    [ ! -f "$work/bench/table.md" ] ||
        awk '/^## / { kept = /^## (Measured|Remarks)/ } kept && /^(\||- )/' "$work/bench/table.md" | quote 600
    nsight "${sizes//,/ }"
    # Last, for what it takes on the processors: the exact method, whose kernels need double precision.
    if ! has_doubles; then tell "laplace on the device: not measured, it has no double precision" && return; fi
    run laplace.log "$infermark" bench --backends laplace-gpu --devices "$device" --products "$sizes" --quality-seconds 0 --repeats 3 \
        --settle-seconds 0 --out "$work/laplace"
    ended "laplace on the device, $sizes products" "parity, then whole fits," || true
    [ ! -f "$work/laplace/table.md" ] ||
        awk '/^## / { kept = /^## (Measured|Remarks)/ } kept && /^(\||- )/' "$work/laplace/table.md" | quote 600
}

has_doubles() { "$infermark" devices | grep "^laplace-gpu .*--device $device " >/dev/null; }

# Some launches in a row of a warm run, up to 100,000 products: whatever an iteration launches.
nsight() {
    local ncu size warmup=600 skip=1000
    ! $quick || warmup=20 skip=30
    ncu=$(command -v ncu || find /usr/local/cuda*/bin /opt/nvidia/nsight-compute -name ncu 2>/dev/null | head -n 1 || true)
    if [ -z "$ncu" ]; then tell "Nsight Compute: not measured, there is no ncu on the PATH or in the usual folders" && return; fi
    case $device in cuda*) ;; *) tell "Nsight Compute: not measured, it sees CUDA alone" && return ;; esac
    for size in $1; do
        [ "$size" -le 100000 ] || continue
        panel "$size" || return 0
        # The card's clocks are left alone, as they are for the figures above.
        run "ncu-$size.log" "$ncu" --clock-control none --set full --launch-skip $skip --launch-count 6 --force-overwrite \
            --export "$work/ncu-$size" "$infermark" time "$panel" --device "$device" --warmup $warmup --iterations 20 --repeats 1
        if [ -f "$work/ncu-$size.ncu-rep" ]; then
            run "ncu-$size.txt" "$ncu" --import "$work/ncu-$size.ncu-rep" --page details
            tell "Nsight Compute at $size products, launches in a row (ncu-$size.txt has all of it):"
            awk '
                /^  [^ ].*Context [0-9]+, Stream/ { if (line) print line; line = "    " $1; sub(/\(.*/, "", line); delete seen }
                match($0, /^ +(Duration|Registers Per Thread|Achieved Occupancy|Compute \(SM\) Throughput|(DRAM|Memory) Throughput) /) {
                    name = substr($0, RSTART, RLENGTH); gsub(/^ +| +$/, "", name)
                    unit = $(NF - 1) ~ /thread/ ? "" : " " $(NF - 1)
                    if (!seen[name]++) line = line "; " name " " $NF unit
                }
                END { if (line) print line }' "$work/ncu-$size.txt" | quote 300 || true
        else
            tell "Nsight Compute at $size products: not measured, status $status; the end of $log:"
            tail -n 4 "$work/$log" | quote 200
        fi
    done
}

# Sets panel, a file with so many products.
panel() {
    panel=$temporary/published-$1.parquet
    [ ! -f "$panel" ] || return 0
    run "generate-$1.log" "$infermark" generate --process published --products "$1" --seed 1 --out "$panel" --truth "$temporary/truth-$1.csv"
    [ $status -eq 0 ] || ended "generating $1 products"
}

# --- peer ----------------------------------------------------------------------

# Through CUDA, the only way to a card that JAX and svi-gpu share.
peer() {
    local sizes=${products:-10000,100000} worker="$root/peers/numpyro/worker.sh --platforms gpu" options=(--repeats 5 --settle-seconds 20)
    if $quick; then sizes=${products:-1000} options=(--repeats 2 --repeat-seconds 0.2 --warmup-iterations 20 --settle-seconds 0); fi
    case $device in cuda*) ;; *) tell "NumPyro: **not measured**, JAX does not reach $device" && return ;; esac
    run peer.log env -u CI "$infermark" bench --backends svi-gpu --devices "$device" --products "$sizes" --quality-seconds 0 "${options[@]}" \
        --peer "numpyro=$worker" --peer "numpyro-dense=$worker --form dense" --out "$work/peer"
    if grep -q '^peer numpyro is left out' "$work/$log"; then
        status=0
        tell "NumPyro: **not measured**; $(grep -m 1 '^peer numpyro is left out' "$work/$log")"
        return
    fi
    ended "NumPyro and svi-gpu, $sizes products" "parity, then speed in turns," || true
    # What was measured, and why the rest was not.
    [ ! -f "$work/peer/table.md" ] ||
        awk '/^## / { kept = /^## (Measured|Speedups|Remarks)/ } kept && /^(\||- )/' "$work/peer/table.md" | quote 600
}

# --- tests ---------------------------------------------------------------------

tests() {
    local binary name
    for binary in "$root"/tests/{svi-gpu,gaussian-gpu,svi-tensor}-*; do
        name=${binary##*/}
        case $name in gaussian-gpu-*) if ! has_doubles; then tell "$name: not run, the device has no double precision" && continue; fi ;; esac
        # With the header that the program wrote when it looked for devices, as it runs itself.
        run "$name.log" env INFERMARK_TEST_DATA="$root/data" INFERMARK_TEST_DEVICE="$device" \
            CUDA_PATH="${XDG_CACHE_HOME:-$HOME/.cache}/infermark/cuda" "$binary"
        ended "$name" "$(sed -n 's/^test result: ok\. \([0-9]* passed\).*/\1/p' "$work/$log")" ||
            { grep -h -A 1 ' panicked at ' "$work/$log" || true; } | head -n 20 | quote 200
    done
}

for each in "${steps[@]}"; do
    begin "$each"
    "$each"
    end
done
! $any_failed || exit 1
$any_ran || exit 2
