"""How a training goes: one dataclass, which every verb and recipe that trains takes as keywords."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from compress.objectives.base import is_number, is_whole
from probes.errors import InputError, check_choice

# What the learning rate does after the warm-up, and what transformers calls it.
SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainingSettings:
    """How a training goes, beside what it is for and how long: what every verb takes as keywords.

    `compress.prune(model, ..., weight_decay=0.01, warmup=0.1)` is `weight_decay` and `warmup` of
    these, and the others as they are here. All are kept with a checkpoint, and a training goes on
    by the same ones only.

    Args:
        batch_size: texts of a batch, over all processes, at least 1.
        learning_rate: the highest there is, of AdamW, above 0.
        accumulate: batches whose gradients make up one update, at least 1.
        scheduler: what the learning rate does after the warm-up: falls to 0 at the last update,
            "linear" or as half a "cosine"; or stays, "constant".
        warmup: share of the updates in which it rises linearly from 0, at least 0 and below 1;
            rounded up to whole updates.
        weight_decay: what is taken off of each weight in an update, over the learning rate, at
            least 0; not off biases and norms. What objectives learn decays whole.
        betas: of AdamW's two running means, each at least 0 and below 1.
        epsilon: what AdamW adds to the root of the second one, above 0.
        max_grad_norm: the student's gradient is made shorter where its norm is above this; None for
            no bound. What objectives learn plays no part in it.
        precision: what both models compute in, "float32" or "bfloat16" (of which weights, losses
            and what is measured are not: they stay in float32).
        max_length: in tokens, where texts are cut; None for what the checkpoint declares.
        prompt: what stands before each text; None for what the checkpoint declares, "" for nothing.
        balanced: a column of the corpus, as "language" or "label", whose groups come alike often:
            rows of small groups several times in one time through, of large ones not all. None for
            each row once.

    Raises:
        InputError: a number is out of its range, or a word not known; at the training: there is no
            such column, or one group.

    Notes:
        AdamW: Loshchilov and Hutter 2017, arXiv 1711.05101. The defaults are those of transformers.
        What papers train by is said by the docstrings of the recipes.

    See also:
        `compress.training.train`

    Example:
        >>> import compress, probes
        >>> settings = TrainingSettings(weight_decay=0.01, warmup=0.1, max_length=16)
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> given = {"train": train, "tokenizer": tokenizer, "steps": 1, "progress": False}
        >>> pruned = compress.prune(model, sparsity=0.5, **given, **vars(settings))
        >>> pruned.config.compression["training"]
        {'warmup': 0.1, 'weight_decay': 0.01, 'max_length': 16}
    """

    batch_size: int = 32
    learning_rate: float = 5e-5
    accumulate: int = 1
    scheduler: str = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0
    precision: str = "float32"
    max_length: int | None = None
    prompt: str | None = None
    balanced: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate"):
            if not is_whole(value := getattr(self, name)) or value < 1:
                raise InputError(f"{name}={value!r}: expected a whole number of at least 1")
            self._keep(name, int(value))
        for name in ("learning_rate", "epsilon", "max_grad_norm"):
            value = getattr(self, name)
            if name == "max_grad_norm" and value is None:
                continue
            if not is_number(value) or not value > 0:
                or_none = ", or None for no bound" if name == "max_grad_norm" else ""
                raise InputError(f"{name}={value!r}: expected a number above 0{or_none}")
            self._keep(name, float(value))
        if not is_number(self.weight_decay) or self.weight_decay < 0:
            raise InputError(f"weight_decay={self.weight_decay!r}: expected a number of at least 0")
        if not is_number(self.warmup) or not 0 <= self.warmup < 1:
            raise InputError(
                f"warmup={self.warmup!r}: expected at least 0 and below 1, a share of the updates: divide so many "
                "updates by steps"
            )
        betas = self.betas
        if (
            not isinstance(betas, tuple | list)
            or len(betas) != 2
            or not all(is_number(b) and 0 <= b < 1 for b in betas)
        ):
            raise InputError(f"betas={betas!r}: expected two numbers, each at least 0 and below 1")
        self._keep("betas", (float(betas[0]), float(betas[1])))
        self._keep("weight_decay", float(self.weight_decay))
        self._keep("warmup", float(self.warmup))
        if self.balanced is not None and not (isinstance(self.balanced, str) and self.balanced):
            raise InputError(f"balanced={self.balanced!r}: expected the name of a column, as 'language', or None")
        check_choice("scheduler", self.scheduler, SCHEDULERS)
        check_choice("precision", self.precision, PRECISIONS)

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # as it is written beside a checkpoint

    @property
    def reading(self) -> dict[str, Any]:
        """Return how texts are read, as `compress.rows.training_rows` takes it."""
        return {"max_length": self.max_length, "prompt": self.prompt}

    def of_trainer(self) -> dict[str, Any]:
        """Return them as `transformers.TrainingArguments` has them."""
        return {
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulate,
            "learning_rate": self.learning_rate,
            "lr_scheduler_type": SCHEDULERS[self.scheduler],
            "warmup_steps": self.warmup,  # below 1, it is a share
            "weight_decay": self.weight_decay,
            "adam_beta1": self.betas[0],
            "adam_beta2": self.betas[1],
            "adam_epsilon": self.epsilon,
            "max_grad_norm": self.max_grad_norm or 0.0,  # which is no bound
        }


FIELDS = tuple(field.name for field in fields(TrainingSettings))
DEFAULTS = asdict(TrainingSettings())


def settings_by(given: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings that some keywords are; raise `InputError` where one is none of them.

    Example:
        >>> settings_by({"weight_decays": 0.01})
        Traceback (most recent call last):
        probes.errors.InputError: weight_decays=0.01: no such setting. Did you mean weight_decay?
    """
    check_names(given, FIELDS)
    return TrainingSettings(**given)


def check_names(given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise `InputError` for a keyword that is none of those that are known."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"{name}={given[name]!r}: no such setting. "
                + (f"Did you mean {near[0]}?" if near else f"Those of a training are {', '.join(sorted(known))}")
            )
