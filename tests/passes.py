"""What the tests of objectives share: passes of numbers drawn at random, and each loss in numpy."""

import dataclasses
import itertools
import math

import numpy as np
import torch
from scipy.special import log_softmax

from compress import prune
from compress.matrices import block_matrices
from compress.objectives.base import Pass
from compress.objectives.labels import SoftLabels
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE

BATCH, TOKENS, WIDTH, HEADS, LAYERS, CLASSES = 6, 5, 4, 2, 3, 3
REPRESENTATION = [RepresentationMSE, RepresentationCosine, CrossCorrelation, Relational]
BY_LAYER = [HiddenStates, Attentions, AttentionOutputs]
PAIRED = [*REPRESENTATION, SoftLabels, *BY_LAYER]
ENCODER = "BertForSequenceClassification"


def a_pass(model, seed, tokens=False, dtype=torch.float64):
    make = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64).to(dtype)

    return Pass(
        model,
        logits=2 * draw(BATCH, *([TOKENS] if tokens else []), CLASSES),
        hidden_states=tuple(draw(BATCH, TOKENS, WIDTH) + 1 for _ in range(LAYERS)),
        attentions=tuple(draw(BATCH, HEADS, TOKENS, TOKENS).softmax(-1) for _ in range(LAYERS - 1)),
        attention_outputs=tuple(draw(BATCH, TOKENS, WIDTH) for _ in range(LAYERS - 1)),
    )


def z_of(given, batch, pooling="first"):
    last, mask = given.hidden_states[-1].double().numpy(), batch["attention_mask"].numpy()
    if pooling == "first":
        return np.stack([text[np.flatnonzero(m)[0]] for text, m in zip(last, mask, strict=True)])
    return np.stack([text[m == 1].mean(0) for text, m in zip(last, mask, strict=True)])


def kl(s, t, temperature):
    s, t = (log_softmax(x.double().numpy() / temperature, axis=-1) for x in (s, t))
    return temperature**2 * (np.exp(t) * (t - s)).sum(-1)


def by_hand(objective, student, teacher, batch):
    """The loss without its weight, in numpy, one text, token or pair of features at a time."""
    mask = batch["attention_mask"].numpy() == 1
    match objective:
        case SoftLabels():
            each = kl(student.logits, teacher.logits, objective.temperature)
            return each[mask].mean() if each.ndim == 2 else each.mean()
        case HiddenStates() | Attentions() | AttentionOutputs():
            what, hidden = compared(objective)[0], not isinstance(objective, Attentions)
            s, t = (getattr(p, what) for p in (student, teacher))
            out, first = [], 0 if isinstance(objective, HiddenStates) else 1  # of layer 0 there is no attention
            for i, j in (objective.layers or {first + i: first + i for i in range(len(s))}).items():
                d = (s[i - first] - t[j - first]).numpy() ** 2
                parts = [x[m] if hidden else x[:, m][:, :, m] for x, m in zip(d, mask, strict=True)]
                out.append(np.concatenate([p.ravel() for p in parts]).mean())
            return np.mean(out)
    s, t = (z_of(given, batch, objective.pooling) for given in (student, teacher))
    match objective:
        case RepresentationMSE():
            return np.mean([((a - b) ** 2).sum() / len(a) for a, b in zip(s, t, strict=True)])
        case RepresentationCosine():
            norm = np.linalg.norm
            return np.mean([1 - a @ b / norm(a) / norm(b) for a, b in zip(s, t, strict=True)])
        case Relational():
            return relational(objective, s, t)
    if objective.center:
        s, t = s - s.mean(0), t - t.mean(0)
    total, d = 0.0, s.shape[1]
    for i in range(d):
        for j in range(d):
            c = (s[:, i] * t[:, j]).sum() / math.sqrt((s[:, i] ** 2).sum() * (t[:, j] ** 2).sum())
            total += (1 - c) ** 2 if i == j else objective.off_diagonal * c**2
    return total / d


def huber(d):
    return d**2 / 2 if abs(d) <= 1 else abs(d) - 0.5


def relational(objective, s, t):
    texts, norm = range(len(s)), np.linalg.norm
    pairs, triples = list(itertools.permutations(texts, 2)), list(itertools.permutations(texts, 3))
    distances, angles = [], []
    for z in (s, t):
        mean = np.mean([norm(z[i] - z[j]) for i, j in pairs])
        distances.append([norm(z[i] - z[j]) / mean for i, j in pairs])
        angles.append([(z[i] - z[j]) @ (z[k] - z[j]) / norm(z[i] - z[j]) / norm(z[k] - z[j]) for i, j, k in triples])
    parts = [np.mean([huber(a - b) for a, b in zip(*x, strict=True)]) for x in (distances, angles)]
    return objective.distance * parts[0] + objective.angle * parts[1]


VARIANTS = [
    SoftLabels(),
    SoftLabels(weight=0.3, temperature=3),
    RepresentationMSE(),
    RepresentationMSE(weight=2, pooling="mean"),
    RepresentationCosine(),
    RepresentationCosine(weight=0.1, pooling="mean"),
    CrossCorrelation(),
    CrossCorrelation(weight=0.5, off_diagonal=1, pooling="mean"),
    CrossCorrelation(center=False, off_diagonal=0.1),
    Relational(),
    Relational(weight=0.5, distance=3, angle=0, pooling="mean"),
    HiddenStates(),
    HiddenStates(weight=3, layers={0: 2, 2: 0}),
    Attentions(),
    Attentions(weight=0.25, layers={2: 1}),
    AttentionOutputs(),
    AttentionOutputs(weight=0.5, layers={1: 2}),
]


def with_z(model, z):
    return Pass(model, None, hidden_states=(torch.as_tensor(z)[:, None],))


def replaced(given, what, x):
    """The pass with its logits, its last hidden state or its last attention map replaced by x."""
    if what == "logits":
        return dataclasses.replace(given, logits=x)
    return dataclasses.replace(given, **{what: (*getattr(given, what)[:-1], x)})


def compared(objective):
    """What an objective compares, and that of a pass."""
    what = next(iter(objective.needs - {"teacher"}), "logits")
    return what, lambda given: given.logits if what == "logits" else getattr(given, what)[-1]


def moved(model, size=0.1):
    """A copy of a model, all its weights moved at random."""
    copy = prune(model, sparsity=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for w in block_matrices(copy).values():
            w.add_(size * torch.randn_like(w))
    return copy
