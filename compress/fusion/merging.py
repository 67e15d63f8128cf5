"""Layers become one: the tensor that they share from then on, at once or step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.fusion.layer_similarity import layer_similarity
from compress.fusion.pairs import module_name
from compress.training.kept import Keeps
from probes.files import write_whole
from probes.forms import read_json
from probes.models.formats.shared_layers import apply_sharing, layer_parameters, shared_of


class Fusing(Keeps):
    """Fuses layers of a model in place, at once or at some steps of a training."""

    file = "fusions.json"

    def __init__(
        self,
        model: PreTrainedModel,
        goals: Mapping[str, int],
        similarity: str,
        merge: str,
        unit: str,
        corpus: datasets.Dataset | None,
        tokenizer: PreTrainedTokenizerBase | None,
        seed: int,
    ) -> None:
        """Args: the model, how many tensors of each part go, and settings of `fuse`."""
        self.model, self.goals, self.similarity, self.merge, self.unit = model, dict(goals), similarity, merge, unit
        self.corpus, self.tokenizer, self.seed = corpus, tokenizer, seed
        self.done: list[dict[str, Any]] = []
        self.shares: dict[int, float] = {}  # of the goals, reached at each step

    def fuse(self, share: float, step: int) -> None:
        """Fuse the most similar pairs of each part until the share of its goal is reached."""
        counts = {part: math.floor(share * goal + 1e-9) for part, goal in self.goals.items()}
        for fusion in self.done:
            counts[fusion["part"]] -= 1
        if not any(count > 0 for count in counts.values()):
            return
        table = layer_similarity(
            self.model,
            similarity=self.similarity,
            unit=self.unit,
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            seed=self.seed + step,
        )
        generator = torch.Generator().manual_seed(self.seed + step)
        gone: set[tuple[str, int]] = set()
        for part, i, j, value in table.itertuples(index=False):
            if counts.get(part, 0) > 0 and (part, i) not in gone and (part, j) not in gone:
                self._merge(module_name(part, i), module_name(part, j), generator)
                found = float(value) if math.isfinite(value) else None  # JSON has no NaN
                fusion = {"part": part, "layer": int(i), "other_layer": int(j), "similarity": found}
                self.done.append(fusion | ({"step": step} if step else {}))
                gone.add((part, j))
                counts[part] -= 1

    def _merge(self, first: str, second: str, generator: torch.Generator) -> None:
        """Make of the tensors of two modules those of the first, which the second shares."""
        if self.merge == "drop" and self.unit == "layer":
            return
        base: Any = self.model.base_model
        shared = shared_of(self.model)
        sizes = [1 + sum(source == name for source in shared.values()) for name in (first, second)]
        of_second = sizes[1] / sum(sizes)
        known = dict(base.named_modules())
        own = ([base.get_parameter(p) for p in layer_parameters(known, name).values()] for name in (first, second))
        pairs = {id(p): (p, q) for p, q in zip(*own, strict=True)}  # one that the modules have twice comes once
        taken = torch.rand((), generator=generator) < of_second
        with torch.no_grad():
            for p, q in pairs.values():
                if self.merge == "mean":
                    p.copy_((sizes[0] * p.double() + sizes[1] * q.double()) / sum(sizes))
                elif self.merge == "mix":
                    mask = torch.rand(p.shape, generator=generator) < of_second
                    p.copy_(torch.where(mask.to(p.device), q, p))
                elif self.merge == "freeze" and taken:
                    p.copy_(q)
        self._share(first, second)

    def _share(self, first: str, second: str) -> None:
        config = self.model.config
        shared = shared_of(self.model)
        # All that shared the second's.
        shared = {t: first if s == second else s for t, s in shared.items()} | {second: first}
        config.shared_layers = dict(sorted(shared.items()))
        base: Any = self.model.base_model
        known = dict(base.named_modules())
        for path in layer_parameters(known, second).values():
            base.get_parameter(path).grad = None
        apply_sharing(self.model)
        for path in layer_parameters(known, first).values() if self.merge == "freeze" else ():
            parameter = base.get_parameter(path)
            parameter.requires_grad_(False)
            parameter.grad = None

    def write(self, path: Path) -> None:
        """Write what was fused."""
        write_whole(path, json.dumps(self.done) + "\n")

    def read(self, path: Path) -> None:
        """Fuse what was fused already, with the weights that it had."""
        self.done = read_json(path, [{"part": str, "layer": int, "other_layer": int}])
        for fusion in self.done:
            self._share(*(module_name(fusion["part"], fusion[k]) for k in ("layer", "other_layer")))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Fuse what is due at this step."""
        if state.global_step in self.shares:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                self.fuse(self.shares[state.global_step], state.global_step)
