"""A declaration of a probe, with as little as there has to be."""

import xarray as xr

from probes.measures.probe import Probe

WORDS = {
    "name": "depth",
    "title": "depth of the sea",
    "estimator": "mean of soundings",
    "range": "0 to infinity",
    "higher_is": "deeper",
    "paper": "no single source",
}
PROBE = Probe(**WORDS, unchanged_by=("shift", "order"), measure=lambda run: xr.Dataset())
