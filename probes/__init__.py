"""layerscope's probes: see, layer by layer and language by language, what compression did to
representations.
"""

import probes.installed  # isort: skip
import probes.silence  # noqa: F401  # isort: skip
from importlib import import_module
from typing import TYPE_CHECKING, Any

from probes.comparison import Comparison, Comparisons, compare
from probes.corpus import describe, load_corpus
from probes.errors import DependencyError, InputError, LayerscopeWarning
from probes.measures.attribution.facts import facts, lost_facts
from probes.measures.attribution.influence import influence
from probes.measures.attribution.patching import patching
from probes.measures.attribution.representer_support import representer_support
from probes.measures.attribution.representers import representers
from probes.measures.classes.best_layer import best_layer
from probes.measures.classes.class_distance import class_distance
from probes.measures.classes.class_separability import class_separability
from probes.measures.classes.fisher_ratio import fisher_ratio
from probes.measures.classes.kernel_probe import kernel_probe
from probes.measures.classes.label_names import label_names
from probes.measures.classes.linear_probe import linear_probe
from probes.measures.classes.snr import snr
from probes.measures.classes.sparse_probe import sparse_probe
from probes.measures.classes.variability import variability
from probes.measures.fidelity.accuracy import accuracy
from probes.measures.fidelity.drift import drift
from probes.measures.fidelity.lens import lens
from probes.measures.fidelity.loyalty import loyalty
from probes.measures.fidelity.module_error import module_error
from probes.measures.fidelity.next_token import next_token
from probes.measures.fidelity.number_loyalty import number_loyalty
from probes.measures.fidelity.number_quality import number_quality
from probes.measures.fidelity.off_diagonal_correlation import off_diagonal_correlation
from probes.measures.fidelity.similarity import similarity
from probes.measures.fidelity.tokens import tokens
from probes.measures.fidelity.zero_shot_gap import zero_shot_gap
from probes.measures.languages.alignment_gap import alignment_gap
from probes.measures.languages.margin_retrieval import margin_retrieval
from probes.measures.languages.retrieval import retrieval
from probes.measures.languages.word_movers import word_movers
from probes.measures.of_graph import declare_facts
from probes.measures.of_names import declare_names
from probes.measures.own import probe
from probes.measures.space.band_gates import band_gates
from probes.measures.space.departure import departure
from probes.measures.space.depth_control import depth_control
from probes.measures.space.depth_dynamics import depth_dynamics
from probes.measures.space.geometry import geometry
from probes.measures.space.latent_features import latent_features
from probes.measures.space.spectrum import depth_spectrum, spectrum
from probes.models.checked import check
from probes.models.checkpoint import load_checkpoint
from probes.models.series import series
from probes.pitfalls import cautions
from probes.results.by_size import loss_by_size, pretraining_sizes
from probes.results.difference import difference
from probes.states.capture import capture
from probes.states.frequencies import Band
from probes.states.graphs import load_graph
from probes.states.modules import capture_modules
from probes.states.movers import WordMoversEmbedding
from probes.states.outliers import without_outliers
from probes.states.own_pooling import pooling
from probes.states.ragged import each_token
from probes.states.representations import from_arrays, open_representations
from probes.views.style import style

if TYPE_CHECKING:
    from probes.watching import Watch

__all__ = [
    "Band",
    "Comparison",
    "Comparisons",
    "DependencyError",
    "InputError",
    "LayerscopeWarning",
    "Watch",
    "WordMoversEmbedding",
    "accuracy",
    "alignment_gap",
    "band_gates",
    "best_layer",
    "capture",
    "capture_modules",
    "cautions",
    "check",
    "class_distance",
    "class_separability",
    "compare",
    "declare_facts",
    "declare_names",
    "departure",
    "depth_control",
    "depth_dynamics",
    "depth_spectrum",
    "describe",
    "difference",
    "drift",
    "each_token",
    "facts",
    "fisher_ratio",
    "from_arrays",
    "geometry",
    "influence",
    "kernel_probe",
    "label_names",
    "latent_features",
    "lens",
    "linear_probe",
    "load_checkpoint",
    "load_corpus",
    "load_graph",
    "loss_by_size",
    "lost_facts",
    "loyalty",
    "margin_retrieval",
    "module_error",
    "next_token",
    "number_loyalty",
    "number_quality",
    "off_diagonal_correlation",
    "open_representations",
    "patching",
    "pooling",
    "pretraining_sizes",
    "probe",
    "representer_support",
    "representers",
    "retrieval",
    "series",
    "similarity",
    "snr",
    "sparse_probe",
    "spectrum",
    "style",
    "tokens",
    "variability",
    "without_outliers",
    "word_movers",
    "zero_shot_gap",
]


def __getattr__(name: str) -> Any:
    # What takes a second to import, for those who use it: the widgets need an extra, and a Trainer brings peft.
    if name == "widgets":
        return import_module("probes.widgets")
    if name == "Watch":
        return import_module("probes.watching").Watch
    raise AttributeError(f"module 'probes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "widgets"})
