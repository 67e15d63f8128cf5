"""Binary codes of sentences, which maps are coloured by: what `latent_features` found of those that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probes.errors import InputError
from probes.views.scene import Scene


@dataclass(frozen=True)
class Latent:
    """Codes of the shown sentences.

    Attributes:
        names: of the codes, as they are chosen by.
        said: of each code, how stable it is and what it tells, each beside what chance gives.
        has: (code, example) 1 where a sentence has it, 0 where not, -1 where that is not known.
        model: whose states the codes are of.
    """

    names: list[str]
    said: list[str]
    has: np.ndarray
    model: str

    def about(self) -> dict[str, Any]:
        """What the front is told; the codes themselves stand after those of predictions."""
        return {"names": self.names, "said": self.said, "model": self.model}


def latent_in(scene: Scene, found: xr.Dataset | None) -> Latent:
    """Return the codes of the sentences that a scene shows; none where none are given.

    Args:
        scene: what is shown.
        found: what `probes.latent_features` returned, of any of these sentences.

    Raises:
        InputError: it is no such result, or holds none of the shown sentences.

    Example:
        >>> import probes
        >>> from probes.views.scene import scene_of
        >>> codes = np.arange(60) % 2 == 0
        >>> reps = probes.from_arrays(codes[:, None] * np.ones((60, 3)))
        >>> latent_in(scene_of(reps), probes.latent_features(reps, k=1, refits=2)).names
        ['code 1']
    """
    if found is None or not scene.reps:
        return Latent([], [], np.zeros((0, scene.n), np.int16), "")
    if not isinstance(found, xr.Dataset) or not {"codes", "id", "of_language"} <= set(found.variables):
        raise InputError(
            f"latent: expected what probes.latent_features returned; found {type(found).__name__}. Give "
            "latent=probes.latent_features(reps)"
        )
    place = pd.MultiIndex.from_arrays([found["id"].values.astype(str), found["of_language"].values.astype(str)])
    shown = pd.MultiIndex.from_arrays([scene.frame["id"].astype(str), scene.frame["language"].astype(str)])
    at = place.get_indexer(shown)
    if (at < 0).all():
        raise InputError(
            f"latent: none of the {scene.n:,} shown sentences is among the {len(place):,} whose codes are given. Find "
            "codes of the sentences that are shown"
        )
    codes = found["codes"].transpose("code", "example").values.astype(np.int16)
    names = [str(name) for name in found["code"].values]
    return Latent(
        names,
        [_said(found, k) for k in range(len(names))],
        np.where(at < 0, -1, codes[:, at]),
        str(found.attrs["model"]),
    )


def _said(found: xr.Dataset, code: int) -> str:
    told = found.isel(code=code)
    parts = [f"stability {float(told['stability']):.2f}, by chance {float(told['stability_chance']):.2f}"]
    for what in found["about"].values.tolist():
        nats, chance = (float(told[name].sel(about=what)) for name in ("information", "chance"))
        parts.append(f"{what} {nats:.2f} nats, by chance {chance:.2f}")
    return "; ".join(parts)
