#!/usr/bin/env bash
# Runs the tests of the GPU backends through CUDA without a card: on the played card of tools/played-card, in three orders of
# blocks and threads, every kernel that they ask for compiled by the real NVRTC too, for the card that is played and for the oldest
# and the newest architecture.
#
#   scripts/cuda_check.sh                    all of it
#   scripts/cuda_check.sh --orders forward   one order
#   scripts/cuda_check.sh --release          the tests of the release profile
#
# Needs Linux on x86-64, g++, and Python 3.10 or later with pip, which loads NVRTC (50 MB) into target/played-card. Every test that
# opens a CUDA device is covered, and every kernel that such a test asks for. From the environment:
#   CUDA_NVRTC          the wheel of NVRTC (nvidia-cuda-nvrtc==13.0.88)
#   CUDA_ARCHITECTURES  compute capabilities (75,120: the oldest and the newest that this NVRTC knows)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
card=$root/tools/played-card
dir=$root/target/played-card
wheel=${CUDA_NVRTC:-nvidia-cuda-nvrtc==13.0.88}
fail() {
  printf 'cuda_check.sh: %s\n' "$*" >&2
  exit 1
}

orders="forward reverse shuffled"
profile=()
while [ $# -gt 0 ]; do
  case $1 in
  --orders)
    [ $# -ge 2 ] || fail "--orders needs a value: forward, reverse, shuffled"
    orders=${2//,/ }
    shift
    ;;
  --release) profile=(--release) ;;
  -h | --help)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"
    exit 0
    ;;
  *) fail "unknown option $1; see --help" ;;
  esac
  shift
done
[ "$(uname -sm)" = "Linux x86_64" ] || fail "needs Linux on x86-64"
command -v g++ >/dev/null || fail "no g++ on the PATH"
command -v python3 >/dev/null || fail "no python3 on the PATH"

# The card, and the header that the kernels name: NVRTC brings all that they use of it.
mkdir -p "$dir/card" "$dir/cuda/include"
: >"$dir/cuda/include/cuda_runtime.h"
cp "$card/played_cuda.h" "$dir/card/"
g++ -std=c++17 -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$dir/card/libcuda.so.1" "$card/libcuda.cc" -ldl -lpthread
g++ -std=c++17 -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libnvrtc.so.13 -o "$dir/card/libnvrtc.so.13" "$card/libnvrtc.cc"
ln -sf libcuda.so.1 "$dir/card/libcuda.so"
ln -sf libnvrtc.so.13 "$dir/card/libnvrtc.so"
rm -rf "$dir/kernels"

# The real compiler.
if [ "$(cat "$dir/nvrtc/VERSION" 2>/dev/null)" != "$wheel" ]; then
  rm -rf "$dir/nvrtc"
  PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
    python3 -m pip install --quiet --no-deps --target "$dir/nvrtc" "$wheel" || fail "pip could not install $wheel"
  printf '%s\n' "$wheel" >"$dir/nvrtc/VERSION"
fi
nvrtc=$(find "$dir/nvrtc" -name 'libnvrtc.so.1?' | head -n 1)
[ -n "$nvrtc" ] || fail "no libnvrtc.so in the wheel $wheel"

# on_card ORDER BINARY ARGUMENT..
on_card() {
  local order=$1
  shift
  PLAYED_ORDER=$order PLAYED_CARD=$dir/card PLAYED_KERNELS=$dir/kernels PLAYED_STATS=1 CUDA_PATH=$dir/cuda \
    LD_LIBRARY_PATH=$dir/card${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} \
    INFERMARK_TEST_DEVICE=cuda VK_LOADER_DRIVERS_DISABLE='*' "$@"
}

mkdir -p "$dir/kernels"
g++ -std=c++17 -O1 -Wall -Wextra -o "$dir/self_test" "$card/self_test.cc" -ldl
for order in forward reverse; do
  PLAYED_MODE=run on_card "$order" "$dir/self_test" >"$dir/self_test.out" 2>"$dir/self_test.log" ||
    { cat "$dir/self_test.out" >&2; fail "the played card does not find the faults that it is for"; }
done
rm -rf "$dir/kernels"
mkdir -p "$dir/kernels"

tests=$(cargo test "${profile[@]}" --locked -p infermark-svi-gpu -p infermark-svi-tensor -p infermark-gaussian-gpu --no-run --message-format=json 2>/dev/null |
  python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable") and found.get("profile", {}).get("test"):
        print(found["executable"])')
[ -n "$tests" ] || fail "cargo built no tests"

launched=0
for order in $orders; do
  for test in $tests; do
    package=$(basename "${test%-*}")
    if ! on_card "$order" "$test" --test-threads=1 >"$dir/$package-$order.log" 2>&1; then
      cat "$dir/$package-$order.log" >&2
      fail "$package, $order order: a test failed on the played card"
    fi
    launches=$(sed -n 's/^played card: .*: \([0-9]*\) launches.*/\1/p' "$dir/$package-$order.log" | paste -sd+ - | sed 's/^$/0/')
    launched=$((launched + launches))
    printf '%s, %s order: %s, %s launches\n' "$package" "$order" "$(sed -n 's/^test result: \(ok\. [0-9]* passed\).*/\1/p' "$dir/$package-$order.log")" "$((launches))"
  done
done
[ "$launched" -gt 0 ] || fail "no test asked for the card"

python3 "$card/nvrtc.py" "$nvrtc" --architectures "${CUDA_ARCHITECTURES:-75,120}" --include "$dir/cuda/include" "$dir"/kernels/*.cu
