"""Sparse vectors of texts, for retrieval by an inverted index: `sparsify`."""

from __future__ import annotations

import argparse
from typing import Any

from compress.commands.arguments import load, model_arguments, training, training_settings, write
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from probes.command import add_command
from probes.errors import InputError
from probes.printing import printable


def add(commands: Any) -> None:
    """Give this command to a parser."""
    how = training(required=True, learning_rate=1e-3)
    sparse = add_command(
        commands, "sparsify", "train sparse vectors of texts, for an inverted index", _sparsify, model_arguments(), how
    )
    sparse.add_argument("--features", type=int, default=512, help="of a vector (%(default)s)")
    sparse.add_argument("--flops", type=float, default=0.1, help="how hard it is pushed to be sparse (%(default)s)")


def _sparsify(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("sparse vectors are trained on translations: give --corpus")
    model, tokenizer, corpus = load(options)
    how = {"train": corpus, "tokenizer": tokenizer, "steps": options.steps, **training_settings(options)}
    sparse = sparsify_embeddings(model, features=options.features, flops=options.flops, seed=options.seed, **how)
    write(sparse, options, tokenizer)
    done = sparse.config.compression
    print(
        f"vectors of {done['features']} features: {done['cost']['nonzeros']:.1f} of them not zero in a text, "
        f"{done['cost']['flops']:.2f} multiplications a pair; wrote {printable(options.out)}"
    )
