"""Who speaks for a prediction: representer values of the models of a scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.measures.attribution.representer_support import check_splits
from probes.measures.attribution.representers import solved
from probes.measures.attribution.rows import rows_of_representations
from probes.measures.attribution.values import RepresenterValues
from probes.states.representations import as_strings, from_arrays
from probes.views.scene import NOT_THERE, Scene

MOST_FITTED = 4  # models whose representers are kept
_L2 = 3e-4  # of representers that explain a model
_L2_OF_LABELS = 1e-2  # of those that are trained on labels
_MOST = 5  # sentences for a prediction, and against


class Speakers:
    """The representer values of a scene, of each model once.

    Attributes:
        fitted: of a model, by its place, the values.
        unfit: of a model why there are none.
    """

    def __init__(self, scene: Scene) -> None:
        """Fit nothing yet."""
        self.scene = scene
        self.fitted: dict[int, RepresenterValues] = {}
        self.unfit: dict[int, str] = {}

    def fit(self, model: int) -> None:
        """Fit the representers of a model once; why they cannot be is kept in their place."""
        if model in self.fitted or model in self.unfit:
            return
        try:
            values = _values(self.scene.reps[model])
        except InputError as error:
            self.unfit[model] = str(error)
            return
        while len(self.fitted) >= MOST_FITTED:
            del self.fitted[next(iter(self.fitted))]
        self.fitted[model] = values


def no_representers(scene: Scene) -> str:
    """Why there are no representer values; empty where there can be."""
    if not scene.reps:
        return NOT_THERE
    try:
        check_splits(scene.reps[0])
    except InputError as error:
        return str(error).removeprefix("representer_support: ")
    if all("logits" not in r for r in scene.reps) and "label" not in scene.frame:
        return "no predictions and no labels to explain. Capture models with their heads, or a corpus with a label"
    return ""


def explain(scene: Scene, model: int, row: int, values: RepresenterValues) -> tuple[dict[str, Any], np.ndarray]:
    """Return who speaks for a prediction and who against, and the value of every shown sentence.

    Args:
        scene: where the sentences are shown.
        model: whose prediction it is.
        row: of the sentence, one of the split "test".
        values: of the model.

    Returns:
        Names and texts of the strongest on either side, and (example,) float32, NaN where a
        sentence is not trained on.
    """
    parts = check_splits(scene.reps[model])
    at = int(np.searchsorted(parts["test"], scene.rows[row]))
    value = values.matrix([at])[0]
    shown = np.full(scene.total, -1)
    shown[scene.rows] = np.arange(scene.n)
    of_train = shown[parts["train"]]
    colours = np.full(scene.n, np.nan, "<f4")
    colours[of_train[of_train >= 0]] = value[of_train >= 0]
    train = values.train
    out: dict[str, Any] = {"model": scene.names[model], "target": str(values.predicted[at])}
    for side, sign in (("excitatory", 1), ("inhibitory", -1)):
        order = np.argsort(-sign * value, kind="stable")[:_MOST]
        out[side] = [
            {c: str(train[c].iloc[t]) if c in train else "" for c in ("text", "language", "label")}
            | {"value": float(value[t]), "row": int(of_train[t])}
            for t in order
            if sign * value[t] > 0
        ]
    return out, colours


def as_representations(values: RepresenterValues) -> xr.Dataset:
    """Return the features of representer values as one layer, the rows trained on first."""
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
    reps.attrs["first_layer"] = "the head's input"
    return reps.assign_coords(split=("example", as_strings(split))).assign(
        logits=xr.DataArray(logits, dims=("example", "class"), coords={"class": as_strings(values.classes)})
    )


def _values(reps: xr.Dataset) -> RepresenterValues:
    """Representer values of a model's own predictions, or of a head on the labels where it has
    none.
    """
    train, test = (reps.isel(example=rows) for rows in check_splits(reps).values())
    outputs = "logits" in reps
    layer = None if outputs and "head_input" in reps else reps["layer"].values[-1]
    found = rows_of_representations(train, test, None, None, layer, outputs=outputs)
    return solved(*found, _L2 if outputs else _L2_OF_LABELS)
