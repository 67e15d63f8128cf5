"""The few features that are far larger than the others, and states without them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.errors import InputError
from probes.states.depth import beside
from probes.states.representations import BLOCK, LEFT_OUT, check_representations, states


def without_outliers(reps: xr.Dataset, features: int, *, like: xr.Dataset | None = None) -> xr.Dataset:
    """Return Representations whose largest features count nothing in any probe.

    In many models a few features are hundreds of times larger than the others, the same ones for
    every text. They decide lengths and cosines, and so hide what the others do. Here they are read
    as zero, layer by layer; the states on disk or in memory stay as they are.

    Args:
        reps: Representations.
        features: how many of each layer are left out, those with the largest root mean square.
        like: Representations of another model, whose largest features are left out in place of its
            own, layer beside layer: so that two models are compared on the same ones.

    Returns:
        The same with a coordinate `left_out (layer, feature)`; results of probes name the features
        in their attribute `left_out`.

    Raises:
        InputError: there are not more features than are to be left out; the two differ in width.

    Notes:
        Massive activations: Sun, Chen, Kolter and Liu 2024, arXiv 2402.17762. How much they count is
        `largest_feature_share` of `probes.geometry`.

    See also:
        `geometry`, `compare` (`without_outliers=`).

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(50, 8)) + 9 * np.eye(8)[2]
        >>> plain = probes.from_arrays(x)
        >>> for reps in (plain, without_outliers(plain, 1)):
        ...     found = probes.geometry(reps).sel(measure="mean_cosine_of_pairs", language="pooled")
        ...     print(round(abs(found.value.item()), 1))
        0.9
        0.0
    """
    check_representations(reps)
    width = reps.sizes["feature"]
    if type(features) is not int or not 0 <= features < width:
        raise InputError(
            f"without_outliers={features!r}: expected a whole number of 0 to {width - 1}, as of {width} features"
        )
    if like is not None and like.sizes["feature"] != width:
        raise InputError(
            f"without_outliers: model {reps.attrs.get('model', '?')!r} has {width} features and model "
            f"{like.attrs.get('model', '?')!r} {like.sizes['feature']}, so that they have not the same ones. Compare "
            "models of one width, or each on its own"
        )
    if not features:
        return reps
    if like is None:
        return reps.assign_coords({LEFT_OUT: (("layer", "feature"), _largest(reps, features))})
    ours = np.zeros((reps.sizes["layer"], width), bool)
    there, here = beside(like.drop_vars(LEFT_OUT, errors="ignore"), reps.drop_vars(LEFT_OUT, errors="ignore"))
    ours[np.isin(reps["layer"].values, here["layer"].values)] = _largest(there, features)
    alone = ~ours.any(axis=1)  # layers that stand beside none
    if alone.any():
        ours[alone] = _largest(reps.isel(layer=np.flatnonzero(alone)), features)
    return reps.assign_coords({LEFT_OUT: (("layer", "feature"), ours)})


def _largest(reps: xr.Dataset, features: int) -> np.ndarray:
    """Which features of each layer are the largest (layer, feature)."""
    squares = np.zeros((reps.sizes["layer"], reps.sizes["feature"]))
    for layer in range(len(squares)):
        for start in range(0, reps.sizes["example"], BLOCK):
            squares[layer] += np.square(states(reps, layer, slice(start, start + BLOCK))).sum(axis=0)
    found = np.zeros(squares.shape, bool)
    np.put_along_axis(found, np.argsort(-np.nan_to_num(squares), axis=1, kind="stable")[:, :features], True, axis=1)
    return found
