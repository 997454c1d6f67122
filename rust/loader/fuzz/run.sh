#!/bin/bash
# Builds the fuzz targets with AddressSanitizer and counters in every branch, and runs each for some minutes.
# Usage: run.sh MINUTES [TARGET ...]; PYTHON writes the first inputs. What is found lies in target/fuzz/found.
set -e
cd "$(dirname "$0")"
minutes=$1; shift
root=$(cd ../../.. && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
work=$root/target/fuzz
[ $# -gt 0 ] || set -- $(cd fuzz_targets && ls -- *.rs | sed 's/\.rs$//')

# cargo-fuzz sets the same flags, but takes a nightly compiler; RUSTC_BOOTSTRAP allows them to this one. Only what is built for
# --target gets them, build scripts do not.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# libjpeg-turbo and libwebp: their memory accesses are checked, too; their branches are not counted.
export "CFLAGS_${host//-/_}=-fsanitize=address"
# The same versions as everywhere; cargo adds libfuzzer-sys and what it needs.
cp "$root/Cargo.lock" Cargo.lock
cargo build --quiet --profile fuzz --target "$host"

"${PYTHON:-python3}" seeds.py "$work/corpus"
mkdir -p "$work/found"
export ASAN_OPTIONS=allocator_may_return_null=1:detect_odr_violation=0
for target in "$@"; do
  echo "== $target, $minutes minutes"
  mkdir -p "$work/corpus/$target"
  "$work/$host/fuzz/$target" "$work/corpus/$target" -max_total_time=$((minutes * 60)) -rss_limit_mb=2048 -timeout=20 \
    -max_len=4096 -artifact_prefix="$work/found/$target-" -print_final_stats=1 > "$work/$target.log" 2>&1 || failed="$failed $target"
  grep -E 'panicked|^SUMMARY|stat::number_of_executed_units' "$work/$target.log" || true
  grep -E 'cov: ' "$work/$target.log" | tail -1
done
[ -z "$failed" ] || { echo "something was found:$failed; the inputs are in $work/found" >&2; exit 1; }
