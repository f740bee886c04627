#!/usr/bin/env bash
# Builds what a check of a GPU needs, and checks the GPU that is here:
#
#   scripts/gpu_check.sh                builds, then runs `infermark gpu-check`: speed, NumPyro on the same card, tests
#   scripts/gpu_check.sh --only speed   options go to `infermark gpu-check`, whose --help lists them
#   scripts/gpu_check.sh --pack         builds, and packs target/gpu-check.tar.xz, at most 44 MB, which needs neither cargo nor anything
#                                       else of the project: unpack it where the card is and run gpu-check/scripts/gpu_check.sh
#
# NumPyro runs with the Python that $PYTHON names, .venv/bin/python or python3.
# Exit status: 0 all that ran passed, 1 something failed or was cut short, 2 usage, or nothing to check with or on, 3 interrupted.
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
most_bytes=44000000
fail() {
    printf 'gpu_check.sh: %s\n' "$*" >&2
    exit 2
}
pack=false
for argument in "$@"; do [ "$argument" != --pack ] || pack=true; done
# What was laid out has this script and the file BUILD.
if [ -f "$root/BUILD" ]; then
    ! $pack || fail "--pack needs a checkout; this is what it packed"
    "$root/infermark" --version >/dev/null || fail "the program does not run here (see above); it was built on: $(cat "$root/BUILD")"
    exec "$root/infermark" gpu-check "$@"
fi
case ${1:-} in -h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
esac
! $pack || [ $# -eq 1 ] || fail "--pack takes no other options"

from=$PWD
cd -- "$root"
folder=$root/target/gpu-check
command -v cargo >/dev/null || fail "no cargo on the PATH: run this where there is one, with --pack, or install it (https://rustup.rs)"
command -v python3 >/dev/null || fail "no python3 on the PATH, which reads cargo's messages"
rm -rf -- "$folder"
mkdir -p "$folder/tests" "$folder/scripts" "$folder/data"

# take COMMAND OPTION..: builds with cargo, and copies what the check runs from where cargo's messages say it is.
take() {
    cargo "$@" --release --locked --message-format=json | python3 -c '
import json, pathlib, subprocess, sys
for message in filter(lambda found: found.get("executable"), map(json.loads, sys.stdin)):
    package, target = pathlib.Path(message["manifest_path"]).parent.name, message["target"]
    name = "unit" if "lib" in target["kind"] else target["name"]
    if package in ("svi-gpu", "gaussian-gpu", "svi-tensor"):
        name = f"tests/{package}-{name}"
    elif (package, name) != ("cli", "infermark"):
        continue
    subprocess.run(["strip", "-o", f"{sys.argv[1]}/{name}", message["executable"]], check=True)' "$folder" ||
        fail "the program or its tests did not build (see above)"
}

take build --features infermark-cli/tensor
# Options are parsed before the tests are built; --help after them only ends the command.
$pack || "$folder/infermark" gpu-check "$@" --help >/dev/null
tests=()
for path in crates/{svi-gpu,gaussian-gpu,svi-tensor}/tests/*.rs; do tests+=(--test "$(basename "$path" .rs)"); done
# With the first two packages the dependencies have the features that they have above, and are not built again.
take test --no-run -p infermark-cli -p infermark-gpu-devices -p infermark-svi-gpu -p infermark-gaussian-gpu -p infermark-svi-tensor --lib "${tests[@]}"
for name in infermark tests/svi-gpu-unit tests/{svi-gpu,gaussian-gpu}-against_cpu tests/svi-tensor-unit tests/svi-tensor-parity; do
    [ -x "$folder/$name" ] || fail "cargo's messages do not name what becomes $name: did it move?"
done
cp -- scripts/*.py scripts/gpu_check.sh "$folder/scripts/"
cp -R -- peers "$folder/"
cp -- crates/test-support/data/* "$folder/data/"
printf 'commit %s; %s; %s, %s\n' "$(git describe --always --abbrev=40 --dirty 2>/dev/null || echo unknown)" "$(rustc --version)" \
    "$(uname -sm)" "$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'C library unknown')" >"$folder/BUILD"

if ! $pack; then
    [ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || export PYTHON=$root/.venv/bin/python
    cd -- "$from"
    exec "$folder/infermark" gpu-check "$@"
fi
archive=$folder.tar.xz
# The dictionary is larger than the binaries before: they share most of their code.
tar -C target -cf - gpu-check | xz -T1 --x86 --lzma2=preset=6,dict=256MiB >"$archive.new"
bytes=$(wc -c <"$archive.new")
[ "$bytes" -le $most_bytes ] || fail "the archive would have $bytes bytes, more than $most_bytes (44 MB): $archive.new"
mv -- "$archive.new" "$archive"
awk -v path="$archive" -v n="$bytes" 'BEGIN { printf "%s: %.1f MB (%.1f MiB)\n", path, n / 1e6, n / 1048576 }'
