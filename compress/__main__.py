"""The command line: python -m compress prune MODEL --sparsity 0.6 --out pruned/"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compress.prune import prune
from compress.saving import check_new, save
from probes.checkpoint import load_checkpoint
from probes.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input ends in one message on standard error and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m compress", description="Make a model smaller.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("prune", help="set the smallest weights of every matrix to zero")
    run.add_argument("model", metavar="MODEL", help="a folder, a hub name or 'bundled'")
    run.add_argument("--sparsity", type=float, required=True, help="share of the weights that become zero, 0 to 1")
    run.add_argument("--out", type=Path, required=True, help="a new folder for the pruned model and its tokenizer")
    run.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")
    run.set_defaults(run=_prune)
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
