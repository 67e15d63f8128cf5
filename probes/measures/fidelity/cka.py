"""Centred kernel alignment of linear kernels, biased and debiased."""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import product

import numpy as np

from probes.measures.fidelity.cka_in_pieces import debias
from probes.measures.fidelity.layer_pairs import ENTRIES, Correlation, Layers, Measure, Values

_ROWS = 256  # of the Gram matrices at a time
_NEAR = 64  # of these that fit into a cache nearby
_MANY = 10**8  # multiplications, from which on products of float32 states are taken in float32


def _cka(x: Layers, y: Layers | None, debiased: bool = False) -> Values:
    """CKA of all pairs from three products of every example with all others: with both, with each
    alone.

    With K = XX' and L = YY' centred, HSIC is the sum over a of r_a = sum_b K_ab L_ab, so r
    (example, layer, other) gives the value and what each example does to it.
    """
    both, of_x, of_y = _products(x, y)
    n = len(both)
    if debiased:
        norms_x = x.norms()
        norms_y = norms_x if y is None else y.norms()
        sum_x, sum_y = norms_x.sum(axis=0), norms_y.sum(axis=0)
        both = debias(both, norms_x[:, :, None], norms_y[:, None, :], n, sum_x[:, None], sum_y)
        of_x, of_y = (
            debias(of, norms, norms, n, total, total)
            for of, norms, total in ((of_x, norms_x, sum_x), (of_y, norms_y, sum_y))
        )
    else:
        both, of_x, of_y = both / n, of_x / n, of_y / n
    top, left, right = both.mean(axis=0), of_x.mean(axis=0)[:, None], of_y.mean(axis=0)[None, :]
    scale = np.sqrt(left * right)
    value = top / scale
    # Each term is a mean over pairs, so an example acts on it twice.
    influence = 2 * (both / scale - value * (of_x[:, :, None] / (2 * left) + of_y[:, None, :] / (2 * right)))
    return np.clip(value, -1, 1), influence


def _products(x: Layers, y: Layers | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """r of all pairs (example, layer, other layer), and of each layer with itself (example, layer)
    for both sides.
    """
    n, features = x(0).shape
    other_features = features if y is None else y(0).shape[1]
    n_x = len(x.at)
    n_y = n_x if y is None else len(y.at)
    layers = n_x + (0 if y is None else n_y)
    # By products of features, or by Gram matrices: what takes fewer operations.
    if layers * n * (features + other_features) / 2 > 8 * n_x * n_y * features * other_features:
        both = np.empty((n, n_x, n_y))
        for i, j in product(range(n_x), range(n_y)):
            if y is None and j < i:
                both[:, i, j] = both[:, j, i]
            else:
                both[:, i, j] = _along(x(i), (x if y is None else y)(j))
        if y is None:
            own = np.einsum("aii->ai", both)
            return both, own, own
        own, other = (np.stack([_along(z(i), z(i)) for i in range(len(z.at))], axis=1) for z in (x, y))
        return both, own, other
    # Of many float32 states float32 products do: their roundings average out over the pairs. Lengths, whose do not, and
    # sums stay in float64.
    many = layers * n * n * (features + other_features) / 2 >= _MANY
    single = many and all(z.single() for z in (x, x if y is None else y))
    dtype = np.float32 if single else np.float64

    rows = max(1, min(n, _ROWS, ENTRIES // (layers * n)))

    @lru_cache(maxsize=ENTRIES // (n * max(features, other_features)) if rows < n else 0)
    def read(i: int) -> np.ndarray:
        z = x(i) if y is None or i < n_x else y(i - n_x)
        return z.astype(dtype, copy=False)

    sums, squares = np.zeros((n_x, n_y, n)), np.zeros((layers, n))

    def add_own(part: slice, grams: np.ndarray) -> None:
        """Add what some examples have with all that are there: grams (layer, example, other example)."""
        of_both = grams[:n_x].transpose(1, 0, 2) @ grams[layers - n_y :].transpose(1, 2, 0)
        sums[:, :, part] += of_both.transpose(1, 2, 0)
        if y is not None:
            squares[:, part] += np.einsum("jab,jab->ja", grams, grams)

    def add_others(part: slice, grams: np.ndarray) -> None:
        """Add what the others have with these. Without a product in memory, each layer is read from
        a cache nearby by all others.
        """
        for i in range(n_x):
            first = i if y is None else 0
            sums[i, first:, part] += np.einsum("ab,jab->jb", grams[i], grams[layers - n_y + first :])
        if y is not None:
            squares[:, part] += np.einsum("jab,jab->jb", grams, grams)

    memory = np.empty((layers, rows, n), dtype)
    for lo in range(0, n, rows):
        hi = min(lo + rows, n)
        # Only with later examples: the Gram matrices are symmetric.
        grams = memory[:, : hi - lo, lo:]
        for i in range(layers):
            z = read(i)
            np.matmul(z[lo:hi], z[lo:].T, out=grams[i])
            np.fill_diagonal(grams[i], 0)
        add_own(slice(lo, hi), grams)
        for start in range(0, hi - lo, _NEAR):
            add_others(slice(hi, n), grams[:, start : start + _NEAR, hi - lo :])
    if y is None:
        lower = np.tril_indices(n_x, -1)
        sums[lower] = sums.transpose(1, 0, 2)[lower]
    both = np.ascontiguousarray(sums.transpose(2, 0, 1))
    norms = [z.norms() for z in ((x,) if y is None else (x, y))]
    both += norms[0][:, :, None] * norms[-1][:, None, :]
    if y is None:
        own = np.einsum("aii->ai", both)
        return both, own, own
    own = squares.T + np.square(np.concatenate(norms, axis=1))
    return both, own[:, :n_x], own[:, n_x:]


def _along(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum over b of (x_a . x_b) (y_a . y_b), without the Gram matrices."""
    return np.einsum("ad,ad->a", x @ (x.T @ y), y)


CKA = partial(
    Measure,
    name="cka",
    title="CKA",
    estimator="linear CKA, biased (V-statistic)",
    paper="Kornblith, Norouzi, Lee, Hinton 2019, arXiv 1905.00414",
    needs=("two texts in every language",),
    default=True,
    debiased=False,
    between=_cka,
)
CKA_DEBIASED = partial(
    Correlation,
    name="cka_debiased",
    title="CKA, debiased",
    estimator="linear CKA, debiased (U-statistic)",
    range="-1 to 1; around 0, also below, where there is nothing in common",
    paper="Song, Smola, Gretton, Bedo, Borgwardt 2012; Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327",
    debiased=True,
    between=partial(_cka, debiased=True),
)
