"""How a comparison is run: every model captured and measured, the baseline first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.costs import ROUNDS, TEXTS, Subject, as_table, counted, on_texts, operations_of, seconds_of
from probes.errors import InputError, LayerscopeWarning, address_of
from probes.files import file_name
from probes.measures.choice import choose
from probes.measures.measuring import measured_on
from probes.measures.probe import Run
from probes.measures.provenance import provenance_of
from probes.measures.workers import check_n_jobs
from probes.models.checkpoint import check_checkpoint, load_checkpoint, loading_of
from probes.models.facts import check_fit, check_length, embedding_rows
from probes.models.fingerprint import tokenizer_fingerprint
from probes.models.formats.onnx_model import OnnxModel
from probes.models.named import by_name, check_depths, check_pairs, tokenizers_of
from probes.models.series import Series, spread
from probes.models.spread import places_for, places_of
from probes.order import caution
from probes.pitfalls import cautions
from probes.remote import check_writable_at, within
from probes.results.draws import check_draws, sample
from probes.results.kept import tabulated
from probes.states.capture import capture
from probes.states.depth import baseline_layers
from probes.states.examples import examples_of
from probes.states.order import alike_in_order
from probes.states.outliers import without_outliers
from probes.states.pooling import OfTokens, named_pooling
from probes.states.predictions import predicts
from probes.states.ranks import ranks_of
from probes.states.representations import LEFT_OUT, check_representations, left_out_in_words
from probes.states.running import check_settings
from probes.states.texts import READ_LATER
from probes.states.vectors import compare_vectors

# What a comparison was asked for, in its provenance, so that a model can be added to it; and the settings of `capture`
# that states depend on.
ASKED = "asked"
OF_STATES = (
    *("modules", "part", "pooling", "max_length", "prompt", "normalize", "dimensions", "long_texts", "overlap"),
    "dtype",
)

Model = torch.nn.Module | str | Path | xr.Dataset | Series


class Measured(NamedTuple):
    """What a comparison is made of: its table, where it is from, the draws, what models cost, and
    the Representations.
    """

    table: pd.DataFrame
    provenance: dict[str, Any]
    draws: xr.Dataset
    models: pd.DataFrame
    representations: dict[str, xr.Dataset]


def measure_models(
    models: Mapping[str, Model | Sequence[Model]], corpus: datasets.Dataset | None = None, **asked: Any
) -> Measured:
    """Measure what `planned` checked; the arguments are its own."""
    return planned(models, corpus, **asked)()


def planned(
    models: Mapping[str, Model | Sequence[Model]],
    corpus: datasets.Dataset | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None,
    pivot: str | None,
    baseline: str | None,
    probes: Sequence[str] | None,
    draws: int,
    seed: int,
    store: str | Path | None,
    allow_pickle: bool,
    timing: bool,
    without: int = 0,
    only: Collection[str] | None = None,
    n_jobs: int | None = None,
    settings: dict[str, Any],
) -> Callable[..., Measured]:
    """Check what is asked for, and return what measures it: probes at every layer and language of
    models. The arguments are those of `compare`.

    Args:
        models, corpus, tokenizer, pivot, baseline, probes, draws, seed, store, allow_pickle, timing,
            n_jobs, settings: as there.
        without: its `without_outliers`.
        only: the models that are measured, where the others are there to be compared with.

    Returns:
        A function that captures and measures; of checkpoints that are in memory already it takes
        `loaded`, each with its tokenizer.

    Raises:
        InputError: models, corpus, pivot and probes do not fit together. No model has been run.
    """
    ranks = ranks_of(store)  # before a device is chosen: each has its own
    models, steps = spread(models)
    replicates = by_name(models)
    every = {own: model for group in replicates.values() for own, model in group.items()}
    baseline = next(iter(models)) if baseline is None else baseline
    baseline = next(iter(steps[baseline])) if baseline in steps else baseline  # its first step
    if baseline not in models:
        raise InputError(f"baseline {baseline!r}: no such model; there are {', '.join(map(repr, models))}")
    captured = {name: check_representations(m) for name, m in every.items() if isinstance(m, xr.Dataset)}
    if corpus is not None:
        corpus = check_corpus(corpus)
    examples = examples_of(corpus, captured, every)
    if isinstance(tokenizer, Mapping):
        tokenizer = {own: tokenizer[name] for name in models if name in tokenizer for own in replicates[name]}
    tokenizers = tokenizers_of(every, tokenizer)
    check_draws(draws, seed)
    check_n_jobs(n_jobs)
    given = settings
    loading, settings = loading_of(given)
    check_settings(**settings)
    if "pooling" in settings:
        settings = settings | {"pooling": named_pooling(settings["pooling"])}
    place = None if store is None else address_of(store, "store")
    if place is not None:
        check_writable_at(place)
    known: dict[str, Any] = dict(every)
    read_by: dict[str, str] = {}  # the fingerprints of tokenizers
    for name, model in every.items():
        if isinstance(model, str | Path):
            config, its_own = check_checkpoint(model, allow_pickle=allow_pickle, spread="device_map" in loading)
            check_length(settings.get("max_length"), getattr(config, "max_position_embeddings", None), its_own)
            known[name], read_by[name] = config, tokenizer_fingerprint(its_own)
        elif isinstance(model, PreTrainedModel):
            read_by[name] = tokenizer_fingerprint(tokenizers[name])
            check_fit(embedding_rows(model), tokenizers[name], name)
    check_depths(replicates, known)
    compare_vectors({n: m for n, m in known.items() if not isinstance(m, xr.Dataset)}, settings)
    # The same examples, and the same draws of them, for all models.
    shared = Run(
        examples,
        sample(examples, draws=draws, seed=seed),
        pivot=pivot,
        seed=seed,
        progress=settings.get("progress", True),
        corpus=corpus,
        settings={
            k: settings[k] for k in ("max_length", "prompt", "device", "batch_size", "batch_tokens") if k in settings
        },
    )
    if len(models) == 1:
        known = dict([next(iter(known.items()))])  # replicates of one model are not compared with each other
    first = next(iter(replicates[baseline]))
    heads = not settings.get("modules") and settings.get("part") != "decoder"
    over = places_for(loading.get("device_map"))
    whole = not any(over if isinstance(m, str | Path) else places_of(m) for m in every.values())
    chosen = choose(probes, shared, known, heads=heads, baseline=first, tokenizers=read_by, whole=whole)
    alone, beside = ([p for p in chosen if p.compares is compares] for compares in (False, True))
    if of_tokens := [p.name for p in chosen if "states of tokens" in p.needs]:
        if isinstance(settings.get("pooling"), OfTokens):
            raise InputError(
                f"{', '.join(of_tokens)} cannot be measured with pooling={settings['pooling'].name}, which keeps no "
                "states of tokens. Leave pooling out, or measure them apart"
            )
        if settings.get("long_texts", "cut") != "cut":
            raise InputError(
                f"{', '.join(of_tokens)} cannot be measured with long_texts='windows', which gives one vector a text. "
                "Leave long_texts out, or measure them apart"
            )
        settings = settings if settings.get("tokens") else {"words": True} | settings
    running = ranks.number == 0 and any("models to run" in p.needs for p in chosen)
    if beside:
        check_pairs(replicates, baseline)
    by_id = sample(examples.drop_vars("group"), draws=draws, seed=seed) if "group" in examples.coords else None

    def run(loaded: Mapping[str, tuple[Any, Any]] | None = None) -> Measured:
        def run_of(name: str) -> tuple[Run, Any, Any]:
            """What is measured of a model, and itself with its tokenizer, where there is one."""
            model = every[name]
            if isinstance(model, xr.Dataset):
                reps = model.assign_attrs(model=name)
                if by_id is not None:
                    reps = reps.assign_coords(group=("example", examples["group"].values))
                return replace(shared, reps=reps), None, None
            assert corpus is not None  # examples_of has raised
            if not isinstance(model, str | Path):
                there, own = model, tokenizers[name]
            else:
                there, own = (loaded or {}).get(name) or load_checkpoint(model, allow_pickle=allow_pickle, **loading)
            target = None if place is None else within(place, f"{file_name(name)}.zarr")
            reps = capture(there, own, corpus, store=target, name=name, **settings)
            return replace(shared, reps=reps, models=(None, there, own) if running else None), there, own

        spent = Spent(corpus, baseline, seed, timing, settings)
        measured: dict[str, dict[str, xr.Dataset]] = {}
        representations: dict[str, xr.Dataset] = {}
        # Of the baseline, with the model itself where probes run it beside the others.
        bases: list[tuple[Run, Any]] = []
        # The baseline first: others are compared with it.
        for name in [baseline, *(n for n in models if n != baseline)]:
            runs, pairs = [], []
            for number, own_name in enumerate(replicates[name]):
                run, there, own = run_of(own_name)
                # The largest features of the baseline, where both have these.
                first_base = bases[0][0].reps if bases else run.reps
                same_width = bool(bases) and first_base.sizes["feature"] == run.reps.sizes["feature"]
                run = replace(run, reps=without_outliers(run.reps, without, like=first_base if same_width else None))
                runs.append(run)
                if number == 0:  # of replicates the first
                    ranks.first(spent.add, name, there, own, every[own_name])
                if name == baseline:
                    bases.append((run, there if running else None))
                    continue
                # One replicate with one, or each with the only one of the other.
                for base, original in bases if len(replicates[name]) == 1 else [bases[number % len(bases)]]:
                    both = None if original is None else (original, there, own)
                    pairs.append(replace(run, base=base.reps, models=both))
            representations[name] = _sharing(_first(runs, name), representations.get(baseline))
            if only is not None and name not in only:
                continue
            how: dict[str, Any] = {"head": predicts(bases[0][0].reps), "by_id": by_id, "n_jobs": n_jobs}
            if len(pairs) == len(runs) == 1:  # what runs both models says of one what it says of the pair
                each = [(chosen, pairs)]
            elif pairs:
                each = [(alone, runs), (beside, pairs)]
            else:
                each = [([p for p in chosen if "another model" not in p.needs], runs)]
            measured[name] = {}
            for these, of in each:
                measured[name] |= ranks.first(measured_on, these, of, name, **how)
        results = [measured[name][p.name] for name in models for p in chosen if p.name in measured.get(name, ())]
        depth = {name: baseline_layers(representations[baseline], representations[name]) for name in measured}
        table, kept = tabulated(results, depth)
        said = [] if corpus is None else cautions(corpus)
        known_by_labels = any("group=..." in one for one in said)
        if by_id is None and not known_by_labels and (alike := alike_in_order(representations[baseline])):
            said.append(caution(alike, "topics (their states are alike)"))
            warnings.warn(said[-1], LayerscopeWarning, stacklevel=4)
        about = provenance_of(measured, representations, said, baseline, shared)
        about[ASKED] = {
            "probes": None if probes is None else list(probes),
            "without_outliers": without,
            "settings": {k: v for k, v in {**given, **settings}.items() if k in OF_STATES and v is not None},
        }
        # The sentences of the tokens that moved most, and one that is drawn, where language models were compared.
        shown = {name: found["kl"].attrs for name, found in measured.items() if "kl" in found}
        if shown:
            about["tokens"] = {name: one["worst_tokens"] + one["drawn_tokens"] for name, one in shown.items()}
        if steps:
            about["series"] = steps
        if without:
            about[LEFT_OUT] = left_out_in_words(representations[baseline])
        about |= ranks.first(spent.about)
        return Measured(table, about, kept, ranks.first(spent.table, list(models)), representations)

    return run


class Spent:
    """What models cost, each beside the baseline while both are at hand."""

    def __init__(
        self, corpus: datasets.Dataset | None, baseline: str, seed: int, timing: bool, settings: dict[str, Any]
    ) -> None:
        """Begin with none; the arguments are those of `compare`."""
        self.corpus, self.baseline, self.seed, self.timing, self.settings = corpus, baseline, seed, timing, settings
        self.base: Subject | None = None
        self.rows: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, np.ndarray] = {}

    def add(self, name: str, model: Any, tokenizer: Any, source: Any) -> None:
        """Count and measure a model, where it is one of transformers or onnxruntime."""
        if not isinstance(model, PreTrainedModel | OnnxModel):
            return
        subject = on_texts(model, tokenizer, self.corpus, name, self.seed, **self.settings)
        self.rows[name] = counted(subject, source if isinstance(source, str | Path) else None)
        if not self.timing:
            return
        self.rows[name]["operations"] = operations_of(subject)
        if name == self.baseline:
            self.base = subject
            self.seconds[name] = seconds_of([subject])
        elif self.base is not None:
            self.seconds[name] = seconds_of([self.base, subject])

    def table(self, models: Sequence[str]) -> pd.DataFrame:
        """Return a row a model."""
        return as_table(self.rows, self.seconds, self.baseline, models)

    def about(self) -> dict[str, Any]:
        """Return how time was measured, where it was."""
        if not self.seconds:
            return {}
        return {"timed": {"texts": list(TEXTS), "rounds": ROUNDS, "threads": torch.get_num_threads()}}


def _sharing(reps: xr.Dataset, base: xr.Dataset | None) -> xr.Dataset:
    """Representations whose ids, texts and labels are those of the baseline in memory too: of many
    models, as the steps of a training, they take more than all else.
    """
    if base is None:
        return reps
    same = {c: base[c].variable for c in reps.coords if c in base.coords and reps[c].dims == ("example",)}
    on_disk = READ_LATER if "source" in {**base.encoding, **reps.encoding} else ()  # where they may stay
    same = {c: one for c, one in same.items() if c not in on_disk and np.array_equal(one.values, reps[c].values)}
    out = reps.assign_coords(same)
    out.encoding = dict(reps.encoding)
    return out


def _first(runs: Sequence[Run], name: str) -> xr.Dataset:
    """The Representations that are kept of a model: of replicates the first's. Warn of copies."""
    reps = runs[0].reps.assign_attrs(model=name)
    if len(runs) == 1:
        return reps
    weights = [run.reps.attrs.get("weights", number) for number, run in enumerate(runs)]
    if len(set(weights)) < len(weights):
        warnings.warn(
            f"model {name!r}: replicates have the same weights, so that they differ less than trainings with several "
            "seeds do. Give the checkpoint of each seed",
            LayerscopeWarning,
            stacklevel=5,
        )
    return reps.assign_attrs(replicates=len(runs), states_of="replicate 1")
