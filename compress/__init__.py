"""layerscope's compressions: model in, smaller model out, the input untouched."""

import probes.noise  # noqa: F401  # isort: skip
from compress import recipes
from compress.allocate import allocate_bits, bit_damage
from compress.codebooks import product_quantize
from compress.contrast import CRD, CoDIR
from compress.distill import distill, match_layers
from compress.factorize import factorize
from compress.footprint import footprint
from compress.fuse import fuse, layer_similarity
from compress.objectives import (
    AlignedWeights,
    AttentionOutputs,
    Attentions,
    CrossCorrelation,
    CrossEntropy,
    HiddenStates,
    Relational,
    RepresentationCosine,
    RepresentationMSE,
    SoftLabels,
)
from compress.prune import prune
from compress.quantize import quantization_error, quantize
from compress.recovery import recovery
from compress.recurrent import TensorTrainLSTM, low_rank_lstm, tensor_train_lstm
from compress.saving import save
from compress.sparsify import (
    SparseActivations,
    Translations,
    inverted_index,
    nearest,
    recall,
    retrieval_cost,
    sparse_embeddings,
    sparsify_embeddings,
)
from compress.structure import drop_layers, prune_channels, prune_heads
from compress.transfer import DomainHead, MetaTeacher, Transferable, transferability
from compress.vocabulary import prune_vocabulary

__all__ = [
    "CRD",
    "AlignedWeights",
    "AttentionOutputs",
    "Attentions",
    "CoDIR",
    "CrossCorrelation",
    "CrossEntropy",
    "DomainHead",
    "HiddenStates",
    "MetaTeacher",
    "Relational",
    "RepresentationCosine",
    "RepresentationMSE",
    "SoftLabels",
    "SparseActivations",
    "TensorTrainLSTM",
    "Transferable",
    "Translations",
    "allocate_bits",
    "bit_damage",
    "distill",
    "drop_layers",
    "factorize",
    "footprint",
    "fuse",
    "inverted_index",
    "layer_similarity",
    "low_rank_lstm",
    "match_layers",
    "nearest",
    "product_quantize",
    "prune",
    "prune_channels",
    "prune_heads",
    "prune_vocabulary",
    "quantization_error",
    "quantize",
    "recall",
    "recipes",
    "recovery",
    "retrieval_cost",
    "save",
    "sparse_embeddings",
    "sparsify_embeddings",
    "tensor_train_lstm",
    "transferability",
]
