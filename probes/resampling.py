"""Error bars: bootstrap by sentence id, paired differences, p-values adjusted over layers.

Every probe is a statistic of weighted examples. `Sample.weights` holds one row of weights an id: row 0 is all ones (the
sample itself), every further row is one bootstrap draw, how often each id was drawn. Ids are drawn, not rows, so that
translations stay together; the draws depend on the ids and the seed alone, so that two models get the same ones and
their difference is paired. A statistic for all rows of weights is one matrix product.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.stats import norm as normal
from scipy.stats import t as student_t

from probes.errors import InputError, LayerscopeWarning
from probes.representations import check_representations, from_arrays, states

CONFIDENCE = 0.95
POOLED = "pooled"
_MOST_NAMED = 20  # places without a value that a warning lists


@dataclass(frozen=True)
class Sample:
    """The examples of Representations as numbers, and the weights of every draw."""

    ids: np.ndarray  # (example,) codes
    languages: list[str]
    language: np.ndarray  # (example,) codes
    classes: list[str]
    label: np.ndarray  # (example,) codes, empty without labels
    weights: np.ndarray  # (1 + draws, ids)
    key: str  # the same for two results if and only if their draws are the same

    def group(self, language: str) -> np.ndarray:
        """Return the rows of a language, or of all of them."""
        if language == POOLED:
            return np.arange(len(self.ids))
        return np.flatnonzero(self.language == self.languages.index(language))


def sample(reps: xr.Dataset, *, draws: int, seed: int, labels: bool) -> Sample:
    """Number the ids, languages and labels of Representations, and draw the ids.

    Raises:
        InputError: fewer than 2 draws; labels are needed and there are none, or only one class.
    """
    check_representations(reps)
    check_draws(draws, seed)
    # Sorted, so that shuffled rows get the same draws.
    ids, names = pd.factorize(reps["id"].values, sort=True)
    language, languages = pd.factorize(reps["language"].values)
    label, classes = np.zeros(0, int), np.zeros(0, object)
    if labels:
        if "label" not in reps.coords:
            raise InputError(
                "this probe needs labels, and the Representations have none. Capture a corpus with a label"
            )
        label, classes = pd.factorize(reps["label"].values, sort=True)
        if len(classes) < 2:
            raise InputError(f"this probe compares classes, and there is only one: {classes[0]!r}")
    key = hashlib.sha256("\0".join([*map(str, names), str(seed), str(draws)]).encode()).hexdigest()[:16]
    weights = _weights(len(names), draws, seed)
    return Sample(ids, list(languages), language, list(classes), label, weights, key)


def check_draws(draws: int, seed: int) -> None:
    """Raise `InputError` where draws and seed cannot be used, or there are too few draws for an interval."""
    if not isinstance(draws, int | np.integer) or draws < 2:
        raise InputError(f"draws={draws!r}: expected a whole number of at least 2; 200 is the default")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed={seed!r}: expected a whole number of at least 0")


def _weights(n: int, draws: int, seed: int) -> np.ndarray:
    """Balanced bootstrap: over all draws every id is drawn equally often, so their mean has no noise of its own."""
    pool = np.tile(np.arange(n, dtype=np.int32), draws)
    np.random.default_rng(seed).shuffle(pool)
    weights = np.ones((draws + 1, n), np.uint16)
    for row, drawn in zip(weights[1:], pool.reshape(draws, n), strict=True):
        row[:] = np.bincount(drawn, minlength=n)
    return weights


def on_arrays(
    statistics: Callable[[xr.Dataset, Sample], Mapping[str, np.ndarray]], x: npt.ArrayLike, labels: npt.ArrayLike | None
) -> float:
    """Return the value of a probe of labels on bare arrays (example, feature) and (example,), without an interval."""
    if labels is None:
        raise InputError("expected labels beside the array, one a row: probe(x, labels)")
    reps = from_arrays(x, label=labels)
    drawn = sample(reps, draws=2, seed=0, labels=True)
    out = statistics(reps, replace(drawn, weights=drawn.weights[:1], languages=[]))
    return float(out[POOLED][0, 0])


def centred(statistics: np.ndarray, times: int = 1) -> np.ndarray:
    """Take the bias off the draws of a statistic; row 0, the sample's own value, stays.

    A draw is as far from the sample as the sample is from the truth, so the draws carry the bias twice, once more than
    the sample's value. Taken off once, as their mean minus that value, they spread around what the statistic is in
    samples of this size; taken off two times, around what it tends to in large ones.
    """
    moved = statistics.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        moved[1:] -= times * (np.nanmean(statistics[1:], axis=0) - statistics[0])
    return moved


def widened(statistics: np.ndarray, drawn: Sample, group: str) -> np.ndarray:
    """Spread the draws of a statistic of classes as widely as the ids of the smallest class warrant.

    The draws know the spread of n ids with a share of 1 / n missing, and exactly only for large n: as for a mean, the
    factor is that of Student's t.
    """
    rows = drawn.group(group)
    counts = pd.DataFrame({"label": drawn.label[rows], "id": drawn.ids[rows]}).groupby("label")["id"].nunique()
    factor = _student(int(counts.min()))
    spread = statistics.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmean(statistics[1:], axis=0)
    spread[1:] = middle + factor * (statistics[1:] - middle)
    return spread


def _student(n: int) -> float:
    """How much more widely than the draws of n ids their population spreads."""
    n = max(n, 2)
    level = (1 + CONFIDENCE) / 2
    return float(np.sqrt(n / (n - 1)) * student_t.ppf(level, n - 1) / normal.ppf(level))


def linearised(
    value: np.ndarray, influence: np.ndarray, ids: np.ndarray, weights: np.ndarray, bounds: tuple[float, float]
) -> np.ndarray:
    """Return a statistic for every row of weights, to first order, from what each example does to it.

    For statistics that draws with repetition distort (nearest neighbours, ranks, eigenvalues: a sentence and its copy
    are alike) or that are too dear to compute hundreds of times. Spread as widely as the number of ids warrants
    (Student's t), and kept within bounds.

    Args:
        value: (...) the sample's own.
        influence: (example, ...) n times what adding a little of this example does to the value; its mean is taken off.
        ids: (example,) codes, columns of the weights.
        weights: (1 + draws, ids).
        bounds: the range of the statistic.

    Returns:
        (1 + draws, ...), row 0 the value.
    """
    there, own = np.unique(ids, return_inverse=True)
    flat = (influence - influence.mean(axis=0)).reshape(len(ids), -1)
    summed = np.zeros((len(there), flat.shape[1]))
    np.add.at(summed, own, flat)
    w = weights[1:, there].astype(np.float64)
    factor = _student(len(there))
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = factor * (w @ summed) / (w @ np.bincount(own))[:, None]
    out = value + np.concatenate([np.zeros((1, *value.shape)), moved.reshape(-1, *value.shape)])
    out[1:] = np.clip(out[1:], *bounds)
    return out


def result(
    reps: xr.Dataset,
    drawn: Sample,
    statistics: Mapping[str, np.ndarray],
    attributes: Mapping[str, object],
    *,
    n: Mapping[str, int] | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    over: Mapping[str, npt.ArrayLike] | None = None,
    missing: Callable[[tuple[int, ...], str], str] | None = None,
) -> xr.Dataset:
    """Put a probe's numbers into its labelled result, with the interval, and say which are missing and why.

    Args:
        reps: what was measured.
        drawn: the sample and its draws.
        statistics: for every language (or `POOLED`) an array (1 + draws, layer), row 0 the sample's own value.
        attributes: what the probe says of itself: its estimator, range, direction, invariances and paper.
        n: for every language the number of examples; by default all that it has.
        bounds: the range that the interval is kept within.
        over: the dimensions of a statistic after the draws, with their coordinates; by default `layer`.
        missing: (position along `over`, language) -> where there is no value and why, as "layer 3: ..."; by default
            what the states tell.

    Returns:
        `value, low, high (layer, language)`, `n (language)`, `draws (draw, layer, language)`, or along `over` in place
        of `layer`.
    """
    over = {"layer": reps["layer"].values} if over is None else over
    n = n or {language: len(drawn.group(language)) for language in statistics}
    values = np.stack([statistics[language] for language in statistics], axis=-1)
    low, high = interval(values[0], values[1:])
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    dims = (*over, "language")
    out = xr.Dataset(
        {
            "value": (dims, values[0]),
            "low": (dims, low),
            "high": (dims, high),
            "n": ("language", np.array([n[language] for language in statistics])),
            "draws": (("draw", *dims), values[1:]),
        },
        coords={**over, "language": np.array(list(statistics), dtype=object)},
        attrs={
            **attributes,
            "model": reps.attrs.get("model", "?"),
            "interval": f"{CONFIDENCE:.0%} percentile interval of {len(values) - 1} bootstrap draws of sentence ids",
            "resampling": drawn.key,
        },
    )
    _warn_missing(out, missing or (lambda at, language: _why(reps, drawn, out, at[0], language)))
    return out


# What a probe says of itself, one value a measure where one function returns several.
ABOUT = ("probe", "estimator", "range", "higher_is", "invariant_to", "paper")


def together(results: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put the results of several probes of one run side by side along `measure`; what each says of itself beside it."""
    first = results[0]
    about = {k: ("measure", np.array([r.attrs[k] for r in results], dtype=object)) for k in ABOUT if k != "probe"}
    names = np.array([r.attrs["probe"] for r in results], dtype=object)
    out = xr.concat([r.drop_attrs() for r in results], pd.Index(names, name="measure"))
    return out.assign_coords(about).assign_attrs({k: v for k, v in first.attrs.items() if k not in ABOUT})


def apart(result: xr.Dataset) -> dict[str, xr.Dataset]:
    """Return the results that `together` put side by side, or one that stands alone, by the name of the probe."""
    if "measure" not in result.dims:
        return {result.attrs["probe"]: result}
    out = {}
    for name in result["measure"].values:
        one = result.sel(measure=name)
        about = {"probe": name} | {k: one[k].item() for k in ABOUT if k != "probe"}
        out[str(name)] = one.drop_vars(["measure", *(k for k in ABOUT if k != "probe")]).assign_attrs(about)
    return out


def interval(value: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval over the first axis, widened where needed so that it holds the value itself.

    NaN draws (a class that a draw left out) are passed over; where the value is NaN, so are both ends.
    """
    tail = (1 - CONFIDENCE) / 2
    # The one that passes over NaN takes a loop in Python.
    quantile = np.nanquantile if np.isnan(draws).any() else np.quantile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: said once, by name, in result()
        low, high = quantile(draws, [tail, 1 - tail], axis=0, method="weibull")  # the (n + 1) q-th draw
    missing = np.isnan(value)
    return np.where(missing, np.nan, np.fmin(low, value)), np.where(missing, np.nan, np.fmax(high, value))


def exact_at_the_ends(out: xr.Dataset) -> xr.Dataset:
    """For a share of sentences: where all are right, or none, take the exact binomial interval of as many sentences."""
    ids = out["n"].where(out["language"] != POOLED, out["n"].sel(language=out["language"] != POOLED).max())
    least = ((1 - CONFIDENCE) / 2) ** (1 / ids)
    return out.assign(
        low=xr.where(out["value"] == 1, least, out["low"]).transpose(*out["value"].dims),
        high=xr.where(out["value"] == 0, 1 - least, out["high"]).transpose(*out["value"].dims),
    )


def difference(result: xr.Dataset, baseline: xr.Dataset) -> xr.Dataset:
    """Return how far a probe's result lies from the baseline's, draw by draw, on the layers and languages of both.

    The p-value is two-sided and adjusted over the layers of one language (Westfall and Young's single-step max-T, on
    the bootstrap draws): the chance, were there no difference at any layer, of a standardised difference as large as
    this one at any of them. It cannot be smaller than 1 / (draws + 1).

    Returns:
        `difference, low, high, p_adjusted (layer, language)`.

    Raises:
        InputError: the two results come from different probes, ids, seeds or numbers of draws, or have no draws.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(60, 8)), np.arange(60) % 3
        >>> base = probes.snr(probes.from_arrays(x + 2 * np.eye(8)[y], label=y))
        >>> less = probes.snr(probes.from_arrays(x + np.eye(8)[y], label=y))
        >>> bool(difference(less, base).high.sel(layer=0, language="pooled") < 0)
        True
    """
    if "measure" in result.dims and "measure" in baseline.dims:
        pairs = zip(apart(result).items(), apart(baseline).values(), strict=True)
        gaps = {name: difference(one, other) for (name, one), other in pairs}
        return xr.concat(list(gaps.values()), pd.Index(list(gaps), name="measure"))
    if "draws" not in result or "draws" not in baseline:
        raise InputError(f"{result.attrs.get('probe', 'this')} has no draws, so no difference to a baseline")
    for key, what in (("probe", "probes"), ("resampling", "ids, seeds or numbers of draws")):
        if result.attrs[key] != baseline.attrs[key]:
            raise InputError(
                f"the results of {result.attrs['model']} and {baseline.attrs['model']} come from different {what}, so "
                "their draws are not paired. Measure both on the same corpus with the same draws and seed"
            )
    result, baseline = xr.align(result, baseline, join="inner")
    gap = (result["value"] - baseline["value"]).values
    draws = (result["draws"] - baseline["draws"]).values
    low, high = interval(gap, draws)
    dims = tuple(map(str, result["value"].dims))
    return xr.Dataset(
        {
            "difference": (dims, gap),
            "low": (dims, low),
            "high": (dims, high),
            # Over all that a language has: its layers, or pairs of them.
            "p_adjusted": (dims, _max_t(gap, draws)),
        },
        coords={k: result[k].values for k in dims},
    )


def _max_t(gap: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Adjusted p-values (layer, language) of differences, from draws (draw, layer, language)."""
    shape = gap.shape
    gap, draws = gap.reshape(-1, shape[-1]), draws.reshape(len(draws), -1, shape[-1])
    draws = np.where(np.isfinite(draws), draws, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        centre, spread = np.nanmean(draws, axis=0), np.nanstd(draws, axis=0)
        # A spread of rounding errors is none: two models that agree here differ by 0 with certainty.
        still = ~(spread > 1e-12 * (1 + np.abs(centre)))
        standard = np.where(still, 0.0, np.abs(draws - centre) / spread)
        largest = np.nanmax(standard, axis=1, keepdims=True)
        observed = np.where(still, np.where(np.abs(centre) > 1e-12, np.inf, 0.0), np.abs(centre) / spread)
    p = (1 + (largest >= observed).sum(axis=0)) / (1 + len(draws))
    return np.where(np.isnan(gap), np.nan, p).reshape(shape)


def _warn_missing(out: xr.Dataset, why: Callable[[tuple[int, ...], str], str]) -> None:
    reasons: dict[str, dict[str, None]] = {}  # in order, each once
    for *at, language in np.argwhere(np.isnan(out["value"].values)):
        name = str(out["language"].values[language])
        reasons.setdefault(why(tuple(at), name), {})[name] = None
    if reasons:
        found = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in list(reasons.items())[:_MOST_NAMED])
        more = len(reasons) - _MOST_NAMED
        warnings.warn(
            f"{out.attrs['probe']} of model {out.attrs['model']} has no value at {found}"
            f"{f'; and at {more} more places' if more > 0 else ''}",
            LayerscopeWarning,
            stacklevel=4,
        )


def _why(reps: xr.Dataset, drawn: Sample, out: xr.Dataset, layer: int, language: str) -> str:
    rows = drawn.group(language)
    if "pivot" in out.attrs:
        rows = np.union1d(rows, drawn.group(out.attrs["pivot"]))
    bad = int((~np.isfinite(states(reps, layer, rows)).all(axis=1)).sum())
    reason = f"{bad} rows are not finite" if bad else "undefined here (0/0), as for states that are all equal"
    return f"layer {out['layer'].values[layer]}: {reason}"


def warn_few(out: xr.Dataset, drawn: Sample, fewest: int) -> None:
    """Warn where a class has so few examples in a language that the interval is too narrow or too wide."""
    few = []
    for language in out["language"].values:
        counts = np.bincount(drawn.label[drawn.group(language)], minlength=len(drawn.classes))
        scarce = np.flatnonzero((counts > 0) & (counts < fewest))
        few += [f"{drawn.classes[c]} has {counts[c]} in {language}" for c in scarce]
    if few:
        warnings.warn(
            f"{out.attrs['probe']} of model {out.attrs['model']}: fewer than {fewest} examples in a class "
            f"({'; '.join(few[:5])}{f'; and {len(few) - 5} more' if len(few) > 5 else ''}), so its intervals are "
            "not reliable",
            LayerscopeWarning,
            stacklevel=4,
        )
