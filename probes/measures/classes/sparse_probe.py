"""Sparse probe: how few features carry the classes, and are they the same ones in every language?

A logistic regression with an L1 penalty for each class against the others, along a path of
penalties, in the folds of the linear probe.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from probes.errors import LayerscopeWarning
from probes.measures.classes.folds import Fold, by_id, folds_of, known_pivot
from probes.measures.classes.l1_path import l1_path, penalties_of
from probes.measures.classes.labels import of_labels
from probes.measures.classes.trained import missing_of, others, pooled, rows_of_tests, untaught, weighed
from probes.measures.probe import LARGE, Probe, Run
from probes.results.draws import POOLED, Sample, need_classes, sample
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.representations import states

PENALTIES = 10
LEAST = 0.02  # the weakest penalty over the one that keeps all weights at 0
ENOUGH = 0.95  # of the best accuracy along the path
HALVES = 4  # of the training rows, for the stability
TOLERANCE = 5e-7  # of the optimality conditions


def sparse_probe(
    reps: xr.Dataset, *, pivot: str | None = None, draws: int = 200, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Measure how few features carry the classes, and whether they are the same in every language.

    Args:
        reps: Representations with labels.
        pivot: the language that the probe is trained on; needed where there are several.
        draws, seed: of the bootstrap by sentence id; the seed is also that of folds and halves.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` and `n`, the number of test rows:

        - `sparse_probe`: accuracy, trained on the pivot (zero-shot); 0 to 1.
        - `sparse_probe_in_language`: accuracy, trained on the language itself.
        - `sparse_probe_pivot_support`: the same, with the features alone that the pivot's has.
        - `sparse_probe_features`: how many features it takes in-language for 95 % of the best
          accuracy of the path.
        - `sparse_probe_stability`: whether halves of the training rows choose the same features; 1
          where they do, 0 as by chance.
        - `sparse_probe_overlap`: whether the language's probe and the pivot's have the same
          features; 1 where they do, 0 as by chance.

        `pooled` is the mean of the languages other than the pivot. The attribute `residual` is the
        largest violation of the optimality conditions of any fit.

    Raises:
        InputError: as `linear_probe` does, before anything is trained.

    Notes:
        Each class against all others, on standardised features; of the penalties, shares of the one
        that keeps all weights at 0, the strongest within one standard error of the least log loss
        in folds of the pivot's training rows.
        Solver after Zhong, Yen, Dhillon, Ravikumar, NIPS 2014 (`l1_path`). Stability and overlap
        are the measure of Nogueira, Sechidis, Brown, JMLR 2018, of halves and of two languages.

    See also:
        `linear_probe`, `kernel_probe`.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(240, 20))
        >>> split = ("example", np.repeat(["train", "test"], 120))
        >>> reps = probes.from_arrays(x, label=x[:, 3] > 0).assign_coords(split=split)
        >>> out = sparse_probe(reps, draws=20, progress=False).value.sel(language="pooled", layer=0)
        >>> float(out.sel(measure="sparse_probe_features"))
        1.0
    """
    return _measured(Run(reps, sample(reps, draws=draws, seed=seed), pivot=pivot, seed=seed, progress=progress))


@dataclass(frozen=True)
class OneVsRest:
    """A path of sparse classifiers: weights (penalty, class, feature) of standardised features."""

    classes: np.ndarray
    middle: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    intercepts: np.ndarray
    residual: float

    def margins(self, x: np.ndarray) -> np.ndarray:
        """Return how far rows are on the side of each class: (penalty, row, class)."""
        z = (x - self.middle) / self.spread
        return z @ self.weights.transpose(0, 2, 1) + self.intercepts[:, None]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the class of every row by every penalty: (penalty, row)."""
        return self.classes[self.margins(x).argmax(axis=2)]

    def support(self) -> np.ndarray:
        """Return which features any class uses: (penalty, feature)."""
        return (self.weights != 0).any(axis=1)


def one_vs_rest(x: np.ndarray, y: np.ndarray, count: int, features: np.ndarray | None = None) -> OneVsRest:
    """Fit every class against the others, along the first `count` of the penalties.

    Args:
        x: (row, feature).
        y: (row,) codes of classes.
        count: how many penalties, from the strongest.
        features: (feature,) bool, those that may be used; by default all.
    """
    middle, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread <= 10 * np.finfo(float).eps * np.abs(middle), 1.0, spread)
    z = (x - middle) / spread
    if features is not None:
        z = z * features
    classes = np.unique(y)
    weights = np.zeros((count, len(classes), x.shape[1]))
    intercepts, residual = np.zeros((count, len(classes))), 0.0
    for k, c in enumerate(classes[len(classes) == 2 :] if len(classes) > 1 else []):
        own = y == c
        found = l1_path(z, own, penalties_of(z, own, PENALTIES, LEAST)[:count], tolerance=TOLERANCE)
        at = k + (len(classes) == 2)
        weights[:, at], intercepts[:, at] = found.weights, found.intercepts
        residual = max(residual, float(found.residuals.max()))
    if len(classes) == 2:  # the one is what the other is not
        weights[:, 0], intercepts[:, 0] = -weights[:, 1], -intercepts[:, 1]
    return OneVsRest(classes, middle, spread, weights, intercepts, residual)


def likeness(supports: np.ndarray) -> float:
    """Return how alike sets of features are, 1 where they are the same and 0 as by chance; NaN
    where they are all empty, or all whole.

    Args:
        supports: (set, feature) bool.

    Example:
        >>> likeness(np.array([[True, True, False, False], [True, False, True, False]]))
        0.0
    """
    count = len(supports)
    share = supports.mean(axis=0)
    whole = share.mean()
    if whole in (0, 1):
        return float("nan")
    return float(1 - (count / (count - 1) * share * (1 - share)).mean() / (whole * (1 - whole)))


def _measured(run: Run) -> xr.Dataset:
    drawn = need_classes(run.sample)
    pivot = known_pivot(drawn, run.pivot)
    folds, found = run.once("sparse_probe", lambda: _trained(run, pivot))
    return _results(run.reps, drawn, pivot, folds, found)


def _check(run: Run) -> None:
    drawn = need_classes(run.sample)
    folds_of(drawn, known_pivot(drawn, run.pivot), run.seed, run.reps)


@dataclass(frozen=True)
class _Language:
    """What was found in a language at a layer; NaN where there is no probe."""

    right: np.ndarray  # (row, 3) zero-shot, in-language, in-language with the pivot's features
    path: np.ndarray  # (row, penalty) in-language
    sizes: np.ndarray  # (penalty,) features, a mean over folds
    stability: float
    overlap: float
    residual: float


def _trained(run: Run, pivot: str) -> tuple[list[Fold], list[dict[str, _Language]]]:
    reps, drawn = run.reps, run.sample
    folds = folds_of(drawn, pivot, run.seed, reps)
    model = str(reps.attrs.get("model", "?"))
    found, unfinished = [], []
    for layer, name in enumerate(
        tqdm(reps["layer"].values, f"sparse_probe {model}", unit="layer", disable=not run.progress)
    ):
        with threadpool_limits(1):
            found.append(_of_layer(partial(states, reps, layer), drawn, pivot, folds, run.seed))
        if max(one.residual for one in found[-1].values()) > TOLERANCE:
            unfinished.append(str(name))
    if unfinished:
        warnings.warn(
            f"sparse_probe of model {model}: fits did not converge at layer {', '.join(unfinished)}; what is said "
            "there is of the probes as they were then",
            LayerscopeWarning,
            stacklevel=4,
        )
    return folds, found


def _of_layer(
    read: Callable[[np.ndarray], np.ndarray], drawn: Sample, pivot: str, folds: Sequence[Fold], seed: int
) -> dict[str, _Language]:
    everything = np.ones(len(drawn.ids), bool)
    at = by_id(drawn, pivot, everything)
    x, label = read(at), drawn.label[at]
    fits = []
    for fold in folds:
        train = fold.train[at]
        if np.isfinite(x[train]).all():
            fits.append(
                (fold, _chosen(x[train], label[train], fold.inner), one_vs_rest(x[train], label[train], PENALTIES))
            )
    out = {}
    for language in drawn.languages:
        rows = by_id(drawn, language, everything)
        own, label = x if language == pivot else read(rows), drawn.label[rows]
        right, path = np.full((len(rows), 3), np.nan), np.full((len(rows), PENALTIES), np.nan)
        sizes, overlaps, stability, residual = [], [], np.nan, 0.0
        for fold, k, of_pivot in fits:
            train, test = fold.train[rows], fold.test[rows]
            if not test.any() or not np.isfinite(own[test]).all():
                continue
            residual = max(residual, of_pivot.residual)
            right[test, 0] = of_pivot.predict(own[test])[k] == label[test]
            if untaught(label[train], label[test]) or not np.isfinite(own[train]).all():
                continue
            in_language = of_pivot if language == pivot else one_vs_rest(own[train], label[train], PENALTIES)
            support = of_pivot.support()[k]
            limited = one_vs_rest(own[train], label[train], k + 1, support)
            residual = max(residual, in_language.residual, limited.residual)
            path[test] = (in_language.predict(own[test]) == label[test]).T
            right[test, 1] = path[test, k]
            right[test, 2] = limited.predict(own[test])[k] == label[test]
            sizes.append(in_language.support().sum(axis=1))
            overlaps.append(likeness(np.stack([support, in_language.support()[k]])))
            if fold is folds[0]:
                units = drawn.units[drawn.ids[rows[train]]]
                stability = _stability(own[train], label[train], units, k + 1, seed)
        of_test = rows_of_tests(folds)[rows]
        mean = np.mean(sizes, axis=0) if sizes else np.full(PENALTIES, np.nan)
        overlap = float(np.mean(overlaps)) if overlaps else float("nan")
        out[language] = _Language(right[of_test], path[of_test], mean, stability, overlap, residual)
    return out


def _chosen(x: np.ndarray, y: np.ndarray, inner: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """The number of the strongest penalty whose log loss in the folds, of a class against the
    others, lies within one standard error of the least: the least is where noise comes in.
    """
    losses = []
    for learned, held in inner:
        found = one_vs_rest(x[learned], y[learned], PENALTIES)
        signs = np.where(y[held][:, None] == found.classes, 1.0, -1.0)
        losses.append(np.logaddexp(0, -signs * found.margins(x[held])).mean(axis=(1, 2)))
    mean, error = np.mean(losses, axis=0), np.std(losses, axis=0, ddof=1) / np.sqrt(len(losses))
    return int(np.argmax(mean <= (mean + error)[mean.argmin()]))


def _stability(x: np.ndarray, y: np.ndarray, units: np.ndarray, count: int, seed: int) -> float:
    """How alike the features of halves of some rows are; sentences of a group stay together."""
    supports = []
    for k in range(HALVES):
        there = np.unique(units)
        half = np.random.default_rng([seed, k]).permutation(there)[: -(-len(there) // 2)]
        rows = np.isin(units, half)
        supports.append(one_vs_rest(x[rows], y[rows], count).support()[count - 1])
    return likeness(np.stack(supports))


def needed(path: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return how many features it takes for enough of the best accuracy of a path.

    Args:
        path: (..., penalty) accuracies, from the strongest penalty.
        sizes: (penalty,) features.

    Example:
        >>> needed(np.array([0.25, 0.7, 0.8, 0.81]), np.array([0, 2, 5, 9])).item()
        5.0
    """
    enough = path >= ENOUGH * path.max(axis=-1, keepdims=True)
    return np.where(enough, sizes, np.inf).min(axis=-1)


def _results(
    reps: xr.Dataset, drawn: Sample, pivot: str, folds: Sequence[Fold], found: list[dict[str, _Language]]
) -> xr.Dataset:
    rows = {language: by_id(drawn, language, rows_of_tests(folds)) for language in drawn.languages}
    accuracy: list[dict[str, np.ndarray]] = [{}, {}, {}]
    features, stability, overlap = {}, {}, {}
    draws = len(drawn.weights)
    for language in drawn.languages:
        ids, of = drawn.ids[rows[language]], [layer[language] for layer in found]
        for i, one in enumerate(accuracy):
            right = np.stack([layer.right[:, i] for layer in of], axis=1)
            one[language] = weighed(right, ids, drawn.weights, drawn.units)
        paths = weighed(np.stack([layer.path for layer in of], axis=1), ids, drawn.weights, drawn.units)
        sizes = np.stack([layer.sizes for layer in of])
        features[language] = np.where(np.isnan(paths[..., 0]), np.nan, needed(paths, sizes))
        stability[language] = np.tile([layer.stability for layer in of], (draws, 1))
        overlap[language] = np.tile([layer.overlap for layer in of], (draws, 1))
    rows[POOLED] = np.concatenate([rows[language] for language in others(drawn, pivot)])
    statistics = [pooled(drawn, pivot, one) for one in (*accuracy, features, stability, overlap)]
    out = [_one(reps, drawn, pivot, folds, *pair, rows) for pair in zip(SPARSE_PROBE, statistics, strict=True)]
    residual = max(one.residual for layer in found for one in layer.values())
    return stack_measures(out).assign_attrs(residual=residual)


def _one(
    reps: xr.Dataset,
    drawn: Sample,
    pivot: str,
    folds: Sequence[Fold],
    about: Probe,
    statistics: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
) -> xr.Dataset:
    missing = missing_of(reps, drawn, pivot, folds)
    of_supports = about.interval.startswith("none")

    def why(at: tuple[int, ...], language: str) -> str:
        reason = missing(at, language)
        empty = of_supports and reason == "every layer: a language has none"
        return f"layer {reps['layer'].values[at[0]]}: no feature is chosen, or all are" if empty else reason

    attributes = about.about() | {"pivot": pivot}
    out = result(reps, drawn, statistics, attributes, rows=rows, bounds=about.bounds, missing=why)
    if of_supports:
        nothing = xr.full_like(out["value"], np.nan)
        return out.assign(low=nothing, high=nothing, draws=xr.full_like(out["draws"], np.nan))
    return out if about.name == "sparse_probe_features" else of_shares(out)


_NONE = "none: no test row moves which features are chosen"
_ZERO_SHOT = of_labels(
    name="sparse_probe",
    title="sparse probe, zero-shot",
    estimator="accuracy of logistic regressions with an L1 penalty, each class against the others, of the pivot",
    range="0 to 1",
    bounds=(0, 1),
    unchanged_by=("shift", "common scale", "scale of each feature", "order"),
    paper="after Zhong, Yen, Dhillon, Ravikumar 2014 (NIPS)",
    needs=("labels", "pivot or one language"),
    family="sparse_probes",
    default=False,
    interval=f"{LARGE} of test rows, by the probe as it is trained (other training rows move it further)",
    measure=_measured,
    check=_check,
)
_NEITHER = replace(_ZERO_SHOT, better="")
SPARSE_PROBE = (
    _ZERO_SHOT,
    replace(
        _ZERO_SHOT,
        name="sparse_probe_in_language",
        title="sparse probe, in-language",
        estimator="as sparse_probe, trained on the language itself",
    ),
    replace(
        _ZERO_SHOT,
        name="sparse_probe_pivot_support",
        title="sparse probe, in-language with the pivot's features",
        estimator="as sparse_probe_in_language, with the features alone that the pivot's probe has",
    ),
    replace(
        _NEITHER,
        name="sparse_probe_features",
        title="features that carry the classes",
        estimator="features of the sparsest probe of the path, in-language, with 95 % of its best accuracy",
        range="0 to the number of features",
        bounds=(0, np.inf),
        higher_is="classes spread over more features",
    ),
    replace(
        _NEITHER,
        name="sparse_probe_stability",
        title="stability of the features",
        estimator=f"likeness of the features that {HALVES} halves of the training rows choose, in-language",
        range="-1 to 1; 1 the same features, 0 as by chance",
        bounds=(-1, 1),
        higher_is="more of the same features",
        paper="Nogueira, Sechidis, Brown 2018 (JMLR 18)",
        interval=_NONE,
    ),
    replace(
        _NEITHER,
        name="sparse_probe_overlap",
        title="features shared with the pivot",
        estimator="likeness of the features of the language's own probe and of the pivot's",
        range="-1 to 1; 1 the same features, 0 as by chance",
        bounds=(-1, 1),
        higher_is="more of the same features",
        paper="Nogueira, Sechidis, Brown 2018 (JMLR 18)",
        interval=_NONE,
    ),
)
