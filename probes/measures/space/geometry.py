"""Geometry: how the states of a layer fill the space, told without labels or translations."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import Probe, Run
from probes.measures.space.effective_rank import EFFECTIVE_RANK, entropy_draws, entropy_of_covariance
from probes.measures.space.intrinsic_dimension import INTRINSIC_DIMENSION, intrinsic_dimension, ratios_of_neighbours
from probes.measures.space.largest_feature import LARGEST_FEATURE, Largest, largest_feature
from probes.measures.space.mean_cosine import MEAN_COSINE, mean_cosine
from probes.measures.space.norm import NORM, mean_norm
from probes.measures.space.participation_ratio import ISO_SCORE, PARTICIPATION_RATIO, participation_ratio
from probes.measures.space.principal import principal, within_sentences
from probes.measures.space.sentences import FEWEST_IDS, ROUNDING, Sentences
from probes.results.counts import Weights
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import linearised, widened
from probes.results.resampled import held_twice
from probes.results.result import result, stack_measures
from probes.states.representations import as_numbers, check_enough, states

_GUESSED = np.log(2)  # the most of an effective rank that may be extrapolated
_NONE_VARY = "undefined here (0/0), as for states that are all equal"


@overload
def geometry(x: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset: ...


@overload
def geometry(x: npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> dict[str, float]: ...


def geometry(x: xr.Dataset | npt.ArrayLike, *, draws: int = 200, seed: int = 0) -> xr.Dataset | dict[str, float]:
    """Measure how the states of each layer fill the space: direction, isotropy, dimension, length.

    Seven measures, none of which is better when high or low; they say what a compression changed.
    For S the covariance:

    - `mean_cosine_of_pairs`, -1 to 1: of all pairs of different sentences; high where states lie
      in a narrow cone.
    - `iso_score`, 0 to 1: how evenly the variance is spread over the features; 1 where it is equal
      in all directions.
    - `effective_rank`, 1 to features: exp of the entropy of the eigenvalues of S.
    - `participation_ratio`, 1 to features: trace(S)^2 / trace(S^2), which small eigenvalues hardly
      change.
    - `intrinsic_dimension`, above 0: of the surface on which the states lie, curved or not (TwoNN).
    - `norm`, above 0: mean Euclidean norm.
    - `largest_feature_share`, 1 / features to 1: of the squared length in the largest feature,
      which is named where it decides lengths and cosines (`probes.without_outliers`).

    Args:
        x: Representations, or an array (example, feature).
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, layer, language)`, with all languages together as `pooled`, and
        beside each measure its estimator, range, direction, invariances and paper; for an array a
        float a measure, by name.

    Raises:
        InputError: a language has fewer than 4 sentences.

    Notes:
        Corrected for the number of sentences, so that corpora of different size can be compared;
        translations, and sentences of one group, are not counted as further ones. The intrinsic
        dimension is not: above about 10 it is too low, the more so the fewer the sentences. Its
        neighbours are of the same language and another group; of copies the first counts, with a
        warning. Unbiased estimates may leave their range. The interval is for the value of a large
        corpus, for effective rank and intrinsic dimension for the mean over corpora of this size.

    See also:
        `variability`, `class_separability`, `alignment_gap`.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 64)) + 0.5
        >>> for name, value in geometry(x).items():
        ...     print(name, round(value, 1))
        mean_cosine_of_pairs 0.2
        iso_score 1.0
        effective_rank 63.0
        participation_ratio 62.3
        intrinsic_dimension 26.6
        norm 8.9
        largest_feature_share 0.0
    """
    if not isinstance(x, xr.Dataset):
        return _of_array(as_numbers(x))
    return _measured(x, sample(x, draws=draws, seed=seed))


def _of_array(x: np.ndarray) -> dict[str, float]:
    if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(f"expected an array (example, feature) of numbers; found {x.dtype} {x.shape}")
    if len(x) < FEWEST_IDS:
        raise InputError(
            f"geometry: found {len(x)} row{'' if len(x) == 1 else 's'}, and needs at least {FEWEST_IDS} (a few hundred "
            "to say much)"
        )
    x, ids, weights = x.astype(np.float64), np.arange(len(x)), np.ones((1, len(x)), np.uint16)
    values, _, _ = _measure(x, ids, weights)
    ratios = ratios_of_neighbours(x, ids)
    if len(ratios.logs) and len(ratios.kept) < len(x):
        warnings.warn(
            f"intrinsic_dimension leaves out rows that are copies of another: {len(x) - len(ratios.kept)}",
            LayerscopeWarning,
            stacklevel=3,
        )
    values["intrinsic_dimension"], _ = intrinsic_dimension([ratios], held_twice(weights))
    return {name: float(values[name][0]) for name in GEOMETRY}


def _measured(x: xr.Dataset, drawn: Sample) -> xr.Dataset:
    found = _found(x, drawn)
    results = []
    for name, probe in GEOMETRY.items():
        reasons = {k[1:]: v for k, v in found.reasons.items() if k[0] == name}
        results.append(
            result(
                x,
                drawn,
                found.statistics[name],
                probe.about(),
                missing=lambda at, language, reasons=reasons: reasons[at[0], language],  # type: ignore[misc]
            )
        )
    named = {layer: one for layer, one in found.largest.items() if one.decides}
    if named:
        warnings.warn(
            f"largest_feature_share of model {x.attrs.get('model', '?')}: "
            f"{'; '.join(one.in_words(f'layer {layer}') for layer, one in list(named.items())[:5])}"
            f"{f'; and at {len(named) - 5} more layers' if len(named) > 5 else ''}: cosines there are mostly of it. "
            "probes.without_outliers(reps, 1) leaves it out",
            LayerscopeWarning,
            stacklevel=3,
        )
    every = "; ".join(one.in_words(f"layer {layer}") for layer, one in found.largest.items())
    return stack_measures(results).assign_attrs(largest_features=every)


@dataclass
class _Found:
    """What was measured: measure -> language -> (1 + draws, layer), and why a value is missing."""

    statistics: dict[str, dict[str, np.ndarray]]
    reasons: dict[tuple[str, int, str], str]
    largest: dict[int, Largest]  # of all languages together, layer by layer


def _found(reps: xr.Dataset, drawn: Sample) -> _Found:
    groups = {language: drawn.group(language) for language in drawn.languages}
    # What counts as a sentence is what is drawn: an id with its translations, or a whole group of ids.
    of_row, weights = drawn.units[drawn.ids], drawn.weights.take(np.unique(drawn.units, return_index=True)[1], axis=1)
    held = held_twice(weights)
    what = "group" if drawn.grouped else "sentence"
    for language, rows in groups.items():
        if (found := len(np.unique(of_row[rows]))) < FEWEST_IDS:
            raise InputError(
                f"geometry: language {language!r} has {found} {what}{'' if found == 1 else 's'}, and needs "
                f"at least {FEWEST_IDS} (a few hundred to say much). Add some, or leave the language out"
            )
    if len(groups) > 1:
        groups[POOLED] = drawn.group(POOLED)
    shape = (len(drawn.weights), reps.sizes["layer"])
    out = _Found({name: {group: np.full(shape, np.nan) for group in groups} for name in GEOMETRY}, {}, {})
    copies = []
    for layer in range(reps.sizes["layer"]):
        ratios = []
        place = f"layer {reps['layer'].values[layer]}"
        for group, rows in groups.items():
            order = np.lexsort((drawn.ids[rows], of_row[rows]))
            x = states(reps, layer, rows)[order]
            ids = of_row[rows][order]
            values, reasons, largest = _measure(x, ids, weights)
            if largest is not None:  # pooled, or the only language, comes last
                out.largest[int(reps["layer"].values[layer])] = largest
            if drawn.grouped:  # of means the draws know nothing of how few they are
                for name in ("norm", "mean_cosine_of_pairs", "largest_feature_share"):
                    values[name] = widened(values[name], np.array([len(np.unique(ids))]))
            if group != POOLED:
                ratios.append(ratios_of_neighbours(x, ids))
                if len(ratios[-1].logs) and len(ratios[-1].kept) < len(x):
                    copies.append(f"{len(x) - len(ratios[-1].kept)} of {group} at {place}")
            kept = ratios if group == POOLED else ratios[-1:]
            values["intrinsic_dimension"], why = intrinsic_dimension(kept, held)
            reasons["intrinsic_dimension"] = reasons.get("norm", why)
            for name, value in values.items():
                out.statistics[name][group][:, layer] = value
                out.reasons[name, layer, group] = f"{place}: {reasons.get(name, _NONE_VARY)}"
    if copies:
        warnings.warn(
            f"intrinsic_dimension of model {reps.attrs.get('model', '?')} leaves out rows that are copies of another: "
            f"{'; '.join(copies[:5])}{f'; and at {len(copies) - 5} more places' if len(copies) > 5 else ''}",
            LayerscopeWarning,
            stacklevel=4,
        )
    if len(drawn.languages) == 1:
        only = drawn.languages[0]
        for statistics in out.statistics.values():
            statistics[POOLED] = statistics[only]
        out.reasons |= {(name, layer, POOLED): why for (name, layer, _), why in out.reasons.items()}
    return out


def _measure(
    x: np.ndarray, ids: np.ndarray, weights: Weights
) -> tuple[dict[str, np.ndarray], dict[str, str], Largest | None]:
    """Return all measures but the intrinsic dimension of states sorted by id, a value a row of
    weights, reasons, and which feature is the largest.
    """
    nan = np.full(len(weights), np.nan)
    names = [name for name in GEOMETRY if name != "intrinsic_dimension"]
    if bad := int((~np.isfinite(x).all(axis=1)).sum()):
        return dict.fromkeys(names, nan), dict.fromkeys(names, f"{bad} rows are not finite"), None
    sentences = Sentences.of(ids)
    norm = np.linalg.norm(x, axis=1)
    values = dict.fromkeys(names, nan)
    reasons = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        values["norm"] = mean_norm(sentences.sum(norm), weights, sentences)
        values["mean_cosine_of_pairs"] = mean_cosine(sentences.sum(x / norm[:, None]), weights, sentences)
    values["largest_feature_share"], largest = largest_feature(sentences.sum(np.square(x)), weights, sentences)
    if not norm.all():
        reasons["mean_cosine_of_pairs"] = f"{int((norm == 0).sum())} rows are all zero and have no direction"
    centred = x - x.mean(axis=0)
    if np.abs(centred).max() <= ROUNDING * np.abs(x).max():
        return values, reasons, largest
    scores, spectrum = principal(centred)
    within = within_sentences(scores, sentences)
    ratio, influence = participation_ratio(scores, spectrum, within, sentences)
    features = x.shape[1]
    if ratio > 0:
        drawn = linearised(np.array(ratio), ratio * influence, ids, weights, np.arange(weights.shape[1]), (0.0, np.inf))
        values["participation_ratio"] = drawn
        values["iso_score"] = (drawn - 1) / (features - 1) if features > 1 else nan
    reasons["participation_ratio"] = "too few sentences: the unbiased estimate of trace(S^2) is not positive"
    reasons["iso_score"] = reasons["participation_ratio"] if features > 1 else "there is only one feature"
    entropy, guessed = entropy_of_covariance(scores, spectrum, within, sentences, features)
    if guessed <= _GUESSED:
        values["effective_rank"] = np.exp(entropy_draws(x, ids, entropy, weights.take(sentences.there, axis=1)))
    reasons["effective_rank"] = (
        f"{len(sentences.counts)} sentences are too few for so many dimensions: more than half of the value would be a "
        "guess"
    )
    return values, reasons, largest


def _of_run(run: Run) -> xr.Dataset:
    return _measured(run.reps, run.sample)


def _check(run: Run) -> None:
    check_enough(run.reps, FEWEST_IDS, "geometry")


GEOMETRY: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        about(measure=_of_run, check=_check)
        for about in (
            MEAN_COSINE,
            ISO_SCORE,
            EFFECTIVE_RANK,
            PARTICIPATION_RATIO,
            INTRINSIC_DIMENSION,
            NORM,
            LARGEST_FEATURE,
        )
    )
}
