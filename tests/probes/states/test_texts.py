"""Texts that are read where they are needed: the same as in memory, whatever is asked for, and as they were written."""

import pickle

import datasets
import numpy as np
import pytest
import xarray as xr
import zarr

from probes.states import texts

WORDS = ["the cat ø", "中文 句子", "جملة عربية", "", "e\u0301 \u202e right", "𝔘𝔫𝔦 🙂", '<b>"&\\ \t x']


def in_memory():
    out = np.empty(len(WORDS), dtype=object)
    out[:] = WORDS
    return xr.Variable("example", out)


def of_store(folder):
    xr.Dataset(coords={"text": in_memory()}).to_zarr(folder, zarr_format=3, consolidated=False)
    return texts.of_store(xr.open_zarr(folder, chunks=None, consolidated=False, zarr_format=3)["text"].variable)


@pytest.fixture(params=["corpus", "selected", "store"])
def later(request, tmp_path):
    if request.param == "store":
        return of_store(tmp_path / "s.zarr")
    if request.param == "selected":
        return texts.of_column(datasets.Dataset.from_dict({"text": WORDS[::-1]}).select(range(7)[::-1]), "text")
    return texts.of_column(datasets.Dataset.from_dict({"text": WORDS, "more": range(7)}), "text")


ROWS = [slice(None), slice(2, 5), slice(None, None, -2), [5, 0, 5], np.array([-1, 3]), np.arange(7) % 2 == 0, 4, -2, []]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_what_is_asked_for_is_that_of_an_array_in_memory(later, rows):
    found, expected = later[rows], in_memory()[rows]
    assert found.dims == expected.dims
    assert found.dtype == found.values.dtype == np.dtype(object) if found.ndim else found.dtype == object
    assert found.values.tolist() == expected.values.tolist() if found.ndim else found.values[()] == expected.values[()]


def test_only_what_is_asked_for_is_read():
    read = []
    of = xr.Variable(
        "example", xr.core.indexing.LazilyIndexedArray(texts.Texts(lambda rows: read.append(rows) or ["a"], 9))
    )
    reps = xr.Dataset({"hidden": ("example", np.zeros(9))}, coords={"text": of}).assign_attrs(model="m")
    some = reps.isel(example=slice(3, 7)).isel(example=[2])
    assert repr(some)
    assert read == []
    assert some.text.values.tolist() == ["a"]
    assert np.array_equal(read, [[5]])


def test_they_go_to_other_processes(later):
    assert pickle.loads(pickle.dumps(later))[1:3].values.tolist() == WORDS[1:3]


def test_what_is_written_some_at_a_time_is_what_xarray_writes(tmp_path, monkeypatch):
    about = {"layer": np.arange(2), "id": ("example", in_memory().values), "text": in_memory()}
    dataset = xr.Dataset(coords=about, attrs={"model": "m"})
    dataset.to_zarr(tmp_path / "whole", zarr_format=3, consolidated=False)
    corpus = datasets.Dataset.from_dict({"text": WORDS})
    texts.write(dataset.assign_coords(text=texts.of_column(corpus, "text")), tmp_path / "pieces")

    def contents(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")
    # Of chunks of three.
    made = xr.Dataset.to_zarr
    encoding = {"text": {"chunks": (3,)}}
    monkeypatch.setattr(xr.Dataset, "to_zarr", lambda self, *a, **how: made(self, *a, **how, encoding=encoding))
    group = texts.write(dataset, tmp_path / "chunks")
    assert (group["text"].chunks, list(group["text"][:])) == ((3,), WORDS)
    assert zarr.open_group(tmp_path / "chunks", mode="r")["id"].chunks == (7,)
