"""What a checkpoint is and what can be done with it: `check`."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pandas as pd

from compress import verbs
from probes.command import add_command
from probes.models.checked import check
from probes.printing import printable


def add(commands: Any) -> None:
    """Give this command to a parser."""
    about = "say what a checkpoint is and what can be done with it"
    show = add_command(commands, "check", about, _check)
    show.add_argument("model", metavar="MODEL", help="a folder, a hub name, 'bundled' or 'bundled-decoder'")
    show.add_argument("--json", action="store_true", help="as JSON, for programs")
    show.add_argument("--allow-pickle", action="store_true", help="also open pickled weights, which can run any code")


def _check(options: argparse.Namespace) -> None:
    known = {"allow_pickle": options.allow_pickle}
    what, can = check(options.model, **known), verbs.check(options.model, **known)
    if options.json:
        found = {name: json.loads(table.to_json(orient="records")) for name, table in (("model", what), ("verbs", can))}
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for part, found, note in what.itertuples(index=False):
        print(f"{part:13} {printable(found)}" + (f"; {printable(note)}" if note else ""))
    print("\nwhat verbs reach of the weights of its blocks:")
    for verb, covers, possible, note in can.itertuples(index=False):
        share = "no" if not possible else "yes" if pd.isna(covers) else f"{covers:.0%}"
        print(f"{verb:21} {share:>5}" + (f"  {printable(note)}" if note else ""))
