"""Take away what matters least: `prune`, `structure`, `vocabulary`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from compress import recipes
from compress.commands.arguments import (
    load,
    model_arguments,
    size_of,
    training,
    training_settings,
    write,
    write_smaller,
)
from compress.pruning.criteria import SCOPES
from compress.pruning.drop_layers import drop_layers
from compress.pruning.prune import SCHEDULES, prune
from compress.pruning.structure import IMPORTANCE, OF_TEXTS, prune_channels, prune_heads
from compress.pruning.vocabulary import prune_vocabulary
from probes.command import add_command
from probes.errors import InputError
from probes.printing import printable

# Those that need no second model.
_RECIPES: dict[str, Callable[..., PreTrainedModel]] = {
    "magnitude_pruning": recipes.magnitude_pruning,
    "self_distilled_pruning": recipes.self_distilled_pruning,
    "aligned_weights": recipes.aligned_weights,
    "snip": recipes.snip,
    "sparse_progressive_distillation": recipes.sparse_progressive_distillation,
}


def add(commands: Any) -> None:
    """Give these commands to a parser."""
    weights = add_command(
        commands,
        "prune",
        "set weights that matter least to zero, also in training",
        _prune,
        model_arguments(),
        training(),
    )
    weights.add_argument("--sparsity", type=float, required=True, help="share of the weights that become zero, 0 to 1")
    weights.add_argument(
        "--recipe", choices=list(_RECIPES), help="a published method, ready set; needs --corpus and --steps"
    )
    weights.add_argument("--criterion", choices=list(SCOPES), help="(magnitude, or that of the recipe)")
    weights.add_argument("--scope", choices=["matrix", "global", "unit"], help="what is compared (what suits)")
    weights.add_argument("--pattern", help="as 2:4: of every 4 inputs of a unit 2 stay")
    weights.add_argument("--damping", type=float, default=0.01, help="of sparsegpt (%(default)s)")
    weights.add_argument("--schedule", choices=SCHEDULES, help="(one_shot, or that of the recipe)")
    weights.add_argument("--prunings", type=int, help="how many times, over the training (10)")

    structure = add_command(
        commands, "structure", "remove attention heads, channels or layers", _structure, model_arguments()
    )
    structure.add_argument("--heads", type=float, default=0.0, help="share of each layer's heads that goes, 0 to 1")
    structure.add_argument("--channels", type=float, default=0.0, help="share of each layer's channels that goes")
    structure.add_argument("--layers", type=int, default=0, help="how many layers go, those that matter least first")
    structure.add_argument("--importance", choices=IMPORTANCE, default="magnitude", help="of heads and channels")

    add_command(commands, "vocabulary", "keep the tokens that a corpus uses", _vocabulary, model_arguments())


def _prune(options: argparse.Namespace) -> None:
    if not 0 <= options.sparsity < 1:
        raise InputError(f"--sparsity {options.sparsity}: expected at least 0 and below 1")
    if options.recipe is not None and (options.corpus is None or not options.steps):
        raise InputError(f"--recipe {options.recipe} prunes while it trains: give --corpus and --steps")
    model, tokenizer, corpus = load(options)
    how: dict[str, Any] = {"sparsity": options.sparsity, "steps": options.steps, "seed": options.seed}
    how |= {"pattern": options.pattern, "damping": options.damping}
    named = ("criterion", "scope", "schedule", "prunings")
    how |= {name: given for name in named if (given := getattr(options, name)) is not None}
    if options.steps:
        how |= training_settings(options)
    if options.recipe is None:
        pruned = prune(model, train=corpus, tokenizer=tokenizer, **how)
    else:
        pruned = _RECIPES[options.recipe](model, tokenizer, corpus, **how)
    write(pruned, options, tokenizer)
    done = pruned.config.compression
    print(
        f"pruned {len(done['pruned'])} matrices: {done['sparsity_of_pruned']:.1%} of their weights are zero, "
        f"{done['sparsity_of_model']:.1%} of all; wrote {printable(options.out)}"
    )


def _structure(options: argparse.Namespace) -> None:
    if not (options.heads or options.channels or options.layers):
        raise InputError("nothing to remove: give --heads, --channels or --layers")
    if (options.layers or options.importance in OF_TEXTS) and options.corpus is None:
        raise InputError("which layers matter, and importance by gradients, is measured on text: give --corpus")
    model, tokenizer, corpus = load(options)
    smaller = model
    given: dict[str, Any] = {"corpus": corpus, "tokenizer": tokenizer}
    how: dict[str, Any] = {"importance": options.importance, "seed": options.seed, **given}
    if options.heads:
        smaller = prune_heads(smaller, options.heads, **how)
    if options.channels:
        smaller = prune_channels(smaller, options.channels, **how)
    if options.layers:
        smaller = drop_layers(smaller, options.layers, **given)
    write_smaller(model, smaller, options, tokenizer)


def _vocabulary(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("which tokens stay is read from text: give --corpus")
    model, tokenizer, corpus = load(options)
    smaller, fewer = prune_vocabulary(model, tokenizer, corpus)
    write(smaller, options, fewer)
    made = f"{len(tokenizer):,} -> {len(fewer):,} tokens, {size_of(model)} -> {size_of(smaller)}"
    print(f"{made}; wrote {printable(options.out)}")
