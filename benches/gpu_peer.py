"""LlamaForCausalLM (transformers, fp16, SDPA) on one GPU, of the shape and with the work that `llmar bench --synthetic` measures.

Prints one JSON object: decoding with a static cache, prefill of packed clips (padded here: the peer has no packing), greedy recognitions of a batch.
Weights are made up, as there: throughput does not depend on them.
"""

import argparse
import json
import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

SHAPES = {
    "llama-7b": dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
    "llama-13b": dict(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
}


def seconds(work, repeats):
    """Median time of five runs on the GPU, after two to warm up."""
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    runs = []
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        torch.cuda.synchronize()
        runs.append(start.elapsed_time(end) / 1e3 / repeats)
    return statistics.median(runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="llama-13b")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=40, help="tokens of a clip in the prefill measurement")
    parser.add_argument("--question", type=int, default=40, help="tokens of a whole prompt in the recognition measurement")
    parser.add_argument("--answer", type=int, default=4, help="tokens generated for a label, EOS included")
    parser.add_argument("--vocab", type=int, default=49152, help="the vocabulary of the model whose labels the other side scores")
    args = parser.parse_args()

    config = LlamaConfig(vocab_size=args.vocab, max_position_embeddings=2048, **SHAPES[args.shape])
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, args.vocab, (args.batch, max(args.prompt, args.question)), device="cuda")
    result = {"shape": args.shape, "torch": torch.__version__, "gpu": torch.cuda.get_device_name(), "batch": args.batch}

    with torch.inference_mode():
        # Decoding: one token behind 64 others, static cache, the forward pass as a CUDA graph where torch captures it.
        context = 64
        cache = StaticCache(config=config, max_cache_len=context + 8)
        model(ids[:1, :1].repeat(1, context), past_key_values=cache, use_cache=True, cache_position=torch.arange(context, device="cuda"))
        one = ids[:1, :1].clone()
        position = torch.tensor([context], device="cuda")

        def step():
            return model(one, past_key_values=cache, use_cache=True, cache_position=position).logits

        eager = seconds(step, 5)
        graphed = None
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graphed = seconds(graph.replay, 5)
        except Exception as error:  # some versions of transformers do not capture
            result["decode_graph_error"] = str(error)[:200]
        result["decode_s"] = {"eager": eager, "cuda_graph": graphed}

        prompt = ids[:, : args.prompt].contiguous()
        result["prefill_s"] = seconds(lambda: model.model(prompt, use_cache=True), 2)

        question = ids[:, : args.question].contiguous()
        mask = torch.ones_like(question)

        def recognise():
            model.generate(question, attention_mask=mask, max_new_tokens=args.answer, min_new_tokens=args.answer, do_sample=False, pad_token_id=0)

        recognise()
        torch.cuda.synchronize()
        runs = []
        for _ in range(5):
            start = time.perf_counter()
            recognise()
            torch.cuda.synchronize()
            runs.append(time.perf_counter() - start)
        result["recognise_batch_s"] = statistics.median(runs)
        result["recognitions_per_s"] = args.batch / result["recognise_batch_s"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
