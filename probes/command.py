"""What every command line of the project does alike: arguments of a corpus, and bad input that ends
in one message.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from probes.errors import InputError, LayerscopeWarning, address_of, is_path, is_url, of_the_system, remedy
from probes.forms import parse_json
from probes.printing import printable

_COLUMNS = {
    "id": "id",
    "language": "language",
    "text": "text",
    "label": "label",
    "text_pair": "text-pair",
    "group": "group: what sentences share that are not independent, as an article",
}


def run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command that the parser sets as `run`, and return the exit status: 2 for bad input,
    said in one line, or what the command itself returns.

    Of several processes of torchrun the first prints what comes out and warns, and each says its
    own errors.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that a terminal does not have are written as escapes
            stream.reconfigure(errors="backslashreplace")
    options = parser.parse_args(arguments)
    with warnings.catch_warnings(), _ends_in_order():
        warnings.simplefilter("always" if _rank() == 0 else "ignore", LayerscopeWarning)
        warnings.showwarning = _say
        try:
            with ExitStack() as options.until_done:  # what a command holds: the lock of what it writes
                if _rank():
                    nowhere = options.until_done.enter_context(open(os.devnull, "w"))
                    options.until_done.enter_context(redirect_stdout(nowhere))
                return options.run(options) or 0
        except BrokenPipeError:  # who read what is printed has read enough
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
            return 1
        except InputError as error:
            return _refused(str(error))
        except Exception as error:
            trouble = of_the_system(error)
            if trouble is None:
                raise
            return _refused(_told(trouble))
        except KeyboardInterrupt:
            print("interrupted; what was captured is kept, the same command goes on from there", file=sys.stderr)
            return 130


def add_command(
    commands: Any,
    name: str,
    about: str,
    run: Callable[[argparse.Namespace], int | None],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command to those of a parser: what it is about is its line in their help, and the first
    of its own.
    """
    description = f"{about[0].upper()}{about[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, parents=parents, help=about, description=description)
    parser.set_defaults(run=run)
    return parser


def output_argument(
    parser: argparse.ArgumentParser, about: str, where: Callable[[str], Path | str] | None = None
) -> None:
    """Give a parser the arguments that say where to, to a folder or what `where` makes of the text,
    and what if another process writes there.
    """
    parser.add_argument("--out", type=where or folder, required=True, help=about)
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="end where another process writes there, and do not wait"
    )


def corpus_arguments() -> argparse.ArgumentParser:
    """Return the arguments that say what of a corpus is read: its split, its languages, its
    columns.
    """
    corpus = argparse.ArgumentParser(add_help=False)
    corpus.add_argument("--split", help="keep this split of the corpus only")
    corpus.add_argument("--languages", type=listed, help="keep these languages only, separated by commas")
    corpus.add_argument(
        "--streaming", action="store_true", help="never hold the corpus, files of a table, in memory: read it from disk"
    )
    for name, about in _COLUMNS.items():
        option = name.replace("_", "-")
        corpus.add_argument(f"--{option}", default=name, metavar="COLUMN", help=f"the column that holds the {about}")
    return corpus


def corpus_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return them as `probes.load_corpus` takes them."""
    return {name: getattr(options, name) for name in ("split", "languages", "streaming", *_COLUMNS)}


def loading_arguments(parser: argparse.ArgumentParser, dtypes: Sequence[str], more: str = "") -> None:
    """Give a parser the arguments that say where models are loaded to, and in which precision."""
    parser.add_argument(
        "--dtype",
        choices=list(dtypes),
        default="float32",
        help=f"of weights and passes: auto: weights as they are stored{more} (%(default)s)",
    )
    parser.add_argument(
        "--device-map",
        type=device_map,
        help="spread a model that does not fit: 'auto' over devices, memory and disk, or as JSON module -> device",
    )
    parser.add_argument("--offload-folder", type=folder, help="where what goes to the disk is written")


def device_map(text: str) -> Any:
    """Return an argument as a device map of transformers: its name, or an object of JSON."""
    if not text.startswith("{"):
        return text
    try:
        return parse_json(text, {str: (str, int)}, "--device-map")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).partition(". ")[0]) from error


def from_module(option: str, given: str, what: str) -> tuple[str, Any]:
    """Return the name of a function that is given as MODULE:FUNCTION, and it, its module imported.

    Raises:
        InputError: there is no such module, or no such function in it.
    """
    module, _, function = given.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the folder that the command is given in, as of `python -m`
    try:
        there = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"{option} {given}: the module {module!r} cannot be imported ({type(error).__name__}: {error}). "
            f"Expected MODULE:FUNCTION, as in my_probes:{what} for my_probes.py in this folder"
        ) from error
    return function, getattr(there, function, None)


def listed(text: str) -> list[str]:
    """Return the parts of an argument that commas separate."""
    return [part.strip() for part in text.split(",") if part.strip()]


def seed(text: str) -> int:
    """Return an argument as the seed of random numbers, 0 to 2**32 - 1."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0 and below 2**32, found {text!r}")
    return int(text)


def folder(text: str) -> Path:
    """Return an argument as the path of a folder; refuse one that is empty or cannot be a path."""
    if not is_path(text) or is_url(text):
        raise argparse.ArgumentTypeError(f"expected the path of a folder, found {text!r}")
    return Path(text)


def address(text: str) -> Path | str:
    """Return an argument as the path of a folder, or the URL that it is."""
    try:
        return address_of(text, "--out") if is_url(text) else folder(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Let what asks a process to end, as torchrun and clusters do, interrupt it: it gives its lock back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _rank() -> int:
    """Which process this is of those that torchrun started."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _told(error: OSError) -> str:
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror}. {remedy(error)}; what was there before is as it was"


def _refused(message: str) -> int:
    who = f"rank {_rank()}: " if _rank() else ""
    print(f"{who}error: {printable(message)}", file=sys.stderr)
    return 2


def _say(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, LayerscopeWarning):
        print(f"warning: {printable(message)}", file=sys.stderr)
