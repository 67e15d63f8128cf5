"""The ranges of what linear maps are fed: measured on texts, or running along in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.inputs import fed, inside_of, row_batches, run_of, say_unreached, tokens_of, walk
from compress.rows import every_row
from probes.errors import InputError
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS, QuantizedInput, apply_quantized_inputs
from probes.states.running import removed

_NEW = 0.1  # what the latest batch counts in a running range


class RunningRanges:
    """The range of the inputs of some modules: a moving average of what each batch spans."""

    def __init__(
        self, model: PreTrainedModel, names: Sequence[str], found: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        """Args: a model, the names of modules in it, and ranges to go on from."""
        self.modules = {name: model.base_model.get_submodule(name) for name in names}
        self.found = dict(found or {})
        self.hooks: Mapping[str, QuantizedInput] = {}

    def set(self, found: Mapping[str, tuple[float, float]]) -> None:
        """Go on from these ranges."""
        self.found = dict(found)
        for name, hook in self.hooks.items():
            hook.low, hook.high = self.found[name]

    def see(self, name: str, x: torch.Tensor, shared: bool = False) -> None:
        """Take in what a module is fed, (token, feature) without padding; `shared`: of all
        processes.
        """
        x = x.float()
        ends = torch.stack([-x.min(), x.max()])
        if shared and torch.distributed.is_initialized():  # each process has a part of the batch
            torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        low, high = -ends[0].item(), ends[1].item()
        if not np.isfinite([low, high]).all():
            raise InputError(f"{name}: its inputs span {low} to {high}, so they have no range. Look at the weights")
        if name in self.found:
            before = self.found[name]
            low, high = before[0] + _NEW * (low - before[0]), before[1] + _NEW * (high - before[1])
        self.found[name] = low, high

    @contextmanager
    def watching(self, model: PreTrainedModel, hooks: Mapping[str, QuantizedInput]) -> Iterator[None]:
        """Take in what the modules of a model get while it trains, and tell those that round it."""
        self.hooks = hooks
        inside: Callable[[torch.nn.Module], torch.Tensor] | None = None

        def masked(_module: torch.nn.Module, _inputs: object, settings: dict[str, Any]) -> None:
            nonlocal inside
            mask = settings.get("attention_mask")
            inside = None if mask is None else inside_of(model, mask)

        def see(name: str, x: torch.Tensor) -> None:
            if self.modules[name].training:
                mask = None if inside is None else inside(self.modules[name])
                self.see(name, tokens_of(x.detach(), mask), shared=True)
                if name in self.hooks:
                    self.hooks[name].low, self.hooks[name].high = self.found[name]

        with (
            removed([model.register_forward_pre_hook(masked, with_kwargs=True)]),
            fed(self.modules, see, first=True),
        ):
            yield


def measured_ranges(
    model: PreTrainedModel,
    names: Sequence[str],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The range of some modules' inputs over a corpus, in an order drawn by the seed."""
    rows = every_row(corpus, model, tokenizer)
    order = np.random.default_rng(seed).permutation(len(rows))
    running = RunningRanges(model, names)
    spans: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor) -> None:
        if x.numel():
            every = torch.cat([x.flatten(), spans[name]]) if name in spans else x
            spans[name] = torch.stack(every.aminmax())

    def batches() -> Iterator[Mapping[str, torch.Tensor]]:
        for batch in row_batches([rows[i] for i in order], tokenizer, model):
            yield batch
            for name, span in spans.items():  # over all calls of a module that layers share
                running.see(name, span)
            spans.clear()

    walk(model, run_of(model), running.modules, batches(), see, device=model.device, first=True)
    say_unreached(model, [name for name in names if name not in running.found], "what they are fed is not rounded")
    return running.found


def round_inputs(
    model: PreTrainedModel,
    names: Sequence[str],
    bits: int | None,
    found: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, QuantizedInput]:
    """Note in the configuration how the inputs of some modules are rounded, and do so; where ranges
    are given, of those that have one.
    """
    wanted = {k: v for k, v in (QUANTIZED_INPUTS.said(model.config) or {}).items() if k not in names}
    for name in names if bits is not None else ():
        if found is not None and name not in found:
            continue
        wanted[name] = {"bits": bits}
        if found is not None:
            wanted[name] |= {"low": found[name][0], "high": found[name][1]}
    if wanted:
        model.config.quantized_inputs = wanted
    elif hasattr(model.config, "quantized_inputs"):
        del model.config.quantized_inputs
    return apply_quantized_inputs(model)


def module_names(model: PreTrainedModel, matrices: Sequence[str]) -> list[str]:
    """The modules of some matrices, by their names in the model without its head."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [name.removeprefix(prefix).removesuffix(".weight") for name in matrices]
