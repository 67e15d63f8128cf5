"""What representers read: features, coordinates and outputs of both sides, all checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import xarray as xr

from probes.errors import InputError, LayerscopeWarning
from probes.models.fingerprint import weights_fingerprint
from probes.states.representations import BLOCK, as_numbers, as_strings, check_representations, states


@dataclass(frozen=True)
class Rows:
    """One side, train or test: features with the constant 1, coordinates, and the outputs that are
    explained.
    """

    features: np.ndarray
    frame: pd.DataFrame
    outputs: np.ndarray | None


def rows_of_representations(
    train: xr.Dataset,
    test: xr.Dataset,
    labels: npt.ArrayLike | None,
    head: torch.nn.Module | None,
    layer: object,
    *,
    outputs: bool = False,
) -> tuple[Rows, Rows, list[str], str]:
    """Read both sides. Explained are the outputs of a head, or those that the Representations hold,
    or labels.
    """
    outputs = outputs or head is not None
    if labels is not None:
        raise InputError(
            "labels go beside arrays; Representations carry their own. Set them with reps.assign_coords(label=...)"
        )
    sides = {"train": check_representations(train), "test": check_representations(test)}
    for name, reps in sides.items():
        if 0 in reps["hidden"].shape:
            raise InputError(f"{name} is empty: expected hidden (layer, example, feature), found {dict(reps.sizes)}")
    for key in ("weights", "pooling"):
        if key in train.attrs and key in test.attrs and train.attrs[key] != test.attrs[key]:
            raise InputError(
                f"train and test differ in {key}: {train.attrs[key]!r} and {test.attrs[key]!r}. Capture both with one "
                "model and the same settings"
            )
    frames = {
        name: pd.DataFrame({c: as_strings(reps[c].values) for c in ("id", "language", "label", "text") if c in reps})
        for name, reps in sides.items()
    }
    model = train.attrs.get("model", "given")
    if not outputs:
        classes = _classes_of_labels(frames["train"], frames["test"])
        layer = train["layer"].values[-1] if layer is None else layer
        explains = f"labels from layer {layer} of model {model}"
    else:
        classes = _classes_of_outputs(sides, head)
        explains = f"model {model} from " + ("the input of its head" if layer is None else f"layer {layer}")
    widths = {}
    for name, reps in sides.items():
        if layer is None and "head_input" not in reps:
            raise InputError(
                f"{name}: no head_input, the input of the model's last linear layer. Capture it with a model that has "
                f"one, or name the layer to explain from: layer={reps['layer'].values[-1]}"
            )
        if layer is not None and layer not in reps["layer"].values.tolist():
            raise InputError(
                f"layer={layer!r}: no such layer in {name}; there are {', '.join(map(str, reps['layer'].values))}"
            )
        widths[name] = reps["head_input" if layer is None else "hidden"].shape[-1]
    _check_widths(widths)
    shared = set(frames["train"]["id"]) & set(frames["test"]["id"])
    if shared:
        warnings.warn(
            f"representers: {len(shared)} of {frames['test']['id'].nunique()} test ids are also in train (the row "
            "itself or a translation): what supports such a row is mostly itself. Split by id",
            LayerscopeWarning,
            stacklevel=3,
        )
    out = []
    for name, reps in sides.items():
        position = None if layer is None else reps["layer"].values.tolist().index(layer)
        features = _filled(_reader(reps, position), widths[name], frames[name], name, layer)
        out.append(Rows(features, frames[name], _logits(reps, name, frames[name]) if outputs else None))
    return out[0], out[1], classes, explains


def rows_of_arrays(
    train: npt.ArrayLike, test: npt.ArrayLike, labels: npt.ArrayLike | None, head: torch.nn.Module | None, layer: object
) -> tuple[Rows, Rows, list[str], str]:
    """Check both arrays. Explained are the outputs of a head on them, or the labels."""
    if layer is not None:
        raise InputError(f"layer={layer!r} is for Representations; arrays (example, feature) have no layers")
    if labels is None and head is None:
        raise InputError("expected labels, one a training row, or head, the torch.nn.Linear that the arrays feed")
    arrays = {"train": as_numbers(train), "test": as_numbers(test)}
    for name, x in arrays.items():
        if x.ndim != 2 or 0 in x.shape or x.dtype.kind not in "fiub":
            raise InputError(
                f"{name}: expected real numbers (example, feature), none of the two 0; found {x.shape} of {x.dtype}"
            )
    _check_widths({name: x.shape[1] for name, x in arrays.items()})
    frames = {name: pd.DataFrame({"id": as_strings(range(len(x))), "language": "und"}) for name, x in arrays.items()}
    if head is None:
        given = np.asarray(labels)
        if given.shape != (len(arrays["train"]),):
            raise InputError(f"labels: expected {len(arrays['train'])}, one a training row; found {given.shape}")
        null = np.flatnonzero(pd.isna(given.astype(object)))
        if len(null):
            raise InputError(f"labels: null in row {null[0]}. Every training row needs one: fill it, or drop the row")
        frames["train"]["label"] = as_strings(given)
        # In their own order: numbers not as if they were words.
        classes = list(as_strings(np.unique(given))) if given.dtype.kind in "iub" else None
        classes = _classes_of_labels(frames["train"], frames["test"], classes)
    else:
        if not isinstance(head, torch.nn.Linear):
            raise InputError(
                f"head: expected the torch.nn.Linear that the arrays feed, found {type(head).__name__}. To explain a "
                "whole model give Representations, from probes.capture(...)"
            )
        if head.in_features != arrays["train"].shape[1]:
            raise InputError(
                f"head takes {head.in_features} features, and the arrays have {arrays['train'].shape[1]}. Give what is "
                "fed to it"
            )
        classes = [str(c) for c in range(max(head.out_features, 2))]
    out = []
    for name, x in arrays.items():
        features = _filled(x.__getitem__, x.shape[1], frames[name], name, None)
        out.append(Rows(features, frames[name], None if head is None else _outputs(head, features)))
    return out[0], out[1], classes, "labels" if head is None else "a linear head"


def _classes_of_labels(train: pd.DataFrame, test: pd.DataFrame, classes: list[str] | None = None) -> list[str]:
    if "label" not in train:
        raise InputError(
            "expected head=model, to explain its outputs, or a coordinate 'label' on train, to train on; found neither"
        )
    classes = sorted(set(train["label"])) if classes is None else classes
    if len(classes) < 2:
        raise InputError(f"expected at least 2 classes among the training labels, found only {classes[0]!r}")
    if "label" in test and (unseen := sorted(set(test["label"]) - set(classes))):
        raise InputError(
            f"test row {int(np.flatnonzero(test['label'] == unseen[0])[0])} has the label {unseen[0]!r}, which no "
            f"training row has; those are {', '.join(map(repr, classes))}. Add such rows to train, or drop it from test"
        )
    return classes


def _classes_of_outputs(sides: dict[str, xr.Dataset], head: torch.nn.Module | None) -> list[str]:
    """Return the classes of the logits, having checked that they are those of this model."""
    kind = getattr(getattr(head, "config", None), "problem_type", None)
    if kind not in (None, "single_label_classification"):
        raise InputError(
            f"head: its problem_type is {kind!r}; only single_label_classification, one class a text, can be explained"
        )
    own = None if head is None else weights_fingerprint(head)
    for name, reps in sides.items():
        if "logits" not in reps:
            raise InputError(
                f"{name}: no logits, the outputs that are to be explained. Capture a model with a classification head, "
                "or leave head out to train on labels"
            )
        if own is not None and reps.attrs.get("weights") != own:
            raise InputError(
                f"{name}: expected states of the model that head is (weights {own}), found "
                f"{reps.attrs.get('weights', 'none named')}. Capture {name} again with this model"
            )
        if reps.sizes["class"] < 2:
            raise InputError(f"{name}: expected logits of at least 2 classes, found one; a regression has no classes")
    return list(as_strings(sides["train"]["class"].values))


def _check_widths(widths: dict[str, int]) -> None:
    if widths["train"] != widths["test"]:
        raise InputError(
            f"train has {widths['train']} features and test {widths['test']}. Both must come from the same layer of "
            "the same model"
        )


def _reader(reps: xr.Dataset, position: int | None) -> Callable[[slice], np.ndarray]:
    if position is None:
        return lambda rows: reps["head_input"].variable.isel(example=rows).values
    return lambda rows: states(reps, position, rows)


def _filled(
    read: Callable[[slice], np.ndarray], width: int, frame: pd.DataFrame, name: str, layer: object
) -> np.ndarray:
    """Return the features (row, feature + 1) in float64, the constant 1 last, having checked that
    all are finite.
    """
    out = np.empty((len(frame), width + 1))
    out[:, -1] = 1
    for i in range(0, len(out), BLOCK):
        part = out[i : i + BLOCK]
        part[:, :-1] = read(slice(i, i + len(part)))
        _check_finite(part, i, frame, name, "" if layer is None else f", layer {layer}")
    return out


def _check_finite(x: np.ndarray, start: int, frame: pd.DataFrame, name: str, where: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        bad = np.flatnonzero(~np.isfinite(np.einsum("ij,ij->i", x, x)))  # also where a square is too large
    if len(bad):
        row = start + int(bad[0])
        raise InputError(
            f"{name} row {row} (id {frame['id'][row]!r}, language {frame['language'][row]!r}{where}): not finite. Find "
            "out which text or weight causes it, or drop the row"
        )


def _logits(reps: xr.Dataset, name: str, frame: pd.DataFrame) -> np.ndarray:
    logits = reps["logits"].variable.transpose("example", "class").values.astype(np.float64)
    _check_finite(logits, 0, frame, name, ", logits")
    return logits


def _outputs(head: torch.nn.Linear, features: np.ndarray) -> np.ndarray:
    weight = head.weight.detach().cpu().double().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().cpu().double().numpy()
    z = features[:, :-1] @ weight.T + bias
    return np.concatenate([-z / 2, z / 2], axis=1) if len(weight) == 1 else z
