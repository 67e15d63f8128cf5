"""Label names: can texts be classified by the names of the classes, without training?

The states of a text are held against those of the names, and, where texts of the pivot with labels
are there, against those too; no label of another language is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import xarray as xr
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from probes.errors import InputError
from probes.measures.classes.folds import FOLDS, by_id, groups, known_pivot
from probes.measures.classes.kernel_probe import of_gains
from probes.measures.classes.labels import of_labels
from probes.measures.classes.linear_probe import fitted
from probes.measures.classes.trained import others, pooled, weighed
from probes.measures.probe import LARGE, Run
from probes.results.draws import POOLED, Sample, need_classes, sample
from probes.results.intervals import of_shares
from probes.results.result import result, stack_measures
from probes.states.capture import capture
from probes.states.pooling import POOLINGS
from probes.states.representations import as_strings, check_representations, states

TEMPERATURE = 0.5  # of the likeness of a text to all names
SHOTS = 16  # rows of support that each class counts as
FACTOR = 100.0  # of the likeness to a name, as CLIP has it
ALPHAS = (0.0, *np.geomspace(0.1, 50, 12))  # of the support by likeness of texts
BETAS = tuple(np.geomspace(1, 50, 10))  # how fast that falls
GAMMAS = (0.0, *np.geomspace(0.1, 30, 12))  # of the support by likeness to all names


def label_names(
    reps: xr.Dataset,
    names: Mapping[str, Sequence[str]] | xr.Dataset,
    *,
    support: xr.Dataset | None = None,
    model: Any = None,
    tokenizer: Any = None,
    pivot: str | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how well texts are classified by the names of the classes.

    Accuracy, 0 to 1, higher is better; the gain over a linear probe is -1 to 1.

    Args:
        reps: Representations with labels, whose `split` holds "dev" and "test".
        names: the names of every class, each in one or several templates; texts, which model and
            tokenizer run, or Representations of them whose `label` is the class.
        support: Representations of texts with labels, of which those of the pivot are used; by
            default the pivot's rows of the split "train".
        model, tokenizer: those of `reps`, where names are texts.
        pivot: the language of support and dev; needed where there are several.
        draws, seed: of the bootstrap by sentence id; the seed is also that of the linear probe.

    Returns:
        Along `measure`, each `value, low, high (layer, language)` and `n`, the number of test rows:

        - `label_names`: the class whose names are nearest; nothing is trained or chosen.
        - `label_names_support`: with the support by likeness of texts and of their likeness to all
          names; its three factors are chosen on the pivot's dev rows.
        - `label_names_gain`: `label_names_support` minus a linear probe trained on the support.

        `pooled` is in all the mean of the languages other than the pivot.

    Raises:
        InputError: there is no support set, no dev or test row; a class has no name, or fewer than
            4 ids (or groups) in the support; an id is in two splits, or a group; layers or features
            of names and texts differ.

    Notes:
        Udandarao, Gupta, Albanie 2023, arXiv 2211.16198 (TIP-X), with the term of TIP-Adapter. Here
        classes count as if each had 16 rows of support, since they differ in size, and both
        likenesses are put on one scale by the dev rows, so that no test row depends on others.

    See also:
        `linear_probe`, `declare_names` for a comparison.

    Example:
        >>> import probes
        >>> y = np.arange(120) % 3
        >>> x = np.random.default_rng(0).normal(size=(120, 8)) + 3 * np.eye(8)[y]
        >>> split = ("example", np.repeat(["train", "dev", "test"], 40))
        >>> reps = probes.from_arrays(x, label=y).assign_coords(split=split)
        >>> names = probes.from_arrays(np.eye(8)[:3], label=[0, 1, 2])
        >>> out = label_names(reps, names, draws=20).value.sel(layer=0, language="pooled")
        >>> bool(out.sel(measure="label_names") > 0.8)
        True
    """
    drawn = sample(reps, draws=draws, seed=seed)
    return measured_names(reps, drawn, names, support=support, models=(model, tokenizer), pivot=pivot, seed=seed)


def measured_names(
    reps: xr.Dataset,
    drawn: Sample,
    names: Mapping[str, Sequence[str]] | xr.Dataset,
    *,
    support: xr.Dataset | None = None,
    models: tuple[Any, Any] = (None, None),
    pivot: str | None = None,
    seed: int = 0,
    **settings: Any,
) -> xr.Dataset:
    """Return what `label_names` does, by given draws; `settings` are of `capture`, of batches."""
    known = known_pivot(need_classes(drawn), pivot)
    parts = parts_of(reps, drawn, known, support)
    named = _named(reps, drawn, names, *models, settings)
    support = reps.isel(example=parts["train"]) if support is None else support
    learned = np.flatnonzero(support["language"].values == known)
    learned = learned[np.argsort(support["id"].values[learned].astype(str), kind="stable")]
    label = _codes(support["label"].values[learned], drawn.classes, "the support")
    of_name = _codes(named["label"].values, drawn.classes, "names")
    unit = support["group" if "group" in support.coords else "id"].values[learned]
    right: dict[str, list[np.ndarray]] = {language: [] for language in drawn.languages}
    dev = parts["dev"]
    for layer in range(reps.sizes["layer"]):
        x = states(support, layer, learned)
        classifier = classified(
            states(named, layer, slice(None)), of_name, x, label, states(reps, layer, dev), drawn.label[dev]
        )
        linear = _linear(x, label, unit, seed)
        for language in drawn.languages:
            rows = by_id(drawn, language, parts["test"])
            own, true = states(reps, layer, rows), drawn.label[rows]
            if classifier is None or linear is None or not np.isfinite(own).all():
                right[language].append(np.full((len(rows), 3), np.nan))
                continue
            plain, supported = (classifier.logits(own, support=s).argmax(axis=1) == true for s in (False, True))
            right[language].append(np.stack([plain, supported, linear(own)[0] == true], axis=1).astype(float))
    return _results(reps, drawn, known, parts["test"], {k: np.stack(v, axis=1) for k, v in right.items()})


@dataclass(frozen=True)
class Classifier:
    """Names and support of unit length, and what was chosen.

    Args:
        names: (class, feature).
        support: (row, feature).
        share: (row, class) 16 / n of the class of a row: a product with it is as of 16 rows each.
        scale: the least and the range of both likenesses on the dev rows.
        factors: alpha, beta and gamma.
    """

    names: np.ndarray
    support: np.ndarray
    share: np.ndarray
    scale: tuple[float, float, float, float]
    factors: tuple[float, float, float] = (0.0, 1.0, 0.0)

    def logits(self, x: np.ndarray, *, support: bool = True) -> np.ndarray:
        """Return the logits of rows (row, class), with or without what the support says."""
        unit = lengthened(x)
        out = FACTOR * unit @ self.names.T
        if not support:
            return out
        alpha, beta, gamma = self.factors
        texts, through_names = self.terms(unit, beta)
        return out + alpha * texts + gamma * through_names

    def terms(self, unit: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the two terms of the support, (row, class) each."""
        near = np.exp(-beta * (1 - unit @ self.support.T)) @ self.share
        low, span, least, width = self.scale
        apart = (divergence(unit @ self.names.T, self.support @ self.names.T) - low) / span * width + least
        return near, -apart @ self.share


def classified(
    names: np.ndarray, of_name: np.ndarray, x: np.ndarray, y: np.ndarray, dev: np.ndarray, of_dev: np.ndarray
) -> Classifier | None:
    """Make the classifier of a layer: the factors with the best accuracy on dev, the smallest of
    those; None where a state is not finite or has no length.

    Args:
        names, of_name: (name, feature) and the class of each.
        x, y: (row, feature) and the class of each, of the support.
        dev, of_dev: (row, feature) and the class of each.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        units = lengthened(names)
        means = np.stack([units[of_name == c].mean(axis=0) for c in range(of_name.max() + 1)])
        named, support, unit = lengthened(means), lengthened(x), lengthened(dev)
    if not all(np.isfinite(part).all() for part in (named, support, unit)):
        return None
    share = (y[:, None] == np.arange(len(named))).astype(float)
    share *= SHOTS / np.maximum(share.sum(axis=0), 1)
    apart, near = divergence(unit @ named.T, support @ named.T), unit @ support.T
    scale = (float(apart.min()), float(np.ptp(apart)) or 1.0, float(near.min()), float(np.ptp(near)))
    made = Classifier(named, support, share, scale)
    best, chosen = -1.0, made.factors
    plain = FACTOR * unit @ named.T
    gammas = np.array(GAMMAS)
    for beta in BETAS:
        texts, through_names = made.terms(unit, beta)
        for alpha in ALPHAS:
            said = (plain + alpha * texts + gammas[:, None, None] * through_names).argmax(axis=2)
            for gamma, accuracy in zip(GAMMAS, (said == of_dev).mean(axis=1), strict=True):
                if accuracy > best or (accuracy == best and (alpha + gamma, beta) < (chosen[0] + chosen[2], chosen[1])):
                    best, chosen = float(accuracy), (float(alpha), float(beta), float(gamma))
    return replace(made, factors=chosen)


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return KL divergences, in nats, of what rows are like from what the support is like.

    Args:
        one, other: (row, class) and (support row, class) likenesses to names.

    Example:
        >>> divergence(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])).round(3).tolist()
        [[0.0, 1.523]]
    """
    p, q = log_softmax(one / TEMPERATURE, axis=1), log_softmax(other / TEMPERATURE, axis=1)
    return (np.exp(p) * p).sum(axis=1, keepdims=True) - np.exp(p) @ q.T


def lengthened(x: np.ndarray) -> np.ndarray:
    """Return rows at unit length; NaN where one has none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def _linear(x: np.ndarray, y: np.ndarray, units: np.ndarray, seed: int):  # type: ignore[no-untyped-def]
    """A linear probe of the support, as `linear_probe` fits one; None where states are not finite."""
    if not np.isfinite(x).all():
        return None
    with threadpool_limits(1):
        inner = list(groups(FOLDS - 1, seed).split(x, y, units))
        return fitted(x, y, inner)(x, [y])


def parts_of(reps: xr.Dataset, drawn: Sample, pivot: str, support: xr.Dataset | None = None) -> dict[str, np.ndarray]:
    """Return the pivot's rows to learn from and to choose with, in order of ids, and which rows are tested."""
    split = reps["split"].values if "split" in reps.coords else np.full(len(drawn.ids), "")
    parts = {name: by_id(drawn, pivot, split == name) for name in ("train", "dev")} | {"test": split == "test"}
    for name, needed in (("dev", "chooses the factors"), ("test", "is classified")):
        if not parts[name].any() if name == "test" else not len(parts[name]):
            raise InputError(
                f"label_names: no row of the pivot {pivot!r} has the split {name!r}, which {needed}; expected a "
                "coordinate 'split' that holds 'dev' and 'test'. Capture a corpus with a column 'split'"
            )
    for language in drawn.languages:
        if not len(by_id(drawn, language, parts["test"])):
            raise InputError(f"language {language!r} has no row in split 'test'. Drop the language, or add test rows")
    if support is None and not len(parts["train"]):
        raise InputError(
            f"label_names: no support set: expected rows of the pivot {pivot!r} with the split 'train', or "
            "support=..., Representations of texts with labels"
        )
    if support is not None and (
        "label" not in check_representations(support).coords or pivot not in set(support["language"].values)
    ):
        raise InputError(
            f"support: expected Representations of texts of the pivot {pivot!r} with labels; found "
            f"{'no label' if 'label' not in support.coords else 'other languages only'}"
        )
    support = reps.isel(example=parts["train"]) if support is None else support
    _check_apart(reps, support, parts)
    learned = support.isel(example=support["language"].values == pivot)
    unit, labels = learned["group" if "group" in learned.coords else "id"].values, as_strings(learned["label"].values)
    for c in map(str, drawn.classes):
        count = len(set(unit[labels == c]))
        if count < FOLDS - 1:
            raise InputError(
                f"label {c!r} has {count} {'groups' if 'group' in learned.coords else 'sentences'} in the support, and "
                f"the linear probe beside it needs at least {FOLDS - 1} to choose its strength. Add some, or drop it"
            )
    return parts


def _check_apart(reps: xr.Dataset, support: xr.Dataset, parts: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` where support, dev rows and test rows share an id, or a group."""
    for column, its, theirs in (
        ("id", "its own label", "its translations"),
        ("group", "labels of texts that are not independent of it", "texts that are not independent of it"),
    ):
        if column not in reps.coords:
            continue
        dev, test = (set(reps[column].values[parts[name]]) for name in ("dev", "test"))
        if column in support.coords and (both := sorted(set(support[column].values) & (dev | test))):
            raise InputError(
                f"{column} {both[0]!r} is in the support and in split 'dev' or 'test', so a text would be classified "
                f"by {its}. Give all rows of one {column} the same split"
            )
        if both := sorted(dev & test):
            raise InputError(
                f"{column} {both[0]!r} is in split 'dev' and in split 'test', so the factors by which a text is "
                f"classified would be chosen on {theirs}. Give all rows of one {column} the same split"
            )


def check_names(
    names: Mapping[str, Sequence[str]] | xr.Dataset, classes: Iterable[object]
) -> dict[str, list[str]] | None:
    """Return the texts of the names by class, None of Representations; raise where a class has none."""
    texts = None
    if isinstance(names, xr.Dataset):
        there = set(as_strings(names["label"].values)) if "label" in names.coords else set()
    elif isinstance(names, Mapping):
        texts = {str(k): [v] if isinstance(v, str) else [*v] for k, v in names.items()}
        there = {k for k, v in texts.items() if v}
    else:
        raise InputError(
            f"names: expected the texts of every class, as {{'food': ['about food']}}, or Representations of them with "
            f"labels; found {type(names).__name__}"
        )
    for c in map(str, classes):
        if c not in there:
            found = ", ".join(map(repr, sorted(there))) or "none"
            raise InputError(f"label {c!r} has no name; there are names of {found}. Give names={{{c!r}: [...]}} too")
    return texts


def _named(
    reps: xr.Dataset,
    drawn: Sample,
    names: Mapping[str, Sequence[str]] | xr.Dataset,
    model: Any,
    tokenizer: Any,
    settings: Mapping[str, Any],
) -> xr.Dataset:
    """The states of the names, of all classes and at the layers of the texts."""
    texts = check_names(names, drawn.classes)
    if texts is not None:
        if model is None or tokenizer is None:
            raise InputError(
                "names are texts, which a model has to run: give model=... and tokenizer=..., those of the "
                "Representations, or Representations of the names"
            )
        rows = [(c, text) for c in map(str, drawn.classes) for text in texts[c]]
        corpus = datasets.Dataset.from_dict(
            {
                "id": [str(k) for k in range(len(rows))],
                "language": ["und"] * len(rows),
                "text": [text for _, text in rows],
                "label": [c for c, _ in rows],
            }
        )
        names = capture(model, tokenizer, corpus, progress=False, **_as_texts(reps), **settings)
    assert isinstance(names, xr.Dataset)
    names = names.isel(example=np.isin(as_strings(names["label"].values), list(map(str, drawn.classes))))
    if names.sizes["feature"] != reps.sizes["feature"] or not set(reps["layer"].values) <= set(names["layer"].values):
        raise InputError(
            f"names have {names.sizes['layer']} layers of {names.sizes['feature']} features, and texts "
            f"{reps.sizes['layer']} of {reps.sizes['feature']}. Capture both with one model"
        )
    return names.sel(layer=reps["layer"].values)


def _as_texts(reps: xr.Dataset) -> dict[str, Any]:
    """How the vectors of texts were made, so that those of names are made alike."""
    how = {k: reps.attrs[k] for k in ("pooling", "prompt", "normalize", "part") if k in reps.attrs}
    if how.get("pooling", "mean") not in POOLINGS:
        raise InputError(
            f"names are texts, and the vectors of the Representations are {how['pooling']!r}, which cannot be made of "
            f"names by themselves. Capture the texts with one of {', '.join(map(repr, POOLINGS))}, or give "
            "Representations of the names"
        )
    if reps.attrs.get("dimensions", -1) > 0:
        how["dimensions"] = int(reps.attrs["dimensions"])
    if reps.attrs.get("modules"):
        how["modules"] = [*reps.attrs["modules"]]
    return how


def _codes(labels: np.ndarray, classes: Sequence[object], where: str) -> np.ndarray:
    number = {str(c): k for k, c in enumerate(classes)}
    for label in labels:
        if str(label) not in number:
            raise InputError(f"label {label!r} of {where} is no class of the texts: {', '.join(map(repr, number))}")
    return np.array([number[str(label)] for label in labels])


def _results(
    reps: xr.Dataset, drawn: Sample, pivot: str, test: np.ndarray, right: Mapping[str, np.ndarray]
) -> xr.Dataset:
    rows = {language: by_id(drawn, language, test) for language in drawn.languages}
    statistics: list[dict[str, np.ndarray]] = [{}, {}, {}]
    for language in drawn.languages:
        ids, found = drawn.ids[rows[language]], right[language]
        for one, apart, low in zip(
            statistics, (found[..., 0], found[..., 1], found[..., 1] - found[..., 2]), (0, 0, -1), strict=True
        ):
            one[language] = weighed(apart, ids, drawn.weights, drawn.units, (low, 1))
    rows[POOLED] = np.concatenate([rows[language] for language in others(drawn, pivot)])

    def missing(at: tuple[int, ...], language: str) -> str:
        return f"layer {reps['layer'].values[at[0]]}: states of texts or names are not finite, or have no length"

    out = []
    for about, one in zip(LABEL_NAMES, statistics, strict=True):
        attributes = about.about() | {"pivot": pivot}
        whole = pooled(drawn, pivot, one)
        shares = result(reps, drawn, whole, attributes, rows=rows, bounds=about.bounds, missing=missing)
        out.append(of_gains(shares) if about.bounds == (-1, 1) else of_shares(shares))
    return stack_measures(out)


def _without_names(run: Run) -> xr.Dataset:
    raise InputError("label_names has to know the names: call probes.declare_names(names) first")


_NAMES = of_labels(
    name="label_names",
    title="classified by the names of the classes",
    estimator="accuracy of the class whose names have the largest cosine, mean over templates",
    range="0 to 1",
    bounds=(0, 1),
    unchanged_by=("rotation", "common scale", "length of each vector", "order"),
    paper="Udandarao, Gupta, Albanie 2023, arXiv 2211.16198",
    needs=("labels", "pivot or one language"),
    default=False,
    interval=f"{LARGE} of test rows",
    measure=_without_names,
)
LABEL_NAMES = (
    _NAMES,
    replace(
        _NAMES,
        name="label_names_support",
        title="classified by names and texts of the pivot",
        estimator="as label_names, with the terms of TIP-Adapter and TIP-X, chosen on the pivot's dev rows",
    ),
    replace(
        _NAMES,
        name="label_names_gain",
        title="gain of names over a linear probe",
        estimator="label_names_support minus a linear probe trained on the support, on the same rows",
        range="-1 to 1; 0 where a linear probe reads as much",
        bounds=(-1, 1),
        better="",
        higher_is="more that names add",
    ),
)
