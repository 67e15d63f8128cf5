"""layerscope's probes: see, layer by layer and language by language, what compression did to representations."""

import probes.noise  # noqa: F401  # isort: skip
from importlib import import_module
from types import ModuleType

from probes.alignment import alignment_gap, margin_retrieval, retrieval
from probes.capture import capture
from probes.checkpoint import load_checkpoint
from probes.comparison import Comparison, compare
from probes.corpus import cautions, describe, load_corpus
from probes.drift import accuracy, drift, loyalty
from probes.errors import DependencyError, InputError, LayerscopeWarning
from probes.geometry import geometry
from probes.linear_probe import linear_probe
from probes.module_error import module_error
from probes.representations import from_arrays, open_representations
from probes.representers import representer_support, representers
from probes.resampling import difference
from probes.separability import class_separability
from probes.similarity import similarity
from probes.snr import snr
from probes.variability import best_layer, variability

__all__ = [
    "Comparison",
    "DependencyError",
    "InputError",
    "LayerscopeWarning",
    "accuracy",
    "alignment_gap",
    "best_layer",
    "capture",
    "cautions",
    "class_separability",
    "compare",
    "describe",
    "difference",
    "drift",
    "from_arrays",
    "geometry",
    "linear_probe",
    "load_checkpoint",
    "load_corpus",
    "loyalty",
    "margin_retrieval",
    "module_error",
    "open_representations",
    "representer_support",
    "representers",
    "retrieval",
    "similarity",
    "snr",
    "variability",
]


def __getattr__(name: str) -> ModuleType:
    # What the widgets need is an extra, and takes a second to import.
    if name == "widgets":
        return import_module("probes.widgets")
    raise AttributeError(f"module 'probes' has no attribute {name!r}")
