"""The command line: python -m compress prune MODEL --sparsity 0.6 --out pruned/"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel

from compress import recipes
from compress.criteria import SCOPES
from compress.prune import SCHEDULES, prune
from compress.saving import check_new, save
from compress.structure import drop_layers, prune_channels, prune_heads
from compress.vocabulary import prune_vocabulary
from probes.checkpoint import load_checkpoint
from probes.command import run
from probes.corpus import load_corpus
from probes.errors import InputError

# Those that need no second model.
_RECIPES: dict[str, Callable[..., PreTrainedModel]] = {
    "magnitude_pruning": recipes.magnitude_pruning,
    "self_distilled_pruning": recipes.self_distilled_pruning,
    "aligned_weights": recipes.aligned_weights,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compress", description="Make a model smaller.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("model", metavar="MODEL", help="a folder, a hub name or 'bundled'")
    common.add_argument("--out", type=Path, required=True, help="a new folder for the smaller model and its tokenizer")
    common.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")
    common.add_argument("--corpus", help="where text is needed: a file, a hub name, or 'bundled'")
    common.add_argument("--split", help="keep this split of the corpus only")
    common.add_argument("--languages", type=_list, help="keep these languages only, separated by commas")
    common.add_argument("--seed", type=int, default=0, help="(%(default)s)")

    weights = commands.add_parser(
        "prune", parents=[common], help="set the weights that matter least to zero, at once or while training"
    )
    weights.add_argument("--sparsity", type=float, required=True, help="share of the weights that become zero, 0 to 1")
    weights.add_argument(
        "--recipe", choices=list(_RECIPES), help="a published method, ready set; needs --corpus and --steps"
    )
    weights.add_argument("--criterion", choices=list(SCOPES), default="magnitude", help="(%(default)s)")
    weights.add_argument("--scope", choices=["matrix", "global", "unit"], help="what is compared (what suits)")
    weights.add_argument("--schedule", choices=SCHEDULES, help="(one_shot, or that of the recipe)")
    weights.add_argument("--prunings", type=int, default=10, help="how many times, over the training (%(default)s)")
    weights.add_argument("--steps", type=int, default=0, help="updates of the weights; 0 for no training")
    weights.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    weights.add_argument("--learning-rate", type=float, default=5e-5, help="(%(default)s)")
    weights.set_defaults(run=_prune)

    structure = commands.add_parser("structure", parents=[common], help="remove attention heads, channels or layers")
    structure.add_argument("--heads", type=float, default=0.0, help="share of each layer's heads that goes, 0 to 1")
    structure.add_argument("--channels", type=float, default=0.0, help="share of each layer's channels that goes")
    structure.add_argument("--layers", type=int, default=0, help="how many layers go, those that matter least first")
    structure.add_argument(
        "--importance", choices=["magnitude", "taylor", "random"], default="magnitude", help="of heads and channels"
    )
    structure.set_defaults(run=_structure)

    vocabulary = commands.add_parser("vocabulary", parents=[common], help="keep the tokens that a corpus uses")
    vocabulary.set_defaults(run=_vocabulary)
    return parser


def _prune(options: argparse.Namespace) -> None:
    if not 0 <= options.sparsity < 1:
        raise InputError(f"--sparsity {options.sparsity}: expected at least 0 and below 1")
    if options.recipe is not None and (options.corpus is None or not options.steps):
        raise InputError(f"--recipe {options.recipe} prunes while it trains: give --corpus and --steps")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    how: dict[str, Any] = {"sparsity": options.sparsity, "steps": options.steps, "seed": options.seed}
    how |= {"criterion": options.criterion, "scope": options.scope}
    if options.schedule is not None:
        how |= {"schedule": options.schedule, "prunings": options.prunings}
    if options.steps:
        how |= {"batch_size": options.batch_size, "learning_rate": options.learning_rate}
    if options.recipe is None:
        pruned = prune(model, train=corpus, tokenizer=tokenizer, **how)
    else:
        pruned = _RECIPES[options.recipe](model, tokenizer, corpus, **how)
    save(pruned, options.out, tokenizer)
    done = pruned.config.compression
    print(
        f"pruned {len(done['pruned'])} matrices: {done['sparsity_of_pruned']:.1%} of their weights are zero, "
        f"{done['sparsity_of_model']:.1%} of all; wrote {options.out}"
    )


def _structure(options: argparse.Namespace) -> None:
    if not (options.heads or options.channels or options.layers):
        raise InputError("nothing to remove: give --heads, --channels or --layers")
    if (options.layers or options.importance == "taylor") and options.corpus is None:
        raise InputError("which layers matter, and importance by Taylor, is measured on text: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    smaller = model
    given: dict[str, Any] = {"corpus": corpus, "tokenizer": tokenizer}
    how: dict[str, Any] = {"importance": options.importance, "seed": options.seed, **given}
    if options.heads:
        smaller = prune_heads(smaller, options.heads, **how)
    if options.channels:
        smaller = prune_channels(smaller, options.channels, **how)
    if options.layers:
        smaller = drop_layers(smaller, options.layers, **given)
    save(smaller, options.out, tokenizer)
    print(f"{_size(model)} -> {_size(smaller)}; wrote {options.out}")


def _vocabulary(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("which tokens stay is read from text: give --corpus")
    check_new(options.out)
    corpus = _corpus(options)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    assert corpus is not None
    smaller, fewer = prune_vocabulary(model, tokenizer, corpus)
    save(smaller, options.out, fewer)
    print(f"{len(tokenizer):,} -> {len(fewer):,} tokens, {_size(model)} -> {_size(smaller)}; wrote {options.out}")


def _size(model: PreTrainedModel) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def _corpus(options: argparse.Namespace) -> datasets.Dataset | None:
    if options.corpus is None:
        return None
    return load_corpus(options.corpus, split=options.split, languages=options.languages)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
