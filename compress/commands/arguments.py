"""What the commands share: arguments, loading before the work, saving after it."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.saving import check_new, save
from compress.training.replaced_words import SCHEDULES, NearestWords
from compress.training.settings import SCHEDULERS
from probes.command import corpus_arguments, corpus_settings, output_argument, seed
from probes.corpus import load_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.files import check_space, locked
from probes.models.checkpoint import load_checkpoint
from probes.models.weights import stored_bytes
from probes.printing import printable
from probes.states.ranks import ranks_of


def model_arguments() -> argparse.ArgumentParser:
    """Return the arguments that say which model is made smaller, where to, and on which text."""
    common = argparse.ArgumentParser(add_help=False, parents=[corpus_arguments()])
    common.add_argument("model", metavar="MODEL", help="a folder, a hub name, 'bundled' or 'bundled-decoder'")
    output_argument(common, "a new folder for the smaller model and its tokenizer")
    common.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")
    common.add_argument("--corpus", help="where text is needed: a file, a hub name, or 'bundled'")
    common.add_argument(
        "--packed", action="store_true", help="leave zeros out on disk: smaller, but for layerscope alone to read"
    )
    common.add_argument("--seed", type=seed, default=0, help="(%(default)s)")
    return common


def training(
    steps: int | None = 0, *, required: bool = False, learning_rate: float | None = 5e-5
) -> argparse.ArgumentParser:
    """Return the arguments of a training: how many steps, by default so many, and how."""
    out = argparse.ArgumentParser(add_help=False)
    none = "; 0 for no training" if steps == 0 and not required else ""
    out.add_argument("--steps", type=int, default=steps, required=required, help=f"updates of the weights{none}")
    out.add_argument("--batch-size", type=int, default=32, help="(%(default)s)")
    rate = "what suits" if learning_rate is None else "%(default)s"
    out.add_argument("--learning-rate", type=float, default=learning_rate, help=f"({rate})")
    out.add_argument("--scheduler", choices=list(SCHEDULERS), help="of the learning rate (linear)")
    out.add_argument("--warmup", type=float, help="share of the updates in which the learning rate rises (0)")
    out.add_argument("--weight-decay", type=float, help="(0)")
    out.add_argument("--max-length", type=int, help="of texts in tokens (as the checkpoint declares)")
    out.add_argument(
        "--balanced", metavar="COLUMN", help="its groups, as of 'language', come alike often (each row once)"
    )
    out.add_argument(
        "--replace-words",
        choices=list(SCHEDULES),
        help="read near words in place of more and more words, so fast (none)",
    )
    rule = NearestWords()
    share = f"the largest share of words that is replaced ({rule.upto:g})"
    out.add_argument("--replace-upto", type=float, metavar="SHARE", help=share)
    out.add_argument("--replace-k", type=int, metavar="K", help=f"near words to choose from ({rule.k})")
    out.add_argument("--replace-own-words", type=float, metavar="SHARE", help="also by what the model itself says (0)")
    out.add_argument("--replace-across", action="store_true", help="near words are of the other languages of the text")
    out.add_argument("--replace-targets", action="store_true", help="replace what is to be predicted, not what is read")
    return out


def training_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return how a training goes, as the verbs take it."""
    names = ("learning_rate", "scheduler", "warmup", "weight_decay", "max_length", "balanced")
    named = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in named.items() if value is not None}
    words = _replaced_words(options)
    return {"batch_size": options.batch_size, **given, **({} if words is None else {"replace_words": words})}


def _replaced_words(options: argparse.Namespace) -> NearestWords | None:
    names = ("upto", "k", "own_words", "across", "targets")
    named = {name: getattr(options, f"replace_{name}") for name in names}
    given = {name: value for name, value in named.items() if value is not None and value is not False}
    if options.replace_words is not None:
        return NearestWords(options.replace_words, **given)
    if given:
        option = f"--replace-{next(iter(given))}".replace("_", "-")
        raise InputError(
            f"{option} says how words are replaced: give --replace-words too, one of {', '.join(SCHEDULES)}"
        )
    return None


def load(options: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Any]:
    """Return model, tokenizer and corpus (or None), once the new folder is for us alone to write."""
    if options.out.resolve() == Path.cwd():
        raise InputError(f"--out {options.out}: expected a new folder, found the one that you are in. Name another")

    def taken() -> None:
        options.until_done.enter_context(locked(options.out, wait=options.wait))
        check_new(options.out)

    ranks_of(options.out).first(taken)
    corpus: datasets.Dataset | None = None
    if options.corpus is not None:
        corpus = load_corpus(options.corpus, **corpus_settings(options))
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    try:
        check_space(options.out, stored_bytes(model), "the weights as they are")
    except InputError as error:  # what comes out may be smaller
        warnings.warn(str(error), LayerscopeWarning, stacklevel=2)
    return model, tokenizer, corpus


def write(model: Any, options: argparse.Namespace, tokenizer: Any) -> None:
    """Save a model and its tokenizer as it was asked for."""
    ranks_of(options.out).first(save, model, options.out, tokenizer, packed=options.packed)


def write_smaller(model: Any, smaller: Any, options: argparse.Namespace, tokenizer: Any) -> None:
    """Save a smaller model and say how much smaller it is."""
    write(smaller, options, tokenizer)
    print(f"{size_of(model)} -> {size_of(smaller)}; wrote {printable(options.out)}")


def size_of(model: Any) -> str:
    """Return how many parameters a model has, in words."""
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def refuse_corpus(options: argparse.Namespace, readers: str) -> None:
    """Raise `InputError` where a corpus is given though nothing reads it; `readers` are options that would."""
    if options.corpus is not None:
        raise InputError(f"--corpus is given and nothing reads it: give {readers}, or leave it out")
