"""Whether neighbours in a file are more alike than chance makes them: then rows belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST, _FEWEST = 300, 50  # rows that are looked at, and that it takes to tell
_SHUFFLES = 200
# How far above chance is far: in standard deviations of shuffled orders, and as a correlation.
_DEVIATIONS, _CORRELATION = 5.0, 0.05


def neighbours_agree(x: np.ndarray) -> bool:
    """Whether each row is more like the next one than in any shuffled order, and far more.

    Args:
        x: (row, feature) in the order of a file: states, or classes as `one_hot` gives them.

    Notes:
        The correlation of each row with the next (lag one, over all features, rows of length 1
        around the mean), over at most 300 rows, against 200 shuffled orders. Far is more than 5 of
        their standard deviations, and than 0.05.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> articles = np.repeat(rng.normal(size=(50, 8)), 4, axis=0) + rng.normal(size=(200, 8))
        >>> neighbours_agree(articles), neighbours_agree(rng.permutation(articles))
        (True, False)
    """
    x = x[:MOST] - x[:MOST].mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.nan_to_num(x / np.linalg.norm(x, axis=1, keepdims=True))
    n = len(x)
    if n < _FEWEST or not x.any():
        return False
    gram = x @ x.T
    rng = np.random.default_rng(0)
    orders = np.stack([rng.permutation(n) for _ in range(_SHUFFLES)])
    shuffled = gram[orders[:, :-1], orders[:, 1:]].mean(axis=1)
    found = np.diag(gram, 1).mean()
    far = found - shuffled.mean()
    return bool(far > _DEVIATIONS * shuffled.std() and far > _CORRELATION and found > shuffled.max())


def one_hot(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Return values as rows of zeros with a one for each: (row, value)."""
    codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)[1]
    return np.eye(codes.max() + 1)[codes]


def caution(languages: Sequence[str], what: str) -> str:
    """Return what to say of languages in whose file neighbours agree."""
    return (
        f"neighbours in the file share {what} in {', '.join(languages)}, far more than by chance: where several "
        "sentences come from one article, document or template, they are no independent evidence, and intervals are "
        "too narrow. Name the column that says which belong together with group=... (--group)"
    )
