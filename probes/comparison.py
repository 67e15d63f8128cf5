"""Models x probes x layers x languages -> one tidy table, with paired differences to a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import datasets
import xarray as xr
from transformers import PreTrainedTokenizerBase

from probes.comparing import Model, planned
from probes.errors import InputError, LayerscopeWarning, address_of
from probes.extending import with_baseline, with_model
from probes.measures.attribution.causes import causes_of, pairs_of
from probes.measures.catalogue import by_name
from probes.measures.provenance import states_of
from probes.models.checkpoint import loading_of
from probes.results.verdict import Verdict, verdict
from probes.several import Several, check_corpora, on_corpus, store_of
from probes.states.ranks import ranks_of
from probes.views.plots import Plots

if TYPE_CHECKING:
    from probes.widgets import Explorer


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
            judge: the measures; by default accuracy and label loyalty where there is a head, bits
                per byte and the same top token of language models, or else retrieval.
            tolerance: measure -> the largest loss that does not matter, as {"retrieval": 0.02}; by
                default 0.01 of accuracy and retrieval, 0.05 of label loyalty and the same top
                token, 0.02 of bits per byte.

        Raises:
            InputError: there is only one model, or nothing to judge by; a measure was not measured,
                cannot be judged or has no tolerance.

        Notes:
            Each end of the intervals holds over models, measures and languages at once; see
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
            folder: of the comparison, or its URL.
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
            opened.representations = states_of(opened.provenance, address_of(store, "store"))
        return opened

    def again(self, models: Sequence[str], probes: Sequence[str], draws: int) -> Comparison | None:
        """Return some models and probes measured with other draws, or None of none, as of probes that
        run the models; raise `InputError` where the Representations are not at hand.
        """
        reps = {name: self.representations[name] for name in models if name in self.representations}
        lacking = [name for name in models if name not in reps or "replicates" in reps[name].attrs]
        if lacking:
            raise InputError(
                f"draws={draws}: the states of {', '.join(map(repr, lacking))} are not at hand, as after opening a "
                "comparison, or those of one replicate alone are. Compare again with as many draws"
            )
        # What runs the models keeps its draws: states alone are kept here.
        running = {name for name, probe in by_name().items() if "models to run" in probe.needs}
        probes = [name for name in probes if name not in running]
        if not probes:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LayerscopeWarning)  # said the first time
            about = {k: self.provenance[k] for k in ("pivot", "baseline", "seed")}
            return compare(reps, probes=list(probes), draws=draws, progress=False, **about)

    def add(
        self,
        name: str,
        model: Model | Sequence[Model],
        *,
        tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None = None,
        corpus: datasets.Dataset | None = None,
        base: Model | None = None,
        probes: Sequence[str] | None = None,
        store: str | Path | None = None,
        allow_pickle: bool = False,
        timing: bool = True,
        **settings: Any,
    ) -> Comparison:
        """Return this comparison with one model more; nothing that is there is measured again.

        The same numbers as of one comparison made at once: the same texts, settings and draws. This
        one stays as it is.

        Args:
            name: what the model is called.
            model: a model, a checkpoint, Representations, or a list of replicates, as in `compare`.
            tokenizer: of a model that is not given as a checkpoint.
            corpus: the one that the comparison was made on; by default as the states of the
                baseline have it.
            base: the baseline itself, for probes that run both models, and where its states are not
                at hand.
            probes: of those that were measured; by default all of them.
            store, allow_pickle, timing: as in `compare`; times of the model are measured beside
                `base`, where that is given.
            settings: of `capture`, beside those that the comparison was made with.

        Raises:
            InputError: there is a model of that name; the states of the baseline are not at hand;
                corpus or base are others; the comparison was made by another version; what
                `compare` raises.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far}, probes=["snr"])
            >>> comparison.add("near", near).to_dataframe()["model"].unique().tolist()
            ['far', 'near']

        See also:
            `compare`, `Comparison.against`.
        """
        made = with_model(
            self,
            self.representations,
            name,
            model,
            base=base,
            corpus=corpus,
            tokenizer=tokenizer,
            probes=probes,
            store=store,
            allow_pickle=allow_pickle,
            timing=timing,
            settings=settings,
        )
        return _with_differences(Comparison(**made._asdict()))

    def against(self, baseline: str) -> Comparison:
        """Return this comparison with another of its models as the baseline, from the draws that are
        kept.

        The same numbers as of one comparison made with that baseline. Probes that compare with the
        baseline (drift, similarity, ...) are measured again from the states, where these are at
        hand; they are left out, and named, where they are not, and so are those that run models.
        Causes are left out too.

        Args:
            baseline: a model of the comparison.

        Raises:
            InputError: there is no such model; models are not equally deep and their states are not
                at hand; the comparison was made by another version; no probe is left.

        Example:
            >>> import numpy as np, probes
            >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
            >>> near, far = (probes.from_arrays(x + k * np.eye(8)[y], label=y) for k in (1, 3))
            >>> comparison = probes.compare({"far": far, "near": near}, probes=["snr"])
            >>> comparison.against("near").baseline
            'near'

        See also:
            `Comparison.add`, `Comparison.difference`.
        """
        return _with_differences(Comparison(**with_baseline(self, self.representations, baseline)._asdict()))

    def explore(self, **settings: Any) -> Explorer:
        """Show curves, maps and sentences in a notebook, linked by one layer slider.

        Args:
            settings: of `probes.widgets.Explorer`: most, seed, latent, parts, and what to begin with
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

    def report(self, path: str | Path) -> Path | str:
        """Write one self-contained HTML page: figures, table and where the numbers come from.

        Args:
            path: where to, or a URL; an earlier report there is replaced.

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

        return write(self, address_of(path, "path"))


class Comparisons(Several):
    """The result of `compare` on several corpora: a Comparison on each, by name.

    `comparisons["sib200"]` is the comparison on one corpus, the same as if it were made alone. What all
    have alike is here too: `to_dataframe`, `summary`, `adjusted`, `difference`, `steps`, `since`,
    `models`, `to_markdown`, `to_latex`, with a column `corpus` first; `verdict`, of every corpus;
    `plot`, `plot_change`, `plot_languages`, `report`; `add`, `against`, `save`, `Comparisons.open`.

    Args:
        comparisons: name of a corpus -> Comparison: the same models, with the same baseline. They
            may have been made one after the other.

    Raises:
        InputError: models or baselines are not the same; corpora have no language in common.

    Example:
        >>> import numpy as np, probes
        >>> rng, made = np.random.default_rng(0), {}
        >>> about = {"id": np.tile(np.arange(40), 2), "language": np.repeat(["en", "sw"], 40)}
        >>> for corpus in ("news", "tales"):
        ...     x = np.tile(rng.normal(size=(40, 8)), (2, 1)) + 0.01 * rng.normal(size=(80, 8))
        ...     models = {"base": x, "poor": rng.normal(size=(80, 8))}
        ...     models = {name: probes.from_arrays(states, **about) for name, states in models.items()}
        ...     made[corpus] = probes.compare(models, pivot="en", probes=["retrieval"], progress=False)
        >>> both = Comparisons(made)
        >>> both.to_dataframe()["corpus"].unique().tolist(), both.verdict().state("poor")
        (['news', 'tales'], 'lost')

    See also:
        `compare`, `Comparison`.
    """

    one = Comparison


@overload
def compare(
    models: Mapping[str, Model | Sequence[Model]], corpus: datasets.Dataset | None = ..., **asked: Any
) -> Comparison: ...


@overload
def compare(
    models: Mapping[str, Model | Sequence[Model]], corpus: Mapping[str, datasets.Dataset], **asked: Any
) -> Comparisons: ...


def compare(
    models: Mapping[str, Model | Sequence[Model]],
    corpus: datasets.Dataset | Mapping[str, datasets.Dataset] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | Mapping[str, PreTrainedTokenizerBase] | None = None,
    pivot: str | None = None,
    baseline: str | None = None,
    probes: Sequence[str] | None = None,
    draws: int = 200,
    seed: int = 0,
    store: str | Path | None = None,
    allow_pickle: bool = False,
    timing: bool = True,
    without_outliers: int = 0,
    patching: bool = False,
    n_jobs: int | None = None,
    **settings: Any,
) -> Comparison | Comparisons:
    """Measure probes at every layer and language of models, and how far each is from the baseline.

    Args:
        models: name -> a model, a checkpoint ("bundled", a folder, a hub name), or Representations
            already captured; or a list of at least two of these, which are one model trained with
            several seeds: replicates; or the checkpoints of one training (`series`), each of which
            becomes a model.
        corpus: as `load_corpus` gives it; not needed where all models are Representations. Or several by
            name, {"sib200": a, "tatoeba": b}, which have a language in common.
        tokenizer: of the models that are not checkpoints: one for all, or name -> tokenizer.
        pivot: the language that alignment is measured against, which is left out without one.
        baseline: the model that the others are compared with; by default the first.
        probes: names of probes or families of them ("drift", "similarity", "geometry", ...;
            `layerscope compare --help` lists all); by default those of labels, alignment, drift and
            predictions, and "cka", as far as models, corpus and pivot allow.
        draws, seed: of the bootstrap by sentence id, or by group, if any; the same for all models.
        store: a folder for the Representations, or a URL as s3://bucket/states: in it one zarr store
            a model, which a later run with the same weights, corpus and settings opens in place of
            running the model. Of several corpora one folder each, in it. Under `torchrun` all make
            the same call: each captures a part of the texts, the first measures, all return the same.
        allow_pickle: as in `load_checkpoint`.
        timing: run every model on 32 texts of the corpus, in turns with the baseline, to count its
            operations and measure its time; two models are in memory at once. False leaves these
            columns of `models` empty, so that two runs give the same to the last bit.
        without_outliers: leave so many features of every layer out of all that is measured of states,
            the largest ones of the baseline (`probes.without_outliers`).
        patching: also ask which layers cause what was lost: every model is run with the original's
            blocks, one at a time, so that the verdict names causes. All models are in memory.
        n_jobs: how many probes are measured at once, by joblib and the backend that its
            `parallel_config` names; -1 for one a core. The same numbers however many there are.
        settings: further settings of `capture`: pooling, max_length, prompt, normalize, dimensions,
            long_texts, overlap, dtype, device, batch_size, batch_tokens, tokens, words, progress,
            wait; for checkpoints device_map, offload_folder, dtype="auto" of `load_checkpoint`.
            Longer texts are read whole for their states alone: what runs models besides cuts them.

    Returns:
        A `Comparison`: the table, where its numbers come from, and the Representations behind it; of
        several corpora `Comparisons`, one on each.

    Raises:
        InputError: before the first forward pass, where models, corpus, pivot and probes do not fit
            together; corpora have no language in common. A worker died.

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
    asked: dict[str, Any] = {
        "tokenizer": tokenizer,
        "pivot": pivot,
        "baseline": baseline,
        "probes": probes,
        "draws": draws,
        "seed": seed,
        "allow_pickle": allow_pickle,
        "timing": timing,
        "without": without_outliers,
        "n_jobs": n_jobs,
        "settings": settings,
    }
    if not isinstance(corpus, Mapping):
        return _plan(models, corpus, store=store, patching=patching, **asked)()
    plans = {}
    for name, one in check_corpora(models, corpus).items():
        with on_corpus(name):
            plans[name] = _plan(models, one, store=store_of(store, name), patching=patching, **asked)
    return Comparisons({name: plan() for name, plan in plans.items()})


def _plan(models: Mapping[str, Any], corpus: Any, *, patching: bool, **asked: Any) -> Callable[[], Comparison]:
    """Check what is asked for on one corpus, and return what measures it."""
    plan = planned(models, corpus, **asked)
    loading, settings = loading_of(asked["settings"])
    of_states = ("modules", "part", "dtype", "wait", "tokens", "words", "long_texts", "overlap")
    how = {k: v for k, v in settings.items() if k not in of_states}

    def made() -> Comparison:
        if not patching:
            return _with_differences(Comparison(**plan()._asdict()))
        known = {k: asked[k] for k in ("tokenizer", "pivot", "baseline", "allow_pickle")}
        pairs, loaded = pairs_of(models, corpus, **known, loading=loading, settings=how)
        found = Comparison(**plan(loaded)._asdict())
        about = {k: asked[k] for k in ("pivot", "draws", "seed")} | how
        found.provenance["causes"] = ranks_of(asked["store"]).first(
            lambda: {pair.names[1]: causes_of(pair, corpus, **about) for pair in pairs}
        )
        return _with_differences(found)

    return made


def _with_differences(made: Comparison) -> Comparison:
    made.table = made.adjusted()
    return made
