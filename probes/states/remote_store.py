"""Representations where nothing can be renamed, as on S3: a zarr store that grows in its place, and is whole by a mark
that is written last.
"""

from __future__ import annotations

import json
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import xarray as xr
import zarr

from probes.errors import InputError, LayerscopeWarning
from probes.forms import parse_json
from probes.remote import Address, exists, filesystem, going_on, locked_at, reached, read_at, sizes_at, write_at
from probes.states.chunks import GROWING
from probes.states.opened import as_zarr
from probes.states.representations import open_representations
from probes.states.store import Store, arrays_in
from probes.states.texts import write

# Attributes of a store that grows beside `GROWING`: which process writes, and how far it is.
_WRITER, _STAGE = "writer", "stage"
_LOOK = 5.0  # seconds between two looks at what other processes have written
_WINDOWS, _WRITTEN = "windows", "written"  # arrays and marks are there; all windows are written


class RemoteStore:
    """A zarr store that grows in its place, and has a fingerprint once it is whole.

    While it grows its own metadata say what it will be (`GROWING`); they are written before all
    else, and last, in one piece, with the fingerprint in place of that. `done` marks the windows
    that are written, as in `Store`, which does the same where there is a disk.
    """

    def __init__(self, url: str, fingerprint: str) -> None:
        """Raise `InputError` where the URL is of no kind of store that is known."""
        filesystem(url)
        self.path, self.fingerprint = url, fingerprint
        self._id = uuid.uuid4().hex
        self.partial = url  # it grows where it is
        self._written: set[str] = set()
        self._looked = 0.0
        self._marks: Any = None  # of windows; none where all of them are written

    def representations(self) -> xr.Dataset | None:
        """Return what is asked for, where the whole of it is there."""
        if self._attributes().get("fingerprint") != self.fingerprint:
            return None
        try:
            reps = open_representations(self.path)
        except InputError:
            if self._attributes().get("fingerprint") == self.fingerprint:
                raise
            return None  # another process is replacing it just now
        return reps if reps.attrs.get("fingerprint") == self.fingerprint else None

    @contextmanager
    def writing(self, *, wait: bool = True) -> Iterator[xr.Dataset | None]:
        """Hold the lock of the URL, or give the Representations where they are there, without it.

        Args:
            wait: as of `probes.remote.locked_at`.
        """
        ready = self.representations()
        if ready is not None:
            yield ready
            return
        with locked_at(self.path, wait=wait), going_on(self.path):
            ready = self.representations()  # which another process may have made meanwhile
            if ready is None:
                self.begin()
            yield ready

    def begin(self) -> None:
        """Warn where a store of something else is about to be replaced; refuse what is no store."""
        attributes = self._attributes()
        there = attributes.get("fingerprint") or attributes.get(GROWING)
        if there is None and (exists(self.path) or sizes_at(self.path)):
            raise InputError(
                f"{self.path} exists and is no store of Representations; it is left as it is. "
                "Choose another path for store="
            )
        if there not in (None, self.fingerprint):
            warnings.warn(
                f"{self.path} was captured from another model, corpus or settings; it is made anew",
                LayerscopeWarning,
                stacklevel=3,
            )

    def check_space(self, sizes: Mapping[str, tuple[int, ...]]) -> None:
        """Do nothing: such stores do not say how much room there is."""

    def open(self, dataset: xr.Dataset, sizes: Mapping[str, tuple[int, ...]], windows: int) -> dict[str, zarr.Array]:
        """Return the arrays to write into, with what an interrupted capture has written already."""
        store = as_zarr(self.path)
        about = self._read()
        stage = about["attributes"].get(_STAGE) if about["attributes"].get(GROWING) == self.fingerprint else None
        if stage in (_WINDOWS, _WRITTEN):
            group = zarr.open_group(store, mode="r+", zarr_format=3)
            there = {k: a for k in sizes if isinstance(a := group.get(k), zarr.Array) and a.shape == sizes[k]}
            self._marks = None if stage == _WRITTEN else group.get("done")
            if len(there) == len(sizes) and (stage == _WRITTEN or getattr(self._marks, "shape", None) == (windows,)):
                self._write(about, {_WRITER: self._id})
                self._written = self._marked()
                return there
        # First of all what lies there is whole no longer; then it is removed.
        growing = {GROWING: self.fingerprint, _WRITER: self._id, _STAGE: "begun"}
        self._write({"zarr_format": 3, "node_type": "group", "attributes": {}}, growing)
        self._remove(name for name in sizes_at(self.path) if name != "zarr.json")
        unnamed = dataset.copy()
        unnamed.attrs = {k: v for k, v in dataset.attrs.items() if k != "fingerprint"} | growing
        group = write(unnamed, store, mode="a")
        self._written = set()
        self._marks = group.create_array("done", shape=(windows,), dtype="uint8", chunks=(1,))
        arrays = arrays_in(group, sizes)
        self._write(self._read(), {_STAGE: _WINDOWS})
        return arrays

    def join(self, names: Iterable[str]) -> dict[str, zarr.Array]:
        """Return the arrays that another process has opened, to write into them as well."""
        group = zarr.open_group(as_zarr(self.path), mode="r+", zarr_format=3)
        self._marks = group.get("done")
        self._written = self._marked()
        return {name: cast(zarr.Array, group[name]) for name in names}

    def done(self, window: int) -> bool:
        """Whether a window is written, by whichever process; of others some seconds later."""
        mark = f"done/c/{window}"
        if self._marks is not None and mark not in self._written and time.monotonic() - self._looked > _LOOK:
            self._written = self._marked()
        return self._marks is None or mark in self._written

    def mark(self, window: int) -> None:
        """Note that a window is written."""
        self._marks[window] = 1

    def finish(self) -> xr.Dataset:
        """Say that the store is whole, and open it.

        Raises:
            InputError: another process has written there meanwhile.
        """
        about = self._read()
        if [about["attributes"].get(k) for k in (GROWING, _WRITER)] != [self.fingerprint, self._id]:
            raise InputError(
                f"{self.path}: another process has written there meanwhile, which no lock kept out. Capture again, to "
                "another path"
            )
        self._write(about, {_STAGE: _WRITTEN})
        self._remove(name for name in sizes_at(self.path) if name.startswith("done/"))
        about["attributes"] = {k: v for k, v in about["attributes"].items() if k not in (GROWING, _WRITER, _STAGE)}
        self._write(about, {"fingerprint": self.fingerprint})
        return open_representations(self.path)

    def _write(self, about: dict[str, Any], attributes: dict[str, str]) -> None:
        """Write the metadata of the store itself, with some attributes more, as one object."""
        whole = about | {"attributes": about["attributes"] | attributes}
        write_at(f"{self.path}/zarr.json", json.dumps(whole, indent=2).encode())

    def _read(self) -> dict[str, Any]:
        """The metadata of the store itself, of none where there is no group."""
        own = f"{self.path}/zarr.json"
        try:
            about = parse_json((read_at(own) or b"{}").decode("utf-8", "replace"), {"attributes?": (dict, None)}, own)
        except InputError:  # no metadata at all
            about = {}
        return about | {"attributes": about.get("attributes") or {}}

    def _attributes(self) -> dict[str, Any]:
        return self._read()["attributes"]

    def _marked(self) -> set[str]:
        """The windows that are written: a mark is there once it is no longer 0."""
        self._looked = time.monotonic()
        return {name for name in sizes_at(self.path) if name.startswith("done/c/")}

    def _remove(self, names: Iterable[str]) -> None:
        fs, path = filesystem(self.path)
        if names := [f"{path.rstrip('/')}/{name}" for name in names]:
            with reached(self.path, "written to"), suppress(FileNotFoundError):  # removed by another meanwhile
                fs.rm(names)


AnyStore = Store | RemoteStore


def store_at(address: Address, fingerprint: str) -> AnyStore:
    """Return what keeps Representations at an address."""
    return Store(address, fingerprint) if isinstance(address, Path) else RemoteStore(address, fingerprint)
