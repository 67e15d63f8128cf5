"""layerscope's compressions: model in, smaller model out, the input untouched."""

from compress import recipes
from compress.footprint import footprint
from compress.objectives import (
    AlignedWeights,
    Attentions,
    CrossCorrelation,
    CrossEntropy,
    HiddenStates,
    RepresentationCosine,
    RepresentationMSE,
    SoftLabels,
)
from compress.prune import prune
from compress.recovery import recovery
from compress.saving import save
from compress.structure import drop_layers, prune_channels, prune_heads
from compress.vocabulary import prune_vocabulary

__all__ = [
    "AlignedWeights",
    "Attentions",
    "CrossCorrelation",
    "CrossEntropy",
    "HiddenStates",
    "RepresentationCosine",
    "RepresentationMSE",
    "SoftLabels",
    "drop_layers",
    "footprint",
    "prune",
    "prune_channels",
    "prune_heads",
    "prune_vocabulary",
    "recipes",
    "recovery",
    "save",
]
