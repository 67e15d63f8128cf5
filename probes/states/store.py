"""Representations on disk: a zarr store that grows beside its place, resumes, and is reused."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import xarray as xr
import zarr

from probes.errors import InputError, LayerscopeWarning
from probes.states.representations import BLOCK

DIMS = {
    "hidden": ("layer", "example", "feature"),
    "logits": ("example", "class"),
    "head_input": ("example", "head_feature"),
}


class Store:
    """A zarr store that grows beside its place and is moved there when it is whole.

    Rows are captured a window at a time; `done` marks the windows that are written, so that an
    interrupted capture goes on with the first that is not.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Raise `InputError` where something else lies at the path, or it cannot be written to."""
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.fingerprint = fingerprint
        # What an interruption leaves may lack its attributes still, but nothing that is no zarr store is of our making.
        begun = (self.partial / "zarr.json").is_file() or (self.partial.is_dir() and not any(self.partial.iterdir()))
        for place, ours in ((path, _attributes(path) is not None), (self.partial, begun)):
            if place.exists() and not ours:
                raise InputError(
                    f"{place} exists and is no store of Representations; it is left as it is. "
                    "Choose another path for store="
                )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written to ({error.strerror}). Choose another path for store="
            ) from error

    def complete(self) -> bool:
        """Whether the whole of what is asked for is there; warn where something else is."""
        attributes = _attributes(self.path)
        if attributes is None:
            return False
        if attributes["fingerprint"] == self.fingerprint:
            return True
        warnings.warn(
            f"{self.path} was captured from another model, corpus or settings; it is made anew",
            LayerscopeWarning,
            stacklevel=4,
        )
        return False

    def open(self, dataset: xr.Dataset, sizes: Mapping[str, tuple[int, ...]], window: int) -> dict[str, zarr.Array]:
        """Return the arrays to write into, with what an interrupted capture has written already."""
        attributes = _attributes(self.partial)
        examples = sizes["hidden"][1]
        windows = -(-examples // window)
        if attributes is not None and attributes["fingerprint"] == self.fingerprint:
            group = zarr.open_group(self.partial, mode="r+")
            done, begun = group.get("done"), {k: group.get(k) for k in sizes}
            there = {k: a for k, a in begun.items() if isinstance(a, zarr.Array) and a.shape == sizes[k]}
            if isinstance(done, zarr.Array) and done.shape == (windows,) and len(there) == len(sizes):
                self._done = done
                return there
        if self.partial.exists():
            shutil.rmtree(self.partial)
        dataset.to_zarr(self.partial, zarr_format=3, consolidated=False)
        group = zarr.open_group(self.partial, mode="r+")
        arrays = {
            k: group.create_array(
                k,
                shape=size,
                dtype="float32",
                fill_value=float("nan"),  # so that a file that gets lost is not read as zeros
                chunks=(*(1 for _ in size[:-2]), min(BLOCK, examples), size[-1]),
                dimension_names=DIMS[k],
                compressors=None,  # floats of a network do not shrink
            )
            for k, size in sizes.items()
        }
        self._done = group.create_array(
            "done", shape=(windows,), dtype="uint8", chunks=(1,), dimension_names=("window",)
        )
        return arrays

    def done(self, window: int) -> bool:
        """Whether a window is written."""
        return bool(self._done[window])

    def mark(self, window: int) -> None:
        """Note that a window is written."""
        self._done[window] = 1

    def finish(self) -> None:
        """Move the store into its place."""
        del zarr.open_group(self.partial, mode="r+")["done"]
        if self.path.exists():
            shutil.rmtree(self.path)
        self.partial.replace(self.path)


def _attributes(path: Path) -> dict | None:
    """The attributes of a store of Representations, None where there is no such store."""
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except Exception:  # zarr raises several kinds for a folder that is no store of its
        return None
    return attributes if "fingerprint" in attributes else None
