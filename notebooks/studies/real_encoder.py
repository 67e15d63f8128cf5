"""Study: what compression does to 24 languages of a real multilingual encoder, and which measure warns of it.

    make study-real MODEL=FOLDER DATA=FOLDER

MODEL is a checkpoint of multilingual-e5-small, DATA has SIB-200; real_encoder.md says where both are to be had. Two
hours of two cores for all that needs no training; with the fine-tuned models several evenings. Runs are kept in
runs/study-real/, a file each; a study that was interrupted, or killed, goes on from there. Writes beside this file
real_encoder.csv (a row a run and language), real_encoder_runs.csv (a row a run), real_encoder.md (what came out) and
figures; of the fine-tuned models real_encoder_trained.csv and real_encoder_trained_rows.csv, by which none is made
twice on whichever machine, and real_encoder_trained.md. Of the runs that are there so far, without making any:

    python notebooks/studies/real_encoder.py --so-far

One part alone: --only "training-free" or "fine-tuned"; one method of it: --only "Wanda".
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import common
import real_encoder_answers as answers
import real_encoder_kept as kept_of
import real_encoder_methods as methods
import real_encoder_page as page
import real_encoder_runs as of
import real_encoder_trained as trained
import real_encoder_trained_page as trained_page

PARTS = ("training-free", "fine-tuned")


def chosen(only: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of both parts that are asked for: all, those of a part, or those of a method."""
    free, tuned = methods.settings(), trained.settings()
    if only is None:
        return free, tuned
    if only in PARTS:
        return (free, []) if only == PARTS[0] else ([], tuned)
    found = [s for s in free if s["method"] == only], [s for s in tuned if s["trained"] == only]
    if not any(found):
        known = [*PARTS, *dict.fromkeys([*(s["method"] for s in free), *(s["trained"] for s in tuned)])]
        raise SystemExit(f"--only: no part or method is {only!r}; there are {', '.join(known)}")
    return found


def folders(given: list[str]) -> tuple[Path, Path]:
    """MODEL and DATA of the command line; a message where one is missing or is not there."""
    paths = []
    for name in ("--model", "--data"):
        value = given[given.index(name) + 1] if name in given[:-1] else ""
        if not value or not Path(value).is_dir():
            raise SystemExit(
                f"make study-real MODEL=FOLDER DATA=FOLDER: {name} is {value or 'not given'}, which is no folder. "
                "notebooks/studies/real_encoder.md says where the checkpoint and the corpus are to be had"
            )
        paths.append(Path(value).resolve())
    return paths[0], paths[1]


def make(given: list[str]) -> None:
    """Make the runs that are not there yet, what decides most first; the bar says how long is left."""
    model, data = folders(given)
    free, tuned = chosen(given[given.index("--only") + 1] if "--only" in given[:-1] else None)
    workers = int(given[given.index("--workers") + 1]) if "--workers" in given[:-1] else os.cpu_count() or 1
    failed = []
    if free:
        of.prepared(model, data)
        failed += of.made(of.making(model, data), free, of.FOLDER, PARTS[0], workers)
    if tuned:
        failed += kept_of.make(model, data, tuned, workers)
    for said in failed:
        print(said)


def main() -> int:
    """Make the runs, or take those that are there, and write what came out."""
    given = sys.argv[1:]
    if "--so-far" not in given:
        make(given)
    every, out = methods.settings(), 0
    tuned = kept_of.keep()
    if there := [s for s in every if common.file_of(of.FOLDER, s).exists()]:
        out = common.written("real_encoder", *page.write(answers.Kept.read(of.FOLDER, there), len(every)))
    elif not len(tuned.rows):
        raise SystemExit(f"{of.FOLDER} holds no run yet, so that there is nothing to write")
    return out + common.written(trained_page.NAME, *trained_page.write(tuned))


if __name__ == "__main__":
    import real_encoder  # under its own name, by which other processes find what is here

    sys.exit(real_encoder.main())
