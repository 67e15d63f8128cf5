"""The head at the minimum of its penalised cross-entropy, to the level of rounding."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import logsumexp, softmax

from probes.states.representations import BLOCK

_MOST_STEPS = 100  # of Newton; 15 are many
_REACHED = 1e-9  # what the sums may miss of the training logits, relative to them
# Multiplications in one product of the search. Below, threads cost more than they bring where cores are shared.
MANY = 10**8


def minimum(features: np.ndarray, target: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return Theta at the minimum of mean CE(target, Theta f) + l2 ||Theta||^2, its probabilities,
    and the steps taken.

    Newton's method, its equations solved by conjugate gradients on products with the Hessian over
    whitened features. For large sets these products are in float32, as long as that gets on: the
    gradient, in float64, says how far it is.
    """
    n, width = features.shape
    classes = target.shape[1]
    # A mean far from 0 would drown the logits in rounding: with Theta' = basis @ v, the features of v are centred.
    basis = np.eye(width)
    basis[-1, :-1] = -features[:, :-1].mean(axis=0)
    x = features.copy()
    x[:, :-1] += basis[-1, :-1]
    penalty = 2 * l2 * (basis.T @ basis)
    inverse = np.linalg.inv(basis)
    # In products with the Hessian, what new whitened features cost.
    dear = width * (n + 3 * width) / (4 * n * classes)

    def objective(logits: np.ndarray, v: np.ndarray) -> float:
        fit = logsumexp(logits, axis=1) - np.einsum("ij,ij->i", target, logits)
        return float(fit.mean() + l2 * np.square(basis @ v).sum())

    v, logits = np.zeros((width, classes)), np.zeros((n, classes))
    best = np.inf, v, softmax(logits, axis=1)
    whiten, shrink = np.zeros((2, width, width))
    white = np.empty(x.shape, np.float32 if x.size * classes >= MANY else np.float64)
    products, first, close, steps = np.inf, 0.0, False, 0
    while True:
        p = softmax(logits, axis=1)
        gradient = x.T @ (p - target) / n + penalty @ v
        # By how much the sums of the values miss the training logits.
        missed = float(np.linalg.norm(x @ (inverse @ (inverse.T @ gradient))) / (2 * l2))
        stalled = close and missed > best[0] / 2
        if missed < best[0] or not close:
            best = missed, v, p
        if stalled and white.dtype == np.float32:
            white, products, stalled = np.empty(x.shape), np.inf, False
        if stalled or missed <= _REACHED * np.linalg.norm(logits) or not gradient.any() or steps == _MOST_STEPS:
            return (basis @ best[1]).T, best[2], steps
        if products > dear:
            whiten = _whitening(x, (1 - np.square(p).sum(axis=1)) / (classes - 1) / n, penalty)
            shrink = whiten.T @ penalty @ whiten
            for i in range(0, n, BLOCK):
                white[i : i + BLOCK] = x[i : i + BLOCK] @ whiten
        products = 0
        share = p.astype(white.dtype)

        def curvature(
            u: np.ndarray, share: np.ndarray = share, white: np.ndarray = white, shrink: np.ndarray = shrink
        ) -> np.ndarray:
            nonlocal products
            products += 1
            u = u.reshape(width, classes)
            change = white @ u.astype(white.dtype)
            change -= np.einsum("ij,ij->i", share, change)[:, None]
            change *= share
            return (white.T @ change / n + shrink @ u).ravel()

        g = (whiten.T @ gradient).ravel()
        size = float(np.linalg.norm(g))
        first = first or size
        # Roughly at first, and closely near the minimum, where a Newton step pays.
        rough = min(0.3, max(1e-3, np.sqrt(size / first)))
        u, _ = cg(LinearOperator((g.size, g.size), matvec=curvature, dtype=float), -g, rtol=rough, maxiter=200)
        direction = whiten @ u.reshape(width, classes)
        slope = float(g @ u)
        now, change, length = objective(logits, v), x @ direction, 1.0
        # So close that the objective says no more than rounding: the gradient decides.
        close = -slope < 1e-11 * now
        while not close and objective(logits + length * change, v + length * direction) > now + 1e-4 * length * slope:
            length /= 2
        v = v + length * direction
        logits = x @ v
        steps += 1


def _whitening(x: np.ndarray, weights: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Return the matrix W for which the curvature along x @ W would be the identity, were it alike
    in all classes.
    """
    gram = penalty.copy()
    for i in range(0, len(x), 4 * BLOCK):
        part = x[i : i + 4 * BLOCK] * np.sqrt(weights[i : i + 4 * BLOCK, None])
        gram += part.T @ part
    gram.flat[:: len(gram) + 1] += 1e-14 * np.trace(gram)
    return np.linalg.inv(np.linalg.cholesky(gram)).T
