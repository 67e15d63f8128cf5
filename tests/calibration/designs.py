"""Planted data sets: their truth is known, and there are as many of them as one wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from calibration.sampled import Models, Population
from planted import in_groups, planted

import probes
from probes.measures import catalogue

LARGE_IDS = 3000  # of the data set that stands for all there is
TRAIN = 120  # ids that linear probes are trained on


@dataclass(frozen=True)
class Design(Population):
    """Planted states and two noisy copies of them, as compressed models would have.

    Attributes:
        make: states from a generator, ids, layers and the settings.
        settings: what make leaves out are its defaults.
        noise: of the copies, in units of the spread of one feature.
        trained: some ids are there to train on; the truth is each data set's own, that of very many to test on.
        predicting: the models predict the class, from the features along which the classes differ.
    """

    make: Callable[..., xr.Dataset] = planted
    settings: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.5
    trained: bool = False
    predicting: bool = False

    def draw(self, rng: np.random.Generator, ids: int, alike: int) -> tuple[Models, Models | None]:
        """Give so many sentences, and the same with many more to test on where that is the truth."""
        if not self.trained:
            return self._models(rng, ids, alike, self.at_once), None
        more = [_split(reps) for reps in self._models(rng, TRAIN + LARGE_IDS, alike, self.at_once)]
        few = more[0].id.values.astype(int) < TRAIN + ids
        return tuple(reps.isel(example=few) for reps in more), tuple(more)  # type: ignore[return-value]

    def whole(self) -> Models:
        """Give a data set that is so large that its value is that of all there is."""
        return self._models(np.random.default_rng(0), LARGE_IDS, 1, 4)

    def _models(self, rng: np.random.Generator, ids: int, alike: int, layers: int) -> Models:
        base = self.make(rng, ids=ids, layers=layers, alike=alike, **self.settings)
        noisy = [base.assign(hidden=base.hidden + self.noise * rng.normal(size=base.hidden.shape)) for _ in range(2)]
        models = [base, *noisy]
        if self.predicting:
            models = [_predicting(reps) for reps in models]
        if alike > 1:
            # A group is not spread over the classes: a document has a topic.
            groups = np.char.add("g", (base.id.values.astype(int) // alike).astype(str))
            models = [reps.assign_coords(group=("example", groups.astype(object))) for reps in models]
        return tuple(models)  # type: ignore[return-value]


def _predicting(reps: xr.Dataset) -> xr.Dataset:
    classes = np.unique(reps.label.values)
    logits = reps.hidden.values[0, :, : len(classes)]
    return reps.assign(logits=(("example", "class"), logits)).assign_coords({"class": classes})


def _split(reps: xr.Dataset) -> xr.Dataset:
    train = reps.id.values.astype(int) < TRAIN
    return reps.assign_coords(split=("example", np.where(train, "train", "test").astype(object)))


def states(
    rng: np.random.Generator,
    *,
    ids: int,
    layers: int = 1,
    alike: int = 1,
    features: int = 384,
    decay: float = 0.0,
    lengths: float = 0.0,
    empty: float = 0.0,
    languages: int = 1,
    shared: float = 0.95,
) -> xr.Dataset:
    """Normal states without classes, whose variance falls over the features as 1 / k ** decay.

    Their lengths vary by exp of a normal of standard deviation `lengths`; the last `empty` of the features are 0;
    translations share so much of their variance. Of `alike` sentences in a row, half of the variance is the same.
    """
    noise = np.sqrt(spectrum(features=features, decay=decay, empty=empty))
    made = []
    for _ in range(layers):
        sentence = noise * in_groups(rng, ids, features, alike)
        own = [noise * rng.normal(size=(ids, features)) for _ in range(languages)] if languages > 1 else [0.0]
        part = shared if languages > 1 else 1.0
        made.append(np.concatenate([np.sqrt(part) * sentence + np.sqrt(1 - part) * x for x in own]))
    hidden = np.stack(made)
    if lengths:
        hidden = hidden * np.exp(lengths * rng.normal(size=(layers, ids * languages, 1)))
    return probes.from_arrays(
        hidden,
        id=np.tile(np.arange(ids), languages),
        language=np.repeat([f"l{k}" for k in range(languages)], ids),
    )


def spectrum(features: int = 384, decay: float = 0.0, empty: float = 0.0, **_: float) -> np.ndarray:
    """Give the eigenvalues of the covariance of `states`, up to a common scale."""
    k = np.arange(1, features + 1)
    return np.where(k > features - round(empty * features), 0.0, k**-decay)


SPARSE = ("sparse_probe", "sparse_probe_in_language", "sparse_probe_pivot_support", "sparse_probe_features")
GAINS = ("gain_over_linear", "gain_over_linear_in_language")
PLAIN = "4 classes well apart"
STEEP = "variance falls as 1 / k^3"  # nearly all spread lies along one direction
OF_CLASSES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "variance falls as 1 / k": {"decay": 1.0, "features": 32},
    "6 classes": {"classes": 6},
}
OF_TRANSLATIONS: dict[str, dict[str, Any]] = {
    "translations share 0.7 of their variance": {},
    "translations share 0.5": {"shared": 0.5},
    "12 features": {"features": 12},
}
OF_PAIRS: dict[str, dict[str, Any]] = {
    "noise of half the spread": {"noise": 0.5},
    "noise as large as the spread, variance falls as 1 / k": {
        "noise": 1.0,
        "settings": {"decay": 1.0, "features": 32},
    },
}
OF_STATES: dict[str, dict[str, Any]] = {
    "variance falls as 1 / k": {"features": 32, "languages": 2, "shared": 0.7, "decay": 1.0},
    "equal variance": {"features": 32, "languages": 2, "shared": 0.7},
    "variance falls as 1 / k in 64 features": {"features": 64, "decay": 1.0},
    "lengths vary widely": {"features": 32, "lengths": 0.5},
}


def designs() -> Iterator[Design]:
    """Give all designs, each with the probes whose intervals are counted on it."""
    family = catalogue.families()
    of_classes = ("class_separability", "variability", "snr")
    of_translations = ("retrieval", "margin_retrieval", "alignment_gap")
    for words, settings in OF_CLASSES.items():
        yield Design(words, of_classes, settings=settings)
    yield Design(STEEP, ("variability",), settings={"decay": 3.0, "features": 32})
    for words, settings in OF_TRANSLATIONS.items():
        yield Design(words, of_translations, settings=settings)
    for words, settings in OF_STATES.items():
        yield Design(words, family["geometry"], make=states, settings=settings, sets=200, at_once=5)
    for words, given in OF_PAIRS.items():
        yield Design(words, family["drift"], **given)
        yield Design(words, family["similarity"], sets=100, at_once=5, **given)
    for distance in (3.0, 5.0):
        yield Design(
            f"classes {distance:.0f} apart, noise as large as the spread",
            ("accuracy", *family["loyalty"]),
            settings={"distance": distance},
            noise=1.0,
            predicting=True,
            at_once=1,
        )
    for distance in (1.0, 2.5, 4.0):
        yield Design(
            f"classes {distance:g} apart, of {TRAIN} to train on",
            ("linear_probe", "linear_probe_in_language", "kernel_probe", "kernel_probe_in_language", *GAINS, *SPARSE),
            settings={"distance": distance},
            trained=True,
            sets=50,
        )
