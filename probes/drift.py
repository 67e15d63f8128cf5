"""Drift: how far a compressed model has moved from its original, sentence by sentence, in its states and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import softmax

from probes.errors import InputError
from probes.representations import BLOCK, states
from probes.resampling import POOLED, Sample, exact_at_the_ends, result, sample, together
from probes.similarity import aligned

_COSINE = {
    "probe": "cosine_to_baseline",
    "estimator": "mean cosine of a sentence's states in both models",
    "range": "-1 to 1; 1 where no direction has changed",
    "higher_is": "better preserved",
    "invariant_to": "rotation of both, length of each vector, order (not shift)",
    "paper": "no single source",
}
_ERROR = {
    "probe": "signal_to_error",
    "estimator": "10 log10 (sum of squares of the baseline's states / sum of squares of what has changed), in dB",
    "range": "-infinity to infinity; 0 where the change is as large as the states, infinity where there is none",
    "higher_is": "better preserved",
    "invariant_to": "rotation and scale of both, order (not shift)",
    "paper": "signal to quantisation noise ratio; no single source",
}
_NORM = {
    "probe": "norm_ratio",
    "estimator": "mean length of the states over mean length of the baseline's",
    "range": "0 to infinity; 1 where lengths have not changed",
    "higher_is": "longer vectors",
    "invariant_to": "rotation of either, scale of both, order (not shift)",
    "paper": "no single source",
}
_LABEL = {
    "probe": "label_loyalty",
    "estimator": "share of sentences for which both models predict the same class",
    "range": "0 to 1",
    "higher_is": "better preserved",
    "invariant_to": "what does not change the predicted class",
    "paper": "Xu and McAuley 2023, arXiv 2202.07105",
}
_PROBABILITY = {
    "probe": "probability_loyalty",
    "estimator": "mean of 1 - sqrt(Jensen-Shannon divergence of the predicted probabilities), in bits",
    "range": "0 to 1; 1 where all probabilities are the same",
    "higher_is": "better preserved",
    "invariant_to": "a constant added to all logits of a sentence, order",
    "paper": "Xu and McAuley 2023, arXiv 2202.07105",
}
_ACCURACY = {
    "probe": "accuracy",
    "estimator": "share of sentences whose predicted class is their label",
    "range": "0 to 1",
    "higher_is": "better classified",
    "invariant_to": "what does not change the predicted class",
    "paper": "no single source",
}


def drift(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far each layer of a compressed model has moved from the same layer of its original.

    Sentence by sentence, without any fitting: a model whose states are turned as a whole has drifted, though
    `similarity` finds it unchanged.

    Args:
        base: Representations of the original.
        other: Representations of the compressed model on the same sentences, aligned by id and language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, layer, language)`, all languages together as `pooled`, on the layers that both
        have. The measures: `cosine_to_baseline` (-1 to 1, higher is better preserved), `signal_to_error` (in dB, higher
        is better preserved, infinite where nothing has changed), `norm_ratio` (1 where lengths are kept).

    Raises:
        InputError: the two hold different sentences, or differ in width.

    Notes:
        Relative error in dB is the signal to quantisation noise ratio: 20 dB is a change of a tenth of the states'
        length. Memory does not grow with the corpus beyond three numbers a sentence and layer.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(100, 8))
        >>> moved = drift(probes.from_arrays(x), probes.from_arrays(1.1 * x))
        >>> moved.value.sel(layer=0, language="pooled").round(6).values.tolist()
        [1.0, 20.0, 1.1]
    """
    other = aligned(base, other)
    if base.sizes["feature"] != other.sizes["feature"]:
        raise InputError(
            f"drift compares feature with feature: model {base.attrs.get('model', '?')!r} has "
            f"{base.sizes['feature']} and model {other.attrs.get('model', '?')!r} {other.sizes['feature']}. "
            "Models of different width can be compared by probes.similarity"
        )
    layers = [layer for layer in base["layer"].values if layer in other["layer"].values]
    if not layers:
        raise InputError("drift compares layer with layer, and the two have none of the same number")
    drawn = sample(base, draws=draws, seed=seed, labels=False)
    moved = other.sel(layer=layers)
    base = base.sel(layer=layers)
    sums = _sums(base, moved)
    with np.errstate(invalid="ignore", divide="ignore"):
        measures = {
            "cosine": _means(drawn, sums["cosine"]),
            "error": {
                g: 10 * np.log10(a / b)
                for g, a, b in _pairs(_means(drawn, sums["squares"]), _means(drawn, sums["change"]))
            },
            "norm": {g: b / a for g, a, b in _pairs(_means(drawn, sums["norm"]), _means(drawn, sums["norm of other"]))},
        }

    def missing(at: tuple[int, ...], language: str) -> str:
        rows = drawn.group(language)
        for reps in (base, moved):
            bad = int((~np.isfinite(states(reps, at[0], rows)).all(axis=1)).sum())
            if bad:
                return f"layer {layers[at[0]]}: {bad} rows of model {reps.attrs.get('model', '?')} are not finite"
        return f"layer {layers[at[0]]}: undefined (0/0), as for states that are all zero"

    results = []
    for key, about, bounds in (("cosine", _COSINE, (-1, 1)), ("error", _ERROR, None), ("norm", _NORM, (0, np.inf))):
        out = result(
            moved,
            drawn,
            {g: np.where(np.isposinf(v), _NO_ERROR, v) if key == "error" else v for g, v in measures[key].items()},
            about | {"other_model": base.attrs.get("model", "?")},
            bounds=bounds or (-np.inf, np.inf),
            missing=missing,
        )
        results.append(out.map(lambda v: v.where(v != _NO_ERROR, np.inf)) if key == "error" else out)
    return together(results)


# Stands for infinitely many dB while quantiles are taken.
_NO_ERROR = 1e300


def _sums(base: xr.Dataset, other: xr.Dataset) -> dict[str, np.ndarray]:
    """What the measures are means of: (example, layer) each."""
    shape = (base.sizes["example"], base.sizes["layer"])
    out = {k: np.empty(shape) for k in ("cosine", "squares", "change", "norm", "norm of other")}
    for layer in range(shape[1]):
        for start in range(0, shape[0], BLOCK):
            rows = slice(start, start + BLOCK)
            x, y = states(base, layer, rows), states(other, layer, rows)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
                out["cosine"][rows, layer] = np.einsum("ij,ij->i", x, y) / norms[0] / norms[1]
                out["squares"][rows, layer] = norms[0] ** 2
                out["change"][rows, layer] = np.square(y - x).sum(axis=1)
            out["norm"][rows, layer], out["norm of other"][rows, layer] = norms
    return out


def _means(drawn: Sample, values: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted means of values (example, ...) in every language and pooled: (1 + draws, ...)."""
    out = {}
    for group in [*drawn.languages, POOLED]:
        rows = drawn.group(group)
        w = drawn.weights[:, drawn.ids[rows]].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[group] = (w @ values[rows].reshape(len(rows), -1) / w.sum(axis=1, keepdims=True)).reshape(
                len(w), *values.shape[1:]
            )
    return out


def _pairs(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [(group, one[group], other[group]) for group in one]


def loyalty(base: xr.Dataset, other: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how far a compressed model's predictions are those of its original, right or wrong.

    Args:
        base: Representations of the original, captured with its head.
        other: Representations of the compressed model on the same sentences, aligned by id and language.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (measure, language)`, all languages together as `pooled`. The measures, both 0 to 1 and better
        preserved when higher: `label_loyalty`, the share of sentences with the same predicted class, and
        `probability_loyalty`, the mean of 1 - sqrt(JSD) of the predicted probabilities.

    Raises:
        InputError: one of the two has no logits, or they have other classes, or other sentences.

    Notes:
        After Xu and McAuley 2023, arXiv 2202.07105. The Jensen-Shannon divergence is taken in bits, so that it reaches
        1. Where all sentences agree, or none, the interval of the labels is the exact binomial one.

    Example:
        >>> import probes
        >>> logits = np.random.default_rng(0).normal(size=(100, 3))
        >>> reps = probes.from_arrays(np.ones((100, 2))).assign(logits=(("example", "class"), logits))
        >>> same = loyalty(reps, reps.assign(logits=reps.logits * 2))
        >>> same.value.sel(language="pooled").round(2).values.tolist()
        [1.0, 0.83]
    """
    other = aligned(base, other)
    one, two = check_logits(base, "loyalty"), check_logits(other, "loyalty")
    if one.shape != two.shape or list(class_names(base)) != list(class_names(other)):
        raise InputError(
            f"loyalty compares predictions class by class: model {base.attrs.get('model', '?')!r} has the classes "
            f"{_named(base)} and model {other.attrs.get('model', '?')!r} {_named(other)}"
        )
    drawn = sample(base, draws=draws, seed=seed, labels=False)
    same = (one.argmax(axis=1) == two.argmax(axis=1)).astype(float)
    same[~(np.isfinite(one) & np.isfinite(two)).all(axis=1)] = np.nan
    out = []
    for values, about in ((same, _LABEL), (1 - np.sqrt(divergence(one, two)), _PROBABILITY)):
        about = about | {"other_model": base.attrs.get("model", "?")}
        out.append(_at_output(other, drawn, values, about))
    return together([exact_at_the_ends(out[0]), out[1]])


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence in bits, 0 to 1, of the softmax of logits (example, class), a row each."""
    p, q = softmax(one.astype(np.float64), axis=1), softmax(other.astype(np.float64), axis=1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(r > 0, r * np.log2(r / middle), 0.0).sum(axis=1) for r in (p, q)]
    out = np.clip((terms[0] + terms[1]) / 2, 0, 1)
    return np.where(np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1), out, np.nan)


def accuracy(reps: xr.Dataset, *, draws: int = 200, seed: int = 0) -> xr.Dataset:
    """Measure how often a model predicts the label of a sentence.

    Args:
        reps: Representations with labels, captured with a head whose classes are named as the labels are
            (`model.config.id2label`), or whose labels are their numbers.
        draws, seed: of the bootstrap by sentence id.

    Returns:
        `value, low, high (language)`, all languages together as `pooled`; 0 to 1, higher is better.

    Raises:
        InputError: there are no logits or no labels, or a label that is no class of the model.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.ones((4, 2)), label=["a", "a", "b", "b"])
        >>> logits = xr.DataArray(np.eye(2)[[0, 0, 0, 1]], dims=("example", "class"), coords={"class": ["a", "b"]})
        >>> float(accuracy(reps.assign(logits=logits)).value.sel(language="pooled"))
        0.75
    """
    logits = check_logits(reps, "accuracy")
    if "label" not in reps.coords:
        raise InputError("accuracy needs labels, and the Representations have none. Capture a corpus with a label")
    wanted = label_codes(reps["label"].values, class_names(reps), str(reps.attrs.get("model", "?")))
    right = (logits.argmax(axis=1) == wanted).astype(float)
    right[~np.isfinite(logits).all(axis=1)] = np.nan
    drawn = sample(reps, draws=draws, seed=seed, labels=False)
    return exact_at_the_ends(_at_output(reps, drawn, right, _ACCURACY))


def label_codes(labels: np.ndarray, classes: list[str], model: str) -> np.ndarray:
    """Return the number of the class that each label names, by the name of the class or by its number."""
    if len(set(classes)) < len(classes):
        raise InputError(
            f"accuracy: two classes of model {model!r} have one name, among {', '.join(map(repr, classes[:10]))}. "
            "Give each its own, in model.config.id2label"
        )
    numbers = [str(i) for i in range(len(classes))]
    known = set(pd.unique(pd.Series(labels)))
    names = classes if known <= set(classes) else numbers
    unknown = sorted(known.difference(classes)) if not known <= set(names) else []
    if unknown:
        raise InputError(
            f"label {unknown[0]!r} is no class of model {model!r}; it has "
            f"{', '.join(map(repr, classes[:10]))}. Name its classes as the labels are, in model.config.id2label"
        )
    return pd.Categorical(labels, categories=names).codes


def check_logits(reps: xr.Dataset, probe: str) -> np.ndarray:
    """Return the logits (example, class) of Representations; raise `InputError` where there are none."""
    if "logits" not in reps:
        raise InputError(
            f"{probe} needs predictions, and the Representations of model {reps.attrs.get('model', '?')!r} hold no "
            "logits. Capture a model for sequence classification, with its head"
        )
    return reps["logits"].values


def class_names(reps: xr.Dataset) -> list[str]:
    """Return the names of the classes of logits, their numbers where they have none."""
    return (
        [str(c) for c in reps["class"].values] if "class" in reps.coords else list(map(str, range(reps.sizes["class"])))
    )


def _named(reps: xr.Dataset) -> str:
    return ", ".join(map(repr, class_names(reps)[:10]))


def _at_output(reps: xr.Dataset, drawn: Sample, values: np.ndarray, about: dict[str, str]) -> xr.Dataset:
    why: Callable[[tuple[int, ...], str], str] = lambda at, language: (  # noqa: E731
        f"the output: the logits of {int(np.isnan(values[drawn.group(language)]).sum())} rows are not finite"
    )
    return result(reps, drawn, _means(drawn, values), about, bounds=(0, 1), over={}, missing=why)
