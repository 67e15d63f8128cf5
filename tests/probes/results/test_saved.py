import json

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import probes
from probes.files import beside
from probes.results.saved import FILES, check_folder, read_files, write_files

ABOUT = {
    "baseline": "a",
    "draws": 5,
    "drawn": "ids",
    "seed": 0,
    "models": {},
    "probes": {},
    "corpus": {"languages": {}, "cautions": []},
    "versions": {},
}
CONTENT = {name: name.encode() for name in FILES}


def written(folder, content=CONTENT, **about):
    write_files(folder, content, ABOUT | about, overwrite=True, wait=True)
    return folder


def test_what_was_written_is_read(tmp_path):
    about, found = read_files(written(tmp_path / "run"))
    assert (about, found) == (ABOUT, CONTENT)
    with pytest.raises(probes.InputError, match="already holds a run"):
        check_folder(tmp_path / "run", overwrite=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_another_than_the_provenance_says_is_refused(tmp_path, name):
    folder = written(tmp_path / "run")
    (folder / FILES[name]).write_text("another")
    with pytest.raises(probes.InputError, match=rf"{FILES[name]} is not the one that provenance\.json belongs to"):
        read_files(folder)


def test_the_new_files_count_from_when_the_provenance_says_so(tmp_path):
    folder, other = written(tmp_path / "run"), written(tmp_path / "other", dict.fromkeys(FILES, b"new"), seed=1)
    # As a kill leaves them, after the provenance and before files are moved.
    for name in FILES.values():
        (other / name).rename(beside(folder / name, "new"))
    assert read_files(folder)[1] == CONTENT
    (other / "provenance.json").rename(folder / "provenance.json")
    about, found = read_files(folder)
    assert (about["seed"], set(found.values())) == (1, {b"new"})


def test_a_run_of_before_models_were_counted_has_none(tmp_path):
    folder = written(tmp_path / "run")
    said = json.loads((folder / "provenance.json").read_text())
    del said["models_sha256"]
    (folder / "provenance.json").write_text(json.dumps(said))
    (folder / "models.csv").unlink()
    assert set(read_files(folder)[1]) == {"draws", "table"}


def test_where_nothing_is_renamed_a_kill_leaves_the_old_one_or_the_new_one(monkeypatch):
    """At every change of an object."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    folder, changes, limit = "memory://bucket/run", 0, 10**9

    def counted(change):
        def changing(fs, path, *given, **how):
            nonlocal changes
            changes += "lock" not in path
            if changes > limit:
                raise KeyboardInterrupt
            return change(fs, path, *given, **how)

        return changing

    for name in ("pipe_file", "rm_file"):
        monkeypatch.setattr(MemoryFileSystem, name, counted(getattr(MemoryFileSystem, name)))
    assert read_files(written(folder)) == (ABOUT, CONTENT)
    with pytest.raises(probes.InputError, match=rf"{folder} already holds a run"):
        check_folder(folder, overwrite=False)
    before, changes, seen = dict(MemoryFileSystem.store), 0, []
    written(folder)
    for limit in range(changes):  # noqa: B007 - `counted` reads it
        MemoryFileSystem.store, changes = dict(before), 0
        with pytest.raises(KeyboardInterrupt):
            written(folder, dict.fromkeys(FILES, b"new"), seed=1)
        changes = -(10**9)
        about, found = read_files(folder)
        assert found == (dict.fromkeys(FILES, b"new") if about["seed"] else CONTENT)
        seen.append(about["seed"])
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}
