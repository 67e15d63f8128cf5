"""More of the rank of factors: the closest there is, and none where the whole takes no more."""

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from compress.tuning.ranks import matrix_of, more_ranks, ranks_then
from probes.models.formats.factorized import LowRankLinear


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_what_is_added_is_the_closest_of_its_rank(kind):
    torch.manual_seed(0)
    whole = torch.nn.Linear(40, 24) if kind == "Linear" else Conv1D(24, 40)
    torch.nn.init.normal_(whole.weight)
    low = LowRankLinear(40, 24, rank=5)
    found = more_ranks(low, whole)
    assert (found.first.out_features, ranks_then(low)) == (7, 7)
    assert torch.equal(found.second.bias, low.second.bias)
    assert torch.equal(found.first.weight[:5], low.first.weight)
    with torch.no_grad():
        before, after = (matrix_of(whole).double() - m.weight.double() for m in (low, found))
    sizes = torch.linalg.svdvals(before)
    assert float(after.square().sum()) == pytest.approx(float(sizes[2:].square().sum()), rel=1e-5)
    assert found(torch.zeros(3, 40)).shape == (3, 24)


def test_none_where_the_whole_takes_no_more_and_of_what_is_not_in_factors():
    whole = torch.nn.Linear(32, 32)
    assert more_ranks(LowRankLinear(32, 32, rank=14), whole) is None
    assert more_ranks(whole, whole) is None
    assert ranks_then(whole) is None
