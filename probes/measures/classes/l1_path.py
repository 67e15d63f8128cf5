"""Logistic regression with an L1 penalty, along a path of penalties.

Proximal quasi-Newton with active sets: the curvature of the active features is kept from step to
step and from penalty to penalty, and taken anew where it no longer serves.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import expit

from probes.errors import InputError

TOLERANCE = 1e-7  # of the optimality conditions
STEPS = 500  # most of a penalty
_SERVES = 0.3  # the most that a step may leave of what is wrong before the curvature is taken anew
_FLOOR = 1e-3  # the least curvature of a row, of the largest there can be, so that steps stay bounded


@dataclass(frozen=True)
class Path:
    """What was found for each penalty.

    Args:
        penalties: (penalty,) from strong to weak.
        weights: (penalty, feature).
        intercepts: (penalty,).
        residuals: (penalty,) the largest violation of the optimality conditions: how far the
            gradient lies from where it has to be.
        objectives: (penalty,) the mean loss and the penalty.
    """

    penalties: np.ndarray
    weights: np.ndarray
    intercepts: np.ndarray
    residuals: np.ndarray
    objectives: np.ndarray


def penalties_of(x: np.ndarray, y: np.ndarray, count: int, least: float) -> np.ndarray:
    """Return penalties from the weakest that keeps all weights at 0 to `least` of it, (count,).

    Args:
        x: (row, feature).
        y: (row,) bool.
        count: how many.
        least: the last over the first.
    """
    largest = np.abs(x.T @ (y.mean() - y)).max() / len(x)
    return (largest or 1.0) * np.geomspace(1, least, count)


def l1_path(
    x: np.ndarray, y: np.ndarray, penalties: np.ndarray, *, tolerance: float = TOLERANCE, steps: int = STEPS
) -> Path:
    """Minimise the mean logistic loss plus penalty times the sum of absolute weights.

    With C = 1 / (rows * penalty) it is the objective of scikit-learn, over C and rows, with an
    intercept that is not penalised.

    Args:
        x: (row, feature); columns of similar scale are solved fastest.
        y: (row,) bool, both of them there.
        penalties: (penalty,) positive, from strong to weak.
        tolerance: of the optimality conditions, absolute.
        steps: most for a penalty.

    Returns:
        A `Path`; where `residuals` is above the tolerance, the steps were not enough.

    Raises:
        InputError: penalties are not positive or do not fall; y has one value only.

    Notes:
        Zhong, Yen, Dhillon, Ravikumar, NIPS 2014. Their curvature is that of L-BFGS; here it is the
        matrix of second derivatives of the active features as they were some steps ago, since
        there are few of them. The quadratic problem is scikit-learn's lasso.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(200, 20))
        >>> y = x[:, 3] + 0.3 * rng.normal(size=200) > 0
        >>> found = l1_path(x, y, penalties_of(x, y, 5, 0.1))
        >>> np.flatnonzero(found.weights[2]).tolist(), bool((found.residuals < 1e-6).all())
        ([3], True)
    """
    penalties, y = np.asarray(penalties, float), np.asarray(y, bool)
    if not (penalties > 0).all() or (np.diff(penalties) > 0).any():
        raise InputError("penalties: expected positive numbers from strong to weak; sort them the other way")
    if y.all() or not y.any():
        raise InputError("y holds one value only, and a classifier tells two apart. Leave the class out")
    problem = _Problem(x, y)
    found = []
    for k, penalty in enumerate(penalties):
        residual = problem.solve(penalty, penalties[max(k - 1, 0)], tolerance, steps)
        found.append((problem.weights.copy(), problem.intercept, residual, problem.objective(penalty)))
    weights, intercepts, residuals, objectives = zip(*found, strict=True)
    return Path(penalties, np.array(weights), np.array(intercepts), np.array(residuals), np.array(objectives))


class _Problem:
    """The rows, the solution so far, and the curvature that it was found with."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.columns = np.ascontiguousarray(x.T, dtype=float)  # a feature is a row: they are taken by feature
        self.y = y.astype(float)
        self.signs = np.where(y, 1.0, -1.0)
        self.weights = np.zeros(x.shape[1])
        self.intercept = float(np.log(y.mean() / (1 - y.mean())))
        self.margin = np.full(len(x), self.intercept)
        # Of the features in `known`, in that order: their states, and their curvature with the rows' weights `bend`.
        self.known = np.zeros(0, int)
        self.states = np.zeros((0, len(x)))
        self.bend = self._bend()
        self.curvature = np.zeros((0, 0))

    def _bend(self) -> np.ndarray:
        p = expit(self.margin)
        return np.maximum(p * (1 - p), _FLOOR / 4) / len(p)

    def loss(self, margin: np.ndarray) -> float:
        return float(np.logaddexp(0, -self.signs * margin).mean())

    def objective(self, penalty: float) -> float:
        return self.loss(self.margin) + penalty * float(np.abs(self.weights).sum())

    def solve(self, penalty: float, before: float, tolerance: float, steps: int) -> float:
        """Minimise for one penalty from the solution of the one before; return what is wrong."""
        taken = 0
        slack = penalty - max(2 * penalty - before, 0.0)  # the strong rule: what comes in from one penalty to the next
        while True:
            error = (expit(self.margin) - self.y) / len(self.y)
            gradient = self.columns @ error
            wrong = max(_wrong(gradient, self.weights, penalty), abs(error.sum()))
            if wrong <= tolerance or taken >= steps:
                return float(wrong)
            active = np.flatnonzero((self.weights != 0) | (np.abs(gradient) > penalty - slack))
            slack = 0.0
            self._extend(active)
            taken += self._epoch(active, penalty, tolerance / 2, steps - taken)

    def _extend(self, active: np.ndarray) -> None:
        """Know the curvature of all active features: of new ones by the rows' weights of the others."""
        new = np.setdiff1d(active, self.known)
        if not len(new):
            return
        states = self.columns[new]
        bent = states * self.bend
        across = self.states @ bent.T
        self.curvature = np.block([[self.curvature, across], [across.T, bent @ states.T]])
        self.states = np.concatenate([self.states, states])
        self.known = np.concatenate([self.known, new])

    def _epoch(self, active: np.ndarray, penalty: float, tolerance: float, steps: int) -> int:
        """Minimise over the active features, by steps that each solve a lasso; return their number."""
        place = {int(feature): k for k, feature in enumerate(self.known)}
        at = np.array([place[int(feature)] for feature in active])
        states = self.states[at]
        curvature, left = self.curvature[np.ix_(at, at)], np.inf
        totals, whole = states @ self.bend, self.bend.sum()
        fresh = False
        for step in range(1, steps + 1):
            p = expit(self.margin)
            error = (p - self.y) / len(p)
            gradient, of_intercept = states @ error, float(error.sum())
            w = self.weights[active]
            wrong = max(_wrong(gradient, w, penalty), abs(of_intercept))
            if wrong <= tolerance:
                return step
            if wrong > _SERVES * left and not fresh:
                self.bend = self._bend()
                self.known, self.states = active, states
                self.curvature = curvature = (states * self.bend) @ states.T
                totals, whole = states @ self.bend, self.bend.sum()
                fresh = True
            else:
                fresh = False
            left = wrong
            # Without the intercept, which follows from the weights.
            quadratic = curvature - np.outer(totals, totals) / whole
            linear = gradient - totals * (of_intercept / whole)
            new = _lasso(quadratic, quadratic @ w - linear, penalty, w, 0.1 * wrong)
            move = new - w
            shift = -(of_intercept + totals @ move) / whole
            if not self._moved(active, states, move, shift, penalty, gradient @ move + of_intercept * shift):
                return steps  # no smaller number can be told from this one
        return steps

    def _moved(
        self, active: np.ndarray, states: np.ndarray, move: np.ndarray, shift: float, penalty: float, slope: float
    ) -> bool:
        """Go along a direction as far as the objective falls (Armijo)."""
        w, margin = self.weights[active], self.margin
        along = move @ states + shift
        before = self.loss(margin) + penalty * np.abs(w).sum()
        slope += penalty * (np.abs(w + move).sum() - np.abs(w).sum())
        size = 1.0
        rounding = 4 * np.finfo(float).eps * max(before, 1.0)
        while size > 1e-10:
            now = self.loss(margin + size * along) + penalty * np.abs(w + size * move).sum()
            if now <= before + 1e-4 * size * slope + rounding:
                self.weights[active] = w + size * move
                self.intercept += size * shift
                self.margin = margin + size * along
                return True
            size /= 2
        return False


def _wrong(gradient: np.ndarray, weights: np.ndarray, penalty: float) -> float:
    """The largest violation of the optimality conditions."""
    at_zero = np.maximum(np.abs(gradient) - penalty, 0)
    return float(np.where(weights != 0, np.abs(gradient + penalty * np.sign(weights)), at_zero).max(initial=0.0))


def _lasso(quadratic: np.ndarray, linear: np.ndarray, penalty: float, start: np.ndarray, within: float) -> np.ndarray:
    """Minimise v Q v / 2 - linear v + penalty |v|: least squares with the root of Q in place of rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lasso_path

    n = len(linear)
    quadratic = quadratic + 1e-9 * max(np.trace(quadratic) / n, np.finfo(float).tiny) * np.eye(n)
    root = cholesky(quadratic)
    target = solve_triangular(root, linear, trans="T")
    # Its tolerance is a gap, relative to the squares of the target.
    gap = within**2 / max(float(np.diag(quadratic).max()), 1e-12) / max(float(target @ target), 1e-300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the steps around it go on
        _, found, _ = lasso_path(
            root,
            target,
            alphas=[penalty / n],
            precompute=quadratic,
            Xy=linear,
            coef_init=start.copy(),
            tol=gap,
            max_iter=1000,
        )
    return found[:, 0]
