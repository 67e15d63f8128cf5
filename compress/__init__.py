"""layerscope's compressions: model in, smaller model out, the input untouched."""

import probes.silence  # noqa: F401  # isort: skip
from compress import recipes
from compress.distillation.denoisers import Denoiser, load_denoiser, save_denoiser
from compress.distillation.diffusion import distill_diffusion, train_denoiser
from compress.distillation.distill import distill
from compress.distillation.match_layers import match_layers
from compress.distillation.samples import capture_denoiser, frechet_distance, sample_diffusion
from compress.factorization.bilstm_model import BiLSTMConfig, BiLSTMLanguageModel
from compress.factorization.factorize import factorize
from compress.factorization.lstm_model import LSTMConfig, LSTMLanguageModel, low_rank_model, tensor_train_model
from compress.factorization.recurrent import TensorTrainLSTM, low_rank_lstm, tensor_train_lstm
from compress.fusion.fuse import fuse
from compress.fusion.hash_weights import hash_weights
from compress.fusion.layer_similarity import layer_similarity
from compress.objectives.candidates import CandidateLabels
from compress.objectives.codes import CodedLabels, CodedTokens
from compress.objectives.continuations import continuations
from compress.objectives.contrast import CRD, CoDIR
from compress.objectives.domains import DomainHead, transferability
from compress.objectives.dropout_views import SupCLSeq
from compress.objectives.held_out import held_out_loss, language_model_loss, text_losses
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.language_model import LanguageModel
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates
from compress.objectives.masked import MaskedTokens
from compress.objectives.noise import NoiseContrast
from compress.objectives.normalizers import self_normalization
from compress.objectives.numbers import SquaredError
from compress.objectives.pairs import PairSupCon
from compress.objectives.patient import PatientStates
from compress.objectives.replaced_tokens import ReplacedTokens
from compress.objectives.rescoring import corrupted_texts, rescore
from compress.objectives.reward import SimilarityReward
from compress.objectives.robust import Robust
from compress.objectives.sentence_noise import PseudoLikelihood, SentenceContrast
from compress.objectives.sparse import SparseActivations, Translations
from compress.objectives.supervised import SupervisedContrast
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE
from compress.objectives.transferability import MetaTeacher, Transferable
from compress.objectives.weights import AlignedWeights
from compress.outcomes import quality
from compress.pruning.drop_layers import drop_layers
from compress.pruning.prune import prune
from compress.pruning.recovery import recovery
from compress.pruning.structure import prune_channels, prune_heads
from compress.pruning.vocabulary import prune_vocabulary
from compress.quantization.allocate_bits import allocate_bits
from compress.quantization.bit_damage import bit_damage
from compress.quantization.code_accuracy import code_accuracy
from compress.quantization.code_outputs import code_outputs
from compress.quantization.codebooks import product_quantize
from compress.quantization.interchange import save_codes
from compress.quantization.quantization_error import quantization_error
from compress.quantization.quantize import quantize
from compress.retrieval.index import inverted_index, nearest
from compress.retrieval.retrieval_cost import recall, retrieval_cost
from compress.retrieval.sparse_embeddings import sparse_embeddings
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.saving import save
from compress.training.gradients import GradDrop, GradualUnfreezing, TrainedLayers
from compress.training.replaced_words import NearestWords
from compress.training.settings import TrainingSettings
from compress.tuning.finetune import finetune
from compress.tuning.restore import restore
from compress.verbs import check
from probes.costs import footprint

__all__ = [
    "CRD",
    "AlignedWeights",
    "AttentionOutputs",
    "Attentions",
    "BiLSTMConfig",
    "BiLSTMLanguageModel",
    "CandidateLabels",
    "CoDIR",
    "CodedLabels",
    "CodedTokens",
    "CrossCorrelation",
    "CrossEntropy",
    "Denoiser",
    "DomainHead",
    "GradDrop",
    "GradualUnfreezing",
    "HiddenStates",
    "LSTMConfig",
    "LSTMLanguageModel",
    "LanguageModel",
    "MaskedTokens",
    "MetaTeacher",
    "NearestWords",
    "NoiseContrast",
    "PairSupCon",
    "PatientStates",
    "PseudoLikelihood",
    "Relational",
    "ReplacedTokens",
    "RepresentationCosine",
    "RepresentationMSE",
    "Robust",
    "SentenceContrast",
    "SimilarityReward",
    "SoftLabels",
    "SparseActivations",
    "SquaredError",
    "SupCLSeq",
    "SupervisedContrast",
    "TensorTrainLSTM",
    "TrainedLayers",
    "TrainingSettings",
    "Transferable",
    "Translations",
    "allocate_bits",
    "bit_damage",
    "capture_denoiser",
    "check",
    "code_accuracy",
    "code_outputs",
    "continuations",
    "corrupted_texts",
    "distill",
    "distill_diffusion",
    "drop_layers",
    "factorize",
    "finetune",
    "footprint",
    "frechet_distance",
    "fuse",
    "hash_weights",
    "held_out_loss",
    "inverted_index",
    "language_model_loss",
    "layer_similarity",
    "load_denoiser",
    "low_rank_lstm",
    "low_rank_model",
    "match_layers",
    "nearest",
    "product_quantize",
    "prune",
    "prune_channels",
    "prune_heads",
    "prune_vocabulary",
    "quality",
    "quantization_error",
    "quantize",
    "recall",
    "recipes",
    "recovery",
    "rescore",
    "restore",
    "retrieval_cost",
    "sample_diffusion",
    "save",
    "save_codes",
    "save_denoiser",
    "self_normalization",
    "sparse_embeddings",
    "sparsify_embeddings",
    "tensor_train_lstm",
    "tensor_train_model",
    "text_losses",
    "train_denoiser",
    "transferability",
]
