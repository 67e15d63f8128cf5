"""One page of an explorer that works without a kernel: the same front end, with the answers in it."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import InputError
from probes.files import write_whole
from probes.views.assets import page_script, style

if TYPE_CHECKING:
    from probes.views.explorer import Explorer

_MARK = "<!-- layerscope explorer -->"
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
# Multiplications that saving may cost: some seconds each.
_MOST_FOR_NEIGHBOURS = 10**12
_MOST_FOR_ALIGNMENT = 2 * 10**11


def write(explorer: Explorer, path: Path, *, overwrite: bool) -> Path:
    """Write the page.

    Raises:
        InputError: there is something at the path that is not to be replaced, or no folder for it.
    """
    if path.exists():
        if not (path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")[:200]):
            raise InputError(f"{path} exists and is no saved explorer; it is left as it is. Choose another path")
        if not overwrite:
            raise InputError(f"{path} exists. Choose another path, or replace it with overwrite=True")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder. Make it, or choose another path")
    write_whole(path, page(explorer))
    return path


def page(explorer: Explorer) -> str:
    """Return the page as text. Everything of others goes through JSON in which no tag can end."""
    data = json.dumps(contents(explorer), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = (
        data.replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )
    return (
        f'<!DOCTYPE html>\n{_MARK}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(explorer.about['title'])}</title>\n<style>\n{style()}\n</style>\n</head>\n<body>\n"
        '<div id="layerscope"></div>\n'
        f'<script type="application/json" id="layerscope-data">{data}</script>\n'
        f'<script type="module">\n{page_script()}\n</script>\n</body>\n</html>\n'
    )


def contents(explorer: Explorer) -> dict[str, Any]:
    """Return what the page holds: the traits, the answers to what can be asked, and the neighbours of all sentences."""
    answers = explorer.answers
    about = json.loads(json.dumps(explorer.about))
    missing = about["missing"]
    asks: list[dict[str, Any]] = []
    models = range(len(answers.names))
    neighbours: dict[str, Any] | None = None
    shown = set(explorer.parts)
    kinds = {"pca"}
    if answers.reps:
        asks += [{"ask": "map", "model": i, "kind": "pca"} for i in models] if "maps" in shown else []
        umaps = [
            {"ask": "map", "model": i, "kind": "umap", "layer": layer}
            for i in models
            for layer in range(len(answers.layers[i]))
            if "maps" in shown and answers.kept_umap(i, layer) is not None
        ]
        if umaps:
            kinds.add("umap")
        asks += umaps
        if "umap" not in missing and len(umaps) < sum(map(len, answers.layers)):
            missing["umap"] = "A saved page holds the UMAP maps that were computed before it was saved, and no other."
        if "drift" in about["colours"]:
            asks += [{"ask": "drift", "model": i} for i in models]
        states = sum(len(answers.layers[i]) * answers.reps[i].sizes["feature"] for i in models)
        if "alignment" in shown and "alignment" not in missing:
            counts = answers.frame["language"].value_counts().to_numpy(float)
            if (counts.sum() ** 2 - np.square(counts).sum()) / 2 * states > _MOST_FOR_ALIGNMENT:
                missing["alignment"] = (
                    "The alignment of so many sentences at all layers is left out of the saved page; it would take too "
                    "long to write. Save with fewer: explore(most=2000)."
                )
            else:
                asks += [
                    {"ask": "alignment", "model": i, "layer": layer}
                    for i in models
                    for layer in range(len(answers.layers[i]))
                ]
        if "sentences" in shown and answers.n > 1:
            if answers.n**2 * states > _MOST_FOR_NEIGHBOURS:
                about["notes"].append(
                    "The nearest neighbours of so many sentences are left out of the saved page; it would take too "
                    "long to write. Save with fewer: explore(most=2000)."
                )
            else:
                kind: Any = np.uint16 if answers.n < 2**16 else np.uint32
                neighbours = {
                    "k": min(answers.nearest, answers.n - 1),
                    "dtype": np.dtype(kind).name,
                    "models": [
                        {
                            "model": i,
                            "rows": _text(
                                np.stack(
                                    [answers.all_neighbours(i, layer) for layer in range(len(answers.layers[i]))]
                                ).astype(np.dtype(kind).newbyteorder("<"))
                            ),
                        }
                        for i in models
                    ],
                }
    about["kinds"] = [k for k in about["kinds"] if k in kinds]
    if "representer" in about["colours"]:
        about["colours"].remove("representer")
        missing["representers"] = "Representer values are computed by the kernel; a saved page does not hold them."
    if "similarity" in shown:
        base = max(answers.baseline, 0)
        asks += [
            ask
            for measure in about["measures"]
            for i in models
            for ask in (
                {"ask": "similarity", "one": i, "other": base, "measure": measure},
                {"ask": "similarity", "one": base, "other": i, "measure": measure},
            )
            if explorer.cheap(ask) or measure == explorer.measure
        ]
        one, other = (answers.names.index(name) for name in explorer.compared)
        asks.append({"ask": "similarity", "one": one, "other": other, "measure": explorer.measure})
        asks = [ask for at, ask in enumerate(asks) if ask not in asks[:at]]
    given = []
    for ask in asks:
        try:
            give, buffers = explorer.answer(ask)
        except InputError as error:
            give, buffers = {"give": "missing", "ask": ask, "why": str(error)}, []
        given.append({"ask": ask, "give": give, "buffers": [_text(b) for b in buffers]})
    about["static"] = True
    traits: dict[str, Any] = {"about": about}
    for name in (*explorer.DATA, *explorer.STATE):
        if name != "about":
            value = getattr(explorer, name)
            traits[name] = {"bytes": _text(value)} if isinstance(value, bytes) else value
    if traits["kind"] not in about["kinds"]:
        traits["kind"] = "pca"
    if traits["colour"] not in about["colours"]:
        traits["colour"] = about["colours"][0] if about["colours"] else ""
    return {"traits": traits, "answers": given, "neighbours": neighbours}


def _text(values: bytes | np.ndarray) -> str:
    return base64.b64encode(values if isinstance(values, bytes) else np.ascontiguousarray(values).tobytes()).decode()
