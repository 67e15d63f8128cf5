"""The command line: python -m compress VERB; `layerscope` has the commands of both packages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

import probes.__main__ as measuring
from compress.commands import (
    checking,
    distillation,
    factorization,
    footprint,
    fusion,
    pruning,
    quantization,
    retrieval,
    tuning,
)
from probes.command import run

# What one wants, and the files whose commands do it.
_PURPOSES = {
    "take away what matters least, or bits": [pruning, quantization],
    "use fewer parameters, search by sparse vectors, train further, or repair": [
        fusion,
        factorization,
        distillation,
        retrieval,
        tuning,
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    return run(_parser("python -m compress", "Make a model smaller.", _PURPOSES), arguments)


def layerscope(arguments: Sequence[str] | None = None) -> int:
    """Run a command of either package, as `layerscope` does, and return its exit status."""
    about = "See what compression does to the representations of a model, layer by layer."
    return run(_parser("layerscope", about, {"measure": [measuring, checking, footprint], **_PURPOSES}), arguments)


def _parser(prog: str, about: str, purposes: Mapping[str, Sequence[ModuleType]]) -> argparse.ArgumentParser:
    """A parser whose help lists its commands by what they are for."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} COMMAND [--help] ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(prog=prog, required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    lines = [about, ""]  # no more empty ones: all of it fits a screen
    for purpose, files in purposes.items():
        before = set(commands.choices)
        for file in files:
            file.add(commands)
        lines.append(f"{purpose}:")
        lines += [f"  {n:18}{p.description}" for n, p in commands.choices.items() if n not in before]
    parser.description = "\n".join(lines)
    return parser


if __name__ == "__main__":
    sys.exit(main())
