"""Two regressions against each other: the correlation and distance of their numbers, whatever the order of rows."""

import numpy as np
import pytest
from scipy import stats

import probes
from probes.measures.fidelity.number_loyalty import number_loyalty


def pair(rng, noise):
    base = probes.from_arrays(np.ones((60, 2)), id=np.arange(60))
    x = rng.normal(size=60)
    y = x + noise * rng.normal(size=60)
    return [base.assign(numbers=(("example", "number"), z[:, None])) for z in (x, y)], x, y


def test_it_is_what_scipy_says_and_rows_in_another_order_change_nothing(rng):
    (base, other), x, y = pair(rng, 0.5)
    expected = [stats.pearsonr(x, y)[0], np.square(x - y).mean()]
    order = rng.permutation(60)
    for second in (other, other.isel(example=order)):
        out = number_loyalty(base, second).sel(language="pooled")
        np.testing.assert_allclose(out.value, expected)
        assert (out.low < out.value).all()
        assert (out.value < out.high).all()


def test_a_model_is_loyal_to_itself_and_not_to_another(rng):
    (base, _), _, _ = pair(rng, 0.5)
    np.testing.assert_allclose(number_loyalty(base, base).value.sel(language="pooled"), [1, 0], atol=1e-12)
    other = base.assign(numbers=(("example", "number"), rng.normal(size=(60, 1))))
    assert abs(float(number_loyalty(base, other).value.sel(language="pooled")[0])) < 0.4


def test_without_numbers_it_is_refused(rng):
    (base, _), _, _ = pair(rng, 0.5)
    with pytest.raises(probes.InputError, match="number_loyalty needs predicted numbers, and the Representations of"):
        number_loyalty(base, base.drop_vars("numbers"))
