"""Models x probes x layers x languages -> one tidy table, with paired differences to a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import datasets
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import cautions, check_corpus
from probes.errors import InputError, LayerscopeWarning, path_of
from probes.files import check_writable, file_name
from probes.measures.choice import choose
from probes.measures.measuring import measured_on
from probes.measures.probe import Run
from probes.measures.provenance import provenance_of, states_of
from probes.models.checkpoint import check_checkpoint, load_checkpoint
from probes.models.facts import check_fit, check_length, embedding_rows
from probes.models.named import by_name, check_pairs, tokenizers_of
from probes.order import caution
from probes.results.draws import check_draws, sample
from probes.results.kept import tabulated
from probes.results.verdict import Verdict, verdict
from probes.states.capture import capture
from probes.states.depth import baseline_layers
from probes.states.examples import examples_of
from probes.states.order import alike_in_order
from probes.states.representations import check_representations
from probes.states.running import check_settings
from probes.states.vectors import compare_vectors
from probes.views.plots import Plots

if TYPE_CHECKING:
    from probes.widgets import Explorer

Model = torch.nn.Module | str | Path | xr.Dataset


@dataclass
class Comparison(Plots):
    """The result of `compare`: a tidy table, where it is from, and the Representations behind it.

    Example:
        >>> import numpy as np, probes
        >>> x = np.random.default_rng(0).normal(size=(90, 8))
        >>> y = np.arange(90) % 3
        >>> models = {
        ...     "far": probes.from_arrays(x + 3 * np.eye(8)[y], label=y),
        ...     "near": probes.from_arrays(x + np.eye(8)[y], label=y),
        ... }
        >>> comparison = probes.compare(models, probes=["snr"])
        >>> table = comparison.to_dataframe().query("language == 'pooled'")
        >>> table[["model", "probe", "value"]].round(2)
          model probe  value
        1   far   snr   1.48
        3  near   snr   1.07
    """

    representations: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)
    _explorer: Any = field(default=None, init=False, repr=False, compare=False)

    def verdict(self, *, judge: Sequence[str] | None = None, tolerance: Mapping[str, float] | None = None) -> Verdict:
        """Read the comparison: which languages did a model lose, which are kept, and what is open.

        By what a model is for (its predictions, or else retrieval), at its end: `print` the verdict
        for the words; `models` and `languages` of it are the same as tables.

        Args:
            judge: the measures; by default accuracy and label loyalty where there is a head, or
                else retrieval.
            tolerance: measure -> the largest loss that does not matter, as {"retrieval": 0.02}; by
                default 0.01 of accuracy and retrieval, 0.05 of label loyalty.

        Raises:
            InputError: there is only one model, or nothing to judge by; a measure was not measured,
                cannot be judged or has no tolerance.

        Notes:
            All intervals hold at once, over models, measures and languages; see
            `probes.results.verdict`.

        Example:
            >>> import numpy as np, probes
            >>> rng = np.random.default_rng(0)
            >>> x, noise = rng.normal(size=(100, 8)), rng.normal(size=(200, 8))
            >>> both = np.concatenate([x, x])
            >>> about = {"id": np.tile(np.arange(100), 2), "language": np.repeat(["en", "sw"], 100)}
            >>> models = {"base": both + 0.01 * noise, "fine": both + 0.02 * noise, "poor": noise}
            >>> models = {name: probes.from_arrays(states, **about) for name, states in models.items()}
            >>> comparison = probes.compare(models, pivot="en", probes=["retrieval"])
            >>> verdict = comparison.verdict(tolerance={"retrieval": 0.1})
            >>> verdict.state("fine"), verdict.state("poor")
            ('kept', 'lost')

        See also:
            `Comparison.summary`, `Comparison.adjusted`.
        """
        from probes.views.reading import in_words

        found = verdict(self, judge=judge, tolerance=tolerance)
        return replace(found, words=in_words(found, self))

    @classmethod
    def open(cls, folder: str | Path, *, store: str | Path | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            folder: of the comparison.
            store: the folder that `compare` was given as `store`, or "representations" in what
                `layerscope compare` wrote, for the states too: for the explorer's maps and
                sentences, and for more draws.

        Raises:
            InputError: there is no comparison in the folder, or its files do not belong together;
                the states are not those that it was made of.

        See also:
            `Comparison.save`.
        """
        opened = super().open(folder)
        if store is not None:
            opened.representations = states_of(opened.provenance, path_of(store, "store"))
        return opened

    def again(self, models: Sequence[str], probes: Sequence[str], draws: int) -> Comparison | None:
        """Return some models and probes measured with other draws, or None of none; raise
        `InputError` where the Representations are not at hand.
        """
        reps = {name: self.representations[name] for name in models if name in self.representations}
        lacking = [name for name in models if name not in reps or "replicates" in reps[name].attrs]
        if lacking:
            raise InputError(
                f"draws={draws}: the states of {', '.join(map(repr, lacking))} are not at hand, as after opening a "
                "comparison, or those of one replicate alone are. Compare again with as many draws"
            )
        if not probes:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerscopeWarning)  # said the first time
            about = {k: self.provenance[k] for k in ("pivot", "baseline", "seed")}
            return compare(reps, probes=list(probes), draws=draws, progress=False, **about)

    def explore(self, **settings: Any) -> Explorer:
        """Show curves, maps and sentences in a notebook, linked by one layer slider.

        Args:
            settings: of `probes.widgets.Explorer`: most, seed, parts, and what to begin with
                (layer, models, probe, language, colour, kind, compared, focus, measure, selection).
                What is not given begins where the last explorer of this comparison is, so that a
                cell can be run again.

        Raises:
            InputError: a setting is unknown; anywidget is not installed.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> comparison.explore(layer=0, probe="snr").layer
            0

        See also:
            `Comparison.plot`, `Comparison.report`, `probes.widgets.Explorer`.
        """
        from probes.views.explorer import reopen

        self._explorer = reopen(self, self._explorer, settings)
        return self._explorer

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page: figures, table and where the numbers come from.

        Args:
            path: where to; an earlier report there is replaced.

        Raises:
            InputError: there is a file at the path that is no earlier report.

        Example:
            >>> import tempfile
            >>> import numpy as np, probes
            >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(60, 8)))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     probes.compare({"one": reps}, probes=["norm"]).report(f"{folder}/page.html").name
            'page.html'

        See also:
            `Comparison.plot`, `Comparison.explore`, `Comparison.save`.
        """
        from probes.views.report import write

        return write(self, path_of(path, "path"))


def compare(
    models: Mapping[str, Model | Sequence[Model]],
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
    """Measure probes at every layer and language of models, and how far each is from the baseline.

    Args:
        models: name -> a model, a checkpoint ("bundled", a folder, a hub name), or Representations
            already captured; or a list of at least two of these, which are one model trained with
            several seeds: replicates.
        corpus: as `load_corpus` gives it; not needed where all models are Representations.
        tokenizer: of the models that are not given as checkpoints: one for all, or name ->
            tokenizer.
        pivot: the language that alignment is measured against; without it those probes are left
            out.
        baseline: the model that the others are compared with; by default the first.
        probes: names of probes or families of them ("drift", "similarity", "geometry", ...;
            `layerscope compare --help` lists all); by default those of labels, alignment, drift and
            predictions, and "cka", as far as models, corpus and pivot allow.
        draws, seed: of the bootstrap by sentence id, or by group where the corpus has groups; every
            model gets the same draws.
        store: a folder for the Representations, one zarr store a model, which a later run with the
            same weights, corpus and settings opens in place of running the model.
        allow_pickle: as in `load_checkpoint`.
        settings: further settings of `capture`: pooling, max_length, prompt, normalize, dimensions,
            dtype, device, batch_size, batch_tokens, progress, wait.

    Returns:
        A `Comparison`: the table, where its numbers come from, and the Representations behind it.

    Raises:
        InputError: before the first forward pass, where models, corpus, pivot and probes do not fit
            together.

    See also:
        `capture`, `difference`, `Comparison.open`.

    Example:
        >>> import numpy as np, probes
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"])
        >>> models = {"base": "bundled"}
        >>> comparison = compare(models, corpus, pivot="en", probes=["retrieval"], progress=False)
        >>> comparison.to_dataframe().columns.tolist()[:5]
        ['model', 'layer', 'language', 'probe', 'value']
    """
    replicates = by_name(models)
    every = {own: model for group in replicates.values() for own, model in group.items()}
    baseline = next(iter(models)) if baseline is None else baseline
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
    check_settings(**settings)
    if store is not None:
        check_writable(path_of(store, "store"))
    known: dict[str, Any] = dict(every)
    for name, model in every.items():
        if isinstance(model, str | Path):
            config, its_own = check_checkpoint(model, allow_pickle=allow_pickle)
            check_length(settings.get("max_length"), getattr(config, "max_position_embeddings", None), its_own)
            known[name] = config
        elif isinstance(model, PreTrainedModel):
            check_fit(embedding_rows(model), tokenizers[name], name)
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
    chosen = choose(
        probes, shared, known, heads=not settings.get("modules") and settings.get("part") != "decoder", baseline=first
    )
    alone, beside = ([p for p in chosen if p.compares is compares] for compares in (False, True))
    if beside:
        check_pairs(replicates, baseline)
    by_id = sample(examples.drop_vars("group"), draws=draws, seed=seed) if "group" in examples.coords else None

    def run_of(name: str) -> tuple[Run, Any, Any]:
        """What is measured of a model, and itself with its tokenizer, where there is one."""
        model = every[name]
        if isinstance(model, xr.Dataset):
            reps = model.assign_attrs(model=name)
            if by_id is not None:
                reps = reps.assign_coords(group=("example", examples["group"].values))
            return replace(shared, reps=reps), None, None
        assert corpus is not None  # examples_of has raised
        loaded, own = (
            load_checkpoint(model, allow_pickle=allow_pickle)
            if isinstance(model, str | Path)
            else (model, tokenizers[name])
        )
        target = None if store is None else Path(store) / f"{file_name(name)}.zarr"
        reps = capture(loaded, own, corpus, store=target, name=name, **settings)
        return replace(shared, reps=reps), loaded, own

    measured: dict[str, dict[str, xr.Dataset]] = {}
    representations: dict[str, xr.Dataset] = {}
    bases: list[tuple[Run, Any]] = []  # of the baseline, with the model itself where probes run it beside the others
    # The baseline first: others are compared with it.
    for name in [baseline, *(n for n in models if n != baseline)]:
        runs, pairs = [], []
        for number, own_name in enumerate(replicates[name]):
            run, loaded, own = run_of(own_name)
            runs.append(run)
            if name == baseline:
                bases.append((run, loaded if any("models to run" in p.needs for p in chosen) else None))
                continue
            # One replicate with one, or each with the only one of the other.
            for base, original in bases if len(replicates[name]) == 1 else [bases[number % len(bases)]]:
                both = None if original is None else (original, loaded, own)
                pairs.append(replace(run, base=base.reps, models=both))
        if pairs:
            measured[name] = measured_on(alone, runs, name, by_id=by_id) | measured_on(beside, pairs, name, by_id=by_id)
        else:
            itself = [p for p in chosen if "another model" not in p.needs]
            measured[name] = measured_on(itself, runs, name, by_id=by_id)
        representations[name] = _first(runs, name)
    results = [measured[name][p.name] for name in models for p in chosen if p.name in measured[name]]
    depth = {name: baseline_layers(representations[baseline], reps) for name, reps in representations.items()}
    table, kept = tabulated(results, depth)
    said = [] if corpus is None else cautions(corpus)
    known_by_labels = any("group=..." in one for one in said)
    if by_id is None and not known_by_labels and (alike := alike_in_order(representations[baseline])):
        said.append(caution(alike, "topics (their states are alike)"))
        warnings.warn(said[-1], LayerscopeWarning, stacklevel=2)
    about = provenance_of(measured, representations, said, baseline, shared)
    made = Comparison(table, about, kept, representations)
    made.table = made.adjusted()
    return made


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
            stacklevel=3,
        )
    return reps.assign_attrs(replicates=len(runs), states_of="replicate 1")
