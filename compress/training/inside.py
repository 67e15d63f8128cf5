"""What every verb does with a training inside it: check it, run it, and say what it was."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from compress.objectives.base import Objective
from compress.objectives.kinds import supervised
from compress.training.gradients import said_of
from compress.training.loop import train
from compress.training.settings import DEFAULTS, FIELDS, check_names, settings_by
from probes.errors import InputError

Evaluate = Callable[[PreTrainedModel], Mapping[str, float]]


class Training:
    """A training inside a verb: checked when it is made, run once, recorded with the model.

    Args:
        model: what the verb was given: the teacher, where no other is.
        corpus: what is trained on, as `load_corpus` gives it.
        tokenizer: the tokenizer that belongs to the model.
        steps: updates of the weights; 0 for no training.
        objective: one or several objects of `compress.objectives`; without any, what the head of the
            model is for, as `compress.objectives.kinds.supervised` says.
        teacher: for the objectives that need one; by default the model.
        folder, seed: as in `compress.training.train`.
        settings: further ones of `compress.training.train` and `TrainingSettings`.
        used: whether the verb has a use of its own for the corpus, so that it may be there without
            steps.

    Attributes:
        history: what was logged, one row an update; None before and without a training.

    Raises:
        InputError: there are steps and no corpus or tokenizer, or settings or a corpus and no
            steps; a setting is not known.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> Training(model, None, tokenizer, 0, learning_rates=1)
        Traceback (most recent call last):
        probes.errors.InputError: learning_rates=1: no such setting. Did you mean learning_rate?
    """

    def __init__(
        self,
        model: PreTrainedModel,
        corpus: datasets.Dataset | None,
        tokenizer: PreTrainedTokenizerBase | None,
        steps: int,
        objective: Objective | Sequence[Objective] = (),
        teacher: PreTrainedModel | None = None,
        *,
        folder: str | Path | None = None,
        seed: int = 0,
        used: bool = False,
        **settings: Any,
    ) -> None:
        """Check what can be before any work."""
        check_settings(settings, corpus, tokenizer, steps)
        if corpus is not None and not steps and not used:
            raise InputError("train=... is given, and steps=0 trains nothing: give steps=..., or leave it out")
        self.corpus, self.tokenizer, self.steps = corpus, tokenizer, steps
        self.teacher = model if teacher is None else teacher
        self.folder, self.seed, self.settings = folder, seed, settings
        given = list(objective) if isinstance(objective, Sequence) else [objective]
        self.objective: list[Objective] = given or [supervised(model)]
        self.history: pd.DataFrame | None = None

    def run(
        self,
        model: PreTrainedModel,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        at: Collection[int] = (),
        noted: str | None = None,
        about: Mapping[str, Any] | None = None,
        measuring: Callable[[Evaluate], Evaluate] | None = None,
    ) -> None:
        """Train a model in place; nothing where there are no steps.

        Args:
            model: what is trained; it is changed.
            callbacks: what the verb does to it in training, before those that were given.
            at: the steps at which it does so: there the model is measured too.
            noted: what `history.attrs` and the record call these steps, as "pruned_at".
            about: what else decides what comes out, kept in the folder.
            measuring: puts the verb's own work around what measures the model.

        Raises:
            InputError: what `compress.training.train` raises.
        """
        if not self.steps:
            return
        assert self.corpus is not None  # check_settings has raised
        assert self.tokenizer is not None
        settings = dict(self.settings)
        if at:
            settings["evaluate_at"] = {*at, *settings.get("evaluate_at", ())}
        if measuring is not None and settings.get("evaluate") is not None:
            settings["evaluate"] = measuring(settings["evaluate"])
        steps_of_verb = {} if noted is None else {noted: list(at)}
        self.history = train(
            model,
            self.tokenizer,
            self.corpus,
            objective=self.objective,
            teacher=self.teacher,
            steps=self.steps,
            callbacks=[*callbacks, *settings.pop("callbacks", ())],
            folder=self.folder,
            seed=self.seed,
            about={**(about or {}), **steps_of_verb},
            **settings,
        )
        self.history.attrs |= steps_of_verb

    def recorded(self) -> dict[str, Any]:
        """Return what a model's record says of its training, of its settings those that are not the
        defaults; nothing without one.
        """
        if not self.steps:
            return {}
        assert self.history is not None, "recorded before it was run"
        names = [o.name for o in self.objective]
        given = asdict(settings_by({name: value for name, value in self.settings.items() if name in FIELDS}))
        other = {name: value for name, value in given.items() if value != DEFAULTS[name]}
        how = {"training": json.loads(json.dumps(other))} if other else {}  # as the file will have it
        if (rule := self.settings.get("gradients")) is not None:
            how["gradients"] = json.loads(json.dumps(said_of(rule)))
        if (words := self.settings.get("replace_words")) is not None:
            how["replace_words"] = words.said()
        return {"seed": self.seed, "steps": self.steps, "objective": names, **how, **self.history.attrs}


def check_settings(
    settings: Mapping[str, Any], corpus: datasets.Dataset | None, tokenizer: PreTrainedTokenizerBase | None, steps: int
) -> None:
    """Raise where what a compression was given for a training cannot be meant, before any work.

    Raises:
        InputError: a setting that `train` does not know, or out of its range; settings or a corpus
            without steps; steps without a corpus and a tokenizer.
    """
    check_names(settings, {*inspect.signature(train).parameters, *FIELDS} - _OF_VERBS)
    if not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps={steps!r}: expected a whole number, 0 for no training")
    if steps and (corpus is None or tokenizer is None):
        raise InputError("training needs text: give train=..., a corpus, and tokenizer=...")
    if settings and not steps:
        name = next(iter(settings))
        raise InputError(f"{name}={settings[name]!r} is of a training, and steps=0 trains nothing: give steps=...")
    settings_by({name: value for name, value in settings.items() if name in FIELDS})


# What `train` takes that a verb gives itself.
_OF_VERBS = {"student", "tokenizer", "corpus", "objective", "steps", "about", "settings"}
