"""The tables of the reference pages: written between two comments on each; everything else there stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from probes.files import write_whole
from probes.measures import catalogue

TOP = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
INTERVALS, ESTIMATES, SEEDS = "intervals", "estimates", "seeds"
OF_SEEDS = TOP / "notebooks" / "reference" / "probes" / "comparison.md"
COMMAND = "`make calibration` writes this table."
# What makes a row.
KEY = ["probe", "states", "sentences", "of one group", "samples"]
# What stands in its cells, and which of the figures each is made of.
COUNTED = {"holds": "holds", "width": "width", "difference holds": "difference_holds", "its width": "difference_width"}
COUNTED |= {"rejects": "rejects"}


def page_of(probe: str) -> Path:
    """Give the file of what a reference page has beside its docstrings: named as the function that measures."""
    about = catalogue.by_name()[probe]
    places = (TOP / "notebooks" / "reference" / "probes" / "measures").rglob("*.md")
    by_name = {place.stem: place for place in places}
    for name in (about.family, about.family.removesuffix("s")):
        if name in by_name:
            return by_name[name]
    # What differs by a setting stands on the page of what it begins like.
    return by_name[max((name for name in by_name if probe.startswith(name)), key=len)]


def pages() -> dict[Path, list[str]]:
    """Give the pages that have tables, and the probes whose rows stand in each."""
    found: dict[Path, list[str]] = {}
    for name in dict.fromkeys(row["probe"] for row in read()):
        found.setdefault(page_of(name), []).append(name)
    return found


def read() -> list[dict[str, Any]]:
    """Read what was counted, a row a probe and kind of samples."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["intervals"] if RESULTS.exists() else []


def kept(rows: Iterable[Mapping[str, Any]], order: Iterable[tuple[Any, ...]] = ()) -> list[dict[str, Any]]:
    """Take rows in place of those of the same key, in the order of the keys that are given, then as they were."""
    of = lambda row: tuple(row[k] for k in KEY[:4])  # noqa: E731
    merged = {of(row): dict(row) for row in [*read(), *rows]}
    first = [key for key in order if key in merged]
    return [merged[key] for key in dict.fromkeys([*first, *merged])]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Give rows as they stand on a page: of layers and languages the mean and, in brackets, the ends."""
    cells = []
    for row in rows:
        cells.append({k: row[k] for k in KEY} | {k: _cell(row, name) for k, name in COUNTED.items()})
        cells[-1]["rejects at any layer"] = f"{row['rejects_any']:.2f}"
    return pd.DataFrame(cells)


def _cell(row: Mapping[str, Any], name: str) -> str:
    middle, least, most = (row[k] for k in (name, f"{name}_least", f"{name}_most"))
    if middle is None:
        return "none"
    return f"{middle:.2f}" if least == most else f"{middle:.2f} ({least:.2f} to {most:.2f})"


def markers(kind: str) -> tuple[str, str]:
    """Give the comments that a table stands between."""
    return f"<!-- {kind}: written by tests/calibration -->", f"<!-- end of {kind} -->"


def written(text: str, kind: str, rows: pd.DataFrame) -> str:
    """Give a page with its table of a kind anew."""
    first, last = markers(kind)
    if text.count(first) != 1 or text.count(last) != 1:
        raise SystemExit(f"the page has to hold {first} and {last} once each")
    lines = [list(rows.columns), ["---"] * rows.shape[1], *rows.astype(str).to_numpy().tolist()]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    whole = f"{first}\n\n{table}\n\n{COMMAND}\n\n{last}"
    return re.sub(f"{re.escape(first)}.*?{re.escape(last)}", lambda _: whole, text, flags=re.DOTALL)


def table_of(text: str, kind: str) -> pd.DataFrame:
    """Read the table of a kind from a page, all cells as they stand there."""
    first, last = markers(kind)
    between = text.split(first)[1].split(last)[0]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in between.splitlines() if line.startswith("|")]
    return pd.DataFrame(cells[2:], columns=cells[0])


def write_intervals(rows: list[dict[str, Any]]) -> None:
    """Keep rows, and write the tables of all pages from what is kept."""
    write_whole(RESULTS, json.dumps({"intervals": rows}, indent=1) + "\n")
    for place, names in pages().items():
        text = place.read_text(encoding="utf-8")
        write_whole(place, written(text, INTERVALS, table([row for row in rows if row["probe"] in names])))


def write_estimates(rows: list[dict[str, Any]]) -> None:
    """Write the table of estimates."""
    place = page_of("effective_rank")
    write_whole(place, written(place.read_text(encoding="utf-8"), ESTIMATES, pd.DataFrame(rows)))


def write_seeds(rows: list[dict[str, Any]]) -> None:
    """Write the table of replicates."""
    write_whole(OF_SEEDS, written(OF_SEEDS.read_text(encoding="utf-8"), SEEDS, pd.DataFrame(rows)))
