#!/usr/bin/env bash
# Checks Infermark on this machine's GPUs: parity, then speed and where an iteration
# goes, then NumPyro on the same card. Needs neither a Rust toolchain nor a network where binaries were packed.
#
#   scripts/gpu_check.sh --pack           builds, and packs target/gpu-check.tar.xz
#   scripts/gpu_check.sh                  every kind of GPU here, one card of each
#   scripts/gpu_check.sh --device cuda    that device alone; may be repeated
#   scripts/gpu_check.sh --quick          1,000 products and short repeats
#
# Packed binaries are used where target/gpu-check.tar.xz is, built ones otherwise.
# Software that plays a GPU is checked only when --device names it.
#   --only parity|speed|peer   one step; may be repeated
#   --minutes M                steps are cut short, or left out, to end within M minutes
#   --products N,..            sizes for speed (10000,100000,1000000)
#   --peer-products N,..       sizes for NumPyro (10000,100000)
#   --out DIR                  the folder to write (results/<date>-<host>-gpu); a
#                              number is appended where it exists
# A device whose tests fail is not timed. NumPyro is measured where a Python has
# numpyro, optax, pandas, pyarrow, and a JAX that sees a GPU. summary.md in the
# folder is up to date after every test binary and every step, so that a run that
# is killed leaves what it had. From the environment:
#   PYTHON           the Python with NumPyro (.venv/bin/python, then python3)
#   INFERMARK_CACHE  where NumPyro's panels are kept (target/panels)
#   INFERMARK_HOST   the machine's name in the results' folder
#   INFERMARK_SEED   the panels' seed (1)
#   INFERMARK_TEST_SECONDS  most seconds for one test binary (300; software 1800)
# Exit status: 0 all that ran passed, 1 a step failed, was cut short or interrupted,
# 2 usage, or nothing to check with or on. A case that a backend refuses because it
# does not fit the card's memory, and a missing NumPyro, are told and are no failure.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
archive=$root/target/gpu-check.tar.xz
binaries=$root/target/gpu-check
most_bytes=$((60 * 1024 * 1024))

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "gpu_check.sh: $*"
    exit 2
}
usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
}

pack=false quick=false minutes='' out='' products='' peer_products=''
steps=() asked=()
value() { [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value (see --help)"; }
while [ $# -gt 0 ]; do
    case $1 in
    --pack) pack=true ;;
    --quick) quick=true ;;
    -h | --help) usage ;;
    --device | --only | --minutes | --out | --products | --peer-products)
        value "$@"
        case $1 in
        --device) asked+=("$2") ;;
        --only) case $2 in
            parity | speed | peer) steps+=("$2") ;;
            *) fail "--only takes parity, speed or peer, not '$2'" ;;
            esac ;;
        --minutes) case $2 in
            *[!0-9]* | 0*) fail "--minutes takes a whole number from 1 on, not '$2'" ;;
            *) minutes=$2 ;;
            esac ;;
        --out) out=$2 ;;
        *) case ",$2," in
            *[!0-9,]* | *,,* | *,0*) fail "$1 takes numbers of products, with commas between them, not '$2'" ;;
            esac
            if [ "$1" = --products ]; then products=$2; else peer_products=$2; fi ;;
        esac
        shift
        ;;
    *) fail "'$1' is not understood (see --help)" ;;
    esac
    shift
done
[ ${#steps[@]} -gt 0 ] || steps=(parity speed peer)
wants() { case " ${steps[*]} " in *" $1 "*) ;; *) return 1 ;; esac; }

# --- Binaries ---------------------------------------------------------------

# Prints package, kind, target and path of every program in cargo's messages.
programs() {
    python3 - "$1" <<'PYTHON'
import json, pathlib, sys
for line in open(sys.argv[1], encoding="utf-8"):
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("reason") == "compiler-artifact" and message.get("executable"):
        kind = "test" if message["profile"]["test"] else "program"
        target = message["target"]
        name = "unit" if "test" not in target["kind"] and kind == "test" else target["name"]
        print(pathlib.Path(message["manifest_path"]).parent.name, kind, name, message["executable"], sep="\t")
PYTHON
}

# Builds, and lays the stripped binaries out in the folder $1.
build() {
    local folder=$1 messages package kind name path
    command -v cargo >/dev/null 2>&1 ||
        fail "no $archive and no cargo on the PATH: make the archive with '$0 --pack' where there is a Rust toolchain (https://rustup.rs)"
    command -v python3 >/dev/null 2>&1 || fail "no python3 on the PATH, which reads cargo's messages"
    mkdir -p "$folder/tests"
    messages=$folder/messages.json
    # The whole workspace: other selections would build the dependencies again, with other features.
    (cd "$root" && cargo build --release --locked --message-format=json >"$messages") || fail "the program did not build (see above)"
    (cd "$root" && cargo test --workspace --locked --no-run --message-format=json >>"$messages") || fail "the tests did not build (see above)"
    programs "$messages" >"$folder/programs.tsv"
    while IFS=$'\t' read -r package kind name path; do
        case $package/$kind/$name in
        cli/program/infermark) [ -e "$folder/infermark" ] || cp -- "$path" "$folder/infermark" ;; # the release's comes first
        svi-gpu/test/* | svi-tensor/test/* | gaussian-gpu/test/*) cp -- "$path" "$folder/tests/$package-$name" ;;
        esac
    done <"$folder/programs.tsv"
    rm -- "$messages" "$folder/programs.tsv"
    [ -x "$folder/infermark" ] || fail "cargo's messages name no program infermark"
    for package in svi-gpu svi-tensor gaussian-gpu; do
        [ -x "$folder/tests/$package-unit" ] && [ "$(ls "$folder/tests" | grep -c "^$package-")" -ge 2 ] ||
            fail "cargo's messages name no unit tests, or no others, of $package: did they move?"
    done
    if command -v strip >/dev/null 2>&1; then
        strip -- "$folder/infermark" "$folder"/tests/*
    else
        say "no strip on the PATH; the binaries keep their symbols"
    fi
    {
        printf 'commit: %s\n' "$(git -C "$root" describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)"
        printf 'compiler: %s\n' "$(rustc --version 2>/dev/null || echo unknown)"
        printf 'target: %s, %s\n' "$(uname -sm)" "$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'C library unknown')"
    } >"$folder/BUILD"
}

temporary=$root/target/.gpu-check.new-$$
discard() { rm -rf -- "$temporary" "$temporary.tar.xz"; }
trap discard EXIT

if $pack; then
    command -v xz >/dev/null 2>&1 || fail "no xz on the PATH (Debian: xz-utils)"
    build "$temporary"
    say "packing"
    # Tests beside each other, the dictionary larger than two of them: they share most of their code.
    (cd "$temporary" && tar -cf - BUILD infermark tests/*) |
        xz -T0 --x86 --lzma2=preset=9,dict=192MiB >"$temporary.tar.xz" || fail "packing failed (see above)"
    bytes=$(wc -c <"$temporary.tar.xz")
    [ "$bytes" -le $most_bytes ] || fail "the archive would have $bytes bytes, more than $most_bytes"
    mv -- "$temporary.tar.xz" "$archive"
    awk -v path="$archive" -v bytes="$bytes" 'BEGIN { printf "%s: %.1f MiB\n", path, bytes / 1048576 }'
    exit 0
fi

if [ -f "$archive" ]; then
    say "unpacking $archive"
    mkdir -p "$temporary"
    if command -v xz >/dev/null 2>&1; then
        xz -dc -- "$archive" | tar -xf - -C "$temporary" || fail "$archive could not be unpacked (see above); pack it again"
    elif command -v python3 >/dev/null 2>&1; then
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$archive" "$temporary" ||
            fail "$archive could not be unpacked (see above); pack it again"
    else
        fail "neither xz nor python3 on the PATH, and one is needed to unpack $archive"
    fi
else
    build "$temporary"
fi
rm -rf -- "$binaries"
mv -- "$temporary" "$binaries"
infermark=$binaries/infermark
version=$("$infermark" --version) || fail "the packed program does not run here (see above); it was built on: $(tail -n 1 "$binaries/BUILD")"

# --- Devices ----------------------------------------------------------------

# Prints id, whether it is software, and name of every device of the fused kernels.
list_devices() {
    awk -F'"' '
        $2 == "backend" { backend = $4 }
        $2 == "kind" { kind = $4 }
        $2 == "name" { name = $4 }
        $2 == "index" { index_ = $3; gsub(/[^0-9]/, "", index_) }
        $2 == "software" { software = $3 ~ /true/ ? "software" : "card" }
        /^  }/ && backend == "svi-gpu" { print kind (index_ == "0" ? "" : ":" index_) "\t" software "\t" name }
    ' "$1"
}
listed_json=$("$infermark" devices --json) || fail "infermark could not list the devices (see above)"
listed=$(list_devices <(printf '%s\n' "$listed_json"))
devices=() remarks=()
no_card='there is no GPU here. Software Vulkan, where it is installed, is checked with --device vulkan'
name_of() { printf '%s\n' "$listed" | awk -F'\t' -v id="$1" '$1 == id { print $3 }'; }
if [ ${#asked[@]} -gt 0 ]; then
    for device in "${asked[@]}"; do
        if [ "$device" = gpu ]; then
            # The first card, as the program takes it.
            device=$(printf '%s\n' "$listed" | awk -F'\t' '$2 == "card" && !found++ { print $1 }')
            [ -n "$device" ] || fail "$no_card"
        fi
        [ -n "$device" ] && [ -n "$(name_of "$device")" ] ||
            fail "there is no device '$device' here; there are: $(printf '%s\n' "$listed" | cut -f1 | paste -sd' ' -)"
        devices+=("$device")
    done
else
    while IFS=$'\t' read -r device kind _; do
        case $device in *:* | '') continue ;; esac
        [ "$kind" != card ] || devices+=("$device")
    done <<<"$listed"
fi
smi=$(command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null || true)
if [ -n "$smi" ] && ! printf '%s\n' "$listed" | grep -q '^cuda'; then
    remarks+=("nvidia-smi lists a GPU, and CUDA is not usable: its run-time compiler (libnvrtc) must be on the library path, and CUDA_PATH must name a toolkit with headers.")
fi
if [ -n "$smi" ] && ! printf '%s\n' "$listed" | grep -q '^vulkan.*card'; then
    remarks+=("nvidia-smi lists a GPU, and Vulkan does not reach it: the loader (libvulkan.so.1) or the driver's part for Vulkan is missing.")
fi
if [ ${#devices[@]} -eq 0 ]; then
    for remark in ${remarks[@]+"${remarks[@]}"}; do say "$remark"; done
    fail "$no_card"
fi

# --- The folder and its summary ---------------------------------------------

host=$(printf '%s' "${INFERMARK_HOST:-$(uname -n)}" | tr -c 'A-Za-z0-9._-' '-')
started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
wanted=${out:-$root/results/${started%T*}-$host-gpu}
folder=$wanted number=1
while [ -e "$folder" ]; do
    number=$((number + 1))
    folder=$wanted-$number
done
mkdir -p "$folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)

table=() failed=false state='running'
row() { # step, device, result, file
    table+=("| $1 | $2 | $3 | $4 |")
    say "$1, $2: $3"
    summarize
}
summarize() {
    local device line
    {
        printf '# GPU check of %s, %s\n\n' "$host" "$started"
        printf '%s.\n\n' "$state"
        printf -- '- Program: %s\n' "$version"
        sed 's/^/- Build /' "$binaries/BUILD"
        for device in "${devices[@]}"; do printf -- '- Device %s: %s\n' "$device" "$(name_of "$device")"; done
        printf -- '- System: [system.txt](system.txt)\n'
        for line in ${remarks[@]+"${remarks[@]}"}; do printf -- '- %s\n' "$line"; done
        printf '\n| step | device | result | file |\n|---|---|---|---|\n'
        for line in ${table[@]+"${table[@]}"}; do printf '%s\n' "$line"; done
    } >"$folder/.summary.md.new"
    mv -- "$folder/.summary.md.new" "$folder/summary.md"
}
finish() {
    local status=$?
    discard
    case $state in
    running*)
        state="Interrupted after $SECONDS s, ${state/running/while running}: what follows is not there"
        summarize
        ;;
    esac
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# Seconds left for a step that may take $1; 0 where the time is up.
left() {
    local most=$1 rest
    if [ -n "$minutes" ]; then
        rest=$((60 * minutes - SECONDS - 10))
        [ "$rest" -gt 0 ] || rest=0
        [ "$most" -le "$rest" ] || most=$rest
    fi
    echo "$most"
}
# Runs a command for at most $2 seconds and sends it the signal $1 then.
limited() {
    local signal=$1 seconds=$2
    shift 2
    if command -v timeout >/dev/null 2>&1; then
        timeout --foreground --signal "$signal" --kill-after 20 "$seconds" "$@"
    else
        "$@"
    fi
}

state='running: description of the system'
summarize
printf '%s\n' "$listed_json" >"$folder/devices.json"
pythons=(python3)
[ ! -x "$root/.venv/bin/python" ] || pythons=("$root/.venv/bin/python" python3)
[ -z "${PYTHON:-}" ] || pythons=("$PYTHON")
{
    printf '%s\n%s\n' "$started" "$(uname -a)"
    sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null || true
    getconf GNU_LIBC_VERSION 2>/dev/null || true
    grep -m 1 'model name' /proc/cpuinfo 2>/dev/null || true
    grep -m 1 MemTotal /proc/meminfo 2>/dev/null || true
    printf '%s cores, load %s\n' "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo '?')" "$(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null || echo '?')"
    printf '\n== %s\n' "$version"
    cat "$binaries/BUILD"
    printf '\n== infermark devices\n'
    "$infermark" devices
    printf '\n== nvidia-smi\n'
    if [ -n "$smi" ]; then nvidia-smi; else echo 'none'; fi
    printf '\n== CUDA\nCUDA_PATH=%s\n' "${CUDA_PATH:-}"
    cat "${CUDA_PATH:-/usr/local/cuda}/version.json" 2>/dev/null || true
    for python in "${pythons[@]}"; do
        printf '\n== %s\n' "$python"
        "$python" --version 2>&1 || true
        "$python" -c '
from importlib.metadata import distributions
kept = ("jax", "numpyro", "optax", "numpy", "pandas", "pyarrow", "nvidia")
found = {(d.metadata["Name"] or "", d.version) for d in distributions()}
print("\n".join(f"{n} {v}" for n, v in sorted(found) if n.lower().startswith(kept)))' 2>/dev/null || true
    done
} >"$folder/system.txt" 2>&1

here_commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || true)
if [ -n "$here_commit" ] && ! grep -q "^commit: $here_commit" "$binaries/BUILD"; then
    remarks+=("The binaries are of another commit than the files beside this script, ${here_commit:0:12}.")
    say "the binaries are of another commit than this checkout"
fi

# --- Parity -----------------------------------------------------------------

# Runs every test binary on the device $1; a log each.
parity() {
    local device=$1 binary name log seconds before status result passed=true most=300
    ! printf '%s\n' "$listed" | grep -q "^$device"$'\t'software || most=1800
    mkdir -p "$folder/parity"
    for binary in "$binaries"/tests/*; do
        name=${binary##*/}
        log=parity/${device//:/-}-$name.log
        state="running: parity of $device, $name"
        summarize
        seconds=$(left "${INFERMARK_TEST_SECONDS:-$most}")
        if [ "$seconds" -eq 0 ]; then
            row "parity: $name" "$device" '**not run**: no time left' ''
            passed=false
            continue
        fi
        before=$SECONDS
        status=0
        (
            cd "$root"
            export CI=true INFERMARK_TEST_DATA="$root/crates/test-support/data" INFERMARK_TEST_DEVICE="$device"
            limited KILL "$seconds" "$binary"
        ) >"$folder/$log" 2>&1 || status=$?
        result=$(sed -n 's/^test result: [^.]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' "$folder/$log" | tail -n 1)
        if [ "$status" -eq 0 ] && [ -n "$result" ]; then
            row "parity: $name" "$device" "${result%%;*}, $((SECONDS - before)) s" "[log]($log)"
        else
            passed=false
            case $status in
            124 | 137) result="killed after $((SECONDS - before)) s" ;;
            *) result="${result:-no result}, status $status" ;;
            esac
            row "parity: $name" "$device" "**failed**: $result" "[log]($log)"
            tail -n 15 "$folder/$log" >&2
        fi
    done
    $passed
}

measured=("${devices[@]}")
if wants parity; then
    measured=()
    for device in "${devices[@]}"; do
        if parity "$device"; then
            measured+=("$device")
        else
            failed=true
            remarks+=("Parity failed on $device, so its speed is not measured.")
        fi
    done
else
    remarks+=("The tests were not run (--only); \`infermark bench\` checks parity by itself before it times anything.")
fi

# --- Speed ------------------------------------------------------------------

# Status, name and reason of every case that a bench wrote.
cases() {
    local file
    for file in "$1"/runs/*.json; do
        [ -f "$file" ] || continue
        awk -v stem="$(basename "$file" .json)" '
            /^  "status": / { status = $2; gsub(/[",]/, "", status) }
            /^  "reason": / { reason = $0; sub(/^  "reason": "/, "", reason); sub(/",?$/, "", reason) }
            END { print status "\t" stem "\t" reason }' "$file"
    done
}

speed() {
    local seconds status=0 list stem case_status reason good=0 refused=0 bad=0 result
    list=$(IFS=, && echo "${measured[*]}")
    local options=(--repeats 5 --repeat-seconds 1 --warmup-seconds 1 --quality-seconds 5 --settle-seconds 20)
    ! $quick || options=(--repeats 2 --repeat-seconds 0.2 --warmup-seconds 0.2 --quality-seconds 0 --settle-seconds 0)
    seconds=$(left 86400)
    if [ "$seconds" -eq 0 ]; then
        failed=true
        row speed "$list" '**not run**: no time left' ''
        return
    fi
    # What is interrupted keeps what it measured.
    limited INT "$seconds" "$infermark" bench --backends svi-gpu,svi-tensor --devices "$list" \
        --products "$sizes" \
        --published-nuts-seconds 0 "${options[@]}" --out "$folder/speed" 2>&1 | tee -i "$folder/speed.log" >&2 || status=$?
    while IFS=$'\t' read -r case_status stem reason; do
        case $case_status in
        ok | warn) good=$((good + 1)) ;;
        failed)
            bad=$((bad + 1))
            remarks+=("Speed, case $stem: $reason.")
            ;;
        not)
            refused=$((refused + 1))
            remarks+=("Speed, case $stem, not measured: $reason.")
            ;;
        esac
    done < <(cases "$folder/speed")
    result="$good cases measured, $refused refused for memory, $bad failed, $SECONDS s since the start"
    [ "$status" -ne 124 ] || result="cut short by --minutes; $result"
    if [ "$good" -eq 0 ] || [ "$bad" -gt 0 ] || [ "$status" -ne 0 ]; then
        failed=true
        result="**failed** (status $status): $result"
    fi
    if [ -f "$folder/speed/table.md" ]; then
        row speed "$list" "$result" '[table](speed/table.md), [log](speed.log)'
    else
        row speed "$list" "$result" '[log](speed.log)'
    fi
}

# Where an iteration of the fused kernels goes on the device $1, at every size.
profile() {
    local device=$1 size file seconds
    mkdir -p "$folder/profile"
    for size in ${sizes//,/ }; do
        file=profile/${device//:/-}-$size.txt
        seconds=$(left 300)
        if [ "$seconds" -eq 0 ]; then
            failed=true
            row profile "$device" "**not run** at $size products: no time left" ''
        elif limited INT "$seconds" "$infermark" profile --device "$device" --products "$size" >"$folder/$file" 2>"$folder/profile.log"; then
            row profile "$device" "$size products" "[where an iteration goes]($file)"
        else
            failed=true
            row profile "$device" "**failed** at $size products" "[log](profile.log)"
            tail -n 5 "$folder/profile.log" >&2
        fi
    done
}

if wants speed; then
    state='running: speed'
    summarize
    sizes=${products:-$($quick && echo 1000 || echo 10000,100000,1000000)}
    if [ ${#measured[@]} -gt 0 ]; then
        speed
        for device in "${measured[@]}"; do
            state="running: profile of $device"
            summarize
            profile "$device"
        done
    else
        row speed none 'not measured: no device passed its tests' ''
    fi
fi

# --- NumPyro ----------------------------------------------------------------

# Says which NumPyro and JAX a Python has; status 1, with the reason, where they cannot be compared with.
probe() {
    command -v "$1" >/dev/null 2>&1 || {
        echo "there is none"
        return 1
    }
    XLA_PYTHON_CLIENT_PREALLOCATE=false "$1" -B - "$here" 2>>"$folder/system.txt" <<'PYTHON'
import sys
if sys.version_info < (3, 11):
    sys.exit(print("it is older than Python 3.11") or 1)
sys.path.insert(0, sys.argv[1])
try:
    import pyarrow
    import compare_numpyro
    import numpyro_worker
    import jax, numpyro
except Exception as error:
    sys.exit(print(f"{type(error).__name__}: {error}") or 1)
try:
    gpus = jax.devices("gpu")
except RuntimeError:
    gpus = []
if not gpus:
    here = ", ".join(str(device) for device in jax.devices())
    sys.exit(print(f"JAX {jax.__version__} sees no GPU (its devices: {here})") or 1)
print(f"NumPyro {numpyro.__version__}, JAX {jax.__version__} on {', '.join(d.device_kind for d in gpus)}")
PYTHON
}

# A program's path without the folders that say nothing elsewhere.
short() { case $1 in "$root"/*) printf '%s' "${1#"$root/"}" ;; *) basename -- "$1" ;; esac; }

peer() {
    local python='' candidate said reasons='' device=${measured[0]} size name seconds status=0 panels=() result
    for candidate in "${pythons[@]}"; do
        if said=$(probe "$candidate"); then
            python=$candidate
            break
        fi
        reasons="$reasons${reasons:+; }$(short "$candidate"): ${said:-it could not be asked}"
    done
    if [ -z "$python" ]; then
        row NumPyro "$device" "not measured: $reasons" ''
        return
    fi
    remarks+=("NumPyro's Python: $(short "$python"), $said.")
    local cache=${INFERMARK_CACHE:-$root/target/panels} seed=${INFERMARK_SEED:-1}
    local sizes=${peer_products:-$($quick && echo 1000 || echo 10000,100000)}
    mkdir -p "$cache"
    for size in ${sizes//,/ }; do
        name=$cache/published-$size-products-156-periods-10-categories-seed-$seed
        if [ ! -f "$name.parquet" ] || [ ! -f "$name-truth.csv" ]; then
            say "generating $size products"
            "$infermark" generate --process published --products "$size" --periods 156 --categories 10 --seed "$seed" \
                --out "$name.parquet" --truth "$name-truth.csv" >&2 || {
                failed=true
                row NumPyro "$device" "**failed**: no panel of $size products (see the terminal)" ''
                return
            }
        fi
        panels+=(--panel "$name.parquet" --products "$size")
    done
    local options=(--repeats 5 --seconds 2)
    ! $quick || options=(--repeats 2 --seconds 0.2)
    seconds=$(left 86400)
    if [ "$seconds" -eq 0 ]; then
        failed=true
        row NumPyro "$device" '**not run**: no time left' ''
        return
    fi
    # It writes what it has when it is told to stop.
    limited TERM "$seconds" "$python" -B "$here/compare_numpyro.py" --infermark "$infermark" --device "$device" \
        --out "$folder/peer" "${panels[@]}" "${options[@]}" 2>&1 | tee -i "$folder/peer.log" >&2 || status=$?
    case $status in
    0) result="measured, $SECONDS s since the start" ;;
    124) result='**cut short** by --minutes' ;;
    *) result="**failed** (status $status)" ;;
    esac
    [ "$status" -eq 0 ] || failed=true
    if [ -f "$folder/peer/compare.md" ]; then
        row NumPyro "$device" "$result" '[table](peer/compare.md), [log](peer.log)'
    else
        row NumPyro "$device" "$result" '[log](peer.log)'
    fi
}

if wants peer; then
    state='running: NumPyro'
    summarize
    if [ ${#measured[@]} -gt 0 ]; then peer; else row NumPyro none 'not measured: no device passed its tests' ''; fi
fi

if $failed; then state="Done in $SECONDS s; **something failed**"; else state="Done in $SECONDS s; all that ran passed"; fi
summarize
cat "$folder/summary.md"
say "written to $folder"
! $failed
