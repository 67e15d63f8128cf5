"""What the front is told of a scene: what there is to show and choose, and why some is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probes.errors import InputError
from probes.results.calibration import p_text
from probes.results.cells import NO_LAYER
from probes.results.difference import MARKED, family_in_words
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.results.verdict import verdict
from probes.views.causes import bars
from probes.views.language_names import language_names, script_name
from probes.views.maps import FEWEST_FOR_UMAP
from probes.views.numbers import measures, no_alignment
from probes.views.reading import read
from probes.views.said import parts_of
from probes.views.scene import NOT_THERE, Scene
from probes.views.speakers import no_representers

_MANY = 10  # languages, from which on they are grouped by script


def describe(scene: Scene, probes: list[dict[str, str]], languages: list[str]) -> dict[str, Any]:
    """Return what the front has to know before it shows anything; plain numbers, texts and lists.

    Args:
        scene: what is shown.
        probes: those that have curves, as `curves` gives them.
        languages: of the curves.
    """
    missing = _missing(scene, probes)
    models, notes = _models(scene)
    said, of_verdict = _verdict(scene)
    return {
        "n": scene.n,
        "total": scene.total,
        "models": models,
        "baseline": scene.baseline,
        "marked": family_in_words(MARKED),
        "first": _first(scene),
        "languages": scene.languages,
        "names": language_names(scene.languages),
        "scripts": [script_name(code) for code in scene.languages],
        "labels": scene.labels,
        "classes": scene.classes,
        "probes": probes,
        "curve_languages": languages,
        "curve_names": _names_of_curves(languages),
        "curve_scripts": [script_name(code) if code != POOLED else "" for code in languages],
        "orders": orders(scene, languages),
        **series_in(scene),
        "colours": _colours(scene, missing),
        "kinds": ["pca", "umap"] if scene.reps and "umap" not in missing else ["pca"],
        "missing": missing,
        "notes": [*_of_sample(scene), *notes, *of_verdict],
        "verdict": said,
        "causes": [] if scene.table is None else bars(scene.table),
        "measures": measures(scene),
        "spoken": _spoken(scene),
        "pivot": None if scene.table is None else scene.table.provenance.get("pivot"),
        "least_p": _least_p(scene),
        "static": False,
        "title": _title(scene),
    }


def _spoken(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """The sentences that are shown token by token: row -> the models that have it, its parts, and which moved most."""
    kept = {} if scene.table is None else scene.table.provenance.get("tokens") or {}
    places = {key: row for row, key in enumerate(zip(scene.frame["id"], scene.frame["language"], strict=True))}
    out: dict[str, list[dict[str, Any]]] = {}
    for model in (name for name in scene.names if name in kept):
        for sentence in kept[model]:
            row = places.get((sentence["id"], sentence["language"]))
            if row is not None:
                found = parts_of(sentence)
                parts = [
                    [p["text"], round(p["shade"], 3), round(p["surprise"], 3), p["about"], p["layers"]] for p in found
                ]
                worst = next((k for k, part in enumerate(found) if part["worst"]), -1)
                out.setdefault(str(row), []).append({"model": scene.names.index(model), "parts": parts, "worst": worst})
    return out


def _least_p(scene: Scene) -> tuple[float, str] | None:
    """The smallest p that the draws allow, and how it is told."""
    if scene.table is None:
        return None
    draws = scene.table.provenance["draws"]
    least = 1 / (draws + 1)
    return least, p_text(least, draws)


def texts(scene: Scene) -> dict[str, Any]:
    """Return ids, texts and the texts beside them of the shown sentences."""
    frame = scene.frame
    pair = frame["text_pair"].tolist() if "text_pair" in frame else None
    text = frame["text"].tolist() if "text" in frame else [""] * len(frame)
    return {"id": frame["id"].tolist(), "text": text, "pair": pair}


def title_of(table: Table, probe: str) -> str:
    """Return what a probe is called over its curve: its title, and what it compares with."""
    about = table.provenance["probes"][probe]
    title = about["title"]
    return f"{title}, to {table.baseline}" if about["compares"] and "baseline" not in title else title


def curves(scene: Scene) -> tuple[list[dict[str, str]], list[str], np.ndarray]:
    """Return the probes that are drawn as curves, their languages, and their values.

    Values are (probe, model, language, layer, 4): value, low, high and p adjusted over layers and
    languages; those of the output lie at layer 0.
    """
    if scene.table is None:
        return [], [], np.full((0, len(scene.names), 0, scene.deepest, 4), np.nan, "<f4")
    table = scene.table.table.assign(mark=scene.table.marks())
    is_map = {p: scene.table.is_map(p) for p in scene.table.provenance["probes"]}
    table = table[~table["probe"].map(is_map).astype(bool)]
    probes = []
    for name, about in scene.table.provenance["probes"].items():
        of_probe = table[table["probe"] == name]
        if len(of_probe):
            by = "output" if (of_probe["layer"] == NO_LAYER).all() else "layer"
            title = title_of(scene.table, name)
            probes.append({"name": name, "title": title, "better": about["better"], "by": by})
    names = [p["name"] for p in probes]
    table = table[table["probe"].isin(names)]
    there = dict.fromkeys(table["language"])
    languages = [POOLED] * (POOLED in there) + [x for x in there if x != POOLED]
    out = np.full((len(names), len(scene.names), len(languages), scene.deepest, 4), np.nan, "<f4")
    place = [{layer: at for at, layer in enumerate(layers)} for layers in scene.layers]
    model = table["model"].map({m: i for i, m in enumerate(scene.names)}).to_numpy()
    layer = [
        0 if value == NO_LAYER else place[i].get(value, -1)
        for i, value in zip(model, table["layer"].tolist(), strict=True)
    ]
    at = (
        table["probe"].map({p: i for i, p in enumerate(names)}).to_numpy(),
        model,
        table["language"].map({x: i for i, x in enumerate(languages)}).to_numpy(),
        np.array(layer, int),
    )
    keep = at[3] >= 0
    values = table[["value", "low", "high", "mark"]].astype(float).to_numpy()
    out[tuple(a[keep].astype(int) for a in at)] = np.where(np.isfinite(values), values, np.nan)[keep]
    return probes, languages, out


def orders(scene: Scene, languages: list[str]) -> list[str]:
    """Return the orders that languages can be shown in, the one to begin with first.

    Args:
        scene: what is shown.
        languages: of the curves.
    """
    codes = list(dict.fromkeys([*scene.languages, *(x for x in languages if x != POOLED)]))
    scripts = {script_name(code) for code in codes} - {""}
    found = ["corpus"]
    if len(scripts) > 1:  # where there are many, those of a script are looked for together
        found.insert(0 if len(codes) > _MANY else 1, "script")
    return found + ["loss"] * (len(codes) > 1 and len(scene.names) > 1)


def _title(scene: Scene) -> str:
    """The models, a training by its name."""
    there = {} if scene.table is None else scene.table.provenance.get("series", {})
    of = {model: name for name, steps in there.items() for model in steps}
    return " | ".join(dict.fromkeys(of.get(name, name) for name in scene.names))


def series_in(scene: Scene) -> dict[str, Any]:
    """Return the trainings among the models, by place, and all of their steps in order."""
    there: dict[str, dict[str, int]] = {} if scene.table is None else scene.table.provenance.get("series", {})
    series = []
    for name, steps in there.items():
        known = {model: step for model, step in steps.items() if model in scene.names}
        series.append({"name": name, "models": [scene.names.index(m) for m in known], "steps": list(known.values())})
    return {"series": series, "steps": sorted({step for one in series for step in one["steps"]})}


def at_step(about: Mapping[str, Any], model: int, step: int) -> int:
    """Return the model that stands for one at a step: of its training the last up to there, or the
    first; of no training itself.

    Example:
        >>> about = {"series": [{"name": "run", "models": [1, 2, 3], "steps": [0, 50, 100]}]}
        >>> [at_step(about, 3, step) for step in (0, 70, 100)], at_step(about, 0, 70)
        ([1, 2, 3], 0)
    """
    for one in about["series"]:
        if model in one["models"]:
            passed = sum(other <= step for other in one["steps"])
            return int(one["models"][max(0, passed - 1)])
    return model


def _names_of_curves(languages: list[str]) -> list[str]:
    alone = [code for code in languages if code != POOLED]
    names = dict(zip(alone, language_names(alone), strict=True))
    return [names.get(code, "all together") for code in languages]


def _first(scene: Scene) -> str:
    """What layer 0 is: the embeddings only of models that were captured from there on."""
    if not scene.reps:
        begins = all(layers[:1] == [0] for layers in scene.layers)
        captured = scene.table is not None and bool(scene.table.provenance.get("pooling"))
        return "embeddings" if begins and captured else ""
    said = {
        str(r.attrs.get("first_layer", "embeddings" if "pooling" in r.attrs and "module" not in r.coords else ""))
        if layers[:1] == [0]
        else ""
        for r, layers in zip(scene.reps, scene.layers, strict=True)
    }
    return said.pop() if len(said) == 1 else ""


def _verdict(scene: Scene) -> tuple[list[dict[str, Any]], list[str]]:
    """What is said of each model, where there is anything to judge it by, and of all of them."""
    if scene.table is None:
        return [], []
    try:
        readings, notes = read(verdict(scene.table), scene.table)
    except InputError:
        return [], []
    said = [one._asdict() | {"size": [one.size.stored, one.size.speed]} for one in readings if one.model in scene.names]
    return said, [f"{note[0].upper()}{note[1:]}." for note in notes]


def _missing(scene: Scene, probes: list[dict[str, str]]) -> dict[str, str]:
    """Of every part and colour that there is not, why."""
    missing: dict[str, str] = {}
    if not probes:
        missing["curves"] = (
            "No probes were measured. Measure some: probes.compare({name: reps, ...}, pivot=...).explore()."
            if scene.table is None
            else "No probe that was measured has a curve: all are maps of more than layers."
        )
    if reason := no_alignment(scene):
        missing["alignment"] = reason
    if reason := no_representers(scene):
        missing["representers"] = reason
    if not measures(scene):
        missing["similarity"] = "There are too few sentences to compare layers by." if scene.reps else NOT_THERE
    if not scene.reps:
        return missing | dict.fromkeys(("maps", "sentences", "drift", "umap"), NOT_THERE)
    if not scene.labels:
        missing["label"] = (
            "There are more labels than can be told apart."
            if "label" in scene.frame
            else "There are no labels. Capture a corpus with a column 'label'."
        )
    if not (scene.predicted >= 0).any():
        missing["predictions"] = "There are no predictions. Capture models with a head for classification."
    if len(scene.names) < 2:
        missing["drift"] = "There is one model only; drift is seen beside another."
    elif not any(scene.as_wide(i) for i in range(len(scene.names)) if i != scene.baseline):
        missing["drift"] = "No other model is as wide as the baseline; look at the similarity of their layers."
    if not scene.frame["id"].duplicated().any():
        missing["translations"] = "No sentence is there in two languages."
    if scene.n < FEWEST_FOR_UMAP:
        missing["umap"] = f"UMAP needs at least {FEWEST_FOR_UMAP} sentences; {scene.n} are shown."
    return missing


def _colours(scene: Scene, missing: dict[str, str]) -> list[str]:
    """What maps can be coloured by, given what is missing."""
    needs = {
        "label": "label",
        "language": "language",
        "prediction": "predictions",
        "drift": "drift",
        "representer": "representers",
    }
    return [colour for colour, what in needs.items() if scene.reps and what not in missing]


def _of_sample(scene: Scene) -> list[str]:
    notes = []
    if scene.n < scene.total:
        notes.append(
            f"{scene.n:,} of {scene.total:,} sentences are shown: a sample by sentence id, translations together "
            f"(seed {scene.seed}). Curves are of all. For more: most={min(scene.total, 20_000)}."
        )
    if scene.reps and scene.n and not scene.frame["text"].str.strip().any():
        notes.append("The Representations hold no texts; sentences are named by their ids.")
    return notes


def _models(scene: Scene) -> tuple[list[dict[str, Any]], list[str]]:
    """Name, number of layers and what these are of every model, and this in sentences."""
    models, notes = [], []
    for i, (name, layers) in enumerate(zip(scene.names, scene.layers, strict=True)):
        note = "" if layers == list(range(len(layers))) else "layers " + ", ".join(map(str, layers))
        if scene.reps and "module" in scene.reps[i].coords:
            note = "layers " + ", ".join(f"{at}: {m}" for at, m in enumerate(scene.reps[i]["module"].values.tolist()))
        models.append({"name": name, "layers": len(layers), "note": note})
        if note:
            notes.append(f"Model {name} counts from 0 what are its {note}.")
        if scene.reps and (count := scene.reps[i].attrs.get("replicates")):
            notes.append(f"Model {name} has {count} replicates: curves are of their mean, sentences of the first.")
    return models, notes
