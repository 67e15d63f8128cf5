"""The matrices of convolutions and of LSTM layers, which are compressed as those of linear maps are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from compress.views import MatrixView
from probes.errors import InputError
from probes.models.facts import name_of
from probes.models.weights import repeated_modules


class KernelMatrix(MatrixView):
    """The weights of a convolution as a matrix: a row a unit, all that it is fed side by side."""

    def __init__(self, module: nn.Module) -> None:
        """Args: the convolution."""
        self.module = module

    @property
    def stack(self) -> nn.Parameter:
        """The weights as the module has them, (unit, channel, place, ...)."""
        return self.module.get_parameter("weight")

    def part(self, whole: torch.Tensor) -> torch.Tensor:
        """Return something in the shape of the weights as (unit, channels and places)."""
        return whole.view(len(whole), -1)


def kernel_matrices(model: PreTrainedModel) -> dict[str, nn.Parameter | KernelMatrix]:
    """Return the matrices of the convolutions and LSTM layers in a model's repeated blocks, by the
    names of their parameters.

    A depthwise convolution, whose units read a channel each, has none: it mixes nothing.

    Raises:
        InputError: the weights of a convolution do not lie one after another, as in the memory
            format channels_last.

    Example:
        >>> import compress
        >>> config = compress.LSTMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1)
        >>> list(kernel_matrices(compress.LSTMLanguageModel(config)))
        ['lstm.weight_ih_l0', 'lstm.weight_hh_l0']
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    found: dict[str, nn.Parameter | KernelMatrix] = {}
    for name, module in repeated_modules(model):
        if isinstance(module, nn.LSTM):
            weights = module.named_parameters(recurse=False, remove_duplicate=False)
            found |= {f"{prefix}{name}.{n}": p for n, p in weights if n.startswith("weight")}
        elif isinstance(module, nn.Conv1d | nn.Conv2d) and module.weight.shape[1] > 1:
            if not module.weight.is_contiguous():
                raise InputError(
                    f"{name_of(model)}: the weights of {name} do not lie one after another, as in channels_last. Give "
                    "model.to(memory_format=torch.contiguous_format)"
                )
            found[f"{prefix}{name}.weight"] = KernelMatrix(module)
    return found


def check_linear(model: PreTrainedModel, names: Sequence[str], what: str) -> None:
    """Raise `InputError` where matrices are of convolutions or LSTM layers, for what is told of
    linear maps alone.

    Args:
        model: whose matrices they are.
        names: of the matrices.
        what: begins the message, as "criterion='wanda' weighs ...".

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> check_linear(model, ["bert.encoder.layer.0.output.dense.weight"], "this")
    """
    kernels = kernel_matrices(model)
    for name in (n for n in names if n in kernels):
        kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
        raise InputError(
            f"{what}, which is told of linear maps alone, and {name} is of a torch.nn.{kind}. Choose another, or the "
            "linear maps by only="
        )
