"""The sparse head: what it computes, how it is made from the configuration, and what is refused."""

import pytest
import torch

import probes
from probes.models.formats.sparse_embeddings import SparseHead, apply_sparse_head, sparse_head_of


def test_the_head_is_a_map_relu_and_division_by_the_length():
    torch.manual_seed(0)
    head, x = SparseHead(4, 9), torch.randn(5, 4)
    active = (x.double() @ head.linear.weight.double().T + head.linear.bias.double()).clamp_min(0)
    expected = active / active.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x).double(), expected, atol=1e-6, rtol=0)
    head.linear.bias.data.fill_(-100)
    assert not head(x).any()  # not NaN


def test_a_threshold_is_soft_on_both_sides():
    torch.manual_seed(0)
    head, x = SparseHead(4, 9, threshold=0.3), torch.randn(5, 4)
    z = x.double() @ head.linear.weight.double().T + head.linear.bias.double()
    active = z.sign() * (z.abs() - 0.3).clamp_min(0)
    torch.testing.assert_close(head(x).double(), active / active.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    assert (head(x) < 0).any()
    assert (head(x) == 0).any()


def test_a_threshold_is_read_from_the_configuration_and_told_by_the_fingerprint(tiny_models):
    made = []
    for said in ({"features": 7}, {"features": 7, "threshold": 0.5}):
        model = tiny_models("BertModel")
        model.config.sparse_embeddings = said
        apply_sparse_head(model)
        with torch.no_grad():
            for parameter in model.sparse_head.parameters():
                parameter.fill_(0.1)
        made.append(model)
    assert [m.sparse_head.threshold for m in made] == [0.0, 0.5]
    prints = [probes.models.fingerprint.weights_fingerprint(m) for m in made]
    assert prints[0] != prints[1]


def test_a_head_is_made_once_of_the_type_and_mode_of_its_model_without_a_trace(tiny_models):
    model = tiny_models("BertModel").to(torch.bfloat16)
    apply_sparse_head(model)
    assert not hasattr(model, "sparse_head")
    model.config.sparse_embeddings = {"features": 7}
    drawn = torch.get_rng_state()
    apply_sparse_head(model)
    assert torch.equal(torch.get_rng_state(), drawn)
    head = sparse_head_of(model)
    assert (head.linear.weight.shape, head.linear.weight.dtype, head.training) == ((7, 12), torch.bfloat16, False)
    apply_sparse_head(model)
    assert model.sparse_head is head


@pytest.mark.parametrize(
    "said", [{"features": 0}, {"features": 1.5}, {"features": True}, {"features": 7, "threshold": -1.0}, {}, 7, [7]]
)
def test_a_size_that_is_none_is_refused(tiny_models, said):
    model = tiny_models("BertModel")
    model.config.sparse_embeddings = said
    with pytest.raises(probes.InputError, match=r"config.sparse_embeddings is .*: expected"):
        apply_sparse_head(model)


def test_a_model_without_one_is_told_what_to_do(tiny_models):
    with pytest.raises(probes.InputError, match="BertModel has no sparse head: expected a model of"):
        sparse_head_of(tiny_models("BertModel"))
