"""Which rows and classes are alike: by what a network makes of them, or by words for the classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import Pass, check_count, check_number, given_layers, pooled, wide
from compress.objectives.memory import Draw, Pools, draw_of_classes, draw_of_instances
from probes.errors import InputError
from probes.states.batches import collate
from probes.states.running import evaluating
from probes.states.tokens import Padding, pads_left

_BLOCK = 2**24  # most similarities in memory at once
_TEXTS = 64  # of one forward pass
_CLASSES, _ROWS = 5, 5  # top_k without one given: labels, and rows for each negative


@dataclass(frozen=True)
class Similar:
    """How negatives of similar rows or labels are found before a training; as in `compress.CRD`."""

    negatives: Literal["uniform", "classes", "instances"]
    k: int
    top_k: int | None
    sharpness: float
    vectors: Mapping[str, ArrayLike] | None
    name: str

    def draw(self, pools: Pools, network: PreTrainedModel, rows: Sequence[Mapping[str, Any]], pooling: str) -> Draw:
        """Return what draws negatives of rows by what a network makes of them; it may run once."""
        if self.negatives == "uniform":
            return pools.draw
        if self.negatives == "instances":
            near = self._near(len(rows) - int(pools.counts.max()), "rows that may be negatives of every text")
            z, _ = read_rows(network, rows, self.name, pooling)
            return draw_of_instances(pools, *nearest_rows(z, pools.of, near, self.sharpness))
        if not pools.labelled:
            raise InputError(
                f'objective {self.name}: negatives="classes" needs labels, the rows have none: add a label column, '
                'or take negatives="instances"'
            )
        near = self._near(len(pools.classes) - 1, "labels other than a text's own")
        if self.vectors is not None:
            names = {int(k): str(v) for k, v in (network.config.id2label or {}).items()}
            found = named_classes(pools, names, self.vectors, near, self.sharpness, self.name)
        else:
            _, probabilities = read_rows(network, rows, self.name, pooling)
            found = confused_classes(pools, probabilities, near, self.sharpness, self.name)
        return draw_of_classes(pools, *found)

    def _near(self, most: int, what: str) -> int:
        if self.top_k is None:
            return min(most, _CLASSES if self.negatives == "classes" else _ROWS * self.k)
        if self.top_k > most:
            raise InputError(f"objective {self.name}: top_k={self.top_k}: expected at most {most}, the {what}")
        return self.top_k


def check_similar(
    name: str, negatives: str, top_k: int | None, sharpness: float, vectors: Mapping[str, ArrayLike] | None
) -> None:
    """Raise where settings of similar negatives cannot be meant."""
    check_number(name, "sharpness", sharpness, above=0)
    if top_k is not None:
        check_count(name, "top_k", top_k)
        if negatives == "uniform":
            raise InputError(f'objective {name}: top_k is of negatives="classes" or "instances": leave it out')
    if vectors is not None and negatives != "classes":
        raise InputError(f'objective {name}: vectors are of negatives="classes": leave them out')


def read_rows(
    model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], name: str, pooling: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model's representation (row, feature) and class probabilities of each row."""
    device = model.device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    padding = Padding(model.config.get_text_config().pad_token_id or 0, pads_left(model))
    states, probabilities = [], []
    with evaluating(model, device), torch.inference_mode():
        for start in range(0, len(rows), _TEXTS):
            some = [rows[i] for i in order[start : start + _TEXTS]]
            inputs = {k: v.to(device) for k, v in collate(padding, some).items() if k != "labels"}
            mask = inputs["attention_mask"]
            outputs = model(**inputs, output_hidden_states=True, return_dict=True)
            states_of_all = outputs.get("hidden_states", outputs.get("encoder_hidden_states"))
            given = Pass(model, outputs.get("logits"), states_of_all)
            states.append(pooled(given_layers(given, "hidden_states", name)[-1], mask.bool(), pooling))
            if given.logits is not None and given.logits.ndim == 2:
                probabilities.append(wide(given.logits).softmax(1))
    back = torch.tensor(np.argsort(order), device=device)
    z = torch.cat(states)[back]
    return z, torch.cat(probabilities)[back] if probabilities else z.new_empty(len(rows), 0)


def nearest_rows(z: torch.Tensor, of: np.ndarray, near: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's most similar rows of other classes (row, near), and log probabilities."""
    z = F.normalize(z, dim=1)
    classes = torch.from_numpy(of).to(z.device)
    block = max(1, _BLOCK // len(z))
    found = []
    for own, own_classes in zip(z.split(block), classes.split(block), strict=True):
        cosines = (own @ z.T).masked_fill(own_classes[:, None] == classes, -math.inf)
        values, rows = cosines.topk(near, dim=1)
        found.append(((values / sharpness).log_softmax(1).cpu(), rows.cpu()))
    logs, rows = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return rows, logs


def confused_classes(
    pools: Pools, probabilities: torch.Tensor, near: int, sharpness: float, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes a class is most taken for, and the probability of each: (class, near)."""
    given = probabilities.double().cpu().numpy()
    if pools.classes.min() < 0 or pools.classes.max() >= given.shape[1]:
        raise InputError(
            f"objective {name}: rows have labels from {pools.classes.min()} to {pools.classes.max()}, the teacher has "
            f"{given.shape[1]} classes: expected labels of the teacher's classes"
        )
    count = len(pools.classes)
    means = np.stack([given[pools.of == c].mean(0) for c in range(count)])[:, pools.classes]
    means[np.eye(count, dtype=bool)] = 0
    total = means.sum(1, keepdims=True)
    similar = np.divide(means, total, out=np.zeros_like(means), where=total > 0)
    return _drawn_by(similar, near, sharpness)


def named_classes(
    pools: Pools,
    names: Mapping[int, str],
    vectors: Mapping[str, ArrayLike],
    near: int,
    sharpness: float,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes whose names mean most alike, and the probability of each: (class, near)."""
    said = [names.get(int(c), str(c)) for c in pools.classes]
    if missing := [s for s in said if s not in vectors]:
        raise InputError(
            f"objective {name}: vectors has no entry for the class {missing[0]!r}: expected one for each of {said}, "
            f"found {sorted(map(str, vectors))}; `name_vectors` makes them"
        )
    found = [np.asarray(vectors[s], np.float64) for s in said]
    if len({v.shape for v in found}) > 1 or found[0].ndim != 1:
        shapes = [v.shape for v in found]
        raise InputError(f"objective {name}: vectors of shapes {shapes}: expected one vector a class, all of one size")
    z = np.stack(found)
    lengths = np.linalg.norm(z, axis=1)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        raise InputError(
            f"objective {name}: the vector of {said[int(bad.argmax())]!r} is zero or not finite: it has no direction "
            "to compare; give another"
        )
    z /= lengths[:, None]
    return _drawn_by(z @ z.T, near, sharpness)


def name_vectors(names: Iterable[str], words: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Return a vector for the name of each class: the mean of the vectors of its words.

    Args:
        names: of classes, as `model.config.id2label.values()`. Words are what stands between
            spaces, punctuation and underscores: "maple_tree" has two.
        words: a vector for each word, all of one size: a dictionary, or what another package reads
            word vectors into, as gensim's KeyedVectors. A word is looked up as it stands, then in
            small letters.

    Returns:
        name -> vector.

    Raises:
        InputError: a name has no word, or a word has no vector.

    Notes:
        The class similarity of semantically conditioned negatives, see `compress.CRD`.

    Example:
        >>> words = {"maple": [1.0, 0.0], "tree": [0.0, 1.0]}
        >>> name_vectors(["maple_tree", "Tree"], words)["maple_tree"].tolist()
        [0.5, 0.5]

    See also:
        `CRD`, `SupervisedContrast`, `objectives.embedded_names`.
    """
    out = {}
    for name in names:
        parts = re.findall(r"[^\W_]+", str(name))
        found = [next((w for w in (part, part.lower()) if w in words), None) for part in parts]
        if not parts or None in found:
            lacks = f"no vector for {parts[found.index(None)]!r}" if parts else "it has no word"
            raise InputError(f"the class {name!r}: {lacks}: give vectors for all words of {list(names)}")
        out[name] = np.mean([np.asarray(words[word], np.float64) for word in found if word is not None], axis=0)
    return out


def embedded_names(
    names: Iterable[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, np.ndarray]:
    """Return a vector for the name of each class: the mean of a model's embeddings of its pieces.

    Where no word vectors are at hand: those that the model reads, without context.

    Args:
        names: of classes; underscores are read as spaces.
        model: whose input embeddings are taken.
        tokenizer: of the model.

    Returns:
        name -> vector, of the width of the embeddings.

    Raises:
        InputError: a name has no piece.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> embedded_names(["sport"], model, tokenizer)["sport"].shape
        (128,)

    See also:
        `objectives.name_vectors`
    """
    embedding = model.get_input_embeddings()
    out = {}
    for name in names:
        ids = tokenizer(str(name).replace("_", " "), add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"the class {name!r} has no piece in the vocabulary: give it a name, or `name_vectors`")
        with torch.no_grad():
            found = embedding(torch.tensor(ids, device=model.device))
        out[name] = found.double().mean(0).cpu().numpy()
    return out


def _drawn_by(similar: np.ndarray, near: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar of other classes, and chances by the softmax of similarities."""
    similar = similar.copy()
    similar[np.eye(len(similar), dtype=bool)] = -np.inf  # never one of the nearest
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :near]
    taken = np.take_along_axis(similar, nearest, 1)
    # Less the largest, so that however sharp one chance is not 0.
    chances = np.exp((taken - taken.max(1, keepdims=True)) / sharpness)
    return nearest, chances / chances.sum(1, keepdims=True)
