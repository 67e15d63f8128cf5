"""What the tests of patching share: a small corpus in two languages, and models that are hurt at known places."""

import copy

import pandas as pd
import torch

import probes

TEXTS = [
    "a big red dog ran",
    "the cat sat on the mat",
    "a bird sang",
    "it ran over the big house",
    "she sat",
    "red mat",
]


def corpus_of(languages=("en", "xx"), labels="012", texts=TEXTS):
    """Texts in so many languages, each with a label that says nothing; without where there are to be none."""
    rows = [
        {"id": i, "language": k, "text": t if k == "en" else " ".join(reversed(t.split()))}
        | ({"label": labels[i % 3]} if labels else {})
        for k in languages
        for i, t in enumerate(texts)
    ]
    return probes.load_corpus(pd.DataFrame(rows))


def hurt(model, *layers, by=0.5, seed=0):
    """A copy of a model with noise in all weights of some layers, from 1."""
    from probes.states.resumed import blocks_of

    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            for parameter in blocks_of(other)[layer - 1].parameters():
                parameter.add_(by * torch.randn_like(parameter))
    return other
