"""What is counted of samples, on means whose intervals are known."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from calibration.sampled import Population, counted, noisy, of_kept_classes
from planted import planted

import probes


def means(rng, everyone, n, sets=2000, scale=1.0):
    """Means of samples without repetition, with the intervals of a normal distribution, some too narrow."""
    drawn = np.stack([rng.permutation(everyone)[:n] for _ in range(sets)])
    value, half = drawn.mean(axis=1), scale * 1.96 * drawn.std(axis=1, ddof=1) / np.sqrt(n)
    cells = {"value": value, "low": value - half, "high": value + half}
    cells |= {f"difference{k}": v for k, v in zip(("", "_low", "_high"), cells.values(), strict=True)}
    cells |= {"rejected": np.abs(value) > half, "rejected_any": np.abs(value) > half}
    found = xr.Dataset({name: ("set", v) for name, v in cells.items()})
    return found.expand_dims(layer=[0], language=["pooled"])


def everyone(words, ids):
    return Population(words, ("norm",), ids=ids)


@pytest.mark.parametrize("ids", [400, 4_000])
def test_exact_intervals_hold_as_often_and_are_as_wide_as_they_should_whatever_the_population(ids):
    rng = np.random.default_rng(0)
    people = rng.normal(size=ids)
    truth = xr.Dataset({"value": people.mean(), "difference": people.mean()})
    for scale, holds in ((1.0, 0.95), (0.5, 0.673)):
        figures = counted(everyone("normal", ids), 150, means(rng, people - people.mean(), 150, scale=scale), truth * 0)
        assert figures["holds"] == pytest.approx(holds, abs=0.012)
        assert figures["width"] == pytest.approx(scale, abs=0.03)
        assert figures["difference_holds"] == figures["holds"]
    assert figures["rejects"] == pytest.approx(1 - 0.673, abs=0.02) or ids == 400


def test_without_a_truth_it_is_the_mean_over_the_samples_and_of_each_sample_where_it_has_its_own():
    rng = np.random.default_rng(1)
    found = means(rng, rng.normal(size=4_000) + 7, 50, sets=1000)
    figures = counted(everyone("normal", float("inf")), 50, found, None)
    assert figures["holds"] == pytest.approx(0.945, abs=0.02)
    # What each sample is off its own truth by is what counts.
    moved = found.assign(truth=found.value - 5, difference_truth=found.value)
    figures = counted(everyone("normal", float("inf")), 50, moved, None)
    assert figures["holds"] == 0
    assert figures["difference_holds"] == 1


def test_copies_with_noise_of_their_own_are_as_far_from_the_model_as_the_other_one_is():
    base = planted(np.random.default_rng(2), ids=100, layers=2)
    far = xr.DataArray([0.1, 2.0], dims="layer")
    other = base.assign(
        hidden=base.hidden + far.values[:, None, None] * np.random.default_rng(3).normal(size=base.hidden.shape)
    )
    off = [copy.hidden - base.hidden for copy in noisy(base, other, np.random.default_rng(4))]
    for one in off:
        assert np.sqrt(np.square(one).mean(["example", "feature"])).values == pytest.approx(far.values, rel=0.05)
    assert abs(np.corrcoef(off[0].values.ravel(), off[1].values.ravel())[0, 1]) < 0.05


class Sentences(Population):
    """So many planted sentences and two noisy copies of them."""

    def whole(self):
        base = planted(np.random.default_rng(5), ids=int(self.ids), layers=2)
        return base, *(base.assign(hidden=base.hidden * np.linspace(1, k, base.sizes["feature"])) for k in (2, 3))


def test_what_leaves_out_classes_is_held_to_all_sentences_of_the_others():
    people = Sentences("planted", ("class_separability",), ids=80)
    base, other, _ = people.whole()
    kept = np.unique(base.label.values)[:2]
    rows = np.isin(base.label.values, kept)
    # Of the other classes the sample has no more than two sentences, in one group.
    few = ~rows & (pd.factorize(base.id.values)[0] < 8)
    truth = of_kept_classes(people, "class_separability", base.isel(example=rows | few))
    expected = [probes.class_separability(reps.isel(example=rows), draws=2).value for reps in (base, other)]
    xr.testing.assert_allclose(truth.truth.sel(language="pooled"), expected[0].sel(language="pooled"))
    xr.testing.assert_allclose(truth.difference_truth, (expected[1] - expected[0]).reset_coords(drop=True))
    # Not what all classes give.
    of_all = probes.class_separability(base, draws=2).value.sel(language="pooled")
    assert (np.abs(of_all - truth.truth.sel(language="pooled")) > 1e-3).all()
    # No two classes are left: there is no value to hold.
    alone = of_kept_classes(people, "class_separability", base.isel(example=base.label.values == kept[0]))
    assert bool(alone.truth.isnull().all())
