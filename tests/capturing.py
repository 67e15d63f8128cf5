"""What the tests of captured states share: texts, an independent computation, modules of every kind."""

import numpy as np
import pandas as pd
import torch
import xarray as xr

import probes

TEXTS = [
    "a dog sat on the mat",
    "the cat",
    "then he sang under a small tree and she ran over the red house but it sat",
    "bird",
    "the unknown-word cat ran",
    "she sang and the dog ran",
]


def make_corpus(texts, **columns):
    frame = pd.DataFrame({"id": range(len(texts)), "language": "en", "text": texts, **columns})
    return probes.load_corpus(frame)


def capture(*args, **options):
    return probes.capture(*args, **{"progress": False, **options})


def independent(body, tokenizer, corpus, pooling="mean", limit=None):
    """One text at a time, pooled in float64: (layer, example, feature)."""
    rows = []
    for row in corpus:
        texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        inputs = tokenizer(*texts, return_tensors="pt", **cut)
        if not hasattr(body.config, "type_vocab_size"):
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            states = body(**inputs, output_hidden_states=True).hidden_states
        states = np.stack([s[0].double().numpy() for s in states])
        ids = inputs["input_ids"][0].tolist()
        own = [i for i, t in enumerate(ids) if t not in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
        if pooling == "weighted":
            rows.append(np.average(states[:, own], axis=1, weights=np.arange(len(own)) + 1.0))
            continue
        at = {"mean": own, "mean_all": range(len(ids)), "first": [0], "last": [len(ids) - 1]}[pooling]
        rows.append(states[:, list(at)].mean(1))
    return np.stack(rows, 1)


def assert_close(reps, expected, atol=1e-5):
    values = reps.hidden.values if isinstance(reps, xr.Dataset) else reps
    assert values.shape == expected.shape
    np.testing.assert_allclose(values, expected, rtol=0, atol=atol)


LONG = "the red dog sat on a mat and the big cat sang under a tree then she ran over it"


class Spoiler(torch.nn.Module):
    """Modules with outputs of every kind; `spoilt` is NaN wherever there is padding."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(64, 5)
        self.spoilt = torch.nn.Identity()
        self.tuple = Pair()
        self.flat = torch.nn.Flatten()
        self.wide = torch.nn.Linear(5, 7)
        self.unused = torch.nn.Identity()

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        self.flat(x)
        self.wide(x)
        self.tuple(x)
        return self.spoilt(x.masked_fill(attention_mask.unsqueeze(-1) == 0, float("nan")))


class Pair(torch.nn.Module):
    def forward(self, x):
        return 2 * x, None


def hooks(model):
    return {n: (dict(m._forward_hooks), dict(m._forward_pre_hooks)) for n, m in model.named_modules()}


def count_rows(model, monkeypatch, stop_after=None):
    """Count the rows that a model is run on; raise once it was run on so many."""
    seen, forward = [], model.bert.forward

    def counting(*args, **inputs):
        if stop_after is not None and sum(seen) >= stop_after:
            raise KeyboardInterrupt
        seen.append(len(args[0] if args else inputs["input_ids"]))
        return forward(*args, **inputs)

    monkeypatch.setattr(model.bert, "forward", counting)
    return seen
