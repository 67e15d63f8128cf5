import numpy as np
import pytest
from planted import planted

from probes.measures.classes.folds import folds_of
from probes.measures.classes.trained import accuracies, answers, pooled, untaught, weighed
from probes.results.draws import sample


def by_first_feature(x, y, inner):
    """A classifier that learns nothing but which labels there are, and says the first or the last."""

    def fit(x, labellings):
        ends = [(y.min(), y.max()) for y in labellings]
        return lambda x: np.stack([np.where(x[:, 0] > 0, last, first) for first, last in ends])

    return fit


def asked(reps, shuffles=2):
    drawn = sample(reps, draws=20, seed=0)
    folds = folds_of(drawn, "l0", 0)
    x = reps.hidden[0].values
    return drawn, folds, answers(x.__getitem__, drawn, "l0", folds, shuffles, 0, by_first_feature)


def test_every_row_is_answered_once_in_order_of_its_id():
    reps = planted(np.random.default_rng(0), ids=60)
    _, _, right = asked(reps)
    x, y = reps.hidden[0].values, reps.label.values.astype(int)
    for language in ("l0", "l1"):
        rows = np.flatnonzero(reps.language.values == language)
        rows = rows[np.argsort(reps.id.values[rows])]
        expected = np.where(x[rows, 0] > 0, 3, 0) == y[rows]
        assert right[language].shape == (60, 4)
        np.testing.assert_array_equal(right[language], np.repeat(expected[:, None], 4, axis=1))


def test_accuracies_are_shares_and_pooled_is_that_of_the_others():
    reps = planted(np.random.default_rng(0), ids=60, languages=3)
    drawn, folds, right = asked(reps)
    found = accuracies(drawn, "l0", folds, {k: v[:, None] for k, v in right.items()}, 0)
    for language in ("l0", "l1", "l2"):
        assert found.zero_shot[language][0, 0] == pytest.approx(right[language][:, 0].mean())
        assert found.control[language][0, 0] == pytest.approx(right[language][:, 2:].mean())
    expected = np.mean([found.in_language["l1"][0, 0], found.in_language["l2"][0, 0]])
    assert found.in_language["pooled"][0, 0] == pytest.approx(expected)
    assert len(found.rows["pooled"]) == 120


def test_pooled_of_one_language_is_that():
    reps = planted(np.random.default_rng(0), ids=20, languages=1)
    assert pooled(sample(reps, draws=2, seed=0), "l0", {"l0": np.ones(3)})["pooled"].tolist() == [1, 1, 1]


def test_untaught_classes():
    assert untaught(np.array([0, 1, 1]), np.array([2, 0])) == [2]
    assert untaught(np.array([1, 1]), np.array([1])) == [1]


def test_differences_keep_their_bounds():
    apart = np.where(np.arange(40) < 39, -1.0, 1.0)[:, None]
    weights = sample(planted(np.random.default_rng(0), ids=40, languages=1), draws=50, seed=0).weights
    found = weighed(apart, np.arange(40), weights, np.arange(40), (-1, 1))
    assert found.min() == -1
    assert found[0, 0] == pytest.approx(-0.95)
