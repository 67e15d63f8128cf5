import numpy as np
import pandas as pd
import pytest
from trained import QUIET, make_corpus

import probes
from compress import prune, recovery
from compress.matrices import block_matrices


def history(rows):
    return pd.DataFrame(rows, columns=["step", "when", "accuracy"])


def curve():
    """Two prunings, at 10 and 20: the first is made up for at once after 4 updates, the second never."""
    rows = [(10, "before", 0.8), (10, "after", 0.4)]
    rows += [(s, "after", v) for s, v in [(12, 0.6), (14, 0.78), (16, 0.8), (18, 0.82)]]
    rows += [(20, "before", 0.82), (20, "after", 0.5), (25, "after", 0.6), (30, "after", 0.7)]
    return history(rows)


def test_drop_t90_and_gap_by_hand():
    found = recovery(curve(), at=[10, 20]).set_index("step")
    assert found.loc[10, ["before", "after"]].tolist() == [0.8, 0.4]
    np.testing.assert_allclose(found["drop"], [0.4, 0.32])
    # 0.4 + 0.9 * 0.4 = 0.76 is reached at 14.
    assert found["t90"].tolist() == [4, np.inf]
    # Trapezoids of 0.4, 0.2, 0.02, 0, 0, 0 at 0, 2, 4, 6, 8, 10.
    assert found.loc[10, "gap"] == pytest.approx((0.6 + 0.22 + 0.02) / 10)
    assert found.loc[20, "gap"] == pytest.approx(((0.32 + 0.22) / 2 * 5 + (0.22 + 0.12) / 2 * 5) / 10)


def test_a_pruning_that_costs_nothing_is_made_up_for_at_once():
    found = recovery(history([(5, "before", 0.5), (5, "after", 0.6), (9, "after", 0.6)]), at=[5])
    assert found[["drop", "t90", "gap"]].round(9).to_numpy().tolist() == [[-0.1, 0, 0]]


def test_steps_are_read_from_the_history_where_it_notes_them():
    noted = curve()
    noted.attrs["pruned_at"] = [10, 20]
    pd.testing.assert_frame_equal(recovery(noted), recovery(curve(), at=[10, 20]))


def test_what_is_missing_is_said():
    with pytest.raises(probes.InputError, match=r"no 'f1' measured before and after a pruning, only 'step', 'wh"):
        recovery(curve(), "f1", at=[10])
    with pytest.raises(probes.InputError, match=r"which steps pruned is not noted in the history: give at="):
        recovery(curve())
    with pytest.raises(probes.InputError, match=r"step 12: the metric was not measured before and after it"):
        recovery(curve(), at=[12])


def test_distortion_and_sparsity_are_those_of_the_weights(tiny_models, make_tokenizer):
    """Against the matrices themselves, looked at just before and after each pruning."""
    seen = []

    def look(model):
        seen.append({n: w.detach().double().numpy().copy() for n, w in block_matrices(model).items()})
        return {"accuracy": 0.5}

    model = tiny_models("BertForSequenceClassification", id2label=dict(enumerate("xyz")))
    how = {"train": make_corpus(), "tokenizer": make_tokenizer(), "steps": 6, "schedule": "uniform", "prunings": 2}
    pruned = prune(model, sparsity=0.6, evaluate=look, **how, **QUIET)
    found = recovery(pruned.history)
    for i, row in found.iterrows():
        before, after = seen[2 * i : 2 * i + 2]
        w, m = (np.concatenate([x.ravel() for x in side.values()]) for side in (before, after))
        assert row["distortion"] == pytest.approx(np.linalg.norm(w - m) / np.linalg.norm(w), rel=1e-6)
        each = [(np.sqrt(x.size) - abs(x).sum() / np.linalg.norm(x)) / (np.sqrt(x.size) - 1) for x in before.values()]
        assert row["hoyer"] == pytest.approx(np.mean(each), rel=1e-9)
    assert found["hoyer"].is_monotonic_increasing
    assert "distortion" not in recovery(curve(), at=[10])
