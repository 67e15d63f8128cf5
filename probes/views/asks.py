"""What the front end asks for, how it is answered, and the line in which asks wait."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from probes.errors import InputError, check_choice
from probes.measures.fidelity.similarity import MEASURES
from probes.measures.languages.retrieval import RETRIEVAL
from probes.views.maps import to_uint16
from probes.views.numbers import Numbers, no_alignment
from probes.views.scene import NOT_THERE, Scene
from probes.views.speakers import explain

Ask = Mapping[str, Any]
Answer = tuple[dict[str, Any], list[bytes]]  # what is given, and its buffers
MOST_WAITING = 64  # asks


class Closed(Exception):
    """The explorer was closed while something was computed for it."""


@dataclass(frozen=True)
class Asked:
    """Who asks: what an answer needs beside the numbers.

    Attributes:
        about: what the front was told.
        explained: the place of the model whose predictions are explained.
        progress: called with model, layer, the epochs done and their number; raises `Closed` to
            stop.
        noted: called with what could not be drawn, in sentences.
    """

    about: Mapping[str, Any]
    explained: int
    progress: Callable[[int, int, int, int], None]
    noted: Callable[[list[str]], None]


def cheap(ask: Ask, scene: Scene) -> bool:
    """Whether an ask is answered at once, or by the thread for what takes long."""
    if ask.get("ask") == "map":
        return ask.get("kind") != "umap"
    if ask.get("ask") == "similarity" and ask.get("measure") in MEASURES and scene.table is not None:
        measured = ask["measure"] in scene.table.provenance["probes"]
        return measured and scene.baseline in (ask.get("one"), ask.get("other"))
    return ask.get("ask") != "similarity" and not ask.get("fit")


def answer(ask: Ask, numbers: Numbers, asked: Asked) -> Answer:
    """Return the answer to a message of the front end, and its buffers.

    `{"ask": "map", "model": 0, "kind": "pca"}`, with "layer" for one alone, kind "umap" always with
    "layer"; "drift" with "model"; "alignment" with "model" and "layer"; "similarity" with "one",
    "other" and "measure"; "sentence" with "row" and "layer", and "fit" where its representers are to
    be computed. Of "sentence" the answer says `more` where it is worth to ask so.

    Raises:
        InputError: it asks for what there is not.
    """
    if gone := _gone(numbers.scene):
        asked.noted(gone)
    what, scene = ask["ask"], numbers.scene
    number = {k: _number(ask, k, scene) for k in ("model", "one", "other", "layer", "row") if k in ask}
    if what == "similarity":
        return _similarity(ask, number, numbers, asked)
    if not scene.reps:
        return {"give": "missing", "ask": dict(ask), "why": NOT_THERE}, []
    if what == "map" and ask.get("kind") == "umap":
        return _umap(ask, number, numbers, asked)
    if what == "map" and "layer" in number:
        points = numbers.map_of(number["model"], scene.last(number["model"], number["layer"]))
        give = {"give": "map", "model": number["model"], "kind": "pca", "layer": number["layer"]}
        return give, [to_uint16(points, numbers.domain()).tobytes()]
    if what == "map":
        maps = numbers.maps(number["model"])
        asked.noted(maps.notes)
        give = {"give": "map", "model": number["model"], "kind": "pca", "explained": maps.explained.tolist()}
        return give, [to_uint16(maps.points, numbers.domain()).tobytes()]
    if what == "drift":
        high, most, codes = _drift_codes(numbers.drift(number["model"]))
        return {"give": "drift", "model": number["model"], "high": high, "most": most}, [codes.tobytes()]
    if what == "alignment":
        if reason := no_alignment(scene):
            return {"give": "missing", "ask": dict(ask), "why": reason}, []
        found = numbers.alignment(number["model"], scene.last(number["model"], number["layer"]))
        give = {"give": "alignment", "model": number["model"], "layer": number["layer"]}
        title = f"{RETRIEVAL.name}: {RETRIEVAL.estimator}"
        return give | {"languages": scene.languages, "title": title}, [found.tobytes()]
    if what == "sentence":
        if ask.get("fit"):
            numbers.speakers.fit(asked.explained)
        return _sentence(number["row"], number["layer"], numbers, asked)
    raise InputError(f"the explorer does not know what {what!r} is")


def _gone(scene: Scene) -> list[str]:
    """The stores of states that are not where they were opened, and what to do."""
    return [
        f"The states of model {name} are not at {source} any more: what was not read yet cannot be shown. Put them "
        f"back, or give them anew, comparison.representations[{name!r}] = probes.open_representations(path), and "
        "explore again."
        for name, reps in zip(scene.names, scene.reps, strict=False)
        if (source := reps.encoding.get("source")) and not Path(source).exists()
    ]


def _number(ask: Ask, key: str, scene: Scene) -> int:
    value = ask[key]
    limit = {"layer": scene.deepest, "row": scene.n}.get(key, len(scene.names))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise InputError(f"{key}={value!r}: expected a whole number from 0 to {limit - 1}")
    return value


def _similarity(ask: Ask, number: Mapping[str, int], numbers: Numbers, asked: Asked) -> Answer:
    measure, known = str(ask.get("measure")), asked.about["measures"]
    check_choice("measure", measure, known)
    values = np.ascontiguousarray(numbers.similarity(number["one"], number["other"], measure), "<f4")
    give = {"give": "similarity", "one": number["one"], "other": number["other"], "measure": measure}
    return give | {"title": f"{MEASURES[measure].estimator} ({MEASURES[measure].kind})"}, [values.tobytes()]


def _umap(ask: Ask, number: Mapping[str, int], numbers: Numbers, asked: Asked) -> Answer:
    model, layer = number["model"], number["layer"]
    if "umap" not in asked.about["kinds"]:
        return {"give": "missing", "ask": dict(ask), "why": asked.about["missing"]["umap"]}, []
    points = numbers.umap(
        model, numbers.scene.last(model, layer), lambda done, of: asked.progress(model, layer, done, of)
    )
    give = {"give": "map", "model": model, "kind": "umap", "layer": layer}
    return give, [to_uint16(points, numbers.domain()).tobytes()]


def _drift_codes(drift: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The drift at which colours end, beyond which is little; the most, which has code 65534; and
    the code of every sentence, 65535 where there is none.
    """
    there = drift[np.isfinite(drift)]
    high, most = (max(float(np.quantile(there, q)), 0.0) if there.size else 0.0 for q in (0.995, 1.0))
    share = np.nan_to_num(drift) / (most or 1.0)
    codes = np.where(np.isfinite(drift), np.rint(np.clip(share, 0, 1) * 65534), 65535)
    return high, most, codes.astype("<u2")


def _sentence(row: int, layer: int, numbers: Numbers, asked: Asked) -> Answer:
    speakers, model = numbers.speakers, asked.explained
    give: dict[str, Any] = {"give": "sentence", "row": row, "layer": layer}
    give |= {"neighbours": numbers.neighbours(row, layer), "representers": None, "why": ""}
    if reason := asked.about["missing"].get("representers"):
        return give | {"why": reason}, []
    if not numbers.scene.is_test(row):
        why = "Only sentences of the split 'test' are explained, by those of the split 'train'."
        return give | {"why": why}, []
    if model in speakers.unfit:
        return give | {"why": speakers.unfit[model]}, []
    if model not in speakers.fitted:
        return give | {"why": "The representer values are being computed.", "more": True}, []
    found, colours = explain(numbers.scene, model, row, speakers.fitted[model])
    return give | {"representers": found}, [colours.tobytes()]


@cache
def _pool(name: str) -> ThreadPoolExecutor:
    """One thread for all explorers, so that no two of them compute at a time; what takes long has
    its own.
    """
    return ThreadPoolExecutor(1, thread_name_prefix=f"layerscope-{name}")


class Line:
    """Asks that wait: the newest is answered first, in a thread of its own.

    The slider may have moved on from older asks; they come after, and the oldest of very many not
    at all.

    Args:
        answer: to an ask; an answer that says `more` is sent, and the ask put in line again with
            "fit".
        quick: whether an ask is answered by the thread for what is quick.
        send: takes what is given and its buffers.
        is_open: False once nobody waits for answers.

    Example:
        >>> given = []
        >>> line = Line(
        ...     answer=lambda ask: ({"give": ask["ask"]}, []),
        ...     quick=lambda ask: True,
        ...     send=lambda content, buffers: given.append(content),
        ...     is_open=lambda: True,
        ... )
        >>> line.put({"ask": "map"})
        >>> line.wait()
        >>> given, len(line)
        ([{'give': 'map'}], 0)
    """

    def __init__(
        self,
        *,
        answer: Callable[[Ask], Answer],
        quick: Callable[[Ask], bool],
        send: Callable[[dict[str, Any], list[bytes]], None],
        is_open: Callable[[], bool],
    ) -> None:
        """Nobody waits yet."""
        self._answer, self._quick, self._send, self._is_open = answer, quick, send, is_open
        self._waiting: dict[str, dict[str, dict[str, Any]]] = {"quick": {}, "slow": {}}
        self._running: dict[str, str] = {}
        self._pending: set[Future[None]] = set()
        self._guard = threading.Lock()

    def __len__(self) -> int:
        """How many asks wait or are being answered."""
        with self._guard:
            return sum(map(len, self._waiting.values())) + len(self._running)

    def put(self, ask: dict[str, Any]) -> None:
        """Put an ask in line, first; one that is being answered just now is not asked again."""
        speed = "quick" if self._quick(ask) else "slow"
        key = json.dumps(ask, sort_keys=True)
        with self._guard:
            if self._running.get(speed) == key:
                return
            line = self._waiting[speed]
            line.pop(key, None)
            line[key] = ask
            while len(line) > MOST_WAITING:
                del line[next(iter(line))]
        future = _pool(speed).submit(self._next, speed)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def wait(self) -> None:
        """Wait until everything that was asked for is answered."""
        while self._pending:
            futures_wait(list(self._pending))

    def _next(self, speed: str) -> None:
        """Answer the newest ask. What goes wrong is said where the answer would be, and logged."""
        with self._guard:
            if not self._waiting[speed] or not self._is_open():
                return
            key, ask = self._waiting[speed].popitem()
            self._running[speed] = key
        try:
            content, data = self._answer(ask)
            more = content.pop("more", False)
        except InputError as error:
            content, data, more = {"give": "missing", "ask": ask, "why": str(error)}, [], False
        except Closed:
            return
        except Exception as error:
            logging.getLogger("layerscope").exception("the explorer could not answer %s", ask)
            why = f"This could not be computed ({type(error).__name__}: {error})."
            content, data, more = {"give": "missing", "ask": ask, "why": why}, [], False
        finally:
            with self._guard:
                self._running.pop(speed, None)
        self._send(content, data)
        if more:
            self.put({**ask, "fit": True})
