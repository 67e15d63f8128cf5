"""How far the words of one text have to travel to become those of another: the exact distance, a
lower bound that screens, and random features of a kernel that is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from probes.errors import InputError, needed

_ENTRIES = 2**22  # of one block of distances


class Bags(NamedTuple):
    """The words of some texts, end to end: unit states, how many each text has, and their weights."""

    states: np.ndarray  # (word, feature) at unit length
    counts: np.ndarray  # (text,)
    weights: np.ndarray  # (word,) that add up to 1 in each text

    @property
    def ends(self) -> np.ndarray:
        """Where the words of each text begin, and where the last ones end: (1 + text,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])


def bags_of(states: np.ndarray, counts: np.ndarray, weights: np.ndarray | None = None) -> Bags:
    """Return the words of texts with states at unit length, of equal weight where none is given.

    Args:
        states: (word, feature) of all texts end to end.
        counts: (text,) words of each.
        weights: (word,) above 0, brought to a sum of 1 in each text.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        states = states / np.linalg.norm(states, axis=1, keepdims=True)
    weights = np.ones(len(states)) if weights is None else np.asarray(weights, np.float64)
    starts = np.cumsum(counts) - counts
    return Bags(states, counts, weights / np.repeat(np.add.reduceat(weights, starts), counts))


def transport() -> Any:
    """Return the package that solves for the exact distance; raise where it is not installed."""
    return needed("ot", "the exact word mover's distance", extra="transport")


def costs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of all rows of x to all of y, which are at unit length."""
    return np.sqrt(np.maximum(2.0 - 2.0 * (x @ y.T), 0.0))


def movers_distance(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Return the least mean distance over which weights a have to be carried to become b.

    Args:
        cost: (word, other word) distances.
        a, b: weights (word,) and (other word,), each with a sum of 1.

    Example:
        >>> movers_distance(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.5]), np.array([0.25, 0.75]))
        0.25
    """
    if 1 in cost.shape:  # there is one way only
        return float(a @ cost @ b)
    return float(transport().emd2(a, b, np.ascontiguousarray(cost), check_marginals=False))


def relaxed(x: Bags, y: Bags) -> np.ndarray:
    """Return what the distance of each text of x to each of y is at least, (text, other text).

    Every word is carried to the nearest one, whatever that can take; the larger of both directions.
    A few matrix products, where the exact distance takes one linear program a pair.

    Example:
        >>> x = bags_of(np.eye(3), np.array([2, 1]))
        >>> relaxed(x, x).round(2).tolist()
        [[0.0, 1.41], [1.41, 0.0]]
    """
    out = np.empty((len(x.counts), len(y.counts)))
    ends, starts = x.ends, y.ends[:-1]
    step = max(1, _ENTRIES // len(y.states))
    row = 0
    while row < len(out):
        stop = max(row + 1, int(np.searchsorted(ends, ends[row] + step, side="right")) - 1)
        words = slice(ends[row], ends[stop])
        cost = costs(x.states[words], y.states)
        own = ends[row:stop] - ends[row]
        there = np.minimum.reduceat(cost, starts, axis=1) * x.weights[words, None]
        back = np.minimum.reduceat(cost, own, axis=0) * y.weights
        out[row:stop] = np.maximum(np.add.reduceat(there, own, axis=0), np.add.reduceat(back, starts, axis=1))
        row = stop
    return out


@dataclass(frozen=True)
class WordMoversEmbedding:
    """One vector a text of all its words: random features of a kernel of word mover's distances.

    A pooling for `capture`: every probe then runs on it. Feature r is exp(-gamma x distance to a
    random text w_r) / sqrt(features); the product of two vectors is a positive definite kernel, with
    a standard error below `error`. Words are as `words=` of `capture` says, by default joined.

    Args:
        features: how many random texts.
        gamma: the larger, the nearer texts have to be to be alike.
        longest: words that a random text has at most.
        seed: of the random texts. Two models have the same only where their words fill one box.

    Raises:
        InputError: a number is out of range.

    Notes:
        Wu et al. 2018, arXiv 1811.01713. Words are at unit length; those of a random text are drawn
        evenly in the box that words of up to 256 texts of the corpus fill, then brought to unit
        length. One transport problem a text, layer and feature, of at most `longest` words on one
        side: linear in words x features. Needs the package POT (layerscope[transport]).

    See also:
        `capture`, `word_movers`, `Band`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(4))
        >>> pooling = WordMoversEmbedding(features=8)
        >>> probes.capture(model, tokenizer, corpus, pooling=pooling, progress=False).hidden.shape
        (7, 4, 8)
    """

    features: int = 256
    gamma: float = 1.0
    longest: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("features", self.features), ("longest", self.longest)):
            if type(value) is not int or value < 1:
                raise InputError(f"WordMoversEmbedding: {name}={value!r}: expected a whole number, at least 1")
        if not self.gamma > 0 or not np.isfinite(self.gamma):
            raise InputError(f"WordMoversEmbedding: gamma={self.gamma!r}: expected a number above 0")

    @property
    def name(self) -> str:
        """What it is called among poolings."""
        return f"word_movers({self.features}, {self.gamma:g}, {self.longest}, {self.seed})"

    @property
    def error(self) -> float:
        """The largest standard error that so few random texts leave in a value of the kernel, whose
        features lie between 0 and 1.

        Example:
            >>> WordMoversEmbedding(features=100).error
            0.05
        """
        return 0.5 / float(np.sqrt(self.features))

    @property
    def joins(self) -> bool:
        """Whether it is of words where nothing else is asked for."""
        return True

    @property
    def means(self) -> str:
        """What it does, in words."""
        return (
            f"random features of a word mover's kernel: {self.features} random texts of at most {self.longest} words, "
            f"gamma {self.gamma:g}, seed {self.seed}, which leave a standard error below {self.error:.3f} in its values"
        )

    def needs(self) -> None:
        """Raise where what it computes with is not installed."""
        transport()

    def begun(self, words: np.ndarray) -> list[Bags]:
        """Return the random texts of every layer, in the box of some words (layer, word, feature)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            units = words / np.linalg.norm(words, axis=-1, keepdims=True)
        out = []
        for x in units:
            # The same numbers for every layer, and for every model.
            rng = np.random.default_rng(self.seed)
            counts = rng.integers(1, self.longest + 1, self.features)
            drawn = rng.uniform(size=(int(counts.sum()), x.shape[1]))
            known = x[np.isfinite(x).all(axis=1)]
            low, high = (
                (known.min(axis=0), known.max(axis=0)) if len(known) else (-np.ones(len(x[0])), np.ones(len(x[0])))
            )
            out.append(bags_of(low + (high - low) * drawn, counts))
        return out

    def vectors(self, states: np.ndarray, counts: np.ndarray, random: Bags) -> np.ndarray:
        """Return the vectors (text, feature) of texts at one layer.

        Args:
            states: (word, feature) of the texts end to end.
            counts: (text,) words of each.
            random: the random texts of the layer.
        """
        texts = bags_of(np.asarray(states, np.float64), counts)
        return np.exp(-self.gamma * all_distances(texts, random)) / np.sqrt(self.features)


def all_distances(x: Bags, y: Bags) -> np.ndarray:
    """Return the exact distance of each text of x to each of y, NaN where a word is not finite.

    Example:
        >>> x = bags_of(np.eye(3), np.array([2, 1]))
        >>> all_distances(x, x).round(2).tolist()
        [[0.0, 1.41], [1.41, 0.0]]
    """
    out = np.full((len(x.counts), len(y.counts)), np.nan)
    ends, others = x.ends, y.ends
    for i in range(len(out)):
        own = slice(ends[i], ends[i + 1])
        if not np.isfinite(x.states[own]).all():
            continue
        cost = costs(x.states[own], y.states)
        for j in range(out.shape[1]):
            at = slice(others[j], others[j + 1])
            if np.isfinite(cost[0, at]).all():
                out[i, j] = movers_distance(cost[:, at], x.weights[own], y.weights[at])
    return out
