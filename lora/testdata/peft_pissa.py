"""Makes an adapter of PEFT that starts from singular values, moves it, saves it as it is, and prints its outputs.

peft_pissa.py BASE OUT < [[[ids], [types]], ...]
"""

import json
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification

warnings.filterwarnings("ignore")
base, out = sys.argv[1:]
torch.manual_seed(0)


def fresh():
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)


config = LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=["query", "dense"], task_type="SEQ_CLS")
model = get_peft_model(fresh(), config)
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_" in name:
            p += 0.1 * torch.randn_like(p)
model.save_pretrained(out)
model = PeftModel.from_pretrained(fresh(), out)
model.eval()
results = []
with torch.no_grad():
    for ids, types in json.load(sys.stdin):
        y = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]))
        results.append(y.logits[0].tolist())
json.dump({"outputs": results, "names": [], "trained": 0}, sys.stdout)
