#!/usr/bin/env bash
# elsewhere.sh PYTHON TRAIN BASE DATA OUT NAME SEED [SETTING...]: one row of benches/results/accuracy.md's "Other people's recordings": the demo adapter's recipe with
# these settings of stage 1, taught by UTD-MHAD's training side, in q8 through the C ABI, asked about clips that others recorded: the classes that MSR-Action3D and
# NW-UCLA share with it, their training sides, so that settings can be chosen. Two to three minutes on one core; finished runs are kept.
# PART=test asks the other sides; a model.llmar that lies in OUT/NAME-SEED is asked as it is; CONFIG=demo begins with what ships instead of with utd-mhad-stage1.toml and utd-mhad-stage2.toml.
set -euo pipefail
python=$1 train=$2 base=$3 data=$4 out=$5 name=$6 seed=$7
shift 7
configs=$(dirname "$0")/../llmar-train/configs
run=$out/$name-$seed part=${PART:-train} config=${CONFIG:-utd-mhad}
common=(--set "data.archive=$data/utd_mhad.safetensors" --set "seed=$seed")
mkdir -p "$run"

# What `augment` does to clips of stage 1, `variation.clip` does to those of stage 2.
settings1=() settings2=()
for setting in "$@"; do
  settings1+=(--set "$setting")
  case $setting in augment.*) settings2+=(--set "variation.clip.${setting#augment.}") ;; esac
done
if [ ! -s "$run/model.llmar" ]; then
  "$train" vqvae "$configs/$config-stage1.toml" "${common[@]}" "${settings1[@]}" --out "$run" --resume > "$run/summary.json" 2> "$run/errors" &&
    "$train" lora "$configs/$config-stage2.toml" "${common[@]}" "${settings2[@]}" --base "$base" --stage1 "$run/stage1.safetensors" \
      --out "$run/stage2" --resume > "$run/answers.json" 2>> "$run/errors" &&
    "$train" export --base "$base" --stage1 "$run/stage1.safetensors" --adapter "$run/stage2/adapter.safetensors" --scheme q8 \
      --out "$run/model.part" >> "$run/errors" 2>&1 || { tail -n 3 "$run/errors" >&2; exit 1; }
  mv "$run/model.part" "$run/model.llmar"
fi

ask() { # SET SPLIT FILE [OPTION...]
  local set=$1 split=$2 file=$3 classes
  shift 3
  mapfile -t classes < <("$python" "$(dirname "$0")/shared_classes.py" --as "$set")
  "$train" evaluate --model "$run/model.llmar" --data "$data/$set.safetensors" --split "$split" --part "$part" --json "$@" "${classes[@]}" > "$file"
}
ask msr_action3d cross_subject "$run/msr-$part.json" --only used_cvpr12
ask nw_ucla cross_view "$run/ucla-$part.json"
"$python" - "$name" "$seed" "$run/msr-$part.json" "$run/ucla-$part.json" << 'PY'
import json, pathlib, sys
reports = [json.loads(pathlib.Path(file).read_text()) for file in sys.argv[3:]]
cells = [f"{r['top1']:.1f} ({r['n']} clips, mean class {r['mean_class']:.1f}, ECE {r['ece']:.3f})" for r in reports]
print(f"| {sys.argv[1]} | {sys.argv[2]} | " + " | ".join(cells) + " |")
PY
