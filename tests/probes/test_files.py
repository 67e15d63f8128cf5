"""Files and folders: written whole or not at all, and tried before the work without a trace."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import faults
import pytest

from probes.errors import InputError, LayerscopeWarning
from probes.files import (
    beside,
    check_moves,
    check_writable,
    file_name,
    locked,
    move_whole,
    put_back,
    remove,
    write_whole,
)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["there", "new", "a/b/c"])
def test_a_folder_that_can_be_written_to_passes_and_is_left_as_it_was(tmp_path, place):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine", encoding="utf-8")
    before = names(tmp_path)
    check_writable(tmp_path / place)
    assert names(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "file/deep"])
def test_a_place_below_or_at_a_file_is_refused_and_nothing_is_made(tmp_path, place):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot be written to \(.+\). Choose another path"):
        check_writable(tmp_path / place)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_file_is_written_in_utf_8_over_what_was_there(tmp_path):
    file = tmp_path / "a.json"
    for text in ("longer than what follows", "קצר\n"):
        write_whole(file, text)
        assert file.read_bytes() == text.encode()
    assert names(tmp_path) == ["a.json"]


def test_a_writing_that_fails_leaves_the_old_file_whole(tmp_path):
    file = tmp_path / "a.json"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "x" * 100_000 + "\ud800")  # which is no character
    assert file.read_text(encoding="utf-8") == "old"


def lock_of(path):
    return beside(path, "lock")


def held(path, seconds=0.0):
    """A child that takes the lock, says so by a file, and is killed or done after some seconds."""

    def work():
        with locked(path):
            path.with_name("taken").touch()
            time.sleep(seconds)
            path.with_name("left").touch()

    child = faults.Child(work)
    while not path.with_name("taken").exists():
        time.sleep(0.01)
    return child


def test_a_lock_names_process_host_and_start_and_is_gone_afterwards(tmp_path):
    with locked(tmp_path / "a"):
        process, _, start = lock_of(tmp_path / "a").read_text().splitlines()
        assert int(process) == os.getpid()
        assert int(start) > 0
    assert names(tmp_path) == []


def test_folders_that_are_made_for_a_lock_alone_go_with_it(tmp_path):
    with locked(tmp_path / "b" / "c" / "a"):
        assert names(tmp_path) == ["b", "b/c", "b/c/a.layerscope-lock"]
    assert names(tmp_path) == []
    with locked(tmp_path / "b" / "c" / "a"):
        (tmp_path / "b" / "c" / "a").touch()
    assert names(tmp_path) == ["b", "b/c", "b/c/a"]


def test_who_holds_a_lock_may_enter_it_again(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "." / "a", wait=False):
        pass
    assert names(tmp_path) == []


def test_a_second_process_is_refused_or_waits(tmp_path):
    child = held(tmp_path / "a", seconds=1.5)
    with (
        pytest.raises(InputError, match=f"a is being written by process {child.pid}. Wait until it is done, or choose"),
        locked(tmp_path / "a", wait=False),
    ):
        pytest.fail("two at once")
    with (
        pytest.warns(LayerscopeWarning, match=f"a is being written by process {child.pid}; waiting until it is done"),
        locked(tmp_path / "a"),
    ):
        assert (tmp_path / "left").exists()
    child.result()
    assert names(tmp_path) == ["left", "taken"]


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
def test_a_second_thread_waits_too(tmp_path):
    order = []

    def enter():
        with locked(tmp_path / "a"):
            order.append("second")

    thread = threading.Thread(target=enter)
    with locked(tmp_path / "a"):
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("wait", [True, False])
def test_the_lock_of_a_process_that_was_killed_is_taken_over_and_said(tmp_path, wait):
    child = held(tmp_path / "a", seconds=60)
    os.kill(child.pid, signal.SIGKILL)
    assert child.result()[0] == "killed"
    with (
        pytest.warns(LayerscopeWarning, match=f"a: process {child.pid} was stopped while it wrote there"),
        locked(tmp_path / "a", wait=wait),
    ):
        assert int(lock_of(tmp_path / "a").read_text().splitlines()[0]) == os.getpid()
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("text", ["", "12", "no lock at all\n"])
def test_a_lock_that_names_nobody_does_not_hold_for_ever(tmp_path, text):
    lock_of(tmp_path / "a").write_text(text)
    with locked(tmp_path / "a", wait=False):
        pass
    assert names(tmp_path) == []


def test_the_lock_of_another_host_is_refused_with_what_to_do(tmp_path):
    lock_of(tmp_path / "a").write_text("17\nelsewhere\n5\n")
    with (
        pytest.raises(
            InputError, match=r"process 17 of the host elsewhere. Wait for it; if it runs no longer, remove .*-lock"
        ),
        locked(tmp_path / "a"),
    ):
        pytest.fail("two at once")
    assert names(tmp_path) == ["a.layerscope-lock"]


def test_what_a_killed_take_over_left_is_removed(tmp_path):
    child = faults.Child(lambda: None)
    child.result()
    for process in (child.pid, os.getpid()):
        (tmp_path / f"a.layerscope-lock.break.{process}.{'0' * 32}").touch()
    with locked(tmp_path / "a"):
        pass
    assert names(tmp_path) == [f"a.layerscope-lock.break.{os.getpid()}.{'0' * 32}"]


def test_a_lock_where_nothing_can_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match=r"cannot be written to \(.+\). Choose another path"),
        locked(tmp_path / "file" / "a"),
    ):
        pytest.fail("below a file")
    with (
        pytest.raises(InputError, match=r"cannot be written to \(File name too long\)"),
        locked(tmp_path / ("a" * 250)),
    ):
        pytest.fail("too long")
    with pytest.raises(InputError, match="it is the root of the disk"), locked(Path("/")):
        pytest.fail("beside the root")


def test_the_check_writes_nothing_at_all(tmp_path):
    check = lambda: check_writable(tmp_path / "a" / "b")  # noqa: E731
    assert faults.changes(check) == 0


def test_a_disk_that_moves_no_folders_is_refused_with_what_to_do(tmp_path, monkeypatch):
    check_moves(tmp_path / "a")
    (tmp_path / "a.layerscope-trial-partial").mkdir()  # as a kill leaves it
    check_moves(tmp_path / "a")
    assert names(tmp_path) == []

    def refused(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(
        InputError, match=r"a: folders there cannot be renamed \(Function not implemented\).*s3://bucket"
    ):
        check_moves(tmp_path / "a")
    assert names(tmp_path) == []


@pytest.mark.parametrize("at", ["nothing", "old", "both"])
def test_what_a_kill_left_of_a_move_is_put_right(tmp_path, at):
    path, old = tmp_path / "a", beside(tmp_path / "a", "old")
    for folder, text in ((old, "old"), (path, "new")):
        if at == "both" or (folder == old and at == "old"):
            folder.mkdir()
            (folder / "which").write_text(text)
    put_back(path)
    assert names(tmp_path) == ([] if at == "nothing" else ["a", "a/which"])
    assert at == "nothing" or (path / "which").read_text() == {"old": "old", "both": "new"}[at]


def test_at_every_moment_of_a_move_the_old_or_the_new_is_whole(tmp_path):
    path, new = tmp_path / "a", beside(tmp_path / "a", "partial")

    def begin():
        for folder, text in ((path, "old"), (new, "new")):
            remove(folder)
            folder.mkdir()
            for name in "xyz":
                (folder / name).write_text(text)

    def work():
        move_whole(new, path)

    begin()
    for k in range(1, faults.changes(work) + 1):
        remove(beside(path, "old"))
        begin()
        assert faults.Child(work, kill_at=k).result()[0] == "killed"
        put_back(path)
        assert len({file.read_text() for file in path.iterdir()}) == 1
        assert len(list(path.iterdir())) == 3


def test_long_names_are_cut_and_told_apart_by_a_hash():
    long = [file_name("模" * 90), file_name("模" * 91), file_name("a" * 80), file_name("a" * 81)]
    assert len(set(long)) == 4
    assert max(map(len, long)) <= 81
    assert long[2] == "a" * 80
    assert file_name("../a b") == "..%2Fa%20b"
