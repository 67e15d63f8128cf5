"""Inputs of linear maps that are rounded to a few bits, as kernels for integers would get them.

Which modules that are, and how, is in the configuration of a model (`config.quantized_inputs`);
weights need no such thing, since rounded ones are weights like any other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.formats.format import Format

BITS = range(2, 9)


def apply_quantized_inputs(model: PreTrainedModel) -> dict[str, QuantizedInput]:
    """Let the modules that a model's configuration names, and no others, round their inputs.

    `config.quantized_inputs` has for each module, by its name in `model.base_model`, the bits, and
    where the range is fixed its ends: {"encoder.layer.0.output.dense": {"bits": 8, "low": -1.5,
    "high": 3.0}}. To call it again changes nothing. `probes.load_checkpoint` calls it; a model that
    transformers itself has loaded does not round its inputs before it was called.

    Args:
        model: a model of transformers; what it computes is changed.

    Returns:
        What rounds the input of each module, by name.

    Raises:
        InputError: the configuration names a module that the model does not have, or settings that
            cannot be.

    Example:
        >>> import torch, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> model.config.quantized_inputs = {"encoder.layer.0.output.dense": {"bits": 4}}
        >>> list(apply_quantized_inputs(model))
        ['encoder.layer.0.output.dense']
    """
    wanted: dict[str, dict[str, Any]] = QUANTIZED_INPUTS.said(model.config) or {}
    known = dict(model.base_model.named_modules())
    for name in wanted:
        if name not in known:
            raise QUANTIZED_INPUTS.unknown(model, name)
    hooks = {name: _hook(name, settings) for name, settings in wanted.items()}
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, QuantizedInput):
                del module._forward_pre_hooks[key]
    for name, hook in hooks.items():
        known[name].register_forward_pre_hook(hook)
    return hooks


def quantized_inputs_of(model: PreTrainedModel) -> dict[str, dict[str, Any]]:
    """Return what `config.quantized_inputs` has to say of a model as it is, after modules have
    moved or gone.
    """
    return {
        name: {k: v for k, v in vars(hook).items() if v is not None}
        for name, module in model.base_model.named_modules()
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, QuantizedInput)
    }


def _hook(name: str, settings: Any) -> QuantizedInput:
    known = {"bits"}, {"bits", "low", "high"}
    good = isinstance(settings, dict) and set(settings) in known and settings["bits"] in BITS
    if good and len(settings) > 1:
        low, high = settings["low"], settings["high"]
        good = isinstance(low, int | float) and isinstance(high, int | float) and low <= high
    if not good:
        raise InputError(
            f"config.quantized_inputs of the module {name!r}: expected bits of 2 to 8 and either no range or low and "
            f"high, found {settings}"
        )
    return QuantizedInput(**settings)


@dataclass(eq=False)
class QuantizedInput:
    """A forward pre-hook that rounds the input of a module to a grid of 2^bits values.

    Without a range every token (the last dimension) has its own, from its least to its largest
    value. With one, what lies outside is clipped. The gradient passes as if nothing had been
    rounded or clipped.

    Attributes:
        bits: 2 to 8.
        low, high: the range, made to include 0.
    """

    bits: int
    low: float | None = None
    high: float | None = None

    def __call__(self, _module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs of a module, the first of them rounded."""
        x: torch.Tensor = inputs[0]
        with torch.no_grad():
            values = x.float()
            if self.low is None or self.high is None:
                low, high = values.aminmax(dim=-1, keepdim=True)
            else:
                low, high = values.new_tensor([[self.low], [self.high]])
            scale, zero = affine_grid(low, high, self.bits)
            rounded = nearest_step(values, scale, zero, self.bits).mul_(scale).to(x.dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            rounded = _StraightThrough.apply(x, rounded)
        return (rounded, *inputs[1:])


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def affine_grid(low: torch.Tensor, high: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return step and zero point of the grid of 2^bits values over ranges that are made to include
    0.

    Args:
        low, high: float32 of any shape, the ends of each range.
        bits: 2 to 8.

    Returns:
        The step, (high - low) / (2^bits - 1) rounded as `exact_step` says, and the zero point, a
        whole number of 0 to 2^bits - 1, both float32 in the shape of `low`. The grid is step *
        (code - zero point), code = 0 to 2^bits - 1.

    Example:
        >>> import torch
        >>> affine_grid(torch.tensor([-1.0]), torch.tensor([2.0]), 2)
        (tensor([1.]), tensor([1.]))
    """
    low, high = low.clamp_max(0), high.clamp_min(0)
    top = torch.full_like(high, 2**bits - 1)
    scale = exact_step(high / top - low / top)
    # Where both ends would round inwards, the last value were never used, and rounding twice not the same as once.
    unused = _half_up(high / scale) - _half_up(low / scale) < top
    scale = torch.where(unused, exact_step((scale.view(torch.int32) - _COARSE).view(torch.float32)), scale)
    return scale, -_half_up(low / scale)


def nearest_step(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """Return how many steps from 0 the value of an affine grid lies that is nearest to x, ties
    upwards.
    """
    return _half_up(x / scale).clamp_(-zero, 2**bits - 1 - zero)


_COARSE = 1 << 8  # what of a float32 is rounded away: the last 8 of the 24 bits that count


def exact_step(step: torch.Tensor) -> torch.Tensor:
    """Round positive float32 to 16 significant bits, and up to the least normal one.

    Up to 255 such steps are exact in float32: what was rounded once is not changed when it is
    rounded again.
    """
    least = torch.finfo(torch.float32).tiny
    rounded = (step.clamp_min(least).view(torch.int32) + _COARSE // 2) & -_COARSE
    return rounded.view(torch.float32)


def _half_up(x: torch.Tensor) -> torch.Tensor:
    # Halves go up whatever their sign: both ends of a range then round in the same direction.
    return (x + 0.5).floor_()


def _apply(model: PreTrainedModel, missing: Collection[str] | None) -> Collection[str]:
    apply_quantized_inputs(model)
    return ()  # it has no weights


def _lacks(model: PreTrainedModel) -> str | None:
    there = quantized_inputs_of(model)
    other = [name for name, settings in model.config.quantized_inputs.items() if there.get(name) != settings]
    return f"those of {other[0]} are rounded otherwise, or not at all" if other else None


_FORM = {str: {"bits": BITS, "low?": float, "high?": float}}
QUANTIZED_INPUTS = Format("quantized_inputs", "inputs that are rounded", _FORM, apply=_apply, lacks=_lacks)
