"""Rows whose classes are known, and heads on them, for representers to explain."""

import sys

import numpy as np
import pytest
import torch
from planted import planted
from scipy.special import softmax

import probes
from probes.measures.attribution.representers import representers
from probes.models.fingerprint import weights_fingerprint


def data(seed=0, n=240, m=60, d=12, classes=4, distance=2.0):
    """Features and labels of n training and m test rows."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n + m) % classes)
    x = rng.normal(size=(n + m, d)) + distance * np.eye(d)[y] + 1.0
    return x[:n], x[n:], y[:n], y[n:]


def with_one(x):
    return np.column_stack([x, np.ones(len(x))])


def gradient(values, target):
    """Of the objective at theta, written out."""
    f = values.train_features
    p = softmax(f @ values.theta.T, axis=1)
    return (p - target).T @ f / len(f) + 2 * values.l2 * values.theta


def halves(ids=90, seed=0, **settings):
    """Representations in three languages, train and test without a common id."""
    reps = planted(np.random.default_rng(seed), ids=ids, languages=3, layers=2, **settings)
    test = reps["id"].values.astype(int) % 3 == 0
    return reps.isel(example=~test), reps.isel(example=test)


class Head(torch.nn.Module):
    """What stands for a model: representers asks for its fingerprint alone."""

    def __init__(self, width, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(width, classes)


def of_model(head, **settings):
    """Representations as `capture` gives them for a model whose head sits on the last layer."""
    out = []
    for reps in halves(**settings):
        states = torch.tensor(reps["hidden"].values[-1], dtype=torch.float32)
        with torch.no_grad():
            logits = head.linear(states)
        reps = reps.assign(logits=(("example", "class"), logits), head_input=(("example", "head_feature"), states))
        reps = reps.assign_coords({"class": [f"c{i}" for i in range(logits.shape[1])]})
        out.append(reps.assign_attrs(weights=weights_fingerprint(head)))
    return out


def linear(width, classes, scale=1.0, seed=0):
    torch.manual_seed(seed)
    head = torch.nn.Linear(width, classes)
    with torch.no_grad():
        head.weight.mul_(scale * np.sqrt(width))
    return head


def outputs(head, x):
    with torch.no_grad():
        return torch.nn.functional.linear(
            torch.tensor(x, dtype=torch.float64), head.weight.double(), head.bias.double()
        ).numpy()


def refused(match, *args, **settings):
    """Nothing but InputError, and before the search."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules[representers.__module__], "minimum", None)
        with pytest.raises(probes.InputError, match=match):
            representers(*args, **settings)
