"""What is opened is read only as long as it is there: elsewhere as on a disk."""

import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from probes.errors import InputError
from probes.remote import read_at, write_at
from probes.states.opened import as_zarr, opened


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_a_store_is_read_until_its_own_metadata_are_written_anew_or_gone(tmp_path, monkeypatch, place):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    address = tmp_path / "s.zarr" if place == "disk" else "memory://bucket/s.zarr"
    numbers = np.arange(6.0)
    zarr.create_group(as_zarr(address), zarr_format=3).create_array("x", data=numbers)
    own = address / "zarr.json" if place == "disk" else f"{address}/zarr.json"
    for change in ("written anew", "gone"):
        store = opened(address)
        array = zarr.open_array(store, path="x", mode="r", zarr_format=3)
        np.testing.assert_array_equal(array[:], numbers)
        whole = read_at(own)
        if change == "written anew":
            write_at(own, whole + b" ")
        elif place == "disk":
            own.unlink()
        else:
            MemoryFileSystem().rm_file("/bucket/s.zarr/zarr.json")
        said = r"s\.zarr: the store was replaced or removed after it was opened"
        with pytest.raises(InputError, match=said):
            array[:]
        with pytest.raises(InputError, match=said):
            sync(store.get_partial_values(default_buffer_prototype(), [("x/c/0", None)]))
        write_at(own, whole)
