"""Which probes models and corpus allow, and what to do about the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr

from probes.errors import InputError, LayerscopeWarning
from probes.measures import catalogue
from probes.measures.probe import Probe, Run
from probes.models.facts import kept_head, predicted_tokens
from probes.results.draws import OF_WORDS
from probes.states.predictions import DECIDES, KEPT, are_numbers, class_names, predicts


@dataclass(frozen=True)
class Need:
    """What probes cannot do without: what to give, and whether a run says that it is not there."""

    fix: str
    said: bool = False


NEEDS = {
    "logits": Need("models for sequence classification, with their heads"),
    "predicted numbers": Need("models whose head gives one number a text (num_labels=1)"),
    "labels": Need("a corpus with a column 'label'", said=True),
    "labels of the head": Need(
        "a corpus with a column 'label' (numbers for a regression), or where heads are of several classes 'labels', of "
        "words 'tags'",
        said=True,
    ),
    "labels or logits": Need("a corpus with a column 'label', or models for sequence classification"),
    "pivot": Need("pivot=... (--pivot), a language of the corpus", said=True),
    "pivot or one language": Need("pivot=... (--pivot), a language of the corpus", said=True),
    "classes named as the labels are": Need(
        "names to the classes in model.config.id2label, or their numbers as labels", said=True
    ),
    "another model": Need("at least two models"),
    "models of one width": Need(
        "models whose states have the same number of features, or measure similarity instead", said=True
    ),
    "models of the same classes": Need(
        "models whose config.id2label names the same classes in the same order", said=True
    ),
    "predicted tokens": Need("language models with their output layers, all of the next token or all of masked ones"),
    "models of one tokenizer": Need(
        "models of one tokenizer, or measure bits_per_byte, which may be compared between tokenizers", said=True
    ),
    "models to run": Need("models or checkpoints in place of Representations"),
    "models of one architecture": Need("models of one type, depth and width"),
    "models in one place": Need("models without device_map, or with one place where it has room: {'': 'cuda:0'}"),
    "states of tokens": Need(
        "models, whose words are then captured, or Representations captured with tokens=True or words=True"
    ),
    "several languages": Need("a corpus in several languages", said=True),
    "splits": Need("a corpus with a column 'split' that holds 'train' and 'test'"),
    "two texts in every language": Need("more texts, or drop the language", said=True),
}


def choose(
    asked: Sequence[str] | None,
    run: Run,
    models: Mapping[str, Any],
    *,
    heads: bool,
    baseline: str | None = None,
    tokenizers: Mapping[str, str] | None = None,
    whole: bool = True,
) -> list[Probe]:
    """Return the probes to measure: those that models and examples allow.

    Args:
        asked: names of probes and families; by default those that the catalogue measures by
            default.
        run: the examples, without states.
        models: name -> a model, the configuration of one, or Representations.
        heads: whether the heads of models run; where modules are captured by name, they do not.
        baseline: the model that others are compared with; by default the first. Where it has a
            head, what needs heads is measured of the models that have one.
        tokenizers: name -> the fingerprint of a model's tokenizer, where it is known.
        whole: whether each model is in one place, as far as is known before it is loaded.

    Raises:
        InputError: a name is unknown; what was asked for cannot be measured; the examples do not
            allow it.

    Warns:
        LayerscopeWarning: probes are left out, of all models or of some.
    """
    probes, families = catalogue.by_name(), catalogue.families()
    known = ", ".join([*families, *probes])
    if asked is not None and (isinstance(asked, str) or not asked):
        raise InputError(f"probes={asked!r}: expected a list of names, out of {known}")
    unknown = [name for name in asked or () if name not in probes and name not in families]
    if unknown:
        raise InputError(f"unknown probe {', '.join(map(repr, unknown))}; there are {known}")
    chosen = [probes[name] for name in in_order(asked)]
    kinds = {name: _kind(model) for name, model in models.items() if heads or isinstance(model, xr.Dataset)}
    kind = kinds.get(baseline or next(iter(models)))  # others are compared with it where theirs is the same
    headed = [name for name, own in kinds.items() if kind is not None and own == kind]
    there = _there(run, models, headed, heads, kind)
    tokens = {predicted_tokens(model) for model in models.values()}
    # Each masked token takes a pass of its own: that is asked for by name.
    there["predicted tokens"] = heads and (tokens == {"next"} or (tokens == {"masked"} and asked is not None))
    there["models in one place"] = whole
    there["models of one tokenizer"] = len(set((tokenizers or {}).values())) < 2
    said: list[str] = []
    for what, need in NEEDS.items():
        left_out = [p for p in chosen if what in p.needs and not there[what]]
        listed = ", ".join(p.name for p in left_out)
        if left_out and asked:
            raise InputError(f"{listed} cannot be measured without {what}. {_why(what, run, kind)}Give {need.fix}")
        if left_out and need.said:
            said.append(f"no {what}: {listed} left out{_why(what, run, kind, ': {}').rstrip('. ')}")
        chosen = [p for p in chosen if p not in left_out]
    if not chosen:
        raise InputError("no probe is left to measure: give labels, or a pivot, or both")
    needing = [p.name for p in chosen if {"logits", "predicted numbers"} & set(p.needs)]
    if needing and len(headed) < len(models):
        lacking = ", ".join(repr(name) for name in models if name not in headed)
        said.append(
            f"no logits of {lacking}, without a head that classifies texts: {', '.join(needing)} left out for it"
        )
    for check in dict.fromkeys(p.check for p in chosen if p.check):
        check(run)
    for what in said:
        warnings.warn(what, LayerscopeWarning, stacklevel=3)
    return chosen


def in_order(asked: Sequence[str] | None) -> list[str]:
    """Return the probes that names of probes and families stand for, in the order in which they are
    measured; of None those that the catalogue measures by default.

    Example:
        >>> in_order(["snr", "drift"])
        ['snr', 'cosine_to_baseline', 'signal_to_error', 'norm_ratio']
    """
    families = catalogue.families()
    names = asked or catalogue.defaults()
    return list(dict.fromkeys(chain.from_iterable(families.get(name, (name,)) for name in names)))


def _why(what: str, run: Run, kind: str | None, form: str = "{}") -> str:
    """Why labels that are there are none of classes of texts, where that is so."""
    if what != "labels":
        return ""
    if kind == "numbers" and len(run.sample.label):
        return form.format("These labels are numbers, as the head of the model says. ")
    for column, of, also in (("tags", "of words", f", and {OF_WORDS}"), ("labels", "several of a text", "")):
        if column in run.reps.coords:
            return form.format(f"Its {column} are {of}: accuracy and loyalty read them{also}. ")
    return ""


def _there(run: Run, given: Mapping[str, Any], headed: list[str], heads: bool, kind: str | None) -> dict[str, bool]:
    """Which needs are met."""
    models = list(given.values())
    with_heads = [given[name] for name in headed]
    own = KEPT[kind or "classes"][2]  # the column that the heads are held against
    named = own in run.reps.coords
    labels = _named_in(run, own) if named else set()
    numbers = kind == "numbers" and are_numbers(labels)  # labels of a regression, none of classes
    labelled = bool(len(run.sample.label)) and not numbers
    splits = set(run.reps["split"].values) if "split" in run.reps.coords else set()
    return {
        "logits": kind in DECIDES,
        "predicted numbers": kind == "numbers",
        "labels": labelled,
        "labels of the head": named and (kind != "numbers" or numbers),
        "labels or logits": (kind == "classes" and len(headed) == len(given)) or labelled,
        "pivot": run.pivot is not None,
        "pivot or one language": run.pivot is not None or len(run.sample.languages) == 1,
        "classes named as the labels are": not named or kind == "numbers" or all(_knows(m, labels) for m in with_heads),
        "another model": len(models) > 1,
        "models of one width": not heads or _one([_width(m) for m in models]),
        "models of the same classes": _one([tuple(_classes(m)) for m in with_heads]),
        "states of tokens": all("tokens" in m for m in models if isinstance(m, xr.Dataset)),
        "models to run": not any(isinstance(m, xr.Dataset) for m in models),
        "models of one architecture": _one([_architecture(m) for m in models]),
        "several languages": len(run.sample.languages) > 1,
        "splits": {"train", "test"} <= splits,
        "two texts in every language": int(np.bincount(run.sample.language).min()) > 1,
    }


def _named_in(run: Run, column: str) -> set[str]:
    """The names of classes that a column of labels has."""
    if column == "label":
        return {str(c) for c in run.sample.classes}
    return {name for cell in set(run.reps[column].values) for name in cell.split()}


def _knows(model: Any, labels: set[str]) -> bool:
    """Whether labels are the names or the numbers of a model's classes."""
    classes = _classes(model)
    return labels <= set(classes) or labels <= {str(i) for i in range(len(classes))}


def _classes(model: Any) -> list[str]:
    if isinstance(model, xr.Dataset):
        return class_names(model)
    return [str(c) for c in getattr(model, "config", model).id2label.values()]


def _kind(model: Any) -> str | None:
    """The kind of the predictions of a model, or of Representations."""
    return predicts(model) if isinstance(model, xr.Dataset) else kept_head(model)


def _width(model: Any) -> int | None:
    """Number of features of a model's states; None where that is not known before it has run."""
    if isinstance(model, xr.Dataset):
        return int(model.sizes["feature"])
    return getattr(getattr(model, "config", model), "hidden_size", None)


def _architecture(model: Any) -> tuple[object, ...] | None:
    config = getattr(model, "config", model)
    if isinstance(model, xr.Dataset):
        return None
    return tuple(getattr(config, k, None) for k in ("model_type", "num_hidden_layers", "hidden_size"))


def _one(found: list[Any]) -> bool:
    """Whether all that are known are the same."""
    return len({f for f in found if f is not None}) < 2
