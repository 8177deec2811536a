#!/usr/bin/env bash
# validation.sh PYTHON TRAIN BASE OUT STAGE1.toml STAGE2.toml: what settings give on training subjects that are held out, one at a time (UTD-MHAD,
# cross_subject: subjects 1, 3, 5, 7). Settings, temperature and the threshold of `unknown` are chosen by this table; test subjects are never read.
# Two runs at a time, a quarter of an hour on two cores; runs that were interrupted go on where they stopped.
set -euo pipefail
python=$1 train=$2 base=$3 out=$4 stage1=$5 stage2=$6
# A run's folder is named after what it is a run of, so that an interrupted one goes on and a finished one of other settings or code is not shown.
out=$out/$(cat "$train" "$stage1" "$stage2" | sha256sum | cut -c1-12)
fold() {
  local held=$1 run=$out/held-$1
  mkdir -p "$run"
  rm -f "$run/summary.json"
  "$train" vqvae "$stage1" --set "data.validation_subjects=[$held]" --out "$run/stage1" --resume > "$run/stage1.json" 2> "$run/errors" &&
    "$train" lora "$stage2" --set "data.validation_subjects=[$held]" --stage1 "$run/stage1/stage1.safetensors" \
      --base "$base" --out "$run/stage2" --resume > "$run/summary.part" 2>> "$run/errors" &&
    mv "$run/summary.part" "$run/summary.json" && return
  echo "subject $held failed: $(tail -n 3 "$run/errors")" >&2
  return 1
}
for pair in "1 3" "5 7"; do
  pids=()
  for held in $pair; do
    fold "$held" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid"; done # ends the script when a run failed
done
"$python" - "$out" << 'PY'
import json, pathlib, statistics, sys
print("| held out | clips | features, linear % | tokens, linear % | codes used | perplexity | Zipf JS | LLaMA top-1 % | top-5 % | ECE | temperature | sure |")
print("|---|---|---|---|---|---|---|---|---|---|---|---|")
rows = []
for held in (1, 3, 5, 7):
    run = pathlib.Path(sys.argv[1]) / f"held-{held}"
    stage1 = json.loads((run / "stage1.json").read_text())
    stage2 = json.loads((run / "summary.json").read_text())
    v, u = stage2["validation"], stage1["train_usage"]
    rows.append([stage2["validation_clips"], stage1["probe_features"], stage1["probe_tokens"], u["used"], u["perplexity"], u["zipf_js"],
                 v["top1"], v["top5"], v["ece"], v["temperature"], v["sure"]])
def line(name, row):
    digits = (0, 1, 1, 0, 0, 3, 1, 1, 3, 2, 2)
    print(f"| {name} | " + " | ".join(f"{x:.{d}f}" for x, d in zip(row, digits)) + " |")
for held, row in zip((1, 3, 5, 7), rows):
    line(f"subject {held}", row)
line("mean", [statistics.mean(column) for column in zip(*rows)])
PY
