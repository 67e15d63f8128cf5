"""Draws of ids: balanced, the same for every model, translations together."""

import numpy as np
import pytest
from planted import planted

import probes
from probes.results.draws import sample


def drawn(**options):
    return sample(planted(np.random.default_rng(0), ids=30, **options), draws=100, seed=0)


def test_every_draw_has_as_many_ids_as_the_sample_and_every_id_is_drawn_equally_often():
    weights = drawn().weights
    assert weights.shape == (101, 30)
    assert (weights[0] == 1).all()
    assert (weights[1:].sum(axis=1) == 30).all()
    assert (weights[1:].sum(axis=0) == 100).all()


def test_draws_vary_as_a_bootstrap_does():
    weights = drawn().weights[1:].astype(float)
    # Multinomial counts: variance 1 - 1 / n.
    assert weights.var() == pytest.approx(1 - 1 / 30, abs=0.05)


def test_draws_do_not_depend_on_rows_or_languages():
    a, b = drawn(languages=2), drawn(languages=3)
    assert np.array_equal(a.weights, b.weights)
    assert a.key == b.key


def test_translations_stay_together():
    # Two languages with the same states: an interval over both is as wide as one, since there are no more sentences.
    reps = planted(np.random.default_rng(0), ids=60, languages=1)
    both = probes.from_arrays(
        np.concatenate([reps.hidden.values] * 2, axis=1),
        id=np.tile(reps.id.values, 2),
        language=np.repeat(["a", "b"], 60),
        label=np.tile(reps.label.values, 2),
    )
    split_measures = probes.from_arrays(both.hidden.values, label=both.label.values)
    width = {
        name: (out.high - out.low).sel(language="pooled").item()
        for name, out in (("one", probes.snr(reps)), ("both", probes.snr(both)), ("apart", probes.snr(split_measures)))
    }
    assert width["both"] > 0.9 * width["one"]
    assert width["apart"] < 0.9 * width["one"]


@pytest.mark.parametrize("draws", [0, 1])
def test_too_few_draws_are_refused(draws):
    with pytest.raises(probes.InputError, match=f"draws={draws}: expected a whole number of at least 2"):
        probes.snr(planted(np.random.default_rng(0), ids=30), draws=draws)
