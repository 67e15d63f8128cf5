"""Predicted numbers against labels: by scipy, by hand, planted and none, and what is refused."""

import numpy as np
import pytest
from scipy import stats

import probes
from probes.measures.fidelity.number_quality import number_quality


def predicted(said, label=None, **more):
    reps = probes.from_arrays(np.ones((len(said), 2)), label=label, **more)
    return reps.assign(numbers=(("example", "number"), np.asarray(said, float)[:, None]))


def test_it_is_what_scipy_says_in_every_language(rng):
    label = rng.normal(size=80).round(1)
    said = label + rng.normal(size=80)
    language = np.repeat(["en", "fr"], 40)
    found = number_quality(predicted(said, label, language=language, id=np.tile(np.arange(40), 2))).value
    for where, rows in (("en", slice(0, 40)), ("fr", slice(40, 80)), ("pooled", slice(None))):
        expected = [
            stats.pearsonr(said[rows], label[rows])[0],
            stats.spearmanr(said[rows], label[rows])[0],
            np.square(said[rows] - label[rows]).mean(),
        ]
        np.testing.assert_allclose(found.sel(language=where), expected)


def test_a_planted_correlation_is_seen_and_none_is_not(rng):
    x = rng.normal(size=200)
    for truth in (0.6, 0.0):
        y = truth * x + (1 - truth**2) ** 0.5 * rng.normal(size=200)
        out = number_quality(predicted(y, x), draws=100).sel(language="pooled", measure=["pearson", "spearman"])
        assert ((out.low > 0) == (truth > 0)).all()
        assert (out.low < out.value).all()
        assert (out.value < out.high).all()


def test_what_is_the_same_for_all_correlates_with_nothing_and_says_so():
    with pytest.warns(probes.LayerscopeWarning) as said:
        out = number_quality(predicted(np.ones(6), np.arange(6)))
    named = [f"{name} of model arrays has no value at the output: one is the same" for name in ("pearson", "spearman")]
    assert [str(w.message)[: len(n)] for w, n in zip(said, named, strict=True)] == named
    pooled = out.value.sel(language="pooled")
    assert np.isnan(pooled.sel(measure=["pearson", "spearman"])).all()
    assert float(pooled.sel(measure="squared_error")) == pytest.approx(np.square(1 - np.arange(6)).mean())


def test_what_is_not_there_or_no_number_is_refused():
    with pytest.raises(probes.InputError, match="number_quality needs labels, and the Representations have none"):
        number_quality(predicted(np.ones(3)))
    with pytest.raises(probes.InputError, match="row 2: label 'x' is no number, and the head of arrays gives one"):
        number_quality(predicted(np.ones(3), ["1", "2", "x"]))
    with pytest.raises(probes.InputError, match="number_quality needs predicted numbers"):
        number_quality(probes.from_arrays(np.ones((3, 2)), label=[1, 2, 3]))
