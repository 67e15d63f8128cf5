"""layerscope's compressions: model in, smaller model out, the input untouched."""

import probes.noise  # noqa: F401  # isort: skip
from compress import recipes
from compress.allocate import allocate_bits, bit_damage
from compress.codebooks import product_quantize
from compress.footprint import footprint
from compress.objectives import (
    AlignedWeights,
    AttentionOutputs,
    Attentions,
    CrossCorrelation,
    CrossEntropy,
    HiddenStates,
    RepresentationCosine,
    RepresentationMSE,
    SoftLabels,
)
from compress.prune import prune
from compress.quantize import quantization_error, quantize
from compress.recovery import recovery
from compress.saving import save
from compress.structure import drop_layers, prune_channels, prune_heads
from compress.vocabulary import prune_vocabulary

__all__ = [
    "AlignedWeights",
    "AttentionOutputs",
    "Attentions",
    "CrossCorrelation",
    "CrossEntropy",
    "HiddenStates",
    "RepresentationCosine",
    "RepresentationMSE",
    "SoftLabels",
    "allocate_bits",
    "bit_damage",
    "drop_layers",
    "footprint",
    "product_quantize",
    "prune",
    "prune_channels",
    "prune_heads",
    "prune_vocabulary",
    "quantization_error",
    "quantize",
    "recipes",
    "recovery",
    "save",
]
