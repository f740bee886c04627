#!/usr/bin/env bash
# Fuzzes everything that reads a file, each target for so many seconds: scripts/fuzz.sh [SECONDS [TARGET ..]].
#
# libFuzzer with the coverage that a stable compiler can insert; `cargo fuzz run TARGET` with a nightly one adds the address sanitizer.
# The corpora are in fuzz/corpus; what is found new is kept in fuzz/found, what fails in fuzz/failures. As many targets run at a time
# as the machine has cores, with their output in fuzz/found/TARGET.log; that of one that fails is printed whole.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  targets=(sales_csv sales_parquet truth_csv fit_record posterior_csv draws_parquet case_record baseline_json priors_json point_json)
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# For the target alone: build scripts run without coverage.
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS=${RUSTFLAGS//$'\n'/}
cargo build --manifest-path fuzz/Cargo.toml --release --locked --target "$host"

# fuzz TARGET: runs it, and leaves a file where it passed.
fuzz() {
  local target=$1
  # An input of 256 kB may take 20 times its size and 200 MB; one that takes a minute hangs.
  if "fuzz/target/$host/release/$target" "fuzz/found/$target" "fuzz/corpus/$target" -max_total_time="$seconds" \
    -max_len=262144 -rss_limit_mb=600 -malloc_limit_mb=300 -timeout=60 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="fuzz/failures/$target-" >"fuzz/found/$target.log" 2>&1; then
    touch "fuzz/found/$target.passed"
    printf '%s: passed, %s inputs\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/found/$target.log")"
  else
    cat "fuzz/found/$target.log" >&2
  fi
}

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
mkdir -p fuzz/failures
for target in "${targets[@]}"; do
  mkdir -p "fuzz/found/$target"
  rm -f "fuzz/found/$target.passed"
  while [ "$(jobs -r | wc -l)" -ge "$cores" ]; do wait -n || true; done
  fuzz "$target" &
done
wait
for target in "${targets[@]}"; do
  [ -e "fuzz/found/$target.passed" ] || { printf 'fuzz.sh: %s failed\n' "$target" >&2; exit 1; }
done
