"""Compares libllmar with llama.cpp (Q8_0, same threads, same prompt length, same answer) in one run.

usage: peers.py LLMAR MODEL.llmar BASE.gguf CLIP [--threads 2] [--rounds 5] [--seconds 1] [--json FILE]

Each round runs both programs once; every figure is the best of its rounds, because the noise of a shared machine only ever
adds time, and the ratio of each round is kept as well. llama.cpp gets SmolLM2 requantised to Q8_0, a batch as large as the
prompt, and the ids of the very prompt that libllmar reads (16 arbitrary ids in the place of the action tokens). Its "one
recognition" is what a user of llama.cpp would do: the whole prompt, then the tokens of the label greedily until EOS.
libllmar's is `llmar bench CLIP`: skeleton to label, calibrated probabilities included.
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import subprocess
import time

import llama_cpp
import numpy

Q8_0 = 7  # LLAMA_FTYPE_MOSTLY_Q8_0
PREFILL = 40
DECODE = 16


def requantise(source: str, target: str) -> None:
    if os.path.exists(target):
        return
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = Q8_0
    params.allow_requantize = True
    part = target + ".part"
    if llama_cpp.llama_model_quantize(source.encode(), part.encode(), ctypes.byref(params)) != 0:
        raise SystemExit("llama.cpp could not requantise " + source)
    os.replace(part, target)


class Peer:
    """llama.cpp behind its Python binding's low-level calls; no sampling chain, no text handling."""

    def __init__(self, path: str, threads: int) -> None:
        self.llm = llama_cpp.Llama(
            model_path=path, n_ctx=256, n_batch=256, n_ubatch=256, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.vocab = self.llm.n_vocab()

    def prompt(self, ids: list[int]) -> int:
        self.llm.reset()
        return self.step(ids)

    def step(self, ids: list[int]) -> int:
        """Evaluates ids and returns the greedy next token."""
        self.llm.eval(ids)
        logits = llama_cpp.llama_get_logits_ith(self.llm.ctx, -1)
        return int(numpy.argmax(numpy.ctypeslib.as_array(logits, shape=(self.vocab,))))


def best(seconds: float, work) -> float:
    shortest, start, runs = float("inf"), time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - begin)
        runs += 1
    return shortest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llmar", "model", "gguf", "clip"):
        parser.add_argument(name)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json")
    args = parser.parse_args()

    meta = json.loads(subprocess.run([args.llmar, "info", args.model, "--json"], check=True, capture_output=True).stdout)
    tokens = meta["preprocess"]["frames"] >> meta["encoder"]["halvings"]
    prompt = meta["prompt"]["prefix_ids"] + [1000 + 97 * i for i in range(tokens)] + meta["prompt"]["suffix_ids"]
    label_ids = {label["text"]: label["ids"] for label in meta["labels"]}
    eos = meta["prompt"]["eos_id"]

    quantised = str(pathlib.Path(args.gguf).with_suffix(".requantised-Q8_0.gguf"))
    requantise(args.gguf, quantised)
    peer = Peer(quantised, args.threads)
    prefill_ids = [(977 * i) % peer.vocab for i in range(PREFILL)]

    def ours() -> dict:
        command = [args.llmar, "bench", args.model, args.clip, "--threads", str(args.threads), "--json"]
        command += ["--seconds", str(args.seconds), "--prompt", str(PREFILL), "--batch", "1"]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def decode() -> None:
        for i in range(DECODE):
            peer.step([(977 * i) % peer.vocab])

    rows: dict[str, list[tuple[float, float]]] = {"prefill tokens/s": [], "decode tokens/s": [], "recognition ms": []}
    floors = {}
    for _ in range(args.rounds):
        report = ours()
        answer = label_ids[report["label"]]

        def recognise() -> None:
            peer.prompt(prompt)
            # Greedy decoding reads each label token to learn the next one, EOS last. The tokens are forced to be the label's:
            # an untuned model would ramble on.
            for token in answer:
                peer.step([token])

        prefill_s = best(args.seconds, lambda: peer.prompt(prefill_ids))
        peer.prompt(prefill_ids)

        def decode_again() -> None:
            peer.llm.n_tokens = PREFILL
            decode()

        decode_s = best(args.seconds, decode_again)
        rows["prefill tokens/s"].append((report["prefill_tokens_per_s"], PREFILL / prefill_s))
        rows["decode tokens/s"].append((report["decode_tokens_per_s"], DECODE / decode_s))
        rows["recognition ms"].append((report["recognition_ms"], 1e3 * best(args.seconds, recognise)))
        floors = report["floors"]

    out = {
        "command": "make bench-peers",
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "threads": args.threads,
        "llama_cpp_python": llama_cpp.__version__,
        "clip_label": report["label"],
        "prompt_tokens": len(prompt),
        "label_tokens_with_eos": len(answer) + 1,
        "eos": eos,
        "floors": floors,
        "rows": {},
    }
    print(f"{out['cpu']}, {args.threads} threads, llama-cpp-python {llama_cpp.__version__}, best of {args.rounds} rounds")
    print(f"prompt of {len(prompt)} tokens, label `{report['label']}` of {len(answer)} token(s) and EOS")
    print(f"{'':18} {'libllmar':>10} {'llama.cpp':>10} {'ratio':>7}   ratio of each round")
    for name, pairs in rows.items():
        pick = min if name.endswith("ms") else max
        mine, theirs = pick(p[0] for p in pairs), pick(p[1] for p in pairs)
        ratios = [round(a / b, 3) for a, b in pairs]
        out["rows"][name] = {"libllmar": mine, "llama_cpp": theirs, "ratio": mine / theirs, "rounds": ratios}
        print(f"{name:18} {mine:10.1f} {theirs:10.1f} {mine / theirs:7.2f}   {ratios}")
    print(f"floors here: decode {floors['decode_tokens_per_s']:.0f} tokens/s (weights read at {floors['read_gb_per_s']:.1f} GB/s), "
          f"prefill {floors['prefill_tokens_per_s']:.0f} tokens/s (the kernel on a matrix in the cache, {floors['kernel_gflop_per_s']:.0f} GFLOP/s)")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(out, indent=1) + "\n")


def cpu_name() -> str:
    try:
        for line in open("/proc/cpuinfo", encoding="utf-8"):
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


if __name__ == "__main__":
    main()
