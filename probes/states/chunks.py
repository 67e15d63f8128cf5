"""The files of a store of Representations: whole, its own, as many as its metadata counts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zarr

from probes.errors import InputError
from probes.forms import check_form
from probes.remote import Address, read_json_at, sizes_at, within
from probes.states.opened import as_zarr

_SIZE = range(2**40)
_GROUP = {
    "attributes?": (
        {"fingerprint?": str, "model?": str, "weights?": str, "corpus?": str, "made_of?": ([range(10**6)], None)},
        None,
    )
}
_ARRAY = {"node_type": str, "shape": [_SIZE], "data_type": (str, dict), "chunk_grid": dict, "attributes?": dict}
# So many numbers an array may count beyond what lies on disk: chunks of nothing but the fill value are not written.
_FREE = 10**7
# What is written whole, chunks of nothing but NaN too.
STATES = ("hidden", "tokens", "logits", "head_input")
# The attribute of a store that grows in its place, since it is on what cannot rename: the fingerprint it will have.
GROWING = "growing"
_AGAIN = "Copy the store again, or remove it and capture again"


def check_chunks(store: Address) -> None:
    """Raise `InputError`, by name, where a file of a store is a link, missing, cut or longer than its
    chunk.

    Also where the metadata is of another form, or counts far more numbers than there are files for.

    Args:
        store: the folder of the store, or its URL. Where `capture` has not written it, chunks of
            nothing but the fill value may be missing.
    """
    attributes = read_json_at(within(store, "zarr.json"), _GROUP).get("attributes") or {}
    if GROWING in attributes:
        raise InputError(
            f"{store}: the store is not complete: a capture into it goes on, or was interrupted. Capture again, which "
            "goes on from there"
        )
    sizes = _sizes_of(store) if isinstance(store, Path) else sizes_at(store)
    captured = "fingerprint" in attributes and "done/zarr.json" not in sizes
    for name in sizes:
        folder, _, last = name.rpartition("/")
        about = read_json_at(within(store, name), {"node_type": str}) if last == "zarr.json" else {}
        if about.get("node_type") == "array":
            check_form(about, _ARRAY, str(within(store, name)))
            inside = f"{folder}/c" if folder else "c"
            own = {n: size for n, size in sizes.items() if n == inside or n.startswith(f"{inside}/")}
            _check_array(store, folder, own, captured)


def _sizes_of(store: Path) -> dict[str, int]:
    """The files of a folder by their path in it, and their bytes; a link is refused."""
    sizes = {}
    for folder, folders, files in os.walk(store):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink():
                raise InputError(
                    f"{path} is a link: expected a store whose files are its own. Copy what it leads to into its place"
                )
        for name in files:
            path = Path(folder) / name
            sizes[path.relative_to(store).as_posix()] = path.stat().st_size
    return sizes


def _check_array(store: Address, folder: str, sizes: Mapping[str, int], captured: bool) -> None:
    where = within(store, f"{folder}/zarr.json" if folder else "zarr.json")
    try:
        array = zarr.open_array(as_zarr(store), path=folder, mode="r", zarr_format=3)
    except Exception as error:  # several kinds, one for each way in which metadata can be wrong
        said = " ".join(str(error).split())
        raise InputError(f"{where}: not the metadata of an array ({said}). Capture it again") from error
    check_form(list(array.chunks), [range(1, 2**31)], f"{where}: chunks")
    chunk = math.prod(array.chunks)
    plain = not array.compressors and array.dtype.kind in "fiub"
    if captured and folder in STATES and not plain:
        raise InputError(f"{where}: expected states as capture writes them, plain numbers; found others. {_AGAIN}")
    for name, found in sorted(sizes.items()) if plain else ():
        expected = chunk * array.dtype.itemsize
        if found != expected:
            raise InputError(
                f"{within(store, name)}: expected a chunk of {expected:,} bytes, found {found:,}: it was "
                f"{'cut' if found < expected else 'changed'}. {_AGAIN}"
            )
    if math.prod(array.shape) > _FREE + 100 * chunk * len(sizes):
        raise InputError(
            f"{where}: counts {math.prod(array.shape):,} numbers, and there are files for "
            f"{chunk * len(sizes):,}. {_AGAIN}"
        )
    if captured and folder in STATES and len(sizes) < array.nchunks:
        keys = ("/".join([folder, "c", *map(str, key)]) for key in np.ndindex(*array.cdata_shape))
        lost = next(key for key in keys if key not in sizes)
        raise InputError(f"{within(store, lost)}: a chunk of states is missing. {_AGAIN}")
