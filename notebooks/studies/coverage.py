"""Study: how often do 95 % intervals hold what they are for, and how far are estimates from the truth?

    make study-coverage

Simulated on data sets whose truth is known, by the same code as the tests (`tests/simulated.py`). About four minutes
of one core. Writes the tables of the reference pages, between two comments on each; everything else there stays.
--quick simulates a twentieth and prints the tables.
"""

from __future__ import annotations

import probes.silence  # isort: skip
import argparse
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from common import ROOT, markdown
from tqdm.auto import tqdm

import probes
from probes.files import write_whole

sys.path.insert(0, str(ROOT / "tests"))
import simulated
from simulated import CASES, DIMENSIONS, ESTIMATED_FROM, ESTIMATED_SETS, Case

COVERAGE, ESTIMATES = "coverage", "estimates"
OF_ESTIMATES = "probes.measures.space.geometry"
COMMAND = "`make study-coverage` writes this table."
# What makes a row: these stand in the table of a page as soon as the designs here do.
KEY = ["probe", "design", "sentences", "data sets"]
ESTIMATED = ["design", "sentences", "data sets"]


def page_of(module: str) -> Path:
    """Give the file of what a reference page has beside its docstrings."""
    return ROOT / "notebooks" / "reference" / f"{module.replace('.', '/')}.md"


def expected(page: str, kind: str) -> pd.DataFrame:
    """Give the rows of a table without its results."""
    if kind == ESTIMATES:
        return pd.DataFrame(
            [(words, n, ESTIMATED_SETS) for words in DIMENSIONS for n in ESTIMATED_FROM], columns=ESTIMATED
        )
    cases = [case for case in CASES if case.page == page]
    return pd.DataFrame([(name, c.words, c.n, c.sets) for c in cases for name in c.names], columns=KEY)


def tables() -> list[tuple[str, str]]:
    """Give the page and the kind of every table."""
    return [(page, COVERAGE) for page in dict.fromkeys(case.page for case in CASES)] + [(OF_ESTIMATES, ESTIMATES)]


def coverage_rows(case: Case) -> pd.DataFrame:
    """Simulate a case: a row for each of its probes."""
    held = simulated.coverage(case)
    assert list(held.measure.values) == list(case.names)
    alone = held.drop_sel(language="pooled")
    return pd.DataFrame(
        {
            **dict(zip(KEY, ([*case.names], case.words, case.n, case.sets), strict=True)),
            "holds, pooled": held.sel(language="pooled").values,
            "least and most of a language": [_ends(alone.sel(measure=name)) for name in case.names],
        }
    )


def _ends(shares: xr.DataArray) -> str:
    return f"{float(shares.min()):.3f} to {float(shares.max()):.3f}"


def estimate_rows(words: str, ids: int, sets: int) -> pd.DataFrame:
    """Simulate estimates of dimensions from so many sentences: one row."""
    found = simulated.estimates(DIMENSIONS[words], ids, sets)
    # Of too few sentences there is none.
    cells = {name: "none" if np.isnan(ratio) else ratio for name, ratio in found.items()}
    return pd.DataFrame([{**dict(zip(ESTIMATED, (words, ids, sets), strict=True)), **cells}])


def markers(kind: str) -> tuple[str, str]:
    """Give the comments that a table stands between."""
    return f"<!-- {kind}: written by notebooks/studies/coverage.py -->", f"<!-- end of {kind} -->"


def written(text: str, kind: str, rows: pd.DataFrame) -> str:
    """Give a page with its table of a kind anew."""
    first, last = markers(kind)
    if text.count(first) != 1 or text.count(last) != 1:
        raise SystemExit(f"the page has to hold {first} and {last} once each")
    table = f"{first}\n\n{markdown(rows)}\n{COMMAND}\n\n{last}"
    return re.sub(f"{re.escape(first)}.*?{re.escape(last)}", lambda _: table, text, flags=re.DOTALL)


def table_of(text: str, kind: str) -> pd.DataFrame:
    """Read the table of a kind from a page, all cells as they stand there."""
    first, last = markers(kind)
    between = text.split(first)[1].split(last)[0]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in between.splitlines() if line.startswith("|")]
    return pd.DataFrame(cells[2:], columns=cells[0])


def main() -> None:
    """Simulate, and write the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="simulate a twentieth, and print the tables only")
    arguments.add_argument("pages", nargs="*", help="only these, by the last part of their name, as linear_probe")
    given = arguments.parse_args()
    quick, every = given.quick, dict(tables())
    known = {page.rpartition(".")[2]: page for page in every}
    if unknown := set(given.pages) - known.keys():
        arguments.error(f"no page is named {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    chosen = [known[name] for name in given.pages] or list(every)
    parts: dict[tuple[str, str], list[pd.DataFrame]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", probes.LayerscopeWarning)
        for case in tqdm([case for case in CASES if case.page in chosen], desc="coverage"):
            few = replace(case, sets=max(case.at_once, case.sets // 20)) if quick else case
            parts.setdefault((case.page, COVERAGE), []).append(coverage_rows(few))
        for words in tqdm(DIMENSIONS if OF_ESTIMATES in chosen else (), desc="estimates"):
            for ids in ESTIMATED_FROM:
                rows = estimate_rows(words, ids, 2 if quick else ESTIMATED_SETS)
                parts.setdefault((OF_ESTIMATES, ESTIMATES), []).append(rows)
    for (page, kind), rows in parts.items():
        table = pd.concat(rows, ignore_index=True)
        if quick:
            print(f"\n{page}: {kind}\n{table.to_string(index=False)}")
        else:
            place = page_of(page)
            write_whole(place, written(place.read_text(encoding="utf-8"), kind, table))


if __name__ == "__main__":
    main()
