"""Widgets for notebooks: the explorer of a comparison, and its parts alone. Needs `pip install 'layerscope[lab]'`."""

from probes.errors import needed

needed("anywidget", "The explorer", extra="lab")

from probes.views.explorer import (  # noqa: E402
    AlignmentMatrix,
    Explorer,
    LayerCurves,
    LayerMap,
    RepresenterPanel,
    SimilarityMatrix,
)

__all__ = ["AlignmentMatrix", "Explorer", "LayerCurves", "LayerMap", "RepresenterPanel", "SimilarityMatrix"]
