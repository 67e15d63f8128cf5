"""A path of L1 logistic regressions against scikit-learn's saga and liblinear, skglm and celer, on one thread.

Each is given the same standardised rows and the same penalties, from strong to weak, and a tolerance with which the
objective is right to 1e-6; of each the note says by how much it lies above ours, at most over the path.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from common import Row, installed, run  # first: it sets the environment

# isort: split
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from probes.measures.classes.l1_path import l1_path, penalties_of

T = TypeVar("T")
Fit = Callable[[float], tuple[np.ndarray, float]]  # from a penalty to weights and intercept, from those of the last


def rows(quick: bool) -> Iterator[Row]:
    n, features = (2000, 200) if quick else (10_000, 768)
    x, y = states(n, features)
    penalties = penalties_of(x, y, 20, 0.01)
    what = f"L1 logistic regression, {n:,} x {features}, {len(penalties)} penalties, seconds of CPU"
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, ours = timed(lambda: l1_path(x, y, penalties))

        def objective(weights: np.ndarray, intercept: float, penalty: float) -> float:
            margin = np.where(y, 1, -1) * (x @ weights + intercept)
            return float(np.logaddexp(0, -margin).mean() + penalty * np.abs(weights).sum())

        for name, make in peers(x, y).items():
            if make is None:
                yield Row(what, ours, None, name)
                continue
            said = f"residual of ours {found.residuals.max():.0e}"
            fit = make()
            fit(penalties[1])  # compiled, where it is
            answers, seconds = timed(lambda: [fit(p) for p in penalties])  # noqa: B023
            above = [objective(*a, p) - o for a, p, o in zip(answers, penalties, found.objectives, strict=True)]
            yield Row(what, ours, seconds, name, note=f"{said}, objective above ours by {max(above):.0e}")


def states(n: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated states, of which 20 features say the class, with noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, features)) @ (
        rng.normal(size=(features, features)) * np.arange(1, features + 1)[:, None] ** -0.5
    )
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return x, x[:, :20] @ rng.normal(size=20) + 1.5 * rng.logistic(size=n) > 0


def peers(x: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Fit] | None]:
    n = len(x)
    columns = np.asfortranarray(x)

    def saga() -> Fit:
        model = LogisticRegression(l1_ratio=1, solver="saga", tol=1e-5, max_iter=3000, warm_start=True)
        return lambda p: fitted(model.set_params(C=1 / (n * p)), x)

    def liblinear() -> Fit:
        model = LogisticRegression(l1_ratio=1, solver="liblinear", tol=1e-5, intercept_scaling=100, max_iter=3000)
        return lambda p: fitted(model.set_params(C=1 / (n * p)), x)

    def fitted(model: LogisticRegression, rows: np.ndarray) -> tuple[np.ndarray, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, np.where(y, 1.0, -1.0))
        return np.ravel(model.coef_).copy(), float(np.ravel(model.intercept_)[0])

    def skglm() -> Fit:
        package: Any = installed("skglm")
        model = package.SparseLogisticRegression(alpha=1.0, tol=1e-6, warm_start=True)
        return lambda p: fitted(model.set_params(alpha=p), columns)

    def celer() -> Fit:  # without an intercept: the rows have no mean, and the classes are about of one size
        package: Any = installed("celer")
        model = package.LogisticRegression(tol=1e-6, warm_start=True, fit_intercept=False)
        return lambda p: fitted(model.set_params(C=1 / (n * p)), columns)

    found: dict[str, Callable[[], Fit] | None] = {"skglm": skglm, "celer": celer}
    found = {name: make if installed(name) else None for name, make in found.items()}
    return {**found, "scikit-learn's liblinear": liblinear, "scikit-learn's saga": saga}


def timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


if __name__ == "__main__":
    run(rows)
