"""Stores where nothing is renamed: they hold what a disk holds, resume, and are whole or not at all."""

import fsspec
import numpy as np
import pytest
import torch
import xarray as xr
from capturing import LONG, capture, count_rows, make_corpus
from fsspec.implementations.memory import MemoryFileSystem
from on_s3 import allowed, server
from ranked import together

import probes
from probes.remote import read_at, sizes_at, write_at
from probes.states.remote_store import RemoteStore, store_at
from probes.states.representations import as_strings
from probes.states.store import Store


@pytest.fixture(scope="module")
def s3():
    with server() as address:
        yield address


@pytest.fixture
def url(request, monkeypatch):
    """A place of its own for each test: in memory, or on the kind of store that a test asks for."""
    kind = getattr(request, "param", "memory")
    if kind == "memory":
        monkeypatch.setattr(MemoryFileSystem, "store", {})
    else:
        request.getfixturevalue("s3")
    return f"{kind}://bucket/{request.node.originalname}/s.zarr"


@pytest.fixture
def bert(tiny_models):
    return tiny_models("BertForSequenceClassification", num_hidden_layers=1)


@pytest.fixture
def windows(monkeypatch):
    """Twelve rows in windows of four."""
    monkeypatch.setattr("probes.states.store.BLOCK", 4)
    monkeypatch.setattr("probes.states.capture._WINDOW", 4)
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(12)])


def contents(url):
    return {name: read_at(f"{url}/{name}") for name in sizes_at(url)}


def test_a_store_elsewhere_holds_what_a_disk_holds_and_is_reused(bert, tokenizer, windows, tmp_path, url, monkeypatch):
    disk = capture(bert, tokenizer, windows, store=tmp_path / "s.zarr").load()
    stored = capture(bert, tokenizer, windows, store=url)
    for reps in (stored, probes.open_representations(url)):
        assert reps.encoding["source"] == url
        xr.testing.assert_identical(reps.load(), disk)
    # The same files too, but for one, which says the same in another order: a copy on a disk is opened as any store.
    fs, path = fsspec.url_to_fs(url)
    fs.get(path, str(tmp_path / "copy.zarr"), recursive=True)
    files = [
        {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "s.zarr", tmp_path / "copy.zarr")
    ]
    states = [{k: v for k, v in of.items() if "/c/" in k and k[0] in "hlt"} for of in files]
    assert states[0] == states[1]
    assert files[0].keys() == files[1].keys()
    xr.testing.assert_identical(probes.open_representations(tmp_path / "copy.zarr").load(), disk)
    seen = count_rows(bert, monkeypatch)
    again = capture(bert, tokenizer, windows, store=url, name="two")
    xr.testing.assert_identical(again.load(), disk.assign_attrs(model="two"))
    assert seen == []
    assert sizes_at(url.removesuffix("/s.zarr")).keys() == {f"s.zarr/{name}" for name in sizes_at(url)}


def test_two_processes_write_what_one_does(bert, tokenizer, windows, tmp_path, s3):
    capture(bert, tokenizer, windows, store=tmp_path / "s.zarr")
    url = "s3://bucket/two/s.zarr"

    def work(rank):
        seen = []
        bert.register_forward_pre_hook(lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True)
        capture(bert, tokenizer, windows, store=url)
        return sum(seen)

    # Two windows of four and one, and one text each to see of what size states are.
    assert together(work, 2) == [("done", 9), ("done", 5)]
    one = {str(p.relative_to(tmp_path / "s.zarr")): p for p in (tmp_path / "s.zarr").rglob("*") if p.is_file()}
    two = contents(url)
    assert one.keys() == two.keys()
    assert all(two[name] == path.read_bytes() for name, path in one.items() if "/c/" in name)


@pytest.mark.parametrize("url", ["memory", "s3"], indirect=True)
def test_an_interrupted_capture_goes_on_where_it_stopped(bert, tokenizer, windows, url, monkeypatch):
    expected = capture(bert, tokenizer, windows)
    with monkeypatch.context() as patched:
        count_rows(bert, patched, 5)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, windows, store=url)
    with pytest.raises(probes.InputError, match=rf"{url}: the store is not complete: a capture into it goes on, or"):
        probes.open_representations(url)
    seen = count_rows(bert, monkeypatch)
    resumed = capture(bert, tokenizer, windows, store=url)
    assert sum(seen) == 1 + 12 - 4
    assert sizes_at(url.removesuffix("/s.zarr")).keys() == {f"s.zarr/{name}" for name in sizes_at(url)}
    np.testing.assert_allclose(resumed.hidden, expected.hidden, atol=1e-5)
    assert not any(name.startswith("done") for name in sizes_at(url))


def test_what_another_model_left_is_made_anew_and_said_so(bert, tokenizer, windows, url, monkeypatch):
    first = capture(bert, tokenizer, windows, store=url)
    first.load()
    read_later = probes.open_representations(url)
    with torch.no_grad():
        bert.bert.embeddings.LayerNorm.bias += 1
    with monkeypatch.context() as patched:
        count_rows(bert, patched, 5)
        with (
            pytest.warns(probes.LayerscopeWarning, match=rf"{url} was captured from another model"),
            pytest.raises(KeyboardInterrupt),
        ):
            capture(bert, tokenizer, windows, store=url)
    with pytest.raises(probes.InputError, match=r"s\.zarr: the store was replaced or removed after it was opened"):
        read_later.hidden.load()
    expected = capture(bert, tokenizer, windows)
    np.testing.assert_allclose(capture(bert, tokenizer, windows, store=url).hidden, expected.hidden, atol=1e-5)
    assert np.abs(expected.hidden.values - first.hidden.values).max() > 0.1


@pytest.mark.parametrize("name", ["", "/mine.txt", "/zarr.json"])
def test_what_is_no_store_is_left_as_it_was(bert, tokenizer, windows, url, name, monkeypatch):
    url = f"{url}{name.strip('/')}"
    write_at(f"{url}{name}", b"mine")
    seen = count_rows(bert, monkeypatch)
    with pytest.raises(probes.InputError, match=r"exists and is no store of Representations; it is left as it is"):
        capture(bert, tokenizer, windows, store=url)
    assert read_at(f"{url}{name}") == b"mine"
    assert seen == []


def test_files_that_are_missing_or_cut_are_named(bert, tokenizer, windows, url):
    capture(bert, tokenizer, windows, store=url)
    chunk = f"{url}/hidden/c/1/0/0"
    whole = read_at(chunk)
    write_at(chunk, whole[:-3])
    with pytest.raises(probes.InputError, match=rf"{chunk}: expected a chunk of {len(whole)} bytes, found"):
        probes.open_representations(url)
    fs, path = fsspec.url_to_fs(chunk)
    fs.rm(path)
    with pytest.raises(probes.InputError, match=rf"{chunk}: a chunk of states is missing\. Copy the store again"):
        probes.open_representations(url)


def test_no_permission_is_one_message_before_the_first_pass(bert, tokenizer, windows, s3, monkeypatch):
    url = "s3://bucket/denied/s.zarr"
    seen = count_rows(bert, monkeypatch)
    said = rf"{url} cannot be written to \(Access Denied\)\. Check the address, the credentials and what they allow"
    with allowed(s3, "s3:GetObject", "s3:ListBucket"), pytest.raises(probes.InputError, match=said):
        capture(bert, tokenizer, windows, store=url)
    with pytest.raises(
        probes.InputError, match=r"no-such/s\.zarr cannot be written to \(The specified bucket does not"
    ):
        capture(bert, tokenizer, windows, store="s3://no-such/s.zarr")
    assert seen == []
    assert sizes_at(url) == {}


def test_a_store_that_is_lost_on_the_way_is_said_and_resumes(bert, tokenizer, windows, monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    url, write = "memory://bucket/lost/s.zarr", MemoryFileSystem.pipe_file

    def lost(self, path, *given, **how):
        if path.endswith("hidden/c/0/1/0"):
            raise ConnectionError("the network is down")
        return write(self, path, *given, **how)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", lost)
        with pytest.raises(
            probes.InputError, match=rf"{url} cannot be written to any more \(the network is down\)\. What was captured"
        ):
            capture(bert, tokenizer, windows, store=url)
    seen = count_rows(bert, monkeypatch)
    capture(bert, tokenizer, windows, store=url)
    assert sum(seen) == 1 + 12 - 4


def test_a_path_is_kept_on_a_disk_and_a_url_elsewhere(tmp_path):
    assert isinstance(store_at(tmp_path / "s.zarr", "f"), Store)
    assert isinstance(store_at("memory://bucket/s.zarr", "f"), RemoteStore)


class Killed(BaseException):
    """As a kill: nothing is put right on the way."""


class Changes:
    """Counts the changes of objects in memory, and is a kill once there were so many."""

    def __init__(self, monkeypatch):
        self.count, self.limit = 0, 10**9
        for name in ("pipe_file", "rm_file"):
            monkeypatch.setattr(MemoryFileSystem, name, self.counted(getattr(MemoryFileSystem, name)))

    def counted(self, change):
        def changing(fs, path, *given, **how):
            if "layerscope" not in str(path):  # the lock, which is tried by itself
                self.count += 1
                if self.count > self.limit:
                    raise Killed
            return change(fs, path, *given, **how)

        return changing


STATES = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
ATTRIBUTES = {"fingerprint": "0123", "model": "m", "pooling": "mean"}


def kept(url):
    """Write a store of four windows, or go on with one, as `capture` does; also count the windows written."""
    coordinates = {"layer": [0, 1], "id": ("example", as_strings("abcd"))}
    store = RemoteStore(url, "0123")
    with store.writing() as ready:
        if ready is not None:
            return ready, 0
        arrays = store.open(xr.Dataset(coords=coordinates, attrs=ATTRIBUTES), {"hidden": STATES.shape}, 4)
        left = [window for window in range(4) if not store.done(window)]
        for window in left:
            arrays["hidden"][:, window : window + 1] = STATES[:, window : window + 1]
            store.mark(window)
        return store.finish(), len(left)


@pytest.mark.filterwarnings("ignore:.*was captured from another model")
@pytest.mark.parametrize("older", [False, True])
def test_killed_at_any_change_it_is_whole_or_not_and_the_next_one_goes_on(monkeypatch, older):
    """Also where one of another model lay there."""
    monkeypatch.setattr("probes.states.store.BLOCK", 1)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    changes, url = Changes(monkeypatch), "memory://bucket/killed/s.zarr"
    if older:
        kept(url)
        write_at(f"{url}/zarr.json", read_at(f"{url}/zarr.json").replace(b"0123", b"4567"))
    before, changes.count = dict(MemoryFileSystem.store), 0
    kept(url)
    total, seen = changes.count, []
    for limit in range(older, total, 4):
        MemoryFileSystem.store = dict(before)
        changes.count, changes.limit = 0, limit
        with pytest.raises(Killed):
            kept(url)
        changes.limit = 10**9
        for what in ("a store", "the next one"):
            try:
                reps = probes.open_representations(url)
            except probes.InputError as error:
                seen.append("growing" if "not complete" in str(error) else "none")
            else:
                assert what == "the next one" or reps.attrs["fingerprint"] == "4567"
                np.testing.assert_array_equal(reps.hidden, STATES)
            if what == "a store":
                assert kept(url)[1] <= 4
        assert reps.attrs == ATTRIBUTES
        assert not any(name.startswith("done") for name in sizes_at(url))
    assert "growing" in seen


def test_of_two_writers_that_no_lock_keeps_apart_the_later_one_counts(monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    one, other = (RemoteStore("memory://bucket/two/s.zarr", "0123") for _ in range(2))
    dataset = xr.Dataset(coords={"layer": [0, 1]}, attrs=ATTRIBUTES)
    for store in (one, other):
        arrays = store.open(dataset, {"hidden": STATES.shape}, 1)
        arrays["hidden"][:] = STATES
        store.mark(0)
    with pytest.raises(probes.InputError, match=r"two/s\.zarr: another process has written there meanwhile, which no"):
        one.finish()
    with pytest.raises(probes.InputError, match="not complete"):
        probes.open_representations(one.path)
    np.testing.assert_array_equal(other.finish().hidden, STATES)
    assert one.join(["hidden"])["hidden"].shape == STATES.shape
