"""Models x probes x layers x languages -> one tidy table, with paired differences to a baseline."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import datasets
import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.alignment import alignment_gap, check_pivot, margin_retrieval, retrieval
from probes.capture import capture, check_length, check_settings
from probes.checkpoint import check_checkpoint, check_fit, embedding_rows, load_checkpoint
from probes.corpus import cautions, check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.files import check_writable, write_whole
from probes.representations import check_representations
from probes.resampling import POOLED, check_draws, difference
from probes.separability import class_separability
from probes.snr import snr
from probes.variability import variability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = [
    "model",
    "layer",
    "language",
    "probe",
    "value",
    "low",
    "high",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "p_adjusted",
]
OF_LABELS = {"class_separability": class_separability, "variability": variability, "snr": snr}
OF_ALIGNMENT = {"retrieval": retrieval, "margin_retrieval": margin_retrieval, "alignment_gap": alignment_gap}
PROBES = [*OF_LABELS, *OF_ALIGNMENT]

Model = torch.nn.Module | str | Path | xr.Dataset


@dataclass
class Comparison:
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

    table: pd.DataFrame
    provenance: dict[str, Any]
    representations: dict[str, xr.Dataset] = field(default_factory=dict, repr=False)

    def to_dataframe(self) -> pd.DataFrame:
        """Return the tidy table: one row a model, probe, language and layer, with the difference to the baseline."""
        return self.table.copy()

    def summary(self) -> pd.DataFrame:
        """Return one row a probe and model, over all languages: the layer where the baseline is best, and what is lost.

        `worst_language` is the one that lost most at that layer, by `its_difference`; empty where none lost. A model
        that does not have the layer has a row without numbers.
        """
        rows = []
        for probe, attributes in self.provenance["probes"].items():
            better = 1 if attributes["higher_is"].startswith("better") else -1
            of_probe = self.table[self.table["probe"] == probe]
            base = of_probe[(of_probe["model"] == self.baseline) & (of_probe["language"] == POOLED)].dropna(
                subset="value"
            )
            if base.empty:
                continue
            layer = base.loc[(better * base["value"]).idxmax(), "layer"]
            for model in self.provenance["models"]:
                here = of_probe[(of_probe["model"] == model) & (of_probe["layer"] == layer)]
                pooled = here[here["language"] == POOLED]
                row = {"probe": probe, "better": "higher" if better > 0 else "lower", "layer": layer, "model": model}
                row |= pooled[["value", "low", "high", *COLUMNS[8:]]].squeeze().to_dict() if len(pooled) else {}
                change = better * here[here["language"] != POOLED].set_index("language")["difference"]
                lost = change[change < 0]
                row["worst_language"] = "" if lost.empty else lost.idxmin()
                row["its_difference"] = np.nan if lost.empty else better * lost.min()
                rows.append(row)
        return pd.DataFrame(rows)

    @property
    def baseline(self) -> str:
        """The model that the others are compared with."""
        return self.provenance["baseline"]

    def plot(self, probe: str | None = None, *, language: str = POOLED) -> Figure:
        """Draw layer curves with their bands: one panel a probe (or the one asked for), one colour a model."""
        from probes.plots import curves

        return curves(self, self._probes(probe), language)

    def plot_damage(self, probe: str) -> Figure:
        """Draw the difference to the baseline, languages by layers, one panel a model; dots mark p_adjusted < 0.05."""
        from probes.plots import damage

        return damage(self, self._probes(probe)[0])

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page with the figures, the table and where the numbers come from.

        Raises:
            InputError: there is a file at the path that is no earlier report.
        """
        from probes.report import write

        return write(self, Path(path))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write `comparison.csv` and `provenance.json` into a folder; `Comparison.open` reads them.

        Raises:
            InputError: the folder holds a comparison already, and `overwrite` was not asked for.
        """
        folder = Path(folder)
        check_folder(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "comparison.csv": self.table.to_csv(index=False),
            "provenance.json": json.dumps(self.provenance, indent=2, ensure_ascii=False) + "\n",
        }
        for name, text in texts.items():
            write_whole(folder / name, text)
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> Comparison:
        """Read what `save` wrote. The Representations are not part of it."""
        folder = Path(folder)
        if not (folder / "comparison.csv").is_file() or not (folder / "provenance.json").is_file():
            raise InputError(
                f"{folder}: expected comparison.csv and provenance.json in it, as Comparison.save writes them"
            )
        text = dict.fromkeys(("model", "language", "probe"), str)
        table = pd.read_csv(folder / "comparison.csv", dtype=text, keep_default_na=False, na_values=[""])
        return cls(table, json.loads((folder / "provenance.json").read_text(encoding="utf-8")))

    def _probes(self, probe: str | None) -> list[str]:
        measured = list(self.provenance["probes"])
        if probe is not None and probe not in measured:
            raise InputError(f"probe {probe!r} was not measured; there are {', '.join(map(repr, measured))}")
        return measured if probe is None else [probe]


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
        probes: names of probes; by default all that corpus and pivot allow.
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
    chosen = _chosen(probes, examples, pivot)
    tokenizers = _tokenizers(models, tokenizer)
    check_draws(draws, seed)
    check_settings(**settings)
    if store is not None:
        check_writable(Path(store))
    for name, model in models.items():
        if isinstance(model, str | Path):
            config, own = check_checkpoint(model, allow_pickle=allow_pickle)
            check_length(settings.get("max_length"), getattr(config, "max_position_embeddings", None), own)
        elif isinstance(model, PreTrainedModel):
            check_fit(embedding_rows(model), tokenizers[name], name)

    measured: dict[str, dict[str, xr.Dataset]] = {}
    representations: dict[str, xr.Dataset] = {}
    for name, model in models.items():
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
        measured[name] = {probe: _measure(probe, reps, pivot, draws, seed) for probe in chosen}
    table = pd.concat(
        [
            _rows(measured[name][probe], None if name == baseline else measured[baseline][probe])
            for name in models
            for probe in chosen
        ],
        ignore_index=True,
    )
    return Comparison(
        table[COLUMNS],
        _provenance(measured, representations, corpus, baseline, pivot, draws, seed),
        representations,
    )


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where a folder cannot be written to, or holds a comparison that was not to be overwritten."""
    if (folder / "comparison.csv").exists() and not overwrite:
        raise InputError(
            f"{folder} already holds a run. Choose another folder, or replace it with overwrite=True (--overwrite)"
        )
    check_writable(folder)


def _examples(
    corpus: datasets.Dataset | None, captured: dict[str, xr.Dataset], models: Mapping[str, Model]
) -> pd.DataFrame:
    """The id, language and label of every example, the same for every model."""
    columns = ["id", "language", "label"]
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
        keys = [c for c in frame if c in other]
        if not frame[keys].equals(other[keys]):
            raise InputError(
                f"model {name!r}: its Representations hold other examples (id, language, label) than the others, or "
                "the same in another order. Capture all models on one corpus"
            )
    return frame


def _chosen(probes: Sequence[str] | None, examples: pd.DataFrame, pivot: str | None) -> list[str]:
    """The probes to measure, checked against the corpus; those that it does not allow are left out and named."""
    if probes is not None and (isinstance(probes, str) or not probes):
        raise InputError(f"probes={probes!r}: expected a list of names, out of {', '.join(PROBES)}")
    unknown = [p for p in probes or () if p not in PROBES]
    if unknown:
        raise InputError(f"unknown probe {', '.join(map(repr, unknown))}; there are {', '.join(PROBES)}")
    chosen = list(dict.fromkeys(probes or PROBES))
    lacking: dict[str, Collection[str]] = {
        "labels": OF_LABELS if "label" not in examples else (),
        "pivot": OF_ALIGNMENT if pivot is None else (),
    }
    for what, needs in lacking.items():
        left_out = [p for p in chosen if p in needs]
        fix = "a corpus with a column 'label'" if what == "labels" else "pivot=... (--pivot), a language of the corpus"
        if left_out and probes:
            raise InputError(f"{', '.join(left_out)} cannot be measured without {what}. Give {fix}")
        if left_out:
            warnings.warn(f"no {what}: {', '.join(left_out)} left out", LayerscopeWarning, stacklevel=3)
        chosen = [p for p in chosen if p not in needs]
    if not chosen:
        raise InputError("no probe is left to measure: give labels, or a pivot, or both")
    if any(p in OF_LABELS for p in chosen):
        _check_labels(examples)
    if pivot is not None:
        for probe in [p for p in chosen if p in OF_ALIGNMENT]:
            check_pivot(examples["id"].to_numpy(), examples["language"].to_numpy(), pivot, probe)
    return chosen


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


def _measure(probe: str, reps: xr.Dataset, pivot: str | None, draws: int, seed: int) -> xr.Dataset:
    if probe in OF_LABELS:
        return OF_LABELS[probe](reps, draws=draws, seed=seed)
    assert pivot is not None  # _chosen has left these probes out
    return OF_ALIGNMENT[probe](reps, pivot=pivot, draws=draws, seed=seed)


def _rows(result: xr.Dataset, baseline: xr.Dataset | None) -> pd.DataFrame:
    wide = result[["value", "low", "high", "n"]]
    if baseline is not None:
        gap = difference(result, baseline).rename(low="difference_low", high="difference_high")
        wide = xr.merge([wide, gap], join="left", compat="override")
    frame = wide.to_dataframe(dim_order=["language", "layer"]).reset_index()
    frame["model"], frame["probe"] = result.attrs["model"], result.attrs["probe"]
    return frame.reindex(columns=COLUMNS)


def _provenance(
    measured: dict[str, dict[str, xr.Dataset]],
    representations: dict[str, xr.Dataset],
    corpus: datasets.Dataset | None,
    baseline: str,
    pivot: str | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    about = ("estimator", "range", "higher_is", "invariant_to", "paper")
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
            probe: {k: result.attrs[k] for k in (*about, "interval")} for probe, result in measured[baseline].items()
        },
        "corpus": {
            "languages": {
                language: {"texts": int(row["texts"]), "example": row["example"]} for language, row in sizes.iterrows()
            },
            "cautions": [] if corpus is None else cautions(corpus),
        },
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
    }
