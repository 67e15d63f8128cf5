"""Planted data: states whose classes, translations and noise are known."""

from __future__ import annotations

import datasets
import numpy as np
import xarray as xr

import probes


def planted(
    rng: np.random.Generator,
    *,
    ids: int = 120,
    features: int = 16,
    classes: int = 4,
    distance: float = 3.0,
    languages: int = 2,
    layers: int = 1,
    shared: float = 0.7,
    decay: float = 0.0,
    alike: int = 1,
) -> xr.Dataset:
    """Sentences with a class, a part that their translations share, a shift of their language, and noise.

    The variance of the noise falls over the features as 1 / k ** decay; classes differ along the first ones. So many
    sentences in a row are of one document: of one class and alike.
    """
    noise = np.sqrt(features * np.arange(1, features + 1) ** -decay / (np.arange(1, features + 1) ** -decay).sum())
    label = np.arange(ids) // alike % classes
    hidden = []
    for _ in range(layers):
        sentence = noise * in_groups(rng, ids, features, alike)
        hidden.append(
            np.concatenate(
                [
                    distance * np.eye(features)[label]
                    + np.sqrt(shared) * sentence
                    + np.sqrt(1 - shared) * noise * rng.normal(size=(ids, features))
                    + 0.5 * np.eye(features)[-1 - language]
                    for language in range(languages)
                ]
            )
        )
    return probes.from_arrays(
        np.stack(hidden),
        id=np.tile(np.arange(ids), languages),
        language=np.repeat([f"l{k}" for k in range(languages)], ids),
        label=np.tile(label, languages),
    )


def in_groups(rng: np.random.Generator, ids: int, features: int, alike: int) -> np.ndarray:
    """Standard normal rows, of which so many in a row have half of their variance in common."""
    own = rng.normal(size=(ids, features))
    if alike == 1:
        return own
    common = rng.normal(size=(-(-ids // alike), features))
    return (own + common[np.arange(ids) // alike]) / np.sqrt(2)


def classes_apart(seed=0, n=90, d=12, classes=3, distance=2.0):
    """States (example, feature) of classes that lie apart, and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % classes)
    return rng.normal(size=(n, d)) + distance * np.eye(d)[y] + 1.0, y


def with_split(reps, test=1 / 3, dev=0.0):
    """Give the last ids to the test split, and some before them to dev."""
    ids = reps.id.values.astype(int)
    share = (ids + 0.5) / (ids.max() + 1)
    split = np.where(share > 1 - test, "test", np.where(share > 1 - test - dev, "dev", "train"))
    return reps.assign_coords(split=("example", split.astype(object)))


def translations(seed=0, n=60, d=10, noise=0.8):
    """Two arrays (sentence, feature): sentences, and their translations with some noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x + 0.3, x + noise * rng.normal(size=(n, d)) + 0.3


def with_logits(reps, logits, classes=("a", "b", "c")):
    """Representations with the outputs of a head."""
    return reps.assign(logits=(("example", "class"), np.asarray(logits))).assign_coords({"class": list(classes)})


def parallel_corpus(**columns: list[str]) -> datasets.Dataset:
    """Sixteen texts without meaning in two languages and two classes."""
    frame = {"id": [*"abcdefgh"] * 2, "language": ["en"] * 8 + ["fr"] * 8, "text": [f"t{i}" for i in range(16)]}
    return datasets.Dataset.from_dict(frame | {"label": [*"xxxxyyyy"] * 2} | columns)
