"""Aligned weights: their formula, zero and gradient, what masks and scales are to them, and bad references."""

import numpy as np
import pytest
import torch
from passes import ENCODER, moved

from compress import prune
from compress.matrices import block_matrices
from compress.objectives.base import Pass, check
from compress.objectives.weights import AlignedWeights
from probes.errors import InputError


def weights_of(model):
    return {k: v.detach().double().numpy() for k, v in block_matrices(model).items()}


def aligned_by_hand(model, reference, form, conv1d=False):
    out = []
    for name, w in weights_of(model).items():
        w0 = weights_of(reference)[name]
        if conv1d:
            w, w0 = w.T, w0.T
        if form == "cosine":
            norm = np.linalg.norm
            out.append(np.mean([1 - a @ b / norm(a) / norm(b) for a, b in zip(w, w0, strict=True)]))
        else:
            out.append(np.sqrt(((w - w0) ** 2).sum() / (w0**2).sum()))
    return np.mean(out)


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
@pytest.mark.parametrize("architecture", [ENCODER, "GPT2LMHeadModel", "LlamaModel", "DistilBertModel"])
def test_aligned_weights_are_their_formula(tiny_models, architecture, form):
    reference = tiny_models(architecture)
    model = prune(moved(reference), sparsity=0.3)
    found = AlignedWeights(reference, form=form, weight=0.7)(Pass(model, None), None, {})
    expected = aligned_by_hand(model, reference, form, conv1d=architecture.startswith("GPT2"))
    assert float(found.detach()) == pytest.approx(0.7 * expected, rel=1e-5)
    assert expected > 0.01


def test_the_units_of_gpt2_are_the_columns_of_its_matrices(tiny_models):
    """The control to the test above: by rows its cosines are others."""
    reference = tiny_models("GPT2LMHeadModel")
    model = moved(reference)
    found = AlignedWeights(reference)(Pass(model, None), None, {})
    assert float(found.detach()) != pytest.approx(aligned_by_hand(model, reference, "cosine"), rel=1e-3)


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_aligned_weights_are_zero_at_the_reference_which_is_a_frozen_copy(model, form):
    aligned = AlignedWeights(model, form=form)
    assert aligned.name == f"aligned_weights_{form}"
    loss = aligned(Pass(model, None), None, {})
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert all(torch.isfinite(w.grad).all() for w in block_matrices(model).values())
    with torch.no_grad():
        for w in block_matrices(model).values():
            w[:, 0] += 1
    assert float(aligned(Pass(model, None), None, {}).detach()) > 0.01


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_pruned_weights_get_no_gradient_and_all_others_do(model, form):
    student = prune(moved(model), sparsity=0.6)
    AlignedWeights(model, form=form)(Pass(student, None), None, {}).backward()
    matrices = block_matrices(student)
    for name, w in student.named_parameters():
        if name not in matrices:
            assert w.grad is None, name
            continue
        assert (w.grad[w == 0] == 0).all(), name
        alone = (w != 0).sum(1, keepdim=True) == 1  # a row of one weight has a direction, which cannot turn
        free = (w != 0) & ~alone if form == "cosine" else w != 0
        assert (w.grad[free] != 0).all(), name


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_the_gradient_of_aligned_weights_is_that_of_the_loss(tiny_models, form):
    reference = tiny_models("BertModel", num_hidden_layers=1).double()
    student = prune(moved(reference), sparsity=0.5)
    name, w = next(iter(block_matrices(student).items()))
    aligned, kept = AlignedWeights(reference, form=form, weight=2, matrices=[name]), w != 0
    aligned(Pass(student, None), None, {}).backward()
    for i, j in torch.nonzero(kept)[::7].tolist():
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                w[i, j] += step
                values.append(float(aligned(Pass(student, None), None, {})))
                w[i, j] -= step
        assert float(w.grad[i, j]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-8)
    with torch.no_grad():
        before = float(aligned(Pass(student, None), None, {}))
        w -= 1e-3 * w.grad
        assert float(aligned(Pass(student, None), None, {})) < before


def test_the_scale_of_a_unit_is_nothing_to_the_cosine_and_something_to_frobenius(model):
    reference, student = model, moved(model)
    scaled = prune(student, sparsity=0)
    with torch.no_grad():
        for w in block_matrices(scaled).values():
            w.mul_(torch.linspace(0.1, 5, len(w))[:, None])
    for form, same in [("cosine", True), ("frobenius", False)]:
        aligned = AlignedWeights(reference, form=form)
        before, after = (float(aligned(Pass(m, None), None, {}).detach()) for m in (student, scaled))
        assert (after == pytest.approx(before, rel=1e-4)) is same


def test_masked_alone_the_cosine_is_the_energy_kept_and_frobenius_that_lost(model):
    student = prune(model, sparsity=0.6)
    kept, lost = [], []
    for name, w0 in weights_of(model).items():
        w = weights_of(student)[name]
        kept.append(np.mean(np.linalg.norm(w, axis=1) / np.linalg.norm(w0, axis=1)))
        lost.append(np.sqrt(1 - (w**2).sum() / (w0**2).sum()))
    found = [
        float(AlignedWeights(model, form=f)(Pass(student, None), None, {}).detach()) for f in ("cosine", "frobenius")
    ]
    assert found == pytest.approx([1 - np.mean(kept), np.mean(lost)], rel=1e-5)
    # Of all masks of one count the smallest weights cost least.
    other = prune(model, sparsity=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for w in block_matrices(other).values():
            w.view(-1)[torch.randperm(w.numel())[: round(0.6 * w.numel())]] = 0
    for form, value in zip(("cosine", "frobenius"), found, strict=True):
        assert float(AlignedWeights(model, form=form)(Pass(other, None), None, {}).detach()) > value


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_rows_and_matrices_of_zeros_are_finite(tiny_models, form):
    reference = tiny_models("BertModel", num_hidden_layers=1)
    student = moved(reference)
    (first, w), (second, v), *_ = block_matrices(student).items()
    with torch.no_grad():
        w[0] = 0  # pruned as a whole
        reference.get_parameter(first)[1] = 0  # without a direction to keep
        reference.get_parameter(second)[:] = 0
    loss = AlignedWeights(reference, form=form, matrices=[first, second])(Pass(student, None), None, {})
    loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in (w, v))
    assert (w.grad[0] == 0).all()
    assert (v.grad == 0).all()
    s, t = w.detach().double().numpy(), reference.get_parameter(first).detach().double().numpy()
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(s[2:], t[2:], strict=True)]
    expected = {
        "cosine": np.mean([1, *(1 - np.array(cosines))]) / 2,
        "frobenius": np.linalg.norm(s - t) / np.linalg.norm(t) / 2,
    }
    assert float(loss.detach()) == pytest.approx(expected[form], rel=1e-5)


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_the_reference_follows_the_model_to_its_device(model, form):
    aligned = AlignedWeights(model, form=form)
    assert aligned(Pass(model.to("meta"), None), None, {}).device.type == "meta"


def test_the_reference_may_have_another_head_or_be_tensors_in_half_precision(tiny_models, model):
    base = tiny_models("BertModel")
    student = moved(model)
    expected = AlignedWeights(model)(Pass(student, None), None, {})
    for reference in (dict(model.named_parameters()), model.state_dict(), model.base_model):
        assert AlignedWeights(reference)(Pass(student, None), None, {}) == expected
    name = next(iter(block_matrices(student)))
    some = [AlignedWeights(r, matrices=[name])(Pass(student, None), None, {}) for r in (model, model.base_model)]
    assert some[0] == some[1] != expected
    assert AlignedWeights(model)(Pass(moved(base), None), None, {}).isfinite()  # a head, and a student without
    half = {k: v.bfloat16() for k, v in model.state_dict().items()}
    found = AlignedWeights(half)(Pass(student, None), None, {})
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-2)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"intermediate_size": 24}, r"has shape \(20, 12\), in the reference \(24, 12\)"),
        ({}, {"num_hidden_layers": 2}, r"the reference has no matrix bert.encoder.layer.2"),
        ({"matrices": ["encoder.nowhere"]}, {}, "has no matrix encoder.nowhere: expected names"),
        ({"matrices": ["classifier.bias"]}, {}, "has no matrix classifier.bias: expected names"),
        ({"matrices": ["classifier.weight"]}, {"num_labels": 4}, "classifier.weight has shape"),
    ],
)
def test_check_refuses_a_reference_that_does_not_fit(tiny_models, model, settings, changes, message):
    aligned = AlignedWeights(tiny_models(ENCODER, **changes), **settings)
    with pytest.raises(InputError, match=message):
        check([aligned], model, None, labelled=True)
    with pytest.raises(InputError, match=message):
        aligned(Pass(model, None), None, {})


def test_check_refuses_an_empty_reference_and_a_student_without_blocks(tiny_models, model):
    with pytest.raises(InputError, match="the reference has no matrix"):
        check([AlignedWeights({})], model, None, labelled=True)
    with pytest.raises(InputError, match="no matrices in blocks"):
        check([AlignedWeights(model)], tiny_models(ENCODER, num_hidden_layers=0), None, labelled=True)
