"""Beside llama.cpp: what one update of a live stream costs, against reading the whole window anew and naming it greedily.

usage: stream_peer.py BENCH LLMAR MODEL.llmar ARCHIVE BASE.gguf [--threads 2] [--rounds 5] [--json FILE]

BENCH is the program of benches/stream. Each round runs both once: libllmar's update is four frames pushed and a poll (skeleton to smoothed
probabilities), over two minutes of frames; llama.cpp gets the prompt of a full window (arbitrary ids in the place of the action tokens) and then the
tokens of a label, forced to be one of the labels'. Afterwards the long run, the crowd, cancelled polls and the untrimmed sequences, by BENCH alone.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import time

import peers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bench", "llmar", "model", "archive", "gguf"):
        parser.add_argument(name)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json")
    args = parser.parse_args()

    def ours(part: str, *more: str, threads: int = args.threads) -> dict:
        command = [args.bench, args.model, args.archive, "--threads", str(threads), "--only", part, "--json", *more]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[part]

    meta = json.loads(subprocess.run([args.llmar, "info", args.model, "--json"], check=True, capture_output=True).stdout)
    tokens = meta["preprocess"]["frames"] >> meta["encoder"]["halvings"]
    prompt = meta["prompt"]["prefix_ids"] + [1000 + 97 * i for i in range(tokens)] + meta["prompt"]["suffix_ids"]
    # The label of the middle length in tokens.
    answer = sorted((label["ids"] for label in meta["labels"]), key=len)[len(meta["labels"]) // 2]
    quantised = str(pathlib.Path(args.gguf).with_suffix(".requantised-Q8_0.gguf"))
    peers.requantise(args.gguf, quantised)
    peer = peers.Peer(quantised, args.threads)

    def recognise() -> float:
        begin = time.perf_counter()
        peer.prompt(prompt)
        for token in answer:
            peer.step([token])
        return 1e3 * (time.perf_counter() - begin)

    rounds = []
    for _ in range(args.rounds):
        update = ours("update", "--minutes", "2")
        start, times = time.perf_counter(), []
        while time.perf_counter() - start < args.seconds or len(times) < 10:
            times.append(recognise())
        rounds.append({"update": update, "peer_best_ms": min(times), "peer_p50_ms": statistics.median(times)})
    report = {
        "command": "make bench-stream", "date": time.strftime("%Y-%m-%d"), "cpu": peers.cpu_name(), "threads": args.threads,
        "llama_cpp_python": peers.llama_cpp.__version__, "prompt_tokens": len(prompt), "label_tokens_with_eos": len(answer) + 1,
        "rounds": rounds,
        "ratio_of_medians": [r["update"]["p50_ms"] / r["peer_p50_ms"] for r in rounds],
        "ratio_of_bests": [r["update"]["best_ms"] / r["peer_best_ms"] for r in rounds],
        "long": ours("update", "--minutes", "10"), "crowd": ours("crowd"), "cancel": ours("cancel"), "cancel8": ours("cancel8"),
        # With a core left for the thread that cancels, so that the scheduler has no part in it.
        "cancel_free_core": ours("cancel", threads=max(1, args.threads - 1)), "untrimmed": ours("untrimmed"),
    }
    for name in ("ratio_of_medians", "ratio_of_bests"):
        print(f"{name:18} {' '.join(f'{ratio:.3f}' for ratio in report[name])}   (asked: 0.125)")
    best = min(rounds, key=lambda r: r["update"]["best_ms"])
    print(f"update             {best['update']['p50_ms']:.2f} ms median, {best['update']['best_ms']:.2f} ms at best, "
          f"{best['update']['passes_per_decision']:.2f} passes of {best['update']['rows_per_decision']:.1f} rows in all")
    print(f"llama.cpp          {best['peer_p50_ms']:.2f} ms median, {best['peer_best_ms']:.2f} ms at best, "
          f"prompt of {len(prompt)} tokens and {len(answer) + 1} of the label")
    for part in ("long", "crowd", "cancel", "cancel_free_core", "cancel8", "untrimmed"):
        for name, value in report[part].items():
            print(f"{part:16} {name:28} {value}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


main()
