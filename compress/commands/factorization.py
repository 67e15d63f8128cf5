"""Matrices as products of smaller ones: `factorize`."""

from __future__ import annotations

import argparse
from typing import Any

from compress.commands.arguments import load, model_arguments, refuse_corpus, write_smaller
from compress.factorization.factorize import METHODS, factorize
from probes.command import add_command
from probes.errors import InputError


def add(commands: Any) -> None:
    """Give this command to a parser."""
    factors = add_command(
        commands, "factorize", "make matrices products of smaller ones", _factorize, model_arguments()
    )
    size = factors.add_mutually_exclusive_group(required=True)
    size.add_argument("--rank", type=int, help="of every matrix")
    size.add_argument("--energy", type=float, help="share of the squared singular values that is kept")
    size.add_argument("--budget", type=float, help="share of the parameters that is kept, shared out over all matrices")
    factors.add_argument("--method", choices=METHODS, default="svd", help="(%(default)s)")
    factors.add_argument("--only", metavar="RE", help="of the matrices only those whose name this expression finds")
    factors.add_argument("--embeddings", action="store_true", help="the token embeddings too")


def _factorize(options: argparse.Namespace) -> None:
    if options.corpus is None and options.method == "activation":
        raise InputError("--method activation looks at what the matrices are fed: give --corpus")
    if options.method != "activation":
        refuse_corpus(options, "--method activation, which looks at text")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"method": options.method, "only": options.only, "embeddings": options.embeddings}
    if options.method == "activation":
        how |= {"calibrate": corpus, "tokenizer": tokenizer}
    smaller = factorize(model, rank=options.rank, energy=options.energy, budget=options.budget, **how)
    write_smaller(model, smaller, options, tokenizer)
