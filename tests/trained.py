"""What the tests of training share: a corpus, objectives that spoil, learn or remember, and settings."""

import numpy as np
import pandas as pd
import torch

import probes
from compress.objectives.base import Pass

WORDS = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}


def texts_of_classes(count, length):
    """Rows of three classes in turn, in English: `length(i)` words of its class in random order for row i."""
    rng = np.random.default_rng(0)
    labels = ["xyz"[i % 3] for i in range(count)]
    texts = [" ".join(rng.permutation(WORDS[k].split())[: length(i)]) for i, k in enumerate(labels)]
    return pd.DataFrame({"id": range(count), "language": "en", "text": texts, "label": labels})


def make_corpus():
    rows = texts_of_classes(48, lambda i: 2 + i % 4)
    return probes.load_corpus(rows.assign(split=["dev"] * 12 + ["train"] * 36))


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b, atol=0.0):
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and torch.allclose(a[k], b[k], rtol=0, atol=atol) for k in a
    )


def all_but(before, after, names):
    """Hold that all tensors of a model but some are as they were; return those: their name, before and after."""
    old, new = before.state_dict(), after.state_dict()
    for name in new.keys() - names:
        assert torch.equal(new[name], old[name]), name
    return [(name, old[name], new[name]) for name in names]


QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-3}
EACH_STEP = {"steps": 12, "accumulate": 2, "evaluate_at": range(1, 13)}  # with `evaluate`: a look after each


class Spoils:
    name, weight, needs = "spoilt", 1.0, frozenset()

    def __init__(self, step):
        self.left = step

    def __call__(self, student: Pass, teacher, batch):
        self.left -= 1
        return student.logits.sum() * (float("nan") if self.left == 0 else 0.0)


class Remembers:
    """Draws the mapped logits of each text to those it had before, which it remembers by the number of the row."""

    weight, needs = 1.0, frozenset({"teacher"})

    def __init__(self, name="remembers", learning_rate=None):
        self.name, self.learning_rate = name, learning_rate

    def prepare(self, student, teacher, rows, seed):
        assert not student.training
        assert not teacher.training
        self.rows, self.seed = rows, seed
        self.module = module = torch.nn.Linear(3, 3)
        module.register_buffer("bank", torch.randn(len(rows), 3))
        module.register_buffer("seen", torch.zeros(len(rows), dtype=torch.long))
        return module

    def __call__(self, student, teacher, batch):
        module, index = batch["modules"][self.name], batch["index"]
        assert module is self.module
        assert module.training
        for number, ids, mask in zip(index, batch["input_ids"], batch["attention_mask"], strict=True):
            assert self.rows[number]["index"] == number
            assert ids[mask == 1].tolist() == self.rows[number]["input_ids"]
        mapped = module(student.logits)
        loss = (mapped - module.bank[index]).square().mean() + (mapped - teacher.logits).square().mean()
        module.bank[index] = 0.5 * module.bank[index] + 0.5 * mapped.detach()
        module.seen[index] += 1
        return loss


class Target:
    """Draws a learned number to 3, whatever the student does."""

    weight, needs = 1.0, frozenset()

    def __init__(self, name, learning_rate=None):
        self.name = name
        if learning_rate is not None:
            self.learning_rate = learning_rate

    def prepare(self, student, teacher, rows, seed):
        self.module = torch.nn.ParameterDict({"x": torch.zeros(2)})
        return self.module

    def __call__(self, student, teacher, batch):
        return (batch["modules"][self.name]["x"] - 3).square().sum() + 0 * student.logits.sum()
