"""Opens an adapter with PEFT: prints its outputs on token ids and the names that it saves, and saves it again.

peft_check.py BASE ADAPTER OUT < [[[ids], [types]], ...]
"""

import json
import sys
import warnings

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoModel, AutoModelForSequenceClassification

warnings.filterwarnings("ignore")
base, adapter, out = sys.argv[1:]
with open(f"{adapter}/adapter_config.json") as f:
    classify = json.load(f)["task_type"] == "SEQ_CLS"
if classify:
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
else:
    model = AutoModel.from_pretrained(base, add_pooling_layer=False)
model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
model.eval()
results = []
with torch.no_grad():
    for ids, types in json.load(sys.stdin):
        inputs = {"input_ids": torch.tensor([ids])}
        if model.config.model_type != "distilbert":
            inputs["token_type_ids"] = torch.tensor([types])
        y = model(**inputs)
        results.append((y.logits if classify else y.last_hidden_state.mean(1))[0].tolist())
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
names = sorted(get_peft_model_state_dict(model))
model.save_pretrained(out)
json.dump({"outputs": results, "names": names, "trained": trained}, sys.stdout)
