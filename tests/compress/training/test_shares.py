"""Groups that come alike often: counts by hand, in a training that goes on, and bad input."""

from collections import Counter

import datasets
import numpy as np
import pandas as pd
import pytest
from stops import Stops
from trained import QUIET, make_corpus, same, weights

from compress.objectives.labels import CrossEntropy
from compress.training.loop import train
from compress.training.shares import EqualShares, equal_shares
from probes.errors import InputError

GROUPS = ["a"] * 20 + ["b"] * 3 + ["c"] * 4


def test_each_group_comes_alike_often_and_its_rows_do():
    order = EqualShares(GROUPS, seed=3)
    every = []
    for epoch in range(50):
        order.set_epoch(epoch)
        found = list(order)
        assert len(found) == len(order) == 27
        for at in range(0, 27, 3):  # in every stretch of three
            assert {GROUPS[row] for row in found[at : at + 3]} == {"a", "b", "c"}
        counts = Counter(found)
        assert all(counts[row] == 3 for row in (20, 21, 22))  # 9 of 3 rows
        assert {counts[row] for row in range(23, 27)} == {2, 3}  # 9 of 4 rows
        assert max(counts[row] for row in range(20)) == 1  # 9 of 20, none of them twice
        assert list(order) == found  # the same each time it is asked
        every.append(found)
    assert len(set(map(tuple, every))) == 50
    # Over many times through all rows of a group come alike often, in all places.
    seen = Counter(row for found in every for row in found)
    expected, count = 50 * 9 / 20, 20
    chi2 = sum((seen[row] - expected) ** 2 for row in range(count)) / (expected * (1 - 9 / 20))
    assert chi2 < 45  # of 20: 1 in 1,000
    assert list(EqualShares(GROUPS, seed=4)) != every[0]
    assert sorted(EqualShares(["x", "y", "x", "y"], seed=0)) == [0, 1, 2, 3]  # of equal groups each row once


def test_what_cannot_be_meant_is_refused():
    rows = [{"beside": {"language": "en"}} for _ in range(4)]
    assert equal_shares(rows, None, 0) is None
    with pytest.raises(InputError, match="balanced='language': all 4 texts are of the group 'en': expected at least"):
        equal_shares(rows, "language", 0)
    with pytest.raises(InputError, match="balanced='group': the column is missing in row 0 of those trained on: give"):
        equal_shares(rows, "group", 0)
    rows[2]["beside"]["language"] = None
    with pytest.raises(InputError, match="balanced='language': the column is null in row 2"):
        equal_shares(rows, "language", 0)
    with pytest.raises(InputError, match="balanced='language': rows hold several texts"):
        equal_shares([{"segments": [0]}], "language", 0)


class Notes:
    """Which rows each batch had."""

    name, weight, needs = "notes", 1.0, frozenset()

    def __init__(self):
        self.batches = []

    def __call__(self, student, teacher, batch):
        self.batches.append(batch["index"].tolist())
        return 0 * student.logits.sum()


@pytest.fixture
def uneven():
    rows = make_corpus().to_pandas()
    rows["kind"] = np.where(np.arange(len(rows)) % 9 == 0, "rare", "usual")
    return datasets.Dataset.from_pandas(rows[rows["split"] == "train"].drop(columns="split"), preserve_index=False)


def test_a_training_takes_rows_so_and_goes_on_where_it_was(make, tokenizer, uneven, tmp_path):
    kinds = list(uneven["kind"])
    assert Counter(kinds) == {"usual": 32, "rare": 4}

    def run(folder, *callbacks):
        notes, student = Notes(), make(dropout=0.1)
        how = {"steps": 7, "save_every": 3, "folder": tmp_path / folder, "balanced": "kind", **QUIET}
        history = train(student, tokenizer, uneven, objective=[CrossEntropy(), notes], callbacks=callbacks, **how)
        return history, weights(student), notes.batches

    history, expected, batches = run("whole")
    assert [Counter(kinds[i] for i in batch)["rare"] for batch in batches] == [4, 4, 4, 4, 2, 4, 4]  # of 8, of 4
    assert batches[0] != batches[5]
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    found = run("run")
    pd.testing.assert_frame_equal(found[0], history)
    assert same(found[1], expected)
    assert found[2] == batches[3:]
    with pytest.raises(InputError, match=r"the corpus has no column 'sort', which this training reads"):
        train(make(), tokenizer, uneven, objective=[CrossEntropy()], steps=1, balanced="sort", **QUIET)
