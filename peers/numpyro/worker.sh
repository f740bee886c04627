#!/bin/sh
# Starts peers/numpyro/worker.py with the interpreter that has NumPyro: $PYTHON, the .venv that scripts/python_env.sh makes, or
# python3. Options go to worker.py (see its --help).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    [ ! -x "$root/.venv/bin/python" ] || python=$root/.venv/bin/python
fi
if ! command -v "$python" >/dev/null 2>&1; then
    # A reply of the protocol, so that it is told as what is missing.
    printf '{"unavailable": "there is no %s; scripts/python_env.sh makes an environment with NumPyro, or name a Python by PYTHON"}\n' "$python"
    exit 0
fi
exec "$python" -B "$here/worker.py" "$@"
