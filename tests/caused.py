"""Made effects of patching by weights, whose causes are known."""

import numpy as np
import xarray as xr

from probes.results.draws import balanced_weights

LAYERS, LANGUAGES = 6, ("en", "sw")


def effects(seed, back, *, n=300, lost=0.2, exchanged=0.05, draws=200):
    """What each layer gives back of what was right, as `patching(..., at="weights")` says it.

    Args:
        seed: of all.
        back: (layer,) the share of sentences that the layer's weights give back; below 0, spoil.
        n: sentences a language.
        lost: the share of sentences that the other model gets wrong and the original right.
        exchanged: the share on which any two models differ both ways without one being better.
    """
    rng = np.random.default_rng(seed)
    weights = balanced_weights(n, draws, seed).astype(float)
    gains, damages = [], []
    for _ in LANGUAGES:
        chance = rng.random((1 + len(back), n))
        own = np.where(chance[0] < lost, 1.0, 0.0) + rng.choice(
            [-1, 0, 1], n, p=[exchanged, 1 - 2 * exchanged, exchanged]
        )
        moved = np.where(chance[1:] < np.abs(back)[:, None], np.sign(back)[:, None], 0.0)
        moved += rng.choice([-1, 0, 1], moved.shape, p=[exchanged, 1 - 2 * exchanged, exchanged])
        gains.append(weights @ moved.T / n)
        damages.append(weights @ own / n)
    gains, damages = (np.stack([*x, np.mean(x, axis=0)], axis=-1) for x in (gains, damages))
    languages = np.array([*LANGUAGES, "pooled"], object)
    return xr.Dataset(
        {
            "gain": (("measure", "layer", "language"), gains[None, 0]),
            "gain_draws": (("measure", "draw", "layer", "language"), gains[None, 1:]),
            "damage": (("measure", "language"), damages[None, 0]),
            "units": (("measure", "language"), np.full((1, 3), n)),
        },
        coords={"measure": ["accuracy"], "layer": np.arange(1, 1 + len(back)), "language": languages},
    )
