"""Samples of a population: what intervals hold, how wide they are, how often they see a difference that is none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm as normal

import probes
from probes.measures import catalogue
from probes.measures.classes.labels import FEWEST, units_of_classes
from probes.measures.probe import LARGE, Run
from probes.results.draws import POOLED, sample
from probes.results.result import split_measures

Models = tuple[xr.Dataset, xr.Dataset, xr.Dataset]  # a baseline and two compressed copies of it
DRAWS = 200
NORMAL = 2 * float(normal.ppf(0.975))  # width of the interval of a normal value of standard deviation 1
# Where neighbours of one sentence are of the one model and of the other, what tells these apart depends on pairs of
# coins, which is of no first order in sentences, as nothing is that two models differ by.
NEAREST = ("neighbour_overlap",)
# These leave out classes with few texts, and are of the others.
OF_KEPT_CLASSES = ("class_separability", "snr", "fisher_ratio", "class_distance")
DIMS = ("set", "layer", "language")


@dataclass(frozen=True)
class Population:
    """What samples are drawn of.

    Attributes:
        words: what it is.
        names: of the probes whose intervals are counted on it.
        sets: samples.
        at_once: how many of them share their draws, each as a layer of its own; 0 where layers are layers.
        ids: sentences that there are.
    """

    words: str
    names: tuple[str, ...]
    sets: int = 200
    at_once: int = 10
    ids: float = float("inf")

    def draw(self, rng: np.random.Generator, ids: int, alike: int) -> tuple[Models, Models | None]:
        """Give so many sentences, of which so many are of one group.

        Where the truth is each sample's own, beside it what its value is measured on.
        """
        raise NotImplementedError

    def whole(self) -> Models:
        """Give all that there is, or so much that more would make no difference."""
        raise NotImplementedError


def outcomes(population: Population, names: Iterable[str], ids: int, alike: int, seed: int) -> dict[str, xr.Dataset]:
    """Draw samples that share a seed, and measure: probe -> all that `counted` needs, over `DIMS`.

    `value, low, high` of the baseline, or of a copy against it; `difference` (with its ends) from one to the next of
    the models; `rejected`, and `rejected_any` at some layer, where nothing differs: see `swapped` and `noisy`.
    """
    rng = np.random.default_rng(1000 + seed)
    models, more = population.draw(rng, ids, alike)
    names = list(names)
    one, two = _both(models, names, seed)
    first, second = _alike(models, names, seed, rng)
    truths = None if more is None else _both(more, names, seed)
    out = {}
    for name in names:
        gap, null = probes.difference(two[name], one[name]), probes.difference(second[name], first[name])
        found = one[name][["value", "low", "high"]].assign(
            difference=gap.difference,
            difference_low=gap.low,
            difference_high=gap.high,
            rejected=((null.low > 0) | (null.high < 0)).where(null.difference.notnull()),
            rejected_any=(null.p_adjusted < 0.05).any([d for d in null.dims if d != "language"]),
        )
        if truths is not None:
            own, other = (which[name].value for which in truths)
            found = found.assign(truth=own, difference_truth=other - own)
        elif name in OF_KEPT_CLASSES and math.isfinite(population.ids):
            found = found.assign(of_kept_classes(population, name, models[0]))
        out[name] = found.expand_dims([d for d in DIMS if d not in found.dims]).reset_coords(drop=True)
        if population.at_once and "layer" in found.dims:
            out[name] = out[name].isel(set=0).rename(layer="set").expand_dims("layer")
    return out


def of_kept_classes(population: Population, name: str, reps: xr.Dataset) -> xr.Dataset:
    """Give `truth` and `difference_truth` of a sample: of all that there is of the classes that it has enough of."""
    drawn = sample(reps, draws=2, seed=0)
    truths = []
    for group in [*drawn.languages, POOLED]:
        enough = np.flatnonzero(units_of_classes(drawn, drawn.group(group)) >= FEWEST)
        classes = tuple(str(drawn.classes[k]) for k in enough)
        if len(classes) > 1:
            truths.append(_among(population, name, classes).sel(language=[group]))
    return xr.concat(truths, "language") if truths else xr.Dataset({"truth": np.nan, "difference_truth": np.nan})


@cache
def _among(population: Population, name: str, classes: tuple[str, ...]) -> xr.Dataset:
    """The value of a probe, and its difference to the first copy, in the whole of some classes."""
    whole = population.whole()
    rows = np.isin(whole[0].label.values.astype(str), classes)
    few: Models = tuple(reps.isel(example=rows) for reps in whole)  # type: ignore[assignment]
    one, two = (found[name].value.reset_coords(drop=True) for found in _both(few, [name], 0))
    return xr.Dataset({"truth": one, "difference_truth": two - one})


def _both(models: Models, names: list[str], seed: int, copies: bool = False) -> list[dict[str, xr.Dataset]]:
    """The baseline and the first copy, or both copies; of what compares with the baseline both copies."""
    compares = {name: probe.compares for name, probe in catalogue.by_name().items()}
    alone = [name for name in names if not compares[name]]
    beside = [name for name in names if compares[name]]
    found = [measured(alone, reps, None, seed) for reps in (models[1:] if copies else models[:2])]
    return [which | measured(beside, reps, models[0], seed) for which, reps in zip(found, models[1:], strict=True)]


def measured(names: list[str], reps: xr.Dataset, base: xr.Dataset | None, seed: int) -> dict[str, xr.Dataset]:
    """Measure as `compare` does: what gives several probes is called once, maps of layers on their diagonal alone."""
    languages = pd.unique(reps.language.values)
    run = Run(
        reps,
        sample(reps, draws=DRAWS, seed=seed),
        base=base,
        pivot=str(languages[0]) if len(languages) > 1 else None,
        seed=seed,
        progress=False,
    )
    known = catalogue.by_name()
    found: dict[str, xr.Dataset] = {}
    for measure in dict.fromkeys(known[name].measure for name in names):
        maps = any(known[name].family == "similarity" for name in names if known[name].measure is measure)
        found |= split_measures(_diagonal(measure, run) if maps else measure(run))
    return {name: found[name] for name in names}


def _diagonal(measure: Any, run: Run) -> xr.Dataset:
    assert run.base is not None
    at = [{"layer": [k]} for k in range(run.reps.sizes["layer"])]
    each = [measure(Run(run.reps.isel(k), run.sample, base=run.base.isel(k), seed=run.seed)) for k in at]
    return xr.concat([one.isel(other_layer=0, drop=True) for one in each], "layer", combine_attrs="override")


def _alike(models: Models, names: list[str], seed: int, rng: np.random.Generator) -> list[dict[str, xr.Dataset]]:
    """What is measured of two models that do not differ."""
    near = [name for name in names if name in NEAREST]
    copies = {"far": swapped(models[1], models[2], rng), "near": noisy(models[0], models[2], rng)}
    parts = [(copies["far"], [name for name in names if name not in near]), (copies["near"], near)]
    found = [_both((models[0], *pair), which, seed, copies=True) for pair, which in parts if which]
    return [{k: v for part in found for k, v in part[i].items()} for i in range(2)]


def noisy(base: xr.Dataset, other: xr.Dataset, rng: np.random.Generator) -> tuple[xr.Dataset, xr.Dataset]:
    """Two copies of a model with noise of their own, as large as what sets another model apart, layer by layer."""
    size = np.sqrt(np.square(other.hidden - base.hidden).mean(["example", "feature"]))
    noise = [base.hidden.copy(data=rng.normal(size=base.hidden.shape).astype(np.float32)) for _ in range(2)]
    return tuple(base.assign(hidden=base.hidden + x * size) for x in noise)  # type: ignore[return-value]


def swapped(one: xr.Dataset, other: xr.Dataset, rng: np.random.Generator) -> tuple[xr.Dataset, xr.Dataset]:
    """Let two models change places by a coin for each sentence, or group of them."""
    of, _ = pd.factorize(one["group" if "group" in one.coords else "id"].values)
    coin = xr.DataArray((rng.random(of.max() + 1) < 0.5)[of], dims="example")
    states = [name for name in ("hidden", "logits") if name in one]
    return (
        one.assign({name: xr.where(coin, other[name], one[name]).transpose(*one[name].dims) for name in states}),
        other.assign({name: xr.where(coin, one[name], other[name]).transpose(*one[name].dims) for name in states}),
    )


def large_values(population: Population, names: Iterable[str]) -> dict[str, xr.Dataset]:
    """Give `value` and `difference` in all that there is, of the probes whose intervals are for that."""
    about = catalogue.by_name()
    names = [name for name in names if about[name].interval == LARGE]
    if not names:
        return {}
    one, two = _both(population.whole(), names, 0)
    out = {}
    for name in names:
        values = xr.Dataset({"value": one[name].value, "difference": two[name].value - one[name].value})
        if population.at_once and "layer" in values.dims:
            values = values.mean("layer")
        out[name] = values.reset_coords(drop=True)
    return out


def counted(population: Population, ids: int, found: xr.Dataset, truth: xr.Dataset | None) -> dict[str, float]:
    """Count, over samples: shares that hold the truth, widths over what they have to be, rejections of what is true.

    Without a truth it is the mean over the samples; of what leaves out classes it is each sample's own, of the others.
    Samples of a finite population, drawn without repetition, lie closer to each other than of one without end; each is
    taken as far from their mean as it would lie there, interval and all.

    Returns:
        Of all layers and languages the mean, the least and the most: `holds`, `width`, `difference_holds`,
        `difference_width`, `rejects`; the mean alone of `rejects_any`.
    """
    stretch = 1 / np.sqrt(1 - ids / population.ids)
    out: dict[str, float] = {}
    for name, low, high in (("value", "low", "high"), ("difference", "difference_low", "difference_high")):
        own = "truth" if name == "value" else "difference_truth"
        aim = found[own] if own in found else (found[name].mean("set") if truth is None else truth[name])
        off = found[name] - aim
        moved = (off - off.mean("set")) * (stretch - 1)
        below, above = found[low] + moved <= aim, aim <= found[high] + moved
        spread = off.std("set", ddof=1) * stretch
        varies = found[name].std("set") > 1e-9 * (1e-3 + np.abs(aim).max())  # else it is rounding
        there = found[name].notnull() & varies
        width = (found[high] - found[low]).mean("set") / (NORMAL * spread)
        what = "" if name == "value" else "difference_"
        out |= _ends(f"{what}holds", (below & above).where(there).mean("set"))
        out |= _ends(f"{what}width", width.where(varies))
    out |= _ends("rejects", found.rejected.mean("set"))
    out["rejects_any"] = float(found.rejected_any.mean())
    return out


def _ends(name: str, cells: xr.DataArray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # none has a value
        return {name: float(cells.mean()), f"{name}_least": float(cells.min()), f"{name}_most": float(cells.max())}
