"""Layers that share their weights, and weights that share few numbers: `fuse`, `hash-weights`."""

from __future__ import annotations

import argparse
from typing import Any

from compress.commands.arguments import load, model_arguments, refuse_corpus, training, training_settings, write_smaller
from compress.fusion.fuse import MERGES, fuse
from compress.fusion.hash_weights import hash_weights
from compress.fusion.pairs import UNITS
from probes.command import add_command
from probes.errors import InputError


def add(commands: Any) -> None:
    """Give this command to a parser."""
    fused = add_command(
        commands, "fuse", "let layers that are alike share their weights", _fuse, model_arguments(), training()
    )
    fused.add_argument("--share", type=float, default=0.5, help="share of the tensors that go (%(default)s)")
    fused.add_argument(
        "--similarity", default="euclidean", help="of weights, or cka, of states on --corpus (%(default)s)"
    )
    fused.add_argument("--merge", choices=MERGES, default="mean", help="(%(default)s)")
    fused.add_argument("--unit", choices=UNITS, default="matrix", help="(%(default)s)")

    hashed = add_command(
        commands,
        "hash-weights",
        "let weights of a matrix share few numbers, by a hash",
        _hash_weights,
        model_arguments(),
        training(),
    )
    hashed.add_argument("--share", type=float, default=0.25, help="numbers over weights (%(default)s)")
    hashed.add_argument("--only", metavar="RE", help="of the matrices only those whose name this expression finds")


def _fuse(options: argparse.Namespace) -> None:
    if options.corpus is None and (options.steps or options.similarity == "cka"):
        raise InputError("to train, or to compare states by cka, takes text: give --corpus")
    if not options.steps and options.similarity != "cka":
        refuse_corpus(options, "--steps to train on it or --similarity cka")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"similarity": options.similarity, "merge": options.merge, "unit": options.unit}
    if options.similarity == "cka":
        how |= {"corpus": corpus, "tokenizer": tokenizer}
    if options.steps:
        how |= {"train": corpus, "tokenizer": tokenizer, "steps": options.steps, **training_settings(options)}
    smaller = fuse(model, share=options.share, seed=options.seed, **how)
    write_smaller(model, smaller, options, tokenizer)


def _hash_weights(options: argparse.Namespace) -> None:
    if options.steps and options.corpus is None:
        raise InputError("--steps trains on text: give --corpus")
    if not options.steps:
        refuse_corpus(options, "--steps to train on it")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {}
    if options.steps:
        how = {"train": corpus, "tokenizer": tokenizer, "steps": options.steps, **training_settings(options)}
    smaller = hash_weights(model, share=options.share, only=options.only, seed=options.seed, **how)
    write_smaller(model, smaller, options, tokenizer)
