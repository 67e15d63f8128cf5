"""Kernel probe: how much more of the classes is there than a linear probe reads?

As the linear probe, in the same folds, but a logistic regression on random binning features, which
can read any smooth function of the states. What it reads more is the gain.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr
from scipy.stats import norm
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from probes.errors import LayerscopeWarning
from probes.measures.classes.binning import binned, grids, hashed
from probes.measures.classes.folds import Fold, folds_of, known_pivot
from probes.measures.classes.labels import of_labels
from probes.measures.classes.linear_probe import fitted as fitted_linear
from probes.measures.classes.trained import Fit, Predict, accuracies, answers, missing_of, pooled, weighed
from probes.measures.probe import LARGE, Run
from probes.results.draws import Sample, need_classes, sample
from probes.results.intervals import CONFIDENCE, of_shares
from probes.results.result import result, stack_measures
from probes.states.representations import states

GRIDS = 256
BANDWIDTHS = (1.0, 2.0, 4.0)  # over the mean distance of two rows: how many e-folds the kernel falls by over it
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C of scikit-learn: the larger, the freer the probe
SHUFFLES = 5
STEPS = 300  # most of the solver


def kernel_probe(
    reps: xr.Dataset, *, pivot: str | None = None, draws: int = 200, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Measure how well a kernel classifier reads the classes, and how much better than a linear one.

    Accuracy, 0 to 1, higher is better separated; the gain over the linear probe is -1 to 1, and
    above 0 where classes are told apart by what no line shows.

    Args:
        reps: Representations with labels.
        pivot: the language that the probe is trained on; needed where there are several.
        draws, seed: of the bootstrap by sentence id; the seed is also that of folds, grids and
            shuffles.
        progress: show a progress bar.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` and `n`, the number of test rows:

        - `kernel_probe`: trained on the pivot, tested on every language (zero-shot).
        - `kernel_probe_in_language`: trained and tested on the same language.
        - `kernel_probe_control`: as `kernel_probe`, but trained on shuffled labels.
        - `gain_over_linear`: `kernel_probe` minus `linear_probe`, on the same rows, draw by draw.
        - `gain_over_linear_in_language`: the same in-language.

        `pooled` is in all the mean of the languages other than the pivot, each counting equally.

    Raises:
        InputError: as `linear_probe` does, before anything is trained.

    Notes:
        Wu, Yen, Chen, Yan 2018, arXiv 1809.05247: random binning for the Laplacian kernel of the
        standardised features, widths drawn from Gamma(2). Bandwidth and penalty are chosen by log
        loss in folds of the pivot's training rows. The regression is solved in the span of the
        training rows, with the same solution as in all bins. Folds and intervals are those of
        `linear_probe`; that of a gain adds one sentence to either side (Bonett and Price 2012).

    See also:
        `linear_probe`, `sparse_probe`.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(240, 2))
        >>> split = ("example", np.repeat(["train", "test"], 120))
        >>> reps = probes.from_arrays(x, label=np.sign(x[:, 0] * x[:, 1])).assign_coords(split=split)
        >>> out = kernel_probe(reps, draws=20, progress=False).value.sel(language="pooled")
        >>> bool(out.sel(layer=0, measure="gain_over_linear") > 0.2)
        True
    """
    return _measured(Run(reps, sample(reps, draws=draws, seed=seed), pivot=pivot, seed=seed, progress=progress))


def _measured(run: Run) -> xr.Dataset:
    drawn = need_classes(run.sample)
    pivot = known_pivot(drawn, run.pivot)
    folds, right, linear = run.once("kernel_probe", lambda: _trained(run, pivot))
    return _results(run.reps, drawn, pivot, folds, right, linear, run.seed)


def _check(run: Run) -> None:
    drawn = need_classes(run.sample)
    folds_of(drawn, known_pivot(drawn, run.pivot), run.seed, run.reps)


def _trained(run: Run, pivot: str) -> tuple[list[Fold], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The folds, and which test rows the kernel and the linear probes get right: (row, layer,
    classifier).
    """
    from sklearn.exceptions import ConvergenceWarning

    reps, drawn, seed = run.reps, run.sample, run.seed
    folds = folds_of(drawn, pivot, seed, reps)
    right: dict[str, list[np.ndarray]] = {language: [] for language in drawn.languages}
    linear: dict[str, list[np.ndarray]] = {language: [] for language in drawn.languages}
    bar = tqdm(
        reps["layer"].values,
        desc=f"kernel_probe {reps.attrs.get('model', '?')}",
        unit="layer",
        disable=not run.progress,
    )
    for layer, _ in enumerate(bar):
        read: Callable[[np.ndarray], np.ndarray] = partial(states, reps, layer)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what is compared is the probes as they are then
            for found, shuffles, choose in ((right, SHUFFLES, partial(fitted, seed=seed)), (linear, 0, fitted_linear)):
                for language, one in answers(read, drawn, pivot, folds, shuffles, seed, choose).items():
                    found[language].append(one)
    return folds, *({k: np.stack(v, axis=1) for k, v in found.items()} for found in (right, linear))  # type: ignore[return-value]


def fitted(x: np.ndarray, y: np.ndarray, inner: list[tuple[np.ndarray, np.ndarray]], *, seed: int) -> Fit:
    """Choose bandwidth and strength in folds of some rows (`trained.Choose`)."""
    from sklearn.metrics import log_loss

    losses = {}
    classes = np.unique(y)
    for bandwidth in BANDWIDTHS:
        spanned, _ = _features(x, bandwidth, seed)
        for strength in STRENGTHS:
            said = [
                _fit(spanned[learned], y[learned], strength).predict_proba(spanned[held]) for learned, held in inner
            ]
            each = [log_loss(y[held], p, labels=classes) for p, (_, held) in zip(said, inner, strict=True)]
            losses[bandwidth, strength] = np.mean(each)
    bandwidth, strength = min(losses, key=losses.__getitem__)

    def fit(x: np.ndarray, labellings: Sequence[np.ndarray]) -> Predict:
        spanned, spans = _features(x, bandwidth, seed)
        found = [_fit(spanned, y, strength) for y in labellings]

        def predict(x: np.ndarray) -> np.ndarray:
            features = spans(x)
            return np.stack([one.predict(features) for one in found])

        return predict

    return fit


def _fit(x: np.ndarray, y: np.ndarray, strength: float):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=STEPS).fit(x, y)


def _features(x: np.ndarray, bandwidth: float, seed: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The binning features of training rows, turned to the directions that these span, and what
    turns other rows the same way.

    A penalised regression has its solution in that span, so that it is the same there: as many
    columns as rows in place of one for each bin.
    """
    middle, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread <= 10 * np.finfo(float).eps * np.abs(middle)] = 1.0  # of a constant, its own rounding
    z = (x - middle) / spread
    drawn = grids(x.shape[1], GRIDS, bandwidth / (mean_distance(z) or 1.0), seed)
    train = hashed(z, drawn)
    (features,) = binned(train)
    squares, turn = np.linalg.eigh((features @ features.T).toarray())
    kept = squares > 1e-10 * squares[-1]
    turn, roots = turn[:, kept], np.sqrt(squares[kept])

    def spans(other: np.ndarray) -> np.ndarray:
        one, two = binned(train, hashed((other - middle) / spread, drawn))
        return ((two @ one.T) @ turn) / roots

    return turn * roots, spans


def mean_distance(z: np.ndarray) -> float:
    """The mean sum of absolute differences of two rows, by the order of each feature."""
    n = len(z)
    ranks = 2 * np.arange(n) - n + 1
    return max(2 * float((ranks @ np.sort(z, axis=0)).sum()) / (n * max(n - 1, 1)), 0.0)


def _results(
    reps: xr.Dataset,
    drawn: Sample,
    pivot: str,
    folds: Sequence[Fold],
    right: dict[str, np.ndarray],
    linear: dict[str, np.ndarray],
    seed: int,
) -> xr.Dataset:
    zero_shot, in_language, control, rows = accuracies(drawn, pivot, folds, right, seed)
    gains = []
    for i in range(2):
        of_languages = {}
        for language in drawn.languages:
            apart = right[language][..., i] - linear[language][..., i]
            of_languages[language] = weighed(apart, drawn.ids[rows[language]], drawn.weights, drawn.units, (-1, 1))
        gains.append(pooled(drawn, pivot, of_languages))
    missing = missing_of(reps, drawn, pivot, folds)
    out = []
    for about, statistics in zip(KERNEL_PROBE, (zero_shot, in_language, control, *gains), strict=True):
        with warnings.catch_warnings():
            if statistics is not zero_shot and statistics is not in_language:
                warnings.simplefilter("ignore", LayerscopeWarning)  # missing where those are, which have said so
            attributes = about.about() | {"pivot": pivot}
            one = result(reps, drawn, statistics, attributes, rows=rows, bounds=about.bounds, missing=missing)
        if statistics is zero_shot or statistics is in_language:
            one = of_shares(one)
        elif statistics is not control:
            one = of_gains(one)
        out.append(one)
    return stack_measures(out)


def of_gains(out: xr.Dataset) -> xr.Dataset:
    """Give differences of two shares of the same sentences the variance that no draw shows: of one
    sentence more that only the one gets right, and one that only the other does.
    """
    value, units = out["value"].values, out["units"].values  # language is the last dimension
    unseen = 2 / units.astype(float) ** 2
    further = norm.ppf((1 + CONFIDENCE) / 2) ** 2 * unseen
    low, high = (
        value + side * np.sqrt((out[end].values - value) ** 2 + further) for end, side in (("low", -1), ("high", 1))
    )
    dims = out["value"].dims
    return out.assign(
        low=(dims, np.clip(low, -1, 1)),
        high=(dims, np.clip(high, -1, 1)),
        unseen=(dims, np.broadcast_to(unseen, value.shape)),
    )


_ZERO_SHOT = of_labels(
    name="kernel_probe",
    title="kernel probe, zero-shot",
    estimator="accuracy of a logistic regression on random binning features (Laplacian kernel), trained on the pivot",
    range="0 to 1; chance is the control",
    bounds=(0, 1),
    unchanged_by=("shift", "common scale", "scale of each feature", "order"),
    paper="Wu, Yen, Chen, Yan 2018, arXiv 1809.05247",
    needs=("labels", "pivot or one language"),
    family="kernel_probes",
    default=False,
    interval=f"{LARGE} of test rows, by the probe as it is trained (other training rows move it further)",
    measure=_measured,
    check=_check,
)
KERNEL_PROBE = (
    _ZERO_SHOT,
    replace(
        _ZERO_SHOT,
        name="kernel_probe_in_language",
        title="kernel probe, in-language",
        estimator="as kernel_probe, trained on the language itself",
    ),
    replace(
        _ZERO_SHOT,
        name="kernel_probe_control",
        title="kernel probe, shuffled labels",
        estimator=f"as kernel_probe, trained on shuffled labels; mean of {SHUFFLES} shuffles",
        range="0 to 1; about 1 / classes where classes are of one size",
        better="",
        higher_is="more leakage",
    ),
    replace(
        _ZERO_SHOT,
        name="gain_over_linear",
        title="gain over the linear probe, zero-shot",
        estimator="kernel_probe minus linear_probe on the same rows",
        range="-1 to 1; 0 where a linear probe reads as much",
        bounds=(-1, 1),
        better="",
        higher_is="more that no line shows",
    ),
    replace(
        _ZERO_SHOT,
        name="gain_over_linear_in_language",
        title="gain over the linear probe, in-language",
        estimator="kernel_probe_in_language minus linear_probe_in_language on the same rows",
        range="-1 to 1; 0 where a linear probe reads as much",
        bounds=(-1, 1),
        better="",
        higher_is="more that no line shows",
    ),
)
