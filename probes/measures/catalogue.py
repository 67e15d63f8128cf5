"""All probes, in the order of tables and figures. A new one is a file, and a line here.

What is measured where nothing is asked for, and what is asked for together, is read from the
declarations.
"""

from __future__ import annotations

from probes.measures.attribution.representer_support import REPRESENTER_SUPPORT
from probes.measures.classes.best_layer import BEST_LAYER
from probes.measures.classes.class_distance import CLASS_DISTANCE
from probes.measures.classes.class_separability import CLASS_SEPARABILITY, WITH_SELF_PAIRS
from probes.measures.classes.fisher_ratio import FISHER_RATIO
from probes.measures.classes.kernel_probe import KERNEL_PROBE
from probes.measures.classes.linear_probe import LINEAR_PROBE
from probes.measures.classes.snr import SNR
from probes.measures.classes.sparse_probe import SPARSE_PROBE
from probes.measures.classes.variability import VARIABILITY
from probes.measures.fidelity.accuracy import ACCURACY
from probes.measures.fidelity.drift import DRIFT
from probes.measures.fidelity.lens import LENS
from probes.measures.fidelity.loyalty import LOYALTY
from probes.measures.fidelity.module_error import MODULE_ERROR
from probes.measures.fidelity.next_token import NEXT_TOKEN
from probes.measures.fidelity.number_loyalty import NUMBER_LOYALTY
from probes.measures.fidelity.number_quality import NUMBER_QUALITY
from probes.measures.fidelity.off_diagonal_correlation import OFF_DIAGONAL_CORRELATION
from probes.measures.fidelity.similarity import MEASURES
from probes.measures.fidelity.zero_shot_gap import ZERO_SHOT_GAP
from probes.measures.languages.alignment_gap import ALIGNMENT_GAP
from probes.measures.languages.margin_retrieval import MARGIN_RETRIEVAL, MARGIN_RETRIEVAL_ALL_LANGUAGES
from probes.measures.languages.retrieval import RETRIEVAL, RETRIEVAL_ALL_LANGUAGES
from probes.measures.languages.word_movers import WORD_MOVERS
from probes.measures.probe import Probe
from probes.measures.space.departure import DEPARTURE
from probes.measures.space.geometry import GEOMETRY
from probes.measures.space.spectrum import SPECTRUM

PROBES: tuple[Probe, ...] = (
    CLASS_SEPARABILITY,
    VARIABILITY,
    SNR,
    FISHER_RATIO,
    CLASS_DISTANCE,
    RETRIEVAL,
    MARGIN_RETRIEVAL,
    ALIGNMENT_GAP,
    *DRIFT,
    *LOYALTY,
    *MEASURES.values(),
    *GEOMETRY.values(),
    *NEXT_TOKEN,
    *LENS,
    *LINEAR_PROBE,
    *KERNEL_PROBE,
    *SPARSE_PROBE,
    *MODULE_ERROR,
    OFF_DIAGONAL_CORRELATION,
    *NUMBER_QUALITY,
    *NUMBER_LOYALTY,
    ACCURACY,
    ZERO_SHOT_GAP,
    BEST_LAYER,
    WITH_SELF_PAIRS,
    RETRIEVAL_ALL_LANGUAGES,
    MARGIN_RETRIEVAL_ALL_LANGUAGES,
    *WORD_MOVERS,
    REPRESENTER_SUPPORT,
    DEPARTURE,
    *SPECTRUM,
)

# Those of users, by name (`probes.probe`).
OWN: dict[str, Probe] = {}


def by_name() -> dict[str, Probe]:
    """Return all probes by their names, in the order of the catalogue; those of users at the end."""
    return {probe.name: probe for probe in PROBES} | OWN


def families() -> dict[str, tuple[str, ...]]:
    """Return the names of the probes that can be asked for together, by their family."""
    names = dict.fromkeys(probe.family for probe in PROBES if probe.family)
    return {name: tuple(probe.name for probe in PROBES if probe.family == name) for name in names}


def defaults() -> list[str]:
    """Return the names of the probes that are measured where nothing is asked for."""
    chosen = [probe for probe in PROBES if probe.default]
    # Their rows stand in this order in the table: maps of layers by layers, which are long, come last.
    return [probe.name for probe in sorted(chosen, key=lambda probe: probe.family == "similarity")]
