"""Quant-Noise: random blocks of the weights are quantised in every forward pass of a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from compress.quantization.ranges import RunningRanges
from compress.quantization.weights import QuantizedMatrices
from compress.training.kept import Keeps
from probes.files import write_whole
from probes.forms import read_json
from probes.models.formats.quantized_inputs import QuantizedInput


class Noise(Keeps):
    """Quantises random blocks of the weights in every forward pass of a training.

    The values are written into the model before each pass and those behind them put back before the
    update, so that the gradient of the one is applied to the other: that is what straight-through
    means, and no module needs to know.
    """

    sharded = True

    def __init__(
        self,
        matrices: QuantizedMatrices,
        rate: float,
        block: int,
        seed: int,
        running: RunningRanges | None,
        hooks: Mapping[str, QuantizedInput],
    ) -> None:
        """Args: matrices, share and width of blocks, seed, ranges that run along, who rounds."""
        self.matrices, self.rate, self.block, self.seed = matrices, rate, block, seed
        self.running, self.hooks = running, hooks
        self.file = "" if running is None else "quantized_inputs.json"
        self.latent: dict[str, torch.Tensor] = {}
        self.quantized: dict[str, torch.Tensor] = {}
        self.substep, self.updated = 0, False

    def write(self, path: Path) -> None:
        """Write the ranges of inputs."""
        assert self.running is not None
        write_whole(path, json.dumps(self.running.found) + "\n")

    def read(self, path: Path) -> None:
        """Go on from the ranges of inputs that a checkpoint has."""
        assert self.running is not None
        self.running.set({k: tuple(v) for k, v in read_json(path, {str: [float]}).items()})

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the weights, and quantise some for the first pass."""
        self.latent, self.quantized = self.matrices.read(), self.matrices.rounded()
        self.substep, self.updated = 0, False
        self._disturb(state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw anew for the next pass."""
        self.substep += 1
        self._disturb(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put the weights back for the update."""
        self.matrices.write(self.latent)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note that the weights are those updated."""
        self.updated = True

    def measuring(
        self, evaluate: Callable[[PreTrainedModel], Mapping[str, float]]
    ) -> Callable[[PreTrainedModel], Mapping[str, float]]:
        """Let what measures the model see it quantised, once a step is through."""

        def measured(model: PreTrainedModel) -> Mapping[str, float]:
            if not self.updated:
                return evaluate(model)
            latent = self.matrices.read()
            self.matrices.write(self.matrices.rounded())
            try:
                return evaluate(model)
            finally:
                self.matrices.write(latent)

        return measured

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Let the ranges of inputs run along with the training."""
        if self.running is None:
            yield
            return
        with self.running.watching(model, self.hooks):
            yield

    def _disturb(self, step: int) -> None:
        # From the numbers of step and pass alone, so that a training that goes on draws what it would have drawn.
        state = np.random.SeedSequence([self.seed, step, self.substep]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        mixed = {}
        for name in sorted(self.latent):
            latent = self.matrices.by_unit(name, self.latent[name])
            units, width = latent.shape
            drawn = torch.rand(units, -(-width // self.block), generator=generator) < self.rate
            taken = drawn.repeat_interleave(self.block, 1)[:, :width].to(latent.device)
            quantized = self.matrices.by_unit(name, self.quantized[name])
            mixed[name] = self.matrices.by_unit(name, torch.where(taken, quantized, latent))
        self.matrices.write(mixed)
