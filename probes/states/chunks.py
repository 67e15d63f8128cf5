"""The files of a store of Representations: whole, its own, as many as its metadata counts."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from probes.errors import InputError
from probes.forms import check_form, read_json

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
_AGAIN = "Copy the store again, or remove it and capture again"


def check_chunks(store: Path) -> None:
    """Raise `InputError`, by name, where a file of a store is a link, missing, cut or longer than its
    chunk.

    Also where the metadata is of another form, or counts far more numbers than there are files for.

    Args:
        store: the folder of the store. Where `capture` has not written it, chunks of nothing but
            the fill value may be missing.
    """
    about = read_json(store / "zarr.json", _GROUP)
    captured = "fingerprint" in (about.get("attributes") or {}) and not (store / "done").exists()
    for folder, folders, files in os.walk(store):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path.is_symlink():
                raise InputError(
                    f"{path} is a link: expected a store whose files are its own. Copy what it leads to into its place"
                )
        metadata = Path(folder) / "zarr.json"
        if "zarr.json" in files and read_json(metadata, {"node_type": str})["node_type"] == "array":
            _check_array(Path(folder), read_json(metadata, _ARRAY), captured)


def _check_array(folder: Path, about: dict[str, Any], captured: bool) -> None:
    try:
        array = zarr.open_array(folder, mode="r")
    except Exception as error:  # several kinds, one for each way in which metadata can be wrong
        said = " ".join(str(error).split())
        raise InputError(f"{folder / 'zarr.json'}: not the metadata of an array ({said}). Capture it again") from error
    check_form(list(array.chunks), [range(1, 2**31)], f"{folder / 'zarr.json'}: chunks")
    files = sorted(p for p in (folder / "c").rglob("*") if p.is_file()) if (folder / "c").is_dir() else []
    files += [folder / "c"] if (folder / "c").is_file() else []
    chunk = math.prod(array.chunks)
    plain = not array.compressors and array.dtype.kind in "fiub"
    if captured and folder.name in STATES and not plain:
        raise InputError(
            f"{folder / 'zarr.json'}: expected states as capture writes them, plain numbers; found others. {_AGAIN}"
        )
    for path in files if plain else ():
        expected, found = chunk * array.dtype.itemsize, path.stat().st_size
        if found != expected:
            raise InputError(
                f"{path}: expected a chunk of {expected:,} bytes, found {found:,}: it was "
                f"{'cut' if found < expected else 'changed'}. {_AGAIN}"
            )
    if math.prod(array.shape) > _FREE + 100 * chunk * len(files):
        raise InputError(
            f"{folder / 'zarr.json'}: counts {math.prod(array.shape):,} numbers, and there are files for "
            f"{chunk * len(files):,}. {_AGAIN}"
        )
    if captured and folder.name in STATES and len(files) < array.nchunks:
        lost = next(
            key for key in np.ndindex(*array.cdata_shape) if not (folder / "c").joinpath(*map(str, key)).is_file()
        )
        raise InputError(f"{(folder / 'c').joinpath(*map(str, lost))}: a chunk of states is missing. {_AGAIN}")
