"""The experts of a mixture: each one's matrices, in parameters of three dimensions, and what the
router sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from compress.views import MatrixView
from probes.states.running import removed

# Gets the name of a matrix and what it is fed: (token, feature).
See = Callable[[str, torch.Tensor], None]


class ExpertMatrix(MatrixView):
    """The matrix of one expert, in a parameter that holds those of all."""

    def __init__(self, experts: nn.Module, parameter: str, number: int) -> None:
        """Args: the module, its parameter (expert, ...) and which expert."""
        self.experts, self.parameter, self.number = experts, parameter, number
        self.inputs_first = bool(getattr(experts, "is_transposed", False))

    @property
    def stack(self) -> nn.Parameter:
        """The parameter that holds the matrices of all experts."""
        return self.experts.get_parameter(self.parameter)

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """Return of something in the shape of the parameter what is of this expert."""
        return whole[self.number]


def experts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield the parameters that hold the matrices of experts: the name of a module, it, and the
    parameter's name.
    """
    for name, module in model.named_modules():
        count = getattr(module, "num_experts", None)
        for parameter, values in module.named_parameters(recurse=False):
            if values.ndim == 3 and len(values) == count:
                yield name, module, parameter


def expert_matrices(model: nn.Module) -> dict[str, ExpertMatrix]:
    """Return the matrices of the experts of a model, each by the name of their parameter and its
    number.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> expert_matrices(model)  # of which it has none
        {}
    """
    return {
        f"{name}.{parameter}.{number}": ExpertMatrix(module, parameter, number)
        for name, module, parameter in experts_of(model)
        for number in range(len(module.get_parameter(parameter)))
    }


def fed_to_experts(
    matrices: Mapping[str, ExpertMatrix], see: See, mask: Callable[[], torch.Tensor | None]
) -> AbstractContextManager[None]:
    """Hand what matrices of experts are fed to a function while they run: the tokens that the
    router sends to each, without padding.

    Args:
        matrices: by any names.
        see: gets the name of a matrix and its input, (token, feature), of an expert that gets some.
        mask: gives which tokens (batch, token) are none of padding; None where all are.
    """
    modules: dict[int, nn.Module] = {id(m.experts): m.experts for m in matrices.values()}
    hooks = (
        module.register_forward_pre_hook(
            partial(_route, {n: m for n, m in matrices.items() if m.experts is module}, see, mask), with_kwargs=True
        )
        for module in modules.values()
    )
    return removed(hooks)


def _route(
    matrices: Mapping[str, ExpertMatrix],
    see: See,
    mask: Callable[[], torch.Tensor | None],
    module: nn.Module,
    given: tuple[Any, ...],
    named: dict[str, Any],
) -> None:
    hidden, chosen = [*given, *named.values()][:2]
    hidden, chosen = hidden.detach().flatten(0, -2), chosen.flatten(0, -2)
    tokens = mask()
    if tokens is not None and tokens.numel() == len(hidden):
        hidden, chosen = hidden[tokens.flatten()], chosen[tokens.flatten()]
    for name, matrix in matrices.items():
        fed = hidden[(chosen == matrix.number).any(-1)]
        if not len(fed):
            continue
        first = matrix.parameter != "down_proj"
        see(name, fed if first else _between(module, matrix.number, fed))


def _between(module: Any, number: int, x: torch.Tensor) -> torch.Tensor:
    """What an expert's first matrices make of tokens, which its last one reads."""
    name = "gate_up_proj" if hasattr(module, "gate_up_proj") else "up_proj"
    weight = getattr(module, name).detach()[number]
    made = x @ weight if getattr(module, "is_transposed", False) else x @ weight.T
    bias = getattr(module, f"{name}_bias", None)
    made = made if bias is None else made + bias.detach()[number]
    out: torch.Tensor = module._apply_gate(made) if name == "gate_up_proj" else module.act_fn(made)
    return out
