"""Which layers to correct, and by how much, so that the end of the path comes nearest to the baseline's."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.measures.probe import LARGE
from probes.measures.space.dynamics import check_dynamics, folds_of_units, known_dynamics
from probes.results.counts import sums_over
from probes.results.draws import POOLED, Sample, sample
from probes.results.intervals import interval, widened
from probes.results.result import result
from probes.states.representations import states

_ABOUT = {
    "probe": "depth_control",
    "estimator": "share of what each layer adds to take off: the minimum of the mean square distance at the end plus "
    "effort times that distance times the sum of squared shares, linear in the states",
    "range": "about 0 to 1, 0 where a correction is not worth it; outside of it where layers make up for each other",
    "better": "",
    "higher_is": "more to correct",
    "unchanged_by": "rotation, shift, common scale, order",
    "paper": "linear-quadratic control; no single source",
    "interval": LARGE,
}


def depth_control(
    base: xr.Dataset,
    other: xr.Dataset,
    *,
    effort: float = 0.1,
    horizon: int | None = None,
    draws: int = 200,
    seed: int = 0,
) -> xr.Dataset:
    """Ask which layers of a compressed model to correct, and by how much, so that its last states
    come nearest to the baseline's.

    What each layer adds to the distance of the two is carried to the end by the baseline's known
    dynamics; a linear-quadratic problem weighs what is left there against the effort.

    Args:
        base: Representations of the baseline.
        other: Representations of the compressed model on the same sentences.
        effort: what correcting a whole layer costs, in units of the distance at the end; above 0.
        horizon: how many layers before the end may be corrected; by default all, and the embeddings.
        draws, seed: of the bootstrap by sentence id; the seed is also of the folds.

    Returns:
        `value, low, high (layer, language)`: the share of what a layer adds that is worth taking off
        (0 outside the horizon). Beside them `alone, alone_low, alone_high (layer, language)`, the
        share of the distance at the end that goes away where this layer alone adds nothing, and
        `left, left_low, left_high (language)`, the share that all corrections together leave.

    Raises:
        InputError: as `departure`; effort or horizon cannot be used.

    Notes:
        What a layer adds is exact for the sentences at hand, and its way to the end is linear, so
        that layers whose additions are large are judged by the mean slope. The order it gives is
        handed on by `compress.restore(by=...)`, which takes a number for each layer.

    See also:
        `departure`, `patching`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> x = np.cumsum(rng.normal(size=(4, 200, 4)), axis=0)
        >>> off = rng.normal(size=(200, 4))
        >>> y = x + np.array([0, 0, 0.5, 0.5])[:, None, None] * off
        >>> found = depth_control(probes.from_arrays(x), probes.from_arrays(y))
        >>> found.value.sel(language="pooled").round(1).values.tolist()
        [0.0, 0.0, 0.9, 0.0]
    """
    if isinstance(effort, bool) or not isinstance(effort, int | float) or not 0 < effort < np.inf:
        raise InputError(f"effort={effort!r}: expected a number above 0, what correcting a layer costs")
    drawn = sample(base, draws=draws, seed=seed)
    other = check_dynamics(base, other, drawn, 2, "depth_control")
    layers = base.sizes["layer"]
    if horizon is not None and (type(horizon) is not int or not 1 <= horizon <= layers):
        raise InputError(
            f"horizon={horizon!r}: expected a whole number from 1 to {layers}, so many layers before the end"
        )
    open_to = np.arange(layers) >= layers - (layers if horizon is None else horizon)
    products = _products(base, other, drawn, seed)
    found: dict[str, list[np.ndarray]] = {"value": [], "alone": [], "left": []}
    languages = [*drawn.languages, POOLED]
    for language in languages:
        rows = drawn.group(language)
        units = np.array([len(np.unique(drawn.units[drawn.ids[rows]]))])
        size = sums_over(drawn.weights, drawn.ids[rows], np.ones(len(rows)))
        gram = sums_over(drawn.weights, drawn.ids[rows], products[rows].reshape(len(rows), -1)) / size[:, None]
        for name, of in corrections(gram.reshape(-1, layers, layers), open_to, effort).items():
            found[name].append(widened(of, units))

    def missing(at: tuple[int, ...], language: str) -> str:
        rows = drawn.group(language)
        bad = int((~np.isfinite(products[rows]).all(axis=(1, 2))).sum())
        layer = f"layer {base['layer'].values[at[0]]}"
        if bad:
            return f"{layer}: the path of {bad} rows cannot be followed, as states are not finite or all equal"
        return f"{layer}: the two models end at the same states"

    statistics = dict(zip(languages, found["value"], strict=True))
    about: dict[str, Any] = _ABOUT | {"other_model": base.attrs.get("model", "?"), "effort": effort}
    out = result(other, drawn, statistics, about, missing=missing)
    dims = {"alone": ("layer", "language"), "left": ("language",)}
    for name, along in dims.items():
        whole = np.stack(found[name], axis=-1)
        low, high = interval(whole[0], whole[1:])
        out = out.assign({name: (along, whole[0]), f"{name}_low": (along, low), f"{name}_high": (along, high)})
    return out


def corrections(gram: np.ndarray, open_to: np.ndarray, effort: float) -> dict[str, np.ndarray]:
    """Solve the linear-quadratic problem from products of what layers add to the end.

    With a_l what layer l adds, over all sentences, the shares c minimise the mean square of
    sum (1 - c_l) a_l, plus effort times the mean square of sum a_l times the sum of c_l squared.

    Args:
        gram: (draw, layer, layer) mean products of a_l and a_m.
        open_to: (layer,) boolean, which may be corrected.
        effort: the price.

    Returns:
        `value` (draw, layer), `alone` (draw, layer) and `left` (draw,) of `depth_control`.

    Example:
        >>> found = corrections(np.array([[[1.0, 0.0], [0.0, 0.0]]]), np.ones(2, bool), 0.25)
        >>> found["value"].tolist(), found["left"].round(2).tolist()
        ([[0.8, 0.0]], [0.04])
    """
    whole = gram.sum(axis=(1, 2))
    value = np.zeros(gram.shape[:2])
    fine = np.isfinite(whole) & (whole > 1e-20)
    some = np.flatnonzero(open_to)
    square = gram[fine][:, some][:, :, some] + effort * whole[fine, None, None] * np.eye(len(some))
    value[np.ix_(fine, some)] = np.linalg.solve(square, gram[fine].sum(axis=2)[:, some, None])[..., 0]
    value[~fine] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = 1 - value
        left = np.einsum("dl,dlm,dm->d", kept, gram, kept) / whole
        alone = (2 * gram.sum(axis=2) - np.einsum("dll->dl", gram)) / whole[:, None]
    return {"value": value, "alone": np.where(fine[:, None], alone, np.nan), "left": np.where(fine, left, np.nan)}


def _products(base: xr.Dataset, other: xr.Dataset, drawn: Sample, seed: int) -> np.ndarray:
    """Products (example, layer, layer) of what layers add to the distance at the end, on held-out ids."""
    layers = base.sizes["layer"]
    out = np.full((len(drawn.ids), layers, layers), np.nan)
    for rows, choosing, test in folds_of_units(drawn, seed):
        known = known_dynamics(partial(states, base), layers, rows, choosing)
        added: list[np.ndarray] = []
        before: np.ndarray | None = None
        for layer in range(layers):
            with np.errstate(invalid="ignore"):
                off = (states(other, layer, test) - states(base, layer, test)) / known.scales[layer]
            if before is None:
                added.append(off)
            else:
                slope = np.eye(off.shape[1]) + known.maps[layer - 1, :-1]
                added = [one @ slope for one in added]
                added.append(off - before @ slope)
            before = off
        ends = np.stack(added, axis=1)
        out[test] = ends @ ends.transpose(0, 2, 1)
    return out
