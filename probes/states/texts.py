"""Texts beside states, which are read where they are needed: from a corpus, or from a store.

A text takes some hundred bytes, and probes do not look at it; ids, languages and labels take some ten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.storage import FsspecStore

# Columns of a corpus that are read where they are needed.
READ_LATER = ("text", "text_pair")


class Texts(BackendArray):
    """Texts as an array of Python strings that xarray reads some at a time.

    Args:
        read: from a slice, or from numbers of rows, to these texts.
        count: of all texts.
    """

    def __init__(self, read: Callable[[Any], Sequence[str] | np.ndarray], count: int) -> None:
        """Read nothing yet."""
        self._read, self.shape, self.dtype = read, (count,), np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._some)

    def _some(self, key: tuple[Any, ...]) -> np.ndarray:
        (rows,) = key
        one = not isinstance(rows, slice | np.ndarray)
        found = list(self._read([int(rows)] if one else rows))
        out = np.empty(len(found), dtype=object)
        out[:] = found
        return out.reshape(()) if one else out


def of_column(corpus: datasets.Dataset, column: str) -> xr.Variable:
    """Return a column of texts of a corpus, which stay where they lie.

    Example:
        >>> corpus = datasets.Dataset.from_dict({"text": ["A cat", "The red dog"]})
        >>> of_column(corpus, "text")[1:].values.tolist()
        ['The red dog']
    """
    return _later(partial(_of_column, corpus.select_columns([column]), column), len(corpus))


def of_store(texts: xr.Variable) -> xr.Variable:
    """Return texts that xarray reads from a store, as Python strings, which stay there."""
    return _later(partial(_of_store, texts), len(texts))


def write(dataset: xr.Dataset, store: Path | FsspecStore, **how: Any) -> zarr.Group:
    """Write a data set of coordinates into a zarr store, texts some at a time, and open it.

    Args:
        dataset: texts lie along `example`.
        store: where to.
        how: as `xarray.Dataset.to_zarr` takes it.
    """
    texts = {name: dataset[name].variable for name in READ_LATER if name in dataset.coords}
    # As it would be with all of them, but that each is empty: such chunks are not written.
    empty = {name: ("example", np.broadcast_to(np.array([""], dtype=object), len(of))) for name, of in texts.items()}
    dataset.assign_coords(empty).to_zarr(store, zarr_format=3, consolidated=False, **how)
    group = zarr.open_group(store, mode="r+", zarr_format=3)
    for name, values in texts.items():
        array = group[name]
        assert isinstance(array, zarr.Array)
        step = array.chunks[0]
        for start in range(0, len(values), step):
            array[start : start + step] = values[start : start + step].values
    return group


def _later(read: Callable[[Any], Sequence[str] | np.ndarray], count: int) -> xr.Variable:
    return xr.Variable("example", indexing.LazilyIndexedArray(Texts(read, count)))


def _of_column(corpus: datasets.Dataset, column: str, rows: Any) -> list[str]:
    return corpus[rows][column]


def _of_store(texts: xr.Variable, rows: Any) -> np.ndarray:
    return texts[rows].values
