#!/usr/bin/env bash
# build.sh PYTHON LIBRARY DIR: builds the wheel around LIBRARY into DIR and prints its path. PYTHON has the setuptools that pyproject.toml names.
set -euo pipefail
python=$1 library=$2 dir=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
rm -rf "$dir/source" "$dir"/llmar-*.whl
cp -r "$here" "$dir/source" # setuptools writes beside its sources
cp -L "$library" "$dir/libllmar.so"
if command -v strip > /dev/null; then strip --strip-unneeded "$dir/libllmar.so"; fi
LLMAR_LIBRARY=$(realpath "$dir/libllmar.so") "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$dir" "$dir/source"
ls "$dir"/llmar-*.whl
