"""peft_logits.py BASE ADAPTER RESAVED IDS: logits of a Hugging Face LLaMA with a PEFT adapter, for tests/peft.rs.

IDS is a JSON list of lists of token ids. Prints one JSON list a prompt: the logits behind its last token. Saves the adapter anew to RESAVED,
as a program does that trained it.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

base, adapter, resaved, ids = sys.argv[1:]
torch.set_num_threads(1)
model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
model = PeftModel.from_pretrained(model, adapter).eval()
out = []
with torch.no_grad():
    for prompt in json.loads(ids):
        out.append(model(input_ids=torch.tensor([prompt])).logits[0, -1].tolist())
model.save_pretrained(resaved)
json.dump(out, sys.stdout)
