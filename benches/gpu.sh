#!/usr/bin/env bash
# gpu.sh PYTHON LLMAR MODEL CLIP OUT [DEVICE]: the figures of benches/results/gpu.md, in one run: this library, then transformers on the same GPU.
set -euo pipefail
python=$1 llmar=$2 model=$3 clip=$4 out=$5 device=${6:-cuda:0}
mkdir -p "$out"
"$llmar" bench "$model" "$clip" --device "$device" --json > "$out/demo.json"
"$llmar" bench "$model" "$clip" --device "$device" --synthetic llama-13b --json > "$out/llama-13b.json"
"$llmar" bench "$model" "$clip" --device "$device" --synthetic llama-13b
LLMAR_GEMM=kernel "$llmar" bench "$model" "$clip" --device "$device" --synthetic llama-13b --json > "$out/llama-13b-kernel.json"
if "$python" -c 'import torch, transformers; assert torch.cuda.is_available()' 2> /dev/null; then
  # A prompt as long as one of this model, and as many tokens as its longest labels.
  "$python" "$(dirname "$0")/gpu_peer.py" --shape llama-13b --batch 64 | tee "$out/transformers.json"
else
  echo 'torch with CUDA and transformers are not installed: no peer'
fi
"$python" "$(dirname "$0")/gpu_table.py" "$out"
