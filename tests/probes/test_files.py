"""Files and folders: written whole or not at all, and tried before the work without a trace."""

import pytest

from probes.errors import InputError
from probes.files import check_writable, write_whole


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
