"""Numbers of a scene: maps, nearest sentences, drift, alignment and similarity of layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from probes.errors import InputError
from probes.measures.fidelity.layer_pairs import layers_between, side_of
from probes.measures.fidelity.similarity import MEASURES
from probes.measures.languages.neighbours import translation_accuracy
from probes.measures.languages.pairs import pairs_of
from probes.results.draws import POOLED
from probes.states.depth import baseline_layers
from probes.states.representations import BLOCK, directions
from probes.views.maps import (
    Maps,
    Plain,
    domain,
    facing,
    keep_map,
    layer_maps,
    one_thread,
    open_map,
    plain_map,
    read,
    turned,
    turned_maps,
    umap_map,
    umap_place,
    unit,
)
from probes.views.scene import NOT_THERE, Scene
from probes.views.speakers import Speakers

KEPT = 2**29  # bytes of directions that are kept
NEAREST = 5
_QUICK = ("cka", "cka_debiased", "neighbour_overlap")  # measures that are computed when they are asked for
_FEW = 5000  # sentences, up to which several threads cost more than they bring
MANY = 5000  # sentences, above which the map of the layer that is shown does not wait for those of others
TURNED_BY = 2048  # of these, the first ones, all are turned then


class Numbers:
    """What was computed of a scene, kept. Explorers of one comparison share it.

    Attributes:
        scene: what the numbers are of.
        speakers: who speaks for a prediction.
        directions: of a model and layer the states of all sentences at unit length, as
            `unit_states` gives them.
        drift, alignment: of a model, and of a model and layer, what the functions of these names
            give.
        similarity: of two models by a measure, (layer, layer).
    """

    def __init__(self, scene: Scene) -> None:
        """Compute nothing yet."""
        self.scene, self.speakers = scene, Speakers(scene)
        size = max([4 * scene.n * r.sizes["feature"] for r in scene.reps], default=1)
        self.directions = lru_cache(maxsize=max(1, KEPT // size))(partial(unit_states, scene))
        self.drift = cache(partial(drift, scene))
        self.alignment = lru_cache(maxsize=256)(partial(alignment, scene))
        self.similarity = lru_cache(maxsize=64)(self._similarity)
        self._lock = threading.RLock()
        self._maps: dict[int, Maps] = {}
        self._of_first: Maps | None = None
        self._plains: dict[tuple[int, int], Plain] = {}
        self._umaps: dict[tuple[int, int], np.ndarray] = {}

    @property
    def one_by_one(self) -> bool:
        """Whether there are so many sentences that each layer has its map by itself."""
        return self.scene.n > MANY

    def maps(self, model: int) -> Maps:
        """The PCA maps of a model."""
        scene = self.scene
        with self._lock:
            if model not in self._maps:
                onto = self._onto(model)
                plain = [self._plain(model, layer) for layer in range(len(scene.layers[model]))]
                self._maps[model] = turned_maps(plain, onto)
                for layer in range(len(plain)):
                    del self._plains[model, layer]
            return self._maps[model]

    def map_of(self, model: int, layer: int) -> np.ndarray:
        """The PCA map (example, 2) of one layer, without those of other layers where it can be: of few
        sentences all of the baseline are needed, since it is turned onto them.
        """
        scene = self.scene
        with self._lock:
            onto = None if model in self._maps else self._onto(model)
            if onto is None:
                return self.maps(model).points[layer]
            side = facing(onto, layer, len(scene.layers[model]))
            return turned(self._plain(model, layer).points, side).astype(np.float32)

    def _onto(self, model: int) -> Maps | None:
        """The maps that those of a model are turned onto: the baseline's, which are turned onto each
        other. Of many sentences they are those of the first sentences, also for the baseline.
        """
        scene = self.scene
        if not self.one_by_one:
            return None if model == scene.baseline else self.maps(scene.baseline)
        with self._lock:
            if self._of_first is None:
                self._of_first = layer_maps(scene.reps[scene.baseline], scene.rows[:TURNED_BY], seed=scene.seed)
            return self._of_first

    def read_for(self, models: Sequence[str]) -> float:
        """Bytes of states that are read at most for the maps of a layer of some models, by name."""
        scene = self.scene
        base = scene.names[scene.baseline]
        share = scene.n / max(scene.total, 1)
        every = {r.attrs["model"]: r["hidden"].nbytes * share for r in scene.reps}
        if not self.one_by_one:
            return sum(size for name, size in every.items() if name in {base, *models})
        first = every[base] * TURNED_BY / scene.n if every else 0.0
        return first + sum(every[r.attrs["model"]] / r.sizes["layer"] for r in scene.reps if r.attrs["model"] in models)

    def _plain(self, model: int, layer: int) -> Plain:
        if (model, layer) not in self._plains:
            scene = self.scene
            self._plains[model, layer] = plain_map(scene.reps[model], layer, scene.rows, seed=scene.seed)
        return self._plains[model, layer]

    def domain(self) -> float:
        """How far the axes of all maps go."""
        return domain(self._onto(self.scene.baseline) or self.maps(self.scene.baseline))

    def kept_umap(self, model: int, layer: int) -> np.ndarray | None:
        """The UMAP map of a layer, turned onto its PCA map, where it was computed before."""
        scene = self.scene
        if (model, layer) not in self._umaps:
            found = open_map(umap_place(scene.reps[model], layer, scene.rows, scene.seed), scene.n)
            if found is None:
                return None
            self._umaps[model, layer] = self._placed(found, model, layer)
        return self._umaps[model, layer]

    def umap(self, model: int, layer: int, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """The same, computed where it was not; `progress` is given epochs done and their number."""
        kept = self.kept_umap(model, layer)
        if kept is not None:
            return kept
        scene = self.scene
        x = read(scene.reps[model], layer, scene.rows)
        start = self.maps(model).plain[layer]
        points = umap_map(x, start, seed=scene.seed, progress=progress).astype(np.float32)
        keep_map(umap_place(scene.reps[model], layer, scene.rows, scene.seed), points)
        self._umaps[model, layer] = self._placed(points, model, layer)
        return self._umaps[model, layer]

    def _placed(self, points: np.ndarray, model: int, layer: int) -> np.ndarray:
        return turned(unit(points.astype(np.float64)), self.maps(model).points[layer]).astype(np.float32)

    def found(self, model: int, layer: int, row: int) -> list[tuple[int, float]]:
        """The nearest shown sentences of one, and their cosines, nearest first."""
        return nearest(self.directions(model, self.scene.last(model, layer)), row, NEAREST)

    def neighbours(self, row: int, layer: int) -> list[dict[str, Any]]:
        """The nearest sentences of one by every model, and which of them the baseline has too."""
        of_base = [r for r, _ in self.found(self.scene.baseline, layer, row)]
        out = []
        for model in range(len(self.scene.names)):
            found = self.found(model, layer, row)
            own = model == self.scene.baseline
            said = [
                {"row": r, "cosine": c, "state": "" if own else "kept" if r in of_base else "gained"} for r, c in found
            ]
            there = {r for r, _ in found}
            out.append({"model": model, "found": said, "lost": [r for r in of_base if r not in there]})
        return out

    def all_neighbours(self, model: int, layer: int) -> np.ndarray:
        """The nearest sentences (example, k) of every shown sentence; n where there are too few."""
        return all_nearest(self.directions(model, layer), NEAREST)

    def _similarity(self, one: int, other: int, measure: str) -> np.ndarray:
        if MEASURES[measure].symmetric and one > other:
            return self.similarity(other, one, measure).T
        return similarity(self.scene, one, other, measure)


def unit_states(scene: Scene, model: int, layer: int) -> np.ndarray:
    """States of the shown sentences at unit length, in float32; NaN where one has no direction."""
    out = np.empty((scene.n, scene.reps[model].sizes["feature"]), np.float32)
    for at in range(0, scene.n, BLOCK):
        out[at : at + BLOCK] = directions(scene.reps[model], layer, scene.rows[at : at + BLOCK])
    return out


def nearest(x: np.ndarray, row: int, k: int) -> list[tuple[int, float]]:
    """Return the rows that are nearest to one by cosine, and their cosines, nearest first.

    Args:
        x: (example, feature) at unit length; a row of NaN is near to none.
        row: the one; it is not among them.
        k: how many at most.

    Example:
        >>> nearest(np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]), 0, 2)
        [(2, 0.8), (1, 0.6)]
    """
    cosine = x @ x[row]
    cosine[row] = np.nan
    k = min(k, int(np.isfinite(cosine).sum()))
    best = np.lexsort((np.arange(len(x)), -np.nan_to_num(cosine, nan=-np.inf)))[:k]
    return [(int(r), float(min(cosine[r], 1.0))) for r in best]


def all_nearest(x: np.ndarray, k: int) -> np.ndarray:
    """Return the rows (example, k) that are nearest to every row by cosine, n where there is none.

    Args:
        x: (example, feature) at unit length; a row of NaN is near to none.
        k: how many; one less than there are rows at most.

    Example:
        >>> all_nearest(np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]]), 2).tolist()
        [[2, 1], [2, 0], [1, 0]]
    """
    n = len(x)
    k = min(k, n - 1)
    out = np.empty((n, k), np.int64)
    for at in range(0, n, BLOCK):
        cosine = np.nan_to_num(x[at : at + BLOCK] @ x.T, nan=-np.inf)
        own = np.arange(len(cosine))
        cosine[own, own + at] = -np.inf
        best = np.argpartition(-cosine, k - 1, axis=1)[:, :k] if k < n - 1 else np.tile(np.arange(n), (len(own), 1))
        value = np.take_along_axis(cosine, best, axis=1)
        order = np.lexsort((best, -value), axis=1)[:, :k]
        best = np.take_along_axis(best, order, axis=1)
        there = np.isfinite(np.take_along_axis(cosine, best, axis=1))
        out[at : at + BLOCK] = np.where(there, best, n)
    return out


def drift(scene: Scene, model: int) -> np.ndarray:
    """Return one minus the cosine to the baseline (layer, example); NaN where there is none.

    Raises:
        InputError: the model is not as wide as the baseline.
    """
    base = scene.baseline
    if not scene.as_wide(model):
        raise InputError(
            f"model {scene.names[model]!r} has {scene.reps[model].sizes['feature']} features and the baseline "
            f"{scene.reps[base].sizes['feature']}, so their states cannot be compared one by one. Look at the "
            "similarity of their layers"
        )
    out = np.full((len(scene.layers[model]), scene.n), np.nan, np.float32)
    pairs = baseline_layers(scene.reps[base], scene.reps[model])
    for at, layer in enumerate(scene.layers[model]):
        if model == base:
            out[at] = 0
        elif layer in pairs:
            other = scene.layers[base].index(pairs[layer])
            for lo in range(0, scene.n, BLOCK):
                rows = scene.rows[lo : lo + BLOCK]
                pair = directions(scene.reps[model], at, rows), directions(scene.reps[base], other, rows)
                out[at, lo : lo + BLOCK] = 1 - np.einsum("ij,ij->i", *pair)
    return out


def no_alignment(scene: Scene) -> str:
    """Why there is no alignment of languages; empty where there is."""
    if not scene.reps:
        return NOT_THERE
    if len(scene.languages) < 2:
        return "There is one language only. Alignment needs the same sentences in two."
    if not scene.frame["id"].duplicated().any():
        return "No sentence is there in two languages. Give translations the same id to see whether they lie together."
    return ""


def alignment(scene: Scene, model: int, layer: int) -> np.ndarray:
    """Retrieval (language, language), as `probes.retrieval` has it with either as the pivot."""
    where = [np.flatnonzero(scene.frame["language"] == language) for language in scene.languages]
    ids = [scene.frame["id"].to_numpy()[rows] for rows in where]
    # In float64: what decides a tie is small.
    x = directions(scene.reps[model], layer, scene.rows if scene.n < scene.total else slice(None))
    out = np.full((len(where), len(where)), np.nan, "<f4")
    with one_thread() if scene.n <= _FEW else nullcontext():
        for a in range(len(where)):
            for b in range(a):
                _, here, there = np.intersect1d(ids[a], ids[b], assume_unique=True, return_indices=True)
                if len(here):
                    pairs = pairs_of(x[where[a][here]], x[where[b][there]])
                    out[a, b] = out[b, a] = translation_accuracy(pairs, np.ones((1, len(here))), by_margin=False)[0]
    return out


def measures(scene: Scene) -> list[str]:
    """The measures of similarity that there are numbers of, or that are quick enough to compute."""
    known = set() if scene.table is None else set(scene.table.provenance["probes"])
    quick = {m for m in _QUICK if scene.reps and scene.n >= MEASURES[m].fewest}
    return [m for m in MEASURES if m in known | quick]


def similarity(scene: Scene, one: int, other: int, measure: str) -> np.ndarray:
    """Similarity (layer, layer) of two models: from the table where it was measured.

    Raises:
        InputError: it was not measured, and takes too long or lacks the Representations.
    """
    for flip, (a, b) in enumerate(((one, other), (other, one))):
        if b == scene.baseline and (not flip or MEASURES[measure].symmetric):
            measured = _measured(scene, a, measure)
            if measured is not None:
                return measured.T if flip else measured
    if not scene.reps:
        raise InputError(f"{measure} of these two was not measured. {NOT_THERE}")
    if measure not in _QUICK:
        raise InputError(
            f"{measure} of {scene.names[one]!r} and {scene.names[other]!r} was not measured, and takes too long to "
            f"wait for. Measure it: probes.compare(..., probes=[{measure!r}], baseline={scene.names[other]!r})"
        )
    x = side_of(scene.reps[one], scene.rows)
    y = None if one == other else side_of(scene.reps[other], scene.rows)
    value, _, _ = layers_between(MEASURES[measure], x, y)
    return value.astype("<f4")


def _measured(scene: Scene, model: int, measure: str) -> np.ndarray | None:
    """What the table has of the similarity of a model (rows) and the baseline (columns), all
    languages together.
    """
    if scene.table is None or measure not in scene.table.provenance["probes"]:
        return None
    t = scene.table.table
    if "other_layer" not in t:
        return None
    t = t[(t["probe"] == measure) & (t["model"] == scene.names[model]) & (t["language"] == POOLED)]
    if t.empty:
        return None
    wide = t.pivot(index="layer", columns="other_layer", values="value").astype(float)
    return wide.reindex(index=scene.layers[model], columns=scene.layers[scene.baseline]).to_numpy("<f4")
