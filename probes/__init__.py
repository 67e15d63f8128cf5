"""layerscope's probes: see, layer by layer and language by language, what compression did to representations."""

from probes.alignment import alignment_gap, margin_retrieval, retrieval
from probes.capture import capture
from probes.checkpoint import load_checkpoint
from probes.comparison import Comparison, compare
from probes.corpus import cautions, describe, load_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.representations import from_arrays, open_representations
from probes.resampling import difference
from probes.separability import class_separability
from probes.snr import snr
from probes.variability import variability

__all__ = [
    "Comparison",
    "InputError",
    "LayerscopeWarning",
    "alignment_gap",
    "capture",
    "cautions",
    "class_separability",
    "compare",
    "describe",
    "difference",
    "from_arrays",
    "load_checkpoint",
    "load_corpus",
    "margin_retrieval",
    "open_representations",
    "retrieval",
    "snr",
    "variability",
]
