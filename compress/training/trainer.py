"""The one training loop, on transformers' Trainer: rows of anything, and any module that reads them."""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState

from compress.objectives.base import Objective, Pass, Rows
from compress.objectives.layers import watching
from compress.objectives.sampled import left_out, sample
from compress.packing import Apart
from compress.training.checkpoints import (
    GoesOn,
    Marks,
    check_needed,
    check_room,
    checkpoint_of,
    checkpoints_in,
    files_of,
    newest_whole,
    remove,
    remove_older,
    weights_of,
    written_whole,
)
from compress.training.gradients import Gradients
from compress.training.kept import (
    STAMP,
    Keeps,
    Learned,
    Log,
    Measure,
    check_same,
    configuration_kept,
    settings_of,
    steps_of,
)
from compress.training.masks import Masks
from compress.training.replaced_words import Replaced
from compress.training.settings import DEFAULTS, TrainingSettings
from compress.training.sharded import Sharded, asked, check_learned, check_shardable, check_sharding
from compress.training.shares import EqualShares, equal_shares
from probes.errors import InputError, LayerscopeWarning, path_of
from probes.files import check_writable, locked, write_whole
from probes.models.fingerprint import weights_fingerprint
from probes.silence import quiet
from probes.states.by_token import predicts_next
from probes.states.running import evaluating, reading


def train_rows(
    student: Any,
    rows: Rows,
    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]],
    *,
    objective: Sequence[Objective],
    steps: int,
    of: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: Any = None,
    gradients: Gradients | None = None,
    replaced: Replaced | None = None,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    evaluate_at: Collection[int] = (),
    callbacks: Sequence[TrainerCallback] = (),
    folder: str | Path | None = None,
    save_every: int = 100,
    seed: int = 0,
    progress: bool = True,
    wait: bool = True,
    about: Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
) -> pd.DataFrame:
    """Train a module in place on rows of anything, as `compress.training.train` does on texts.

    Args:
        student, teacher: modules that read a batch, entry by entry, and give an output of
            transformers, whose `logits` are what objectives compare: models of transformers, or
            others that have `device` and leave unread what they are asked for beside.
        rows: what is trained on, each with `index`, its number.
        collate: makes a batch of some of them; of each entry the first dimension is the row.
        of: what the rows are of, as a fingerprint, kept in the folder: a training goes on only with
            the same.
        objective, steps, tokenizer, gradients, evaluate, evaluate_at, callbacks, folder,
            save_every, seed, progress, wait, about: as in `compress.training.train`; the objectives
            have been checked.
        replaced: what replaces words of a batch; None for nothing.
        settings: how it goes; by default as `TrainingSettings` are.

    Returns:
        As `compress.training.train`.

    Raises:
        InputError: what `compress.training.train` raises of steps, folder and losses.

    Example:
        >>> from transformers.utils import ModelOutput
        >>> class Line(torch.nn.Linear):
        ...     device = torch.device("cpu")
        ...
        ...     def forward(self, x, y, **_):
        ...         return ModelOutput(logits=super().forward(x) - y)
        >>> class Square:
        ...     name, weight, needs = "square", 1.0, frozenset()
        ...
        ...     def __call__(self, student, teacher, batch):
        ...         return student.logits.square().mean()
        >>> rows = [{"x": [float(i)], "y": [2.0 * i], "index": i} for i in range(4)]
        >>> def collate(batch):
        ...     return {k: torch.tensor([row[k] for row in batch]) for k in batch[0]}
        >>> how = TrainingSettings(learning_rate=0.1)
        >>> history = train_rows(Line(1, 1), rows, collate, objective=[Square()], steps=99, of={},
        ...     progress=False, settings=how)
        >>> float(history["loss"].iloc[-1]) < 0.01 * float(history["loss"].iloc[0])
        True
    """
    settings = settings or TrainingSettings()
    for name, number in {"steps": steps, "save_every": save_every}.items():
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{name}={number!r}: expected a whole number of at least 1")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed={seed!r}: expected a whole number of at least 0 and below 2**32")
    folder = None if folder is None else path_of(folder, "folder")
    teaches = teacher if any("teacher" in o.needs for o in objective) else None
    kept = configuration_kept(student) if isinstance(student, PreTrainedModel) else nullcontext()
    order = equal_shares(rows, settings.balanced, seed)
    if asked():
        words = None if replaced is None else replaced.stamp() or None
        check_shardable(student, callbacks, folder, {"gradients": gradients, "replace_words": words})
    masks = Masks(gradients, student, seed, steps, math.ceil(len(rows) / (settings.batch_size * settings.accumulate)))
    with tempfile.TemporaryDirectory() as scratch, kept, masks.held(), ExitStack() as held:
        arguments = TrainingArguments(
            output_dir=str(folder or scratch),
            max_steps=steps,
            **settings.of_trainer(),
            save_strategy="no" if folder is None else "steps",
            save_steps=save_every,
            save_total_limit=None,  # `Marks` removes older ones, once the newest is whole
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            report_to="none",
            logging_strategy="no",
            disable_tqdm=not progress,
            use_cpu=not torch.accelerator.is_available(),  # or processes without one would each train alone
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one process, one device: a second would make batches larger
        if folder is not None and arguments.should_save:
            check_writable(folder)
            held.enter_context(locked(folder, wait=wait))
            held.enter_context(written_whole(folder))
        log, learned, marks = Log(), Learned(), Marks()
        for callback in callbacks:
            if hasattr(callback, "modules"):  # it looks at what objectives learn
                callback.modules = learned.modules
        measured = set(evaluate_at) if evaluate is not None else set()
        before, after = (Measure(w, evaluate, measured, log) for w in ("before", "after"))
        shards = Sharded(student) if asked() else None
        changing = [*([] if evaluate is None else [before]), *callbacks, *([] if evaluate is None else [after])]
        if shards is not None:
            changing = [shards.whole(callback) for callback in changing]
        with quiet():  # that two callbacks are of one kind is meant
            trainer = _Trainer(
                model=student if shards is None else shards.copy,
                args=arguments,
                train_dataset=rows,
                processing_class=tokenizer,
                data_collator=collate,
                callbacks=[log, learned, *changing, marks],
            )
        if shards is not None:
            check_sharding(trainer.accelerator)
        trainer.order = order
        trainer.remove_callback(PrinterCallback)
        if trainer.pop_callback(ProgressCallback) is not None and progress:
            trainer.add_callback(_Bar())
        marks.accelerator = trainer.accelerator
        last: Path | None = None

        def check_disk() -> None:
            if folder is not None and arguments.should_save:
                more = sum(beside.size(student) for beside in (learned, *callbacks) if isinstance(beside, Keeps))
                check_room(folder, student, 0 if last is None else steps_of(last), steps, save_every, more)

        if folder is not None:
            trainer.accelerator.wait_for_everyone()  # until one has the folder
            stamp = {
                "student": weights_fingerprint(student),
                "teacher": weights_fingerprint(teaches) if teaches is not None else None,
                **of,
                "objective": [o.name for o in objective],
                "steps": steps,
                "seed": seed,
                **asdict(settings),
                **masks.stamp(),
                **(replaced.stamp() if replaced is not None else {}),
                **(about or {}),
                **{f"{k} of {o.name}": v for o in objective for k, v in settings_of(o).items()},
            }
            check_same(folder, bool(checkpoints_in(folder)), stamp, DEFAULTS)
            last, passed_over = newest_whole(folder)
            trainer.accelerator.wait_for_everyone()  # until all have looked
            if arguments.should_save:
                for message in passed_over:
                    warnings.warn(message, LayerscopeWarning, stacklevel=3)
                check_disk()
                write_whole(folder / STAMP, json.dumps(stamp, indent=2) + "\n")
        was_training = student.training
        try:
            with trainer.prepared(objective, teacher, log, learned, settings.precision, masks, replaced):
                if shards is not None:
                    check_learned(learned.modules)
                if learned.modules:  # which objectives have made by now
                    check_disk()
                if last is None:
                    trainer.train()
                    if shards is not None:
                        shards.gather()
                else:
                    _go_on(trainer, student, last, [log, learned, *callbacks])
        finally:
            student.train(was_training)
        trainer.accelerator.wait_for_everyone()  # until what is written is whole
    return pd.DataFrame(log.rows)


def _go_on(trainer: Trainer, student: PreTrainedModel, last: Path, callbacks: Sequence[TrainerCallback]) -> None:
    """Go on from a checkpoint with all that lies beside it; raise where something does not."""
    files, steps = files_of(last), steps_of(last)
    for callback in callbacks:
        if isinstance(callback, Keeps):
            callback.check(last, files)
    finished = steps >= trainer.args.max_steps
    if not finished:
        check_needed(last, files, trainer.args)
    if trainer.args.should_save:
        remove_older(last.parent, steps)
    if not finished:
        trainer.train(resume_from_checkpoint=str(last))
        return
    # The Trainer would add a step to it.
    student.load_state_dict(weights_of(last), strict=False)  # tied weights are there once
    trainer.state = TrainerState.load_from_json(str(last / TRAINER_STATE_NAME))
    for callback in callbacks:
        callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=student)
        callback.on_train_end(trainer.args, trainer.state, trainer.control, model=student)


class _Trainer(GoesOn):
    """Transformers' Trainer with our objectives in place of the model's own loss."""

    # Objectives are means over their batch: the Trainer divides by the batches of one update.
    loss_is_scaled_for_ga = False
    objective: Sequence[Objective]
    teacher: Any
    log_of: Log
    learned: Learned
    masks: Masks
    replaced: Replaced | None
    needs: set[str]
    precision: str
    apart: dict[int, Apart]
    order: EqualShares | None = None  # of the rows; None for a random one

    @contextmanager
    def prepared(
        self,
        objective: Sequence[Objective],
        teacher: PreTrainedModel | None,
        log: Log,
        learned: Learned,
        precision: str,
        masks: Masks,
        replaced: Replaced | None,
    ) -> Iterator[None]:
        """Make both models read texts and give what the objectives need; leave the teacher as it
        was found.
        """
        self.objective, self.log_of, self.learned, self.precision = objective, log, learned, precision
        self.masks, self.replaced = masks, replaced
        student: Any = self.model
        self.needs = {need for o in objective for need in o.needs}
        self.teacher = teacher if "teacher" in self.needs else None
        models: list[Any] = [m for m in (self.model, self.teacher) if m is not None]
        # Only the plain implementation of attention gives its maps.
        attention = [(m, m.config._attn_implementation) for m in models] if "attentions" in self.needs else []
        beside = evaluating(self.teacher, self.args.device) if self.teacher is not None else nullcontext()
        with reading(student), beside:
            try:
                for model, _ in attention:
                    model.set_attn_implementation("eager")
                rows: Any = self.train_dataset
                learned.prepare(self.accelerator, objective, student, teacher, rows, self.args.seed)
                if "segments" in rows[0]:
                    forward = predicts_next(student, "packed rows")
                    self.apart = {id(m): Apart(m, forward) for m in models}
                yield
            finally:
                for model, implementation in attention:
                    model.set_attn_implementation(implementation)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        path = checkpoint_of(self._get_output_dir(trial=trial), self.state.global_step)
        if self.args.should_save and path.exists():  # one that was passed over: nothing of it stays
            remove(path)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if not made:
            self.masks.strictly(optimizer)
        for o in [] if made else self.objective:
            parameters = [p for p in self.learned.of(o).parameters() if p.requires_grad]
            if parameters:
                rate = getattr(o, "learning_rate", None) or self.args.learning_rate
                # As that of the student: by default AdamW would let them decay.
                optimizer.add_param_group({"params": parameters, "lr": rate, "weight_decay": self.args.weight_decay})
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        # The whole of every batch in every process, which takes its part of it in `_pass`.
        batches = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_size=self.args.per_device_train_batch_size,
            shuffle=self.order is None,
            sampler=self.order,
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(
            batches,
            self.args.device,
            num_processes=1,
            process_index=0,
            put_on_device=True,
            use_seedable_sampler=True,
            data_seed=self.args.data_seed,
        )

    def training_step(self, model, inputs, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:  # of the last batch of an update; they are clipped after this
            self.masks.apply(self.state.global_step)
        return loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        batch = {**inputs, "modules": self.learned.modules, "tokenizer": self.processing_class}
        for o in self.objective:
            if (alter := getattr(o, "alter", None)) is not None:
                batch |= alter(batch, self.processing_class)
        read = [k for k in inputs if k not in ("labels", "index", "words")]
        if self.replaced is not None:
            step = self.state.global_step
            batch |= self.replaced.apply(batch, step, lambda: self._said(model, {k: batch[k] for k in read}))
        own = {k: batch[k] for k in read}
        student, output = self._pass(model, own | {k: batch[k] for k in ("inputs_embeds",) if k in batch})
        with torch.no_grad():
            teacher = None if self.teacher is None else self._pass(self.teacher, own)[0]
        parts = {o.name: o(student, teacher, batch) for o in self.objective}
        for name, value in parts.items():
            if not torch.isfinite(value):
                raise InputError(
                    f"step {self.state.global_step + 1}: the objective {name!r} is {value.item()}. "
                    + ("The last checkpoint is kept. " if self.args.save_strategy != "no" else "")
                    + "Lower the learning rate, or look at the texts and weights it is computed from"
                )
        noted = [getattr(self.learned.of(o), "noted", {}) for o in self.objective]
        self.log_of.add({k: float(v.detach()) for k, v in parts.items()}, {k: v for n in noted for k, v in n.items()})
        loss = sum(parts.values())
        if self.accelerator.num_processes > 1:  # DDP waits for the gradient of an output, also where none is compared
            loss = loss + output.flatten()[:0].sum()
        return (loss, student) if return_outputs else loss

    def _said(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """Return the student's logits of a batch, without dropout."""
        bare = self.accelerator.unwrap_model(model)
        with torch.no_grad(), evaluating(bare, self.args.device):
            return self._pass(bare, inputs)[0].logits

    def _pass(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[Pass, torch.Tensor]:
        """Run a model on this process's part of a batch; return the whole, and its first output."""
        bare = self.accelerator.unwrap_model(model)
        count, processes = len(next(iter(inputs.values()))), self.accelerator.num_processes
        if processes > 1:  # parts of one size, the last ones filled up with the last text
            size = -(-count // processes)
            rows = torch.arange(size, device=self.args.device) + size * self.accelerator.process_index
            inputs = {k: v[rows.clamp_max(count - 1)] for k, v in inputs.items()}
        if "segments" in inputs:
            rest = {k: v for k, v in inputs.items() if k != "segments"}
            inputs = self.apart[id(bare)](bare, rest, inputs["segments"])
        if "inputs_embeds" in inputs:  # which an objective put in their place
            inputs = {k: v for k, v in inputs.items() if k != "input_ids"}
        computing: AbstractContextManager[Any] = nullcontext()
        if self.precision != "float32":  # not the Trainer's own, which would hold for what is measured, and after it
            computing = torch.autocast(self.args.device.type, getattr(torch, self.precision))
        samples = model is not self.teacher and sample(self.learned.of(o) for o in self.objective)
        with watching(bare, self.needs) as seen, left_out(bare, samples) as fed, computing:
            outputs = model(
                **inputs,
                output_hidden_states="hidden_states" in self.needs,
                output_attentions="attentions" in self.needs,
                return_dict=True,
            )
        found = {"logits": None, "output_inputs": fed[0]} if fed else {"logits": outputs.get("logits")}
        for what in ("hidden_states", "attentions"):  # of an encoder-decoder those of its encoder, as captured
            found[what] = outputs.get(what, outputs.get(f"encoder_{what}"))
        found |= {what: tuple(layers) or None for what, layers in seen.items()}
        if processes > 1:
            found = {k: self._whole(v, count) for k, v in found.items()}
        return Pass(bare, **found), outputs[0]

    def _whole(self, part: Any, count: int) -> Any:
        """Put what all processes computed into place; the gradient flows to this one's."""
        if not torch.is_tensor(part):
            return part and tuple(self._whole(layer, count) for layer in part)
        processes, start = self.accelerator.num_processes, self.accelerator.process_index * len(part)
        every = self.accelerator.gather(part.detach())
        own = part.view_as(part)
        if own.requires_grad:  # every process has the loss of the whole, and the mean of their gradients is taken
            own.register_hook(lambda gradient: gradient * processes)
        return torch.cat([every[:start], own, every[start + len(part) :]])[:count]


class _Bar(ProgressCallback):
    """Transformers' bar, without the line of figures that it prints in the end."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Leave out what is in the history."""
