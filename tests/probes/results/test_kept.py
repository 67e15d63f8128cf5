"""Draws that are kept with a comparison: of the right rows, exact, and what is computed from them."""

import io
import json

import numpy as np
import pandas as pd
import pytest

import probes
from probes.results.cells import FURTHER
from probes.results.kept import as_kept, from_bytes, to_bytes


@pytest.fixture
def both(with_heads):
    return probes.compare(with_heads | {"third": with_heads["worse"]}, probes=["snr", "cka", "accuracy", "best_layer"])


def test_every_row_has_its_own_draws(with_heads, both):
    table, kept = both.table, both.draws
    rows = pd.Series(range(kept.sizes["row"]), index=kept["row"].values)
    alone = probes.snr(with_heads["worse"])
    for row in table.query("probe == 'snr' and model == 'worse'").itertuples():
        at = alone.draws.sel(layer=row.layer, language=row.language).values
        assert kept["draws"].values[rows[row.Index]].tolist() == at.tolist()
    accuracy = probes.accuracy(with_heads["base"])
    for row in table.query("probe == 'accuracy' and model == 'base'").itertuples():
        assert (
            kept["draws"].values[rows[row.Index]].tolist() == accuracy.draws.sel(language=row.language).values.tolist()
        )
    assert not set(table.index[table["probe"] == "best_layer"]) & set(rows.index)


def test_of_maps_the_pooled_ones_and_each_layer_with_itself_are_kept(both):
    maps = both.table.query("probe == 'cka'")
    there = maps.index.isin(both.draws["row"].values)
    assert (there == ((maps["language"] == "pooled") | (maps["layer"] == maps["other_layer"])).to_numpy()).all()


def test_what_compares_with_the_baseline_differs_among_the_others_alone(both):
    """Its own layers stand beside each other in the baseline's rows, which is no model to be compared with."""
    for found in (both.table, both.adjusted(["probe"]), both.difference("base", "third")):
        assert found.loc[found["probe"] == "cka", ["difference", "p"]].isna().all(axis=None)
    found = both.difference("worse", "third").query("probe == 'cka'")
    assert (found["difference"] == 0).all()  # they are the same


def test_what_comes_from_opened_draws_is_what_came_before_saving(both, tmp_path):
    opened = probes.Comparison.open(both.save(tmp_path / "run"))
    assert opened.draws.equals(both.draws)
    for over in (["layer"], ["layer", "language"], ["model"], ["probe", "layer", "language", "model"]):
        pd.testing.assert_frame_equal(opened.adjusted(over), both.adjusted(over), check_dtype=False, check_exact=True)
    before, after = (c.difference("worse", "third") for c in (both, opened))
    pd.testing.assert_frame_equal(before, after, check_dtype=False, check_exact=True)
    other = both.save(tmp_path / "again")
    assert (other / "draws.npy").read_bytes() == (tmp_path / "run" / "draws.npy").read_bytes()


def test_a_folder_without_draws_or_with_those_of_another_is_refused(both, tmp_path):
    folder = both.save(tmp_path / "run")
    content = (folder / "draws.npy").read_bytes()
    (folder / "draws.npy").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(probes.InputError, match=r"run: draws\.npy is not the one that provenance\.json belongs to"):
        probes.Comparison.open(folder)
    (folder / "draws.npy").unlink()
    with pytest.raises(probes.InputError, match=r"expected draws\.npy beside comparison\.csv, and there is none"):
        probes.Comparison.open(folder)
    # As an earlier version wrote it.
    about = json.loads((folder / "provenance.json").read_text())
    del about["draws_sha256"]
    (folder / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(probes.InputError, match=r"as in what an earlier version saved\. Make the comparison again"):
        probes.Comparison.open(folder)


def test_draws_are_read_without_pickle_and_only_for_rows_that_are_there():
    kept = as_kept(
        np.array([0, 3]), np.array([0.0, 0.5]), np.random.default_rng(0).normal(size=(2, 7)), np.array([60.0, np.inf])
    )
    content = to_bytes(kept)
    assert from_bytes(content, 4, "draws.npy").equals(kept)
    with pytest.raises(probes.InputError, match=r"draws\.npy: expected the draws .*a row that the table has not"):
        from_bytes(content, 3, "draws.npy")
    for other in (np.array([{}], dtype=object), np.arange(3)):
        file = io.BytesIO()
        np.save(file, other, allow_pickle=True)
        with pytest.raises(probes.InputError, match=r"draws\.npy: expected the draws that Comparison\.save writes"):
            from_bytes(file.getvalue(), 4, "draws.npy")
    empty = as_kept(np.zeros(0, int), np.zeros(0), np.zeros((0, 5)))
    assert from_bytes(to_bytes(empty), 0, "draws.npy").sizes["row"] == 0


@pytest.mark.parametrize(
    ("shape", "draws", "message"),
    [
        ((10**12,), 7, r"64 bytes for 1,000,000,000,000 rows of 80"),
        ((2,), 10**7, r"64 bytes for 2 rows of 80,000,024"),
        ((2, 1), 7, r"an array of"),
        ((-1,), 7, r"64 bytes for -1 rows"),
    ],
)
def test_draws_that_declare_more_than_there_is_take_no_memory(shape, draws, message):
    form = [("row", "<i8"), ("unseen", "<f8"), ("units", "<f8"), ("draws", "<f8", (draws,))]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": form, "fortran_order": False, "shape": shape})
    with pytest.raises(probes.InputError, match=message):
        from_bytes(header.getvalue() + bytes(64), 4, "draws.npy")


def test_a_row_of_draws_stands_once():
    twice = to_bytes(as_kept(np.array([1, 1]), np.zeros(2), np.zeros((2, 5))))
    with pytest.raises(probes.InputError, match=r"draws\.npy: .*a row that comes twice"):
        from_bytes(twice, 4, "draws.npy")
    with pytest.raises(probes.InputError, match=r"draws\.npy: .*129 bytes for 2 rows of 64"):
        from_bytes(twice + b"x", 4, "draws.npy")


def test_columns_further_than_layer_and_language_come_along(both):
    assert [c for c in FURTHER if c in both.table] == ["other_layer"]
    assert str(both.table["other_layer"].dtype) == "int64"
