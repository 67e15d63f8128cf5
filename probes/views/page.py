"""A page of an explorer that works without a kernel: the same front end, the answers in it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probes.errors import InputError
from probes.files import write_whole
from probes.views.asks import Answer, Ask, cheap
from probes.views.assets import page_script, style
from probes.views.numbers import NEAREST, Numbers
from probes.views.scene import Scene

_MARK = "<!-- layerscope explorer -->"
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
# Multiplications that saving may cost: some seconds each.
MOST_FOR_NEIGHBOURS = 10**12
MOST_FOR_ALIGNMENT = 2 * 10**11
_TOO_LONG = "left out of the saved page; it would take too long to write. Save with fewer: explore(most=2000)."


def check_path(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where the path holds what is not to be replaced, or has no folder."""
    if path.exists():
        if not (path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")[:200]):
            raise InputError(f"{path} exists and is no saved explorer; it is left as it is. Choose another path")
        if not overwrite:
            raise InputError(f"{path} exists. Choose another path, or replace it with overwrite=True")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder. Make it, or choose another path")


def write(contents: Mapping[str, Any], path: Path) -> Path:
    """Write what `contents` gives as one page; texts of others through JSON that ends no tag."""
    data = json.dumps(contents, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = (
        data.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )
    page = (
        f'<!DOCTYPE html>\n{_MARK}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(contents['traits']['about']['title'])}</title>\n<style>\n{style()}\n</style>\n</head>\n"
        '<body>\n<div id="layerscope"></div>\n'
        f'<script type="application/json" id="layerscope-data">{data}</script>\n'
        f'<script type="module">\n{page_script()}\n</script>\n</body>\n</html>\n'
    )
    write_whole(path, page)
    return path


def contents(traits: Mapping[str, Any], numbers: Numbers, answer: Callable[[Ask], Answer]) -> dict[str, Any]:
    """Return what the page holds: traits, answers to what can be asked, nearest sentences.

    Args:
        traits: what the front reads of an explorer, by name; they are not changed.
        numbers: of the explorer.
        answer: to an ask.
    """
    scene, parts = numbers.scene, set(traits["parts"])
    about = json.loads(json.dumps(traits["about"]))
    kept = [
        {"ask": "map", "model": i, "kind": "umap", "layer": layer}
        for i, layer in (_places(scene) if scene.reps and "maps" in parts else ())
        if numbers.kept_umap(i, layer) is not None
    ]
    neighbours = None
    asks: list[dict[str, Any]] = []
    if scene.reps:
        asks = _of_maps(about, scene, parts, kept)
        aligned = _of_alignment(about, scene, parts, int(traits["layer"]))
        asks += aligned
        if "sentences" in parts and scene.n > 1:
            neighbours = _neighbours(about, numbers)
    if "similarity" in parts:
        asks += _of_similarity(traits, scene)
    about["kinds"] = [k for k in about["kinds"] if k == "pca" or kept]
    if "representer" in about["colours"]:
        about["colours"].remove("representer")
        about["missing"]["representers"] = (
            "Representer values are computed by the kernel; a saved page does not hold them."
        )
    given = []
    for ask in asks:
        try:
            give, buffers = answer(ask)
        except InputError as error:
            give, buffers = {"give": "missing", "ask": ask, "why": str(error)}, []
        given.append({"ask": ask, "give": give, "buffers": [_text(b) for b in buffers]})
    given += [{"ask": ask, "give": give, "buffers": []} for ask, give in _not_aligned(about, scene, asks)]
    about["static"] = True
    said = {n: {"bytes": _text(v)} if isinstance(v, bytes) else v for n, v in traits.items()} | {"about": about}
    if said["kind"] not in about["kinds"]:
        said["kind"] = "pca"
    if said["colour"] not in about["colours"]:
        said["colour"] = about["colours"][0] if about["colours"] else ""
    return {"traits": said, "answers": given, "neighbours": neighbours}


def _places(scene: Scene) -> list[tuple[int, int]]:
    """Every layer of every model."""
    return [(i, layer) for i, layers in enumerate(scene.layers) for layer in range(len(layers))]


def _of_maps(about: dict[str, Any], scene: Scene, parts: set[str], umaps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Asks for maps and what they are coloured by; what is not kept is said."""
    models = range(len(scene.names))
    asks: list[dict[str, Any]] = [{"ask": "map", "model": i, "kind": "pca"} for i in models if "maps" in parts]
    if "umap" not in about["missing"] and len(umaps) < len(_places(scene)):
        about["missing"]["umap"] = (
            "A saved page holds the UMAP maps that were computed before it was saved, and no other."
        )
    return asks + umaps + [{"ask": "drift", "model": i} for i in models if "drift" in about["colours"]]


def _of_alignment(about: dict[str, Any], scene: Scene, parts: set[str], shown: int) -> list[dict[str, Any]]:
    """Asks for the alignment at the last layer of every model, and at as many others as fit: the
    layer that is shown, then those that halve the depth, and so on.
    """
    if "alignment" not in parts or "alignment" in about["missing"]:
        return []
    counts = scene.frame["language"].value_counts().to_numpy(float)
    one = (counts.sum() ** 2 - np.square(counts).sum()) / 2
    left, wanted = float(MOST_FOR_ALIGNMENT), [scene.deepest - 1]
    asks: list[dict[str, Any]] = []
    for layer in dict.fromkeys([*wanted, shown, *_spread(scene.deepest)]):
        new: list[dict[str, Any]] = [
            {"ask": "alignment", "model": i, "layer": at}
            for i in range(len(scene.names))
            for at in [scene.last(i, layer)]
        ]
        new = [ask for ask in new if ask not in asks]
        cost = sum(one * scene.reps[ask["model"]].sizes["feature"] for ask in new)
        if asks and cost > left:
            continue
        asks, left = asks + new, left - cost
    held = sorted({ask["layer"] for ask in asks})
    if len(asks) < len(_places(scene)):
        about["notes"].append(_held(held) + " For more, save with fewer sentences: explore(most=2000).")
    return asks


def _spread(layers: int) -> list[int]:
    """All layers, so that the first few of them lie far apart.

    Example:
        >>> _spread(7)
        [6, 0, 3, 2, 4, 1, 5]
    """
    found = [layers - 1, 0]
    for parts in range(2, 2 * layers):
        found += [round(at * (layers - 1) / parts) for at in range(1, parts)]
    return list(dict.fromkeys(found))


def _held(layers: list[int]) -> str:
    said = " and ".join(filter(None, [", ".join(map(str, layers[:-1])), str(layers[-1])]))
    return f"This page holds the alignment of languages at layer{'s' if len(layers) > 1 else ''} {said}."


def _not_aligned(about: dict[str, Any], scene: Scene, asks: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """What is said in place of an alignment that the page does not hold."""
    there = [ask for ask in asks if ask["ask"] == "alignment"]
    if not there:
        return []
    why = _held(sorted({ask["layer"] for ask in there}))
    every = [{"ask": "alignment", "model": i, "layer": layer} for i, layer in _places(scene)]
    return [(ask, {"give": "missing", "ask": ask, "why": why}) for ask in every if ask not in there]


def _of_similarity(traits: Mapping[str, Any], scene: Scene) -> list[dict[str, Any]]:
    """Every model with the baseline, both ways, by what is quick or chosen, and the two that are
    compared.
    """
    base, chosen = scene.baseline, traits["measure"]
    one, other = (scene.names.index(name) for name in traits["compared"])
    pairs = [pair for i in range(len(scene.names)) for pair in ((i, base), (base, i))]
    every = [(measure, *pair) for measure in traits["about"]["measures"] for pair in pairs]
    asks = [{"ask": "similarity", "one": a, "other": b, "measure": m} for m, a, b in [*every, (chosen, one, other)]]
    asks = [ask for ask in asks if cheap(ask, scene) or ask["measure"] == chosen]
    return [ask for at, ask in enumerate(asks) if ask not in asks[:at]]


def _neighbours(about: dict[str, Any], numbers: Numbers) -> dict[str, Any] | None:
    """The nearest of every sentence at every layer (layer, example, k) of every model; None where
    that takes long.
    """
    scene = numbers.scene
    if scene.n**2 * _states(scene) > MOST_FOR_NEIGHBOURS:
        about["notes"].append(f"The nearest neighbours of so many sentences are {_TOO_LONG}")
        return None
    kind: Any = np.uint16 if scene.n < 2**16 else np.uint32
    models = []
    for i, layers in enumerate(scene.layers):
        rows = np.stack([numbers.all_neighbours(i, layer) for layer in range(len(layers))])
        models.append({"model": i, "rows": _text(rows.astype(np.dtype(kind).newbyteorder("<")))})
    return {"k": min(NEAREST, scene.n - 1), "dtype": np.dtype(kind).name, "models": models}


def _states(scene: Scene) -> int:
    """Numbers that a sentence has, over all layers of all models."""
    return sum(len(layers) * r.sizes["feature"] for layers, r in zip(scene.layers, scene.reps, strict=True))


def _text(values: bytes | np.ndarray) -> str:
    return base64.b64encode(values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()).decode()
