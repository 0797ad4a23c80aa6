"""Scores texts with saved directories, through Transformers, sentence-transformers and PEFT.

stdin: {"jobs": [{"dir", "kind", "base", "length"}], "pairs": [[query, passage]]}; stdout: one list of scores a job and way.
"""
import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import warnings

warnings.filterwarnings("ignore")
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)


def classify(model, tok, pairs, length=None):
    cut = {"max_length": length} if length else {}
    x = tok([p[0] for p in pairs], [p[1] for p in pairs], padding=True, truncation="longest_first", return_tensors="pt", **cut)
    with torch.no_grad():
        return model.eval()(**x).logits.tolist()


def missing(model_class, directory):
    """Parameters that the directory lacks or that the model does not know."""
    _, info = model_class.from_pretrained(directory, output_loading_info=True)
    return sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])


def score(job, pairs):
    d, out = job["dir"], {}
    if job["kind"] == "cross":
        out["missing"] = missing(AutoModelForSequenceClassification, d)
        out["logits"] = {"transformers": classify(AutoModelForSequenceClassification.from_pretrained(d), AutoTokenizer.from_pretrained(d), pairs)}
        m = CrossEncoder(d, device="cpu")
        shown = m.predict(pairs, convert_to_tensor=True)
        out["shown"] = torch.as_tensor(shown).reshape(len(pairs), -1).tolist()
        raw = m.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
        out["logits"]["sentence-transformers"] = torch.as_tensor(raw).reshape(len(pairs), -1).tolist()
    elif job["kind"] == "bi":
        out["missing"] = missing(AutoModel, d)
        m = SentenceTransformer(d, device="cpu")
        q, p = m.encode_query([x[0] for x in pairs], convert_to_tensor=True), m.encode_document([x[1] for x in pairs], convert_to_tensor=True)
        out["logits"] = {"sentence-transformers": m.similarity_pairwise(q, p).reshape(-1, 1).tolist()}
        out["queries"], out["passages"] = q.tolist(), p.tolist()
    else:
        from peft import PeftModel

        tok = AutoTokenizer.from_pretrained(job["base"])
        base = AutoModelForSequenceClassification.from_pretrained(job["base"], num_labels=1)
        out["logits"] = {"peft": classify(PeftModel.from_pretrained(base, d), tok, pairs, job["length"])}
    return out


request = json.load(sys.stdin)
json.dump([score(j, request["pairs"]) for j in request["jobs"]], sys.stdout)
