"""What an explorer shows, as arrays: models, layers and sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.results.cells import NO_LAYER
from probes.results.table import Table
from probes.states.predictions import class_names
from probes.states.representations import aligned, as_strings, check_representations

_MOST_CODES = 32767
NOT_THERE = (
    "The Representations are not here; they are no part of a saved comparison. Give them: comparison.representations = "
    "{name: probes.open_representations(path), ...}, and explore again."
)
Source = Table | xr.Dataset | Mapping[str, xr.Dataset]


@dataclass(frozen=True, eq=False)
class Scene:
    """What is small: tables, texts and predictions. States are read where they are asked for.

    Attributes:
        table: what was measured; None where only Representations were given.
        given: the Representations as they were given, by name.
        reps: of every model, named as in the table, with the examples of the baseline in its order;
            empty where they are not all there.
        names: of the models; `baseline` is the place of one of them.
        layers: of every model, what its layers are called.
        rows: places of the shown sentences among all `total`.
        frame: of the shown sentences id, language, text and, where there are any, label, text_pair,
            split.
        languages: of the shown sentences, in their order.
        classes, predicted: names of all classes, and which of them each model predicts (model,
            example), -1 for none.
        labels, label_codes: names of all labels, and the label of each sentence (example,), -1 for
            none.
        most, seed: how many sentences were asked for, and which sample of them.
    """

    table: Table | None
    given: dict[str, xr.Dataset]
    reps: list[xr.Dataset]
    names: list[str]
    baseline: int
    layers: list[list[Any]]
    rows: np.ndarray
    total: int
    frame: pd.DataFrame
    languages: list[str]
    classes: list[str]
    predicted: np.ndarray
    labels: list[str]
    label_codes: np.ndarray
    most: int
    seed: int

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

    def as_wide(self, model: int) -> bool:
        """Whether a model's states can be compared with those of the baseline one by one."""
        return self.reps[model].sizes["feature"] == self.reps[self.baseline].sizes["feature"]

    def is_test(self, row: int) -> bool:
        """Whether a shown sentence is one that representers explain."""
        return "split" in self.frame and self.frame["split"].iloc[row] == "test"

    def codes(self) -> np.ndarray:
        """Codes (2 + models, example) of language, label and predictions."""
        language = pd.Categorical(self.frame["language"], self.languages).codes
        return np.concatenate([[language, self.label_codes], self.predicted]).astype("<i2")

    def table_of(self, rows: np.ndarray) -> pd.DataFrame:
        """The sentences of some rows, what models predict for them, and their places among all."""
        table = self.frame.iloc[rows].copy()
        for name, codes in zip(self.names, self.predicted, strict=True):
            if (codes >= 0).any():
                table[f"prediction of {name}"] = [self.classes[c] if c >= 0 else None for c in codes[rows]]
        table["row"] = self.rows[rows]
        table.index = pd.Index(np.asarray(rows, np.int64))
        return table

    def rows_of(self, selection: object) -> np.ndarray:
        """Rows of what a selection was set to: a table, a list of ids or None.

        Raises:
            InputError: it is none of them, or no shown sentence is meant by a part of it.
        """
        frame = self.frame
        if selection is None:
            return np.array([], int)
        if isinstance(selection, pd.DataFrame) and "id" not in selection:
            rows = selection.index.to_numpy()
            bad = [r for r in rows.tolist() if isinstance(r, bool) or not isinstance(r, int) or not 0 <= r < len(frame)]
            if bad:
                raise InputError(
                    f"selection: no shown sentence has the number {plain(bad[:5])}; there are 0 to {len(frame) - 1}. "
                    "Give a table with a column 'id', or a list of ids"
                )
            return pd.unique(rows.astype(int))
        if isinstance(selection, pd.DataFrame):
            wanted = selection[[c for c in ("id", "language") if c in selection]].astype(str)
        elif isinstance(selection, str | bytes) or not isinstance(
            selection, Sequence | pd.Series | pd.Index | np.ndarray
        ):
            raise InputError(f"selection: expected a table, a list of ids or None; found {type(selection).__name__}")
        else:
            wanted = pd.DataFrame({"id": list(map(str, selection))}, dtype=object)
        columns = list(wanted)
        place = frame[columns].astype(object).assign(_row=np.arange(len(frame)))
        found = wanted.drop_duplicates().astype(object).merge(place, on=columns, how="left")
        lost = found[found["_row"].isna()]
        if len(lost):
            names = [v[0] if len(v) == 1 else v for v in lost[columns].head(5).itertuples(index=False, name=None)]
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            few = " in the sample that is shown" if self.n < self.total else ""
            raise InputError(f"selection: no sentence{few} has the {' and '.join(columns)} {plain(names)}{more}")
        return found["_row"].to_numpy(int)


def scene_of(source: Source, *, most: int = 5000, seed: int = 0) -> Scene:
    """Read what is small of Representations, or of a table and those that lie beside it.

    Args:
        source: as an Explorer takes it.
        most: how many sentences are shown at most; of more a sample is drawn by id.
        seed: of that sample.

    Raises:
        InputError: the models do not hold the same sentences, or a setting is no whole number.

    Example:
        >>> import probes
        >>> reps = probes.from_arrays(np.eye(4), label=["b", "a", "b", "a"])
        >>> scene = scene_of({"base": reps, "small": reps})
        >>> scene.names, scene.n, scene.labels
        (['base', 'small'], 4, ['a', 'b'])
    """
    for name, value, least in (("most", most, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name}={value!r}: expected a whole number of at least {least}")
    table: Table | None = None
    if isinstance(source, Table):
        # Of its own, so that it can be told whether that of the source has been replaced since.
        table = Table(source.table, source.provenance, source.draws, models=source.models)
        given = dict(representations_of(source))
        names = [str(m) for m in table.provenance["models"]]
        baseline = names.index(table.baseline)
    else:
        found = {str(source.attrs.get("model", "model")): source} if isinstance(source, xr.Dataset) else source
        if not isinstance(found, Mapping) or not found:
            raise InputError(
                "expected a Comparison, Representations, or a dict name -> Representations; found "
                f"{'an empty dict' if isinstance(found, Mapping) else type(source).__name__}"
            )
        given, names, baseline = dict(found), [str(m) for m in found], 0
    reps = _aligned(given, names, baseline)
    rows = _sample(reps[0]["id"].values, int(most), int(seed)) if reps else np.array([], int)
    columns = ("id", "language", "text", "label", "text_pair", "split")
    frame = pd.DataFrame(
        {c: as_strings(reps[0][c].variable[rows].values) for c in columns if reps and c in reps[0].coords},
        columns=None if reps else ["id", "language", "text"],
    )
    classes, predicted = _predictions(reps, len(names), rows)
    labels, label_codes = _labels(frame, classes)
    return Scene(
        table=table,
        given=given,
        reps=reps,
        names=names,
        baseline=baseline,
        layers=[r["layer"].values.tolist() for r in reps] or [_layers(table, name) for name in names],
        rows=rows,
        total=reps[0].sizes["example"] if reps else 0,
        frame=frame,
        languages=list(dict.fromkeys(frame["language"])),
        classes=classes,
        predicted=predicted,
        labels=labels,
        label_codes=label_codes,
        most=int(most),
        seed=int(seed),
    )


def representations_of(table: Table) -> Mapping[str, xr.Dataset]:
    """The Representations that lie beside a table; none where it is a table alone."""
    return getattr(table, "representations", {})


def plain(names: Iterable[object]) -> str:
    """Names in a sentence."""
    return ", ".join(map(repr, names))


def _aligned(given: Mapping[str, xr.Dataset], names: list[str], baseline: int) -> list[xr.Dataset]:
    """The Representations of all models, with the examples of the baseline in its order; none where
    one is missing.
    """
    if not all(name in given for name in names):
        return []
    first = check_representations(given[names[baseline]])
    out = []
    for name in names:
        other = aligned(first, given[name])
        # Named as in the table, so that messages say which. In another order it is not what the store holds.
        out.append(other.assign_attrs(model=name))
        out[-1].encoding = dict(other.encoding) if other is given[name] else {}
    return out


def _layers(table: Table | None, model: str) -> list[Any]:
    assert table is not None  # since there are no Representations
    there = set(table.table.loc[table.table["model"] == model, "layer"].tolist()) - {NO_LAYER}
    return sorted(there) or [0]


def _sample(ids: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Places of the shown sentences: all, or those of some ids that the seed draws, in whatever
    order they are.
    """
    if len(ids) <= most:
        return np.arange(len(ids))
    codes, names = pd.factorize(ids, sort=True)
    order = np.random.default_rng(seed).permutation(len(names))
    within = np.cumsum(np.bincount(codes)[order]) <= most
    within[0] = True
    taken = np.zeros(len(names), bool)
    taken[order[within]] = True
    return np.flatnonzero(taken[codes])


def _predictions(reps: list[xr.Dataset], models: int, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of all classes, and the class that each model predicts (model, example), -1 where there
    is none.
    """
    codes = np.full((models, len(rows)), -1, np.int16)
    classes: dict[str, int] = {}
    for i, one in enumerate(reps):
        if "logits" not in one:
            continue
        logits = one["logits"].variable.transpose("example", "class").values[rows]
        own = np.array([classes.setdefault(c, len(classes)) for c in class_names(one)])
        there = np.isfinite(logits).all(axis=1)
        codes[i, there] = own[logits[there].argmax(axis=1)]
    return list(classes), codes


def _labels(frame: pd.DataFrame, classes: list[str]) -> tuple[list[str], np.ndarray]:
    """Names of all labels, in the order of the classes or by number, and the label of every
    sentence.
    """
    found = sorted(set(frame["label"])) if "label" in frame else []
    if not found or len(found) > _MOST_CODES:
        return [], np.full(len(frame), -1, np.int16)
    if set(found) <= set(classes):
        found = [c for c in classes if c in set(found)]
    elif all(name.lstrip("-").isdigit() for name in found):
        found.sort(key=int)
    return found, pd.Categorical(frame["label"], found).codes.astype(np.int16)
