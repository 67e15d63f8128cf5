"""Simulations of what intervals hold, and of how far estimates are from the truth: the tests and the tables share them.

`CASES` are the designs whose coverage the reference pages state; `make study-coverage` writes their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from planted import planted
from scipy import stats

import probes
from probes.measures import catalogue
from probes.measures.probe import LARGE

# Data sets of a design share their draws, so many at once: each is a layer of its own.
SETS, AT_ONCE = 400, 10


@dataclass(frozen=True)
class Case:
    """A probe, or a family that is measured at once, and a design of data sets.

    Attributes:
        page: the reference page that states what comes out, as its module is named.
        names: of the probes whose intervals are counted.
        words: the design in words.
        measure: the probe on data, with the arguments draws and seed.
        make: data from a generator, `layers` and the settings.
        settings: of the design; `ids` among them, and what make leaves out are its defaults.
        sets, at_once: data sets, and how many of them share their draws.
        large: ids of the large sample where the interval is for its value.
        trained: make gives the data and, beside it, much of the same to test on: the truth is each data set's own.
    """

    page: str
    names: tuple[str, ...]
    words: str
    measure: Callable[..., xr.Dataset]
    make: Callable[..., Any] = planted
    settings: Mapping[str, Any] = field(default_factory=dict)
    sets: int = SETS
    at_once: int = AT_ONCE
    large: int = 3000
    trained: bool = False

    @property
    def n(self) -> int:
        """How many sentences a language has that count."""
        return int(self.settings.get("test", self.settings.get("ids", 120)))


def coverage(case: Case) -> xr.DataArray:
    """Give the share of data sets (measure, language) whose 95 % interval holds what it is for."""
    held, truth = [], None if case.trained else true_values(case)
    for seed in range(case.sets // case.at_once):
        data = case.make(np.random.default_rng(1000 + seed), layers=case.at_once, **case.settings)
        if case.trained:
            data, more = data
            truth = by_measure(case.measure(more, draws=2, seed=seed)).value
        out = by_measure(case.measure(data, draws=200, seed=seed))
        held.append((out.low <= truth) & (truth <= out.high))
    found = xr.concat(held, "set")
    return found.mean([dim for dim in ("set", "layer") if dim in found.dims])


def true_values(case: Case) -> xr.DataArray:
    """Give what the intervals are for, as the probes declare it: in a large sample, or on average at this size."""
    about = catalogue.by_name()

    def small(seed: int) -> xr.DataArray:
        data = case.make(np.random.default_rng(seed), layers=2 * case.at_once, **case.settings)
        return _mean(case.measure(data, draws=2, seed=0))

    first = small(0)
    of_large = xr.DataArray([about[name].interval.startswith(LARGE) for name in first.measure.values], dims="measure")
    mean = first if of_large.all() else xr.concat([first, *map(small, range(1, 30))], "set").mean("set")
    if not of_large.any():
        return mean
    settings = {**case.settings, "ids": case.large}
    large = case.make(np.random.default_rng(0), layers=4, **settings)
    return xr.where(of_large, _mean(case.measure(large, draws=2, seed=0)), mean)


def _mean(out: xr.Dataset) -> xr.DataArray:
    value = by_measure(out).value
    return value.mean("layer") if "layer" in value.dims else value


def by_measure(out: xr.Dataset) -> xr.Dataset:
    """Give a result the dimension `measure`, with the name of the probe where it is one."""
    if "measure" in out.dims:
        return out
    return out.expand_dims(measure=[out.attrs["probe"]])


# What is simulated.


def states(
    rng: np.random.Generator,
    *,
    ids: int,
    layers: int = 1,
    features: int = 384,
    decay: float = 0.0,
    lengths: float = 0.0,
    empty: float = 0.0,
    languages: int = 1,
    shared: float = 0.95,
) -> xr.Dataset:
    """Normal states without classes, whose variance falls over the features as 1 / k ** decay.

    Their lengths vary by exp of a normal of standard deviation `lengths`; the last `empty` of the features are 0;
    translations share so much of their variance.
    """
    noise = np.sqrt(spectrum(features=features, decay=decay, empty=empty))
    made = []
    for _ in range(layers):
        sentence = noise * rng.normal(size=(ids, features))
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


def pairs(rng: np.random.Generator, *, noise: float, **design: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Planted states, and a noisy copy of them as a compressed model would have."""
    base = planted(rng, **design)
    return base, base.assign(hidden=base.hidden + noise * rng.normal(size=base.hidden.shape))


def predictions(rng: np.random.Generator, *, layers: int, noise: float = 1.0, **design: Any) -> list[xr.Dataset]:
    """Two models that predict from planted states and so are sometimes wrong; a data set each, for there are no layers.

    Their logits are the features along which the classes differ.
    """
    base, other = pairs(rng, noise=noise, layers=1, **design)
    classes = np.unique(base.label.values)
    return [
        reps.assign(logits=(("example", "class"), reps.hidden.values[0, :, : len(classes)])).assign_coords(
            {"class": classes}
        )
        for reps in (base, other)
    ]


def to_test(rng: np.random.Generator, *, test: int, train: int = 120, **design: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Planted states with some ids to train on and so many to test on; and the same with 3,000 to test on."""
    reps = planted(rng, ids=train + 3000, **design)
    ids = reps.id.values.astype(int)
    reps = reps.assign_coords(split=("example", np.where(ids < train, "train", "test").astype(object)))
    return reps.isel(example=np.flatnonzero(ids < train + test)), reps


def _to_pivot(probe: Callable[..., xr.Dataset]) -> Callable[..., xr.Dataset]:
    return lambda reps, **given: probe(reps, pivot="l0", **given)


def _both(probe: Callable[..., xr.Dataset]) -> Callable[..., xr.Dataset]:
    return lambda pair, **given: probe(*pair, **given)


def _alike(measure: str) -> Callable[..., xr.Dataset]:
    def measured(pair: tuple[xr.Dataset, xr.Dataset], **given: int) -> xr.Dataset:
        # Each layer with its own noisy copy, not with another data set.
        x, y = pair
        at = [{"layer": [k]} for k in range(x.sizes["layer"])]
        found = [probes.similarity(x.isel(k), y.isel(k), measure=measure, **given) for k in at]
        return xr.concat([one.isel(other_layer=0, drop=True) for one in found], "layer")

    return measured


def _trained(reps: xr.Dataset, **given: int) -> xr.Dataset:
    out = probes.linear_probe(reps, pivot="l0", progress=False, **given)
    return out.sel(measure=[*TRAINED])


def _accuracy(two: list[xr.Dataset], **given: int) -> xr.Dataset:
    return probes.accuracy(two[0], **given)


# What is trained on the true labels: the other two hold what other shuffles would change, too.
TRAINED = ("linear_probe", "linear_probe_in_language")
PLAIN = "4 classes well apart"
STEEP = "variance falls as 1 / k^3"  # nearly all spread lies along one direction
OF_CLASSES = {
    PLAIN: {},
    "variance falls as 1 / k": {"decay": 1.0, "features": 32},
    "6 classes": {"classes": 6, "ids": 150},
}
OF_VARIABILITY = OF_CLASSES | {STEEP: {"decay": 3.0, "features": 32}}
OF_TRANSLATIONS = {
    "translations share 0.7 of their variance": {},
    "translations share 0.5": {"shared": 0.5},
    "12 features": {"ids": 60, "features": 12},
}
OF_PAIRS = {
    "noise of half the spread": {"noise": 0.5},
    "noise as large as the spread, variance falls as 1 / k": {"noise": 1.0, "decay": 1.0, "features": 32, "ids": 60},
}
OF_TESTS = {
    "classes 1 apart": {"test": 60, "distance": 1.0},
    "classes 2.5 apart": {"test": 30, "distance": 2.5},
    "classes 2.5 apart, more to test": {"test": 360, "distance": 2.5},
    "classes 4 apart": {"test": 120, "distance": 4.0},
}
OF_PREDICTIONS = {"classes 3 apart": {"distance": 3.0}, "classes 5 apart": {"distance": 5.0}}
OF_STATES = {
    "equal variance": {"ids": 100, "features": 32, "languages": 2, "shared": 0.7},
    "variance falls as 1 / k": {"ids": 100, "features": 32, "languages": 2, "shared": 0.7, "decay": 1.0},
    "variance falls as 1 / k, few sentences": {"ids": 50, "features": 64, "decay": 1.0},
    "lengths vary widely": {"ids": 100, "features": 32, "lengths": 0.5},
}


def _cases() -> Iterator[Case]:
    family = catalogue.families()
    classes, languages = "probes.measures.classes", "probes.measures.languages"
    fidelity, space = "probes.measures.fidelity", "probes.measures.space"
    for words, settings in OF_CLASSES.items():
        yield Case(
            f"{classes}.class_separability",
            ("class_separability",),
            words,
            probes.class_separability,
            settings=settings,
        )
        yield Case(f"{classes}.snr", ("snr",), words, probes.snr, settings=settings)
    for words, settings in OF_VARIABILITY.items():
        yield Case(f"{classes}.variability", ("variability",), words, probes.variability, settings=settings)
    for words, settings in OF_TRANSLATIONS.items():
        for probe in (probes.retrieval, probes.margin_retrieval, probes.alignment_gap):
            name = probe.__name__
            yield Case(f"{languages}.{name}", (name,), words, _to_pivot(probe), settings=settings)
    for words, settings in OF_TESTS.items():
        trained = {"make": to_test, "settings": settings, "sets": 50, "trained": True}
        yield Case(f"{classes}.linear_probe", TRAINED, words, _trained, **trained)
    for words, settings in OF_STATES.items():
        of_states = {"make": states, "settings": settings, "sets": 200, "at_once": 5}
        yield Case(f"{space}.geometry", family["geometry"], words, probes.geometry, **of_states)
    for words, settings in OF_PAIRS.items():
        yield Case(f"{fidelity}.drift", family["drift"], words, _both(probes.drift), make=pairs, settings=settings)
        for measure in family["similarity"]:
            alike = {"make": pairs, "settings": settings, "sets": 100, "at_once": 2}
            yield Case(f"{fidelity}.similarity", (measure,), words, _alike(measure), **alike)
    for words, settings in OF_PREDICTIONS.items():
        at_output = {"make": predictions, "settings": settings, "at_once": 1}
        yield Case(f"{fidelity}.accuracy", ("accuracy",), words, _accuracy, **at_output)
        yield Case(f"{fidelity}.loyalty", family["loyalty"], words, _both(probes.loyalty), **at_output)


CASES = tuple(_cases())


# How far estimates of dimensions are from the truth, in 384 features.
DIMENSIONS = {
    "equal variance": {},
    "variance falls as 1 / k^0.5": {"decay": 0.5},
    "variance falls as 1 / k": {"decay": 1.0},
    "variance falls as 1 / k, lengths vary widely": {"decay": 1.0, "lengths": 0.5},
    "equal variance in half of the features, none in the others": {"empty": 0.5},
    "variance falls as 1 / k, pooled with translations that share 0.95": {"decay": 1.0, "languages": 2},
}
ESTIMATED_FROM = (50, 100, 300)
ESTIMATED_SETS = 20


def estimates(settings: Mapping[str, Any], ids: int, sets: int) -> dict[str, float]:
    """Give mean estimates over the truth: of both ranks, of what the sample's own covariance has, and of TwoNN."""
    reps = states(np.random.default_rng(0), ids=ids, layers=sets, **settings)
    found = probes.geometry(reps, draws=2).value.sel(language="pooled").mean("layer", skipna=False)
    truth = spectrum(**settings)
    plain = [np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 for x in reps.hidden.values]
    return {
        "effective rank": float(found.sel(measure="effective_rank")) / _effective(truth),
        "effective rank, plain": float(np.mean([_effective(x) for x in plain])) / _effective(truth),
        "participation ratio": float(found.sel(measure="participation_ratio")) / _participation(truth),
        "participation ratio, plain": float(np.mean([_participation(x) for x in plain])) / _participation(truth),
        "intrinsic dimension": float(found.sel(measure="intrinsic_dimension")) / np.count_nonzero(truth),
    }


def _effective(eigenvalues: np.ndarray) -> float:
    return float(np.exp(stats.entropy(eigenvalues / eigenvalues.sum())))


def _participation(eigenvalues: np.ndarray) -> float:
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
