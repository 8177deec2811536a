#!/usr/bin/env bash
# libtorch.sh PYTHON DIR: libtorch 2.11.0 (the version of tch 0.24.0) into DIR from PyPI wheels, linked as DIR/torch.
# Python is only used to unpack it; the libraries for GPUs are left out.
set -euo pipefail
python=$1 dir=$2
"$python" -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile \
  torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
torch=$(echo "$dir"/lib/python3.*/site-packages/torch)
rm -rf "$torch"/lib/libtorch_{cuda,cuda_linalg,nvshmem,python}.so "$torch"/bin/*
ln -sfn "${torch#"$dir"/}" "$dir/torch"
