#!/usr/bin/env bash
# Runs every test of the workspace and closes with one line: N passed, N failed, N skipped.
# A test that lacks its data prints `SKIPPED name: reason` and counts as skipped, not as passed.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log
cargo test --locked --workspace --all-features --no-fail-fast -- --show-output 2>&1 | tee "$log" | grep -E '^(test |test result|     Running|   Doc-tests|error|SKIPPED|failures:|---- .* panicked)|panicked at'
status=${PIPESTATUS[0]}
passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$log")
failed=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$log")
skips=$(grep '^SKIPPED ' "$log" | sort -u -t: -k1,1) # a test that lacks two files says so twice
skipped=$(grep -c . <<< "$skips")
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1 # it did not build
[ "$failed" -eq 0 ] || grep -A25 -E '^(---- |error)' "$log" | head -200
[ -z "$skips" ] || echo "$skips"
echo "$((passed - skipped)) passed, $failed failed, $skipped skipped"
exit "$((failed > 0))"
