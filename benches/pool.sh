#!/usr/bin/env bash
# pool.sh PYTHON TRAIN DATA OUT: the encoders from which llmar-train/configs/accuracy.toml starts, OUT/kinect/stage1.safetensors and OUT/pictures/stage1.safetensors,
# from the training sides of UTD-MHAD, MSR-Action3D and NW-UCLA in the folder DATA. A few minutes of one core. What is kept of a run is
# its encoder: the codebook of one step says nothing.
set -euo pipefail
python=$1 train=$2 data=$3 out=$4
sets=("$data/utd_mhad.safetensors:cross_subject" "$data/msr_action3d.safetensors:cross_subject:used_cvpr12=1" "$data/nw_ucla.safetensors:cross_view")
mkdir -p "$out"
start() { # NAME SETTING...
  local name=$1 settings=()
  shift
  for setting in "data.archive=$out/$name.safetensors" data.split=pool features.steps=1600 codes.steps=1 quantizer.kmeans_rounds=1 "$@"; do
    settings+=(--set "$setting")
  done
  "$train" vqvae "$(dirname "$0")/../llmar-train/configs/utd-mhad-stage1.toml" "${settings[@]}" --out "$out/$name" --resume
}
"$python" "$(dirname "$0")/pool.py" "$out/pictures.safetensors" --pictures 2 "${sets[@]}"
start pictures input.coords=2 input.root=belly 'input.scale={kind="segment",from="belly",to="neck",length=0.5}'
"$python" "$(dirname "$0")/pool.py" "$out/kinect.safetensors" "${sets[@]}"
start kinect augment.yaw=1.0
