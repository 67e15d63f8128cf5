"""What is distilled layer by layer while layers are quantised one after another."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from compress.matrices import block_of
from compress.objectives.base import Pass, check_number, given_teacher, wide
from compress.objectives.layers import AttentionOutputs
from probes.errors import InputError


@dataclass
class QuantizedLayers:
    """How far the layers that are quantised by now are from the teacher's: weights and attention.

    With l the blocks that have quantised matrices at this step, W_l and W~_l the matrices of
    teacher and student, and A_l what each head of the block gives:

        weights * sum_l ||W_l - W~_l||^2 + attention / (number of l) * sum_l MSE(A_l, A~_l)

    The first is a sum over all weights of the quantised matrices, in their squared units, the
    second in squared units of the values; 0 before the first layer is quantised.

    Args:
        weights: what the distance of the weights counts.
        attention: what that of the attention outputs counts.
        weight: what both are multiplied by.
        name: what it is logged under.

    Raises:
        InputError: a number is negative or not finite; at the check, attention outputs of an
            architecture are not known; at the call, it is not used by `compress.product_quantize`,
            or the teacher lacks a matrix or has it in another shape.

    Notes:
        The host iPQ of self-distilled quantization (O' Neill and Dutta 2023, arXiv 2307.05972), as
        recalled. As there, a block counts from the step at which it is quantised. That the weights
        are held to the teacher's, not to those just before quantisation, and that padding is left
        out, are choices made here.

    See also:
        `product_quantize`, `AttentionOutputs`, `compress.recipes.self_distilled_quantization`.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = compress.product_quantize(
        ...     model, codes=16, block=4, train=train, tokenizer=tokenizer, steps=8, batch_size=4,
        ...     objective=[compress.CrossEntropy(), QuantizedLayers(weights=0.01)], progress=False
        ... )
        >>> [bool(loss) for loss in made.history["quantized_layers"].dropna()][:3]
        [False, True, True]
    """

    weights: float = 1.0
    attention: float = 1.0
    weight: float = 1.0
    name: str = "quantized_layers"
    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "attention_outputs"})
    quantized: Collection[str] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for setting in ("weights", "attention", "weight"):
            check_number(self.name, setting, getattr(self, setting), least=0)

    def check(self, student: PreTrainedModel, teacher: PreTrainedModel) -> None:
        """Raise `InputError` where attention outputs are not known, or blocks differ in number."""
        AttentionOutputs(name=self.name).check(student, teacher)

    def follow(self, quantized: Collection[str]) -> None:
        """Take the names of the matrices that are quantised, a collection that grows."""
        self.quantized = quantized

    def __call__(self, student: Pass, teacher: Pass | None, batch: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch with `attention_mask` (batch, token), times the weight."""
        if self.quantized is None:
            raise InputError(f"objective {self.name} is of layers that are quantised one by one: use product_quantize")
        given = given_teacher(teacher, self.name)
        names = sorted(self.quantized)
        own, theirs = (dict(p.model.named_parameters(remove_duplicate=False)) for p in (student, given))
        far = [self._distance(name, own, theirs) for name in names]
        blocks = sorted({1 + _number(name) for name in names if block_of(name) is not None})
        loss = self.weights * (torch.stack(far).sum() if far else torch.zeros((), device=student.model.device))
        if blocks:
            outputs = AttentionOutputs(layers={block: block for block in blocks}, name=self.name)
            loss = loss + self.attention * outputs(student, given, batch)
        return self.weight * loss

    def _distance(self, name: str, own: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if name not in own or name not in theirs or own[name].shape != theirs[name].shape:
            found = f"of shape {tuple(theirs[name].shape)}" if name in theirs else "not there"
            raise InputError(
                f"objective {self.name}: {name} of the teacher is {found}: expected a teacher with the matrices of the "
                "model that is quantised, none of them an expert's"
            )
        return (wide(own[name]) - wide(theirs[name]).detach()).square().sum()


def _number(name: str) -> int:
    """Return which block a matrix is in, from 0."""
    return int(re.findall(r"\d+", block_of(name) or "")[-1])
