"""Representations: an `xarray.Dataset` of pooled hidden states, `hidden (layer, example, feature)`.

Coordinates on `example`: `id`, `language`, `text` and, where the corpus has them, `label`,
`text_pair`, `split`, `group`. In memory, or on disk as a zarr store that is read in pieces, so that
memory does not grow with the corpus.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr

from probes.corpus import check_groups
from probes.errors import InputError, address_of
from probes.remote import exists, within
from probes.states.chunks import check_chunks
from probes.states.opened import opened
from probes.states.texts import READ_LATER, of_store

# Rows that are read or written together; also the chunk of the zarr store, so that a piece is one file a layer.
BLOCK = 1024
_NAMES = 2**17  # different values of a coordinate that are in memory once each
_SMALL = 2**21  # numbers of a layer that is read at once
# The coordinate (layer, feature) of what `without_outliers` leaves out.
LEFT_OUT = "left_out"


def from_arrays(
    hidden: npt.ArrayLike,
    *,
    id: npt.ArrayLike | None = None,
    language: npt.ArrayLike | None = None,
    label: npt.ArrayLike | None = None,
    text: npt.ArrayLike | None = None,
    group: npt.ArrayLike | None = None,
    name: str = "arrays",
) -> xr.Dataset:
    """Make Representations of bare arrays, for hidden states that were computed elsewhere.

    Args:
        hidden: (layer, example, feature), or (example, feature) for one layer.
        id: (example,) the same id = translations of one sentence; by default every row is a
            sentence of its own.
        language: (example,) by default "und" (undetermined) for all.
        label, text: (example,) where there are any.
        group: (example,) what sentences share that are not independent (an article, a document, a
            template), where there is such a thing: error bars and folds keep it together.
        name: what the model is called in tables and messages.

    Raises:
        InputError: the lengths differ; there is no row; the same (id, language) comes twice;
            an id lies in two groups.

    Example:
        >>> reps = from_arrays(np.eye(4), label=[0, 0, 1, 1])
        >>> dict(reps.sizes)
        {'layer': 1, 'example': 4, 'feature': 4}
    """
    try:
        values = as_numbers(hidden)
    except (ValueError, RuntimeError) as error:  # numpy's and torch's, for layers of several shapes
        raise InputError(f"expected hidden states of shape (layer, example, feature); {error}") from error
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(
            f"expected hidden states of shape (layer, example, feature), none of them 0; found {np.shape(hidden)}"
        )
    if values.dtype.kind not in "fiub":
        raise InputError(f"expected hidden states that are real numbers; found {values.dtype}")
    n = values.shape[1]
    coordinates = {
        "id": np.arange(n) if id is None else id,
        "language": np.full(n, "und") if language is None else language,
        "text": np.full(n, "") if text is None else text,
        "label": label,
        "group": group,
    }
    for key in ("id", "language", "label", "group"):
        null = np.flatnonzero(pd.isna(np.asarray(coordinates[key], dtype=object)).ravel())
        if coordinates[key] is not None and len(null):
            raise InputError(f"{key} is null in row {null[0]}. Every row needs one: fill it, or drop the row")
    if np.isin("pooled", np.asarray(coordinates["language"], dtype=object)):
        raise InputError("the language code 'pooled' is kept for all languages together. Rename it")
    reps = _dataset(values, {k: as_strings(v) for k, v in coordinates.items() if v is not None})
    twice = pd.DataFrame({k: reps[k].values for k in ("id", "language")}).duplicated()
    if twice.any():
        i = int(np.flatnonzero(twice)[0])
        raise InputError(
            f"row {i}: id {reps.id.values[i]!r} comes twice in language {reps.language.values[i]!r}. "
            "An id stands for one sentence: give each its own, and the same id to its translations only"
        )
    if group is not None:
        check_groups(reps["id"].values, reps["group"].values, "group")
    reps.attrs["model"] = name
    return reps


def open_representations(path: str | Path) -> xr.Dataset:
    """Open a zarr store that `capture` wrote; hidden states and texts are read when they are needed.

    Args:
        path: of a folder, or a URL that fsspec reaches, as s3://bucket/states.zarr.

    Raises:
        InputError: there is no complete store of Representations at the path.

    Example:
        >>> import tempfile
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = f"{folder}/states.zarr"
        ...     _ = probes.capture(model, tokenizer, corpus, store=store, progress=False)
        ...     open_representations(store).hidden.load().sizes["example"]
        8
    """
    place = address_of(path, "path")
    if not exists(within(place, "zarr.json")):
        raise InputError(f"{path}: expected a zarr store that probes.capture(..., store=...) wrote, found none")
    check_chunks(place)
    try:
        reps = xr.open_zarr(opened(place), chunks=None, consolidated=False, zarr_format=3)
    except Exception as error:  # xarray and zarr raise several kinds for a store that is not one of groups and arrays
        raise InputError(f"{path}: the store cannot be opened ({type(error).__name__}: {error})") from error
    if "hidden" not in reps or "done" in reps:
        raise InputError(f"{path}: the store is not complete or not one of Representations. Capture it again")
    # Ids, languages and labels are small and every probe needs them; `hidden` and texts stay on disk.
    named = {
        c: in_once(reps[c].dims, as_strings(reps[c].values)) for c in reps.coords if c not in ("layer", *READ_LATER)
    }
    reps = reps.assign_coords(named | {c: of_store(reps[c].variable) for c in READ_LATER if c in reps.coords})
    reps.encoding["source"] = os.path.abspath(place) if isinstance(place, Path) else place
    return reps


def check_representations(reps: xr.Dataset) -> xr.Dataset:
    """Raise `InputError` where a data set does not have the form that `capture` and `from_arrays`
    give it.
    """
    if (
        not isinstance(reps, xr.Dataset)
        or "hidden" not in reps
        or reps["hidden"].dims != ("layer", "example", "feature")
    ):
        found = dict(reps.sizes) if isinstance(reps, xr.Dataset) else type(reps).__name__
        raise InputError(
            f"expected Representations: an xarray.Dataset with hidden (layer, example, feature); found {found}. "
            "Make them with probes.capture(...) or probes.from_arrays(...)"
        )
    missing = [c for c in ("id", "language") if c not in reps.coords]
    if missing:
        raise InputError(
            f"Representations without the coordinate {missing[0]!r} on example. Make them with probes.capture(...)"
        )
    return reps


def states(reps: xr.Dataset, layer: int, rows: slice | np.ndarray) -> np.ndarray:
    """Return the states (rows, feature) of one layer (by position) in float64: sums over them are
    long.
    """
    # The bare variable: indexing the array would index every text beside it. By both at once would take longer.
    x = reps["hidden"].variable[layer][rows].values.astype(np.float64)
    if LEFT_OUT in reps.coords:
        x[:, reps[LEFT_OUT].values[layer]] = 0.0
    return x


def left_out_in_words(reps: xr.Dataset) -> str:
    """Return which features of which layers are left out, "" where none is.

    Example:
        >>> reps = from_arrays(np.eye(3)).assign_coords(left_out=(("layer", "feature"), [[False, True, True]]))
        >>> left_out_in_words(reps)
        'layer 0: features 1, 2'
    """
    if LEFT_OUT not in reps.coords:
        return ""
    found = zip(reps["layer"].values, reps[LEFT_OUT].values, strict=True)
    return "; ".join(f"layer {layer}: features {', '.join(map(str, np.flatnonzero(out)))}" for layer, out in found)


def directions(reps: xr.Dataset, layer: int, rows: slice | np.ndarray) -> np.ndarray:
    """Return the states (rows, feature) of one layer (by position) at unit length; NaN where a
    state is all zero.
    """
    x = states(reps, layer, rows)
    with np.errstate(invalid="ignore", divide="ignore"):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def rows_of(
    reps: xr.Dataset, layer: int, read: Callable[[xr.Dataset, int, slice | np.ndarray], np.ndarray] = states
) -> Callable[[slice | np.ndarray], np.ndarray]:
    """Return what reads some rows of one layer again and again: `states`, or `directions`. A small
    layer is read once; a slice of rows is not to be changed.
    """
    if reps.sizes["example"] * reps.sizes["feature"] <= _SMALL:
        return read(reps, layer, slice(None)).__getitem__
    return partial(read, reps, layer)


def as_numbers(values: npt.ArrayLike) -> np.ndarray:
    """Return an array, a tensor or a list of them as a numpy array.

    Tensors may lie on a device, carry a gradient, or have a type that numpy does not know
    (bfloat16, float8), which comes back in float32, as that of a numpy array of such a type does.

    Example:
        >>> as_numbers(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).dtype
        dtype('float32')
    """
    given: Any = values
    if isinstance(given, list | tuple) and given and all(isinstance(v, torch.Tensor) for v in given):
        given = torch.stack([v.detach().cpu() for v in given])
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        small = given.is_floating_point() and (given.dtype == torch.bfloat16 or given.dtype.itemsize == 1)
        return (given.float() if small else given).numpy()
    array = np.asarray(given)
    # Types of other packages, as those of ml_dtypes, are void to numpy; a structure of several fields is no number.
    return array.astype(np.float32) if array.dtype.kind == "V" and array.dtype.type is not np.void else array


def as_strings(values: npt.ArrayLike, known: dict[str, str] | None = None) -> np.ndarray:
    """Return values as a one-dimensional array of Python strings, which pandas groups and zarr
    stores as text. Of not too many different ones, as languages, or ids in many languages, each is
    in memory once, also of several arrays that share what is `known`.
    """
    # Not by way of an array of numpy's strings: those are all as long as the longest.
    flat = list(values) if isinstance(values, Sequence) else np.asarray(values).ravel().tolist()
    out = np.empty(len(flat), dtype=object)
    known = {} if known is None else known
    out[:] = [known.setdefault(t, t) if len(known) < _NAMES else known.get(t, t) for t in map(str, flat)]
    return out


def _dataset(hidden: np.ndarray, coordinates: dict[str, np.ndarray]) -> xr.Dataset:
    n = hidden.shape[1]
    for name, values in coordinates.items():
        if len(values) != n:
            raise InputError(f"{name}: expected {n} values, one a row of the hidden states; found {len(values)}")
    return xr.Dataset(
        {"hidden": (("layer", "example", "feature"), hidden)},
        coords={"layer": np.arange(hidden.shape[0])} | {k: in_once("example", v) for k, v in coordinates.items()},
    )


def in_once(dims: Hashable, texts: np.ndarray) -> xr.Variable:
    """Return Python strings as xarray takes them, in memory as often as they are; by itself it makes each
    of them anew.

    Example:
        >>> en = "english"
        >>> texts = as_strings([en, "french", en])
        >>> all(text is en for text in in_once("example", texts).values[[0, 2]])
        True
    """
    out = xr.Variable(dims, np.empty(len(texts), dtype=object))
    out.values[:] = texts
    return out


def aligned(x: xr.Dataset, y: xr.Dataset) -> xr.Dataset:
    """Return y with its examples in the order of x, found by id and language.

    Raises:
        InputError: one holds sentences that the other does not.
    """
    by = [[check_representations(r)[c].values for c in ("id", "language")] for r in (x, y)]
    if all(np.array_equal(one, other) for one, other in zip(*by, strict=True)):
        return y
    keys = [list(zip(*columns, strict=True)) for columns in by]
    place = {key: i for i, key in enumerate(keys[1])}
    lacking = [k for k in keys[0] if k not in place]
    extra = set(keys[1]).difference(keys[0])
    if lacking or extra:
        names = [r.attrs.get("model", "?") for r in (x, y)]
        count, (id, language), there, not_there = (
            (len(lacking), lacking[0], *names) if lacking else (len(extra), min(extra), *reversed(names))
        )
        raise InputError(
            f"the two hold different sentences: {count} of model {there!r} (first: id {id!r}, language {language!r}) "
            f"are not among those of model {not_there!r}. Capture both on one corpus"
        )
    return y.isel(example=[place[k] for k in keys[0]])


def check_enough(reps: xr.Dataset, fewest: int, probe: str) -> None:
    """Raise `InputError` where a language has fewer examples than a probe needs."""
    languages, counts = np.unique(check_representations(reps)["language"].values, return_counts=True)
    for language, count in zip(languages, counts, strict=True):
        if count < fewest:
            raise InputError(
                f"{probe}: language {language!r} has {count} example{'' if count == 1 else 's'}, and needs at least "
                f"{fewest}. Give more, or drop the language"
            )
