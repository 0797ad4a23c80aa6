"""Trains a sequence classifier of Transformers, or PEFT's adapter on one, with dropout masks that are given.

stdin: {"base", "adapter" (null: none), "seed", "lr", "warmup", "decay", "clip", "batches": [[{"ids", "types", "key",
"label"}]]}; stdout: {"losses", "norms"} of the updates.

The masks: an element is dropped where word element%4 of Philox4x32-10 (Salmon et al. 2011), at counter (element/4, site,
key of the sequence, step) under the seed, is below rate 2^32. Where dropout is applied is up to the libraries.
"""

import importlib
import json
import os
import re
import sys
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
warnings.filterwarnings("ignore")
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup


def philox(key, counter):
    """Four words (...,4) for counters whose four parts broadcast."""
    c = [np.asarray(x, np.uint64) for x in counter]
    k, half, low = [key & 0xFFFFFFFF, key >> 32], np.uint64(32), np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p, q = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(q >> half) ^ c[1] ^ np.uint64(k[0]), q & low, (p >> half) ^ c[3] ^ np.uint64(k[1]), p & low]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, -1)


# The known answers of Random123.
assert philox(0, [0] * 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox(2**64 - 1, [2**32 - 1] * 4).tolist() == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def site_of(path):
    """FNV-1a of a path, as a multiple of 4096."""
    h = 2166136261
    for b in path.encode():
        h = (h ^ b) * 16777619 & 0xFFFFFFFF
    return h & 0x7FFFF000


# The sites of a module that drops, by its name; one with two sites is called twice in a pass.
SITES = [
    (r"(\w+\.embeddings)\.dropout", [r"\1"]),
    (r"(.*\.output)\.dropout", [r"\1.dense"]),
    (r"(.*\.ffn)\.dropout", [r"\1.lin2"]),
    (r"dropout", ["classifier"]),
    (r"classifier\.dropout", ["classifier.dense.before", "classifier.out_proj"]),
    (r"(.*\.lora_dropout)", [r"\1"]),
]


class Masks:
    """Takes the place of a model's dropout. Set keys (N) and step before each pass."""

    def __init__(self, model, seed):
        self.seed, self.keys, self.step = seed, [], 0
        heads = {}
        for name, module in model.named_modules():
            name = re.sub(r"^base_model\.model\.|\.(default|modules_to_save)(?=\.|$)", "", name)  # without PEFT's parts
            if hasattr(module, "scaling") and not isinstance(module.scaling, dict):
                heads[module] = site_of(re.sub(r"\.self$", "", name) + ".probabilities")
            elif isinstance(module, torch.nn.Dropout):
                sites = [[m.expand(s) for s in t] for p, t in SITES if (m := re.fullmatch(p, name))]
                module.forward = self.module(module, sites[0] if sites else [])
        library = importlib.import_module("transformers.models.{0}.modeling_{0}".format(model.config.model_type))
        eager = library.eager_attention_forward
        library.eager_attention_forward = lambda module, *a, **k: self.attention(eager, heads[module], module, *a, **k)

    def module(self, module, sites):
        calls = 0

        def forward(x):
            nonlocal calls
            if not module.training:
                return x
            site, calls = sites[calls % len(sites)], calls + 1
            return x * self.mask(site_of(site), np.arange(x[0].numel()), module.p).reshape(x.shape)

        return forward

    def attention(self, eager, site, *a, **k):
        """The library's attention, in which one call drops."""
        torch_dropout = torch.nn.functional.dropout

        def dropout(x, p, training):
            n = np.arange(x.shape[-1])
            elements = (n[:, None] << 16 | n).reshape(-1)
            return x * torch.stack([self.mask(site + h, elements, p) for h in range(x.shape[1])], 1).reshape(x.shape) if training else x

        torch.nn.functional.dropout = dropout
        try:
            return eager(*a, **k)
        finally:
            torch.nn.functional.dropout = torch_dropout

    def mask(self, site, elements, rate):
        """What elements (E) of each sequence are multiplied by (N,E)."""
        words = philox(self.seed, [elements >> 2, site, np.array(self.keys)[:, None], self.step])
        word = np.take_along_axis(words, np.broadcast_to((elements & 3)[:, None], words.shape[:2] + (1,)), 2)[..., 0]
        return torch.from_numpy(np.where(word < int(rate * 2**32), 0, 1 / (1 - rate)).astype(np.float32))


def pad(rows, pad_token):
    """Inputs of a batch, each sequence padded to the longest."""
    width = max(len(r["ids"]) for r in rows)
    fill = lambda v, x: v + [x] * (width - len(v))
    columns = {
        "input_ids": [fill(r["ids"], pad_token) for r in rows],
        "token_type_ids": [fill(r["types"], 0) for r in rows],
        "attention_mask": [fill([1] * len(r["ids"]), 0) for r in rows],
    }
    return {k: torch.tensor(v) for k, v in columns.items()}


def train(model, masks, job):
    """Losses of the batches, and the norms of their gradients."""
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=job["lr"], weight_decay=job["decay"])
    schedule = get_linear_schedule_with_warmup(optimizer, job["warmup"], len(job["batches"]))
    losses, norms = [], []
    model.train()
    for step, rows in enumerate(job["batches"]):
        masks.step, masks.keys = step, [r["key"] for r in rows]
        inputs = pad(rows, model.config.pad_token_id)
        if model.config.model_type == "distilbert":
            del inputs["token_type_ids"]
        logits = model(**inputs).logits[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([float(r["label"]) for r in rows]))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(params, job["clip"]).item())
        optimizer.step(), schedule.step(), optimizer.zero_grad()
        losses.append(loss.item())
    return {"losses": losses, "norms": norms}


def main():
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(job["base"], num_labels=1, attn_implementation="eager")
    if job["adapter"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)
    json.dump(train(model, Masks(model, job["seed"]), job), sys.stdout)


if __name__ == "__main__":
    main()
