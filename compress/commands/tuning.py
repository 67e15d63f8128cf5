"""Give back what was taken away: `restore`."""

from __future__ import annotations

import argparse
from typing import Any

from compress.commands.arguments import load, model_arguments, write
from compress.tuning.given_back import UNITS
from compress.tuning.restore import restore
from probes.command import add_command
from probes.errors import InputError
from probes.files import in_words
from probes.models.checkpoint import load_checkpoint
from probes.printing import printable


def add(commands: Any) -> None:
    """Give this command to a parser."""
    about = "give a smaller model back what it lacks most"
    mended = add_command(commands, "restore", about, _restore, model_arguments())
    mended.add_argument("--from", dest="base", metavar="BASE", required=True, help="the original of MODEL")
    mended.add_argument("--budget", type=float, default=0.02, help="a share of the bytes of MODEL (%(default)s)")
    mended.add_argument("--units", choices=UNITS, help="what is given back together (bits, or matrices)")
    mended.add_argument("--texts", type=int, default=256, help="to choose on, at most (%(default)s)")
    mended.add_argument("--pivot", help="of a model without a head: the language of retrieval")


def _restore(options: argparse.Namespace) -> None:
    if options.corpus is None:
        raise InputError("what it lacks most is measured on text: give --corpus")
    model, tokenizer, corpus = load(options)
    base, _ = load_checkpoint(options.base, allow_pickle=options.allow_pickle)
    how = {name: getattr(options, name) for name in ("budget", "units", "texts", "seed", "pivot")}
    mended = restore(model, base, tokenizer, corpus, **how)
    write(mended, options, tokenizer)
    done = mended.config.compression
    left = 1 - done["damage_after"] / done["damage_before"] if done["damage_before"] else 0.0
    print(
        f"gave back {len(done['given'])} parts, {in_words(done['bytes'] - done['bytes_before'])} of at most "
        f"{in_words(done['budget_bytes'])}: {in_words(done['bytes_before'])} -> {in_words(done['bytes'])} "
        f"({done['stored_as']}); {left:.0%} of the damage on the texts of the choice is gone; wrote "
        f"{printable(options.out)}"
    )
