"""Which layer of one model stands beside which of another, where they are not equally deep."""

from __future__ import annotations

import xarray as xr

from probes.errors import InputError
from probes.states.representations import aligned


def baseline_layers(base: xr.Dataset, other: xr.Dataset) -> dict[int, int]:
    """Return the layer of the baseline that each layer of another model is compared with.

    Equally deep models, or only some layers of one: that of the same number. Where a compression
    says which layers it kept (the attribute `made_of`): the layer that was kept. Otherwise the
    layer at the same share of the depth, the last with the last, and the embeddings with the
    embeddings. Layers without a partner among those that were captured are left out.

    Example:
        >>> import numpy as np, probes
        >>> deep, shallow = (probes.from_arrays(np.ones((layers, 4, 2))) for layers in (13, 7))
        >>> baseline_layers(deep, shallow)
        {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 12}
    """
    there, own = ([int(layer) for layer in reps["layer"].values] for reps in (base, other))
    depths = max(there), max(own)
    made = [reps.attrs.get("made_of") for reps in (base, other)]
    if any(reps.attrs.get("modules") for reps in (base, other)):  # which have no depth
        return {module: module for module in own if module in set(there)}
    if made[1] is not None and max(made[1], default=0) < (depths[0] if made[0] is None else max(made[0]) + 1):
        first = list(range(depths[0])) if made[0] is None else list(made[0])
        numbers = {0: 0} | {i + 1: first.index(k) + 1 for i, k in enumerate(made[1]) if k in first}
    elif depths[0] == depths[1] or own != list(range(len(own))):  # or only some layers of a model
        numbers = {layer: layer for layer in own}
    else:
        numbers = {layer: round(layer * depths[0] / max(depths[1], 1)) for layer in own}
    return {layer: numbers[layer] for layer in own if numbers.get(layer) in set(there)}


def beside(base: xr.Dataset, other: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return two models with the layers that are compared, numbered as the other one numbers its
    own.
    """
    pairs = baseline_layers(base, other)
    own = list(pairs)
    return base.sel(layer=list(pairs.values())).assign_coords(layer=own), other.sel(layer=own)


def side_by_side(base: xr.Dataset, other: xr.Dataset, probe: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Return two models of one width with the same examples in the same order, and the layers that
    are compared, for a probe that goes feature by feature.

    Raises:
        InputError: the two hold different sentences, are of different width, or have no layers that
            stand beside each other.
    """
    other = aligned(base, other)
    if base.sizes["feature"] != other.sizes["feature"]:
        raise InputError(
            f"{probe} compares feature with feature: model {base.attrs.get('model', '?')!r} has "
            f"{base.sizes['feature']} and model {other.attrs.get('model', '?')!r} {other.sizes['feature']}; expected "
            "as many. Models of different width can be compared by probes.similarity"
        )
    base, other = beside(base, other)
    if not other.sizes["layer"]:
        raise InputError(f"{probe} compares layer with layer, and the two have none that stand beside each other")
    return base, other
