"""Objectives of representations of texts: correlations of features, and relations between texts."""

import numpy as np
import pytest
import torch
from passes import with_z

from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine


def uncorrelated(rows, width, seed=0):
    """Features of mean 0 that are uncorrelated, each of length 1."""
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return np.linalg.qr(x - x.mean(0))[0]


def test_cross_correlation_is_zero_at_the_identity_and_counts_each_part(model):
    z, one = uncorrelated(32, 4), {"attention_mask": torch.ones(32, 1)}
    teacher = with_z(model, z)
    whole = CrossCorrelation(off_diagonal=1)
    scale, shift = np.array([3, 0.1, 1, 20]), np.array([1, -2, 0, 5])
    assert float(whole(with_z(model, z * scale + shift), teacher, one)) == pytest.approx(0, abs=1e-25)
    assert float(whole(with_z(model, -z), teacher, one)) == pytest.approx(4)  # 4 d / d
    exchanged = with_z(model, z[:, [1, 0, 2, 3]])  # two off the diagonal are 1, two on it 0
    assert float(CrossCorrelation(off_diagonal=0)(exchanged, teacher, one)) == pytest.approx(2 / 4)
    assert float(whole(exchanged, teacher, one)) == pytest.approx(4 / 4)
    # Without centring a shift matters.
    assert float(CrossCorrelation(center=False)(with_z(model, z + shift), teacher, one)) > 0.1


def test_cross_correlation_of_a_student_with_itself_is_the_redundancy_of_its_features(model):
    z = np.random.default_rng(0).normal(size=(32, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    found = CrossCorrelation(off_diagonal=0.1)(
        with_z(model, z), with_z(model, z), {"attention_mask": torch.ones(32, 1)}
    )
    squares = np.corrcoef(z.T) ** 2
    assert float(found) == pytest.approx(0.1 * (squares.sum() - 5) / 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_correlation_of_constant_features_is_finite_and_moves_nothing(model, dtype):
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    z[:, 1] = 0.1
    assert (z[:, 1] != z[:, 1].mean()).all()  # by rounding
    s, t = z.clone().requires_grad_(), z.flip(0)
    loss = CrossCorrelation(off_diagonal=0)(with_z(model, s), with_z(model, t), {"attention_mask": torch.ones(7, 1)})
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()
    assert (s.grad[:, 1] == 0).all()
    assert (s.grad[:, [0, 2]] != 0).any()
    c = [np.corrcoef(z[:, i], t[:, i])[0, 1] for i in (0, 2)]
    assert float(loss.detach()) == pytest.approx(((1 - c[0]) ** 2 + (1 - c[1]) ** 2 + 1) / 3, rel=1e-5)


def test_cross_correlation_of_one_text_is_one_without_a_gradient(model):
    s = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one, teacher = {"attention_mask": torch.ones(1, 1)}, with_z(model, torch.ones(1, 4, dtype=torch.float64))
    loss = CrossCorrelation(weight=3)(with_z(model, s), teacher, one)
    loss.backward()
    assert float(loss.detach()) == 3
    assert (s.grad == 0).all()
    # Not centred, each correlation is the sign of a product.
    signs = np.sign(s.detach().numpy())[0]
    expected = (((1 - signs) ** 2).sum() + 0.5 * 12) / 4
    found = CrossCorrelation(center=False, off_diagonal=0.5)(with_z(model, s.detach()), teacher, one)
    assert float(found) == pytest.approx(expected)


def test_cross_correlation_keeps_its_precision_under_autocast(model):
    z, one = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), {"attention_mask": torch.ones(32, 1)}
    student, teacher = with_z(model, z), with_z(model, z + 0.1 * z.flip(0))
    expected = CrossCorrelation()(student, teacher, one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(CrossCorrelation()(student, teacher, one)) == pytest.approx(float(expected), rel=1e-6)


def test_a_representation_of_zeros_has_a_finite_gradient(model):
    s = torch.zeros(2, 3, requires_grad=True)
    loss = RepresentationCosine()(
        with_z(model, s), with_z(model, torch.ones(2, 3)), {"attention_mask": torch.ones(2, 1)}
    )
    loss.backward()
    assert float(loss.detach()) == 1
    assert torch.isfinite(s.grad).all()


def test_relations_do_not_see_scale_shift_rotation_and_width_and_see_all_else(model):
    z, one = np.random.default_rng(0).normal(size=(9, 4)), {"attention_mask": torch.ones(9, 1)}
    teacher = with_z(model, z)
    turned = 3 * z @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0][:4] + 5
    assert float(Relational()(with_z(model, turned), teacher, one)) == pytest.approx(0, abs=1e-20)
    for other in (z * [1, 1, 1, 2], z[::-1].copy(), z[:, :3]):
        for kind in (Relational(angle=0), Relational(distance=0)):
            assert float(kind(with_z(model, other), teacher, one)) > 1e-3


def test_texts_that_the_student_cannot_tell_apart_count_by_hand(model):
    # The teacher's lie at distances of their mean and at 60 degrees, the student's at 0 without an angle.
    teacher, student = with_z(model, np.eye(3)), with_z(model, np.ones((3, 2)))
    found = Relational(distance=3, angle=5)(student, teacher, {"attention_mask": torch.ones(3, 1)})
    assert float(found) == pytest.approx(3 * 1**2 / 2 + 5 * 0.5**2 / 2)


def test_copies_of_a_text_and_too_few_texts_are_finite(model):
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[1] = z[0]
    for count, angles in ((5, True), (2, False), (1, False)):
        s, one = z[:count].clone().requires_grad_(), {"attention_mask": torch.ones(count, 1)}
        loss = Relational()(with_z(model, s), with_z(model, z.flip(0)[:count]), one)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(s.grad).all()
        assert (float(loss.detach()) > 0) == (count > 1)
        of_angles = Relational(distance=0)(with_z(model, s.detach()), with_z(model, z.flip(0)[:count]), one)
        assert (float(of_angles) > 0) == angles
