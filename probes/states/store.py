"""Representations on disk: a zarr store that grows beside its place, resumes, and is reused."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from probes.errors import InputError, LayerscopeWarning
from probes.files import (
    beside,
    check_moves,
    check_space,
    check_writable,
    leftovers,
    locked,
    move_whole,
    named,
    put_back,
    refused_in_words,
    remove,
)
from probes.states.representations import BLOCK, open_representations
from probes.states.texts import write

DIMS = {
    "hidden": ("layer", "example", "feature"),
    "tokens": ("layer", "token", "feature"),
    "logits": ("example", "class"),
    "head_input": ("example", "head_feature"),
    "several": ("example", "choice"),
    "words": ("word", "example", "tag"),
    "numbers": ("example", "number"),
}


class Store:
    """A zarr store that grows beside its place and is moved there when it is whole.

    Rows are captured a window at a time; `done` marks the windows that are written, so that an
    interrupted capture goes on with the first that is not. What grows is named by the fingerprint
    of what is captured, so that two models never write into one; only who holds the lock of the
    path (`probes.files.locked`) may write.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Raise `InputError` where the path can be none of a store."""
        # Where a link leads: the lock lies there, and it is the store that is replaced, not the link.
        self.path = Path(os.path.realpath(path))
        with refused_in_words(path):
            dangling = path.is_symlink() and not path.exists()
        if dangling:
            raise InputError(f"{path} is a link to {self.path}, which is not there. Choose another path for store=")
        self.partial = beside(self.path, f"{fingerprint}-partial")
        self.fingerprint = fingerprint
        self._done: Any = None  # marks of the windows; none where all are written

    def representations(self) -> xr.Dataset | None:
        """Return what is asked for, where the whole of it is there."""
        attributes = _attributes(self.path)
        if attributes is None or attributes["fingerprint"] != self.fingerprint:
            return None
        try:
            reps = open_representations(self.path)
        except InputError:
            if self.path.exists():
                raise
            return None  # another process is replacing it just now
        return reps if reps.attrs.get("fingerprint") == self.fingerprint else None

    @contextmanager
    def writing(self, *, wait: bool = True) -> Iterator[xr.Dataset | None]:
        """Hold the lock of the path, or give the Representations where they are there, without it.

        Args:
            wait: as of `probes.files.locked`.
        """
        ready = self.representations()
        if ready is not None:
            if leftovers(self.path):
                self._tidy()
            yield ready
            return
        check_writable(self.path.parent)
        with locked(self.path, wait=wait), named(self.path):
            ready = self.representations()  # which another process may have made meanwhile
            if ready is None:
                self.begin()
            yield ready

    def _tidy(self) -> None:
        """Remove what a kill left beside a store that is whole, unless a process writes there."""
        try:
            with locked(self.path, wait=False):
                put_back(self.path)
                for left in leftovers(self.path):
                    if left.name.endswith("-gone") or left == self.partial:
                        remove(left)
        except (InputError, OSError):  # or the folder is not ours to write to
            pass

    def begin(self) -> None:
        """Put right what a kill left; warn where a store of something else is about to be replaced.

        Raises:
            InputError: what lies at the path is no store of Representations.
        """
        put_back(self.path)
        attributes = _attributes(self.path)
        if attributes is not None:
            if attributes["fingerprint"] != self.fingerprint:
                warnings.warn(
                    f"{self.path} was captured from another model, corpus or settings; it is made anew",
                    LayerscopeWarning,
                    stacklevel=3,
                )
        elif any(p.name.endswith("-partial") and p != self.partial for p in leftovers(self.path)):
            warnings.warn(
                f"{self.path}: a capture of another model, corpus or settings was begun there and did not end. This "
                "one begins anew, and removes what that one wrote when it is whole",
                LayerscopeWarning,
                stacklevel=3,
            )
        elif self.path.exists():
            raise InputError(
                f"{self.path} exists and is no store of Representations; it is left as it is. "
                "Choose another path for store="
            )
        check_moves(self.path)

    def check_space(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `InputError` where the disk has not room for states of these sizes.

        What an interrupted capture has written of them is there already.
        """
        written = sum(path.stat().st_size for path in self.partial.rglob("*") if path.is_file())
        needed = sum(math.prod(size) for size in sizes.values()) * np.dtype(np.float32).itemsize
        check_space(self.path, needed - written, "the states")

    def open(self, dataset: xr.Dataset, sizes: Mapping[str, tuple[int, ...]], windows: int) -> dict[str, zarr.Array]:
        """Return the arrays to write into, with what an interrupted capture has written already."""
        self.check_space(sizes)
        attributes = _attributes(self.partial)
        if attributes is not None and attributes["fingerprint"] == self.fingerprint:
            group = zarr.open_group(self.partial, mode="r+")
            done, begun = group.get("done"), {k: group.get(k) for k in sizes}
            there = {k: a for k, a in begun.items() if isinstance(a, zarr.Array) and a.shape == sizes[k]}
            # The arrays are made after `done` was, so that all of them without it are whole.
            self._done = done if isinstance(done, zarr.Array) else None
            if len(there) == len(sizes) and (self._done is None or self._done.shape == (windows,)):
                for stray in self.partial.rglob("*.partial"):  # what zarr had not moved into place
                    stray.unlink()
                return there
        remove(self.partial)
        marks = xr.Dataset({"done": ("window", np.zeros(windows, np.uint8))})
        encoding = {"done": {"chunks": (1,)}}
        group = write(dataset.merge(marks).assign_attrs(dataset.attrs), self.partial, encoding=encoding)
        arrays = arrays_in(group, sizes)
        self._done = group.get("done")
        return arrays

    def join(self, names: Iterable[str]) -> dict[str, zarr.Array]:
        """Return the arrays that another process has opened, to write into them as well."""
        group = zarr.open_group(self.partial, mode="r+")
        self._done = group.get("done")
        found = {name: group[name] for name in names}
        return {name: array for name, array in found.items() if isinstance(array, zarr.Array)}

    def done(self, window: int) -> bool:
        """Whether a window is written."""
        return self._done is None or bool(self._done[window])

    def mark(self, window: int) -> None:
        """Note that a window is written."""
        self._done[window] = 1

    def finish(self) -> xr.Dataset:
        """Move the store into its place, remove what was left beside it, and open it."""
        if self._done is not None:
            # At once: where a part of it were left, what is captured would count as not captured.
            remove(beside(self.path, "gone"))
            (self.partial / "done").rename(beside(self.path, "gone"))
        move_whole(self.partial, self.path)
        for left in leftovers(self.path):
            if left.name.endswith(("-gone", "-partial")):  # of captures of whatever model
                remove(left)
        return open_representations(self.path)


def arrays_in(group: zarr.Group, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, zarr.Array]:
    """Make the arrays of states in a store, of these sizes."""
    return {
        k: group.create_array(
            k,
            shape=size,
            dtype="float32",
            fill_value=float("nan"),  # so that a file that gets lost is not read as zeros
            chunks=(*(1 for _ in size[:-2]), min(BLOCK, size[-2]), size[-1]),
            dimension_names=DIMS[k],
            compressors=None,  # floats of a network do not shrink
            config={"write_empty_chunks": True},  # also those of a layer without values: a missing one is lost
        )
        for k, size in sizes.items()
    }


def _attributes(path: Path) -> dict | None:
    """The attributes of a store of Representations, None where there is no such store."""
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
    except Exception:  # zarr raises several kinds for a folder that is no store of its
        return None
    return attributes if "fingerprint" in attributes else None
