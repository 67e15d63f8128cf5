"""Results as rows of the tidy table, and the draws of these rows, in memory and in a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.results.cells import BESIDE, COLUMNS, COUNTS, FURTHER, NO_LAYER, plain_layers
from probes.results.draws import POOLED


def tabulated(results: Sequence[xr.Dataset], depth: Mapping[str, Mapping[int, int]]) -> tuple[pd.DataFrame, xr.Dataset]:
    """Return results as rows of a tidy table, in their order, and the draws of the rows.

    Of maps of layers by layers the draws of all languages together are kept, and of single
    languages those of each layer with itself: all of them would take most of the room, and are not
    tested.

    Args:
        results: of probes, each of one model.
        depth: of every model, which layer of the baseline stands beside each of its own. Where that
            is not everywhere the one of the same number, it is the column `baseline_layer`.

    Returns:
        The columns of a table but those of differences; and `draws (row, draw)`, `unseen (row)`,
        the variance that no draw shows, and `units (row)`, how many ids, or groups of them, are
        drawn; `row` is the number of the row in the table.
    """
    frames, draws, unseen, units = zip(*map(_rows, results), strict=True)
    table = pd.concat(frames, ignore_index=True)
    further, counts = ([c for c in names if c in table] for names in (FURTHER, COUNTS))
    whole = {c: "Int64" for c in ("groups", "replicates") if c in table}
    table = plain_layers(table.reindex(columns=[*COLUMNS[:4], *further, *COLUMNS[4:8], *counts]).astype(whole))
    if any(own != there for pairs in depth.values() for own, there in pairs.items()):
        beside = [depth[m].get(layer, NO_LAYER) for m, layer in zip(table["model"], table["layer"], strict=True)]
        table.insert(2, BESIDE, beside)
    count = max(d.shape[1] for d in draws)
    there = np.concatenate([np.full(len(d), d.shape[1] > 0) for d in draws])
    if "other_layer" in table:
        same = table["other_layer"] == table[BESIDE if BESIDE in table else "layer"]
        there &= ((table["other_layer"] == NO_LAYER) | (table["language"] == POOLED) | same).to_numpy()
    every = np.concatenate([d if d.shape[1] else np.full((len(d), count), np.nan) for d in draws])
    return table, as_kept(
        np.flatnonzero(there), np.concatenate(unseen)[there], every[there], np.concatenate(units)[there]
    )


def as_kept(row: np.ndarray, unseen: np.ndarray, draws: np.ndarray, units: np.ndarray | float = np.inf) -> xr.Dataset:
    """Return draws (row, draw) with the rows they belong to."""
    of_rows = {"unseen": ("row", unseen), "units": ("row", np.broadcast_to(np.asarray(units, float), len(row)))}
    return xr.Dataset({"draws": (("row", "draw"), draws), **of_rows}, coords={"row": row})


def to_bytes(kept: xr.Dataset) -> bytes:
    """Return draws as an array file of numpy: of each row its number, what is unseen, units, draws."""
    records = np.empty(kept.sizes["row"], _form(kept.sizes["draw"]))
    for name in ("row", "unseen", "units", "draws"):
        records[name] = kept[name].values
    buffer = io.BytesIO()
    np.save(buffer, records, allow_pickle=False)
    return buffer.getvalue()


def from_bytes(content: bytes, rows: int, name: object) -> xr.Dataset:
    """Return the draws that `to_bytes` made a file of; raise `InputError` where it is no such file.

    Args:
        content: of the file.
        rows: how many the table has.
        name: what messages call the file.
    """
    try:
        records = _records(content)
        kept = as_kept(records["row"], records["unseen"], records["draws"], records["units"])
        row = np.sort(records["row"])
        if len(row) and not 0 <= row[0] <= row[-1] < rows:
            raise ValueError("a row that the table has not")
        if (np.diff(row) == 0).any():
            raise ValueError("a row that comes twice")
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: expected the draws that Comparison.save writes, found another file ({said}). Save it again"
        ) from error
    return kept


def _records(content: bytes) -> np.ndarray:
    """What a file holds, whose header is held against its length before anything of that size is made."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("of another version")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    draws = kind["draws"].shape if kind.names and "draws" in kind.names else ()
    if len(draws) != 1 or len(shape) != 1 or kind != np.dtype(_form(*draws)):
        raise ValueError(f"an array of {kind}")
    there = len(content) - file.tell()
    if shape[0] * kind.itemsize != there:
        raise ValueError(f"{there:,} bytes for {shape[0]:,} rows of {kind.itemsize:,}")
    return np.frombuffer(content, kind, offset=file.tell()).copy()


def _form(draws: int) -> list[Any]:
    return [("row", "<i8"), ("unseen", "<f8"), ("units", "<f8"), ("draws", "<f8", (draws,))]


def _rows(result: xr.Dataset) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    dims = ["language", *(str(d) for d in result["value"].dims if d != "language")]
    shown = ["value", "low", "high", "n", *(c for c in COUNTS if c in result)]
    frame = result[shown].to_dataframe(dim_order=dims).reset_index()
    if "kind" in frame:  # the number of its layer, and what it is in that
        frame["module"] = frame["kind"]
    frame["model"], frame["probe"] = result.attrs["model"], result.attrs["probe"]
    draws = np.zeros((len(frame), 0))
    if "draws" in result:
        draws = result["draws"].transpose(*dims, "draw").values.reshape(len(frame), -1)
    nothing = xr.zeros_like(result["value"], float)
    unseen, units = (nothing + result.get(x, y) for x, y in (("unseen", 0.0), ("units", np.inf)))
    columns = [c for c in [*COLUMNS[:8], *FURTHER, *COUNTS] if c in COLUMNS or c in frame]
    beside = [x.transpose(*dims).values.ravel() for x in (unseen, units)]
    return frame.reindex(columns=columns), draws, *beside
