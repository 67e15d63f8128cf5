"""Probes of one's own: a function of arrays becomes one with intervals, differences and figures."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from probes.command import from_module
from probes.errors import InputError
from probes.measures import catalogue
from probes.measures.classes.labels import check_labels
from probes.measures.probe import THIS_SIZE, Probe, Run
from probes.results.draws import POOLED, need_classes, sample
from probes.results.result import result
from probes.states.depth import beside
from probes.states.representations import aligned, states

Statistic = Callable[..., float]
# What a function may ask for beside the states, by the names of its arguments.
GIVEN = {
    "labels": "the class of each row, as numbers",
    "ids": "the sentence of each row, as numbers: the same one = translations",
    "languages": "the language of each row, as numbers",
    "base": "the states of the baseline of the same rows, in the layer that stands beside this one",
    "weights": "how often each row counts in a draw",
}


def probe(
    function: Statistic | None = None,
    *,
    better: Literal["higher", "lower", ""] = "",
    range: tuple[float, float] = (-np.inf, np.inf),
    title: str = "",
    higher_is: str = "higher",
    unchanged: float = 0.0,
    paper: str = "no single source",
) -> Any:
    """Make a function of arrays a probe: of Representations, with intervals, and of `compare`.

    Write it as a decorator. The function gets the states of one layer and one language, or of all
    of them, as an array (example, feature) in float64, and what else it names among its arguments;
    it returns a number, NaN where there is none. `compare` knows it from then on by the name of the
    function (`probes=["norm_gap"]`), `layerscope compare --probes file:norm_gap` by the module that
    holds it.

    Args:
        function: of `x (example, feature)` and, by these names, of any of `labels`, `ids` and
            `languages (example,)` as numbers, `base (example, feature)`, the states of the baseline,
            and `weights (example,)`, how often each row counts.
        better: "higher" or "lower" where it is so.
        range: the smallest and the largest value that it can take; intervals are kept within.
        title: over figures; the name in words where nothing else is given.
        higher_is: what a higher value says, as "better separated".
        unchanged: of a function of `base`, the value that says "nothing has changed".
        paper: where it is from.

    Returns:
        The function; of Representations (with `draws`, `seed`, and with `base` where it takes
        that) it gives `value, low, high (layer, language)`.

    Raises:
        InputError: the function has no name, or that of a probe of layerscope; it asks for
            something else; on small planted data it raises, or gives no number, or one out of range.

    Notes:
        A function of `weights` is called once a draw, layer and language, on the same rows; any
        other on drawn rows, copies among them, which distorts what compares rows with each other:
        take `weights` for that. Both take as many times as long as there are draws.

    See also:
        `compare`, `difference`.

    Example:
        >>> import probes
        >>> @probes.probe(better="higher", range=(0, np.inf))
        ... def norm_gap(x, labels):
        ...     norms = np.linalg.norm(x, axis=1)
        ...     means = [norms[labels == label].mean() for label in np.unique(labels)]
        ...     return max(means) - min(means)
        >>> y = np.arange(60) % 2
        >>> x = np.random.default_rng(0).normal(size=(60, 8)) * (1 + y)[:, None]
        >>> comparison = probes.compare({"x": probes.from_arrays(x, label=y)}, probes=["norm_gap"], draws=20)
        >>> bool(comparison.table["low"].min() > 0)
        True
    """
    if function is None:
        return functools.partial(
            probe, better=better, range=range, title=title, higher_is=higher_is, unchanged=unchanged, paper=paper
        )
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise InputError(f"{function!r}: expected a function with a name, made by def")
    if name in {p.name for p in catalogue.PROBES} | set(catalogue.families()):
        raise InputError(f"{name!r} is a probe of layerscope: give the function another name")
    asks = _asks(function, name)
    low, high = _bounds(range, name)
    if better not in ("higher", "lower", ""):
        raise InputError(f"{name}: better={better!r}: expected 'higher', 'lower' or ''")
    compares = "base" in asks
    declared = Probe(
        name=name,
        title=title,
        estimator=inspect.cleandoc(function.__doc__).splitlines()[0] if function.__doc__ else f"{name}, a function",
        range=f"{low:g} to {high:g}",
        bounds=(low, high),
        better=better,
        higher_is=higher_is,
        unchanged_by=(),
        paper=paper,
        needs=(*(["labels"] if "labels" in asks else []), *(["another model"] if compares else [])),
        compares=compares,
        unchanged=unchanged,
        interval=THIS_SIZE,
        measure=lambda run: _measured(function, asks, declared, run),
        check=check_labels if "labels" in asks else None,
    )
    _try(function, asks, declared)

    @functools.wraps(function)
    def lifted(x: Any, *given: Any, draws: int = 200, seed: int = 0, **named: Any) -> Any:
        if not isinstance(x, xr.Dataset):
            return function(x, *given, **named)
        base = named.pop("base", given[0] if given else None) if compares else None
        if compares and not isinstance(base, xr.Dataset):
            raise InputError(f"{name} compares with a baseline: expected base=..., Representations of it")
        if named or (given and not compares):
            raise InputError(f"{name} of Representations takes draws=... and seed=...{', base=...' * compares} alone")
        drawn = sample(x, draws=draws, seed=seed)
        return declared.measure(Run(x, need_classes(drawn) if "labels" in asks else drawn, base))

    catalogue.OWN[name] = declared
    return lifted


def named_in_modules(asked: Sequence[str]) -> list[str]:
    """Return names of probes, those written as "module:function" imported, and thereby known.

    Raises:
        InputError: there is no such module, or the function in it is no probe.
    """
    out = []
    for name in asked:
        if ":" not in name:
            out.append(name)
            continue
        function, there = from_module("--probes", name, "norm_gap")
        if function not in catalogue.OWN or there is None:
            raise InputError(
                f"--probes {name}: expected a function {function!r} in it that is made a probe by @probes.probe(...)"
            )
        out.append(function)
    return out


def _asks(function: Statistic, name: str) -> list[str]:
    """The arguments of a function after its first, by name."""
    parameters = list(inspect.signature(function).parameters.values())
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    asks = [p.name for p in plain[1:] if p.name in GIVEN]
    other = [p.name for p in plain[1:] if p.name not in GIVEN and p.default is p.empty]
    if not plain or other:
        known = "; ".join(f"{k} ({what})" for k, what in GIVEN.items())
        found = ", ".join(other) or "no argument"
        raise InputError(f"{name}: expected a function of x (example, feature) and any of {known}; found {found}")
    return asks


def _bounds(range: Any, name: str) -> tuple[float, float]:
    try:
        low, high = map(float, range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not low < high:
        raise InputError(f"{name}: range={range!r}: expected its smallest and its largest value, as (0, 1)")
    return low, high


def _try(function: Statistic, asks: Sequence[str], declared: Probe) -> None:
    """Call a function on small planted data, so that what is wrong with it is said at once."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    x = rng.normal(size=(48, 8)) + 3 * np.eye(8)[labels]
    given = {
        "labels": labels,
        "ids": np.arange(48) // 2,
        "languages": np.arange(48) % 2,
        "base": x + 0.1 * rng.normal(size=x.shape),
        "weights": np.ones(48),
    }
    _value(function, x, {k: given[k] for k in asks}, declared, "on 48 planted examples of 8 features and 3 classes")


def _value(function: Statistic, x: np.ndarray, given: dict[str, Any], declared: Probe, where: str) -> float:
    """Call a function, and hold what it gives against what it may."""
    try:
        found = function(x, **given)
    except Exception as error:
        raise InputError(f"{declared.name} {where} raised {type(error).__name__}: {error}") from error
    if np.ndim(found) or not isinstance(found, Real | np.ndarray):
        shape = f"an array of shape {np.shape(found)}" if np.ndim(found) else type(found).__name__
        raise InputError(f"{declared.name} {where}: expected a number, found {shape}. Return one, as by float(...)")
    value, (low, high) = float(found), declared.bounds
    if value < low or value > high:
        raise InputError(f"{declared.name} {where}: {value:g} is not within its range of {declared.range}")
    return value


def _measured(function: Statistic, asks: Sequence[str], declared: Probe, run: Run) -> xr.Dataset:
    """Call a function for every layer, language and draw."""
    reps, drawn = run.reps, run.sample
    base = None
    if run.base is not None:
        reps = aligned(run.base, reps)
        base, reps = beside(run.base, reps)
    groups = [*drawn.languages, POOLED]
    found = {g: np.full((len(drawn.weights), reps.sizes["layer"]), np.nan) for g in groups}
    total = len(groups) * reps.sizes["layer"]
    name = str(reps.attrs.get("model", "?"))
    quiet = not run.progress or total * len(drawn.weights) < 2000
    with tqdm(total=total, desc=f"{declared.name} of {name}", unit="layer", disable=quiet) as bar:
        for group in groups:
            rows = drawn.group(group)
            ids = drawn.ids[rows]
            given: dict[str, Any] = {
                "ids": ids,
                "languages": drawn.language[rows],
                "labels": drawn.label[rows] if len(drawn.label) else None,
            }
            for at, layer in enumerate(reps["layer"].values):
                x = states(reps, at, rows)
                if base is not None:
                    given["base"] = states(base, at, rows)
                where = f"of model {name}, layer {layer}, {group}"
                own = {k: given[k] for k in asks if k != "weights"}
                for draw, weights in enumerate(drawn.weights[:, ids]):
                    if "weights" in asks:
                        value = _value(function, x, own | {"weights": weights.astype(float)}, declared, where)
                    else:
                        many = np.repeat(np.arange(len(rows)), weights)
                        value = _value(function, x[many], {k: v[many] for k, v in own.items()}, declared, where)
                    found[group][draw, at] = value
                bar.update()
    return result(reps, drawn, found, declared.about(), bounds=declared.bounds)
