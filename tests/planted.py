"""Planted data: states whose classes, translations and noise are known."""

from __future__ import annotations

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
) -> xr.Dataset:
    """Sentences with a class, a part that their translations share, a shift of their language, and noise.

    The variance of the noise falls over the features as 1 / k ** decay; classes differ along the first ones.
    """
    noise = np.sqrt(features * np.arange(1, features + 1) ** -decay / (np.arange(1, features + 1) ** -decay).sum())
    label = np.arange(ids) % classes
    hidden = []
    for _ in range(layers):
        sentence = noise * rng.normal(size=(ids, features))
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
