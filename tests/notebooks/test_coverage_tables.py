"""The tables of simulations on the reference pages: all rows that the study would write, and no number beside them."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from probes.measures import catalogue

TOP = Path(__file__).parents[2]
# A share of simulated data sets, or a number behind "in simulations".
STATED = re.compile(r"[\d.]+ %[^.]{0,30} of (?:cases|data sets)|[Ii]n simulations[^.]*\d", re.DOTALL)


@pytest.fixture(scope="module")
def study():
    place = TOP / "notebooks/studies/coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_study", place)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    sys.path.insert(0, str(place.parent))  # where a script finds what lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


def test_every_table_has_the_rows_that_the_study_writes(study):
    for page, kind in study.tables():
        found = study.table_of(study.page_of(page).read_text(encoding="utf-8"), kind)
        wanted = study.expected(page, kind)
        assert found[list(wanted)].to_numpy().tolist() == wanted.astype(str).to_numpy().tolist(), page
        results = found.drop(columns=list(wanted)).to_numpy().ravel()
        assert results.size
        assert all(re.fullmatch(r"none|\d\.\d{3}( to \d\.\d{3})?", x) for x in results), (page, results)


def test_every_probe_with_an_interval_of_states_or_outputs_has_a_table(study):
    simulated = {name for case in study.CASES for name in case.names}
    lacking = {name for name, probe in catalogue.by_name().items() if not probe.interval.startswith("none")} - simulated
    # Of a model's modules, of trained heads, and of shuffles, there is none.
    assert lacking == {
        "accumulated_error",
        "local_error",
        "amplification",
        "representer_support",
        "linear_probe_control",
        "linear_probe_selectivity",
    }


def test_a_table_is_written_between_its_markers_and_nowhere_else(study):
    text = "Before.\n\n{}\n\nold\n\n{}\n\nAfter.\n".format(*study.markers("coverage"))
    rows = study.expected("probes.measures.classes.snr", "coverage").assign(held=0.5)
    new = study.written(text, "coverage", rows)
    assert "old" not in new
    assert new.startswith("Before.\n\n<!--")
    assert new.endswith("-->\n\nAfter.\n")
    assert study.table_of(new, "coverage").held.tolist() == ["0.500"] * len(rows)
    assert study.written(new, "coverage", rows) == new
    with pytest.raises(SystemExit, match="once each"):
        study.written("No markers.", "coverage", rows)


def test_no_simulated_number_stands_in_prose(study):
    for package in ("probes", "compress"):
        for place in (TOP / package).rglob("*.py"):
            tree = ast.parse(place.read_text(encoding="utf-8"))
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            for text in (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)):
                assert not (found := STATED.search(text)), (place, found)
    for place in (TOP / "notebooks/reference").rglob("*.md"):
        assert not (found := STATED.search(place.read_text(encoding="utf-8"))), (place, found)
