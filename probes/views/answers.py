"""What the explorer shows of a comparison: its table and texts as arrays, and the numbers that are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.measures.attribution.representers import RepresenterValues, check_splits, rows_of_representations, solved
from probes.measures.fidelity.similarity import MEASURES, layers_between
from probes.measures.languages.neighbours import translation_accuracy
from probes.results.draws import POOLED
from probes.results.table import Table
from probes.states.predictions import class_names
from probes.states.representations import BLOCK, aligned, as_strings, check_representations, directions
from probes.views.maps import (
    FEWEST_FOR_UMAP,
    Maps,
    domain,
    keep_map,
    layer_maps,
    one_thread,
    open_map,
    read,
    turned,
    umap_map,
    umap_place,
    unit,
)

_KEPT = 2**29  # bytes of directions that are kept
_MOST_CODES = 32767
_QUICK = ("cka", "cka_debiased", "neighbour_overlap")  # measures that are computed when they are asked for
_L2 = 3e-4  # of representers that explain a model
_L2_OF_LABELS = 1e-2  # of those that are trained on labels
_FEW = 5000  # sentences, up to which several threads cost more than they bring
_MOST_FITTED = 4  # models whose representers are kept
NEAREST = 5
NOT_THERE = (
    "The Representations are not here; they are no part of a saved comparison. Give them: comparison.representations = "
    "{name: probes.open_representations(path), ...}, and explore again."
)
Source = Table | xr.Dataset | Mapping[str, xr.Dataset]


class Answers:
    """The numbers behind an explorer. Explorers of one comparison share them, since none of them changes.

    Attributes:
        names: of the models; baseline is the place of one of them.
        layers: of every model, what its layers are called.
        rows: places of the shown sentences among all `total`.
        frame: of the shown sentences id, language, text and, where there are any, label, text_pair, split.
    """

    def __init__(self, source: Source, *, most: int, seed: int, nearest: int = NEAREST) -> None:
        """Read what is small: tables, texts and predictions. States are read when they are asked for."""
        for name, value, least in (("most", most, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")
        self.settings = (int(most), int(seed))
        self.seed, self.nearest = int(seed), nearest
        self.table: pd.DataFrame | None = None
        self.provenance: dict[str, Any] = {}
        given: Mapping[str, xr.Dataset]
        if isinstance(source, Table):
            self.table, self.provenance, given = source.table, source.provenance, getattr(source, "representations", {})
            self.is_map = {p: source.is_map(p) for p in self.provenance["probes"]}
            self.names = [str(m) for m in self.provenance["models"]]
            self.baseline = self.names.index(source.baseline)
        else:
            given = {str(source.attrs.get("model", "model")): source} if isinstance(source, xr.Dataset) else source
            if not isinstance(given, Mapping) or not given:
                raise InputError(
                    "expected a Comparison, Representations, or a dict name -> Representations; found "
                    f"{'an empty dict' if isinstance(given, Mapping) else type(source).__name__}"
                )
            self.names, self.baseline = [str(m) for m in given], 0
        self.source, self.given = source, dict(given)
        self.reps: list[xr.Dataset] = []
        if all(name in given for name in self.names):
            first = check_representations(given[self.names[self.baseline]])
            # Named as in the table, so that messages say which.
            for name in self.names:
                other = aligned(first, given[name])
                # Named as in the table, so that messages say which. In another order it is not what the store holds.
                self.reps.append(other.assign_attrs(model=name))
                self.reps[-1].encoding = dict(other.encoding) if other is given[name] else {}
        self.layers = [self._layers(i) for i in range(len(self.names))]
        self.total = self.reps[0].sizes["example"] if self.reps else 0
        self.rows = self._chosen()
        columns = ("id", "language", "text", "label", "text_pair", "split")
        self.frame = pd.DataFrame(
            {
                c: as_strings(self.reps[0][c].values[self.rows])
                for c in columns
                if self.reps and c in self.reps[0].coords
            },
            columns=None if self.reps else ["id", "language", "text"],
        )
        self.languages = list(dict.fromkeys(self.frame["language"]))
        self.classes, self.predicted = self._predictions()
        self.labels, self.label_codes = self._labels()
        self._lock = threading.RLock()
        self._maps: dict[int, Maps] = {}
        self._umaps: dict[tuple[int, int], np.ndarray] = {}
        self._drifts: dict[int, np.ndarray] = {}
        size = max([4 * len(self.rows) * r.sizes["feature"] for r in self.reps], default=1)
        self.directions = lru_cache(maxsize=max(1, _KEPT // size))(self._directions)
        self.alignment = lru_cache(maxsize=256)(self._alignment)
        self.similarity = lru_cache(maxsize=64)(self._similarity)
        self.fitted: dict[int, RepresenterValues] = {}
        self.unfit: dict[int, str] = {}

    # --- what there is ---

    @property
    def n(self) -> int:
        """How many sentences are shown."""
        return len(self.rows)

    @property
    def deepest(self) -> int:
        """Most layers of any model, at least 1."""
        return max([1, *map(len, self.layers)])

    def last(self, model: int, layer: int) -> int:
        """The layer itself, or the last one of a model that has fewer."""
        return min(layer, len(self.layers[model]) - 1)

    def _layers(self, i: int) -> list[Any]:
        if self.reps:
            return self.reps[i]["layer"].values.tolist()
        assert self.table is not None
        return sorted(self.table.loc[self.table["model"] == self.names[i], "layer"].dropna().unique().tolist()) or [0]

    def _chosen(self) -> np.ndarray:
        """Places of the shown sentences: all, or those of some ids that the seed draws, in whatever order they are."""
        if self.total <= self.settings[0]:
            return np.arange(self.total)
        ids, names = pd.factorize(self.reps[0]["id"].values, sort=True)
        order = np.random.default_rng(self.seed).permutation(len(names))
        within = np.cumsum(np.bincount(ids)[order]) <= self.settings[0]
        within[0] = True
        taken = np.zeros(len(names), bool)
        taken[order[within]] = True
        return np.flatnonzero(taken[ids])

    def _predictions(self) -> tuple[list[str], np.ndarray]:
        """Names of all classes, and the class that each model predicts (model, example), -1 where there is none."""
        codes = np.full((len(self.names), self.n), -1, np.int16)
        classes: dict[str, int] = {}
        for i, reps in enumerate(self.reps):
            if "logits" not in reps:
                continue
            logits = reps["logits"].variable.transpose("example", "class").values[self.rows]
            own = np.array([classes.setdefault(c, len(classes)) for c in class_names(reps)])
            there = np.isfinite(logits).all(axis=1)
            codes[i, there] = own[logits[there].argmax(axis=1)]
        return list(classes), codes

    def _labels(self) -> tuple[list[str], np.ndarray]:
        found = sorted(set(self.frame["label"])) if "label" in self.frame else []
        if not found or len(found) > _MOST_CODES:
            return [], np.full(self.n, -1, np.int16)
        if set(found) <= set(self.classes):
            found = [c for c in self.classes if c in set(found)]
        elif all(name.lstrip("-").isdigit() for name in found):
            found.sort(key=int)
        return found, pd.Categorical(self.frame["label"], found).codes.astype(np.int16)

    def codes(self) -> np.ndarray:
        """Codes (2 + models, example) of language, label and predictions."""
        language = pd.Categorical(self.frame["language"], self.languages).codes
        return np.concatenate([[language, self.label_codes], self.predicted]).astype("<i2")

    def split(self) -> str:
        """Why there are no representer values; empty where there can be."""
        if not self.reps:
            return NOT_THERE
        try:
            check_splits(self.reps[0])
        except InputError as error:
            return str(error).removeprefix("representer_support: ")
        if all("logits" not in r for r in self.reps) and "label" not in self.frame:
            return "no predictions and no labels to explain. Capture models with their heads, or a corpus with a label"
        return ""

    def widths(self, i: int) -> bool:
        """Whether a model's states can be compared with those of the baseline one by one."""
        return self.reps[i].sizes["feature"] == self.reps[self.baseline].sizes["feature"]

    def curves(self) -> tuple[list[dict[str, str]], list[str], np.ndarray]:
        """The probes that are drawn as curves, their languages, and their values.

        Values are (probe, model, language, layer, 4): value, low, high and p_adjusted; those of the output lie at 0.
        """
        if self.table is None or not isinstance(self.source, Table):
            return [], [], np.full((0, len(self.names), 0, self.deepest, 4), np.nan, "<f4")
        from probes.views.figures import title_of

        table = self.table[~self.table["probe"].map(self.is_map).astype(bool)]
        probes = []
        for name, about in self.provenance["probes"].items():
            of_probe = table[table["probe"] == name]
            if of_probe.empty:
                continue
            probes.append(
                {
                    "name": name,
                    "title": title_of(self.source, name)
                    .removesuffix(", higher is better")
                    .removesuffix(", lower is better"),
                    "better": about["better"],
                    "by": "output" if of_probe["layer"].isna().all() else "layer",
                }
            )
        names = [p["name"] for p in probes]
        table = table[table["probe"].isin(names)]
        there = dict.fromkeys(table["language"])
        languages = [POOLED] * (POOLED in there) + [x for x in there if x != POOLED]
        out = np.full((len(names), len(self.names), len(languages), self.deepest, 4), np.nan, "<f4")
        place = [{layer: at for at, layer in enumerate(layers)} for layers in self.layers]
        model = table["model"].map({m: i for i, m in enumerate(self.names)}).to_numpy()
        layer = [
            0 if pd.isna(value) else place[i].get(value, -1)
            for i, value in zip(model, table["layer"].tolist(), strict=True)
        ]
        at = (
            table["probe"].map({p: i for i, p in enumerate(names)}).to_numpy(),
            model,
            table["language"].map({x: i for i, x in enumerate(languages)}).to_numpy(),
            np.array(layer, int),
        )
        keep = at[3] >= 0
        values = table[["value", "low", "high", "p_adjusted"]].astype(float).to_numpy()
        out[tuple(a[keep].astype(int) for a in at)] = np.where(np.isfinite(values), values, np.nan)[keep]
        return probes, languages, out

    def measures(self) -> list[str]:
        """The measures of similarity that there are numbers of, or that are quick enough to compute."""
        known = [] if self.table is None else list(self.provenance["probes"])
        quick = [m for m in _QUICK if self.reps and self.n >= MEASURES[m].fewest]
        return [m for m in MEASURES if m in known or m in quick]

    # --- what is asked for ---

    def maps(self, i: int) -> Maps:
        """The PCA maps of a model."""
        with self._lock:
            if i not in self._maps:
                onto = None if i == self.baseline else self.maps(self.baseline)
                self._maps[i] = layer_maps(self.reps[i], self.rows, onto, seed=self.seed)
            return self._maps[i]

    def domain(self) -> float:
        """How far the axes of all maps go."""
        return domain(self.maps(self.baseline))

    def kept_umap(self, i: int, layer: int) -> np.ndarray | None:
        """The UMAP map of a layer, turned onto its PCA map, where it was computed before."""
        if (i, layer) not in self._umaps:
            found = open_map(umap_place(self.reps[i], layer, self.rows, self.seed), self.n)
            if found is None:
                return None
            self._umaps[i, layer] = self._placed(found, i, layer)
        return self._umaps[i, layer]

    def umap(self, i: int, layer: int, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """The same, computed where it was not; `progress` is called with the epochs done and their number."""
        kept = self.kept_umap(i, layer)
        if kept is not None:
            return kept
        x = read(self.reps[i], layer, self.rows)
        points = umap_map(x, self.maps(i).plain[layer], seed=self.seed, progress=progress).astype(np.float32)
        keep_map(umap_place(self.reps[i], layer, self.rows, self.seed), points)
        self._umaps[i, layer] = self._placed(points, i, layer)
        return self._umaps[i, layer]

    def _placed(self, points: np.ndarray, i: int, layer: int) -> np.ndarray:
        return turned(unit(points.astype(np.float64)), self.maps(i).points[layer]).astype(np.float32)

    def can_umap(self) -> bool:
        """Whether there are sentences enough for UMAP."""
        return self.n >= FEWEST_FOR_UMAP

    def _directions(self, i: int, layer: int) -> np.ndarray:
        """States of the shown sentences at unit length, in float32; NaN where a state has no direction."""
        out = np.empty((self.n, self.reps[i].sizes["feature"]), np.float32)
        for at in range(0, self.n, BLOCK):
            out[at : at + BLOCK] = directions(self.reps[i], layer, self.rows[at : at + BLOCK])
        return out

    def found(self, i: int, layer: int, row: int) -> list[tuple[int, float]]:
        """The nearest shown sentences of one, and their cosines, nearest first."""
        x = self.directions(i, self.last(i, layer))
        cosine = x @ x[row]
        cosine[row] = np.nan
        k = min(self.nearest, int(np.isfinite(cosine).sum()))
        best = np.lexsort((np.arange(self.n), -np.nan_to_num(cosine, nan=-np.inf)))[:k]
        return [(int(r), float(min(cosine[r], 1.0))) for r in best]

    def neighbours(self, row: int, layer: int) -> list[dict[str, Any]]:
        """The nearest sentences of one by every model, and which of them the baseline has too."""
        of_base = [r for r, _ in self.found(self.baseline, layer, row)]
        out = []
        for i in range(len(self.names)):
            found = self.found(i, layer, row)
            own = i == self.baseline
            said = [
                {"row": r, "cosine": c, "state": "" if own else "kept" if r in of_base else "gained"} for r, c in found
            ]
            there = {r for r, _ in found}
            out.append({"model": i, "found": said, "lost": [r for r in of_base if r not in there]})
        return out

    def all_neighbours(self, i: int, layer: int) -> np.ndarray:
        """The nearest sentences (example, k) of every shown sentence; n where there are too few."""
        x = self.directions(i, layer)
        k = min(self.nearest, self.n - 1)
        out = np.empty((self.n, k), np.int64)
        for at in range(0, self.n, BLOCK):
            cosine = np.nan_to_num(x[at : at + BLOCK] @ x.T, nan=-np.inf)
            own = np.arange(len(cosine))
            cosine[own, own + at] = -np.inf
            best = (
                np.argpartition(-cosine, k - 1, axis=1)[:, :k]
                if k < self.n - 1
                else np.tile(np.arange(self.n), (len(own), 1))
            )
            value = np.take_along_axis(cosine, best, axis=1)
            order = np.lexsort((best, -value), axis=1)[:, :k]
            best = np.take_along_axis(best, order, axis=1)
            there = np.isfinite(np.take_along_axis(cosine, best, axis=1))
            out[at : at + BLOCK] = np.where(there, best, self.n)
        return out

    def drift(self, i: int) -> np.ndarray:
        """One minus the cosine to the baseline (layer, example), layer with layer; NaN where there is none."""
        if not self.widths(i):
            base, own = (self.reps[j].sizes["feature"] for j in (self.baseline, i))
            raise InputError(
                f"model {self.names[i]!r} has {own} features and the baseline {base}, so their states cannot be "
                "compared one by one. Look at the similarity of their layers"
            )
        if i not in self._drifts:
            out = np.full((len(self.layers[i]), self.n), np.nan, np.float32)
            for at, layer in enumerate(self.layers[i]):
                if i == self.baseline:
                    out[at] = 0
                elif layer in self.layers[self.baseline]:
                    other = self.layers[self.baseline].index(layer)
                    for lo in range(0, self.n, BLOCK):
                        rows = self.rows[lo : lo + BLOCK]
                        pair = directions(self.reps[i], at, rows), directions(self.reps[self.baseline], other, rows)
                        out[at, lo : lo + BLOCK] = 1 - np.einsum("ij,ij->i", *pair)
            self._drifts[i] = out
        return self._drifts[i]

    def no_alignment(self) -> str:
        """Why there is no alignment of languages; empty where there is."""
        if not self.reps:
            return NOT_THERE
        if len(self.languages) < 2:
            return "There is one language only. Alignment needs the same sentences in two."
        if not self.frame["id"].duplicated().any():
            return (
                "No sentence is there in two languages. Give translations the same id to see whether they lie together."
            )
        return ""

    def _alignment(self, i: int, layer: int) -> np.ndarray:
        """Retrieval (language, language), as `probes.retrieval` has it with either of the two as the pivot."""
        where = [np.flatnonzero(self.frame["language"] == language) for language in self.languages]
        ids = [self.frame["id"].to_numpy()[rows] for rows in where]
        x = self.directions_in_full(i, layer)
        out = np.full((len(where), len(where)), np.nan, "<f4")
        with one_thread() if self.n <= _FEW else nullcontext():
            for a in range(len(where)):
                for b in range(a):
                    _, here, there = np.intersect1d(ids[a], ids[b], assume_unique=True, return_indices=True)
                    if len(here):
                        pair = x[where[a][here]], x[where[b][there]]
                        out[a, b] = out[b, a] = translation_accuracy(*pair, None, np.ones((1, len(here))))[0]
        return out

    def directions_in_full(self, i: int, layer: int) -> np.ndarray:
        """States of the shown sentences at unit length in float64: what decides a tie is small."""
        return directions(self.reps[i], layer, self.rows if self.n < self.total else slice(None))

    def _similarity(self, one: int, other: int, measure: str) -> np.ndarray:
        """Similarity (layer, layer) of two models: from the table where it was measured."""
        for flip, (a, b) in enumerate(((one, other), (other, one))):
            if b == self.baseline and (not flip or MEASURES[measure].symmetric):
                measured = self._measured(a, measure)
                if measured is not None:
                    return measured.T if flip else measured
        if MEASURES[measure].symmetric and one > other:
            return self.similarity(other, one, measure).T
        if not self.reps:
            raise InputError(f"{measure} of these two was not measured. {NOT_THERE}")
        if measure not in _QUICK:
            raise InputError(
                f"{measure} of {self.names[one]!r} and {self.names[other]!r} was not measured, and takes too long to "
                f"wait for. Measure it: probes.compare(..., probes=[{measure!r}], baseline={self.names[other]!r})"
            )
        x, y = (self.reps[m] for m in (one, other))
        value, _ = layers_between(x, None if one == other else y, self.rows, measure, {}, POOLED)
        return value.astype("<f4")

    def _measured(self, i: int, measure: str) -> np.ndarray | None:
        """What the table has of the similarity of a model (rows) and the baseline (columns), all languages together."""
        if self.table is None or measure not in self.provenance["probes"] or "other_layer" not in self.table:
            return None
        t = self.table
        t = t[(t["probe"] == measure) & (t["model"] == self.names[i]) & (t["language"] == POOLED)]
        if t.empty:
            return None
        wide = t.pivot(index="layer", columns="other_layer", values="value").astype(float)
        return wide.reindex(index=self.layers[i], columns=self.layers[self.baseline]).to_numpy("<f4")

    def fit(self, i: int) -> None:
        """Fit the representers of a model once; why they cannot be is kept in their place."""
        if i in self.fitted or i in self.unfit:
            return
        try:
            values = self._representers(i)
        except InputError as error:
            self.unfit[i] = str(error)
            return
        while len(self.fitted) >= _MOST_FITTED:
            del self.fitted[next(iter(self.fitted))]
        self.fitted[i] = values

    def _representers(self, i: int) -> RepresenterValues:
        """Representer values of a model's own predictions, or of a head on the labels where it has none."""
        reps = self.reps[i]
        train, test = (reps.isel(example=rows) for rows in check_splits(reps).values())
        outputs = "logits" in reps
        layer = None if outputs and "head_input" in reps else reps["layer"].values[-1]
        found = rows_of_representations(train, test, None, None, layer, outputs=outputs)
        return solved(*found, _L2 if outputs else _L2_OF_LABELS)

    def is_test(self, row: int) -> bool:
        """Whether a shown sentence is one that representers explain."""
        return "split" in self.frame and self.frame["split"].iloc[row] == "test"

    def explain(
        self, i: int, row: int, values: RepresenterValues, k: int = NEAREST
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Who speaks for the prediction of a test sentence and who against, and the value of every shown sentence."""
        parts = check_splits(self.reps[i])
        at = int(np.searchsorted(parts["test"], self.rows[row]))
        value = values.matrix([at])[0]
        shown = np.full(self.total, -1)
        shown[self.rows] = np.arange(self.n)
        of_train = shown[parts["train"]]
        colours = np.full(self.n, np.nan, "<f4")
        colours[of_train[of_train >= 0]] = value[of_train >= 0]
        out: dict[str, Any] = {"model": self.names[i], "target": str(values.predicted[at])}
        for side, sign in (("excitatory", 1), ("inhibitory", -1)):
            order = np.argsort(-sign * value, kind="stable")[:k]
            out[side] = [
                {
                    **{
                        c: str(values.train[c].iloc[t]) if c in values.train else ""
                        for c in ("text", "language", "label")
                    },
                    "value": float(value[t]),
                    "row": int(of_train[t]),
                }
                for t in order
                if sign * value[t] > 0
            ]
        return out, colours


def plain(names: Iterable[object]) -> str:
    """Names in a sentence."""
    return ", ".join(map(repr, names))
