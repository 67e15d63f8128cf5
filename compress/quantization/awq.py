"""AWQ: inputs that are large are given finer steps, by scales that what makes them takes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from compress.blocks import Change
from compress.inputs import run_of
from compress.matrices import block_of
from compress.moments import Moments, squared_error
from compress.quantization.quantizers import dequantize, quantize_tensor
from compress.quantization.weights import QuantizedMatrices
from probes.models.blocks import family_of, has_part, stacks_of
from probes.models.parts import Parts
from probes.states.batches import random_batch
from probes.states.running import evaluating

_POWERS = [k / 20 for k in range(1, 20)]
_SAME = 1e-4  # of the largest output: how much a fold may move it, which is rounding


@dataclass(frozen=True)
class Fold:
    """Matrices that read the same, and what makes it.

    Attributes:
        source: a module that has a `weight` with an entry, or a unit, for each input of the
            readers.
        own: the name of that weight.
        readers: names of matrices.
        plus: what the module adds to its weight, 1 for norms like those of Gemma.
        kind: the same for the same places of all blocks.
    """

    source: Any
    own: str
    readers: tuple[str, ...]
    plus: float
    kind: tuple[Any, ...]


def by_awq(model: PreTrainedModel, matrices: QuantizedMatrices) -> Change:
    """Return what rounds the matrices of a block to nearest, scaled by what they are fed.

    Lin, Tang, Tang, Yang, Dang, Han 2023, arXiv 2306.00978. The inputs of matrices that read the
    same are multiplied by s = size^a, size the mean |x| of each, a of 0, 0.05, ..., 0.95 as costs
    their outputs least; what makes them, a norm or a matrix before them, is divided by s. A fold
    that changes what the model gives on random tokens, as of a norm that the residual reads too, is
    taken back, and not tried in later blocks. Unlike theirs, ranges are not searched here (see
    `ranges`), and the error is that of the matrices, not of the block.

    Args:
        model: whose matrices they are; it is changed, its norms too.
        matrices: that are rounded.

    Raises:
        InputError: the table of parts has no row for the architecture.
    """
    stacks = stacks_of(model, family_of(model))
    names = {id(module): name for name, module in model.named_modules()}
    folds: dict[str, list[Fold]] = {}
    for row, blocks in stacks:
        for block in blocks:
            found = list(_folds(row, block, names[id(block)], matrices))
            folds.setdefault(block_of(f"{names[id(block)]}.") or names[id(block)], []).extend(found)
    failed: set[tuple[Any, ...]] = set()
    batch = random_batch(model, [7, 4])

    def outputs() -> torch.Tensor:
        with evaluating(model, model.device), torch.no_grad():
            given: torch.Tensor = run_of(model)(**batch)[0]
        return given

    def change(moments: Mapping[str, Moments]) -> None:
        before = outputs()
        done: set[str] = set()  # whose inputs are no longer those that were seen
        for fold in folds.get(block_of(next(iter(moments))) or "", []):
            if fold.kind in failed or done & set(fold.readers) or not set(fold.readers) <= moments.keys():
                continue
            scale = best_scale(matrices, fold.readers, moments)
            if scale is None:
                continue
            kept = apply(matrices, fold, scale)
            if bool(((outputs() - before).abs() <= _SAME * before.abs().max()).all()):
                done |= set(fold.readers)
                continue
            failed.add(fold.kind)
            for values, old in kept:
                values.copy_(old)
        matrices.write(matrices.rounded(moments))

    return change


def best_scale(
    matrices: QuantizedMatrices, readers: tuple[str, ...], moments: Mapping[str, Moments]
) -> torch.Tensor | None:
    """Return the scale of each input by which rounding costs the outputs of some matrices least,
    None where that is none.

    Args:
        matrices: how they are rounded.
        readers: names of matrices that are fed the same.
        moments: of what they are fed.
    """
    seen = moments[readers[0]]
    if not seen.tokens:
        return None
    size = (seen.sizes / seen.tokens).float().clamp_min(1e-8)
    least, best = _cost(matrices, readers, seen, None), None
    for power in _POWERS:
        scale = size**power
        scale = scale / (scale.max() * scale.min()).sqrt()
        cost = _cost(matrices, readers, seen, scale)
        if cost < least:
            least, best = cost, scale
    return best


def apply(matrices: QuantizedMatrices, fold: Fold, scale: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Multiply what the readers of a fold have for each input by a scale, and divide what makes the
    inputs by it; return what was changed, with its old values.
    """
    readers = [matrices.by_unit(name, matrices.parameters[name].detach()) for name in fold.readers]
    made = fold.source.weight.detach()
    if made.ndim == 2:
        made = matrices.by_unit(fold.own, made)
    bias = getattr(fold.source, "bias", None)
    changed = [*readers, made] + ([] if bias is None else [bias.detach()])
    kept = [(values, values.clone()) for values in changed]
    for values in readers:
        values.mul_(scale)
    made.copy_((made + fold.plus) / (scale[:, None] if made.ndim == 2 else scale) - fold.plus)
    if bias is not None:
        bias.detach().div_(scale)
    return kept


def _cost(matrices: QuantizedMatrices, readers: tuple[str, ...], seen: Moments, scale: torch.Tensor | None) -> float:
    total = 0.0
    for name in readers:
        weight = matrices.by_unit(name, matrices.parameters[name].detach())
        scaled = weight if scale is None else weight * scale
        rounded = dequantize(quantize_tensor(scaled, matrices.bits[name], name=name, **matrices.how))
        change = (rounded if scale is None else rounded / scale) - weight
        total += float(squared_error(change, seen.products).sum(dtype=torch.float64))
    return total


def _folds(row: Parts, block: nn.Module, name: str, matrices: QuantizedMatrices) -> Iterator[Fold]:
    """What may be folded in a block; whether it may is tried."""
    attention, forwards = row.attention, [f for f in row.feed_forwards if not f.experts]
    forwards = [f for f in forwards if all(has_part(block, part) for part in f.names)][:1]
    read = [attention.projections, *(f.inner for f in forwards)]
    read += [(*attention.projections, *f.inner) for f in forwards]  # side by side, behind one norm
    pairs = [(norm, readers, plus) for readers in read for norm in row.norms for plus in (0.0, 1.0)]
    if len(attention.projections) == 3:
        pairs.append((attention.projections[2], (attention.joined,), 0.0))
    pairs += [(f.inner[-1], (f.outer,), 0.0) for f in forwards if f.halves == 1]
    for source, readers, plus in pairs:
        if not all(has_part(block, part) for part in (source, *readers)):
            continue
        module: Any = block.get_submodule(source)
        whole = tuple(f"{name}.{reader}.weight" for reader in readers)
        own = f"{name}.{source}.weight"
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or not set(whole) <= matrices.parameters.keys():
            continue
        if weight.ndim == 2 and own not in matrices.parameters:
            continue  # which is to stay as it is
        units = len(matrices.by_unit(own, weight)) if weight.ndim == 2 else len(weight)
        widths = {matrices.by_unit(reader, matrices.parameters[reader].detach()).shape[1] for reader in whole}
        if widths == {units}:
            yield Fold(module, own, whole, plus, (row.blocks, source, readers, plus))
