"""What is kept where fsspec reaches: addresses, one writer at a time, and what is said where a store refuses."""

import os
import re
import threading
import time
from contextlib import contextmanager, nullcontext

import psutil
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from probes.errors import DependencyError, InputError, LayerscopeWarning, address_of, is_url, path_of
from probes.files import this_host
from probes.remote import (
    beside_at,
    check_writable_at,
    exists,
    filesystem,
    going_on,
    gone_on_failure_at,
    locked_at,
    move_at,
    read_at,
    read_json_at,
    sizes_at,
    within,
    write_at,
    write_whole_at,
)

URL = "memory://bucket/run"
LOCK = f"{URL}.layerscope-lock"


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(MemoryFileSystem, "store", {})


def test_what_is_a_path_and_what_a_url(tmp_path):
    assert [is_url(x) for x in ("s3://b/x", "memory://b", "file:///x", "x", "C:\\x", "x:/y", tmp_path)] == [
        *(True, True),
        *(False,) * 5,
    ]
    assert address_of(f"file://{tmp_path}", "store") == address_of(str(tmp_path), "store") == tmp_path
    assert within(tmp_path, "a") == tmp_path / "a"
    assert beside_at("s3://b/x", "new") == "s3://b/x.layerscope-new"
    assert beside_at(tmp_path / "x", "new") == tmp_path / "x.layerscope-new"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://", "expected a place in a bucket, found none. Give s3://bucket/name"),
        ("simplecache::s3://b/x", "expected one URL, found a chain of several"),
        ("", "expected a path. Give one of letters"),
    ],
)
def test_what_is_no_address_is_refused(given, message):
    with pytest.raises(InputError, match=f"store='{given}': {message}"):
        address_of(given, "store")


def test_a_url_as_a_path_and_where_none_can_be_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a URL is a text, and as a path it has lost a slash. Give 's3://b/x'"):
        address_of(type(tmp_path)("s3://b/x"), "store")
    with pytest.raises(InputError, match=r"folder='s3://b/x': expected a path of this computer, found a URL: states"):
        path_of("s3://b/x", "folder")


def test_what_reaches_a_store_is_named_where_it_is_missing(monkeypatch):
    import fsspec.registry

    def missing(protocol):
        raise ImportError("Install it")

    with pytest.raises(InputError, match=r"nowhere://b/x: nowhere:// is no kind of store that is known. Give s3://"):
        filesystem("nowhere://b/x")
    monkeypatch.setattr("fsspec.core.get_filesystem_class", missing)
    assert fsspec.registry
    for scheme, said in (
        ("s3", r"needs the package s3fs, which is not installed: pip install 'layerscope\[remote\]'"),
        ("gs", "needs the package gcsfs, which is not installed: pip install 'gcsfs'"),
        ("hdfs", "cannot be reached: Install it"),
    ):
        with pytest.raises(DependencyError, match=f"{scheme}://b/x {said}"):
            filesystem(f"{scheme}://b/x")


def stop_after(do, *given):
    do(*given)
    raise RuntimeError("stopped")


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_files_and_objects_are_alike(tmp_path, place):
    folder = tmp_path if place == "disk" else URL
    at = within(folder, "a.json")
    assert read_at(at) is None
    assert not exists(at)
    write_whole_at(at, '{"é": 1}')
    assert read_at(at) == '{"é": 1}'.encode()
    assert read_json_at(at, {"é": int}) == {"é": 1}
    with pytest.raises(InputError, match=r"a\.json\['é'\]: expected a text, found 1"):
        read_json_at(at, {"é": str})
    new = beside_at(at, "new")
    with pytest.raises(RuntimeError, match="stopped"), gone_on_failure_at(new):
        stop_after(write_at, new, b"half")
    assert read_at(new) is None
    write_at(new, b"{}")
    move_at(new, at)
    assert read_at(at) == b"{}"
    assert not exists(new)
    check_writable_at(folder)
    found = sizes_at(folder) if place == "memory" else {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert found == {"a.json": 2}


def refuse(monkeypatch, name, error):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(MemoryFileSystem, name, refused)


def test_what_a_store_refuses_is_said_in_its_words(monkeypatch):
    advice = r"Check the address, the credentials and what they allow there"
    refuse(monkeypatch, "pipe_file", PermissionError("Access Denied."))
    for attempt in (lambda: check_writable_at(URL), lambda: locked_at(URL).__enter__()):
        with pytest.raises(InputError, match=rf"{URL} cannot be written to \(Access Denied\)\. {advice}"):
            attempt()
    refuse(monkeypatch, "cat_file", PermissionError())
    with pytest.raises(InputError, match=rf"{URL} cannot be read \(PermissionError\)\. {advice}"):
        read_at(URL)
    refuse(monkeypatch, "isfile", RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        exists(URL)


def test_a_store_that_is_lost_is_told_from_a_disk_that_is_full():
    said = rf"{URL} cannot be written to any more \(gone\)\. What was captured is kept"
    with pytest.raises(InputError, match=said), going_on(URL):
        raise ConnectionError("gone")
    with pytest.raises(OSError, match="No space"), going_on(URL):
        raise OSError(28, "No space left on device", "elsewhere")


def mark(process, host=None, since=None):
    since = psutil.Process(process).create_time() if since is None else since
    write_at(LOCK, f"{process}\n{host or this_host()}\n{since}\nid\n".encode())


def test_one_writes_at_a_time_and_leaves_no_lock():
    with locked_at(URL):
        assert read_at(LOCK).decode().split("\n")[:2] == [str(os.getpid()), this_host()]
        with locked_at(URL):  # who holds it may ask again
            pass
        assert exists(LOCK)
    assert sizes_at("memory://bucket") == {}


def test_processes_have_memory_of_their_own_and_share_what_is_elsewhere(monkeypatch):
    held = []

    @contextmanager
    def lock(path, **_):
        held.append(path)
        yield

    monkeypatch.setattr("probes.remote.locked", lock)
    monkeypatch.setattr("probes.remote._mark", lambda *_: nullcontext())
    for process in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        for url in (URL, "s3://bucket/run"):
            with locked_at(url):
                pass
    memory, s3 = held[::2], held[1::2]
    assert memory[0] != memory[1]
    assert s3[0] == s3[1]


def test_a_writer_of_another_host_is_refused_with_what_to_do():
    mark(17, "elsewhere", since=0)
    said = f"{URL} is being written by process 17 of the host elsewhere. Wait for it; if it runs no longer, remove"
    with pytest.raises(InputError, match=re.escape(f"{said} {LOCK}")), locked_at(URL):
        pytest.fail("two at once")
    assert exists(LOCK)


def test_a_process_of_this_host_is_waited_for_or_refused(monkeypatch):
    """Also where it does not see this one's temporary folder."""
    monkeypatch.setattr("probes.remote._POLL", 0.01)
    other = os.getppid()
    mark(other)
    with (
        pytest.raises(InputError, match=rf"process {other}\. Wait until it is done"),
        locked_at(URL, wait=False),
    ):
        pytest.fail("two at once")
    thread = threading.Timer(0.1, lambda: MemoryFileSystem().rm_file("/bucket/run.layerscope-lock"))
    thread.start()
    said = f"{URL} is being written by process {other}; waiting until"
    with pytest.warns(LayerscopeWarning, match=said), locked_at(URL):
        pass
    thread.join()


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
def test_a_second_thread_waits_too():
    order = []

    def enter():
        with locked_at(URL):
            order.append("second")

    thread = threading.Thread(target=enter)
    with locked_at(URL):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("left", ["dead", "reused", "own", "no mark"])
def test_what_a_kill_left_is_taken_over(left):
    if left == "no mark":
        write_at(LOCK, b"12")
    else:
        process = {"dead": 2**22 - 3, "reused": os.getppid(), "own": os.getpid()}[left]
        mark(process, since=1.0)
    with locked_at(URL, wait=False):
        assert read_at(LOCK).startswith(f"{os.getpid()}\n".encode())
    assert not exists(LOCK)


def test_a_store_that_cannot_create_where_nothing_is_is_looked_at_first(monkeypatch):
    write = MemoryFileSystem.pipe_file

    def simple(self, path, value):
        return write(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", simple)
    with locked_at(URL):
        assert exists(LOCK)
    mark(17, "elsewhere", since=0)
    with pytest.raises(InputError, match="of the host elsewhere"), locked_at(URL):
        pytest.fail("two at once")


def test_a_lock_that_another_has_overwritten_is_not_held_and_not_removed(monkeypatch):
    monkeypatch.setattr("probes.remote._POLL", 0.01)
    with locked_at(URL):
        mark(17, "elsewhere", since=0)
    assert exists(LOCK)
