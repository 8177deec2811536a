#!/usr/bin/env bash
# folds.sh PYTHON TRAIN DATA OUT NAME SET [pool] [SETTING...]: one row of benches/results/accuracy.md's "What other clips taught": stage 1 at width 64 with these
# settings on every fold of a set's training side, and the mean of what a linear reading of the held-out clips' tokens names. SET is msr (each odd
# subject), ucla (each training camera) or jhmdb (four stretches of split 1). With `pool`, from an encoder that other clips taught
# first, never those of the fold. No test side is read. About 25 s a fold on one core; finished folds are kept.
# BASE=base.safetensors: also what the language model answers, taught with the same changes of clips (in f32 with PRECISION=f32), a minute or two more a fold.
set -euo pipefail
python=$1 train=$2 data=$3 out=$4 name=$5 set=$6
shift 6
here=$(dirname "$0")
config=$here/../llmar-train/configs/utd-mhad-stage1.toml
pool=
if [ "${1:-}" = pool ]; then
  pool=1
  shift
fi
common=(encoder.width=64)
pictures=(input.coords=2 input.root=belly 'input.scale={kind="segment",from="belly",to="neck",length=0.5}')
utd=$data/utd_mhad.safetensors:cross_subject
msr=$data/msr_action3d.safetensors:cross_subject:used_cvpr12=1
ucla=$data/nw_ucla.safetensors:cross_view
case $set in
  msr) common+=("data.archive=$data/msr_action3d.safetensors" data.only=used_cvpr12); folds=(1 3 5 7 9) ;;
  ucla) common+=("data.archive=$data/nw_ucla.safetensors" data.split=cross_view augment.mirror=0.5); folds=(1 2) ;;
  jhmdb) common+=("data.archive=$data/jhmdb14.safetensors" data.split=split1 augment.mirror=0.5 "${pictures[@]}"); folds=(0 1 2 3) ;;
  *) echo "SET: msr, ucla or jhmdb, not $set" >&2; exit 2 ;;
esac

stage1() { # FOLDER SETTING...: trains unless it is there
  local run=$1 settings=()
  shift
  for setting in "$@"; do settings+=(--set "$setting"); done
  mkdir -p "$run"
  [ -s "$run/summary.json" ] && return
  "$train" vqvae "$config" "${settings[@]}" --out "$run" --resume > "$run/summary.part" 2> "$run/errors" || { tail -n 3 "$run/errors" >&2; exit 1; }
  mv "$run/summary.part" "$run/summary.json"
}

# The language model on top of a finished stage 1. What `augment` does to clips of stage 1, `variation.clip` does to those of stage 2.
stage2() { # FOLDER SETTING...
  local run=$1 settings=("precision=${PRECISION:-bf16}")
  shift
  for setting in "$@"; do
    case $setting in
      augment.*) settings+=("variation.clip.${setting#augment.}") ;;
      data.*|seed=*) settings+=("$setting") ;;
    esac
  done
  [ -s "$run/answers.json" ] && return
  "$train" lora "$here/../llmar-train/configs/utd-mhad-stage2.toml" "${settings[@]/#/--set=}" --base "$BASE" --stage1 "$run/stage1.safetensors" \
    --out "$run/stage2" --resume > "$run/answers.part" 2> "$run/errors" || { tail -n 3 "$run/errors" >&2; exit 1; }
  mv "$run/answers.part" "$run/answers.json"
}

# Encoder that starts a fold: names the folder. Two pools serve the five subjects of MSR-Action3D, so each lacks more than its fold.
pooled() { # FOLD
  local sets held settings=(encoder.width=64 features.steps=1600 codes.steps=1 quantizer.kmeans_rounds=1 data.split=pool)
  case $set$1 in
    msr[135]) held=msr-without-1-3-5 sets=("$utd" "$ucla" "$msr:subjects!=1,3,5") ;;
    msr*) held=msr-without-7-9 sets=("$utd" "$ucla" "$msr:subjects!=7,9") ;;
    ucla*) held=ucla-without-$1 sets=("$utd" "$msr" "$ucla:cameras!=$1") ;;
    jhmdb*) held=pictures sets=(--pictures 2 "$utd" "$msr" "$ucla") settings+=("${pictures[@]}") ;;
  esac
  [ "$set" = jhmdb ] || settings+=(augment.yaw=1.0)
  mkdir -p "$out"
  [ -s "$out/$held.safetensors" ] || "$python" "$here/pool.py" "$out/$held.safetensors" "${sets[@]}" >&2
  stage1 "$out/pool-$held" "data.archive=$out/$held.safetensors" "${settings[@]}"
  echo "$out/pool-$held/stage1.safetensors"
}

runs=()
for fold in "${folds[@]}"; do
  case $set in
    msr) own=("data.validation_subjects=[$fold]") ;;
    ucla) own=("data.validation_cameras=[$fold]") ;;
    jhmdb) own=("data.validation_fold=[$fold,4]") ;;
  esac
  if [ -n "$pool" ]; then
    start=$(pooled "$fold")
    own+=("encoder.start=$start")
  fi
  runs+=("$out/$name-$set-$fold")
  stage1 "$out/$name-$set-$fold" "${common[@]}" "${own[@]}" "$@"
  [ -z "${BASE:-}" ] || stage2 "$out/$name-$set-$fold" "${common[@]}" "${own[@]}" "$@"
done
"$python" - "$name" "$set" "${runs[@]}" << 'PY'
import json, pathlib, statistics, sys
def row(of, values):
    print(f"| {sys.argv[1]} | {sys.argv[2]} | {of} | " + ", ".join(f"{x:.1f}" for x in values) + f" | {statistics.mean(values):.1f} |")
read = lambda name: [json.loads(file.read_text()) for run in sys.argv[3:] if (file := pathlib.Path(run) / name).exists()]
row("tokens", [summary["probe_tokens"] for summary in read("summary.json")])
if answers := read("answers.json"):
    row("the language model", [summary["validation"]["top1"] for summary in answers])
PY
