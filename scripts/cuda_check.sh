#!/usr/bin/env bash
# Runs the tests of the GPU backends and of NCCL's ranks through CUDA without a card: on the played card of tools/played-card, as four
# cards, in three orders of blocks and threads (svi-tensor's in one). Then the real NVRTC compiles every kernel that they asked for, for the oldest and the newest architecture, and
# those of the published shape must fit twice on a multiprocessor.
#
#   scripts/cuda_check.sh                    all of it
#   scripts/cuda_check.sh --orders forward   one order
#
# Needs Linux on x86-64, g++, and Python 3.10 or later with pip, which loads NVRTC (50 MB) into target/played-card. Every test that
# opens a CUDA device is covered, and every kernel that such a test asks for. From the environment:
#   CUDA_NVRTC          the wheel of NVRTC (nvidia-cuda-nvrtc==13.0.88)
#   CUDA_ARCHITECTURES  compute capabilities (75,120: the oldest and the newest that this NVRTC knows)
#
# Exit status: 0 passed, 1 something failed, 3 NVRTC could not be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
card=$root/tools/played-card
dir=$root/target/played-card
include=$dir/cache/infermark/cuda/include
wheel=${CUDA_NVRTC:-nvidia-cuda-nvrtc==13.0.88}
packages="svi-gpu gaussian-gpu nccl"
# Burn's kernels, whose blocks are none of ours to keep apart: in one order.
in_one_order=svi-tensor
# Of svi-sharded those alone that open a card.
sharded="on_gpu refusals"
fail() {
  printf 'cuda_check.sh: %s\n' "$*" >&2
  exit 1
}

orders="forward reverse shuffled"
while [ $# -gt 0 ]; do
  case $1 in
  --orders)
    [ $# -ge 2 ] || fail "--orders needs a value: forward, reverse, shuffled"
    orders=${2//,/ }
    for order in $orders; do
      case $order in forward | reverse | shuffled) ;; *) fail "--orders takes forward, reverse, shuffled, not '$order'" ;; esac
    done
    shift
    ;;
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

# The card.
rm -rf "$dir/kernels" "$dir/cache" "$dir/logs"
mkdir -p "$dir/card" "$dir/logs" "$dir/kernels" "$dir/cuda/include"
: >"$dir/cuda/include/cuda_runtime.h"
cp "$card/played_cuda.h" "$dir/card/"
# Hundreds of kernels begin with it; g++ takes what is compiled where the flags are those of libnvrtc.cc.
g++ -std=c++17 -fPIC -w -fno-strict-aliasing -O1 -mfma -ffp-contract=fast -x c++-header -o "$dir/card/played_cuda.h.gch" "$card/played_cuda.h"
g++ -std=c++17 -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$dir/card/libcuda.so.1" "$card/libcuda.cc" -ldl -lpthread
g++ -std=c++17 -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libnvrtc.so.13 -o "$dir/card/libnvrtc.so.13" "$card/libnvrtc.cc"
g++ -std=c++17 -O2 -Wall -Wextra -shared -fPIC -Wl,-soname,libnccl.so.2 -o "$dir/card/libnccl.so.2" "$card/libnccl.cc" -ldl -lpthread
ln -sf libcuda.so.1 "$dir/card/libcuda.so"
ln -sf libnvrtc.so.13 "$dir/card/libnvrtc.so"

# The real compiler.
if [ "$(cat "$dir/nvrtc/VERSION" 2>/dev/null)" != "$wheel" ]; then
  rm -rf "$dir/nvrtc"
  PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
    python3 -m pip install --quiet --no-deps --target "$dir/nvrtc" "$wheel" ||
    { printf 'cuda_check.sh: pip could not install %s\n' "$wheel" >&2; exit 3; }
  printf '%s\n' "$wheel" >"$dir/nvrtc/VERSION"
fi
nvrtc=$(find "$dir/nvrtc" -name 'libnvrtc.so.1?' | head -n 1)
[ -n "$nvrtc" ] || fail "no libnvrtc.so in the wheel $wheel"

# on_card ORDER COMMAND..; its kernels are kept in a folder of the order's name.
on_card() {
  local order=$1
  shift
  mkdir -p "$dir/kernels/$order"
  PLAYED_ORDER=$order PLAYED_CARD=$dir/card PLAYED_KERNELS=$dir/kernels/$order PLAYED_STATS=1 PLAYED_DEVICES=4 CUDA_PATH=${CUDA_PATH:-$dir/cuda} \
    LD_LIBRARY_PATH=$dir/card${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} XDG_CACHE_HOME=$dir/cache \
    INFERMARK_TEST_DEVICE=cuda INFERMARK_TEST_CARDS=4 INFERMARK_TEST_ITERATIONS=40 VK_LOADER_DRIVERS_DISABLE='*' "$@"
}

g++ -std=c++17 -O1 -Wall -Wextra -o "$dir/self_test" "$card/self_test.cc" -ldl
for order in forward reverse; do
  PLAYED_MODE=run on_card "$order" "$dir/self_test" >"$dir/logs/self_test" 2>&1 ||
    { cat "$dir/logs/self_test" >&2; fail "the played card does not find the faults that it is for"; }
done
rm -rf "$dir/kernels"

# The whole workspace: a part of it would build its dependencies again, with other features.
programs=$(cargo test --workspace --locked --no-run --message-format=json 2>"$dir/logs/cargo" |
  python3 -c '
import json, pathlib, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable"):
        kind = "test" if found["profile"]["test"] else "program"
        print(kind, pathlib.Path(found["manifest_path"]).parent.name, found["executable"])') || { tail -n 40 "$dir/logs/cargo" >&2; fail "the tests did not build"; }
# tests_in ORDER: the test programs that run in it.
tests_in() {
  local package test
  for package in $packages; do grep "^test $package " <<<"$programs"; done
  for test in $sharded; do grep "^test svi-sharded .*/$test-" <<<"$programs"; done
  [ "$1" != "${orders%% *}" ] || grep "^test $in_one_order " <<<"$programs"
}
infermark=$(sed -n 's/^program cli //p' <<<"$programs" | head -n 1)
[ -n "$(tests_in "${orders%% *}")" ] && [ -n "$infermark" ] || fail "cargo built no tests, or no program"

# Tests beside each other, one a processor. Those that pass leave a file.
one() {
  local order=$1 package=$2 test=$3 name
  name=$package-$(basename "${test%-*}")-$order
  if on_card "$order" "$test" --test-threads=1 >"$dir/logs/$name" 2>&1; then
    touch "$dir/logs/$name.passed"
    printf '%s: %s, %s launches\n' "$name" "$(sed -n 's/^test result: \(ok\. [0-9]* passed\).*/\1/p' "$dir/logs/$name")" "$(launches "$name")"
  else
    cat "$dir/logs/$name" >&2
  fi
}
launches() { sed -n 's/^played card: .*: \([0-9]*\) launches.*/\1/p' "$dir/logs/$1" | awk '{ sum += $1 } END { print sum + 0 }'; }
for order in $orders; do
  while read -r _ package test; do
    while [ "$(jobs -r | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
    one "$order" "$package" "$test" &
  done < <(tests_in "$order")
done
wait
for order in $orders; do
  while read -r _ package test; do
    name=$package-$(basename "${test%-*}")-$order
    [ -e "$dir/logs/$name.passed" ] || fail "$name: a test failed on the played card"
  done < <(tests_in "$order")
  for tested in svi-gpu-against_cpu gaussian-gpu-against_cpu svi-sharded-on_gpu; do
    [ "$(launches "$tested-$order")" -gt 0 ] || fail "$tested did not ask for the card"
  done
done
[ "$(launches "svi-tensor-parity-${orders%% *}")" -gt 0 ] || fail "svi-tensor-parity did not ask for the card"

"$infermark" generate --products 20 --out "$dir/panel.parquet" --truth "$dir/truth.csv" --force >"$dir/logs/generate" 2>&1 ||
  { cat "$dir/logs/generate" >&2; fail "no panel was made"; }

# The same bits in every order.
fit() {
  local order=$1 coordinates=$2
  on_card "$order" "$infermark" fit "$dir/panel.parquet" --model published --method svi --device cuda --coordinates "$coordinates" --iterations 40 \
    --out "$dir/fits/$order-$coordinates" >"$dir/logs/fit-$order-$coordinates" 2>&1
}
rm -rf "$dir/fits"
for coordinates in published orthogonal; do
  for order in $orders; do fit "$order" "$coordinates" & done
  wait
  for order in $orders; do
    cmp "$dir/fits/${orders%% *}-$coordinates/posterior.csv" "$dir/fits/$order-$coordinates/posterior.csv" ||
      { cat "$dir/logs/fit-$order-$coordinates" >&2; fail "$order order: another posterior in $coordinates coordinates"; }
  done
  printf 'posterior in %s coordinates: the same bits in every order\n' "$coordinates"
done

# Four cards of one process give the bits of four shards on one.
shards() {
  local devices=$1
  on_card "${orders%% *}" "$infermark" fit "$dir/panel.parquet" --model published --method svi --device "$devices" --shards 4 --iterations 40 \
    --out "$dir/fits/$devices" >"$dir/logs/fit-$devices" 2>&1 || { cat "$dir/logs/fit-$devices" >&2; fail "no fit on $devices"; }
}
cards=cuda:0,cuda:1,cuda:2,cuda:3
for devices in cuda "$cards"; do shards "$devices"; done
cmp "$dir/fits/cuda/posterior.csv" "$dir/fits/$cards/posterior.csv" || fail "four cards: another posterior than four shards on one"
grep -q '"device": "4 of ' "$dir/fits/$cards/run.json" || fail "run.json does not say that there were four cards"
printf 'posterior on four cards: the bits of four shards on one\n'

# The same bits where NCCL connects the cards: of one process, and of four processes as torchrun starts them.
nccl() {
  local rank=$1 out=$2
  shift 2
  RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=4 on_card "${orders%% *}" "$infermark" fit "$dir/panel.parquet" --model published --method svi --device "$cards" \
    --iterations 40 --communicator nccl --rank-timeout 120 --out "$dir/fits/$out" "$@" >"$dir/logs/fit-$out-$rank" 2>&1
}
on_card "${orders%% *}" "$infermark" fit "$dir/panel.parquet" --model published --method svi --device "$cards" \
  --iterations 40 --communicator nccl --out "$dir/fits/nccl-here" >"$dir/logs/fit-nccl-here" 2>&1 || { cat "$dir/logs/fit-nccl-here" >&2; fail "no fit by NCCL in one process"; }
rm -f "$dir/rendezvous"
processes=
for rank in 0 1 2 3; do
  nccl "$rank" nccl-processes --rendezvous "$dir/rendezvous" &
  processes="$processes $!"
done
for process in $processes; do wait "$process" || { cat "$dir"/logs/fit-nccl-processes-? >&2; fail "no fit by NCCL of four processes"; }; done
[ ! -e "$dir/rendezvous" ] || fail "the file by which processes found each other is left"
for out in nccl-here nccl-processes; do
  cmp "$dir/fits/cuda/posterior.csv" "$dir/fits/$out/posterior.csv" || fail "$out: another posterior than four shards on one card"
done
printf 'posterior of NCCL, in one process and in four: the bits of four shards on one\n'

# The kernels of the published shape, as the program asks for them, with the header that it writes. What it fits is not looked at:
# launches do nothing here.
for coordinates in published orthogonal; do
  CUDA_PATH=/nowhere PLAYED_MODE=capture on_card "$coordinates" "$infermark" fit "$dir/panel.parquet" --model published --method svi --device cuda \
    --coordinates "$coordinates" --iterations 2 --out "$dir/fit" --force >"$dir/logs/$coordinates" 2>&1 || true
  ls "$dir/kernels/$coordinates"/products-*.cu >/dev/null 2>&1 ||
    { cat "$dir/logs/$coordinates" >&2; fail "the program asked for no kernel of the products"; }
done
[ -s "$include/cuda_runtime.h" ] || fail "the program wrote no header to $include"
compile() { python3 -B "$card/nvrtc.py" "$nvrtc" --architectures "${CUDA_ARCHITECTURES:-75,120}" --include "$include" "$@"; }
first=${orders%% *}
compile "$dir/kernels/$first"/*.cu
compile --most-registers 128 --without ex2.approx.f32 "$dir"/kernels/published/*.cu "$dir"/kernels/orthogonal/*.cu
