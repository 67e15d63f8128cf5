"""States along their principal axes, and what translations of one sentence have in common there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.measures.space.sentences import Sentences
from probes.measures.threads import one_thread


def principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (row, component) of centred states along their principal axes, and the mean
    square of each.
    """
    x, matrix = _product(x)
    with one_thread():
        squares, axes = np.linalg.eigh(matrix)
    real = _real(squares, x.shape)
    squares, axes = squares[real], axes[:, real]
    scores = axes * np.sqrt(squares) if len(matrix) == len(x) else x @ axes
    return scores, squares / len(x)


def spectrum_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centred states on the scale of the scores of `principal`, and the mean square along
    each principal axis: several times faster, where the axes are not asked for.
    """
    x, matrix = _product(x)
    with one_thread():
        squares = np.linalg.eigvalsh(matrix)
    return x, squares[_real(squares, x.shape)] / len(x)


def _product(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return states, scaled so that nothing overflows, and the smaller product of them."""
    x = x / np.abs(x).max()
    return x, x @ x.T if len(x) <= x.shape[1] else x.T @ x


def _real(squares: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return squares > 4 * max(shape) * np.finfo(np.float64).eps * squares[-1]


@dataclass(frozen=True)
class Within:
    """Products of the rows of one sentence with each other."""

    squares: np.ndarray  # (row,) summed squares of its products with the rows of its sentence, itself included
    sums: np.ndarray  # (row,) its product with the sum of its sentence
    spread: np.ndarray  # (row,) eigenvalues of these products, sentence by sentence


def within_sentences(scores: np.ndarray, sentences: Sentences) -> Within:
    """Return the products of the scores (row, component) of every sentence with each other."""
    squares, sums, spread = np.empty((3, len(scores)))
    for rows in sentences.by_size():
        if rows.shape[1] == 1:
            norm = np.square(scores[rows[:, 0]]).sum(axis=1)
            squares[rows[:, 0]], sums[rows[:, 0]], spread[rows[:, 0]] = norm**2, norm, norm
            continue
        block = scores[rows]
        products = block @ block.transpose(0, 2, 1)
        squares[rows], sums[rows] = np.square(products).sum(axis=2), products.sum(axis=2)
        spread[rows] = np.linalg.eigvalsh(products)
    return Within(squares, sums, np.maximum(spread, 0))
