"""Which layers to correct: the closed form against least squares over all sentences, planted layers, messages."""

import numpy as np
import pytest

import probes
from probes.measures.space.depth_control import corrections


def test_the_solution_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(50, 4, 6)) + 0.5  # (example, layer, feature)
    ends[:, 2] -= ends[:, 1]
    gram = np.einsum("elf,emf->lm", ends, ends) / 50
    whole = np.square(ends.sum(axis=1)).sum() / 50
    open_to = np.array([False, True, True, True])
    # sum_l a_l = sum_l c_l a_l, and 0 = sqrt(effort whole n) c_l.
    left = np.vstack([ends[:, open_to].transpose(0, 2, 1).reshape(-1, 3), np.sqrt(0.2 * whole * 50) * np.eye(3)])
    right = np.concatenate([ends.sum(axis=1).ravel(), np.zeros(3)])
    expected = np.linalg.lstsq(left, right, rcond=None)[0]
    found = corrections(gram[None], open_to, 0.2)
    np.testing.assert_allclose(found["value"][0], [0, *expected], rtol=1e-9)
    rest = np.einsum("l,elf->ef", 1 - np.array([0, *expected]), ends)
    assert found["left"][0] == pytest.approx(np.square(rest).sum() / 50 / whole)
    without = [np.square(ends.sum(axis=1) - ends[:, k]).sum() / 50 for k in range(4)]
    np.testing.assert_allclose(found["alone"][0], 1 - np.array(without) / whole)


def test_what_layers_add_makes_up_the_end_exactly_and_the_one_that_adds_is_found():
    rng = np.random.default_rng(1)
    turns = np.linalg.qr(rng.normal(size=(3, 4, 4)))[0]
    x = [rng.normal(size=(200, 4))]
    for turn in turns:
        x.append(x[-1] @ turn)
    off = 0.5 * rng.normal(size=(200, 4))
    y = [x[0], x[1], x[2] + off, x[3] + off @ turns[2]]
    base, other = probes.from_arrays(x), probes.from_arrays(y)
    found = probes.depth_control(base, other).sel(language="pooled")
    np.testing.assert_allclose(found.alone, [0, 0, 1, 0], atol=0.01)
    np.testing.assert_allclose(found.value, [0, 0, 1 / 1.1, 0], atol=0.01)
    assert float(found.left) == pytest.approx((1 - 1 / 1.1) ** 2, abs=0.01)
    late = probes.depth_control(base, other, horizon=1).sel(language="pooled")
    np.testing.assert_allclose(late.value, 0, atol=0.03)  # what was added before cannot be taken off


def test_a_layer_that_another_makes_up_for_is_not_corrected_alone():
    rng = np.random.default_rng(2)
    x = np.cumsum(rng.normal(size=(4, 300, 3)), axis=0)
    y = x.copy()
    off = rng.normal(size=(300, 3))
    y[1] += off  # taken back by the next
    y[3] += 0.3 * rng.normal(size=(300, 3))
    found = probes.depth_control(probes.from_arrays(x), probes.from_arrays(y)).sel(language="pooled")
    assert int(found.value.argmax("layer")) == 3
    assert float(found.alone.sel(layer=1)) < -1  # drift is largest there, and correcting it alone is harm


def test_equal_models_have_nothing_to_correct():
    base = probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 2)), name="base")
    with pytest.warns(probes.LayerscopeWarning, match="the two models end at the same states"):
        found = probes.depth_control(base, base)
    assert np.isnan(found.value).all()
    assert np.isnan(found.left).all()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"effort": 0}, "effort=0: expected a number above 0"),
        ({"horizon": 9}, "horizon=9: expected a whole number from 1 to 3"),
    ],
)
def test_what_cannot_be_used_is_refused(how, says):
    base = probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 2)))
    with pytest.raises(probes.InputError, match=says):
        probes.depth_control(base, base, **how)
