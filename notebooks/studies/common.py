"""What the studies share: models measured alike, runs that are kept, claims that are held against intervals."""

from __future__ import annotations

import probes.silence  # isort: skip
import importlib.util
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import joblib
import numpy as np
import pandas as pd
import torch
import transformers
import xarray as xr
from scipy import stats
from tqdm.auto import tqdm
from transformers import BertForSequenceClassification, PreTrainedModel

import probes
from probes.files import write_whole
from probes.models.fingerprint import weights_fingerprint
from probes.silence import quiet

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEEDS = (0, 1, 2)


@cache
def bundled() -> tuple[PreTrainedModel, Any]:
    """The bundled model, fine-tuned on English, and its tokenizer."""
    return probes.load_checkpoint("bundled")


@cache
def corpus(split: str, *languages: str) -> datasets.Dataset:
    """A split of the bundled corpus."""
    return probes.load_corpus("bundled", split=split, languages=list(languages) or None)


@cache
def states_before() -> xr.Dataset:
    """What the bundled model makes of the test split."""
    return probes.capture(*bundled(), corpus("test"), progress=False)


def pretrained(folder: Path, steps: int | None = None) -> PreTrainedModel:
    """The bundled model as it was before fine-tuning, with a new head; built once, in about five minutes.

    In fewer steps of its encoder than it was made in, where they are given, in as much less time.
    """
    kept = folder / "pretrained"
    if not kept.exists():
        # data/ holds files, it is no package.
        spec = importlib.util.spec_from_file_location("model", ROOT / "data" / "rebuild" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        build.STEPS = build.STEPS if steps is None else steps
        model, tokenizer = bundled()
        encoder = build.pretrain(tokenizer, corpus("train")).bert
        torch.manual_seed(0)
        new = BertForSequenceClassification(model.config)
        new.bert.load_state_dict(encoder.state_dict(), strict=False)  # all but the pooler, which is new
        partial = kept.with_name("pretrained.partial")
        new.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(kept)
    return probes.load_checkpoint(kept)[0]


@torch.inference_mode()
def english_accuracy(model: PreTrainedModel) -> dict[str, float]:
    """Accuracy on the English dev split, quickly: what recovery is measured by."""
    _, tokenizer = bundled()
    rows = corpus("dev", "en")
    inputs = tokenizer(list(rows["text"]), padding=True, return_tensors="pt")
    classes = np.array(list(model.config.id2label.values()))
    return {"accuracy": float((classes[model(**inputs).logits.argmax(-1)] == np.array(rows["label"])).mean())}


def measure(model: PreTrainedModel) -> dict[str, float]:
    """Measure a model on the test split: the task, the classes in its last states, the alignment of languages."""
    reps = states_of(model)
    out = measures_of(reps)
    last = {"layer": int(reps.layer[-1])}
    moved = 1 - probes.drift(states_before(), reps, draws=2).value.sel(last).sel(measure="cosine_to_baseline")
    zero_shot = out.pop("accuracy zero-shot")
    return out | _by_training("drift", moved) | {"accuracy zero-shot": zero_shot}


def states_of(model: PreTrainedModel) -> xr.Dataset:
    """What a model makes of the test split."""
    return probes.capture(model, bundled()[1], corpus("test"), progress=False)


def measures_of(reps: xr.Dataset) -> dict[str, float]:
    """Measure what a model of any depth makes of the test split: all but how far its states moved."""
    last, fewest = {"layer": int(reps.layer[-1])}, {"draws": 2}
    out: dict[str, float] = {}
    accuracy = probes.accuracy(reps, **fewest).value
    out |= {f"accuracy {language}": float(accuracy.sel(language=language)) for language in accuracy.language.values}
    out |= _by_training("snr", probes.snr(reps, **fewest).value.sel(last))
    separability = probes.class_separability(reps, self_pairs=True, **fewest).value  # as in the paper
    out |= _by_training("separability", separability.sel(last))
    for name, probe in (("retrieval", probes.retrieval), ("alignment gap", probes.alignment_gap)):
        out[name] = float(probe(reps, pivot="en", **fewest).value.sel(last).sel(language="pooled"))
    loyal = probes.loyalty(states_before(), reps, **fewest).value
    out |= _by_training("loyalty", loyal.sel(measure="probability_loyalty"))
    out |= _by_training("label loyalty", loyal.sel(measure="label_loyalty"))
    return out | {"accuracy zero-shot": _by_training("accuracy", accuracy)["accuracy zero-shot"]}


def _by_training(name: str, value: xr.DataArray) -> dict[str, float]:
    """A number for the language with labels, and the mean over those without."""
    zero_shot = float(value.drop_sel(language=["en", "pooled"]).mean())
    return {f"{name} en": float(value.sel(language="en")), f"{name} zero-shot": zero_shot}


def file_of(folder: Path, setting: Mapping[str, Any]) -> Path:
    """Where a run of these settings is kept: a name that every file system takes."""
    return folder / (re.sub(r'[/\\:*?"<>|]', "_", "-".join(map(str, setting.values()))) + ".json")


def runs(
    make: Callable[..., dict[str, Any]], settings: Iterable[Mapping[str, Any]], folder: Path, name: str
) -> pd.DataFrame:
    """Make every run that is not there yet, as many at once as there are cores, and return all as one table.

    Each run is kept in a file of its own, so that a study that was interrupted goes on.
    """
    settings = list(settings)
    folder.mkdir(parents=True, exist_ok=True)
    files = [file_of(folder, s) for s in settings]

    def one(given: Mapping[str, Any], file: Path) -> None:
        # A core each: two threads make a small model little faster.
        torch.set_num_threads(1)
        with quiet():
            found = make(**given)
        write_whole(file, json.dumps({**given, **found}) + "\n")

    missing = [(s, f) for s, f in zip(settings, files, strict=True) if not f.exists()]
    cores = min(os.cpu_count() or 1, max(1, len(missing)))
    done = joblib.Parallel(n_jobs=cores, return_as="generator_unordered")(joblib.delayed(one)(*m) for m in missing)
    for _ in tqdm(done, total=len(missing), desc=name, unit="run"):
        pass
    return pd.DataFrame([json.loads(f.read_text(encoding="utf-8")) for f in files])


def paired(
    table: pd.DataFrame, value: str, one: Mapping[str, Any], other: Mapping[str, Any], over: str = "seed"
) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t over seeds) of a value in `one` runs minus the same in `other` ones.

    Runs of the same seed are compared; where there are several, as of several sparsities, by their means.
    """
    means = [table[(table[list(s)] == pd.Series(s)).all(axis=1)].groupby(over)[value].mean() for s in (one, other)]
    return interval((means[0] - means[1]).dropna())


def interval(values: pd.Series) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t) of one number a seed."""
    mean, error = float(values.mean()), float(stats.sem(values)) if len(values) > 1 else np.nan
    half = float(stats.t.ppf(0.975, max(len(values) - 1, 1))) * error
    return mean, mean - half, mean + half


def verdict(low: float, high: float) -> str:
    """What an interval of a claimed gain says of the claim."""
    return "confirmed" if low > 0 else "contradicted" if high < 0 else "not confirmed"


def written(study: str, text: str, *tables: pd.DataFrame) -> int:
    """Write what came out of a study beside it, and print what its claims came to."""
    (HERE / f"{study}.md").write_text(text, encoding="utf-8")
    for table in tables:
        print(markdown(table))
    return 0


def steps(count: int) -> str:
    """How long a training was, in words."""
    return f"{count} steps of 32 sentences"


def seeds() -> str:
    """The seeds of the trainings, in words."""
    return f"seeds {', '.join(map(str, SEEDS))}"


def provenance(**more: Any) -> str:
    """Where numbers come from, as lines of Markdown."""
    model, _ = bundled()
    lines = {
        "model": f"bundled, weights {weights_fingerprint(model)}",
        "corpus": f"bundled, {len(corpus('train', 'en')):,} English sentences of its train split to train on, "
        f"{len(corpus('test')):,} sentences of its test split to measure",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, numpy {np.__version__}",
        **more,
    }
    return "".join(f"- {key}: {value}\n" for key, value in lines.items())


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A table as Markdown."""
    cells = table.map(lambda v: f"{round(v, digits) + 0.0:.{digits}f}" if isinstance(v, float) else str(v))
    rows = [list(cells.columns), ["---"] * cells.shape[1], *cells.to_numpy().tolist()]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
