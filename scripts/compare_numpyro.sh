#!/bin/sh
# Runs Infermark against NumPyro on this machine's CPU: the published code, and
# the same model written densely.
#
#   scripts/compare_numpyro.sh                       10,000 products
#   scripts/compare_numpyro.sh 10000 100000          two sizes
#   scripts/compare_numpyro.sh 10000 -- --repeats 7 --nuts-draws 20
#
# Makes the Python environment, builds the binary, generates the panels it does
# not have, and writes results/<date>-<host>-numpyro/. What follows `--` goes to
# scripts/compare_numpyro.py (see its --help). From the environment:
#   INFERMARK        a binary to use instead of building one
#   INFERMARK_CACHE  where generated panels are kept (target/panels)
#   INFERMARK_HOST   the machine's name in the results' folder
#   INFERMARK_SEED   the panels' seed (1)
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
fail() {
    printf 'compare_numpyro.sh: %s\n' "$*" >&2
    exit 2
}

sizes=
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    -h | --help)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
        exit 0
        ;;
    '' | *[!0-9]* | 0*) fail "'$1' is not a number of products (options for compare_numpyro.py go after --)" ;;
    *) sizes="$sizes $1" ;;
    esac
    shift
done
: "${sizes:=10000}"

python=$("$here/python_env.sh")

if [ -n "${INFERMARK:-}" ]; then
    infermark=$INFERMARK
    [ -x "$infermark" ] || fail "INFERMARK=$infermark is not a program"
else
    command -v cargo >/dev/null 2>&1 || fail "no cargo on the PATH: install Rust (https://rustup.rs), or name a built binary: INFERMARK=/path/to/infermark $0"
    (cd "$root" && cargo build --release --bin infermark >&2) || fail "the binary did not build (see above)"
    infermark=${CARGO_TARGET_DIR:-$root/target}/release/infermark
fi

cache=${INFERMARK_CACHE:-$root/target/panels}
seed=${INFERMARK_SEED:-1}
mkdir -p "$cache"
for size in $sizes; do
    name="$cache/published-$size-products-156-periods-10-categories-seed-$seed"
    if [ ! -f "$name.parquet" ] || [ ! -f "$name-truth.csv" ]; then
        printf 'generating %s products\n' "$size" >&2
        "$infermark" generate --process published --products "$size" --periods 156 --categories 10 --seed "$seed" \
            --out "$name.parquet" --truth "$name-truth.csv" >&2 || fail "the panel of $size products could not be generated (see above)"
    fi
    set -- "$@" --panel "$name.parquet" --products "$size"
done

host=$(printf '%s' "${INFERMARK_HOST:-$(uname -n)}" | tr -c 'A-Za-z0-9._-' '-')
out="$root/results/$(date -u +%Y-%m-%d)-$host-numpyro"
exec "$python" "$here/compare_numpyro.py" --infermark "$infermark" --out "$out" "$@"
