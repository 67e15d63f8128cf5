"""How often do 95 % intervals hold what they are for, how wide are they, how often is a difference seen that is none?

    make calibration                          # an hour or two of two cores
    make calibration ONLY="snr retrieval"     # these probes, or families, alone
    make calibration ENCODER=folder           # also on the states of this encoder, where ../shared/data is
    make calibration RESUME=1                 # what an interrupted count has not counted yet

On planted designs, on sentences of the bundled corpus and, where they are there, of real encoders and text. What is
counted is kept in results.json beside this, from which the tables of the reference pages are written.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import joblib
import xarray as xr
from calibration import designs, estimates, pages, real, seeds
from calibration.sampled import Population, counted, large_values, outcomes
from tqdm.auto import tqdm

from probes.measures import catalogue

SENTENCES = (60, 150, 500)
OF_ONE = 4  # sentences of a group, where there are groups
AT_ONCE = 5  # data sets that a process makes before it says so


@dataclass(frozen=True)
class Case:
    """Samples of one kind."""

    population: Population
    ids: int
    alike: int

    def key(self, probe: str) -> tuple[str, str, int, int]:
        """What makes a row."""
        return probe, self.population.words, self.ids, self.alike


def cases(populations: list[Population]) -> Iterator[Case]:
    """Give what is counted: of the first design of a probe and of real states all sizes, with groups and without."""
    seen: set[str] = set()
    for population in populations:
        further = isinstance(population, designs.Design) and seen.issuperset(population.names)
        seen.update(population.names)
        for ids in SENTENCES[1:2] if further else SENTENCES:
            if ids <= population.ids / 2:
                yield from (Case(population, ids, alike) for alike in ((1,) if further else (1, OF_ONE)))


def samples(case: Case, names: list[str], seeds: list[int]) -> list[dict[str, xr.Dataset]]:
    """Measure samples, in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [outcomes(case.population, names, case.ids, case.alike, seed) for seed in seeds]


def truths(population: Population, names: list[str]) -> dict[str, xr.Dataset]:
    """Measure all that there is, in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return large_values(population, names)


def rows_of(chosen: list[tuple[Case, list[str]]], most: int, processes: int) -> Iterator[dict[str, dict[str, Any]]]:
    """Count cases, one after the other as they are done: a row a probe."""
    run = joblib.Parallel(n_jobs=processes, return_as="generator")
    large: dict[str, dict[str, xr.Dataset]] = {}
    bar = tqdm(chosen, desc="calibration")
    for case, names in bar:
        bar.set_postfix_str(f"{case.population.words}, {case.ids}, {case.alike}")
        people = case.population
        if people.words not in large:
            large[people.words] = {}
        if lacking := [name for name in names if name not in large[people.words]]:
            large[people.words] |= truths(people, lacking)
        rounds = -(-min(people.sets, most or people.sets) // max(1, people.at_once))
        parts = [list(range(start, min(start + AT_ONCE, rounds))) for start in range(0, rounds, AT_ONCE)]
        found = [one for part in run(joblib.delayed(samples)(case, names, seeds) for seeds in parts) for one in part]
        rows = {}
        for name in names:
            whole = xr.concat([one[name] for one in found], "set")
            figures = counted(people, case.ids, whole, large[people.words].get(name))
            if math.isfinite(figures["holds"]) and not math.isfinite(figures["width"]):  # values without intervals
                continue
            row = dict(zip(pages.KEY, (*case.key(name), whole.sizes["set"]), strict=True))
            rows[name] = row | {k: round(v, 4) if math.isfinite(v) else None for k, v in figures.items()}
        yield rows


def lacking(chosen: list[tuple[Case, list[str]]], most: int) -> list[tuple[Case, list[str]]]:
    """Leave out what is counted with as many samples already."""
    counted_of = {tuple(row[k] for k in pages.KEY[:4]): row["samples"] for row in pages.read()}
    kept = []
    for case, names in chosen:
        wanted = min(case.population.sets, most or case.population.sets)
        kept.append((case, [name for name in names if counted_of.get(case.key(name), 0) < wanted]))
    return [(case, names) for case, names in kept if names]


def main() -> None:
    """Count, and write the tables."""
    known = list(catalogue.by_name())
    arguments = argparse.ArgumentParser(
        prog="make calibration", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    arguments.add_argument("--only", nargs="+", metavar="PROBE", default=[], help="these probes, or families, alone")
    arguments.add_argument("--states", metavar="WORDS", default="", help="populations alone whose name has these words")
    arguments.add_argument("--encoder", nargs="+", metavar="FOLDER", default=[], help="also these encoders")
    arguments.add_argument("--samples", type=int, default=0, metavar="N", help="so many of each kind at most; rough")
    arguments.add_argument("--resume", action="store_true", help="leave out what is counted with as many samples")
    arguments.add_argument("--print", action="store_true", help="print, and write nothing")
    arguments.add_argument("--processes", type=int, default=2, metavar="N", help="at once; 2 by default")
    given = arguments.parse_args()
    families = catalogue.families()
    if unknown := set(given.only) - {*known, *families, "estimates", "seeds"}:
        arguments.error(f"no probe is named {', '.join(sorted(unknown))}; choose from {', '.join([*known, *families])}")
    only = {name for asked in given.only for name in families.get(asked, (asked,))}
    os.nice(10)
    populations: list[Population] = [*designs.designs(), *real.populations(given.encoder)]
    every = list(cases(populations))
    chosen = [
        (case, names)
        for case in every
        if given.states in case.population.words
        and (names := [name for name in case.population.names if not only or name in only])
    ]
    if given.resume:
        chosen = lacking(chosen, given.samples)
    for model in dict.fromkeys(case.population.model for case, _ in chosen if isinstance(case.population, real.Real)):
        real.prepare(model)
    order = [case.key(name) for name in known for case in every if name in case.population.names]
    for rows in rows_of(chosen, given.samples, given.processes):
        if given.print:
            tqdm.write(pages.table(list(rows.values())).to_string(index=False, header=False))
        else:  # what was counted stays where the rest is interrupted
            pages.write_intervals(pages.kept(rows.values(), order))
    if not given.print and (not only or "estimates" in only):
        found = tqdm(list(estimates.expected().itertuples(index=False)), desc="estimates")
        pages.write_estimates([estimates.row(words, ids) for words, ids, _ in found])
    if not given.print and (not only or "seeds" in only):
        pages.write_seeds([seeds.row(k, words) for k, words, _ in seeds.expected().itertuples(index=False)])


if __name__ == "__main__":
    main()
