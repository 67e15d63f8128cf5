"""Views: what every kind of them has to say of itself; the kinds are tested beside their files."""

import pytest
import torch

from compress.views import MatrixView


class Turned(MatrixView):
    def __init__(self, parameter):
        self.parameter = parameter

    @property
    def stack(self):
        return self.parameter

    def part(self, whole):
        return whole.T


def test_a_view_shares_memory_and_knows_its_gradient_and_size():
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    view = Turned(weight)
    assert (view.shape, view.numel(), view.dtype, view.element_size(), view.grad) == ((3, 2), 6, torch.float32, 4, None)
    assert view.device == weight.device
    weight.square().sum().backward()
    assert torch.equal(view.grad, 2 * view.detach())
    view.detach()[0, 1] = 7.0
    assert weight[1, 0] == 7


def test_a_kind_has_to_say_what_it_is_of():
    with pytest.raises(NotImplementedError):
        _ = MatrixView().stack
    with pytest.raises(NotImplementedError):
        MatrixView().part(torch.ones(1))
