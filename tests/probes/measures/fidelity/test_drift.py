import numpy as np
import pytest

import probes
from probes.measures.fidelity.drift import drift


def test_equals_a_loop_over_sentences_in_every_layer_and_language(pair):
    base, other = pair
    out = drift(base, other)
    assert out.value.dims == ("measure", "layer", "language")
    for layer in range(3):
        for language in ("l0", "l1", "pooled"):
            rows = [i for i in range(80) if language in ("pooled", base.language.values[i])]
            x, y = base.hidden.values[layer], other.hidden.values[layer]
            cosine = np.mean([x[i] @ y[i] / np.linalg.norm(x[i]) / np.linalg.norm(y[i]) for i in rows])
            error = sum((y[i] - x[i]) @ (y[i] - x[i]) for i in rows)
            decibel = 10 * np.log10(sum(x[i] @ x[i] for i in rows) / error)
            ratio = sum(np.linalg.norm(y[i]) for i in rows) / sum(np.linalg.norm(x[i]) for i in rows)
            at = out.sel(layer=layer, language=language)
            np.testing.assert_allclose(at.value, [cosine, decibel, ratio], rtol=1e-10)
            assert ((at.low <= at.value) & (at.value <= at.high)).all()
            assert (at.n == len(rows)).all()


def test_more_noise_is_more_drift(pair):
    value = drift(*pair).value.sel(language="pooled")
    assert (value.sel(measure=["cosine_to_baseline", "signal_to_error"]).diff("layer") < 0).all()


def test_a_tenth_of_the_length_is_twenty_decibel(rng):
    x = probes.from_arrays(rng.normal(size=(50, 8)))
    at = drift(x, x.assign(hidden=1.1 * x.hidden)).value.sel(language="pooled").squeeze()
    np.testing.assert_allclose(at, [1, 20, 1.1])


def test_a_rotation_of_both_changes_nothing_and_of_one_all_but_the_length(rng, pair):
    base, other = pair
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    turned = [r.assign(hidden=(r.hidden.dims, r.hidden.values @ turn)) for r in pair]
    plain = drift(base, other).value
    np.testing.assert_allclose(drift(*turned).value, plain, rtol=1e-9)
    one = drift(base, turned[1]).value
    np.testing.assert_allclose(one.sel(measure="norm_ratio"), plain.sel(measure="norm_ratio"), rtol=1e-9)
    assert (one.sel(measure="cosine_to_baseline") < plain.sel(measure="cosine_to_baseline") - 0.1).all()
    # What similarity does not see.
    assert float(probes.similarity(base, turned[0]).value.sel(layer=0, other_layer=0, language="pooled")) > 1 - 1e-9


def test_no_change_is_infinitely_many_decibel_and_certain(pair):
    base = pair[0]
    at = drift(base, base.copy()).sel(measure="signal_to_error")
    assert (at.value == np.inf).all()
    assert (at.low == np.inf).all()
    assert (at.high == np.inf).all()
    same = drift(base, base.copy()).sel(measure="cosine_to_baseline")
    np.testing.assert_allclose(same.value, 1)


def test_layers_that_stand_beside_each_other_are_compared(pair):
    base, other = pair
    last = base.sizes["layer"] - 1
    out = drift(base, other.isel(layer=[0, last]).assign_coords(layer=[0, 1]))  # a model of one block
    assert out.layer.values.tolist() == [0, 1]
    np.testing.assert_array_equal(out.value.values, drift(base, other).value.sel(layer=[0, last]).values)
    some = drift(base, other.isel(layer=[0, last]))  # some layers of one that is as deep
    assert some.layer.values.tolist() == [0, last]
    with pytest.raises(probes.InputError, match="none that stand beside each other"):
        drift(base.isel(layer=[0]), other.isel(layer=[1]))


def test_another_width_is_refused_with_the_probe_that_takes_it(pair):
    with pytest.raises(
        probes.InputError, match=r"'base' has 16 and model 'small' 9; expected as many. Models of different width"
    ):
        drift(pair[0], pair[1].isel(feature=slice(0, 9)))


def test_another_order_is_aligned_and_other_sentences_are_refused(rng, pair):
    base, other = pair
    shuffled = drift(base, other.isel(example=rng.permutation(80)))
    np.testing.assert_allclose(shuffled.value, drift(base, other).value)
    with pytest.raises(probes.InputError, match="different sentences"):
        drift(base, other.isel(example=slice(1, None)))


def test_rows_that_are_not_finite_are_named_with_their_model(pair):
    base, other = pair
    other = other.copy(deep=True)
    other.hidden.values[1, 0, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match=r"layer 1: 1 rows of model small are not finite \(l0, pooled\)"):
        out = drift(base, other)
    assert np.isnan(out.value.sel(layer=1, language=["l0", "pooled"])).all()
    assert np.isfinite(out.value.sel(layer=[0, 2])).all()


def test_intervals_hold_the_true_drift():
    held = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(10, 60, 12))
        y = x + 0.5 * rng.normal(size=x.shape)
        out = drift(probes.from_arrays(x), probes.from_arrays(y), seed=seed).sel(language="pooled")
        error = out.sel(measure="signal_to_error")
        held.append(((error.low <= 10 * np.log10(4)) & (10 * np.log10(4) <= error.high)).values)
    assert 0.9 <= np.mean(held) <= 0.985
