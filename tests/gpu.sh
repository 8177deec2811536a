#!/usr/bin/env bash
# The CUDA tests on a real GPU: ops against the reference, the whole recogniser against the CPU; then the ops again under compute-sanitizer.
#
# With test programs in LLMAR_TEST_BIN (a folder with `ops` and `recogniser`, as `gpu.sh --pack FOLDER` leaves them) no Rust is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
executable() { # of a cargo test target, by its selection
  cargo test --locked -p llmar-sys --no-run --message-format=json "$@" 2>/dev/null \
    | python3 -c 'import json,sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m.get("profile", {}).get("test")][-1])'
}
if [ "${1:-}" = --pack ]; then
  mkdir -p "$2"
  cp "$(executable --lib)" "$2/ops" && cp "$(executable --test cuda)" "$2/recogniser"
  exit
fi
if [ -n "${LLMAR_TEST_BIN:-}" ]; then
  ops=$LLMAR_TEST_BIN/ops recogniser=$LLMAR_TEST_BIN/recogniser
else
  ops=$(executable --lib) recogniser=$(executable --test cuda)
fi
export LLMAR_TEST_GPU=1
"$ops" device::tests --test-threads 1
"$recogniser" --test-threads 1
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$ops" device::tests --test-threads 1
  done
else
  echo 'compute-sanitizer is not installed: left out'
fi
