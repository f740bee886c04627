#!/usr/bin/env bash
# Checks a change, as continuous integration does.
#
#   scripts/check.sh                 every step, in the order below
#   scripts/check.sh clippy docs     these steps only
#   scripts/check.sh --from tests    this step and all that follow
#
# Steps:
#   format      rustfmt changes nothing
#   links       every relative link in a Markdown file leads to a tracked file and an existing heading; every picture is shown; the table
#               of crates states every dependency
#   toolchain   rust-toolchain.toml pins the minimum supported version of Rust, and every crate states it
#   clippy      all targets of the workspace, without a warning
#   no-gpu      the library and the command without their GPU backends, without a warning
#   docs        rustdoc without a warning
#   licences    licences, bans, sources and advisories of the dependencies
#   scripts     the shell and Python scripts parse, and the comparison with peers passes its own tests
#   tests       cargo test --workspace
#   ranks       fits of several processes, under mpirun and srun
#   cuda        the GPU backends on the played card, and every kernel by NVIDIA's compiler
#   fuzz        every fuzz target for a quarter of a minute
#   benches     cargo bench once on tiny panels
#
# Where CI is set, what a step lacks (a Vulkan adapter, a C++ compiler, NVIDIA's compiler, MPI, Slurm) is installed with apt-get if the user is
# root, and is a failure otherwise. Anywhere else nothing is installed: what cannot run is skipped, and the end of the output says
# what to install. Exit status: 0 everything that ran passed, 1 a step failed, 2 wrong usage.
set -euo pipefail
cd "$(dirname "$0")/.."

steps=(format links toolchain clippy no-gpu docs licences scripts tests ranks cuda fuzz benches)

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' scripts/check.sh; }
in_ci() { [ -n "${CI:-}" ]; }
fail() {
  printf 'check.sh: %s\n' "$*" >&2
  exit 1
}
wrong_usage() {
  printf 'check.sh: %s (see --help)\n' "$*" >&2
  exit 2
}

# Where the pinned toolchain is neither installed nor to be had, an installed stable one of the same version does as well.
pinned_toolchain() { sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml; }
if ! rustc --version >/dev/null 2>&1 && [ "$(rustc +stable --version 2>/dev/null | cut -d ' ' -f 2)" = "$(pinned_toolchain)" ]; then
  export RUSTUP_TOOLCHAIN=stable
fi

# --- What a step needs --------------------------------------------------------

step='' skips=()

# skip REASON: records what does not run.
skip() {
  printf 'skipped: %s\n' "$*"
  skips+=("$step: $*")
}

updated=false
# install PACKAGE..
install() {
  $updated || apt-get update -qq || return
  updated=true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

# need WHAT "PACKAGES" COMMAND..: whether COMMAND succeeds. In CI it must: the Debian packages are installed if need be.
need() {
  local what=$1 packages=$2
  shift 2
  if "$@"; then return; fi
  if in_ci; then
    # The packages are separate words.
    # shellcheck disable=SC2086
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && install $packages && "$@"; then return; fi
    fail "no $what, which CI must have (Debian: apt-get install $packages)"
  fi
  skip "no $what (Debian: apt-get install $packages)"
  return 1
}

has() { command -v "$1" >/dev/null 2>&1; }
has_software_vulkan() { compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' >/dev/null; }
# A machine of a user may have a card instead.
has_adapter() {
  case $(uname -s) in
  Linux) has_software_vulkan || { ! in_ci && { compgen -G '/usr/share/vulkan/icd.d/*.json' || compgen -G '/etc/vulkan/icd.d/*.json'; } >/dev/null; } ;;
  *) ! in_ci || fail "CI checks the GPU backends on Linux" ;;
  esac
}
has_python() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_pip() { python3 -m pip --version >/dev/null 2>&1; }

# --- The steps ----------------------------------------------------------------

check_format() { cargo fmt --all --check; }

check_links() {
  need "Python 3.11 or later" python3 has_python || return 0
  python3 -B scripts/check_links.py
}

check_toolchain() {
  local pinned minimum here manifest
  pinned=$(pinned_toolchain)
  minimum=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  case $pinned in
  "$minimum" | "$minimum".*) ;;
  *) fail "rust-toolchain.toml pins $pinned, and Cargo.toml promises $minimum: the promise would not be checked" ;;
  esac
  for manifest in crates/*/Cargo.toml benches/Cargo.toml; do
    grep -q '^rust-version.workspace = true$' "$manifest" || fail "$manifest does not take rust-version from the workspace"
  done
  here=$(rustc --version | cut -d ' ' -f 2)
  if [ "$here" != "$pinned" ]; then
    ! in_ci || fail "rustc is $here, and rust-toolchain.toml pins $pinned"
    skip "rustc is $here: other steps do not check the minimum supported version, $minimum"
    return 0
  fi
  printf 'rustc %s is the pinned version and the oldest that is supported\n' "$here"
}

# With the backend that no default build has.
check_clippy() { cargo clippy --workspace --all-targets --features infermark-cli/tensor --locked -- -D warnings; }

check_no_gpu() {
  cargo clippy --package infermark --package infermark-cli --no-default-features --locked -- -D warnings
}

check_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked; }

check_licences() {
  # cargo-deny is a development tool: where it is not installed the lock file's sources are checked alone.
  if ! has cargo-deny; then
    if grep '^source = ' Cargo.lock | grep -qv 'registry+https://github.com/rust-lang/crates.io-index'; then
      fail "Cargo.lock names a source other than crates.io"
    fi
    printf 'cargo-deny is not installed: only the sources were checked\n'
    return 0
  fi
  cargo deny --locked check bans licenses sources
  # The database of advisories is fetched separately (cargo deny fetch).
  if [ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]; then
    cargo deny --locked --offline check advisories
  else
    printf 'there is no database of advisories here: not checked (cargo deny fetch)\n'
  fi
}

check_scripts() {
  local script
  for script in scripts/*.sh peers/*/*.sh .ci/run; do
    case $(head -n 1 "$script") in
    *bash) bash -n "$script" ;;
    *) sh -n "$script" ;;
    esac
  done
  need "Python 3.11 or later" python3 has_python || return 0
  python3 -m compileall -q scripts peers
  python3 -B scripts/compare_peers_self_test.py
}

check_tests() {
  # Without an adapter the tests on a GPU skip themselves where CI is not set.
  need "Vulkan adapter, so no test on a GPU" "mesa-vulkan-drivers libvulkan1" has_adapter || true
  cargo test --workspace --locked
}

has_mpi() { has mpicc && has mpirun && compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null; }
has_slurm() { has srun && has slurmctld && has munged; }

# Without Slurm its test skips itself where CI is not set.
check_ranks() {
  [ "$(uname -s)" = Linux ] || {
    skip "fits of several processes are tested on Linux"
    return 0
  }
  need "MPI" "libopenmpi-dev openmpi-bin libclang-dev" has_mpi || return 0
  if need "Slurm" "slurm-wlm munge" has_slurm && [ "$(id -u)" = 0 ] && in_ci; then scripts/local_slurm.sh; fi
  cargo clippy --package infermark-communicator --package infermark-cli --no-default-features --features infermark-cli/mpi --all-targets \
    --locked -- -D warnings
  cargo test --package infermark-cli --no-default-features --features mpi --locked --test ranks
}

check_cuda() {
  local status=0
  if [ "$(uname -sm)" != "Linux x86_64" ]; then
    ! in_ci || fail "CI checks CUDA on Linux x86-64"
    skip "the played card is for Linux on x86-64"
    return 0
  fi
  need "C++ compiler" g++ has g++ || return 0
  need "pip" python3-pip has_pip || return 0
  scripts/cuda_check.sh || status=$?
  # 3: NVIDIA's compiler, a package of PyPI, could not be installed.
  if [ "$status" = 3 ] && ! in_ci; then
    skip "no NVRTC, which comes from PyPI"
    return 0
  fi
  return "$status"
}

check_fuzz() {
  need "C++ compiler" g++ has c++ || return 0
  scripts/fuzz.sh 15
}

# In the profile of the tests, whose dependencies are built by now: the smoke test asks whether the benches run, not how fast. The
# release profile compiles the same code, and a release is made with it (CONTRIBUTING.md).
check_benches() { cargo bench --profile dev --locked -- --test; }

# --- The command line ---------------------------------------------------------

is_step() {
  local name
  for name in "${steps[@]}"; do [ "$name" != "$1" ] || return 0; done
  return 1
}

chosen=() from=''
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help)
    usage
    exit 0
    ;;
  --from)
    [ $# -ge 2 ] || wrong_usage "--from needs a step"
    is_step "$2" || wrong_usage "there is no step '$2'"
    from=$2
    shift
    ;;
  -*) wrong_usage "unknown option $1" ;;
  *)
    is_step "$1" || wrong_usage "there is no step '$1'"
    chosen+=("$1")
    ;;
  esac
  shift
done
if [ -n "$from" ]; then
  [ ${#chosen[@]} -eq 0 ] || wrong_usage "--from takes the place of a list of steps"
  for name in "${steps[@]}"; do
    [ "$name" != "$from" ] || from=''
    [ -n "$from" ] || chosen+=("$name")
  done
fi
[ ${#chosen[@]} -gt 0 ] || chosen=("${steps[@]}")

# --- Run ----------------------------------------------------------------------

if in_ci; then
  # Nothing is built twice here, so what incremental compilation writes for the next build is work for nothing.
  export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
fi

# Offline the pinned version may be installed under another name, such as `stable`.
if has rustup && ! rustc --version >/dev/null 2>&1; then
  pinned=$(pinned_toolchain)
  while read -r name _; do
    if [ "$(RUSTUP_TOOLCHAIN=$name rustc --version 2>/dev/null | cut -d ' ' -f 2)" = "$pinned" ]; then
      export RUSTUP_TOOLCHAIN=$name
      break
    fi
  done < <(rustup toolchain list)
fi
rustc --version >/dev/null 2>&1 || fail "rustc does not run: install the toolchain of rust-toolchain.toml (https://rustup.rs)"

taken=()
trap '[ $? = 0 ] || [ -z "$step" ] || printf "check.sh: %s failed\n" "$step" >&2' EXIT
for step in "${chosen[@]}"; do
  printf '\n== %s (%s)\n' "$step" "$(date -u +%H:%M:%S)"
  started=$SECONDS skipped=${#skips[@]} note=''
  "check_${step//-/_}"
  [ ${#skips[@]} = "$skipped" ] || note='  skipped, as a whole or in part'
  taken+=("$(printf '%-10s %5d s%s' "$step" $((SECONDS - started)) "$note")")
done
step=''

printf '\n== passed\n'
printf '%s\n' "${taken[@]}"
if [ ${#skips[@]} -gt 0 ]; then
  printf '\nskipped:\n'
  printf '  %s\n' "${skips[@]}"
fi
