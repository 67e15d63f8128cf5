"""Disks that are full, small, read-only or gone: one sentence, what was there before as it was, and then it goes on."""

import os
import shutil
import subprocess

import faults
import numpy as np
import pytest
from capturing import LONG, make_corpus
from matplotlib.figure import Figure
from trained import QUIET
from trained import make_corpus as training_corpus

import compress
import probes
import probes.__main__
from compress.__main__ import main as compress_main
from compress.training.checkpoints import MARKER
from probes.errors import InputError

PAGE = 4096
CHINESE = "模型" * 45  # 270 bytes, and 810 where each of them is quoted
TRAINING = {**QUIET, "steps": 6, "save_every": 2}


@pytest.fixture
def disk(tmp_path):
    """A disk of 20 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a disk of its own cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def at(tmp_path, tiny_folder, monkeypatch):
    """A corpus and two checkpoints on the disk of the system; a report without figures."""
    for draw in ("curves", "maps"):
        monkeypatch.setattr(f"probes.views.figures.{draw}", lambda *_: Figure())
    corpus().to_csv(tmp_path / "corpus.csv")
    shutil.copytree(tiny_folder, tmp_path / "a")
    return tmp_path


def corpus():
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) + f" w{i}" for i in range(12)], label=["a", "b", "c"] * 4)


def fill(disk, left):
    """Leave so many bytes of a disk free."""
    (disk / "filler").unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - left) if free > left else None


def empty(disk):
    (disk / "filler").unlink()


def no_estimate(monkeypatch):
    """As where another process takes the room after it was found."""
    for place in ("probes.states.store", "compress.saving", "compress.training.checkpoints"):
        monkeypatch.setattr(f"{place}.check_space", lambda *_: None)


def captured(at, disk, **how):
    model, tokenizer = probes.load_checkpoint(at / "a")
    return probes.capture(model, tokenizer, corpus(), store=disk / "s.zarr", progress=False, **how)


def compared(at, disk, *further):
    given = [f"a={at / 'a'}", f"{CHINESE}={at / 'a'}", "--corpus", str(at / "corpus.csv"), "--probes", "snr,drift"]
    return probes.__main__.main(["compare", *given, "--draws", "5", "--out", str(disk / "out"), *further])


def pruned(at, disk, *further):
    return compress_main(["prune", str(at / "a"), "--sparsity", "0.5", "--out", str(disk / "out"), *further])


def trained(at, disk, **how):
    model, tokenizer = probes.load_checkpoint(at / "a")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    how = {**TRAINING, "train": training_corpus(), "tokenizer": tokenizer, "folder": disk / "training", **how}
    return compress.prune(model, sparsity=0.5, schedule="cubic", prunings=2, **how)


# What may be said before an error: lines of their kind, and bars of progress.
TOLD = ("warning: ", "caution: ", "capture ", "measure ", "\r")


def refused(capsys, status, *said):
    """Hold that a command has ended with one sentence that says so, and status 2."""
    assert status == 2
    *before, last = capsys.readouterr().err.splitlines()
    assert all(not line.strip() or line.startswith(TOLD) for line in before), before
    assert last.startswith("error: ")
    for part in said:
        assert part in last


def ended(writes, at, disk):
    """How something ends that writes to a disk, and what is said."""
    try:
        writes(at, disk)
    except InputError as error:
        return "refused", str(error)
    except OSError as error:
        return "full", str(error)
    return "done", ""


def same_states(a, b):
    return np.array_equal(a.hidden.values, b.hidden.values)


# What is estimated, before any work.


def test_states_without_room_are_refused_before_the_first_forward_pass(at, disk, monkeypatch):
    many = make_corpus([f"a dog {i}" for i in range(400)])
    model, tokenizer = probes.load_checkpoint(at / "a")
    fill(disk, 15 * PAGE)

    def forward(*_, **__):
        pytest.fail("a forward pass")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "forward", forward)
        with pytest.raises(InputError, match=r"s.zarr: the states need 76.8 kB, and 57.3 kB are free there. Make room"):
            probes.capture(model, tokenizer, many, store=disk / "s.zarr", progress=False)
    assert sorted(p.name for p in disk.iterdir()) == ["filler"]
    # Of modules the size is known after a batch.
    with pytest.raises(InputError, match=r"s.zarr: the states need 96.0 kB, and .* kB are free there. Make room"):
        probes.capture(
            model, tokenizer, many, store=disk / "s.zarr", modules=["bert.encoder.layer.0"] * 5, progress=False
        )
    assert sorted(p.name for p in disk.iterdir()) == ["filler"]
    empty(disk)
    reps = probes.capture(model, tokenizer, many, store=disk / "s.zarr", progress=False)
    assert same_states(reps, probes.capture(model, tokenizer, many, progress=False))


def test_what_an_interrupted_capture_has_written_needs_no_room_again(at, disk, monkeypatch):
    monkeypatch.setattr("probes.states.store.BLOCK", 100)
    monkeypatch.setattr("probes.states.capture._WINDOW", 100)
    many = make_corpus([f"a dog {i}" for i in range(400)])
    model, tokenizer = probes.load_checkpoint(at / "a")
    marks = []

    def mark(self, window):
        marks.append(window)
        self._done[window] = 1
        if len(marks) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("probes.states.store.Store.mark", mark)
        with pytest.raises(KeyboardInterrupt):
            probes.capture(model, tokenizer, many, store=disk / "s.zarr", progress=False)
    fill(disk, 24 * PAGE)  # of 101 kB
    reps = probes.capture(model, tokenizer, many, store=disk / "s.zarr", progress=False)
    assert same_states(reps, probes.capture(model, tokenizer, many, progress=False))


def test_weights_without_room_are_refused_before_they_are_saved(at, disk, capsys):
    fill(disk, 4 * PAGE)
    assert pruned(at, disk) == 2
    first, last = (line for line in capsys.readouterr().err.splitlines() if ": the weights" in line)
    assert first.startswith(f"warning: {disk / 'out'}: the weights as they are need ")  # before the work
    assert last.startswith(f"error: {disk / 'out'}: the weights need ")
    assert last.endswith("are free there. Make room there, or choose another folder")
    assert sorted(p.name for p in disk.iterdir()) == ["filler"]
    empty(disk)
    assert pruned(at, disk) == 0
    assert probes.load_checkpoint(disk / "out")[0].config.compression["sparsity"] == 0.5


def test_checkpoints_without_room_are_refused_before_the_first_step(at, disk):
    fill(disk, 20 * PAGE)
    with pytest.raises(
        InputError, match=r"training: the checkpoints need .* kB, and 77.8 kB are free there. Make room"
    ):
        trained(at, disk)
    assert sorted(p.name for p in disk.iterdir()) == ["filler"]
    empty(disk)
    done = trained(at, disk)
    fill(disk, 3 * PAGE)
    again = trained(at, disk)  # no checkpoint is left to write
    assert all((done.state_dict()[k] == v).all() for k, v in again.state_dict().items())


# Where the room goes while it is written to.

EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.faults)])


def rooms(every, most, few):
    """So many pages that are left: all until it is enough, or a few."""
    return range(0, most) if every else few


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
@EVERY
def test_a_capture_whose_disk_becomes_full_keeps_the_older_store_and_goes_on(at, disk, monkeypatch, every):
    old = captured(at, disk, pooling="first").hidden.values
    expected = captured(at, disk / "other").hidden.values
    shutil.rmtree(disk / "other")
    shutil.copytree(disk / "s.zarr", at / "old")
    no_estimate(monkeypatch)
    ends = set()
    for pages in rooms(every, 120, (0, 1, 7, 16)):
        shutil.rmtree(disk / "s.zarr")
        shutil.copytree(at / "old", disk / "s.zarr")
        fill(disk, pages * PAGE)
        end, said = ended(captured, at, disk)
        ends.add(end)
        if end == "refused":  # not even room for the lock
            assert f"{disk / 's.zarr'} cannot be written to (No space left on device). Make room there" in said
        elif end == "full":
            assert said == f"[Errno 28] No space left on device: '{disk / 's.zarr'}'"
        if "done" not in ends:
            assert np.array_equal(probes.open_representations(disk / "s.zarr").hidden.values, old)
        empty(disk)
        assert np.array_equal(captured(at, disk).hidden.values, expected)
        assert sorted(p.name for p in disk.iterdir()) == ["s.zarr"]
        if "done" in ends:
            break
    assert ends == ({"refused", "full", "done"} if every else {"refused", "full"})


@EVERY
def test_a_comparison_whose_disk_becomes_full_keeps_the_older_one_and_goes_on(at, disk, monkeypatch, capsys, every):
    assert compared(at, disk / "other") == 0
    expected = (disk / "other" / "out" / "comparison.csv").read_bytes()
    assert compared(at, disk, "--seed", "7", "--pooling", "first") == 0
    shutil.copytree(disk / "out", at / "old")
    old, report = (at / "old" / "comparison.csv").read_bytes(), (at / "old" / "report.html").read_bytes()
    shutil.rmtree(disk / "other")
    no_estimate(monkeypatch)
    ends = set()
    for pages in rooms(every, 400, (0, 10, 25)):
        shutil.rmtree(disk / "out")
        shutil.copytree(at / "old", disk / "out")
        fill(disk, pages * PAGE)
        capsys.readouterr()
        status = compared(at, disk, "--overwrite")
        if status:
            refused(capsys, status, str(disk / "out"), "No space left on device", "Make room there, or choose another")
            assert (disk / "out" / "comparison.csv").read_bytes() == old
            assert probes.Comparison.open(disk / "out").provenance["seed"] == 7
            assert {p.name for p in (disk / "out").iterdir()} == {p.name for p in (at / "old").iterdir()}
        ends.add(status)
        empty(disk)
        assert compared(at, disk, "--overwrite") == 0
        assert (disk / "out" / "comparison.csv").read_bytes() == expected
        assert (disk / "out" / "report.html").read_bytes() != report
        assert not [path for path in disk.rglob("*") if "layerscope-" in path.name]
        if not status:
            break
    assert ends == ({0, 2} if every else {2})


@EVERY
def test_a_pruning_whose_disk_becomes_full_leaves_nothing_and_goes_on(at, disk, monkeypatch, capsys, every):
    no_estimate(monkeypatch)
    for pages in rooms(every, 100, (0, 3, 9)):
        for further in ([], ["--packed"]):
            fill(disk, pages * PAGE)
            capsys.readouterr()
            status = pruned(at, disk, *further)
            if status:
                refused(capsys, status, str(disk / "out"), "No space left on device", "Make room there, or choose")
                assert sorted(p.name for p in disk.iterdir()) == ["filler"]
            empty(disk)
            if status:
                assert pruned(at, disk, *further) == 0
            model, _ = probes.load_checkpoint(disk / "out")
            assert model.config.compression["sparsity"] == 0.5
            shutil.rmtree(disk / "out")
        if not status:
            break
    assert bool(status) is not every


@EVERY
def test_a_training_whose_disk_becomes_full_keeps_what_is_whole_and_goes_on(at, disk, monkeypatch, every):
    expected = trained(at, disk / "other")
    shutil.rmtree(disk / "other")
    no_estimate(monkeypatch)
    kept = set()
    for pages in range(0, 200, 3) if every else (2, 50):
        fill(disk, pages * PAGE)
        end, said = ended(trained, at, disk)
        if end != "done":
            assert str(disk / "training") in said
            assert "No space left on device" in said
            found = list((disk / "training").rglob("*"))
            kept.add(sum(path.name == MARKER for path in found))
            assert not [path for path in found if "layerscope-" in path.name]
            assert all((path / MARKER).is_file() for path in (disk / "training").glob("checkpoint-*"))
        empty(disk)
        assert all((expected.state_dict()[k] == v).all() for k, v in trained(at, disk).state_dict().items())
        shutil.rmtree(disk / "training")
        if end == "done":
            break
    assert (end == "done") is every
    assert kept == ({0, 1, 2} if every else {0, 1})


def test_a_report_whose_disk_is_full_keeps_the_older_one(at, disk, monkeypatch):
    comparison = probes.compare({"a": at / "a", "b": at / "a"}, corpus(), probes=["drift"], draws=5, progress=False)
    file = comparison.report(disk / "r.html")
    old = file.read_bytes()
    for pages in (0, 1):
        fill(disk, pages * PAGE)
        with pytest.raises(OSError, match=f"No space left on device: '{file}'"):
            comparison.report(file)
        assert file.read_bytes() == old
        assert sorted(p.name for p in disk.iterdir()) == ["filler", "r.html"]
        with pytest.raises((OSError, InputError), match=r"No space left on device"):
            comparison.save(disk / "new")
        assert sorted(p.name for p in disk.iterdir()) == ["filler", "r.html"]
        empty(disk)
    assert comparison.report(file) == file
    assert probes.Comparison.open(comparison.save(disk / "new")).baseline == "a"


# What cannot be written to, or is no path.

EACH = pytest.mark.parametrize("writes", [captured, compared, pruned, trained])


def refuses(capsys, writes, at, disk, said):
    """Hold that what writes at a disk is refused in one sentence that says so, by command or by function."""
    if writes in (compared, pruned):
        capsys.readouterr()
        refused(capsys, writes(at, disk), said)
    else:
        with pytest.raises(InputError, match=said):
            writes(at, disk)


@EACH
def test_a_disk_that_is_read_only_is_refused_before_the_work(at, disk, capsys, writes):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    refuses(capsys, writes, at, disk, "Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert list(disk.iterdir()) == []
    assert not writes(at, disk) or writes in (captured, trained)
    if writes is captured:  # what is whole is opened all the same
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert same_states(captured(at, disk), captured(at, at))


def test_a_folder_of_another_user_is_refused_before_the_work(at, capsys):
    # Root may write anywhere, so the work is done by a child that is nobody.
    at.joinpath("mine").mkdir(mode=0o755)
    for folder in (at, *at.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)

    def as_nobody(work):
        def child():
            loaded = probes.load_checkpoint(at / "a")  # with all that this imports
            probes.load_checkpoint = lambda _: loaded
            if os.getuid() == 0:
                os.setuid(65534)
            else:
                at.joinpath("mine").chmod(0o500)
            return work(at, at / "mine")

        return child

    for writes in (captured, trained):
        status, said = faults.Child(as_nobody(writes)).result()
        assert status == "said"
        assert "cannot be written to (Permission denied). Change its permissions, or choose another path" in said
    for writes in (compared, pruned):
        assert faults.Child(as_nobody(writes)).result()[1]["result"] == 2
    assert list(at.joinpath("mine").iterdir()) == []


@EACH
def test_a_name_that_is_too_long_is_refused_before_the_work(at, capsys, writes):
    refuses(capsys, writes, at, at / CHINESE, "File name too long")
    refuses(capsys, writes, at, at / ("deep" * 50 + "/") / ("x" * 300), "Choose a shorter name")
    assert sorted(p.name for p in at.iterdir()) == ["a", "corpus.csv"]


@pytest.mark.parametrize("name", ["", " ", "a\0b", "half \ud800", 5])
def test_what_is_no_path_is_refused_before_the_work(at, name):
    comparison = probes.compare({"a": at / "a", "b": at / "a"}, corpus(), probes=["drift"], draws=5, progress=False)
    model, tokenizer = probes.load_checkpoint(at / "a")
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    for setting, writes in {
        "store": lambda: probes.capture(model, tokenizer, corpus(), store=name),
        "store ": lambda: probes.compare({"a": at / "a"}, corpus(), store=name),
        "folder": lambda: compress.save(model, name),
        "folder ": lambda: compress.prune(
            model, sparsity=0.5, train=training_corpus(), tokenizer=tokenizer, folder=name, **TRAINING
        ),
        "folder  ": lambda: comparison.save(name),
        "folder   ": lambda: probes.Comparison.open(name),
        "path": lambda: comparison.report(name),
    }.items():
        with pytest.raises(InputError) as error:
            writes()
        assert str(error.value).startswith(f"{setting.strip()}={name!r}: expected a path. Give one of letters")


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_what_is_no_path_is_refused_by_the_commands(at, capsys, name):
    for command, given in (
        (probes.__main__.main, ["compare", f"a={at / 'a'}", "--corpus", str(at / "corpus.csv"), "--out", name]),
        (compress_main, ["prune", str(at / "a"), "--sparsity", "0.5", "--out", name]),
    ):
        with pytest.raises(SystemExit, match="2"):
            command(given)
        assert f"argument --out: expected the path of a folder, found {name!r}" in capsys.readouterr().err


def test_a_model_with_a_long_name_has_its_store(at):
    assert compared(at, at) == 0
    assert len(list((at / "out" / "representations").glob("*.zarr"))) == 2
    assert set(probes.Comparison.open(at / "out").table["model"]) == {"a", CHINESE}


def test_a_folder_that_vanishes_is_said_and_the_same_command_goes_on(at, monkeypatch, capsys):
    def vanishes(self, window):
        shutil.rmtree(at / "gone")

    def loses(self, folder, **_):  # and makes it again, as it would be
        shutil.rmtree(folder)
        folder.mkdir()

    with monkeypatch.context() as patch:
        patch.setattr("probes.states.store.Store.mark", vanishes)
        refused(
            capsys, compared(at, at / "gone"), str(at / "gone"), "Check the path, and whether something else removed"
        )
    assert not (at / "gone").exists()
    assert compared(at, at / "gone") == 0
    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", loses)
        refused(capsys, pruned(at, at / "gone" / "new"), str(at / "gone" / "new"), "Check the path, and whether")
    assert pruned(at, at / "gone" / "new") == 0
    expected = trained(at, at / "other").state_dict()
    with monkeypatch.context() as patch:
        patch.setattr("compress.training.checkpoints.mark", lambda _: shutil.rmtree(at / "gone"))
        assert all((expected[k] == v).all() for k, v in trained(at, at / "gone").state_dict().items())
    assert all((expected[k] == v).all() for k, v in trained(at, at / "gone").state_dict().items())
