"""What checkpoints cost, side by side: `footprint`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd

from probes.command import add_command, loading_arguments
from probes.costs import as_rows, as_table, counted, on_random_texts, operations_of, seconds_of
from probes.errors import InputError
from probes.models.checkpoint import load_checkpoint, loading_of
from probes.printing import printable


def add(commands: Any) -> None:
    """Give this command to a parser."""
    about = "count what checkpoints cost: bytes, operations, time"
    show = add_command(commands, "footprint", about, _footprint)
    show.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a folder, a hub name, 'bundled' or 'bundled-decoder', or NAME= and one of these; the others are held "
        "against the first",
    )
    show.add_argument("--json", action="store_true", help="as JSON, for programs")
    loading_arguments(show, ["float32", "auto"])
    show.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")


def _footprint(options: argparse.Namespace) -> None:
    sources: dict[str, str] = {}
    for given in options.models:
        name, separator, source = given.partition("=")
        name, source = (name, source) if separator else (given, given)
        if not name or not source or name in sources:
            raise InputError(f"{given!r}: expected each checkpoint once, as FOLDER or NAME=FOLDER")
        sources[name] = source
    rows, seconds, base = {}, {}, None
    loading, _ = loading_of(vars(options))
    for name, source in sources.items():  # of the models two at a time
        subject = on_random_texts(load_checkpoint(source, allow_pickle=options.allow_pickle, **loading)[0], name)
        base = base or subject
        rows[name] = counted(subject, source) | {"operations": operations_of(subject)}
        seconds[name] = seconds_of([subject] if subject is base else [base, subject])
    table = as_table(rows, seconds, next(iter(sources)), list(sources))
    if options.json:
        print(json.dumps(json.loads(table.to_json(orient="records")), indent=2, ensure_ascii=False))
        return
    cells = pd.DataFrame(as_rows(table)).set_index("model")
    cells.index = [printable(name) for name in cells.index]
    print(cells.T.to_string())
    print("\ntexts of 32 random tokens; times are medians of rounds in which the models take turns, and of how much")
    print("faster than the first the least and the most stand beside it")
