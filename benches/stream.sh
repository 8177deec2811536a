#!/usr/bin/env bash
# stream.sh PYTHON VENV LLMAR MODEL ARCHIVE GGUF: live streams, with llama.cpp beside them (see stream_peer.py).
set -euo pipefail
python=$1 venv=$2 here=$(dirname "$0")
source "$here/peers_env.sh"
# cargo names the program it has built in its last line: "Executable … (target/release/deps/stream-…)".
bench=$(cargo bench --locked -p llmar-sys --bench stream --no-run 2>&1 | tee /dev/stderr | sed -n 's/.*Executable.*(\(.*\)).*/\1/p')
exec "$venv/bin/python" "$here/stream_peer.py" "$bench" "${@:3}"
