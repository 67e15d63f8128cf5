"""What a model should come close to: its labels, a teacher, or its former weights.

`base` says what an objective is, `kinds` which one a head is for, `held_out` how a language model
does on other text; `labels`, `numbers`, `language_model`, `texts`, `layers`, `weights`, `contrast`, `domains`,
`transferability`, `patient`, `supervised`, `pairs`, `dropout_views`, `candidates`, `codes`, `sparse`, `noise`
and `sentence_noise` hold them by what they compare; `robust` counts texts of another by how hard they are, as
`robust_weights` and `robust_adversaries` say; `masked` and `replaced_tokens` heal encoders of any head on text without
labels, by what `token_heads` puts beside them; `reward` rewards what a causal student writes (`sampling`) by how alike
texts are (`sentences`), and `continuations` measures it on other text; `rescoring` is which of some sentences a
language model scores highest, `normalizers` whether one is normalised by itself; `ngrams` is what noise is drawn from,
`sampled` some logits without all others; `by_text` has losses by text, `memory` is what contrastive ones remember,
`likeness` which texts and classes are similar to them.
"""

from compress.objectives.base import Objective, Pass, check
from compress.objectives.candidates import CandidateLabels
from compress.objectives.codes import CodedLabels, CodedTokens
from compress.objectives.contrast import CRD, CoDIR
from compress.objectives.diffusion import Denoising, GuidedInOnePass, TwoStepsInOne
from compress.objectives.dropout_views import SupCLSeq
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.language_model import LanguageModel
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates
from compress.objectives.likeness import embedded_names, name_vectors
from compress.objectives.masked import MaskedTokens
from compress.objectives.noise import NoiseContrast
from compress.objectives.numbers import SquaredError
from compress.objectives.pairs import PairSupCon
from compress.objectives.patient import PatientStates
from compress.objectives.replaced_tokens import ReplacedTokens
from compress.objectives.reward import SimilarityReward
from compress.objectives.robust import Robust
from compress.objectives.sentence_noise import PseudoLikelihood, SentenceContrast
from compress.objectives.sparse import SparseActivations, Translations
from compress.objectives.supervised import SupervisedContrast
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE
from compress.objectives.transferability import MetaTeacher, Transferable
from compress.objectives.weights import AlignedWeights

__all__ = [
    "CRD",
    "AlignedWeights",
    "AttentionOutputs",
    "Attentions",
    "CandidateLabels",
    "CoDIR",
    "CodedLabels",
    "CodedTokens",
    "CrossCorrelation",
    "CrossEntropy",
    "Denoising",
    "GuidedInOnePass",
    "HiddenStates",
    "LanguageModel",
    "MaskedTokens",
    "MetaTeacher",
    "NoiseContrast",
    "Objective",
    "PairSupCon",
    "Pass",
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
    "Transferable",
    "Translations",
    "TwoStepsInOne",
    "check",
    "embedded_names",
    "name_vectors",
]
