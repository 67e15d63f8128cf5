"""What noise is drawn from: n-grams counted from token ids, or shares that were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from probes.errors import InputError

ORDERS = {"unigram": 1, "bigram": 2, "trigram": 3, "4-gram": 4}
_DISCOUNT = 0.75  # taken from every count, for what was never seen


class Noise(Protocol):
    """A distribution of tokens, each given those before it."""

    context: int  # how many tokens before it decide on one

    def log_chances(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return log q of tokens (place, number) after contexts (place, context), -inf for none."""

    def draw(self, contexts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return so many tokens for each context (place, count)."""


class Shares:
    """A distribution of tokens, the same everywhere.

    Args:
        counts: (token,) numbers of at least 0, of which shares are made.

    Example:
        >>> import numpy as np
        >>> shares = Shares([1.0, 3.0])
        >>> np.exp(shares.log_chances(np.zeros((1, 0), int), np.array([[0, 1]]))).tolist()
        [[0.25, 0.75]]
    """

    context = 0

    def __init__(self, counts: Sequence[float] | np.ndarray) -> None:
        """Divide by the sum."""
        shares = np.asarray(counts, np.float64)
        self.shares = shares / shares.sum()
        self.below = np.cumsum(self.shares)
        with np.errstate(divide="ignore"):
            self.logs = np.log(self.shares)

    def log_chances(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return log q of tokens (place, number)."""
        found: np.ndarray = self.logs[tokens]
        return found

    def draw(self, contexts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return so many tokens for each place (place, count)."""
        drawn = np.searchsorted(self.below, rng.random((len(contexts), count)) * self.below[-1], side="right")
        found: np.ndarray = np.minimum(drawn, np.flatnonzero(self.shares)[-1])
        return found


class Ngrams:
    """A distribution of tokens given the last ones, counted from texts.

    Of every count 0.75 is taken and given to what follows shorter contexts, down to all tokens alike:

        q(w | h) = max(c(h w) - 0.75, 0) / c(h) + 0.75 n(h) / c(h) q(w | h without its first token)

    with c counts and n(h) how many tokens follow h, so that no token is without a chance. After a
    context that was never seen the shorter one counts alone.

    Args:
        texts: (text) token ids.
        order: tokens, with those before, that are counted together; 1 for no context.
        vocabulary: how many tokens there are.
        first: where in each text counting begins; what stands before is context only.
        ends: whether the end of a text counts as a token, `vocabulary`.

    Attributes:
        start: what stands before the first token of a text, in contexts.

    Notes:
        Absolute discounting, interpolated, of Ney, Essen and Kneser 1994, without their counts of
        shorter contexts.

    Example:
        >>> import numpy as np
        >>> counted = Ngrams([[0, 1], [0, 1], [0, 2]], order=2, vocabulary=3)
        >>> np.exp(counted.log_chances(np.array([[0]]), np.array([[0, 1, 2]]))).round(3).tolist()
        [[0.25, 0.583, 0.167]]
    """

    def __init__(
        self, texts: Sequence[Sequence[int]], order: int, vocabulary: int, first: int = 0, ends: bool = False
    ) -> None:
        """Count."""
        self.context, self.vocabulary, self.start = order - 1, vocabulary, vocabulary + 1
        self.outcomes = vocabulary + ends
        self.base = vocabulary + 2
        before, after = [self.start] * (order - 1), [vocabulary] * ends
        flat: list[int] = []
        at: list[int] = []
        for text in texts:
            flat += [*before, *text, *after]
            at += range(len(flat) - max(len(text) + ends - first, 0), len(flat))
        places = np.asarray(at, np.int64)
        windows = np.asarray(flat, np.int64)[places[:, None] + np.arange(-self.context, 1)]
        self.orders = [self._counted(windows[:, self.context - size :]) for size in range(order)]

    def _counted(self, windows: np.ndarray) -> _Order:
        """Count what follows contexts of one size, (n-gram, size + 1)."""
        kept: list[np.ndarray] = []
        code = np.zeros(len(windows), np.int64)
        for column in windows[:, :-1].T:  # a context is numbered by that without its last token, and that token
            seen, code = np.unique(code * self.base + column, return_inverse=True)
            kept.append(seen)
        keys, counts = np.unique(code * self.base + windows[:, -1], return_counts=True)
        contexts = len(kept[-1]) if kept else 1
        of = keys // self.base
        return _Order(kept, keys, counts, np.searchsorted(of, np.arange(contexts + 1)))

    def _contexts(self, contexts: np.ndarray, size: int) -> np.ndarray:
        """Return the number of the last tokens of each context, -1 for what was never seen."""
        code = np.zeros(len(contexts), np.int64)
        for seen, column in zip(self.orders[size].seen, contexts[:, self.context - size :].T, strict=True):
            code = np.where(code < 0, -1, _place(seen, code * self.base + column))
        return code

    def log_chances(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return log q of tokens (place, number) after contexts (place, order - 1)."""
        q = np.full(tokens.shape, 1 / self.outcomes)
        for size, order in enumerate(self.orders):
            code = self._contexts(contexts, size)
            total, kinds = order.totals(code)
            at = _place(order.keys, np.maximum(code, 0)[:, None] * self.base + tokens)
            counted = np.where(at < 0, 0.0, order.counts[at] - _DISCOUNT)
            with np.errstate(divide="ignore", invalid="ignore"):
                mixed = (counted + _DISCOUNT * kinds[:, None] * q) / total[:, None]
            q = np.where((code < 0)[:, None] | (total == 0)[:, None], q, mixed)
        found: np.ndarray = np.log(q)
        return found

    def draw(self, contexts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return so many tokens for each context (place, count); `vocabulary` is the end."""
        drawn = rng.integers(self.outcomes, size=(len(contexts), count))
        # From the shortest context on, so that what a longer one says comes last.
        for size, order in enumerate(self.orders):
            code = self._contexts(contexts, size)
            total, kinds = order.totals(code)
            u = rng.random((2, len(contexts), count))
            mass = total - _DISCOUNT * kinds
            takes = (code >= 0)[:, None] & (u[0] * total[:, None] < mass[:, None])
            rows = np.broadcast_to(code[:, None], takes.shape)[takes]
            begin, end = order.starts[rows], order.starts[rows + 1]
            wanted = order.below[begin] + u[1][takes] * (order.below[end] - order.below[begin])
            at = np.clip(np.searchsorted(order.below, wanted, side="right") - 1, begin, end - 1)
            drawn[takes] = order.keys[at] % self.base
        return drawn


class _Order:
    """What follows contexts of one size: sorted by context, then by token."""

    def __init__(self, seen: list[np.ndarray], keys: np.ndarray, counts: np.ndarray, starts: np.ndarray) -> None:
        self.seen, self.keys, self.counts, self.starts = seen, keys, counts, starts
        self.below = np.concatenate([[0.0], np.cumsum(counts - _DISCOUNT)])  # the mass before each
        self.sums = np.concatenate([[0], np.cumsum(counts)])

    def totals(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how often contexts were seen, and how many tokens follow them; 0 of -1."""
        row = np.maximum(code, 0)
        begin, end = self.starts[row], self.starts[row + 1]
        return np.where(code < 0, 0, self.sums[end] - self.sums[begin]), np.where(code < 0, 0, end - begin)


def _place(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where values stand in a sorted array, -1 for those that do not."""
    if not len(known):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, at, -1)


def contexts_of(ids: np.ndarray, attended: np.ndarray, size: int, start: int) -> np.ndarray:
    """Return the last tokens of each place, its own last (text, token, size): `start` before a text.

    Example:
        >>> import numpy as np
        >>> contexts_of(np.array([[5, 6]]), np.array([[True, True]]), 2, 9).tolist()
        [[[9, 5], [5, 6]]]
    """
    there = np.where(attended, ids, start)
    out = np.full((*ids.shape, size), start, np.int64)
    for back in range(size):
        out[:, back:, size - 1 - back] = there[:, : ids.shape[1] - back]
    return out


def check_noise(name: str, noise: str | tuple[float, ...]) -> None:
    """Raise where noise is no known word, and no counts."""
    if isinstance(noise, str):
        if noise not in ORDERS:
            raise InputError(f"objective {name}: noise={noise!r}: expected one of {tuple(ORDERS)}, or a count a token")
        return
    counts = np.asarray(noise, np.float64)
    if counts.ndim != 1 or not len(counts) or not np.isfinite(counts).all() or (counts < 0).any() or not counts.any():
        raise InputError(
            f"objective {name}: noise: expected one of {tuple(ORDERS)}, or a count a token, each a finite number of at "
            "least 0 and not all of them 0"
        )


def check_support(name: str, counts: Sequence[float], texts: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Raise where given counts are not of the vocabulary, or give a token of the texts no chance."""
    if len(counts) != vocabulary:
        raise InputError(
            f"objective {name}: noise has {len(counts):,} counts, and the model predicts {vocabulary:,} tokens: give "
            "one count for each"
        )
    there = np.bincount(np.concatenate([np.asarray(text, np.int64) for text in texts]), minlength=vocabulary)
    missing = np.flatnonzero((there > 0) & (np.asarray(counts) == 0))
    if len(missing):
        most = missing[there[missing].argmax()]
        raise InputError(
            f"objective {name}: noise gives {len(missing)} of the tokens that the texts have no chance, as {most}, "
            f'which they have {there[most]} times: give each a count above 0, or noise="unigram", which is counted '
            "from the texts"
        )
