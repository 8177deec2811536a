#!/usr/bin/env bash
# peers.sh PYTHON VENV LLMAR MODEL GGUF CLIP: libllmar and llama.cpp on the same work, alternating in one run (see peers.py).
set -euo pipefail
python=$1 venv=$2 here=$(dirname "$0")
source "$here/peers_env.sh"
exec "$venv/bin/python" "$here/peers.py" "${@:3}"
