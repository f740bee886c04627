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
: "${sizes:=10000}"

python=$("$here/python_env.sh")
infermark=$(infermark_binary)
for size in $sizes; do
    name=$(published_panel "$infermark" "$size")
    set -- "$@" --panel "$name.parquet" --products "$size"
done
exec "$python" "$here/compare_numpyro.py" --infermark "$infermark" --out "$(results_folder numpyro)" "$@"
