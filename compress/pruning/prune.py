"""Pruning: set weights to zero, at once or step by step while the rest is trained."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from compress.matrices import Matrix, check_plain, covered, matrices_of, transposed
from compress.moments import check_damping
from compress.objectives.base import Objective
from compress.pruning.criteria import (
    NEED_TEXT,
    check_criterion,
    check_fed,
    few_threads,
    scores,
    smallest,
    smallest_by_lamp,
    sparsity_at,
)
from compress.pruning.patterns import by_pattern, check_width, read_pattern
from compress.pruning.second_order import prune_by_second_order
from compress.saving import record
from compress.training.inside import Evaluate, Training
from compress.training.kept import Keeps
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.models.facts import name_of
from probes.models.weights import hoyer_sparsity

SCHEDULES = ("one_shot", "uniform", "cubic")


def prune(
    model: PreTrainedModel,
    *,
    sparsity: float,
    criterion: str = "magnitude",
    scope: str | None = None,
    pattern: str | None = None,
    damping: float = 0.01,
    only: str | None = None,
    schedule: str = "one_shot",
    prunings: int = 10,
    prune_until: float | None = None,
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int = 0,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model with the weights that matter least set to zero.

    Pruned are the weight matrices of the transformer blocks (query, key, value, attention output,
    feed-forward, of every expert its own), and of convolutions and LSTM layers; embeddings, norms,
    biases, pooler and head stay as they are. Of a model without blocks, as `LSTMLanguageModel`, all
    such matrices are, that of its output layer too.

    Args:
        model: a model of transformers; it is not changed.
        sparsity: share of the pruned weights that become zero, at least 0 and below 1.
        criterion: "random", "magnitude", "gradient", "fisher", "obd", "lamp", "lookahead", "wanda"
            (see `scores` of `compress.pruning.criteria`), "movement", which is gathered in training
            (minus the sum of weight times gradient), or "sparsegpt", by which the weights that stay
            make good for those that go (`compress.pruning.second_order.sparsegpt`).
        scope: what is compared: the weights of one "matrix", of all of them ("global"), or of one
            output "unit"; by default what suits the criterion: global for fisher, obd and lamp, unit
            for wanda, matrix for the others.
        pattern: "2:4": of every 4 inputs of a unit side by side 2 stay, whatever the scope; the
            sparsity is then 1 - 2 / 4.
        damping: of "sparsegpt": share of the mean square of inputs that is added to that of each.
        only: a regular expression; of the matrices only those whose name it finds are pruned.
        schedule: "one_shot" (before any training; by movement halfway through it), or while
            training "uniform" (equal steps) or "cubic" (fast first).
        prunings: how many times, at even distances.
        prune_until: share of the training at which the last of them is, above 0 and at most 1; by
            default it leaves as many steps to recover as there are between two.
        train: a corpus to train on, and to look at where the criterion does.
        tokenizer: of the model, where there is text.
        steps: updates of the weights; 0 for no training.
        objective: what is trained for, of `compress.objectives`; by default what the model's
            head is for: its labels, or the tokens of the text.
        teacher: for the objectives that need one; by default the model itself, before any pruning.
        seed: of the random criterion and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model of the same class. `model.config.compression` says what was done to it, over the
        pruned matrices and over the whole model, and is saved with it; after training
        `model.history` is what was logged.

    Raises:
        InputError: sparsity, criterion, scope or schedule is not known or does not fit what else is
            given; "wanda" for convolutions or LSTM layers; no matrix is found; more is zero already
            than is asked for, in all of them; what `compress.training.train` raises.

    Warns:
        LayerscopeWarning: some matrices have more zeros already than is asked for. They stay as
            they are.

    Notes:
        The count of zeros is exact in every matrix (global: in their sum); of equal scores the last
        go. What is gone stays gone, what was zero in the model given too: it is set to zero again
        after every update, so that a training that goes on needs no other memory of it than the
        weights. The cubic schedule is that of Zhu and Gupta 2017, arXiv 1710.01878; movement is
        that of Sanh, Wolf and Rush 2020, arXiv 2005.07683, without their penalty and with the count
        of the schedule.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> pruned = prune(model, sparsity=0.6)
        >>> round(pruned.config.compression["sparsity_of_pruned"], 2)
        0.6

    See also:
        `compress.recipes.magnitude_pruning`, `recovery`, `footprint`.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity}: expected at least 0 and below 1, the share of weights that become zero")
    given_scope, scope = scope, check_criterion(criterion, scope)
    check_plain(model)
    check_damping(damping)
    of = None if pattern is None else read_pattern(pattern, sparsity)
    _check_whole(criterion, scope, given_scope, pattern, schedule)
    _check_schedule(criterion, schedule, prunings, prune_until, train, tokenizer, steps)
    used = criterion in NEED_TEXT  # also without steps
    progress = settings.get("progress", True) if steps else settings.pop("progress", True)
    training = Training(
        model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, used=used, **settings
    )
    pruned = copy.deepcopy(model)
    matrices = matrices_of(pruned, only)
    check_fed(pruned, matrices, criterion)
    share = covered(pruned, matrices, "prune", asked=only is not None)
    masks = Masks(pruned, matrices, scope, of)
    gone = sum(int((~k).sum()) for k in masks.kept.values())
    total = sum(k.numel() for k in masks.kept.values())
    if of is None:
        _check_zeros(masks.kept, sparsity, scope, name_of(model))
    tokens = 0
    at_once = schedule == "one_shot" and criterion != "movement"
    if criterion == "sparsegpt":
        assert train is not None  # _check_schedule has raised
        assert tokenizer is not None
        how: dict[str, Any] = {"pattern": of, "scope": scope, "damping": damping, "progress": progress}
        tokens = prune_by_second_order(pruned, matrices, sparsity, train, tokenizer, **how)
        masks.restore()
    elif at_once:
        found = scores(pruned, matrices, criterion, corpus=train, tokenizer=tokenizer, seed=seed)
        masks.grow(found, sparsity)
    if steps:
        times: list[int] = []
        shares: list[float] = []
        if schedule != "one_shot":
            until = prunings / (prunings + 1) if prune_until is None else prune_until
            times = [max(1, round(k * steps * until / prunings)) for k in range(1, prunings + 1)]
            shares = [sparsity_at(k, prunings, schedule) for k in range(1, prunings + 1)]
        elif not at_once:
            times, shares = [max(1, steps // 2)], [1.0]
        # By steps that lead from what is gone already to what is asked for.
        start = gone / total
        targets = {step: start + (sparsity - start) * share for step, share in zip(times, shares, strict=True)}
        training.run(
            pruned,
            callbacks=[_Prunes(masks, targets, criterion, train, tokenizer, seed)],
            at=times,
            noted="pruned_at",
            measuring=masks.measured,
            about={"sparsity": sparsity, "criterion": criterion, "scope": scope, "only": only}
            | ({} if pattern is None else {"pattern": pattern}),
        )
    zeros = sum(int((w.detach() == 0).sum()) for w in matrices.values())
    every = list(pruned.parameters())
    what = {
        "method": "prune",
        "criterion": f"{criterion}, {_SCOPES[scope] if pattern is None else pattern}, {schedule.replace('_', ' ')}",
        "sparsity": sparsity,
        "sparsity_of_pruned": zeros / total,
        "sparsity_of_model": sum(int((p == 0).sum()) for p in every) / sum(p.numel() for p in every),
        "pruned": sorted(matrices),
        "coverage": share,
    }
    if criterion == "random":
        what["seed"] = seed
    if pattern is not None:
        what["pattern"] = pattern
    if criterion == "sparsegpt":
        what |= {"damping": damping, "fitted_tokens": tokens}
    return record(pruned, what | training.recorded(), parent=model, history=training.history)


def _check_whole(criterion: str, scope: str, given_scope: str | None, pattern: str | None, schedule: str) -> None:
    """Raise where what is pruned at once, by a pattern or by second order, is to be otherwise."""
    once = f"pattern={pattern!r}" if pattern is not None else "criterion='sparsegpt'"
    if (pattern is not None or criterion == "sparsegpt") and schedule != "one_shot":
        raise InputError(f"{once} prunes at once, and schedule={schedule!r} step by step: leave one of the two out")
    if pattern is not None and given_scope is not None:
        raise InputError(f"{once} compares inputs side by side, and scope={given_scope!r} others: leave it out")
    if criterion == "sparsegpt" and scope == "global":
        raise InputError("criterion='sparsegpt' goes matrix by matrix: give scope='matrix' or 'unit'")


def _check_zeros(kept: Mapping[str, torch.Tensor], sparsity: float, scope: str, model: str) -> None:
    """Raise where more is zero already than is asked for; say which matrices have too many zeros to
    lose any more, as some of a checkpoint do that was quantised once.
    """
    gone = {name: int((~k).sum()) for name, k in kept.items()}
    size = {name: k.numel() for name, k in kept.items()}
    beyond = [name for name in kept if gone[name] > round(sparsity * size[name])]
    every = sum(gone.values()) / sum(size.values())
    if len(beyond) == len(kept) or (scope == "global" and sum(gone.values()) > round(sparsity * sum(size.values()))):
        raise InputError(
            f"sparsity={sparsity}: {every:.1%} of these weights are zero already. Ask for more, or prune the model as "
            "it was before"
        )
    if beyond and scope != "global":
        listed = ", ".join(f"{name} ({gone[name] / size[name]:.1%})" for name in beyond[:5])
        warnings.warn(
            f"{model}: {len(beyond)} of {len(kept)} matrices stay as they are, since more of them is zero already than "
            f"the {sparsity:.1%} that are asked for: {listed}{', ...' if len(beyond) > 5 else ''}",
            LayerscopeWarning,
            stacklevel=3,
        )


_SCOPES = {"matrix": "layer-wise", "global": "global", "unit": "by output unit"}


class Masks:
    """Which weights of a model's matrices are still there, and what keeps the others at zero."""

    def __init__(
        self,
        model: PreTrainedModel,
        matrices: Mapping[str, Matrix],
        scope: str,
        pattern: tuple[int, int] | None = None,
    ) -> None:
        """Args: the model, the matrices, what is compared ("matrix", "global" or "unit"), and how
        many of how many inputs side by side stay, in its place.
        """
        self.matrices, self.scope, self.pattern = dict(matrices), scope, pattern
        self.transposed = transposed(model, matrices)
        if pattern is not None:
            for name, weight in matrices.items():
                check_width(weight.shape[0 if self.transposed[name] else 1], pattern, name)
        self.restore()

    def restore(self) -> None:
        """Take as gone what is zero, also of weights that a checkpoint brought back."""
        self.kept = {name: w.detach() != 0 for name, w in self.matrices.items()}

    def measured(self, evaluate: Evaluate) -> Evaluate:
        """Return what measures a model and says how large and how sparse its matrices are."""

        def with_weights(model: PreTrainedModel) -> dict[str, float]:
            every = [w.detach() for w in self.matrices.values()]
            length = math.sqrt(sum(float(w.double().square().sum()) for w in every))
            return {**evaluate(model), "weight_norm": length, "hoyer": hoyer_sparsity(every)}

        return with_weights

    def grow(self, found: Mapping[str, torch.Tensor], sparsity: float) -> None:
        """Prune the lowest scores until this share of the weights is gone; give none back."""
        with few_threads(self.matrices):
            if self.pattern is None:
                self.kept = smallest(found, self.kept, sparsity, self.scope, self.transposed)
            else:
                self.kept = by_pattern(found, self.kept, *self.pattern, self.transposed)
        self.apply()

    def grow_by_lamp(self, sparsity: float) -> bool:
        """Do the same by "lamp" over all matrices, without the score of every weight; return whether it
        could be done so.
        """
        with few_threads(self.matrices):
            found = smallest_by_lamp(
                {n: w.detach().abs().float() for n, w in self.matrices.items()}, self.kept, sparsity
            )
        if found is not None:
            self.kept = found
            self.apply()
        return found is not None

    def apply(self) -> None:
        """Set to zero what is gone."""
        with torch.no_grad(), few_threads(self.matrices):
            for name, weight in self.matrices.items():
                w, kept = weight.detach(), self.kept[name]
                if w.device.type == "cpu" and w.dtype in (torch.float32, torch.float64):
                    np.multiply(w.numpy(), kept.numpy(), out=w.numpy())  # a third of torch's time by truth values
                else:
                    w.mul_(kept)
                w.add_(0.0)  # which makes of -0 a 0


class KeepsZeros(TrainerCallback):
    """Keeps weights of a model's matrices at zero that are so before a training."""

    sharded = True

    def __init__(self, model: PreTrainedModel) -> None:
        """Look which."""
        self.masks = Masks(model, matrices_of(model), "matrix")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set to zero what is gone."""
        self.masks.apply()


class _Prunes(Keeps):
    """Prunes at some steps of a training, and keeps at zero what is gone."""

    def __init__(
        self,
        masks: Masks,
        targets: Mapping[int, float],
        criterion: str,
        corpus: datasets.Dataset | None,
        tokenizer: PreTrainedTokenizerBase | None,
        seed: int,
    ) -> None:
        self.masks, self.targets, self.criterion = masks, targets, criterion
        self.corpus, self.tokenizer, self.seed = corpus, tokenizer, seed
        self.movement = {name: torch.zeros_like(w.detach()) for name, w in masks.matrices.items()}
        self.file = "movement.safetensors" if criterion == "movement" else ""
        self.sharded = criterion != "movement"  # which needs gradients

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        super().on_train_begin(args, state, control)
        if any(step <= state.global_step for step in self.targets):
            self.masks.restore()

    def size(self, student: PreTrainedModel) -> int:
        return sum(m.numel() * m.element_size() for m in self.movement.values()) if self.file else 0

    def write(self, path: Path) -> None:
        save_file(self.movement, path)

    def read(self, path: Path) -> None:
        gathered = load_file(path)
        self.movement = {name: gathered[name].to(weight.device) for name, weight in self.masks.matrices.items()}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.criterion == "movement":
            for name, weight in self.masks.matrices.items():
                if weight.grad is not None:
                    self.movement[name] -= weight.detach() * weight.grad

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.masks.apply()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step not in self.targets:
            return
        target = self.targets[state.global_step]
        if self.criterion == "lamp" and self.masks.scope == "global" and self.masks.grow_by_lamp(target):
            return
        if self.criterion == "movement":
            found = self.movement
        else:
            found = scores(
                model,
                self.masks.matrices,
                self.criterion,
                corpus=self.corpus,
                tokenizer=self.tokenizer,
                seed=self.seed + state.global_step,
            )
        self.masks.grow(found, target)


def _check_schedule(
    criterion: str,
    schedule: str,
    prunings: int,
    prune_until: float | None,
    train: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    steps: int,
) -> None:
    check_choice("schedule", schedule, SCHEDULES)
    trained = isinstance(steps, int) and steps > 0
    if criterion in NEED_TEXT and (train is None or tokenizer is None):
        raise InputError(f"criterion={criterion!r} needs text: give train=..., a corpus, and tokenizer=...")
    if not trained and schedule != "one_shot":
        raise InputError(f"schedule={schedule!r} prunes while it trains: give train=... and steps=...")
    if not trained and criterion == "movement":
        raise InputError("criterion='movement' is gathered in training: give train=... and steps=...")
    if schedule == "one_shot":
        return
    if prune_until is not None and not 0 < prune_until <= 1:
        raise InputError(f"prune_until={prune_until}: expected a share of the training, above 0 and at most 1")
    most = max(1, int(steps - 1 if prune_until is None else steps * prune_until))
    if not isinstance(prunings, int) or not 1 <= prunings <= most:
        raise InputError(
            f"prunings={prunings!r}: expected a whole number of at least 1 and at most {most}, the steps that they are "
            "spread over"
        )
