"""gpu_table.py OUT: what `make bench-gpu` left in OUT as the table of benches/results/gpu.md, asked beside measured."""

import json
import pathlib
import sys


def load(path):
    return json.loads(path.read_text()) if path.exists() else None


def main():
    out = pathlib.Path(sys.argv[1])
    auto, kernel, peer = (load(out / name) for name in ("llama-13b.json", "llama-13b-kernel.json", "transformers.json"))

    def line(report, start, scheme=""):
        return next(l for l in report["lines"] if l["work"].startswith(start) and scheme in l["work"])

    def share(report, start, scheme=""):
        found = line(report, start, scheme)
        return f"{100 * found['share_of_floor']:.0f} % ({found['us'] / 1e3:.2f} ms; {found['rate']})"

    ceilings = auto["ceilings"]
    ratio = {entry["scheme"]: entry["ratio"] for entry in auto["decode_speed_over_f16"]}
    print(f"{auto['device']}: copy {ceilings['copy_gb_per_s']:.0f} GB/s, dense f16 product {ceilings['product_tflop_per_s']:.0f} TFLOP/s ({ceilings['product_by']})\n")
    print("| work | asked | measured |\n|---|---|---|")
    print(f"| decode, f16: of copy bandwidth | 85 % | {share(auto, 'decode', 'F16')} |")
    print(f"| decode, q4: speed over f16 | 3.0 x | {ratio['q4']:.2f} x |")
    print(f"| decode, q8: speed over f16 | | {ratio['q8']:.2f} x |")
    print(f"| prefill, f16: of the dense product | 70 % | {share(auto, 'prefill', 'F16')} |")
    if kernel:
        print(f"| the same without cuBLASLt | | {share(kernel, 'prefill', 'F16')} |")
    batch = next(l for l in auto["lines"] if l["work"].startswith("recognise") and "recognise 1 " not in l["work"] and "F16" in l["work"])
    clips = int(batch["work"].split()[1])
    mine = clips / (batch["us"] / 1e6)
    theirs = f"{mine / peer['recognitions_per_s']:.2f} x ({mine:.1f} against {peer['recognitions_per_s']:.1f})" if peer else f"{mine:.1f}, no peer"
    print(f"| recognitions/s, batches of {clips}, f16, over LlamaForCausalLM | 3 x | {theirs} |")
    print(f"| quantiser: of the larger floor | 60 % | {share(auto, 'quantiser')} |")


if __name__ == "__main__":
    main()
