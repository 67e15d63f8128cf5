"""Models x probes x layers x languages -> one tidy table, with paired differences to a baseline."""

from __future__ import annotations

import importlib.metadata
import platform
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import datasets
import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import cautions, check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.files import check_writable
from probes.measures.attribution.representers import check_splits, representer_support
from probes.measures.classes.class_separability import class_separability
from probes.measures.classes.linear_probe import check_linear_probe, linear_probe
from probes.measures.classes.snr import snr
from probes.measures.classes.variability import best_layer, variability
from probes.measures.fidelity.drift import drift
from probes.measures.fidelity.loyalty import accuracy, loyalty
from probes.measures.fidelity.module_error import module_error
from probes.measures.fidelity.similarity import MEASURES, similarity
from probes.measures.languages.alignment import alignment_gap, check_pivot, margin_retrieval, retrieval
from probes.measures.space.geometry import FEWEST_IDS, GEOMETRY, geometry
from probes.models.checkpoint import check_checkpoint, load_checkpoint
from probes.models.facts import check_fit, check_length, classifies, embedding_rows
from probes.results.difference import difference
from probes.results.draws import POOLED, check_draws
from probes.results.result import ABOUT, split_measures
from probes.results.table import COLUMNS, FURTHER, Table
from probes.states.capture import capture
from probes.states.predictions import class_names
from probes.states.representations import check_enough, check_representations, from_arrays
from probes.states.running import check_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probes.widgets import Explorer

OF_LABELS = {"class_separability": class_separability, "variability": variability, "snr": snr}
OF_ALIGNMENT = {"retrieval": retrieval, "margin_retrieval": margin_retrieval, "alignment_gap": alignment_gap}
# What is measured together; a family can be asked for by its name.
FAMILIES = {
    "labels": tuple(OF_LABELS),
    "alignment": tuple(OF_ALIGNMENT),
    "drift": ("cosine_to_baseline", "signal_to_error", "norm_ratio"),
    "loyalty": ("label_loyalty", "probability_loyalty"),
    "similarity": tuple(MEASURES),
    "geometry": GEOMETRY,
    "linear_probe": (
        "linear_probe",
        "linear_probe_in_language",
        "linear_probe_control",
        "linear_probe_selectivity",
    ),
    "module_error": ("accumulated_error", "local_error", "amplification"),
}
PROBES = [*chain.from_iterable(FAMILIES.values()), "accuracy", "best_layer", "representer_support"]
DEFAULT = [*FAMILIES["labels"], *FAMILIES["alignment"], *FAMILIES["drift"], *FAMILIES["loyalty"], "accuracy", "cka"]
# Probes that compare a model with the baseline, so that there is no difference to it.
OF_PAIRS = {p for family in ("drift", "loyalty", "similarity", "module_error") for p in FAMILIES[family]}
_UNCHANGED = {"signal_to_error": "infinity", "procrustes": 0.0}  # and 1 for all others
_TITLES = {
    "class_separability": "class separability (R²)",
    "variability": "variability (ν)",
    "snr": "signal-to-noise ratio",
    "retrieval": "retrieval",
    "margin_retrieval": "margin retrieval",
    "alignment_gap": "alignment gap",
    "cosine_to_baseline": "cosine to the baseline",
    "signal_to_error": "signal to error (dB)",
    "norm_ratio": "length, to the baseline's",
    "label_loyalty": "label loyalty",
    "probability_loyalty": "probability loyalty",
    "accuracy": "accuracy",
    "cka": "CKA",
    "cka_debiased": "CKA, debiased",
    "procrustes": "Procrustes distance",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "rsa": "RSA",
    "neighbour_overlap": "shared neighbours",
    "mean_cosine_of_pairs": "mean cosine of pairs",
    "iso_score": "IsoScore",
    "effective_rank": "effective rank",
    "participation_ratio": "participation ratio",
    "intrinsic_dimension": "intrinsic dimension (TwoNN)",
    "norm": "length",
    "linear_probe": "linear probe, zero-shot",
    "linear_probe_in_language": "linear probe, in-language",
    "linear_probe_control": "linear probe, shuffled labels",
    "linear_probe_selectivity": "linear probe, selectivity",
    "accumulated_error": "accumulated error",
    "local_error": "local error",
    "amplification": "amplification of error",
    "best_layer": "share of draws where variability is least",
    "representer_support": "support for the prediction",
}
# What probes cannot do without, and what to do about it.
_NEED = {
    "logits": {*FAMILIES["loyalty"], "accuracy"},
    "labels": {*OF_LABELS, *FAMILIES["linear_probe"], "accuracy", "best_layer"},
    "labels or logits": {"representer_support"},
    "pivot": {*OF_ALIGNMENT, *FAMILIES["linear_probe"]},
    "classes named as the labels are": {"accuracy"},
    "another model": {*FAMILIES["drift"], *FAMILIES["loyalty"], *FAMILIES["module_error"]},
    "models of one width": {*FAMILIES["drift"]},
    "models of the same classes": {*FAMILIES["loyalty"]},
    "models to run": {*FAMILIES["module_error"]},
    "models of one architecture": {*FAMILIES["module_error"]},
    "splits": {"representer_support"},
    "two texts in every language": {"cka"},
}
_FIX = {
    "logits": "models for sequence classification, with their heads",
    "labels": "a corpus with a column 'label'",
    "labels or logits": "a corpus with a column 'label', or models for sequence classification",
    "pivot": "pivot=... (--pivot), a language of the corpus",
    "classes named as the labels are": "names to the classes in model.config.id2label, or their numbers as labels",
    "another model": "at least two models",
    "models of one width": "models whose states have the same number of features, or measure similarity instead",
    "models of the same classes": "models whose config.id2label names the same classes in the same order",
    "models to run": "models or checkpoints in place of Representations",
    "models of one architecture": "models of one type, depth and width",
    "splits": "a corpus with a column 'split' that holds 'train' and 'test'",
    "two texts in every language": "more texts, or drop the language",
}
# What is left out of a run that did not ask for it, and said; the rest is as it should be.
_SAID = {
    "labels",
    "pivot",
    "classes named as the labels are",
    "models of one width",
    "models of the same classes",
    "two texts in every language",
}

Model = torch.nn.Module | str | Path | xr.Dataset


@dataclass
class Comparison(Table):
    """The result of `compare`: a tidy table, where its numbers come from, and the Representations behind it.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(90, 8))
        >>> y = np.arange(90) % 3
        >>> models = {
        ...     "far": probes.from_arrays(x + 3 * np.eye(8)[y], label=y),
        ...     "near": probes.from_arrays(x + np.eye(8)[y], label=y),
        ... }
        >>> comparison = probes.compare(models, probes=["snr"])
        >>> comparison.to_dataframe().query("language == 'pooled'")[["model", "probe", "value"]].round(2)
          model probe  value
        1   far   snr   1.48
        3  near   snr   1.07
    """

    representations: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)
    _explorer: Any = field(default=None, init=False, repr=False, compare=False)

    def plot(self, probe: str | None = None, *, language: str = POOLED) -> Figure:
        """Draw layer curves with their bands: one panel a probe (or the one asked for), one colour a model.

        A probe that has more to a number than its layer is drawn as maps, one a model: similarities layer by layer, the
        error of modules by layer, representer values by language.
        """
        from probes.views.figures import curves, maps

        chosen = self.names(probe)
        flat = [p for p in chosen if not self.is_map(p)]
        return curves(self, flat, language) if flat else maps(self, chosen[0], language)

    def plot_damage(self, probe: str) -> Figure:
        """Draw the difference to the baseline, languages by layers, one panel a model; dots mark p_adjusted < 0.05."""
        from probes.views.figures import damage

        return damage(self, self.names(probe)[0])

    def explore(self, **settings: Any) -> Explorer:
        """Show curves, maps and sentences in a notebook, linked by one layer slider.

        Args:
            settings: of `probes.widgets.Explorer`: most, seed, parts, and what to begin with (layer, models, probe,
                language, colour, kind, compared, focus, measure, selection). What is not given begins where the last
                explorer of this comparison is, so that a cell can be run again.

        Raises:
            InputError: a setting is unknown; anywidget is not installed.
        """
        from probes.views.explorer import reopen

        self._explorer = reopen(self, self._explorer, settings)
        return self._explorer

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with the figures, the table and where the numbers come from.

        Raises:
            InputError: there is a file at the path that is no earlier report.
        """
        from probes.views.report import write

        return write(self, Path(path))


def compare(
    models: Mapping[str, Model],
    corpus: datasets.Dataset | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None = None,
    pivot: str | None = None,
    baseline: str | None = None,
    probes: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
    store: str | Path | None = None,
    allow_pickle: bool = False,
    **settings: Any,
) -> Comparison:
    """Measure every probe at every layer and language of some models, and how far each lies from the baseline.

    Args:
        models: name -> a model, a checkpoint ("bundled", a folder, a hub name), or Representations already captured.
        corpus: as `load_corpus` gives it; not needed where all models are Representations.
        tokenizer: of the models that are not given as checkpoints: one for all, or name -> tokenizer.
        pivot: the language that alignment is measured against; without it those probes are left out.
        baseline: the model that the others are compared with; by default the first.
        probes: names of probes or families of them ("drift", "similarity", "geometry", ...; all are in
            `probes.comparison.FAMILIES`); by default those of labels, alignment, drift and predictions, and "cka", as
            far as models, corpus and pivot allow.
        draws, seed: of the bootstrap by sentence id; every model gets the same draws.
        store: a folder for the Representations, one zarr store a model, which a later run with the same weights,
            corpus and settings opens in place of running the model.
        allow_pickle: as in `load_checkpoint`.
        settings: further settings of `capture`: pooling, max_length, dtype, device, batch_size, batch_tokens, progress.

    Raises:
        InputError: before the first forward pass, where models, corpus, pivot and probes do not fit together.

    Example:
        >>> import probes
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"])
        >>> comparison = compare({"base": "bundled"}, corpus, pivot="en", probes=["retrieval"], progress=False)
        >>> comparison.to_dataframe().columns.tolist()[:5]
        ['model', 'layer', 'language', 'probe', 'value']
    """
    if not models:
        raise InputError("expected at least one model, name -> model; found none")
    baseline = next(iter(models)) if baseline is None else baseline
    if baseline not in models:
        raise InputError(f"baseline {baseline!r}: no such model; there are {', '.join(map(repr, models))}")
    captured = {name: check_representations(m) for name, m in models.items() if isinstance(m, xr.Dataset)}
    if corpus is not None:
        corpus = check_corpus(corpus)
    examples = _examples(corpus, captured, models)
    tokenizers = _tokenizers(models, tokenizer)
    check_draws(draws, seed)
    check_settings(**settings)
    if store is not None:
        check_writable(Path(store))
    known: dict[str, Any] = dict(models)
    for name, model in models.items():
        if isinstance(model, str | Path):
            config, own = check_checkpoint(model, allow_pickle=allow_pickle)
            check_length(settings.get("max_length"), getattr(config, "max_position_embeddings", None), own)
            known[name] = config
        elif isinstance(model, PreTrainedModel):
            check_fit(embedding_rows(model), tokenizers[name], name)
    chosen = _chosen(probes, examples, pivot, known, heads=not settings.get("modules"))

    measured: dict[str, dict[str, xr.Dataset]] = {}
    representations: dict[str, xr.Dataset] = {}
    original: Any = None  # the baseline itself, where probes run it beside the others
    # The baseline first: others are compared with it.
    for name in [baseline, *(n for n in models if n != baseline)]:
        model = models[name]
        loaded: Any = None
        if isinstance(model, xr.Dataset):
            reps = model.assign_attrs(model=name)
        else:
            assert corpus is not None  # _examples has raised
            loaded, own = (
                load_checkpoint(model, allow_pickle=allow_pickle)
                if isinstance(model, str | Path)
                else (model, tokenizers[name])
            )
            target = None if store is None else Path(store) / f"{quote(name, safe='')}.zarr"
            reps = capture(loaded, own, corpus, store=target, name=name, **settings)
        representations[name] = reps
        base = representations[baseline]
        measured[name] = _measure(chosen, reps, base, pivot, draws, seed, progress=settings.get("progress", True))
        if name == baseline:
            original = loaded if any(p in chosen for p in FAMILIES["module_error"]) else None
        elif original is not None:
            errors = module_error(
                original, loaded, own, corpus, draws=draws, seed=seed, names=(baseline, name), **_of_batches(settings)
            )
            measured[name] |= {p: result for p, result in split_measures(errors).items() if p in chosen}
    table = pd.concat(
        [
            _rows(
                measured[name][probe],
                None
                if name == baseline or probe in OF_PAIRS or probe == "best_layer"
                else measured[baseline].get(probe),
            )
            for name in models
            for probe in chosen
            if probe in measured[name]
        ],
        ignore_index=True,
    )
    columns = [*COLUMNS[:4], *(c for c in FURTHER if c in table), *COLUMNS[4:]]
    whole = {c: "Int64" for c in ("layer", "other_layer") if c in table}
    return Comparison(
        table.reindex(columns=columns).astype(whole),
        _provenance(measured, representations, corpus, baseline, pivot, draws, seed),
        representations,
    )


def _examples(
    corpus: datasets.Dataset | None, captured: dict[str, xr.Dataset], models: Mapping[str, Model]
) -> pd.DataFrame:
    """The id, language and label of every example, the same for every model."""
    columns = ["id", "language", "label", "split"]
    if corpus is None:
        if len(captured) < len(models):
            name = next(n for n in models if n not in captured)
            raise InputError(
                f"model {name!r} is still to be run: expected a corpus, as probes.load_corpus(...) gives it"
            )
        first = next(iter(captured.values()))
        frame = pd.DataFrame({c: first[c].values for c in columns if c in first.coords})
    else:
        frame = pd.DataFrame({c: list(corpus[c]) for c in columns if c in corpus.column_names})
    for name, reps in captured.items():
        other = pd.DataFrame({c: reps[c].values for c in columns if c in reps.coords})
        keys = [c for c in frame if c in other and c != "split"]
        if not frame[keys].equals(other[keys]):
            raise InputError(
                f"model {name!r}: its Representations hold other examples (id, language, label) than the others, or "
                "the same in another order. Capture all models on one corpus"
            )
    return frame


def _chosen(
    probes: Sequence[str] | None,
    examples: pd.DataFrame,
    pivot: str | None,
    models: Mapping[str, Any],
    *,
    heads: bool,
) -> list[str]:
    """The probes to measure, checked against the corpus; those that it does not allow are left out and named.

    Where modules are captured by name, the heads of models do not run.
    """
    known = ", ".join([*FAMILIES, *(p for p in PROBES if p not in FAMILIES)])
    if probes is not None and (isinstance(probes, str) or not probes):
        raise InputError(f"probes={probes!r}: expected a list of names, out of {known}")
    unknown = [p for p in probes or () if p not in PROBES and p not in FAMILIES]
    if unknown:
        raise InputError(f"unknown probe {', '.join(map(repr, unknown))}; there are {known}")
    chosen = list(dict.fromkeys(chain.from_iterable(FAMILIES.get(p, (p,)) for p in probes or DEFAULT)))
    splits = set(examples["split"]) if "split" in examples else set()
    every = list(models.values())
    logits = all(_has_logits(m) and (heads or isinstance(m, xr.Dataset)) for m in every)
    there = {
        "logits": logits,
        "labels": "label" in examples,
        "labels or logits": logits or "label" in examples,
        "pivot": pivot is not None,
        "classes named as the labels are": "label" not in examples
        or not logits
        or all(_knows(model, set(examples["label"])) for model in every),
        "another model": len(every) > 1,
        "models of one width": not heads or _one([_width(m) for m in every]),
        "models of the same classes": not logits or _one([tuple(_classes(m)) for m in every]),
        "models to run": not any(isinstance(m, xr.Dataset) for m in every),
        "models of one architecture": _one([_architecture(m) for m in every]),
        "splits": {"train", "test"} <= splits,
        "two texts in every language": int(examples["language"].value_counts().min()) > 1,
    }
    said: list[str] = []
    alone = examples["language"].nunique() == 1  # then a linear probe needs no pivot
    for what, needs in _NEED.items():
        needs = needs - set(FAMILIES["linear_probe"]) if what == "pivot" and alone else needs
        left_out = [p for p in chosen if p in needs and not there[what]]
        if left_out and probes:
            raise InputError(f"{', '.join(left_out)} cannot be measured without {what}. Give {_FIX[what]}")
        if left_out and what in _SAID:
            said.append(f"no {what}: {', '.join(left_out)} left out")
        chosen = [p for p in chosen if p not in left_out]
    if not chosen:
        raise InputError("no probe is left to measure: give labels, or a pivot, or both")
    if any(p in OF_LABELS for p in chosen):
        _check_labels(examples)
    if pivot is not None:
        for probe in [p for p in chosen if p in OF_ALIGNMENT]:
            check_pivot(examples["id"].to_numpy(), examples["language"].to_numpy(), pivot, probe)
    _check_examples(chosen, examples, pivot)
    for what in said:
        warnings.warn(what, LayerscopeWarning, stacklevel=3)
    return chosen


def _check_examples(chosen: list[str], examples: pd.DataFrame, pivot: str | None) -> None:
    """Ask the probes that look at ids, labels and splits whether they can be measured, before the states are there."""
    columns = {c: examples[c].to_numpy() for c in ("id", "language", "label") if c in examples}
    stand_in = from_arrays(np.zeros((len(examples), 1)), **columns)
    if "split" in examples:
        stand_in = stand_in.assign_coords(split=("example", examples["split"].to_numpy()))
    for measure in [p for p in chosen if p in MEASURES]:
        check_enough(stand_in, MEASURES[measure].fewest, measure)
    if any(p in FAMILIES["geometry"] for p in chosen):
        check_enough(stand_in, FEWEST_IDS, "geometry")
    if any(p in FAMILIES["linear_probe"] for p in chosen):
        check_linear_probe(stand_in, pivot)
    if "representer_support" in chosen:
        check_splits(stand_in)


def _knows(model: Any, labels: set[str]) -> bool:
    """Whether labels are the names or the numbers of a model's classes."""
    classes = _classes(model)
    return labels <= set(classes) or labels <= {str(i) for i in range(len(classes))}


def _classes(model: Any) -> list[str]:
    if isinstance(model, xr.Dataset):
        return class_names(model)
    return [str(c) for c in getattr(model, "config", model).id2label.values()]


def _has_logits(model: Any) -> bool:
    return "logits" in model if isinstance(model, xr.Dataset) else classifies(model)


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


def _check_labels(examples: pd.DataFrame) -> None:
    counts = pd.crosstab(examples["language"], examples["label"])
    for language, row in counts.iterrows():
        there = row[row > 0]
        if len(there) < 2:
            raise InputError(
                f"language {language!r} has only one class, {there.index[0]!r}; probes of labels need at least two. "
                "Drop the language, or choose probes that need no labels"
            )
        if (there == 1).any():
            label = there.index[there == 1][0]
            raise InputError(
                f"class {label!r} has a single example in language {language!r}; distances within a class need two. "
                "Drop the class or merge it, or choose probes that need no labels"
            )


def _tokenizers(
    models: Mapping[str, Model], tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None
) -> dict[str, PreTrainedTokenizerBase]:
    found = {}
    for name, model in models.items():
        if isinstance(model, torch.nn.Module):
            own = tokenizer.get(name) if isinstance(tokenizer, Mapping) else tokenizer
            if own is None:
                raise InputError(f"model {name!r} comes without a tokenizer: expected tokenizer=..., or its name in it")
            found[name] = own
        elif not isinstance(model, str | Path | xr.Dataset):
            raise InputError(
                f"model {name!r}: expected a torch model, the path or name of a checkpoint, or Representations; "
                f"found {type(model).__name__}"
            )
    return found


def _measure(
    chosen: list[str],
    reps: xr.Dataset,
    base: xr.Dataset,
    pivot: str | None,
    draws: int,
    seed: int,
    progress: bool,
) -> dict[str, xr.Dataset]:
    """The results of all chosen probes that need no more than the states."""
    how: dict[str, Any] = {"draws": draws, "seed": seed}
    # What is asked for, and what gives it; a function that gives several is called once.
    found: dict[str, xr.Dataset] = {}
    calls: list[tuple[Collection[str], Callable[[], xr.Dataset]]] = [
        *(((p,), partial(f, reps, **how)) for p, f in OF_LABELS.items()),
        *(((p,), partial(f, reps, pivot=pivot, **how)) for p, f in OF_ALIGNMENT.items()),
        *(((m,), partial(similarity, reps, None if reps is base else base, measure=m, **how)) for m in MEASURES),
        (FAMILIES["geometry"], partial(geometry, reps, **how)),
        (FAMILIES["linear_probe"], partial(linear_probe, reps, pivot=pivot, progress=progress, **how)),
        (("accuracy",), partial(accuracy, reps, **how)),
        (("best_layer",), partial(best_layer, reps, **how)),
        (("representer_support",), partial(representer_support, reps, progress=progress, **how)),
    ]
    if reps is not base:
        calls += [(FAMILIES["drift"], partial(drift, base, reps, **how))]
        calls += [(FAMILIES["loyalty"], partial(loyalty, base, reps, **how))]
    for names, call in calls:
        if any(p in chosen for p in names):
            found |= split_measures(call())
    return {p: found[p] for p in chosen if p in found}


def _of_batches(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: settings[k] for k in ("max_length", "device", "batch_size", "batch_tokens", "progress") if k in settings}


def _rows(result: xr.Dataset, baseline: xr.Dataset | None) -> pd.DataFrame:
    wide = result[["value", "low", "high", "n"]]
    if baseline is not None:
        gap = difference(result, baseline).rename(low="difference_low", high="difference_high")
        wide = xr.merge([wide, gap], join="left", compat="override")
    dims = ["language", *(str(d) for d in result["value"].dims if d != "language")]
    frame = wide.to_dataframe(dim_order=dims).reset_index()
    if "kind" in frame:  # the number of its layer, and what it is in that
        frame["module"] = frame["kind"]
    frame["model"], frame["probe"] = result.attrs["model"], result.attrs["probe"]
    return frame.reindex(columns=[c for c in [*COLUMNS, *FURTHER] if c in COLUMNS or c in frame])


def _provenance(
    measured: dict[str, dict[str, xr.Dataset]],
    representations: dict[str, xr.Dataset],
    corpus: datasets.Dataset | None,
    baseline: str,
    pivot: str | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    results = {probe: result for by_probe in measured.values() for probe, result in by_probe.items()}
    about = (*ABOUT[1:], "interval", "kind", "symmetric")
    first = next(iter(representations.values()))
    examples = pd.DataFrame({c: first[c].values for c in ("id", "language", "text") if c in first.coords})
    sizes = examples.groupby("language", sort=False).agg(texts=("id", "size"), example=("text", "first"))
    packages = ("layerscope", "torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "xarray", "zarr")
    return {
        "baseline": baseline,
        "pivot": pivot,
        "draws": draws,
        "seed": seed,
        "p_adjusted": "Westfall-Young max-T over the layers of one model, probe and language, on the bootstrap draws",
        "models": {
            name: {k: v for k, v in reps.attrs.items() if k not in ("model", "torch", "transformers")}
            for name, reps in representations.items()
        },
        "probes": {
            probe: {k: results[probe].attrs[k] for k in about if k in results[probe].attrs}
            | {
                "title": _TITLES[probe],
                "better": _better(results[probe].attrs["higher_is"]),
                "compares": probe in OF_PAIRS,
                "unchanged": _UNCHANGED.get(probe, 1.0) if probe in OF_PAIRS else None,
            }
            for probe in sorted(results, key=PROBES.index)
        },
        "corpus": {
            "languages": {
                language: {"texts": int(row["texts"]), "example": row["example"]} for language, row in sizes.iterrows()
            },
            "cautions": [] if corpus is None else cautions(corpus),
        },
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
    }


def _better(higher_is: str) -> str:
    word = " ".join(higher_is.split()[:2])
    first = {"better": "higher", "worse": "lower"}.get(higher_is.split()[0], "")
    return first or {"more alike": "higher", "less alike": "lower"}.get(word, "")
