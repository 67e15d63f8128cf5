"""The tables of the reference pages: what was counted and nothing else, and no number beside them."""

import ast
import re

import pandas as pd
import pytest
from calibration import pages, seeds
from calibration.__main__ import cases, lacking
from calibration.designs import designs
from calibration.estimates import expected
from calibration.real import NOT_OF_STATES, populations

from probes.measures import catalogue

# A share of simulated data sets, or a number behind "in simulations".
STATED = re.compile(r"[\d.]+ %[^.]{0,30} of (?:cases|data sets)|[Ii]n simulations[^.]*\d", re.DOTALL)


def test_every_table_has_the_rows_that_were_counted():
    rows = pages.read()
    for place, names in pages.pages().items():
        found = pages.table_of(place.read_text(encoding="utf-8"), pages.INTERVALS)
        wanted = pages.table([row for row in rows if row["probe"] in names])
        assert found.to_numpy().tolist() == wanted.astype(str).to_numpy().tolist(), place


def test_what_was_counted_is_what_is_counted_still():
    planted = [*designs(), *(p for p in populations([]) if p.model == "bundled")]
    known = {case.key(name) for case in cases(planted) for name in case.population.names}
    of_real_text = {row["states"] for row in pages.read() if row["states"].startswith("SIB-200")}
    stale = {tuple(row[k] for k in pages.KEY[:4]) for row in pages.read() if row["states"] not in of_real_text} - known
    assert not stale


def test_the_table_of_estimates_has_the_rows_that_are_written():
    found = pages.table_of(pages.page_of("effective_rank").read_text(encoding="utf-8"), pages.ESTIMATES)
    wanted = expected()
    assert found[list(wanted)].to_numpy().tolist() == wanted.astype(str).to_numpy().tolist()
    results = found.drop(columns=list(wanted)).to_numpy().ravel()
    assert all(re.fullmatch(r"none|\d\.\d{1,3}", x) for x in results)


def test_the_table_of_seeds_has_the_rows_that_are_written():
    found = pages.table_of(pages.OF_SEEDS.read_text(encoding="utf-8"), pages.SEEDS)
    wanted = seeds.expected()
    assert found[list(wanted)].to_numpy().tolist() == wanted.astype(str).to_numpy().tolist()
    assert found["holds"].astype(float).between(0.9, 0.99).all()


def test_every_probe_with_an_interval_of_states_or_outputs_has_a_table():
    counted = {name for design in designs() for name in design.names} | {n for p in populations([]) for n in p.names}
    lacking = {name for name, probe in catalogue.by_name().items() if not probe.interval.startswith("none")} - counted
    # Of what runs models, of numbers that are predicted, of trained heads, of shuffles, and of words, there is none.
    of_states = {n for n in lacking if not NOT_OF_STATES.intersection(catalogue.by_name()[n].needs)}
    assert of_states == {
        "representer_support",
        "linear_probe_control",
        "linear_probe_selectivity",
        "kernel_probe_control",
        "departure",  # of maps that each sample fits: calibration/dynamics.py
        "word_movers",
        "word_movers_gain",
        *(f"spectrum_{what}_{speed}" for what in ("energy", "language", "class") for speed in ("mean", "slow", "fast")),
    }


def test_a_table_is_written_between_its_markers_and_nowhere_else():
    text = "Before.\n\n{}\n\nstale\n\n{}\n\nAfter.\n".format(*pages.markers("intervals"))
    rows = pd.DataFrame({"probe": ["snr", "norm"], "holds": [0.5, 1.0]})
    new = pages.written(text, "intervals", rows)
    assert "stale" not in new
    assert new.startswith("Before.\n\n<!--")
    assert new.endswith("-->\n\nAfter.\n")
    assert pages.table_of(new, "intervals").holds.tolist() == ["0.5", "1.0"]
    assert pages.written(new, "intervals", rows) == new
    with pytest.raises(SystemExit, match="once each"):
        pages.written("No markers.", "intervals", rows)


def test_rows_take_the_place_of_those_of_their_key_in_the_order_that_is_given(monkeypatch):
    rows = [dict(zip(pages.KEY, (probe, "all", 60, 1, 200), strict=True)) for probe in ("b", "a", "c")]
    monkeypatch.setattr(pages, "read", lambda: rows)
    new = [rows[1] | {"samples": 400}]
    found = pages.kept(new, order=[("a", "all", 60, 1), ("b", "all", 60, 1)])
    assert [(row["probe"], row["samples"]) for row in found] == [("a", 400), ("b", 200), ("c", 200)]


def test_what_is_counted_with_as_many_samples_is_not_counted_again(monkeypatch):
    case = next(case for case in cases([*designs()]))
    rows = [dict(zip(pages.KEY, (*case.key(name), n), strict=True)) for name, n in (("snr", 200), ("variability", 40))]
    monkeypatch.setattr(pages, "read", lambda: rows)
    chosen = [(case, ["class_separability", "snr", "variability"])]
    assert lacking(chosen, 0) == [(case, ["class_separability", "variability"])]
    assert lacking(chosen, 40) == [(case, ["class_separability"])]
    assert lacking([(case, ["snr"])], 0) == []


def test_no_simulated_number_stands_in_prose():
    for package in ("probes", "compress"):
        for place in (pages.TOP / package).rglob("*.py"):
            tree = ast.parse(place.read_text(encoding="utf-8"))
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
            for text in (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)):
                assert not (found := STATED.search(text)), (place, found)
    for place in (pages.TOP / "notebooks/reference").rglob("*.md"):
        assert not (found := STATED.search(place.read_text(encoding="utf-8"))), (place, found)
