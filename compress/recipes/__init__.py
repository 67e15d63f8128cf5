"""Published methods, a short function each: pruning, quantization, distillation, tuning, finetuning."""

from compress.recipes.distillation import (
    codir,
    contrastive_distillation,
    meta_distillation,
    patient_distillation,
    relational_distillation,
)
from compress.recipes.finetuning import noise_contrast, p_dro, pair_sup_con, plsp, rp_dro, supcl_seq
from compress.recipes.pruning import (
    aligned_weights,
    magnitude_pruning,
    self_distilled_pruning,
    snip,
    sparse_bert,
    sparse_progressive_distillation,
)
from compress.recipes.quantization import self_distilled_quantization
from compress.recipes.tuning import graddrop, gradual_unfreezing, replaced_tokens, variability_tuning

__all__ = [
    "aligned_weights",
    "codir",
    "contrastive_distillation",
    "graddrop",
    "gradual_unfreezing",
    "magnitude_pruning",
    "meta_distillation",
    "noise_contrast",
    "p_dro",
    "pair_sup_con",
    "patient_distillation",
    "plsp",
    "relational_distillation",
    "replaced_tokens",
    "rp_dro",
    "self_distilled_pruning",
    "self_distilled_quantization",
    "snip",
    "sparse_bert",
    "sparse_progressive_distillation",
    "supcl_seq",
    "variability_tuning",
]
