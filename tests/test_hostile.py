"""Files of strangers: refused in one sentence, soon and in little memory, or read as what they were; no code is run."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import faults
import hostile
import pytest
from trained import QUIET, make_corpus

import compress
import probes
from probes.errors import InputError
from probes.models.fingerprint import weights_fingerprint

SECONDS, BYTES = 2.0, 500 * 10**6
SETTINGS = {**QUIET, "steps": 6, "save_every": 2}
KINDS = sorted({kind for kind, *_ in hostile.cases()})


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_models, make_tokenizer):
    """What is spoiled: a folder of each kind, and how each is opened to the end."""
    place = tmp_path_factory.mktemp("whole")
    model, tokenizer, corpus = tiny_models("BertForSequenceClassification"), make_tokenizer(), make_corpus()
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    training = {**SETTINGS, "train": corpus, "tokenizer": tokenizer}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hostile.folders(place, model, tokenizer, corpus.select(range(12)), training)

    def states(folder: Path) -> Any:
        return probes.open_representations(folder).load().hidden.values.tobytes().hex()

    def comparison(folder: Path) -> Any:
        opened = probes.Comparison.open(folder)
        return [opened.summary().to_json(), opened.adjusted(["layer", "probe"]).to_json()]

    def trained(folder: Path) -> Any:
        settings: dict[str, Any] = {"sparsity": 0.5, "schedule": "cubic", "prunings": 2, "folder": folder}
        return weights_fingerprint(compress.prune(model, **settings, **training))

    special = {"store": states, "comparison": comparison, "training": trained}

    def opens(kind: str, folder: Path) -> Any:
        return special.get(kind, lambda f: weights_fingerprint(probes.load_checkpoint(f)[0]))(folder)

    return place, opens


def opened(opens: Any, kind: str, folder: Path) -> tuple[str, Any, float, int]:
    """Open what is spoiled in a child of little memory: how it ends, what is said, seconds, bytes."""

    def work() -> Any:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        signal.alarm(60)
        before, began = _memory("VmRSS"), time.process_time()
        try:
            ends = ["read", hashlib.sha256(repr(opens(kind, folder)).encode("utf-8", "surrogatepass")).hexdigest()]
        except InputError as error:
            ends = ["refused", str(error)]
        except BaseException as error:
            ends = ["failed", f"{error!r:.300} {traceback.format_exc()[-700:]}"]
        return [*ends, time.process_time() - began, _memory("VmHWM") - before]

    status, what = faults.Child(work).result()
    return tuple(what["result"]) if status == "done" else (status, what, 0.0, 0)


def _memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def check(whole: Any, place: Path, cases: list[Any]) -> Counter[str]:
    folders, opens = whole
    right: dict[str, Any] = {}
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    os.chdir(place)
    for kind, name, said, spoil in cases:
        if kind not in right:
            faults.warm(lambda kind=kind: opens(kind, shutil.copytree(folders / kind, place / "w")))
            shutil.rmtree(place / "w")
            right[kind] = opened(opens, kind, shutil.copytree(folders / kind, place / "w"))[1]
            shutil.rmtree(place / "w")
        folder = shutil.copytree(folders / kind, place / "w")
        spoil(folder / name)
        end, found, seconds, size = opened(opens, kind, folder)
        # A configuration can mean another model: what has one of its own is that, if it is read.
        another = end == "read" and found != right[kind] and "config.json" not in name
        bad = [
            *(["code was run"] if list(place.rglob(hostile.RAN)) else []),
            *([f"{end}: {found}"] if end not in ("read", "refused") else []),
            *([f"{found!r} in several lines"] if end == "refused" and "\n" in found else []),
            *(["read as something else"] if another else []),
            *([f"{seconds:.1f} s"] if seconds > SECONDS and end == "refused" else []),
            *([f"{size / 1e6:.0f} MB"] if size > BYTES else []),
        ]
        ends[end] += 1
        if bad:
            wrong.append(f"{kind}/{name}, {said}: {'; '.join(bad)}")
            print("WRONG", wrong[-1], flush=True)
        elif os.environ.get("VERBOSE"):
            print(end, f"{kind}/{name}, {said}:", f"{found:.200}" if end == "refused" else "", flush=True)
        shutil.rmtree(folder)
        shutil.rmtree(place / "elsewhere", ignore_errors=True)
    assert wrong == []
    return ends


@pytest.mark.faults
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_strangers_are_refused_in_one_sentence_or_read_as_what_they_were(whole, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    print(kind, dict(check(whole, tmp_path, [case for case in hostile.cases() if case[0] == kind])))
