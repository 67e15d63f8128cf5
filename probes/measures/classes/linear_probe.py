"""Linear probe: can a linear classifier read the classes, in its own language and in others?

Trained on the pivot language and tested on every language (zero-shot), trained on each language
itself, and trained on shuffled labels, which says what of the first is no knowledge of the classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
import xarray as xr
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from probes.errors import LayerscopeWarning
from probes.measures.classes.folds import Fold, folds_of, known_pivot
from probes.measures.classes.labels import labelled, of_labels
from probes.measures.classes.trained import Fit, Predict, accuracies, answers, missing_of
from probes.measures.probe import LARGE, Run
from probes.results.draws import Sample, need_classes, sample
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.representations import states

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn: the larger, the freer the probe
SHUFFLES = 20
STEPS = 1000  # most of the solver


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
    """Measure how well a linear classifier reads the classes, in its language and in others.

    Accuracy, 0 to 1, higher is better separated. Chance is 1 / classes where all are of one size,
    else the share of the largest; a layer whose states are all equal is at chance.

    Args:
        x: Representations with labels, or an array (example, feature).
        labels: (example,) beside an array.
        pivot: the language that the probe is trained on; needed where there are several.
        draws, seed: of the bootstrap by sentence id; the seed is also that of the folds and the
            shuffles.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` and `n`, the number of test rows:

        - `linear_probe`: trained on the pivot, tested on every language (zero-shot); at the pivot
          itself in-language.
        - `linear_probe_in_language`: trained and tested on the same language.
        - `linear_probe_control`: as `linear_probe`, but trained on shuffled labels: far above
          chance only where something leaks, and then more leakage.
        - `linear_probe_selectivity`: `linear_probe` minus its control, draw by draw; -1 to 1.

        `pooled` is in all four the mean of the languages other than the pivot, each counting
        equally (the pivot where it is alone), so that they can be compared. For an array a float:
        the accuracy in 5 folds.

    Raises:
        InputError: before anything is trained, where labels, pivot, splits and classes do not fit
            together: no labels or one class; the pivot is unknown; an id or a group is in both
            splits; a language has no test row; a class is tested that the pivot has no training row
            of, or has fewer than 5 ids (or groups) there.

    Notes:
        Where `split` has "train" and "test", the probe learns from the one and is tested on the
        other; else every row is tested once, in 5 folds of ids (of groups, where there are any), so
        that no probe saw a translation of what it is tested on, or a sentence of its group. The
        penalty (C, 1e-4 to 1) is chosen by log loss in folds of the pivot's training rows. The
        interval is that of the test rows: the probe is not trained again in the draws. Alain and
        Bengio 2016, arXiv 1610.01644; the control is after Hewitt and Liang.

    See also:
        `class_separability`, `snr`, `variability`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(300) % 3
        >>> round(linear_probe(rng.normal(size=(300, 8)) + 2 * np.eye(8)[y], y), 2)
        0.86
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(*labelled(x, labels), seed)
    return _measured(Run(x, sample(x, draws=draws, seed=seed), pivot=pivot, seed=seed, progress=progress))


def _of_array(x: np.ndarray, drawn: Sample, seed: int) -> float:
    (language,) = drawn.languages
    answers, finished = _answers(x.__getitem__, drawn, language, folds_of(drawn, language, seed), 0, seed)
    _warn_unfinished("arrays", [] if finished else ["0"])
    return float(answers[language][:, 0].mean())


def _measured(run: Run) -> xr.Dataset:
    drawn = need_classes(run.sample)
    pivot = known_pivot(drawn, run.pivot)
    folds, right = run.once("linear_probe", lambda: _trained(run, pivot))
    return _results(run.reps, drawn, pivot, folds, right, run.seed)


def _trained(run: Run, pivot: str) -> tuple[list[Fold], dict[str, np.ndarray]]:
    """The folds, and which test rows are right in every language: (row, layer, probe)."""
    reps, drawn, seed = run.reps, run.sample, run.seed
    folds = folds_of(drawn, pivot, seed, reps)
    model = str(reps.attrs.get("model", "?"))
    right: dict[str, list[np.ndarray]] = {language: [] for language in drawn.languages}
    unfinished = []
    bar = tqdm(reps["layer"].values, desc=f"linear_probe {model}", unit="layer", disable=not run.progress)
    for layer, name in enumerate(bar):
        answers, finished = _answers(partial(states, reps, layer), drawn, pivot, folds, SHUFFLES, seed)
        for language in drawn.languages:
            right[language].append(answers[language])
        unfinished += [] if finished else [str(name)]
    _warn_unfinished(model, unfinished)
    return folds, {k: np.stack(v, axis=1) for k, v in right.items()}


def _check(run: Run) -> None:
    drawn = need_classes(run.sample)
    folds_of(drawn, known_pivot(drawn, run.pivot), run.seed, run.reps)


def _answers(
    read: Callable[[np.ndarray], np.ndarray],
    drawn: Sample,
    pivot: str,
    folds: Sequence[Fold],
    shuffles: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], bool]:
    """Return what `answers` gives, and whether all fits converged."""
    from sklearn.exceptions import ConvergenceWarning

    # One thread: on matrices of this size several wait for each other far longer than they compute.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=ConvergenceWarning)
        out = answers(read, drawn, pivot, folds, shuffles, seed, fitted)
    others = [w for w in caught if not issubclass(w.category, ConvergenceWarning)]
    for w in others:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    return out, len(others) == len(caught)


def fitted(x: np.ndarray, y: np.ndarray, inner: list[tuple[np.ndarray, np.ndarray]]) -> Fit:
    """Choose the strength of a linear probe in folds of some rows (`trained.Choose`)."""
    strength = _strength(x, y, inner)

    def fit(x: np.ndarray, labellings: Sequence[np.ndarray]) -> Predict:
        found = [_fit(x, y, strength) for y in labellings]
        return lambda x: np.stack([one.predict(x) for one in found])

    return fit


def _probe(**settings: float) -> Pipeline:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(**settings, max_iter=STEPS))


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> Pipeline:
    return _probe(C=strength).fit(x, y)


def _strength(x: np.ndarray, y: np.ndarray, inner: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the C with the least log loss in the folds: by accuracy many would tie where the pivot
    is easy to read.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV

    name = "logisticregression__C"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # judged as it is; the one that is used is watched
        search = GridSearchCV(_probe(), {name: STRENGTHS}, scoring="neg_log_loss", cv=inner, refit=False).fit(x, y)
    return float(search.best_params_[name])


def _results(
    reps: xr.Dataset,
    drawn: Sample,
    pivot: str,
    folds: Sequence[Fold],
    right: Mapping[str, np.ndarray],
    seed: int,
) -> xr.Dataset:
    """Put what is right (row, layer, probe) of every language into accuracies with intervals."""
    zero_shot, in_language, control, rows = accuracies(drawn, pivot, folds, right, seed)
    selectivity = {language: zero_shot[language] - control[language] for language in zero_shot}
    missing = missing_of(reps, drawn, pivot, folds)
    out = []
    for about, statistics in zip(LINEAR_PROBE, (zero_shot, in_language, control, selectivity), strict=True):
        with warnings.catch_warnings():
            if statistics is control or statistics is selectivity:
                warnings.simplefilter("ignore", LayerscopeWarning)  # missing where linear_probe is, which has said so
            attributes = about.about() | {"pivot": pivot}
            one = result(reps, drawn, statistics, attributes, rows=rows, bounds=about.bounds, missing=missing)
        out.append(of_shares(one) if statistics is zero_shot or statistics is in_language else one)
    return stack_measures(out)


def _warn_unfinished(model: str, layers: Sequence[str]) -> None:
    if layers:
        warnings.warn(
            f"linear_probe of model {model}: fits did not converge in {STEPS} steps at layer "
            f"{', '.join(layers)}; what is said there is of the probes as they were then",
            LayerscopeWarning,
            stacklevel=4,
        )


_ZERO_SHOT = of_labels(
    name="linear_probe",
    title="linear probe, zero-shot",
    estimator="accuracy of a logistic regression on standardised features, trained on the pivot",
    range="0 to 1; chance is the control",
    bounds=(0, 1),
    unchanged_by=("shift", "common scale", "scale of each feature", "order"),
    paper="Alain and Bengio 2016, arXiv 1610.01644",
    needs=("labels", "pivot or one language"),
    family="linear_probes",
    default=False,
    interval=f"{LARGE} of test rows, by the probe as it is trained (other training rows move it further)",
    measure=_measured,
    check=_check,
)
LINEAR_PROBE = (
    _ZERO_SHOT,
    replace(
        _ZERO_SHOT,
        name="linear_probe_in_language",
        title="linear probe, in-language",
        estimator="accuracy of a logistic regression on standardised features, trained on the language itself",
    ),
    replace(
        _ZERO_SHOT,
        name="linear_probe_control",
        title="linear probe, shuffled labels",
        estimator=f"as linear_probe, trained on shuffled labels; mean of {SHUFFLES} shuffles",
        range="0 to 1; about 1 / classes where classes are of one size",
        better="",
        higher_is="more leakage",
        paper="after Hewitt and Liang 2019, arXiv 1909.03368",
    ),
    replace(
        _ZERO_SHOT,
        name="linear_probe_selectivity",
        title="linear probe, selectivity",
        estimator="linear_probe minus linear_probe_control",
        range="-1 to 1; 0 where labels cannot be told better than from shuffled ones",
        bounds=(-1, 1),
        paper="after Hewitt and Liang 2019, arXiv 1909.03368",
    ),
)
