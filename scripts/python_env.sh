#!/bin/sh
# Makes, or reuses, the virtual environment `.venv` at the project's root with
# the packages pinned in scripts/requirements.txt.
#
#   scripts/python_env.sh            prints the environment's interpreter
#   PYTHON=python3.12 scripts/python_env.sh
#
# Prints one line on stdout, the path of the interpreter; progress goes to
# stderr. Does nothing when the environment already matches the pins.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
env_dir="$root/.venv"
env_python="$env_dir/bin/python"
pins="$here/requirements.txt"
stamp="$env_dir/.infermark-pins"
python=${PYTHON:-python3}

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "python_env.sh: $*"
    exit 2
}

command -v "$python" >/dev/null 2>&1 ||
    fail "no '$python' on the PATH. Install Python 3.11 or later, or name one: PYTHON=/path/to/python3 $0"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$python' is $("$python" --version 2>&1), and the pinned packages need Python 3.11 or later. Name a newer one: PYTHON=/path/to/python3 $0"

# The stamp holds what the environment was made from; it is written last, so an
# interrupted installation is never taken for a finished one.
wanted=$("$python" -c '
import hashlib, pathlib, sys
pins = hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest()
print("python%d.%d" % sys.version_info[:2], pins)' "$pins")

if [ -x "$env_python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] &&
    "$env_python" -c '' >/dev/null 2>&1; then
    printf '%s\n' "$env_python"
    exit 0
fi

say "making $env_dir with $("$python" --version 2>&1)"
rm -f "$stamp"
if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    "$python" -m venv --clear "$env_dir" >&2 || fail "'$python -m venv' could not make $env_dir (see above)"
    pip() { "$env_python" -m pip "$@"; }
elif "$python" -c 'import venv' >/dev/null 2>&1 && "$python" -m pip --version >/dev/null 2>&1; then
    # Debian splits ensurepip off into python3-venv: the interpreter's own pip
    # can install into an environment that has none (pip 22.3 or later).
    "$python" -m venv --clear --without-pip "$env_dir" >&2 || fail "'$python -m venv --without-pip' could not make $env_dir (see above)"
    pip() { "$python" -m pip --python "$env_python" "$@"; }
else
    fail "'$python' has neither ensurepip nor pip, so packages cannot be installed. On Debian or Ubuntu: apt-get install python3-venv"
fi

pip install --disable-pip-version-check --requirement "$pins" >&2 ||
    fail "the packages in $pins could not be installed (see pip's message above); run this again once it is settled"
"$env_python" -c 'import arviz, numpyro, optax, pyarrow' >&2 ||
    fail "the packages were installed but do not import (see above); remove $env_dir and run this again"

printf '%s\n' "$wanted" >"$stamp.new"
mv "$stamp.new" "$stamp"
printf '%s\n' "$env_python"
