"""Widgets for notebooks: the explorer of a comparison, and its parts alone. Needs `pip install
'layerscope[lab]'`.
"""

from probes.views.explorer import Explorer
from probes.views.marked import MarkedFacts
from probes.views.panels import AlignmentMatrix, LayerCurves, LayerMap, RepresenterPanel, SimilarityMatrix

__all__ = [
    "AlignmentMatrix",
    "Explorer",
    "LayerCurves",
    "LayerMap",
    "MarkedFacts",
    "RepresenterPanel",
    "SimilarityMatrix",
]
