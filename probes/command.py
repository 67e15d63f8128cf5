"""What every command line of the project does alike: run a command, and end bad input in one message."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from probes.errors import InputError, LayerscopeWarning


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that the parser sets as `run`, and return the exit status: 2 for bad input, said in one line."""
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", LayerscopeWarning)
        warnings.showwarning = _say
        try:
            options.run(options)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; what was captured is kept, the same command goes on from there", file=sys.stderr)
            return 130
    return 0


def _say(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, LayerscopeWarning):
        print(f"warning: {message}", file=sys.stderr)
