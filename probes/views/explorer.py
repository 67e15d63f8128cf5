"""The explorer: curves, maps and sentences in a notebook, linked by one layer slider."""

from __future__ import annotations

import base64
import contextlib
import html
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError, needed
from probes.results.table import Table
from probes.views import asks
from probes.views.assets import script, style
from probes.views.described import at_step, curves, describe, texts
from probes.views.latent import latent_in
from probes.views.numbers import Numbers
from probes.views.page import check_path, contents, write
from probes.views.picture import Curves, Points, picture, why_still
from probes.views.scene import Source, plain, representations_of, scene_of

needed("anywidget", "The explorer", extra="lab")

import anywidget  # noqa: E402
import traitlets  # noqa: E402

_FIRST_MAPS = 4  # models shown at first; more by choice
_AT_ONCE = 2**28  # bytes of states up to which the picture waits for the maps
PARTS = ("controls", "curves", "maps", "sentences", "alignment", "similarity")


class _Choice(traitlets.Any):
    """Anything, and None is looked at too."""

    allow_none = False


class Explorer(anywidget.AnyWidget):
    """Curves, maps and sentences of some models, linked: `comparison.explore()` makes one.

    Args:
        source: a Comparison, Representations, or a dict name -> Representations of the same
            sentences (the first is the baseline).
        most: how many sentences are shown at most; of more a sample is drawn by id, so that
            translations stay together.
        seed: of that sample, and of the maps.
        latent: what `probes.latent_features` found of these sentences, or of some of them: maps can
            then be coloured by each of its codes.
        parts: what to show, of "controls", "curves", "maps", "sentences", "alignment" and
            "similarity".
        state: what to begin with: layer, models, probe, language, colour, kind, compared, focus,
            measure, order, step, selection.

    Attributes:
        layer: the layer that everything shows, 0 for the embeddings.
        models: names of the models whose maps are shown; at first four at most.
        probe, language: of the curves.
        colour: of the maps, "label", "language", "prediction", "drift", "representer", or a code of
            `latent`, as "code 1".
        kind: of the maps, "pca" or "umap".
        step: of trainings (`probes.series`): the models of this step are shown; at first the last.
        order: of the languages: "corpus", "script" or "loss", the most lost of the model `focus`
            first.
        selection: a table of the selected sentences. Set it to a table with a column `id` (and
            `language`), to a list of ids, or to None; a table without `id` selects by its index,
            the numbers that a selection has.

    Raises:
        InputError: the models do not hold the same sentences, or a setting is unknown.

    Example:
        >>> import probes
        >>> x = np.random.default_rng(0).normal(size=(3, 40, 8))
        >>> reps = probes.from_arrays(x, label=np.arange(40) % 2)
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
    order = traitlets.Unicode("corpus").tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
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
        "order",
        "step",
    )

    def __init__(
        self,
        source: Source,
        *,
        most: int = 5000,
        seed: int = 0,
        latent: xr.Dataset | None = None,
        parts: Sequence[str] | None = None,
        _numbers: Numbers | None = None,
        **state: Any,
    ) -> None:
        """See the class."""
        parts = self.own_parts if parts is None else parts
        known = (*(s for s in self.STATE if s != "selected"), "selection")
        unknown = [s for s in state if s not in known]
        if unknown:
            raise InputError(
                f"unknown setting {plain(unknown)}; there are most, seed, latent, parts, {', '.join(known)}"
            )
        strange = [p for p in parts if p not in PARTS]
        if strange or isinstance(parts, str) or not parts:
            raise InputError(f"parts={parts!r}: expected some of {plain(PARTS)}")
        self._ready = False
        self.numbers = _numbers or Numbers(scene_of(source, most=most, seed=seed))
        self.scene = scene = self.numbers.scene
        self.line = asks.Line(
            answer=lambda ask: self.answer(ask),
            quick=lambda ask: asks.cheap(ask, scene),
            send=lambda content, buffers: self.send(content, buffers),
            is_open=lambda: self.comm is not None,
        )
        self.latent, codes = latent, latent_in(scene, latent)
        probes, languages, self.curve_values = curves(scene)
        about = describe(scene, probes, languages) | {"token": uuid.uuid4().hex, "latent": codes.about()}
        about["one_by_one"] = self.numbers.one_by_one
        about["colours"] += codes.names
        base = scene.names[scene.baseline]
        others = [m for m in scene.names if m != base]
        last = max(about["steps"], default=0)
        by_layer = [p["name"] for p in probes if p["by"] == "layer"]
        super().__init__(
            about=about,
            texts=texts(scene),
            codes=np.concatenate([scene.codes(), codes.has]).astype("<i2").tobytes(),
            curves=self.curve_values.tobytes(),
            parts=list(parts),
            layer=len(scene.layers[scene.baseline]) - 1,
            models=_at_step(about, scene.names, [base, *others], last)[:_FIRST_MAPS],
            probe=(by_layer or [p["name"] for p in probes] or [""])[0],
            language=(languages or [""])[0],
            colour=(about["colours"] or [""])[0],
            kind="pca",
            compared=[base, _at_step(about, scene.names, others or [base], last)[0]],
            step=last,
            focus=_at_step(about, scene.names, others or [base], last)[0],
            measure=(about["measures"] or [""])[0],
            order=about["orders"][0],
            selection=scene.table_of(np.array([], int)),
        )
        self._ready = True
        for name, value in state.items():
            setattr(self, name, value)
        self.on_msg(self._asked)

    # --- what is shown ---

    def __repr__(self) -> str:
        scene = self.scene
        return (
            f"<{type(self).__name__} of {', '.join(scene.names)}: {scene.n:,} sentences, layer {self.layer}, "
            f"{len(self.selected) // 4} selected>"
        )

    def _ipython_display_(self) -> None:
        """Show the widget and, after it, a picture that stays where no kernel runs; the live widget
        hides it.
        """
        from IPython.display import HTML, display

        png = base64.b64encode(self._picture()).decode()
        token = self.about["token"]
        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)
        image = f'<img src="data:image/png;base64,{png}" alt="picture of the explorer">'
        said = f"<figcaption>{html.escape(why_still())}</figcaption>"
        display(HTML(f'<figure class="lsc-picture" data-of="{token}">{image}{said}</figure>'))

    def _picture(self) -> bytes:
        """Curves and maps as they are chosen now; of very many sentences the curves alone."""
        ready = self.numbers.read_for(self.models) <= _AT_ONCE
        maps = self.models if ready and "maps" in self.parts and self.scene.reps else []
        return picture(self.about["title"], self._drawn_curves(), [self._drawn_map(name) for name in maps])

    def _drawn_curves(self) -> Curves | None:
        probes = self.about["probes"]
        by_layer = [p["name"] for p in probes if p["by"] == "layer"]
        if not by_layer or "curves" not in self.parts:
            return None
        which = [p["name"] for p in probes].index(self.probe if self.probe in by_layer else by_layer[0])
        language = self.about["curve_languages"].index(self.language)
        values = self.curve_values[which, :, language, :, :3]
        title = f"{probes[which]['title']} ({self.language})"
        names = self.scene.names
        return Curves(title, dict(zip(names, values, strict=True)), self.layer, names[self.scene.baseline])

    def _drawn_map(self, name: str) -> Points:
        model = self.scene.names.index(name)
        layer = self.scene.last(model, self.layer)
        latent = self.about["latent"]["names"]
        colour = self.colour if self.colour in ("label", "prediction", *latent) else "language"
        rows = {"language": 0, "label": 1, "prediction": 2 + model}
        rows |= {name: 2 + len(self.scene.names) + k for k, name in enumerate(latent)}
        codes = np.frombuffer(self.codes, "<i2").reshape(-1, self.scene.n)[rows[colour]]
        points = self.numbers.map_of(model, layer)
        return Points(f"{name}, layer {layer}, by {colour}", points, codes, self.numbers.domain())

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one HTML page of what is shown that works without a kernel and loads nothing.

        Args:
            path: of the page, such as "view.html".
            overwrite: replace an earlier page; any other file is left alone.

        Raises:
            InputError: there is something at the path that is not to be replaced.

        Example:
            >>> import tempfile
            >>> import probes
            >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(2, 12, 4)))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     Explorer(reps).save(f"{folder}/view.html").name
            'view.html'
        """
        check_path(Path(path), overwrite=overwrite)
        traits = {name: getattr(self, name) for name in (*self.DATA, *self.STATE)}
        return write(contents(traits, self.numbers, self.answer), Path(path))

    # --- what is chosen ---

    @traitlets.validate("layer")
    def _layer(self, proposal: Mapping[str, Any]) -> int:
        layer, deepest = proposal["value"], self.scene.deepest
        if not 0 <= layer < deepest:
            raise InputError(f"layer={layer}: expected 0 to {deepest - 1}, the layers of the deepest model")
        return layer

    @traitlets.validate("step")
    def _step(self, proposal: Mapping[str, Any]) -> int:
        step, known = proposal["value"], self.about.get("steps", [])
        if self._ready and step not in known:
            there = f"there are {plain(known)}" if known else "there is no series of checkpoints"
            raise InputError(f"step={step}: not known; {there}")
        return step

    @traitlets.observe("step")
    def _train(self, change: Mapping[str, Any]) -> None:
        """Show the models of a step in place of those of another; the baseline is compared with still."""
        if not self._ready:
            return
        names, step = self.scene.names, change["new"]
        base = names[self.scene.baseline]
        self.models = _at_step(self.about, names, self.models, step)
        beside = {name: name if name == base else _at_step(self.about, names, [name], step)[0] for name in names}
        self.compared, self.focus = [beside[name] for name in self.compared], beside[self.focus]

    @traitlets.validate("models", "compared")
    def _models(self, proposal: Mapping[str, Any]) -> list[str]:
        names, shown = list(proposal["value"]), proposal["trait"].name
        self._known(shown, names, self.scene.names)
        if shown == "compared" and len(names) != 2:
            raise InputError(f"compared={names!r}: expected the names of two models")
        if shown == "models" and not (names and len(set(names)) == len(names)):
            raise InputError(f"models={names!r}: expected one model or more, each once, whose maps are shown")
        return names

    @traitlets.validate("focus", "probe", "language", "colour", "kind", "measure", "order")
    def _choice(self, proposal: Mapping[str, Any]) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        about = self.about
        known = {
            "focus": self.scene.names,
            "probe": [p["name"] for p in about.get("probes", [])],
            "language": about.get("curve_languages", []),
            "colour": about.get("colours", []),
            "kind": about.get("kinds", []),
            "measure": about.get("measures", []),
            "order": about.get("orders", []),
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
        if rows.size and (rows.min() < 0 or rows.max() >= self.scene.n):
            raise InputError(f"selected: expected rows 0 to {self.scene.n - 1} as 32-bit whole numbers")
        return value

    @traitlets.validate("selection")
    def _selection(self, proposal: Mapping[str, Any]) -> pd.DataFrame:
        return self.scene.table_of(self.scene.rows_of(proposal["value"]))

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

    # --- what is asked ---

    def _asked(self, _: object, ask: object, buffers: object) -> None:
        if isinstance(ask, dict) and "ask" in ask:
            self.line.put(ask)

    def wait(self) -> None:
        """Wait until everything that was asked for is answered.

        Example:
            >>> import probes
            >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(2, 12, 4)))
            >>> Explorer(reps).wait()  # nothing was
        """
        self.line.wait()

    def answer(self, ask: asks.Ask) -> asks.Answer:
        """Return the answer to a message of the front end, and its buffers.

        Raises:
            InputError: it asks for what there is not.

        Example:
            >>> import probes
            >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(2, 12, 4)))
            >>> ask = {"ask": "similarity", "one": 0, "other": 0, "measure": "cka"}
            >>> content, (values,) = Explorer(reps).answer(ask)
            >>> np.frombuffer(values, "<f4").reshape(2, 2).diagonal().round(3).tolist()
            [1.0, 1.0]
        """
        explained = self.scene.names.index(self.models[0])
        return asks.answer(ask, self.numbers, asks.Asked(self.about, explained, self._progress, self._noted))

    def _progress(self, model: int, layer: int, done: int, of: int) -> None:
        if self.comm is None:
            raise asks.Closed
        self.send({"give": "progress", "what": "umap", "model": model, "layer": layer, "done": done, "of": of})

    def _noted(self, notes: list[str]) -> None:
        fresh = [note for note in notes if note not in self.about["notes"]]
        if fresh:
            self.about = {**self.about, "notes": [*self.about["notes"], *fresh]}


def _at_step(about: Mapping[str, Any], names: Sequence[str], models: Sequence[str], step: int) -> list[str]:
    """Models as they are at a step of their training, each once."""
    return list(dict.fromkeys(names[at_step(about, names.index(name), step)] for name in models))


def reopen(source: Table, last: Explorer | None, settings: dict[str, Any]) -> Explorer:
    """Return an explorer that begins where the last one of the comparison is, if it can."""
    sample: dict[str, Any] = {k: settings.pop(k) for k in ("most", "seed") if k in settings}
    numbers = None
    if last is not None:
        settings.setdefault("latent", last.latent)
        scene, given = last.scene, representations_of(source)
        before = {"most": scene.most, "seed": scene.seed}
        sample = before | sample
        same = scene.table is not None and scene.table.table is source.table and scene.given.keys() == given.keys()
        if same and all(scene.given[n] is r for n, r in given.items()) and sample == before:
            numbers = last.numbers
    explorer = Explorer(source, **sample, **settings, _numbers=numbers)
    for name in () if last is None else (*(s for s in Explorer.STATE if s != "selected"), "selection"):
        if name in settings:
            continue
        with contextlib.suppress(InputError):  # what is no longer there is chosen anew
            value = getattr(last, name)
            if name == "selection":
                there = set(zip(explorer.scene.frame["id"], explorer.scene.frame["language"], strict=True))
                value = value[[k in there for k in zip(value["id"], value["language"], strict=True)]]
            setattr(explorer, name, value)
    return explorer
