"""Stores whose files are cut, longer, links, or fewer than their metadata counts: refused by name."""

import json
import os
import re

import numpy as np
import pytest
import zarr

import probes
from probes.errors import InputError
from probes.states.chunks import check_chunks


@pytest.fixture
def store(tmp_path):
    reps = probes.from_arrays(np.random.default_rng(0).normal(size=(2, 6, 4)), text=list("abcdef"))
    path = tmp_path / "s.zarr"
    plain = {"hidden": {"compressors": None, "chunks": (1, 4, 4)}}
    reps.to_zarr(path, zarr_format=3, consolidated=False, encoding=plain)
    return path


def chunk_of(store):
    return sorted(p for p in (store / "hidden" / "c").rglob("*") if p.is_file())[0]


def refused(store):
    with pytest.raises(InputError) as caught:
        probes.open_representations(store)
    return str(caught.value)


def changed(store, name, **keys):
    path = store / name / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_a_store_as_it_was_written_is_opened(store):
    check_chunks(store)
    assert probes.open_representations(store).sizes["example"] == 6


def test_chunks_that_are_cut_or_longer_are_named(store):
    path = chunk_of(store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    assert refused(store).startswith(f"{path}: expected a chunk of 128 bytes, found 125: it was cut")
    path.write_bytes(whole + b"x")
    assert refused(store).startswith(f"{path}: expected a chunk of 128 bytes, found 129: it was changed")


@pytest.mark.parametrize("what", ["chunk", "folder"])
def test_links_are_named(store, tmp_path, what):
    path = chunk_of(store) if what == "chunk" else store / "hidden" / "c" / "1"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert refused(store).startswith(f"{path} is a link: expected a store whose files are its own")


def test_a_chunk_of_nothing_but_the_fill_value_may_be_missing(store):
    os.remove(chunk_of(store))
    check_chunks(store)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("hidden", {"shape": [10**6, 10**6, 10**6]}, r"hidden/zarr\.json: counts 1,000,000,000,000,000,000 numbers"),
        ("text", {"shape": [10**9]}, r"text/zarr\.json: counts 1,000,000,000 numbers, and there are files for"),
        ("hidden", {"shape": ["2", 6, 4]}, r"hidden/zarr\.json\['shape'\]\[0\]: expected a whole number"),
        ("hidden", {"shape": [2, -6, 4]}, r"hidden/zarr\.json\['shape'\]\[1\]: expected a whole number"),
        ("hidden", {"data_type": "no type"}, r"hidden/zarr\.json: not the metadata of an array"),
        ("hidden", {"chunk_grid": {}}, r"hidden/zarr\.json: not the metadata of an array"),
        ("", {"node_type": 3}, r"zarr\.json\['node_type'\]: expected a text, found 3"),
    ],
)
def test_metadata_that_the_files_do_not_bear_out_is_refused(store, name, keys, message):
    changed(store, name, **keys)
    assert re.search(message, refused(store))


def test_metadata_that_is_no_json_is_named(store):
    (store / "hidden" / "zarr.json").write_text("{")
    assert "hidden/zarr.json: not readable as JSON" in refused(store)


def test_arrays_without_numbers_are_none_of_ours(store):
    group = zarr.open_group(store, mode="r+")
    group.create_array("more", shape=(), dtype="float64")[...] = 1.0
    check_chunks(store)
