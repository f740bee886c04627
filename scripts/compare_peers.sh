#!/bin/sh
# Runs Infermark and strong peers on the same panels and cores, taking turns:
# the NumPy elimination, tuned and simple, and `laplace`, NumPyro's AutoNormal and `svi` in the
# published and in the orthogonal coordinates. What disagrees has no speed.
#
#   scripts/compare_peers.sh                         1,000, 10,000 and 100,000 products
#   scripts/compare_peers.sh 300 1000                other sizes
#   scripts/compare_peers.sh 1000 -- --svi-iterations 50000 --schedule published
#
# Makes the Python environment, builds the binary, generates the panels it does
# not have, and writes results/<date>-<host>-peers/. What follows `--` goes to
# scripts/compare_peers.py (see its --help). SVI runs on panels of at most
# --svi-products products (1,000), the exact methods on all. From the environment:
#   INFERMARK        a binary to use instead of building one
#   INFERMARK_CACHE  where generated panels are kept (target/panels)
#   INFERMARK_HOST   the machine's name in the results' folder
#   INFERMARK_SEED   the panels' seed (1)
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")

# Says what is wrong, and ends with the status of wrong use.
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# Prints the comment at the head of the script.
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }

# Ends with a word unless the argument is a number of products.
check_size() {
    case $1 in
    '' | *[!0-9]* | 0*) fail "'$1' is not a number of products (options for ${0##*/}'s Python go after --)" ;;
    esac
}

# Prints the path of the binary, built if none is named.
infermark_binary() {
    if [ -n "${INFERMARK:-}" ]; then
        [ -x "$INFERMARK" ] || fail "INFERMARK=$INFERMARK is not a program"
        printf '%s\n' "$INFERMARK"
        return
    fi
    command -v cargo >/dev/null 2>&1 || fail "no cargo on the PATH: install Rust (https://rustup.rs), or name a built binary: INFERMARK=/path/to/infermark $0"
    (cd "$root" && cargo build --release --bin infermark >&2) || fail "the binary did not build (see above)"
    printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}/release/infermark"
}

# Prints the path, without .parquet, of the published panel of so many products, generated if it is not there yet;
# its true elasticities are beside it in -truth.csv. Arguments: the binary, the number of products.
published_panel() {
    cache=${INFERMARK_CACHE:-$root/target/panels}
    seed=${INFERMARK_SEED:-1}
    mkdir -p "$cache"
    name="$cache/published-$2-products-156-periods-10-categories-seed-$seed"
    if [ ! -f "$name.parquet" ] || [ ! -f "$name-truth.csv" ]; then
        printf 'generating %s products\n' "$2" >&2
        "$1" generate --process published --products "$2" --periods 156 --categories 10 --seed "$seed" \
            --out "$name.parquet" --truth "$name-truth.csv" >&2 || fail "the panel of $2 products could not be generated (see above)"
    fi
    printf '%s\n' "$name"
}

# Prints the folder of today's results of that kind on this machine.
results_folder() {
    host=$(printf '%s' "${INFERMARK_HOST:-$(uname -n)}" | tr -c 'A-Za-z0-9._-' '-')
    printf '%s\n' "$root/results/$(date -u +%Y-%m-%d)-$host-$1"
}

sizes=
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        check_size "$1"
        sizes="$sizes $1"
        ;;
    esac
    shift
done
: "${sizes:=1000 10000 100000}"

python=$("$here/python_env.sh")
infermark=$(infermark_binary)
for size in $sizes; do
    name=$(published_panel "$infermark" "$size")
    set -- "$@" --panel "$name.parquet" --truth "$name-truth.csv" --label "$size"
done
exec "$python" "$here/compare_peers.py" --infermark "$infermark" --out "$(results_folder peers)" "$@"
