"""The files of a comparison: written whole or not at all, and read as they belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from probes.errors import InputError
from probes.remote import (
    Address,
    beside_at,
    check_writable_at,
    exists,
    gone_on_failure_at,
    locked_at,
    move_at,
    read_at,
    read_json_at,
    within,
    write_at,
    write_whole_at,
)
from probes.results.blame import CAUSE

INDEX = "corpora.json"  # of comparisons on several corpora, which lie beside it in folders
FILES = {"table": "comparison.csv", "draws": "draws.npy", "models": "models.csv"}
# What a reader of the table asks for.
_PROBE = {
    **dict.fromkeys(("title", "estimator", "range", "higher_is", "unchanged_by", "paper"), str),
    "better": str,
    "compares": bool,
    "unchanged?": (float, str, None),
    "interval?": str,
    "tolerance?": (float, None),
    "share?": bool,
}
_PROVENANCE = {
    "baseline": str,
    "draws": int,
    "drawn": str,
    "seed": int,
    "models": {str: dict},
    "probes": {str: _PROBE},
    "corpus": {"languages": {str: dict}, "cautions": [str]},
    "versions": {str: str},
    "causes?": {str: [CAUSE]},
    "series?": {str: {str: int}},
    "asked?": {"probes": ([str], None), "without_outliers": int, "settings": dict},
}


def write_files(
    folder: Address, files: Mapping[str, bytes], provenance: Mapping[str, Any], *, overwrite: bool, wait: bool
) -> None:
    """Write the files of a comparison and its provenance, which holds a hash of each.

    A kill leaves the old comparison or the new one, never a file of one beside those of the other.

    Args:
        folder: where to; it is made where it is missing.
        files: what is in each of `FILES`, in the order in which they are moved into place.
        provenance: where the numbers come from.
        overwrite, wait: as in `Table.save`.

    Raises:
        InputError: as `Table.save`.
    """
    hashes = {f"{name}_sha256": hashlib.sha256(content).hexdigest() for name, content in files.items()}
    # A pooling that is made of tokens is an object that has a name.
    about = json.dumps({**provenance, **hashes}, indent=2, ensure_ascii=False, default=lambda made: made.name)
    with locked_at(within(folder, "comparison"), wait=wait):
        check_folder(folder, overwrite=overwrite)
        # The new ones are whole beside the old ones until the provenance says which of them count.
        new = {name: beside_at(within(folder, FILES[name]), "new") for name in files}
        with ExitStack() as until_said:
            for name, path in new.items():
                until_said.enter_context(gone_on_failure_at(path))
                write_at(path, files[name])
            write_whole_at(within(folder, "provenance.json"), about + "\n")
        for name, path in new.items():
            move_at(path, within(folder, FILES[name]))


def read_files(folder: Address) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the provenance of a comparison, and what is in those of its files that it names.

    Raises:
        InputError: as `Table.open`.
    """
    about = within(folder, "provenance.json")
    # The second one where a saving was killed before it moved them.
    places = {name: [place := within(folder, n), beside_at(place, "new")] for name, n in FILES.items()}
    there = {name: [c for place in both if (c := read_at(place)) is not None] for name, both in places.items()}
    if not there["table"] and exists(within(folder, INDEX)):
        raise InputError(
            f"{folder}: it holds comparisons on several corpora. Open them with probes.Comparisons.open, or the folder "
            "of one in it"
        )
    if not there["table"] or not exists(about):
        raise InputError(f"{folder}: expected comparison.csv and provenance.json in it, as Comparison.save writes them")
    provenance = read_json_at(about, _PROVENANCE)
    wanted = {name: provenance.pop(f"{name}_sha256", None) for name in FILES}
    if wanted["models"] is None:  # of an earlier version, which did not measure it
        del wanted["models"]
    if wanted["draws"] is None or not there["draws"]:
        raise InputError(
            f"{folder}: expected draws.npy beside comparison.csv, and there is none, as in what an earlier version "
            "saved. Make the comparison again"
        )
    read = {}
    for name, expected in wanted.items():
        found = next((c for c in there[name] if hashlib.sha256(c).hexdigest() == expected), None)
        if found is None:
            raise InputError(
                f"{folder}: {FILES[name]} is not the one that provenance.json belongs to: one of them was changed "
                "after it was written. Make the comparison again"
            )
        read[name] = found
    return provenance, read


def check_folder(folder: Address, *, overwrite: bool) -> None:
    """Raise `InputError` where a folder cannot be written to, or holds a comparison to be kept."""
    if not overwrite and exists(within(folder, "comparison.csv")):
        raise InputError(
            f"{folder} already holds a run. Choose another folder, or replace it with overwrite=True (--overwrite)"
        )
    check_writable_at(folder)
