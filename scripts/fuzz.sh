#!/usr/bin/env bash
# Fuzzes everything that reads a file, each target for so many seconds: scripts/fuzz.sh [SECONDS [TARGET ..]].
#
# libFuzzer with the coverage that a stable compiler can insert; `cargo fuzz run TARGET` with a nightly one adds the address sanitizer.
# The corpora are in fuzz/corpus; what is found new is kept in fuzz/found, what fails in fuzz/failures.
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
for target in "${targets[@]}"; do
  mkdir -p "fuzz/found/$target" fuzz/failures
  # An input of 256 kB may take 20 times its size and 200 MB; one that takes a minute hangs.
  "fuzz/target/$host/release/$target" "fuzz/found/$target" "fuzz/corpus/$target" -max_total_time="$seconds" \
    -max_len=262144 -rss_limit_mb=600 -malloc_limit_mb=300 -timeout=60 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="fuzz/failures/$target-"
done
