"""Module grafting: blocks of a teacher stand in at random for those of the pruned model."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback

from compress.matrices import block_matrices, block_of
from probes.errors import InputError, check_choice


class Grafting(TrainerCallback):
    """Train the blocks of a model inside its frozen teacher: each stands at random in its place.

    Drawn once a block and forward pass in training, again where no block would be the model's own,
    since nothing could be learned then; outside of training all blocks are its own. Nothing but the
    blocks is trained. The learning rate falls to zero twice, until `prune_until` and again until
    the end.

    Args:
        teacher: a model of the same architecture, not changed.
        probability: that a block is the model's own until `prune_until`, above 0 and at most 1.
        prune_until: share of the training in which the probability stays.
        alone_from: share of the training from which on the model stands alone; in between the
            probability rises linearly to 1.
        schedule: "mixed", as said; "linear": the probability rises from the start until
            `alone_from`; "constant": it stays until `alone_from`.
        seed: of the draws.

    Raises:
        InputError: a number is outside its range; the schedule is not known; the teacher has other
            blocks than the model; the training has a schedule or a warm-up of its own.

    Notes:
        Huang et al. 2022 (sparse progressive distillation), arXiv 2110.08190: its three stages and
        its two decays of the learning rate; "linear" and "constant" are schedulers of its code too.
        That a draw without any block of the model is drawn
        again is a choice made here.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> grafting = Grafting(model, probability=0.8)
        >>> [round(grafting.at(done), 2) for done in (0.0, 0.49, 0.5, 0.58, 0.7)]
        [0.8, 0.8, 0.8, 0.9, 1.0]

    See also:
        `compress.recipes.sparse_progressive_distillation`.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        *,
        probability: float = 0.8,
        prune_until: float = 1 / 2,
        alone_from: float = 2 / 3,
        schedule: Literal["mixed", "linear", "constant"] = "mixed",
        seed: int = 0,
    ) -> None:
        """Check what was given."""
        check_choice("schedule", schedule, ("mixed", "linear", "constant"))
        if not 0 < probability <= 1:
            raise InputError(f"probability={probability}: expected above 0 and at most 1")
        if not 0 < prune_until <= alone_from <= 1:
            raise InputError(
                f"prune_until={prune_until}, alone_from={alone_from}: expected shares of the training, the first above "
                "0 and at most the second, the second at most 1"
            )
        self.teacher, self.seed, self.schedule = teacher, seed, schedule
        self.probability, self.prune_until, self.alone_from = probability, prune_until, alone_from
        self.step = self.passes = 0

    def at(self, done: float) -> float:
        """Return the probability of the model's own block at this share of the training."""
        rises_at = {"mixed": self.prune_until, "linear": 0.0, "constant": self.alone_from}[self.schedule]
        if done >= self.alone_from:
            return 1.0
        if done < rises_at:
            return self.probability
        risen = (done - rises_at) / (self.alone_from - rises_at)
        return self.probability + (1 - self.probability) * risen

    def learning_rate(self, done: float) -> float:
        """Return what the learning rate is multiplied by at this share of the training."""
        if done < self.prune_until:
            return 1 - done / self.prune_until
        return max(0.0, 1 - done) / (1 - self.prune_until) if self.prune_until < 1 else 0.0

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Freeze what is not trained, before the optimiser looks for what is."""
        if args.lr_scheduler_type != "linear" or args.warmup_steps:
            raise InputError(
                "grafting lets the learning rate fall twice by itself: found "
                f"scheduler={args.lr_scheduler_type.value!r}, warmup={args.warmup_steps}. Leave both out"
            )
        found = {n: p for n, p in model.named_parameters() if n in _block_parameters(model)}
        theirs = dict(self.teacher.named_parameters())
        for name, parameter in found.items():
            if name not in theirs or theirs[name].shape != parameter.shape:
                raise InputError(
                    f"grafting puts blocks of the teacher in place of the model's: the teacher has no {name} of shape "
                    f"{tuple(parameter.shape)}. Give a teacher of the same architecture"
                )
        self.trained = {n: p.requires_grad for n, p in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in found)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        """Make ready what is grafted, the hooks that do it, and the learning rate."""
        self.total, self.hooks = state.max_steps, []
        if lr_scheduler is None:  # a training that was finished before
            return
        lr_scheduler.lr_lambdas = [lambda step: self.learning_rate(step / self.total)] * len(lr_scheduler.lr_lambdas)
        # The teacher's numbers, but no gradient to it. By now it is where the model is.
        theirs = {n: torch.nn.Parameter(p.detach(), requires_grad=False) for n, p in self.teacher.named_parameters()}
        own = dict(model.named_parameters())
        self.blocks: dict[str, list[tuple[torch.nn.Module, str, torch.nn.Parameter, torch.nn.Parameter]]] = {}
        for name in sorted(_block_parameters(model)):
            block = block_of(name)
            assert block is not None
            module, _dot, last = name.rpartition(".")
            self.blocks.setdefault(block, []).append((model.get_submodule(module), last, own[name], theirs[name]))
        self.hooks = [
            model.register_forward_pre_hook(self._graft),
            model.register_forward_hook(self._restore, always_call=True),
        ]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the step, which draws depend on, so that a training that goes on draws the same."""
        self.step, self.passes = state.global_step, 0

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Leave the model as it was found, but for its weights."""
        for hook in self.hooks:
            hook.remove()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trained[name])

    def _graft(self, model: torch.nn.Module, _inputs: Any) -> None:
        if not model.training:
            return
        generator = np.random.default_rng([self.seed, self.step, self.passes])
        self.passes += 1
        own = np.zeros(len(self.blocks), bool)
        while not own.any():
            own = generator.random(len(own)) < self.at(self.step / self.total)
        for kept, parameters in zip(own, self.blocks.values(), strict=True):
            if not kept:
                for module, name, _, theirs in parameters:
                    setattr(module, name, theirs)

    def _restore(self, _model: torch.nn.Module, _inputs: Any, _outputs: Any) -> None:
        for parameters in self.blocks.values():
            for module, name, own, _ in parameters:
                setattr(module, name, own)


def _block_parameters(model: PreTrainedModel) -> set[str]:
    """Names of all parameters inside the repeated blocks, norms and biases too."""
    blocks = tuple({f"{block}." for name in block_matrices(model) if (block := block_of(name))})
    return {name for name, _ in model.named_parameters() if name.startswith(blocks)}
