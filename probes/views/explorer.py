"""The explorer: layer curves, maps and sentences of a comparison in a notebook, linked by one layer slider."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import pandas as pd
import traitlets
import xarray as xr

from probes.errors import InputError
from probes.measures.attribution.representers import RepresenterValues
from probes.measures.fidelity.similarity import MEASURES
from probes.measures.languages.retrieval import RETRIEVAL
from probes.results.table import Table
from probes.states.representations import as_strings, from_arrays
from probes.views.answers import NOT_THERE, Answers, Source, plain
from probes.views.assets import script, style
from probes.views.maps import FEWEST_FOR_UMAP, to_uint16

_MOST_MAPS = 4
_MOST_WAITING = 64  # asks
_AT_ONCE = 2**28  # bytes of states up to which the picture waits for the maps
PARTS = ("controls", "curves", "maps", "sentences", "alignment", "similarity")
Answer = tuple[dict[str, Any], list[bytes]]


@cache
def _pool(name: str) -> ThreadPoolExecutor:
    """One thread for all explorers, so that no two of them compute at a time; what takes long has its own."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"layerscope-{name}")


class _Choice(traitlets.Any):
    """Anything, and None is looked at too."""

    allow_none = False


class Explorer(anywidget.AnyWidget):
    """Curves, maps and sentences of some models, linked: `comparison.explore()` makes one.

    Args:
        source: a Comparison, Representations, or a dict name -> Representations of the same sentences (the first is the
            baseline).
        most: how many sentences are shown at most; of more a sample is drawn by id, so that translations stay together.
        seed: of that sample, and of the maps.
        parts: what to show, of "controls", "curves", "maps", "sentences", "alignment" and "similarity".
        state: what to begin with: layer, models, probe, language, colour, kind, compared, focus, measure, selection.

    Attributes:
        layer: the layer that everything shows, 0 for the embeddings.
        models: names of the models whose maps are shown, 1 to 4.
        probe, language: of the curves.
        colour: of the maps, "label", "language", "prediction", "drift" or "representer".
        kind: of the maps, "pca" or "umap".
        selection: a table of the selected sentences. Set it to a table with a column `id` (and `language`), to a list
            of ids, or to None; a table without `id` selects by its index, the numbers that a selection has.

    Raises:
        InputError: the models do not hold the same sentences, or a setting is unknown.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 8)), label=np.arange(40) % 2)
        >>> explorer = Explorer({"far": reps, "near": reps}, layer=1)
        >>> explorer.selection = ["7", "9"]
        >>> explorer.selection[["id", "label"]]
          id label
        7  7     1
        9  9     1
    """

    _esm = script()
    _css = style()

    about = traitlets.Dict().tag(sync=True)
    texts = traitlets.Dict().tag(sync=True)
    codes = traitlets.Bytes().tag(sync=True)
    curves = traitlets.Bytes().tag(sync=True)
    parts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    models = traitlets.List(traitlets.Unicode()).tag(sync=True)
    probe = traitlets.Unicode("").tag(sync=True)
    language = traitlets.Unicode("").tag(sync=True)
    colour = traitlets.Unicode("").tag(sync=True)
    kind = traitlets.Unicode("pca").tag(sync=True)
    selected = traitlets.Bytes(b"").tag(sync=True, from_json=lambda value, _: bytes(value))  # comes as a memoryview
    compared = traitlets.List(traitlets.Unicode()).tag(sync=True)
    focus = traitlets.Unicode("").tag(sync=True)
    measure = traitlets.Unicode("").tag(sync=True)
    selection = _Choice()

    own_parts: ClassVar[tuple[str, ...]] = PARTS
    DATA: ClassVar = ("about", "texts", "codes", "curves", "parts")
    STATE: ClassVar = (
        "layer",
        "models",
        "probe",
        "language",
        "colour",
        "kind",
        "selected",
        "compared",
        "focus",
        "measure",
    )

    def __init__(
        self,
        source: Source,
        *,
        most: int = 5000,
        seed: int = 0,
        parts: Sequence[str] | None = None,
        _answers: Answers | None = None,
        **state: Any,
    ) -> None:
        """See the class."""
        parts = self.own_parts if parts is None else parts
        known = (*(s for s in self.STATE if s != "selected"), "selection")
        unknown = [s for s in state if s not in known]
        if unknown:
            raise InputError(f"unknown setting {plain(unknown)}; there are most, seed, parts, {', '.join(known)}")
        strange = [p for p in parts if p not in PARTS]
        if strange or isinstance(parts, str) or not parts:
            raise InputError(f"parts={parts!r}: expected some of {plain(PARTS)}")
        self._ready = False
        self._waiting: dict[str, dict[str, dict[str, Any]]] = {"quick": {}, "slow": {}}
        self._running: dict[str, str] = {}
        self._pending: set[Future[None]] = set()
        self._guard = threading.Lock()
        self.answers = _answers or Answers(source, most=most, seed=seed)
        answers = self.answers
        described, languages, self.curve_values = answers.curves()
        about = self._describe(described, languages, list(parts))
        base = answers.names[answers.baseline]
        others = [m for m in answers.names if m != base]
        by_layer = [p["name"] for p in described if p["by"] == "layer"]
        super().__init__(
            about=about,
            texts=self._texts(),
            codes=answers.codes().tobytes(),
            curves=self.curve_values.tobytes(),
            parts=list(parts),
            layer=len(answers.layers[answers.baseline]) - 1,
            models=[base, *others][:_MOST_MAPS],
            probe=(by_layer or [p["name"] for p in described] or [""])[0],
            language=(languages or [""])[0],
            colour=(about["colours"] or [""])[0],
            kind="pca",
            compared=[base, (others or [base])[0]],
            focus=(others or [base])[0],
            measure=(about["measures"] or [""])[0],
            selection=self._rows_table(np.array([], int)),
        )
        self._ready = True
        for name, value in state.items():
            setattr(self, name, value)
        self.on_msg(self._asked)

    # --- what is shown ---

    def _describe(self, probes: list[dict[str, str]], languages: list[str], parts: list[str]) -> dict[str, Any]:
        answers = self.answers
        frame = answers.frame
        missing: dict[str, str] = {}
        notes: list[str] = []
        if not probes:
            missing["curves"] = (
                "No probes were measured. Measure some: probes.compare({name: reps, ...}, pivot=...).explore()."
                if answers.table is None
                else "No probe that was measured has a curve: all are maps of more than layers."
            )
        if not answers.reps:
            missing |= dict.fromkeys(("maps", "sentences", "drift", "umap"), NOT_THERE)
        if reason := answers.no_alignment():
            missing["alignment"] = reason
        measures = answers.measures()
        if not measures:
            missing["similarity"] = (
                NOT_THERE if not answers.reps else "There are too few sentences to compare layers by."
            )
        if reason := answers.split():
            missing["representers"] = reason
        colours = []
        if answers.reps:
            if answers.labels:
                colours.append("label")
            elif "label" in frame:
                missing["label"] = "There are more labels than can be told apart."
            else:
                missing["label"] = "There are no labels. Capture a corpus with a column 'label'."
            colours.append("language")
            if (answers.predicted >= 0).any():
                colours.append("prediction")
            else:
                missing["predictions"] = "There are no predictions. Capture models with a head for classification."
            same = [i for i in range(len(answers.names)) if i != answers.baseline and answers.widths(i)]
            if same:
                colours.append("drift")
            elif len(answers.names) < 2:
                missing["drift"] = "There is one model only; drift is seen beside another."
            else:
                missing["drift"] = "No other model is as wide as the baseline; look at the similarity of their layers."
            if "representers" not in missing:
                colours.append("representer")
            if not frame["id"].duplicated().any():
                missing["translations"] = "No sentence is there in two languages."
            if not answers.can_umap():
                missing["umap"] = f"UMAP needs at least {FEWEST_FOR_UMAP} sentences; {answers.n} are shown."
        if answers.n < answers.total:
            notes.append(
                f"{answers.n:,} of {answers.total:,} sentences are shown: a sample by sentence id, translations "
                f"together (seed {answers.seed}). Curves are of all. For more: most={min(answers.total, 20_000)}."
            )
        if answers.reps and answers.n and not frame["text"].str.strip().any():
            notes.append("The Representations hold no texts; sentences are named by their ids.")
        models = []
        for name, layers in zip(answers.names, answers.layers, strict=True):
            note = "" if layers == list(range(len(layers))) else "layers " + ", ".join(map(str, layers))
            reps = answers.reps[answers.names.index(name)] if answers.reps else None
            if reps is not None and "module" in reps.coords:
                note = "layers " + ", ".join(f"{i}: {m}" for i, m in enumerate(reps["module"].values.tolist()))
            models.append({"name": name, "layers": len(layers), "note": note})
            if note:
                notes.append(f"Model {name} counts from 0 what are its {note}.")
        return {
            "n": answers.n,
            "total": answers.total,
            "models": models,
            "baseline": answers.baseline,
            "languages": answers.languages,
            "labels": answers.labels,
            "classes": answers.classes,
            "probes": probes,
            "curve_languages": languages,
            "colours": colours,
            "kinds": ["pca", "umap"] if answers.reps and "umap" not in missing else ["pca"],
            "missing": missing,
            "notes": notes,
            "measures": measures,
            "pivot": answers.provenance.get("pivot"),
            "static": False,
            "title": " | ".join(answers.names),
            "token": uuid.uuid4().hex,
        }

    def _texts(self) -> dict[str, Any]:
        frame = self.answers.frame
        pair = frame["text_pair"].tolist() if "text_pair" in frame else None
        text = frame["text"].tolist() if "text" in frame else [""] * len(frame)
        return {"id": frame["id"].tolist(), "text": text, "pair": pair}

    def __repr__(self) -> str:
        answers = self.answers
        return (
            f"<{type(self).__name__} of {', '.join(answers.names)}: {answers.n:,} sentences, layer {self.layer}, "
            f"{len(self.selected) // 4} selected>"
        )

    def _ipython_display_(self) -> None:
        """Show the widget and, after it, a picture that stays where no kernel runs; the live widget hides it."""
        from IPython.display import HTML, display

        from probes.views.picture import picture

        states = sum(r["hidden"].nbytes * self.answers.n / max(self.answers.total, 1) for r in self._shown())
        png = base64.b64encode(picture(self, maps=states <= _AT_ONCE)).decode()
        token = self.about["token"]
        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)
        source = f'src="data:image/png;base64,{png}" alt="picture of the explorer"'
        display(HTML(f'<img class="lsc-picture" data-of="{token}" {source}>'))

    def _shown(self) -> list[xr.Dataset]:
        names = {self.answers.names[self.answers.baseline], *self.models}
        return [r for r, name in zip(self.answers.reps, self.answers.names, strict=False) if name in names]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one HTML page that works without a kernel and loads nothing: curves, maps, slider, selection, hover.

        Args:
            path: of the page, such as "view.html".
            overwrite: replace an earlier page; any other file is left alone.

        Raises:
            InputError: there is something at the path that is not to be replaced.
        """
        from probes.views.page import write

        return write(self, Path(path), overwrite=overwrite)

    # --- what is chosen ---

    @traitlets.validate("layer")
    def _layer(self, proposal: Mapping[str, Any]) -> int:
        layer, deepest = proposal["value"], self.answers.deepest
        if not 0 <= layer < deepest:
            raise InputError(f"layer={layer}: expected 0 to {deepest - 1}, the layers of the deepest model")
        return layer

    @traitlets.validate("models")
    def _models(self, proposal: Mapping[str, Any]) -> list[str]:
        names = list(proposal["value"])
        self._known("models", names, self.answers.names)
        if not 1 <= len(names) <= _MOST_MAPS or len(set(names)) < len(names):
            raise InputError(f"models={names!r}: expected 1 to {_MOST_MAPS} different models, whose maps are shown")
        return names

    @traitlets.validate("compared")
    def _compared(self, proposal: Mapping[str, Any]) -> list[str]:
        names = list(proposal["value"])
        self._known("compared", names, self.answers.names)
        if len(names) != 2:
            raise InputError(f"compared={names!r}: expected the names of two models")
        return names

    @traitlets.validate("focus", "probe", "language", "colour", "kind", "measure")
    def _choice(self, proposal: Mapping[str, Any]) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        about = self.about
        known = {
            "focus": self.answers.names,
            "probe": [p["name"] for p in about.get("probes", [])],
            "language": about.get("curve_languages", []),
            "colour": about.get("colours", []),
            "kind": about.get("kinds", []),
            "measure": about.get("measures", []),
        }[name]
        if self._ready:
            self._known(name, [value], known)
        return value

    @staticmethod
    def _known(what: str, values: Sequence[str], known: Sequence[str]) -> None:
        unknown = [v for v in values if v not in known]
        if unknown:
            there = f"there are {plain(known)}" if known else "there is none"
            raise InputError(f"{what}: {plain(unknown)} is not known; {there}")

    @traitlets.validate("selected")
    def _selected(self, proposal: Mapping[str, Any]) -> bytes:
        value = bytes(proposal["value"])
        rows = np.frombuffer(value, "<i4") if len(value) % 4 == 0 else np.array([-1])
        if rows.size and (rows.min() < 0 or rows.max() >= self.answers.n):
            raise InputError(f"selected: expected rows 0 to {self.answers.n - 1} as 32-bit whole numbers")
        return value

    @traitlets.validate("selection")
    def _selection(self, proposal: Mapping[str, Any]) -> pd.DataFrame:
        return self._rows_table(self._rows_of(proposal["value"]))

    @traitlets.observe("selection")
    def _select(self, change: Mapping[str, Any]) -> None:
        rows = change["new"].index.to_numpy().astype("<i4").tobytes()
        if rows != self.selected:
            self.selected = rows

    @traitlets.observe("selected")
    def _follow(self, change: Mapping[str, Any]) -> None:
        rows = np.frombuffer(change["new"], "<i4")
        if not np.array_equal(rows, self.selection.index.to_numpy()):
            self.selection = pd.DataFrame(index=rows)

    def _rows_table(self, rows: np.ndarray) -> pd.DataFrame:
        answers = self.answers
        table = answers.frame.iloc[rows].copy()
        for name, codes in zip(answers.names, answers.predicted, strict=True):
            if (codes >= 0).any():
                table[f"prediction of {name}"] = [answers.classes[c] if c >= 0 else None for c in codes[rows]]
        table["row"] = answers.rows[rows]
        table.index = pd.Index(np.asarray(rows, np.int64))
        return table

    def _rows_of(self, value: object) -> np.ndarray:
        """Rows of what a selection was set to."""
        frame = self.answers.frame
        if value is None:
            return np.array([], int)
        if isinstance(value, pd.DataFrame) and "id" not in value:
            rows = value.index.to_numpy()
            bad = [r for r in rows.tolist() if isinstance(r, bool) or not isinstance(r, int) or not 0 <= r < len(frame)]
            if bad:
                raise InputError(
                    f"selection: no shown sentence has the number {plain(bad[:5])}; there are 0 to {len(frame) - 1}. "
                    "Give a table with a column 'id', or a list of ids"
                )
            return pd.unique(rows.astype(int))
        if isinstance(value, pd.DataFrame):
            columns = [c for c in ("id", "language") if c in value]
            wanted = value[columns].astype(str)
        elif isinstance(value, str | bytes) or not isinstance(value, Sequence | pd.Series | pd.Index | np.ndarray):
            raise InputError(f"selection: expected a table, a list of ids or None; found {type(value).__name__}")
        else:
            wanted = pd.DataFrame({"id": list(map(str, value))}, dtype=object)
        columns = list(wanted)
        place = frame[columns].astype(object).assign(_row=np.arange(len(frame)))
        found = wanted.drop_duplicates().astype(object).merge(place, on=columns, how="left")
        lost = found[found["_row"].isna()]
        if len(lost):
            names = [v[0] if len(v) == 1 else v for v in lost[columns].head(5).itertuples(index=False, name=None)]
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            few = " in the sample that is shown" if self.answers.n < self.answers.total else ""
            raise InputError(f"selection: no sentence{few} has the {' and '.join(columns)} {plain(names)}{more}")
        return found["_row"].to_numpy(int)

    # --- what is asked ---

    def _asked(self, _: object, ask: object, buffers: object) -> None:
        """Put what the front end asks for in line: the newest is answered first, in a thread of its own.

        The slider may have moved on from older asks; they come after, and the oldest of very many not at all.
        """
        if isinstance(ask, dict) and "ask" in ask:
            self._queue(ask)

    def _queue(self, ask: dict[str, Any]) -> None:
        speed = "quick" if self.cheap(ask) else "slow"
        key = json.dumps(ask, sort_keys=True)
        with self._guard:
            if self._running.get(speed) == key:
                return
            line = self._waiting[speed]
            line.pop(key, None)
            line[key] = ask
            while len(line) > _MOST_WAITING:
                del line[next(iter(line))]
        future = _pool(speed).submit(self._next, speed)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def _next(self, speed: str) -> None:
        """Answer the newest ask. What goes wrong is said where the answer would be, and logged."""
        with self._guard:
            if not self._waiting[speed] or self.comm is None:
                return
            key, ask = self._waiting[speed].popitem()
            self._running[speed] = key
        try:
            content, data = self.answer(ask)
            more = content.pop("more", False)
        except InputError as error:
            content, data, more = {"give": "missing", "ask": ask, "why": str(error)}, [], False
        except _Closed:
            return
        except Exception as error:
            logging.getLogger("layerscope").exception("the explorer could not answer %s", ask)
            why = f"This could not be computed ({type(error).__name__}: {error})."
            content, data, more = {"give": "missing", "ask": ask, "why": why}, [], False
        finally:
            with self._guard:
                self._running.pop(speed, None)
        self.send(content, data)
        if more:
            self._queue({**ask, "fit": True})

    def wait(self) -> None:
        """Wait until everything that was asked for is answered."""
        while self._pending:
            futures_wait(list(self._pending))

    def cheap(self, ask: Mapping[str, Any]) -> bool:
        """Whether an ask is answered at once, or by the thread for what takes long."""
        if ask.get("ask") == "map":
            return ask.get("kind") != "umap"
        if ask.get("ask") == "similarity" and ask.get("measure") in MEASURES and self.answers.table is not None:
            measured = {str(ask["measure"])} & set(self.answers.provenance["probes"])
            return bool(measured) and self.answers.baseline in (ask.get("one"), ask.get("other"))
        return ask.get("ask") != "similarity" and not ask.get("fit")

    def answer(self, ask: Mapping[str, Any]) -> Answer:
        """Return the answer to a message of the front end, and its buffers.

        Raises:
            InputError: it asks for what there is not.
        """
        what = ask["ask"]
        answers = self.answers
        number = {k: self._number(ask, k) for k in ("model", "one", "other", "layer", "row") if k in ask}
        if what == "similarity":
            return self._similarity(ask, number)
        if not answers.reps:
            return {"give": "missing", "ask": dict(ask), "why": NOT_THERE}, []
        if what == "map" and ask.get("kind") == "umap":
            return self._umap(ask, number)
        if what == "map":
            maps = answers.maps(number["model"])
            fresh = [note for note in maps.notes if note not in self.about["notes"]]
            if fresh:
                self.about = {**self.about, "notes": [*self.about["notes"], *fresh]}
            give = {"give": "map", "model": number["model"], "kind": "pca", "explained": maps.explained.tolist()}
            return give, [to_uint16(maps.points, answers.domain()).tobytes()]
        if what == "drift":
            drift = answers.drift(number["model"])
            there = drift[np.isfinite(drift)]
            high = max(float(np.quantile(there, 0.995)), 0.0) if there.size else 0.0
            share = np.nan_to_num(drift) / (high or 1.0)
            coded = np.where(np.isfinite(drift), np.rint(np.clip(share, 0, 1) * 254), 255)
            return {"give": "drift", "model": number["model"], "high": high}, [coded.astype(np.uint8).tobytes()]
        if what == "alignment":
            if reason := answers.no_alignment():
                return {"give": "missing", "ask": dict(ask), "why": reason}, []
            layer = answers.last(number["model"], number["layer"])
            found = answers.alignment(number["model"], layer)
            give = {"give": "alignment", "model": number["model"], "layer": number["layer"]}
            title = f"{RETRIEVAL.name}: {RETRIEVAL.estimator}"
            return give | {"languages": answers.languages, "title": title}, [found.tobytes()]
        if what == "sentence":
            if ask.get("fit"):
                answers.fit(self._explained())
            return self._sentence(number["row"], number["layer"])
        raise InputError(f"the explorer does not know what {what!r} is")

    def _number(self, ask: Mapping[str, Any], key: str) -> int:
        value = ask[key]
        limit = {"layer": self.answers.deepest, "row": self.answers.n}.get(key, len(self.answers.names))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
            raise InputError(f"{key}={value!r}: expected a whole number from 0 to {limit - 1}")
        return value

    def _similarity(self, ask: Mapping[str, Any], number: Mapping[str, int]) -> Answer:
        measure = str(ask.get("measure"))
        if measure not in self.about["measures"]:
            raise InputError(f"measure={measure!r} is not there; choose one of {plain(self.about['measures'])}")
        values = np.ascontiguousarray(self.answers.similarity(number["one"], number["other"], measure), "<f4")
        give = {"give": "similarity", "one": number["one"], "other": number["other"], "measure": measure}
        return give | {"title": f"{MEASURES[measure].estimator} ({MEASURES[measure].kind})"}, [values.tobytes()]

    def _umap(self, ask: Mapping[str, Any], number: Mapping[str, int]) -> Answer:
        model, layer = number["model"], number["layer"]
        if "umap" not in self.about["kinds"]:
            return {"give": "missing", "ask": dict(ask), "why": self.about["missing"]["umap"]}, []

        def progress(done: int, of: int) -> None:
            if self.comm is None:
                raise _Closed
            self.send({"give": "progress", "what": "umap", "model": model, "layer": layer, "done": done, "of": of})

        points = self.answers.umap(model, self.answers.last(model, layer), progress)
        give = {"give": "map", "model": model, "kind": "umap", "layer": layer}
        return give, [to_uint16(points, self.answers.domain()).tobytes()]

    def _explained(self) -> int:
        """The model whose predictions are explained: the first of those that are shown."""
        return self.answers.names.index(self.models[0])

    def _sentence(self, row: int, layer: int) -> Answer:
        answers, model = self.answers, self._explained()
        give: dict[str, Any] = {"give": "sentence", "row": row, "layer": layer}
        give |= {"neighbours": answers.neighbours(row, layer), "representers": None, "why": ""}
        if reason := self.about["missing"].get("representers"):
            return give | {"why": reason}, []
        if not answers.is_test(row):
            why = "Only sentences of the split 'test' are explained, by those of the split 'train'."
            return give | {"why": why}, []
        if model in answers.unfit:
            return give | {"why": answers.unfit[model]}, []
        if model not in answers.fitted:
            return give | {"why": "The representer values are being computed.", "more": True}, []
        found, colours = answers.explain(model, row, answers.fitted[model])
        return give | {"representers": found}, [colours.tobytes()]


class _Closed(Exception):
    """The explorer was closed while something was computed for it."""


class LayerCurves(Explorer):
    """The curves of a comparison by layer, with their bands.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(3, 40, 8))
        >>> comparison = probes.compare({"base": probes.from_arrays(x, label=np.arange(40) % 2)}, probes=["snr"])
        >>> LayerCurves(comparison).probe
        'snr'
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "curves")


class LayerMap(Explorer):
    """The maps of the layers of one model, or of up to four side by side.

    Example:
        >>> import probes
        >>> LayerMap(probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 8))))
        <LayerMap of arrays: 40 sentences, layer 2, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "maps")


class AlignmentMatrix(Explorer):
    """How often a sentence finds its translation, language by language, at a layer.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(2, 20, 8))
        >>> reps = probes.from_arrays(
        ...     np.concatenate([x, x], axis=1), id=np.tile(np.arange(20), 2), language=np.repeat(["en", "fr"], 20)
        ... )
        >>> AlignmentMatrix(reps, layer=0)
        <AlignmentMatrix of arrays: 40 sentences, layer 0, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "alignment")


class SimilarityMatrix(Explorer):
    """How alike every layer of one model and every layer of another are.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 8)))
        >>> SimilarityMatrix({"base": reps, "small": reps}, measure="cka_debiased").compared
        ['base', 'small']
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "similarity")


class RepresenterPanel(Explorer):
    """Sentences, and which training sentences speak for and against what is predicted for them.

    Args:
        source: Representations whose `split` holds "train" and "test" (or a dict or Comparison of such), or what
            `probes.representers` returned.

    Example:
        >>> import probes
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> x = rng.normal(size=(90, 8)) + 2 * np.eye(8)[y]
        >>> RepresenterPanel(probes.representers(x[:60], x[60:], labels=y[:60], l2=1e-2))
        <RepresenterPanel of representers: 90 sentences, layer 0, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "maps", "sentences")

    def __init__(self, source: Source | RepresenterValues, **settings: Any) -> None:
        """Begin with the colours of representer values."""
        super().__init__(_as_representations(source) if isinstance(source, RepresenterValues) else source, **settings)
        if isinstance(source, RepresenterValues):
            self.answers.fitted[0] = source
        if "colour" not in settings and "representer" in self.about["colours"]:
            self.colour = "representer"


def _as_representations(values: RepresenterValues) -> xr.Dataset:
    """The features of representer values as one layer, the training rows before the test rows."""
    frame = pd.concat([values.train, values.test], ignore_index=True)
    n = len(values.train), len(values.test)
    # Rows of bare arrays are named by their number on either side.
    both = not set(values.train["id"]).isdisjoint(values.test["id"])
    split = np.repeat(["train", "test"], n)
    ids = [f"{s} {i}" for s, i in zip(split, frame["id"], strict=True)] if both else frame["id"]
    hidden = np.concatenate([values.train_features, values.test_features])[:, :-1]
    given = {c: frame[c].fillna("") for c in ("label", "text") if c in frame}
    reps = from_arrays(hidden, id=ids, language=frame["language"], name="representers", **given)
    logits = np.concatenate([values.train_features @ values.theta.T, values.logits])
    chosen = pd.Categorical(values.predicted, values.classes).codes
    logits[n[0] :][np.arange(n[1]), chosen] = logits[n[0] :].max(axis=1) + 1e-9  # as the model that is explained says
    return reps.assign_coords(split=("example", as_strings(split))).assign(
        logits=xr.DataArray(logits, dims=("example", "class"), coords={"class": as_strings(values.classes)})
    )


def reopen(source: Table, last: Explorer | None, settings: dict[str, Any]) -> Explorer:
    """Return an explorer that begins where the last one of the comparison is, as far as that is still there."""
    sample: dict[str, Any] = {k: settings.pop(k) for k in ("most", "seed") if k in settings}
    answers = None
    given: Mapping[str, xr.Dataset] = getattr(source, "representations", {})
    if last is not None:
        most, seed = last.answers.settings
        sample = {"most": most, "seed": seed} | sample
        same = [
            last.answers.table is source.table,
            *(last.answers.given.get(n) is r for n, r in given.items()),
        ]
        if all(same) and len(last.answers.given) == len(given) and sample == {"most": most, "seed": seed}:
            answers = last.answers
    explorer = Explorer(source, **sample, **settings, _answers=answers)
    for name in () if last is None else (*(s for s in Explorer.STATE if s != "selected"), "selection"):
        if name in settings:
            continue
        with contextlib.suppress(InputError):  # what is no longer there is chosen anew
            value = getattr(last, name)
            if name == "selection":
                there = set(zip(explorer.answers.frame["id"], explorer.answers.frame["language"], strict=True))
                value = value[[k in there for k in zip(value["id"], value["language"], strict=True)]]
            setattr(explorer, name, value)
    return explorer
