"""The one training loop: a student, its objectives and, where they need one, its teacher, on transformers' Trainer.

Pruning, quantisation and distillation are callbacks of this loop: they change the student at some steps, or put it
right after each.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pandas as pd
import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import SAFE_WEIGHTS_NAME

from compress.contrast import CRD
from compress.objectives import Objective, Pass, check, watching_attention
from probes.capture import evaluating, input_limit
from probes.checkpoint import check_fit, embedding_rows, name_of, quiet, weights_fingerprint
from probes.corpus import check_corpus, corpus_fingerprint
from probes.drift import label_codes
from probes.errors import InputError
from probes.files import check_writable, write_whole

_HISTORY = "history.json"
_LEARNED = "objectives.safetensors"
_STAMP = "training.json"
_CHANGED = ("pad_token_id", "bos_token_id", "eos_token_id", "use_cache")  # of a configuration, by the Trainer


def train(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    objective: Sequence[Objective],
    steps: int,
    teacher: PreTrainedModel | None = None,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    accumulate: int = 1,
    evaluate: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
    evaluate_at: Collection[int] = (),
    callbacks: Sequence[TrainerCallback] = (),
    folder: str | Path | None = None,
    save_every: int = 100,
    seed: int = 0,
    progress: bool = True,
    about: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train a model in place by some objectives, and return what was logged.

    Args:
        student: the model that is trained; it is changed.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it; where it has a split, the rows of "train" are trained on. Its labels are
            classes of the student where an objective needs them, and any others where none does.
        objective: objects of `compress.objectives`; their sum is minimised, each is logged under its name.
        steps: updates of the weights.
        teacher: a model of the same tokenizer for the objectives that need one; it is not changed.
        batch_size: texts of a batch, over all processes.
        learning_rate: of AdamW with linear decay.
        accumulate: batches whose gradients make up one update.
        evaluate: what to measure of the student, name -> number.
        evaluate_at: the steps at which it is measured, once before the callbacks of that step and once after.
        callbacks: of transformers' Trainer; they change the student.
        folder: where checkpoints go, every `save_every` steps. A training that was interrupted goes on from the last
            one and ends as it would have; one that was finished is not trained further.
        seed: of the order of the rows and of dropout.
        progress: show a progress bar.
        about: what else decides what comes out, as settings of callbacks. It is kept in the folder, as what is given
            here is and the settings of the objectives that are numbers, words or maps of them, and a training goes on
            only where all is the same.

    Returns:
        One row an update: `step`, a column an objective and their sum as `loss`; where the student was measured, rows
        with `when` "before" or "after" and a column a number.

    Raises:
        InputError: before the first step, where student, teacher, tokenizer, corpus and objectives do not fit together,
            or the folder holds the checkpoints of another training; at a step whose loss is not finite, by the name of
            the objective.

    Notes:
        What objectives learn or remember (`prepare` of `compress.objectives.Objective`) is trained beside the student
        by the same AdamW, kept beside every checkpoint as `objectives.safetensors`, and gone after the training.

        Under `torchrun`, each process runs its part of every batch, and the objectives see the whole of it, so that
        weights and what is logged are, up to rounding, those of one process, also of objectives that compare the texts
        of a batch. Dropout draws other numbers. What the objectives compare is kept of the whole batch by each process,
        and what they learn is the same in each. The teacher runs once a batch, however many objectives need it. The
        norm of the student's gradient is kept at 1 at most; that of what objectives learn plays no part in it.
        Callbacks and `evaluate` run in every process, on the same weights; the first one writes the checkpoints, to a
        folder that all must see.
    """
    needed = any("teacher" in o.needs for o in objective)
    teaches = teacher if needed else None
    rows, labelled = training_rows(corpus, student, tokenizer, teaches, _numbered_by(objective, student, teaches))
    check(objective, student, teacher, labelled)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r}: expected a whole number of at least 1")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"learning_rate={learning_rate!r}: expected a number above 0")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r}: expected a whole number of at least 1")
    for name, number in (("accumulate", accumulate), ("save_every", save_every)):
        if not isinstance(number, int) or number < 1:
            raise InputError(f"{name}={number!r}: expected a whole number of at least 1")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed={seed!r}: expected a whole number of at least 0 and below 2**32")
    with tempfile.TemporaryDirectory() as scratch, _configuration_kept(student):
        arguments = TrainingArguments(
            output_dir=str(folder or scratch),
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulate,
            learning_rate=learning_rate,
            lr_scheduler_type="linear",
            save_strategy="no" if folder is None else "steps",
            save_steps=save_every,
            save_total_limit=2,
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
            check_writable(Path(folder))
        log, learned = _Log(), _Learned()
        measured = set(evaluate_at) if evaluate is not None else set()
        before, after = (_Measure(w, evaluate, measured, log) for w in ("before", "after"))
        with quiet():  # that two callbacks are of one kind is meant
            trainer = _Trainer(
                model=student,
                args=arguments,
                train_dataset=rows,
                processing_class=tokenizer,
                data_collator=lambda batch: collate(tokenizer, batch, indexed=True),
                callbacks=[log, learned, before, *callbacks, after],
            )
        trainer.remove_callback(PrinterCallback)
        if trainer.pop_callback(ProgressCallback) is not None and progress:
            trainer.add_callback(_Bar())
        last = get_last_checkpoint(str(folder)) if folder is not None and Path(folder).is_dir() else None
        if folder is not None:
            stamp = {
                "student": weights_fingerprint(student),
                "teacher": weights_fingerprint(teaches) if teaches is not None else None,
                "corpus": corpus_fingerprint(check_corpus(corpus)),
                "objective": [o.name for o in objective],
                "steps": steps,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "accumulate": accumulate,
                "seed": seed,
                **(about or {}),
                **{f"{k} of {o.name}": v for o in objective for k, v in _settings(o).items()},
            }
            _check_same(Path(folder), last is not None, stamp)
            trainer.accelerator.wait_for_everyone()  # until all have looked
            if arguments.should_save:
                write_whole(Path(folder) / _STAMP, json.dumps(stamp, indent=2) + "\n")
        if last is not None:
            log.resume(Path(last))
        was_training = student.training
        try:
            with trainer.prepared(objective, teacher, log, learned, last):
                if last is not None and _steps_of(last) >= steps:
                    _finished(trainer, student, last, callbacks)
                else:
                    trainer.train(resume_from_checkpoint=last)
        finally:
            student.train(was_training)
        trainer.accelerator.wait_for_everyone()  # until what is written is whole
    return pd.DataFrame(log.rows)


def _numbered_by(
    objective: Sequence[Objective], student: PreTrainedModel, teacher: PreTrainedModel | None
) -> Literal["student", "teacher"] | None:
    """Say whose classes the labels have to be: nobody's where they only tell texts of one label from others."""
    if any("labels" in o.needs for o in objective):
        return "student" if teacher is None or student.base_model is not student else "teacher"
    confused = any(isinstance(o, CRD) and o.negatives == "classes" for o in objective)
    return "teacher" if confused and teacher is not None else None


def _settings(objective: Objective) -> dict[str, Any]:
    """Return the numbers, words and maps of them that an objective was given, beside its name."""
    names = [f.name for f in dataclasses.fields(objective)] if dataclasses.is_dataclass(objective) else ["weight"]
    out: dict[str, Any] = {}
    for name in names:
        value = getattr(objective, name)
        parts = {str(k): v for k, v in (value if isinstance(value, Mapping) else {"": value}).items()}
        parts = {k: v.item() if isinstance(v, np.generic) else v for k, v in parts.items()}
        if name != "name" and all(isinstance(v, str | int | float | None) for v in parts.values()):
            out[name] = parts if isinstance(value, Mapping) else parts[""]
    return out


@contextmanager
def _configuration_kept(model: PreTrainedModel) -> Iterator[None]:
    """Put back what the Trainer changes: it takes the tokenizer's special tokens, and positions may follow the own."""
    every = (model.config, model.config.get_text_config(), getattr(model, "generation_config", None))
    configs = [vars(config) for config in every if config is not None]
    before = [{name: config[name] for name in _CHANGED if name in config} for config in configs]
    try:
        yield
    finally:
        for config, kept in zip(configs, before, strict=True):
            for name in set(_CHANGED) - set(kept):
                config.pop(name, None)
            config.update(kept)


def _check_same(folder: Path, begun: bool, stamp: Mapping[str, Any]) -> None:
    """Raise where a folder holds checkpoints of a training by other settings."""
    if not begun:
        return
    file = folder / _STAMP
    was = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for name, value in json.loads(json.dumps(stamp)).items():
        if was.get(name) != value:
            raise InputError(
                f"{folder} holds checkpoints of another training: {name} is {value!r} here and was {was.get(name)!r} "
                "there. Give the same to go on with it, or another folder"
            )


def _steps_of(checkpoint: str) -> int:
    return TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME)).global_step


def _finished(trainer: Trainer, student: PreTrainedModel, last: str, callbacks: Sequence[TrainerCallback]) -> None:
    """Take up the end of a training: the Trainer would add a step to it."""
    student.load_state_dict(load_file(Path(last) / SAFE_WEIGHTS_NAME), strict=False)  # tied weights are there once
    trainer.state = TrainerState.load_from_json(str(Path(last) / TRAINER_STATE_NAME))
    for callback in callbacks:
        callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=student)
        callback.on_train_end(trainer.args, trainer.state, trainer.control, model=student)


def check_settings(
    settings: Mapping[str, Any], corpus: datasets.Dataset | None, tokenizer: PreTrainedTokenizerBase | None, steps: int
) -> None:
    """Raise where what a compression was given for a training cannot be meant, before any work.

    Raises:
        InputError: a setting that `train` does not know; settings or a corpus without steps; steps without a corpus and
            a tokenizer.
    """
    known = set(inspect.signature(train).parameters) - {"student", "tokenizer", "corpus", "objective", "steps", "about"}
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"{name}={settings[name]!r}: no such setting. "
                + (f"Did you mean {near[0]}?" if near else f"Those of a training are {', '.join(sorted(known))}")
            )
    if not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps={steps!r}: expected a whole number, 0 for no training")
    if steps and (corpus is None or tokenizer is None):
        raise InputError("training needs text: give train=..., a corpus, and tokenizer=...")
    if settings and not steps:
        name = next(iter(settings))
        raise InputError(f"{name}={settings[name]!r} is of a training, and steps=0 trains nothing: give steps=...")


class _Trainer(Trainer):
    """Transformers' Trainer with our objectives in place of the model's own loss."""

    # Objectives are means over their batch: the Trainer divides by the batches of one update.
    loss_is_scaled_for_ga = False
    objective: Sequence[Objective]
    teacher: Any
    log_of: _Log
    learned: _Learned
    needs: set[str]

    @contextmanager
    def prepared(
        self,
        objective: Sequence[Objective],
        teacher: PreTrainedModel | None,
        log: _Log,
        learned: _Learned,
        checkpoint: str | None,
    ) -> Iterator[None]:
        """Make both models give what the objectives need, and leave the teacher as it was found."""
        self.objective, self.log_of, self.learned = objective, log, learned
        self.needs = {need for o in objective for need in o.needs}
        self.teacher = teacher if "teacher" in self.needs else None
        models: list[Any] = [m for m in (self.model, self.teacher) if m is not None]
        # Only the plain implementation of attention gives its maps.
        attention = [(m, m.config._attn_implementation) for m in models] if "attentions" in self.needs else []
        with evaluating(self.teacher, self.args.device) if self.teacher is not None else nullcontext():
            try:
                for model, _ in attention:
                    model.set_attn_implementation("eager")
                learned.prepare(self, teacher)
                if checkpoint is not None:
                    learned.resume(Path(checkpoint))
                yield
            finally:
                for model, implementation in attention:
                    model.set_attn_implementation(implementation)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
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
            shuffle=True,
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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        own = {k: v for k, v in inputs.items() if k not in ("labels", "index")}
        student, output = self._pass(model, own)
        with torch.no_grad():
            teacher = None if self.teacher is None else self._pass(self.teacher, own)[0]
        batch = {**inputs, "modules": self.learned.modules}
        parts = {o.name: o(student, teacher, batch) for o in self.objective}
        for name, value in parts.items():
            if not torch.isfinite(value):
                raise InputError(
                    f"step {self.state.global_step + 1}: the objective {name!r} is {value.item()}. "
                    + ("The last checkpoint is kept. " if self.args.save_strategy != "no" else "")
                    + "Lower the learning rate, or look at the texts and weights it is computed from"
                )
        self.log_of.add({k: float(v.detach()) for k, v in parts.items()})
        loss = sum(parts.values())
        if self.accelerator.num_processes > 1:  # DDP waits for the gradient of an output, also where none is compared
            loss = loss + output.flatten()[:0].sum()
        return (loss, student) if return_outputs else loss

    def _pass(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[Pass, torch.Tensor]:
        """Run a model on this process's part of a batch; return what it gave for the whole, and its first output."""
        bare = self.accelerator.unwrap_model(model)
        inputs = {k: v for k, v in inputs.items() if k != "token_type_ids" or types_tokens(bare)}
        count, processes = len(inputs["input_ids"]), self.accelerator.num_processes
        if processes > 1:  # parts of one size, the last ones filled up with the last text
            size = -(-count // processes)
            rows = torch.arange(size, device=self.args.device) + size * self.accelerator.process_index
            inputs = {k: v[rows.clamp_max(count - 1)] for k, v in inputs.items()}
        watching: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
        if "attention_outputs" in self.needs:
            watching = watching_attention(bare)
        with watching as seen:
            outputs = model(
                **inputs,
                output_hidden_states="hidden_states" in self.needs,
                output_attentions="attentions" in self.needs,
                return_dict=True,
            )
        found = {k: outputs.get(k) for k in ("logits", "hidden_states", "attentions")}
        found["attention_outputs"] = tuple(seen) or None
        if processes > 1:
            found = {k: self._whole(v, count) for k, v in found.items()}
        return Pass(bare, **found), outputs[0]

    def _whole(self, part: Any, count: int) -> Any:
        """Put what all processes computed into the places of their texts; the gradient flows to this one's."""
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


class _Log(TrainerCallback):
    """What is logged, kept beside every checkpoint, so that a training that goes on has the whole of it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.parts: list[dict[str, float]] = []

    def add(self, parts: dict[str, float]) -> None:
        self.parts.append(parts)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mean = {k: float(np.mean([p[k] for p in self.parts])) for k in self.parts[0]}
        self.rows.append({"step": state.global_step + 1, **mean, "loss": sum(mean.values())})
        self.parts = []

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        write_whole(folder / _HISTORY, json.dumps(self.rows) + "\n")

    def resume(self, checkpoint: Path) -> None:
        if (checkpoint / _HISTORY).is_file():
            self.rows = json.loads((checkpoint / _HISTORY).read_text(encoding="utf-8"))


class _Learned(TrainerCallback):
    """What objectives learn or remember: their modules, by the name of the objective, kept beside every checkpoint."""

    def __init__(self) -> None:
        self.modules: dict[str, torch.nn.Module] = {}

    def of(self, objective: Objective) -> torch.nn.Module:
        return self.modules.get(objective.name, torch.nn.Module())

    def prepare(self, trainer: _Trainer, teacher: PreTrainedModel | None) -> None:
        """Ask each objective for its module, the same in every process, and disturb no other random numbers."""
        self.accelerator, seed, device = trainer.accelerator, trainer.args.seed, trainer.args.device
        student: Any = trainer.model
        for o in trainer.objective:
            if (prepare := getattr(o, "prepare", None)) is None:
                continue
            with evaluating(student, device), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(seed)
                module = prepare(student, teacher, trainer.train_dataset, seed).to(device).train()
            if self.accelerator.num_processes > 1:
                for tensor in module.state_dict().values():
                    broadcast(tensor)
            self.modules[o.name] = module

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{name}/{k}": v for name, module in self.modules.items() for k, v in module.state_dict().items()}

    def resume(self, checkpoint: Path) -> None:
        """Put back what was learned until a checkpoint."""
        own, file = self.state(), checkpoint / _LEARNED
        kept = load_file(file) if file.is_file() else {}
        shapes, found = ({k: tuple(v.shape) for k, v in x.items()} for x in (own, kept))
        if shapes != found:
            raise InputError(
                f"{checkpoint} was written by a training whose objectives learn something else: expected "
                f"{shapes or 'nothing'}, found {found or 'nothing'}. Give the same objectives, or another folder"
            )
        for k, tensor in own.items():
            tensor.copy_(kept[k])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and self.state():
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in self.state().items()}, folder / _LEARNED)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.accelerator.num_processes > 1:  # equal up to rounding on devices that round as they please; now exactly
            for parameter in self._parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for parameter in self._parameters():  # the Trainer does so for the student alone
            parameter.grad = None

    def _parameters(self) -> Iterator[torch.nn.Parameter]:
        return (p for module in self.modules.values() for p in module.parameters())


class _Measure(TrainerCallback):
    """Measures the student at some steps: one instance stands before the callbacks that change it, one after."""

    def __init__(
        self,
        when: str,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]] | None,
        steps: Collection[int],
        log: _Log,
    ) -> None:
        self.when, self.evaluate, self.steps, self.log = when, evaluate, steps, log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.evaluate is None or state.global_step not in self.steps:
            return
        # Neither dropout nor the random numbers of the training are touched.
        with evaluating(model, model.device), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            found = dict(self.evaluate(model))
        self.log.rows.append({"step": state.global_step, "when": self.when, **found})


def types_tokens(model: PreTrainedModel) -> bool:
    """Whether a model tells the two texts of a pair apart: DistilBERT does not, whose teacher may."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


def training_rows(
    corpus: datasets.Dataset,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    teacher: PreTrainedModel | None = None,
    numbered_by: Literal["student", "teacher"] | None = "student",
) -> tuple[list[dict[str, Any]], bool]:
    """Token ids, labels and `index` of the texts that are trained on, and whether there are labels.

    Texts are cut where student or teacher cannot read on. Labels are numbers of the classes of one of them, which must
    have them all, or of the labels in the order of their names.
    """
    corpus = check_corpus(corpus)
    models = [student] if teacher is None else [student, teacher]
    names = [name_of(m) for m in models]
    for model, called in zip(models, names, strict=True):
        check_fit(embedding_rows(model), tokenizer, called)
    if "split" in corpus.column_names:
        chosen = [i for i, split in enumerate(corpus["split"]) if split == "train"]
        if not chosen:
            found = ", ".join(map(repr, sorted(set(corpus["split"]))))
            raise InputError(
                f"the corpus has no row of split 'train', only of {found}. Give one that has some, or one without a "
                "column 'split'"
            )
        corpus = corpus.select(chosen)
    labelled = "label" in corpus.column_names
    limit = min((n for m in models if (n := input_limit(m, tokenizer, None)) is not None), default=None)
    pairs = list(corpus["text_pair"]) if "text_pair" in corpus.column_names else None
    encoded = tokenizer(list(corpus["text"]), pairs, truncation=limit is not None, max_length=limit, verbose=False)
    rows = [{k: v[i] for k, v in encoded.items() if k != "attention_mask"} | {"index": i} for i in range(len(corpus))]
    if labelled:
        labels = np.asarray(corpus["label"], object)
        if numbered_by is None:
            codes = np.unique(labels, return_inverse=True)[1]
        else:
            at = 0 if numbered_by == "student" else -1
            codes = label_codes(labels, [str(c) for c in (models[at].config.id2label or {}).values()], names[at])
        for row, code in zip(rows, codes, strict=True):
            row["labels"] = int(code)
    return rows, labelled


def collate(
    tokenizer: PreTrainedTokenizerBase, batch: list[dict[str, Any]], indexed: bool = False
) -> dict[str, torch.Tensor]:
    """Pad the rows of a batch side by side, `indexed` with the numbers of the rows beside what a model reads."""
    width = max(len(row["input_ids"]) for row in batch)
    pad = tokenizer.pad_token_id or 0
    out = {
        key: torch.tensor([row[key] + [pad if key == "input_ids" else 0] * (width - len(row[key])) for row in batch])
        for key in batch[0]
        if key not in ("labels", "index")
    }
    lengths = torch.tensor([len(row["input_ids"]) for row in batch])
    out["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    for key in ("labels", "index"):
        if key in batch[0] and (indexed or key != "index"):
            out[key] = torch.tensor([row[key] for row in batch])
    return out
