"""The tutorials as they are stored; tests/browser runs them, their solutions, and what they say of the numbers."""

from pathlib import Path

import nbformat
import pytest
from claims import CLAIMS, checks, solutions

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert sorted(int(path.stem.split("_")[0]) for path in NOTEBOOKS) == list(range(14))
    assert set(CLAIMS) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs_and_says_what_is_learnt_and_how_long_it_takes(path):
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert cells[0].source.startswith("# ")
    assert "**After this you can**" in cells[0].source
    assert "**Time**: about " in cells[0].source
    assert any("What you should see" in cell.source for cell in cells) or path.stem.startswith("5")
    assert any(cell.source.startswith("## Words\n") for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_ends_with_exercises_whose_solutions_are_folded_and_can_be_run(path):
    last = nbformat.read(path, as_version=4).cells[-1].source
    assert last.startswith("## Exercises\n")
    assert last.count("<details><summary>Solution</summary>\n\n") == last.count("</details>") >= 1
    compile(solutions(nbformat.read(path, as_version=4)), path.name, "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_held_against_the_numbers_is_what_the_tutorial_says(path):
    told = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    assert [text for text, _ in CLAIMS.get(path.stem, []) if text not in told] == []
    compile(checks(path.stem), path.name, "exec")
