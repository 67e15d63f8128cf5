"""The command line: python -m compress prune MODEL --sparsity 0.6 --out pruned/"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.prune import prune
from compress.saving import check_new, save
from probes.checkpoint import load_checkpoint
from probes.command import run
from probes.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    return run(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compress", description="Make a model smaller.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    smaller = commands.add_parser("prune", help="set the smallest weights of every matrix to zero")
    smaller.add_argument("model", metavar="MODEL", help="a folder, a hub name or 'bundled'")
    smaller.add_argument("--sparsity", type=float, required=True, help="share of the weights that become zero, 0 to 1")
    smaller.add_argument("--out", type=Path, required=True, help="a new folder for the pruned model and its tokenizer")
    smaller.add_argument(
        "--allow-pickle", action="store_true", help="also open pickled weights, which can run any code"
    )
    smaller.set_defaults(run=_prune)
    return parser


def _prune(options: argparse.Namespace) -> None:
    if not 0 <= options.sparsity < 1:
        raise InputError(f"--sparsity {options.sparsity}: expected at least 0 and below 1")
    check_new(options.out)
    model, tokenizer = load_checkpoint(options.model, allow_pickle=options.allow_pickle)
    pruned = prune(model, sparsity=options.sparsity)
    save(pruned, options.out, tokenizer)
    done = pruned.config.compression
    print(
        f"pruned {len(done['pruned'])} matrices: {done['sparsity_of_pruned']:.1%} of their weights are zero, "
        f"{done['sparsity_of_model']:.1%} of all; wrote {options.out}"
    )


if __name__ == "__main__":
    sys.exit(main())
