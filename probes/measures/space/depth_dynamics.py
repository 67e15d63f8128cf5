"""Depth as time: the layers of a model as a trajectory, and what of a compressed one's is predicted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from probes.errors import InputError, LayerscopeWarning
from probes.measures.probe import LARGE
from probes.measures.space.departure import departure_of
from probes.measures.space.dynamics import Known, check_dynamics, folds_of_units, known_dynamics
from probes.measures.space.residual import Cascade, Residual, learned
from probes.results.draws import POOLED, Sample, check_draws, sample, weighted_ratios
from probes.results.intervals import interval
from probes.results.ratios import half_widths, of_ratios
from probes.results.result import result
from probes.states.representations import as_strings, check_representations, states

DYNAMICS = ("copied", "known", "linear", "network")
_ENOUGH = 0.9  # of what all checkpoints teach the online model
_ABOUT = {
    "probe": "depth_dynamics",
    "estimator": "1 - sum of squares of what is missed / sum of squares around the mean of the layer, on held-out ids; "
    "each layer in units of the baseline's spread",
    "range": "-infinity to 1; 1 where all is predicted, 0 where no more than by the mean of the layer",
    "better": "",
    "higher_is": "more of the trajectory predicted",
    "unchanged_by": "common scale, order",
    "paper": "after Jiahao, Chee, Hsieh 2022, arXiv 2207.09344",
    "interval": LARGE,
}


def depth_dynamics(
    base: xr.Dataset,
    others: xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset],
    *,
    look_ahead: int = 2,
    steps: int = 80,
    draws: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Predict the path of a compressed model's states through its layers, by the baseline's dynamics
    and by what is learned of the rest.

    The baseline's layers are known dynamics: an affine map from each layer to the next. What they
    leave of the compressed model is learned: by a linear map of each step, and beside it by a small
    network whose field is integrated from layer to layer. All of it is tested on ids that it has
    not seen.

    Args:
        base: Representations of the baseline.
        others: those of a compressed model, or of a series of checkpoints in their order, on the
            same sentences. Of a series each has a network of its own; the two before it are frozen
            and count 1 / e and 1 / e^2.
        look_ahead: layers ahead that networks learn to predict; 1 is a fit of one step.
        steps: of Adam, at most, for each network.
        draws, seed: of the bootstrap by sentence id; the seed is also of folds and networks.
        progress: show a progress bar.

    Returns:
        `value, low, high (dynamics, horizon, language)`, all languages together as `pooled`: the
        share of the states that is predicted so many layers ahead, from every layer. The dynamics
        are "copied" (the baseline's map of the layer before, once more), "known", "linear" and
        "network". Beside them:

        | | |
        |---|---|
        | `one_step (dynamics, layer, language)` | the share of each layer, from the one before |
        | `departure (layer, language)` | see `departure`; with `departure_low, departure_high` |
        | `leaves (language)` | the first layer whose departure is told from 0, NaN where none is |

        Of a series all but `needed` are along `checkpoint`, with `ahead (checkpoint, language)`,
        the share of one step that is predicted before a checkpoint is learned from, and `needed
        (language)`: the fewest checkpoints after which the online model has 0.9 of what all teach
        it about the last one, NaN where that is not told from nothing; each with `_low`, `_high`.

    Raises:
        InputError: models of other depth or width, fewer than two layers after the embeddings, fewer
            than 20 ids (or groups), states that are all equal or not finite.

    Notes:
        Four folds of ids: each network sees three quarters. Draws do not learn again, so that
        intervals (symmetric bootstrap-t ones) hold what other sentences to test on would change.
        `leaves` holds all layers at once. A network that predicts nothing more of sentences it has
        not seen is left out, so that "network" is "linear" there. All states are held in memory.

    See also:
        `departure`, `depth_control`, `drift`.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> x = [rng.normal(size=(80, 4))]
        >>> for turn in np.linalg.qr(rng.normal(size=(3, 4, 4)))[0]:
        ...     x.append(x[-1] @ turn)
        >>> y = np.array([*x[:3], x[3] + 0.5 * rng.normal(size=(80, 4))])
        >>> base, other = probes.from_arrays(x), probes.from_arrays(y)
        >>> found = depth_dynamics(base, other, steps=10, progress=False)
        >>> found.value.sel(language="pooled", dynamics="known").round(1).values.tolist()
        [0.9, 0.9, 0.8]
        >>> float(found.leaves.sel(language="pooled"))
        3.0
    """
    series = _series(others)
    check_draws(draws, seed)
    for name, given, least in (("look_ahead", look_ahead, 1), ("steps", steps, 0)):
        if type(given) is not int or given < least:
            raise InputError(f"{name}={given!r}: expected a whole number, at least {least}")
    drawn = sample(base, draws=draws, seed=seed)
    models = {name: check_dynamics(base, one, drawn, 3, "depth_dynamics") for name, one in series.items()}
    for name, one in {str(base.attrs.get("model", "?")): base, **models}.items():
        _check_states(one, name)
    folds = folds_of_units(drawn, seed)
    sums: list[_Sums] = []
    with tqdm(total=len(folds) * len(models), desc="depth dynamics", unit="fit", disable=not progress) as bar:
        for rows, choosing, test in folds:
            known = known_dynamics(partial(states, base), base.sizes["layer"], rows, choosing)
            residuals: list[Residual] = []
            paths = [_path(known, one) for one in models.values()]
            for number, path in enumerate(paths):
                how = {"look_ahead": look_ahead, "steps": steps, "seed": seed}
                own = learned(known, residuals, path[:, rows], choosing, **how)
                sums.append(_Sums.of(known, residuals, own, paths, number, rows, test))
                residuals.append(own)
                bar.update()
    measured = []
    for number, one in enumerate(models.values()):
        mine = [s for s in sums if s.number == number]
        measured.append(_measured(base, one, drawn, mine, folds))
    if isinstance(others, xr.Dataset):
        return measured[0]
    out = xr.concat(measured, "checkpoint", combine_attrs="drop_conflicts", data_vars="all")
    out = out.assign_coords(checkpoint=as_strings(list(models)))
    return _online(out, drawn, sums)


def _series(others: Any) -> dict[str, xr.Dataset]:
    if isinstance(others, xr.Dataset):
        return {str(others.attrs.get("model", "?")): others}
    if not isinstance(others, Mapping | Sequence) or not len(others):
        raise InputError(
            f"depth_dynamics: expected Representations, or several of them in the order of training; found "
            f"{type(others).__name__}{'' if isinstance(others, str) else ' without any'}"
        )
    if isinstance(others, Mapping):
        return {str(name): check_representations(one) for name, one in others.items()}
    return {str(number): check_representations(one) for number, one in enumerate(others)}


def _check_states(reps: xr.Dataset, name: str) -> None:
    for layer in range(reps.sizes["layer"]):
        x = states(reps, layer, slice(None))
        bad = int((~np.isfinite(x).all(axis=1)).sum())
        if not bad and np.ptp(x, axis=0).max() > 1e-12 * (1 + np.abs(x).max()):
            continue
        what = f"{bad} rows are not finite" if bad else "all states are equal"
        raise InputError(
            f"depth_dynamics: layer {reps['layer'].values[layer]} of model {name!r}: {what}, and a path through it "
            "cannot be followed. Leave the layer out of all models, as reps.isel(layer=slice(1, None)) does the first"
        )


def _path(known: Known, reps: xr.Dataset) -> np.ndarray:
    """The states of a model in the coordinates of known dynamics: (layer, example, feature)."""
    return np.stack([known.coordinates(k, states(reps, k, slice(None))) for k in range(reps.sizes["layer"])])


@dataclass(frozen=True)
class _Sums:
    """Sums of squares of the test rows of a fold, of one checkpoint."""

    number: int
    test: np.ndarray  # (row,)
    missed: np.ndarray  # (dynamics, start, horizon, row)
    whole: np.ndarray  # (layer, row) around the means of the training rows
    before: np.ndarray  # (layer, row) missed of one step by what was learned of earlier checkpoints
    of_last: np.ndarray  # (layer, row) missed of one step of the last checkpoint by what is learned now
    known_last: np.ndarray  # (layer, row) by the known dynamics alone
    whole_last: np.ndarray

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        known: Known,
        older: list[Residual],
        own: Residual,
        paths: list[np.ndarray],
        number: int,
        rows: np.ndarray,
        test: np.ndarray,
    ) -> _Sums:
        path, last, count = paths[number], paths[-1], len(known.maps)
        maps = torch.from_numpy(known.maps).float()
        now = [*older[-2:], own]
        cascades = [Cascade(maps), Cascade(maps, now, network=False), Cascade(maps, now)]
        missed = np.full((len(DYNAMICS), count, count, len(test)), np.nan)
        for start in range(count):
            z = path[start, test]
            for ahead in range(count - start):
                z = known.copied(start + ahead, z)
                missed[0, start, ahead] = _squares(z - path[start + ahead + 1, test])
        begin = torch.from_numpy(path[:, test]).float()
        for kind, cascade in enumerate(cascades, start=1):
            for ahead, said in enumerate(cascade.ahead(begin, count)):
                off = said.double().numpy() - path[ahead + 1 :, test]
                missed[kind, : count - ahead, ahead] = _squares(off)
        return cls(
            number,
            test,
            missed,
            _squares(path[:, test] - path[:, rows].mean(axis=1, keepdims=True)),
            _one_step(Cascade(maps, older[-3:]), path, test),
            _one_step(cascades[-1], last, test),
            _one_step(cascades[0], last, test),
            _squares(last[:, test] - last[:, rows].mean(axis=1, keepdims=True)),
        )


def _squares(x: np.ndarray) -> np.ndarray:
    return np.einsum("...f,...f->...", x, x)


def _one_step(cascade: Cascade, path: np.ndarray, test: np.ndarray) -> np.ndarray:
    (said,) = cascade.ahead(torch.from_numpy(path[:, test]).float(), 1)
    return _squares(said.double().numpy() - path[1:, test])


def _measured(
    base: xr.Dataset, other: xr.Dataset, drawn: Sample, sums: list[_Sums], folds: Sequence[tuple[np.ndarray, ...]]
) -> xr.Dataset:
    count = len(sums[0].missed[0])
    missed = _together([s.missed for s in sums], sums, len(drawn.ids))
    whole = _together([s.whole for s in sums], sums, len(drawn.ids))
    by_horizon: dict[str, list[np.ndarray]] = {}
    missed_of, whole_of = [], []
    for ahead in range(count):
        above = missed[:, : count - ahead, ahead].sum(axis=1)
        for language, of in _share(drawn, above, whole[ahead + 1 :].sum(axis=0)).items():
            by_horizon.setdefault(language, []).append(of)
        missed_of.append(np.moveaxis(above, -1, 0))
        whole_of.append(np.broadcast_to(whole[ahead + 1 :].sum(axis=0)[:, None], missed_of[-1].shape))
    over: dict[str, Any] = {"dynamics": as_strings(DYNAMICS), "horizon": np.arange(1, count + 1)}
    statistics = {language: np.stack(of, axis=-1) for language, of in by_horizon.items()}
    about = _ABOUT | {"other_model": base.attrs.get("model", "?")}
    out = result(other, drawn, statistics, about, over=over)
    out = of_ratios(out, drawn, np.stack(missed_of, axis=-1), np.stack(whole_of, axis=-1))
    out = out.assign(high=out["high"].clip(max=1))
    layers = base["layer"].values[1:]
    steps: dict[str, list[np.ndarray]] = {}
    for k in range(count):
        for language, of in _share(drawn, missed[:, k, 0], whole[k + 1]).items():
            steps.setdefault(language, []).append(of)
    one_step = np.stack([np.stack(of, axis=-1)[0] for of in steps.values()], axis=-1)
    of_step = (
        np.moveaxis(missed[:, :, 0], -1, 0),
        np.broadcast_to(whole[1:].T[:, None], (len(drawn.ids), len(DYNAMICS), count)),
    )
    half = half_widths(drawn, list(steps), *of_step)
    apart = departure_of(base, other, drawn, folds)
    return out.assign(
        one_step=(("dynamics", "layer", "language"), one_step),
        one_step_low=(("dynamics", "layer", "language"), one_step - half),
        one_step_high=(("dynamics", "layer", "language"), np.minimum(one_step + half, 1)),
        departure=apart["value"],
        departure_low=apart["low"],
        departure_high=apart["high"],
        leaves=("language", _first_told(apart)),
    ).assign_coords(layer=layers)


def _together(parts: list[np.ndarray], sums: list[_Sums], count: int) -> np.ndarray:
    """What the folds say of their test rows, as (..., example)."""
    out = np.full((*parts[0].shape[:-1], count), np.nan)
    for part, one in zip(parts, sums, strict=True):
        out[..., one.test] = part
    return out


def _share(drawn: Sample, missed: np.ndarray, whole: np.ndarray) -> dict[str, np.ndarray]:
    """Shares that are predicted, (1 + draws, ...), from sums of squares (..., example) and (example,)."""
    ratios = weighted_ratios(drawn, np.moveaxis(missed, -1, 0), whole)
    return {language: 1 - of for language, of in ratios.items()}


def _with_ends(name: str, dims: tuple[str, ...], statistics: np.ndarray) -> dict[str, Any]:
    low, high = interval(statistics[0], statistics[1:])
    return {f"{name}_low": (dims, low), f"{name}_high": (dims, high)}


def _first_told(apart: xr.Dataset) -> np.ndarray:
    """The first layer of each language whose departure is above 0, held for all layers at once."""
    value, drawn = apart["value"].values, apart["draws"].values
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        spread = drawn.std(axis=0)
        farthest = np.nanmax(np.abs(drawn - drawn.mean(axis=0)) / np.where(spread > 0, spread, np.nan), axis=1)
        told = value > np.nan_to_num(np.nanquantile(farthest, 0.95, axis=0)) * spread
    layers = apart["layer"].values.astype(float)
    return np.where(told.any(axis=0), layers[told.argmax(axis=0)], np.nan)


def _online(out: xr.Dataset, drawn: Sample, sums: list[_Sums]) -> xr.Dataset:
    """The result of a series with what was predicted before it was learned, and how many checkpoints that takes."""
    count = out.sizes["checkpoint"]
    ahead, learned_so_far = [], []
    last = [s for s in sums if s.number == count - 1]
    whole_last = _together([s.whole_last for s in last], last, len(drawn.ids))[1:].sum(axis=0)
    known = _together([s.known_last for s in last], last, len(drawn.ids)).sum(axis=0)
    learned_so_far.append(_share(drawn, known, whole_last))
    for number in range(count):
        mine = [s for s in sums if s.number == number]
        before, of_last, whole = (
            _together([getattr(s, what) for s in mine], mine, len(drawn.ids)) for what in ("before", "of_last", "whole")
        )
        ahead.append(_share(drawn, before.sum(axis=0), whole[1:].sum(axis=0)))
        learned_so_far.append(_share(drawn, of_last.sum(axis=0), whole_last))
    languages = [*drawn.languages, POOLED]
    shares = np.stack([np.stack([one[k] for k in languages], axis=-1) for one in ahead], axis=1)
    gained = np.stack([np.stack([one[k] for k in languages], axis=-1) for one in learned_so_far], axis=1)
    gained = gained - gained[:, :1]
    enough = gained[:, 1:] >= _ENOUGH * gained[:, -1:]  # (1 + draws, checkpoint, language)
    needed = 1.0 + enough.argmax(axis=1)
    low = interval(gained[0, -1], gained[1:, -1])[0]
    needed[:, ~(low > 0)] = np.nan
    ends = interval(needed[0], needed[1:])
    unknown = [str(k) for k, one in zip(languages, needed[0], strict=True) if np.isnan(one)]
    if unknown:
        warnings.warn(
            "depth_dynamics: what checkpoints teach the online model of the last one cannot be told from nothing "
            f"({', '.join(unknown)}), so that it is not known how many it needs",
            LayerscopeWarning,
            stacklevel=3,
        )
    return out.assign(
        ahead=(("checkpoint", "language"), shares[0]),
        **_with_ends("ahead", ("checkpoint", "language"), shares),
        needed=("language", needed[0]),
        needed_low=("language", ends[0]),
        needed_high=("language", ends[1]),
    )
