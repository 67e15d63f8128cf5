"""Linear probe: can a linear classifier read the classes from a layer, in the language it learned from and in others?

Trained on the pivot language and tested on every language (zero-shot), trained on each language itself, and trained on
shuffled labels, which says what of the first is no knowledge of the classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from probes.errors import InputError, LayerscopeWarning
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import exact_at_the_ends, linearised
from probes.results.result import result, stack_measures
from probes.states.representations import from_arrays, states

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the larger, the freer the probe
SHUFFLES = 20
STEPS = 1000  # most of the solver
_ZERO_SHOT = {
    "probe": "linear_probe",
    "estimator": "accuracy of a logistic regression on standardised features, trained on the pivot",
    "range": "0 to 1; chance is the control",
    "higher_is": "better separated",
    "unchanged_by": "shift and scale of each feature, order (not rotation)",
    "paper": "Alain and Bengio 2016, arXiv 1610.01644",
}
_IN_LANGUAGE = _ZERO_SHOT | {
    "probe": "linear_probe_in_language",
    "estimator": "accuracy of a logistic regression on standardised features, trained on the language itself",
}
_CONTROL = _ZERO_SHOT | {
    "probe": "linear_probe_control",
    "estimator": f"as linear_probe, trained on shuffled labels; mean of {SHUFFLES} shuffles",
    "range": "0 to 1; about 1 / classes where classes are of one size",
    "higher_is": "more leakage",
    "paper": "after Hewitt and Liang 2019, arXiv 1909.03368",
}
_SELECTIVITY = _CONTROL | {
    "probe": "linear_probe_selectivity",
    "estimator": "linear_probe minus linear_probe_control",
    "range": "-1 to 1; 0 where labels cannot be told better than from shuffled ones",
    "higher_is": "better separated",
}


@overload
def linear_probe(
    x: xr.Dataset,
    labels: None = None,
    *,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset: ...


@overload
def linear_probe(
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    pivot: None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> float: ...


def linear_probe(
    x: xr.Dataset | npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    *,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset | float:
    """Measure how well a linear classifier reads the classes from each layer, in its own language and in others.

    Accuracy, 0 to 1, higher is better separated. Chance is 1 / classes where all are of one size, else the share of
    the largest; a layer whose states are all equal is at chance.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        pivot: the language that the probe is trained on; needed where there are several.
        draws, seed: of the bootstrap by sentence id; the seed is also that of the folds and the shuffles.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` and `n`, the number of test rows:

        - `linear_probe`: trained on the pivot, tested on every language (zero-shot); at the pivot itself in-language.
        - `linear_probe_in_language`: trained and tested on the same language.
        - `linear_probe_control`: as `linear_probe`, but trained on shuffled labels: far above chance only where
          something leaks, and then more leakage.
        - `linear_probe_selectivity`: `linear_probe` minus its control, draw by draw; -1 to 1.

        `pooled` is in all four the mean of the languages other than the pivot, each counting equally (the pivot where
        it is alone), so that they can be compared. For an array a float: the accuracy in 5 folds.

    Raises:
        InputError: before anything is trained, where labels, pivot, splits and classes do not fit together: no labels
            or one class; the pivot is unknown; an id is in both splits; a language has no test row; a class is tested
            that the pivot has no training row of, or has fewer than 5 ids there.

    Notes:
        Where `split` has "train" and "test", the probe learns from the one and is tested on the other; other rows are
        left out. Else every row is tested once, in 5 folds of ids (`StratifiedGroupKFold`): no probe ever saw a
        translation of what it is tested on. The strength of the penalty (C, 1e-4 to 1) is chosen by the log loss
        in folds of the pivot's training rows; the same one serves the language's own probe and the shuffled labels,
        and need not be the best for them.

        The interval is that of the test rows: draws of ids weigh which predictions are right, exactly, spread as
        Student's t. The probe is not trained again in the draws, so what another training set would change is not in
        it. Where all rows are right, or all wrong, it is the exact binomial one. The intervals of the control and of
        selectivity also hold what other shuffles would change. In simulations of 30 to 360 sentences and accuracies of
        0.6 to 0.99 the interval holds the accuracy of the trained probe in 92 to 100 % of cases. Of a language without
        training rows, or without some class among them, the in-language probe has no value, and a warning says so.

        Linear probes: Alain and Bengio 2016, arXiv 1610.01644, without the penalty and in one language. Selectivity is
        after Hewitt and Liang 2019, arXiv 1909.03368. Their control gives every word type a random label, the same in
        training and test, and so measures what a probe can memorise. No sentence is in both here, so nothing can be
        memorised: the labels are permuted among the training ids, the test labels are the true ones, and the control
        measures chance as the frequencies of classes and the folds make it. Selectivity is zero-shot accuracy above
        that.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> round(linear_probe(rng.normal(size=(300, 8)) + 2 * np.eye(8)[y], y), 2)
        0.86
    """
    if not isinstance(x, xr.Dataset):
        return _on_arrays(x, labels, seed)
    drawn = sample(x, draws=draws, seed=seed, labels=True)
    pivot = _known(drawn, pivot)
    folds = _folds(x, drawn, pivot, seed)
    right: dict[str, list[np.ndarray]] = {language: [] for language in drawn.languages}
    unfinished = []
    bar = tqdm(x["layer"].values, desc=f"linear_probe {x.attrs.get('model', '?')}", unit="layer", disable=not progress)
    for layer, name in enumerate(bar):
        answers, finished = _answers(x, layer, drawn, pivot, folds, SHUFFLES, seed)
        for language in drawn.languages:
            right[language].append(answers[language])
        unfinished += [] if finished else [str(name)]
    _warn_unfinished(x, unfinished)
    return _measures(x, drawn, pivot, folds, {k: np.stack(v, axis=1) for k, v in right.items()}, seed)


def check_linear_probe(reps: xr.Dataset, pivot: str | None, seed: int = 0) -> None:
    """Raise `InputError` where labels, pivot, splits and classes do not let a linear probe be trained and tested."""
    drawn = sample(reps, draws=2, seed=seed, labels=True)
    _folds(reps, drawn, _known(drawn, pivot), seed)


@dataclass(frozen=True)
class _Fold:
    """What is trained on and what is tested on, and how the pivot's training rows are split to choose the strength."""

    train: np.ndarray  # (example,) bool
    test: np.ndarray  # (example,) bool
    inner: list[tuple[np.ndarray, np.ndarray]]  # positions among the pivot's training rows in order of their ids


def _known(drawn: Sample, pivot: str | None) -> str:
    if pivot is None:
        if len(drawn.languages) > 1:
            raise InputError("expected pivot=..., the language that the probe is trained on")
        return drawn.languages[0]
    if pivot not in drawn.languages:
        there = ", ".join(map(repr, drawn.languages))
        raise InputError(f"pivot {pivot!r}: no such language in the corpus; there are {there}")
    return pivot


def _by_id(drawn: Sample, language: str, among: np.ndarray) -> np.ndarray:
    """Rows of a language that are among some, in order of their ids: the order of the corpus must not matter."""
    rows = drawn.group(language)
    rows = rows[among[rows]]
    return rows[np.argsort(drawn.ids[rows], kind="stable")]


def _folds(reps: xr.Dataset, drawn: Sample, pivot: str, seed: int) -> list[_Fold]:
    """Split the examples by the coordinate `split`, or else into folds of ids, and check that each can be trained."""
    split = reps["split"].values if "split" in reps.coords else np.full(len(drawn.ids), "")
    train, test = split == "train", split == "test"
    given = bool(train.any() and test.any())
    if not given:
        train = test = np.ones(len(split), bool)
    elif len(both := np.intersect1d(drawn.ids[train], drawn.ids[test])):
        name = reps["id"].values[drawn.ids == both[0]][0]
        raise InputError(
            f"id {name!r} is in split 'train' and in split 'test', so the probe would be tested on translations of "
            "what it was trained on. Give all rows of an id the same split"
        )
    _check_classes(drawn, pivot, train, test)
    pairs = [(train, test)]
    if not given:
        order = np.lexsort((reps["language"].values.astype(str), drawn.ids))
        pairs = []
        for _, part in _groups(FOLDS, seed).split(order, drawn.label[order], drawn.ids[order]):
            test = np.zeros(len(order), bool)
            test[order[part]] = True
            pairs.append((~test, test))
    classes = np.unique(drawn.label[_by_id(drawn, pivot, train)])
    folds = []
    for train, test in pairs:
        rows = _by_id(drawn, pivot, train)
        # Where a language lacks many translations, folds of all ids need not be even in it.
        _check_enough(drawn, pivot, rows, classes, FOLDS - 1)
        inner = _groups(FOLDS - 1, seed).split(rows, drawn.label[rows], drawn.ids[rows])
        folds.append(_Fold(train, test, list(inner)))
    return folds


def _groups(folds: int, seed: int) -> StratifiedGroupKFold:
    return StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)


def _check_classes(drawn: Sample, pivot: str, train: np.ndarray, test: np.ndarray) -> None:
    rows = _by_id(drawn, pivot, train)
    if not len(rows):
        there = [language for language in drawn.languages if train[drawn.group(language)].any()]
        raise InputError(
            f"pivot {pivot!r} has no row in split 'train', which the probe is trained on. "
            f"Choose a pivot that has some: {', '.join(map(repr, there))}"
        )
    known = np.unique(drawn.label[rows])
    for language in drawn.languages:
        tested = drawn.label[_by_id(drawn, language, test)]
        if not len(tested):
            raise InputError(f"language {language!r} has no row in split 'test'. Drop the language, or add test rows")
        for c in np.setdiff1d(tested, known):
            raise InputError(
                f"class {drawn.classes[c]!r} is missing in train: language {language!r} is tested on it, and the pivot "
                f"{pivot!r} has no training row of it. Add some, or drop the class"
            )
    if len(known) < 2:
        raise InputError(
            f"the training rows of the pivot {pivot!r} have only one class, {drawn.classes[known[0]]!r}; "
            "a probe needs at least two"
        )
    _check_enough(drawn, pivot, rows, known, FOLDS)


def _check_enough(drawn: Sample, pivot: str, rows: np.ndarray, classes: np.ndarray, fewest: int) -> None:
    for c in classes:
        found = len(np.unique(drawn.ids[rows[drawn.label[rows] == c]]))
        if found < fewest:
            raise InputError(
                f"class {drawn.classes[c]!r} has {found} ids to train on in the pivot {pivot!r}, and folds need at "
                f"least {fewest}. Merge or drop the class, or add sentences of it"
            )


def _answers(
    reps: xr.Dataset, layer: int, drawn: Sample, pivot: str, folds: Sequence[_Fold], shuffles: int, seed: int
) -> tuple[dict[str, np.ndarray], bool]:
    """Return which test rows are right, for every language (row, probe), and whether all fits converged.

    Probes: trained on the pivot, on the language itself, then on each shuffle; NaN where one has no answer.
    """
    everything = np.ones(len(drawn.ids), bool)
    at = _by_id(drawn, pivot, everything)
    x, label = states(reps, layer, at), drawn.label[at]
    fits = []
    out = {}
    # One thread: on matrices of this size several wait for each other far longer than they compute.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=ConvergenceWarning)
        for k, fold in enumerate(folds):
            train = fold.train[at]
            if np.isfinite(x[train]).all():
                strength = _strength(x[train], label[train], fold.inner)
                shuffled = [np.random.default_rng([seed, k, s]).permutation(label[train]) for s in range(shuffles)]
                fits.append((fold, strength, [_fit(x[train], y, strength) for y in (label[train], *shuffled)]))
        for language in drawn.languages:
            rows = _by_id(drawn, language, everything)
            own, label = x if language == pivot else states(reps, layer, rows), drawn.label[rows]
            right = np.full((len(rows), 2 + shuffles), np.nan)
            for fold, strength, (zero_shot, *controls) in fits:
                train, test = fold.train[rows], fold.test[rows]
                if not test.any() or not np.isfinite(own[test]).all():
                    continue
                tried = {0: zero_shot} | dict(enumerate(controls, start=2))
                if language == pivot:
                    tried[1] = zero_shot
                elif not _untaught(label[train], label[test]) and np.isfinite(own[train]).all():
                    tried[1] = _fit(own[train], label[train], strength)
                for i, probe in tried.items():
                    right[test, i] = probe.predict(own[test]) == label[test]
            out[language] = right[np.any([fold.test[rows] for fold in folds], axis=0)]
    others = [w for w in caught if not issubclass(w.category, ConvergenceWarning)]
    for w in others:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return out, len(others) == len(caught)


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=STEPS)).fit(x, y)


def _strength(x: np.ndarray, y: np.ndarray, inner: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the C with the least log loss in the folds: by accuracy many would tie where the pivot is easy to read."""
    name = "logisticregression__C"
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # judged as it is; the one that is used is watched
        search = GridSearchCV(probe, {name: STRENGTHS}, scoring="neg_log_loss", cv=inner, refit=False).fit(x, y)
    return float(search.best_params_[name])


def _untaught(train: np.ndarray, test: np.ndarray) -> list[int]:
    """Classes that are tested and not trained on; all of them where there are no two to tell apart."""
    known = np.unique(train)
    return np.setdiff1d(test, known if len(known) > 1 else []).tolist()


def _measures(
    reps: xr.Dataset,
    drawn: Sample,
    pivot: str,
    folds: Sequence[_Fold],
    right: Mapping[str, np.ndarray],
    seed: int,
) -> xr.Dataset:
    """Put what is right (row, layer, probe) of every language into accuracies with their intervals."""
    tested = np.any([fold.test for fold in folds], axis=0)
    others = [language for language in drawn.languages if language != pivot] or [pivot]
    again = np.random.default_rng(seed).multinomial(SHUFFLES, np.full(SHUFFLES, 1 / SHUFFLES), len(drawn.weights))
    zero_shot, in_language, control = {}, {}, {}
    n = {}
    for language in drawn.languages:
        ids, answers = drawn.ids[_by_id(drawn, language, tested)], right[language]
        n[language] = len(ids)
        zero_shot[language] = _weighed(answers[..., 0], ids, drawn.weights)
        in_language[language] = _weighed(answers[..., 1], ids, drawn.weights)
        by_id = _weighed(answers[..., 2:].mean(axis=2), ids, drawn.weights)
        by_shuffle = _weighed(answers[..., 2:].mean(axis=0).T, np.arange(SHUFFLES), again)
        control[language] = np.clip(by_id + by_shuffle - by_id[0], 0, 1)
    n[POOLED] = sum(n[language] for language in others)
    for of_languages in (zero_shot, in_language, control):
        of_languages[POOLED] = np.mean([of_languages[language] for language in others], axis=0)
    selectivity = {language: zero_shot[language] - control[language] for language in zero_shot}

    def missing(at: tuple[int, ...], language: str) -> str:
        used = np.any([fold.train | fold.test for fold in folds], axis=0)
        rows = np.union1d(drawn.group(language), drawn.group(pivot))
        rows = rows[used[rows]]
        bad = int((~np.isfinite(states(reps, at[0], rows)).all(axis=1)).sum())
        if bad:
            return f"layer {reps['layer'].values[at[0]]}: {bad} rows are not finite"
        for fold in folds if language != POOLED else ():
            own = drawn.group(language)
            train, test = (drawn.label[own[part[own]]] for part in (fold.train, fold.test))
            if not len(train):
                return "every layer: no row to train on"
            if lacking := _untaught(train, test):
                return f"every layer: no row to train on of class {drawn.classes[lacking[0]]!r}"
        return "every layer: a language has none"

    out = []
    for about, statistics in (
        (_ZERO_SHOT, zero_shot),
        (_IN_LANGUAGE, in_language),
        (_CONTROL, control),
        (_SELECTIVITY, selectivity),
    ):
        with warnings.catch_warnings():
            if about in (_CONTROL, _SELECTIVITY):
                warnings.simplefilter("ignore", LayerscopeWarning)  # missing where linear_probe is, which has said so
            bounds = (-1, 1) if about is _SELECTIVITY else (0, 1)
            one = result(reps, drawn, statistics, about | {"pivot": pivot}, n=n, bounds=bounds, missing=missing)
        out.append(one if about is _SELECTIVITY else exact_at_the_ends(one))
    return stack_measures(out)


def _weighed(right: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over rows (row, layer) for every row of weights: (1 + draws, layer)."""
    return linearised(right.mean(axis=0), right, ids, weights, (0, 1))


def _on_arrays(x: npt.ArrayLike, labels: npt.ArrayLike | None, seed: int) -> float:
    if labels is None:
        raise InputError("expected labels beside the array, one a row: probe(x, labels)")
    reps = from_arrays(x, label=labels)
    drawn = sample(reps, draws=2, seed=seed, labels=True)
    pivot = _known(drawn, None)
    answers, finished = _answers(reps, 0, drawn, pivot, _folds(reps, drawn, pivot, seed), 0, seed)
    _warn_unfinished(reps, [] if finished else ["0"])
    return float(answers[pivot][:, 0].mean())


def _warn_unfinished(reps: xr.Dataset, layers: Sequence[str]) -> None:
    if layers:
        warnings.warn(
            f"linear_probe of model {reps.attrs.get('model', '?')}: fits did not converge in {STEPS} steps at layer "
            f"{', '.join(layers)}; what is said there is of the probes as they were then",
            LayerscopeWarning,
            stacklevel=3,
        )
