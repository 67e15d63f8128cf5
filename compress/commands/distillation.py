"""Learn from a teacher: `distill`."""

from __future__ import annotations

import argparse
from typing import Any

from compress.commands.arguments import load, model_arguments, training, training_settings, write_smaller
from compress.distillation.distill import distill
from compress.distillation.kept_layers import KEEP
from probes.command import add_command
from probes.errors import InputError


def add(commands: Any) -> None:
    """Give this command to a parser."""
    student = add_command(
        commands, "distill", "train a smaller model to do as it does", _distill, model_arguments(), training(steps=None)
    )
    student.add_argument("--layers", type=int, help="of the smaller model (as many)")
    student.add_argument("--hidden-size", type=int, help="of the smaller model (the same)")
    student.add_argument("--keep", choices=KEEP, default="uniform", help="which layers it starts from (%(default)s)")


def _distill(options: argparse.Namespace) -> None:
    if options.corpus is None and (options.steps or options.keep == "matched"):
        raise InputError("to train, or to choose layers that match, takes text: give --corpus")
    model, tokenizer, corpus = load(options)
    smaller = distill(
        model,
        layers=options.layers,
        hidden_size=options.hidden_size,
        keep=options.keep,
        train=corpus,
        tokenizer=tokenizer,
        steps=options.steps,
        seed=options.seed,
        **(training_settings(options) if corpus is not None and options.steps != 0 else {}),
    )
    write_smaller(model, smaller, options, tokenizer)
