"""Bits from damage: to every matrix the number of bits with which all together do least damage."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.quantization.bit_damage import (
    CHOICES,
    COLUMNS,
    DAMAGES,
    bit_damage,
    check_choices,
    matrix_shapes,
    units_of,
)
from compress.quantization.quantizers import (
    packed_bytes,
)
from probes.errors import InputError, check_choice


def allocate_bits(
    model: PreTrainedModel,
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    average_bits: float = 5,
    damage: str | pd.DataFrame | Sequence[str | pd.DataFrame] = "alignment",
    choices: Collection[int] = CHOICES,
    by: str = "matrix",
    pivot: str | None = None,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    progress: bool = True,
    **settings: Any,
) -> dict[str, int]:
    """Choose bits for every matrix that together do least damage, in the bytes of uniform bits.

    The damage of every matrix at every number of bits is measured with all others as they are, and
    taken to add up.

    Args:
        model: a model of transformers, in float32; it is not changed.
        corpus: texts to measure the damage on, all of its rows, best not those that the result is
            judged on.
        tokenizer: of the model.
        average_bits: the weights may take the bytes, steps and zero points included, that they take
            where all have so many bits. Between two whole numbers, the bytes lie between theirs in
            proportion.
        damage: how it is measured, as in `bit_damage`; or the table that `bit_damage` gave, from
            which bits for many averages can be chosen. Then corpus, tokenizer, choices, by and
            pivot are not needed. Or several of these: their mean, each over its sum at the fewest
            bits.
        choices, by, pivot, ranges, percentile, progress, settings: as in `bit_damage`.
        group, symmetric: as in `compress.quantization.quantizers.quantize_tensor`.

    Returns:
        The bits of every matrix, by name: `compress.quantize(model, bits=...)` takes them, with the
        same group, symmetric, ranges and percentile.

    Raises:
        InputError: average_bits is below the least of the choices or above the largest; the table
            lacks a matrix, or was measured with another group; what `bit_damage` raises.

    Notes:
        The least sum is found exactly. Of equal sums the one with fewer bytes is taken. More bits
        that were measured to do more damage are noise: before the choice the damage of a unit is
        made to fall with bits, by isotonic regression. That damages add up is an assumption, which
        holds the better the smaller they are. What is best by one measure can be worse than uniform
        bits by another. The reference page says more.

    Example:
        >>> import probes
        >>> from compress.quantization.quantize import quantize
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> by = {"damage": "weights", "by": "layer"}
        >>> bits = allocate_bits(model, average_bits=4.5, progress=False, **by)
        >>> done = quantize(model, bits=bits).config.compression
        >>> done["average_bits"] <= 4.7  # of which 0.2 are the steps
        True

    See also:
        `bit_damage`, `quantize`.
    """
    several = list(damage) if isinstance(damage, list | tuple) else [damage]
    if not several:
        raise InputError("damage=[]: expected at least one, by name or as a table")
    if any(isinstance(one, str) for one in several):
        _check_average(average_bits, check_choices(choices))
    for one in several:
        if isinstance(one, str):
            check_choice("damage", one, DAMAGES)
    how: dict[str, Any] = {"choices": choices, "by": by, "pivot": pivot, "group": group, "symmetric": symmetric}
    how |= {"ranges": ranges, "percentile": percentile, "progress": progress, **settings}
    tables = [bit_damage(model, corpus, tokenizer, damage=d, **how) if isinstance(d, str) else d for d in several]
    shapes = matrix_shapes(model, group)
    for one in reversed(tables):
        units = _check_table(one, shapes, group, symmetric)
    table = _mean(tables).pivot(index="unit", columns="bits", values=["damage", "bytes"]).loc[list(units)]
    chosen = [int(b) for b in table["damage"].columns]
    _check_average(average_bits, chosen)
    low, high = (
        sum(packed_bytes(shape, bits, group=group, symmetric=symmetric) for shape in shapes.values())
        for bits in (math.floor(average_bits), math.ceil(average_bits))
    )
    budget = math.floor(low + (average_bits - math.floor(average_bits)) * (high - low))
    from sklearn.isotonic import IsotonicRegression  # takes a while to import

    isotonic = IsotonicRegression(increasing=False)
    falling = np.stack([isotonic.fit_transform(chosen, row) for row in table["damage"].to_numpy(float)])
    found = least_damage(falling, table["bytes"].to_numpy(np.int64), budget)
    return {name: chosen[i] for i, names in zip(found, units.values(), strict=True) for name in names}


def _mean(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, damages counting by their share of what the fewest bits do."""
    if len(tables) == 1:
        return tables[0]
    rows = [one.set_index(["unit", "bits"])["damage"] for one in tables]
    for other in rows[1:]:
        if set(other.index) != set(rows[0].index):
            raise InputError("the damages are of other matrices or numbers of bits: measure them by the same settings")
    shares = []
    for row in rows:
        most = row.xs(row.index.get_level_values("bits").min(), level="bits").sum()
        shares.append(row / most if most > 0 else row)
    mean = sum(share.reindex(rows[0].index) for share in shares) / len(shares)
    return tables[0].assign(damage=np.asarray(mean))


def least_damage(damage: np.ndarray, size: np.ndarray, most: int) -> list[int]:
    """The column of every row with the least sum of damages, that of the sizes at most `most`.

    Both (row, column). Of equal sums of damages the one of less size.
    """
    sizes, damages = np.zeros(1, np.int64), np.zeros(1)
    kept = []
    for s, d in zip(size, damage, strict=True):
        sizes, damages = (sizes[:, None] + s).ravel(), (damages[:, None] + d).ravel()
        order = np.lexsort((damages, sizes))
        order = order[sizes[order] <= most]
        # What does no less damage than something of no more size is beaten.
        best = np.minimum.accumulate(damages[order])
        order = order[np.append(True, damages[order][1:] < best[:-1])]
        sizes, damages = sizes[order], damages[order]
        kept.append(order)
    at, out = len(sizes) - 1, []
    for order in reversed(kept):
        at, column = divmod(int(order[at]), size.shape[1])
        out.append(column)
    return out[::-1]


def _check_average(average_bits: float, choices: Sequence[int]) -> None:
    if type(average_bits) is bool or not isinstance(average_bits, int | float):
        raise InputError(f"average_bits={average_bits!r}: expected a number")
    if not choices[0] <= average_bits <= choices[-1]:
        raise InputError(
            f"average_bits={average_bits}: expected {choices[0]} to {choices[-1]}, which the choices of bits span. "
            "Choose another average, or other choices"
        )


def _check_table(
    table: pd.DataFrame, shapes: Mapping[str, tuple[int, int]], group: str | int, symmetric: bool
) -> dict[str, list[str]]:
    """Return the matrices of each unit; raise `InputError` for a table of another model."""
    if not isinstance(table, pd.DataFrame) or not set(COLUMNS) <= set(table.columns) or table.empty:
        raise InputError("damage: expected the name of a measure, or a table with rows as bit_damage gives it")
    there = set(table["unit"])
    units = next((u for u in (units_of(shapes, "matrix"), units_of(shapes, "layer")) if set(u) == there), None)
    if units is None:
        known = {*units_of(shapes, "matrix"), *units_of(shapes, "layer")}
        strange = sorted(there - known)
        raise InputError(
            f"damage: unit {strange[0]!r} is neither a matrix nor a layer of the model"
            if strange
            else "damage: expected one table of all matrices of the model, or of all layers; some are missing"
        )
    chosen = sorted(set(table["bits"]))
    if table.duplicated(["unit", "bits"]).any() or len(table) != len(units) * len(chosen):
        raise InputError("damage: expected one row for every unit and number of bits; some are missing, or come twice")
    if not np.isfinite(table["damage"].to_numpy(float)).all():
        raise InputError("damage: the table holds damages that are NaN or infinite")
    for unit, bits, found in zip(table["unit"], table["bits"], table["bytes"], strict=True):
        expected = sum(packed_bytes(shapes[n], int(bits), group=group, symmetric=symmetric) for n in units[unit])
        if found != expected:
            raise InputError(
                f"damage: the table says that {unit!r} takes {found} bytes at {bits} bits, and with group={group!r} "
                f"and symmetric={symmetric} it takes {expected}. Give group and symmetric as it was measured with"
            )
    return units
