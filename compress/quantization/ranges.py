"""The ranges of what linear maps are fed: measured on texts, or running along in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from compress.rows import collate, training_rows
from probes.errors import InputError
from probes.models.facts import body_of
from probes.models.formats.quantized_inputs import QUANTIZED_INPUTS, QuantizedInput, apply_quantized_inputs
from probes.states.running import evaluating

_BATCH = 32
_NEW = 0.1  # what the latest batch counts in a running range
_RANGES = "quantized_inputs.json"


class RunningRanges:
    """The range of the inputs of some modules: a moving average of what each batch spans."""

    def __init__(
        self, model: PreTrainedModel, names: Sequence[str], found: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        """Args: a model, the names of modules in it, and ranges to go on from."""
        self.modules = {name: model.base_model.get_submodule(name) for name in names}
        self.found = dict(found or {})
        self.mask: torch.Tensor | None = None
        self.hooks: Mapping[str, QuantizedInput] = {}

    def set(self, found: Mapping[str, tuple[float, float]]) -> None:
        """Go on from these ranges."""
        self.found = dict(found)
        for name, hook in self.hooks.items():
            hook.low, hook.high = self.found[name]

    def see(self, name: str, x: torch.Tensor, shared: bool) -> None:
        """Take in inputs (batch, token, feature) but padding; `shared`: of all processes."""
        x = x.detach().float()
        if self.mask is not None and x.shape[:-1] == self.mask.shape:
            x = x[self.mask]
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
    def watching(
        self, model: PreTrainedModel | None = None, hooks: Mapping[str, QuantizedInput] | None = None
    ) -> Iterator[None]:
        """Take in what the modules get, always or in training, and tell those that round it."""
        self.hooks = hooks or {}

        def masked(_module: torch.nn.Module, _inputs: object, settings: dict[str, Any]) -> None:
            mask = settings.get("attention_mask")
            self.mask = None if mask is None else mask.bool()

        def seen(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if model is not None and not module.training:
                return
            self.see(name, inputs[0], shared=model is not None)
            if name in self.hooks:
                self.hooks[name].low, self.hooks[name].high = self.found[name]

        handles = [] if model is None else [model.register_forward_pre_hook(masked, with_kwargs=True)]
        for name, module in self.modules.items():
            handles.append(module.register_forward_pre_hook(partial(seen, name), prepend=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def saved_ranges(folder: str, step: int) -> Path:
    """Return where beside a checkpoint the ranges of inputs lie."""
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}" / _RANGES


def measured_ranges(
    model: PreTrainedModel,
    names: Sequence[str],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The range of some modules' inputs over a corpus, in an order drawn by the seed."""
    # Neither its split nor its labels count.
    corpus = corpus.remove_columns([c for c in ("split", "label") if c in corpus.column_names])
    rows, _ = training_rows(corpus, model, tokenizer)
    order = np.random.default_rng(seed).permutation(len(rows))
    running = RunningRanges(model, names)
    with running.watching(), evaluating(model, model.device), torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = collate(tokenizer, [rows[i] for i in order[start : start + _BATCH]])
            batch = {k: v.to(model.device) for k, v in batch.items()}
            running.mask = batch["attention_mask"].bool()
            body_of(model)(**batch)
    unseen = [name for name in names if name not in running.found]
    if unseen:
        raise InputError(
            f"calibrate: no text reaches {unseen[0]!r} and {len(unseen) - 1} more, as of a decoder whose encoder alone "
            "is run. Leave calibrate out, or choose the others with only="
        )
    return running.found


def round_inputs(
    model: PreTrainedModel,
    names: Sequence[str],
    bits: int | None,
    found: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, QuantizedInput]:
    """Note in the configuration how the inputs of some modules are rounded, and do so."""
    wanted = {k: v for k, v in (QUANTIZED_INPUTS.said(model.config) or {}).items() if k not in names}
    for name in names if bits is not None else ():
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
