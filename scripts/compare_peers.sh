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
. "$here/comparison_setup.sh"

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
