"""The best step of a training: measured at some steps on held-out text, its weights kept."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import is_whole
from compress.objectives.held_out import language_model_loss
from compress.outcomes import MEASURES, quality
from compress.rows import trained_on, training_rows
from compress.training.kept import Keeps
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.models.facts import head_of, name_of
from probes.models.weights import stored_bytes
from probes.states.running import evaluating

_LOWER = ("squared_error", "nats")


class Best(Keeps):
    """Measures a model at some steps of a training, and keeps the weights of the best one.

    Args:
        model: what is trained, as it is before.
        tokenizer: of the model.
        dev: what is measured on; a split "dev" of `train` by default.
        measure: of `compress.quality`, as "accuracy", or "nats" of a language model.
        languages: of `dev`; by default those that are trained on, so that others stay zero-shot.
        train: what is trained on.
        steps: of the training.
        looks: how often it is measured, at even distances, last at its end; None for 10 times, or
            in fewer steps at each.
        reading: max_length and prompt of the training: what is measured is read as what is trained on.

    Attributes:
        values: what was measured, by step.
        step: the best one: of equal ones the first.

    Raises:
        InputError: the head has no such measure; there is no text to measure on, or its labels are
            none of the model's; `looks` is not 1 to `steps`.
    """

    file = "best.safetensors"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        dev: datasets.Dataset | None,
        measure: str,
        languages: Sequence[str] | None,
        *,
        train: datasets.Dataset,
        steps: int,
        looks: int | None = None,
        **reading: Any,
    ) -> None:
        """Check what can be before any work."""
        head = head_of(model)
        check_choice("best", measure, ["nats"] if head == "tokens" else list(MEASURES.get(head or "", ())))
        looks = min(10, steps) if looks is None else looks
        if not is_whole(looks) or not 1 <= looks <= steps:
            raise InputError(f"looks={looks!r}: expected a whole number from 1 to {steps}, the steps of the training")
        self.dev, self.reading = _rows(dev, train, languages), reading
        if head != "tokens" and not training_rows(self.dev, model, tokenizer, **reading)[1]:
            raise InputError("dev has no labels, and the best step is told by them: add them, or leave best=... out")
        self.tokenizer, self.measure, self.sign = tokenizer, measure, -1 if measure in _LOWER else 1
        self.at = {round(k * steps / looks) for k in range(1, looks + 1)}
        self.values: dict[int, float] = {}
        self.step: int | None = None
        self.weights: dict[str, torch.Tensor] = {}
        self.fingerprint = corpus_fingerprint(self.dev)

    def size(self, student: PreTrainedModel) -> int:
        """Return the bytes of the weights that are kept."""
        return stored_bytes(student)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Measure, where it is time, and keep the weights where none before were as good."""
        if state.global_step not in self.at:
            return
        # Neither dropout nor the random numbers of the training are touched.
        with evaluating(model, model.device), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            self.take(state.global_step, self._measured(model), model)

    def take(self, step: int, value: float, model: PreTrainedModel) -> None:
        """Take up what was measured after a step."""
        self.values[step] = value
        best = -math.inf if self.step is None else self.sign * self.values[self.step]
        if self.sign * value > best:  # which no NaN is
            self.step = step
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

    def give(self, model: PreTrainedModel) -> None:
        """Give a model the weights of the best step."""
        if self.step is None:
            warnings.warn(
                f"{name_of(model)}: {self.measure} had no value at any of {len(self.values)} looks: the weights are "
                "those of the last step",
                LayerscopeWarning,
                stacklevel=3,
            )
            return
        model.load_state_dict(self.weights)

    def recorded(self) -> dict[str, Any]:
        """Return what a record says of the choice."""
        values = {str(step): value for step, value in self.values.items() if math.isfinite(value)}
        spoken = sorted(set(self.dev["language"]))
        return {"best": {"measure": self.measure, "languages": spoken, "step": self.step, "values": values}}

    def write(self, path: Path) -> None:
        """Write the best weights so far, and what was measured."""
        said = {"step": self.step, "values": list(self.values.items())}
        save_file({k: v.contiguous() for k, v in self.weights.items()}, path, {"best": json.dumps(said)})

    def read(self, path: Path) -> None:
        """Go on with the best weights of a checkpoint."""
        with safe_open(path, "pt") as opened:
            said = json.loads(opened.metadata()["best"])
            self.weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        self.values = {int(step): float(value) for step, value in said["values"]}
        self.step = said["step"]

    def _measured(self, model: PreTrainedModel) -> float:
        if self.measure == "nats":
            return language_model_loss(model, self.tokenizer, self.dev, **self.reading)["nats"]
        found = quality(model, self.tokenizer, self.dev, draws=2, **self.reading)
        row = (found["measure"] == self.measure) & (found["language"] == "pooled")
        return float(found.loc[row, "value"].iloc[0])


def _rows(dev: datasets.Dataset | None, train: datasets.Dataset, languages: Sequence[str] | None) -> datasets.Dataset:
    """What is measured on, without a split."""
    train = check_corpus(train)
    if dev is None:
        splits = list(train["split"]) if "split" in train.column_names else []
        if "dev" not in splits:
            raise InputError(
                "the best step is told by held-out text: give dev=..., or a corpus that has rows of split 'dev' too"
            )
        given = train.select([i for i, split in enumerate(splits) if split == "dev"])
    else:
        given = check_corpus(dev)
    spoken = set(train.select(trained_on(train))["language"]) if languages is None else set(languages)
    there = list(given["language"])
    if unknown := sorted(spoken - set(there)) if languages is not None else []:
        raise InputError(f"dev has no text in {unknown[0]!r}; it has {', '.join(sorted(set(there)))}")
    rows = [i for i, language in enumerate(there) if language in spoken]
    if not rows:
        raise InputError(
            f"dev has no text in {', '.join(sorted(spoken))}, which is trained on; it has "
            f"{', '.join(sorted(set(there)))}. Give other texts, or languages=..., which are then no longer zero-shot"
        )
    chosen = given.select(rows)
    return chosen.remove_columns("split") if "split" in chosen.column_names else chosen
