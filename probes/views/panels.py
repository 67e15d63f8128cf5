"""The parts of the explorer alone: curves, maps, alignment, similarity, speakers."""

from __future__ import annotations

from typing import Any, ClassVar

from probes.measures.attribution.values import RepresenterValues
from probes.views.explorer import Explorer
from probes.views.scene import Source
from probes.views.speakers import as_representations


class LayerCurves(Explorer):
    """The curves of a comparison by layer, with their bands.

    Example:
        >>> import numpy as np, probes
        >>> x = np.random.default_rng(0).normal(size=(3, 40, 8))
        >>> reps = probes.from_arrays(x, label=np.arange(40) % 2)
        >>> comparison = probes.compare({"base": reps}, probes=["snr"])
        >>> LayerCurves(comparison).probe
        'snr'
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "curves")


class LayerMap(Explorer):
    """The maps of the layers of one model, or of up to four side by side.

    Example:
        >>> import numpy as np, probes
        >>> LayerMap(probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 8))))
        <LayerMap of arrays: 40 sentences, layer 2, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "maps")


class AlignmentMatrix(Explorer):
    """How often a sentence finds its translation, language by language, at a layer.

    Example:
        >>> import numpy as np, probes
        >>> x = np.random.default_rng(0).normal(size=(2, 20, 8))
        >>> reps = probes.from_arrays(
        ...     np.concatenate([x, x], axis=1),
        ...     id=np.tile(np.arange(20), 2),
        ...     language=np.repeat(["en", "fr"], 20),
        ... )
        >>> AlignmentMatrix(reps, layer=0)
        <AlignmentMatrix of arrays: 40 sentences, layer 0, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "alignment")


class SimilarityMatrix(Explorer):
    """How alike every layer of one model and every layer of another are.

    Example:
        >>> import numpy as np, probes
        >>> reps = probes.from_arrays(np.random.default_rng(0).normal(size=(3, 40, 8)))
        >>> SimilarityMatrix({"base": reps, "small": reps}, measure="cka_debiased").compared
        ['base', 'small']
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "similarity")


class RepresenterPanel(Explorer):
    """Sentences, and which training sentences speak for and against what is predicted for them.

    Args:
        source: Representations whose `split` holds "train" and "test" (or a dict or Comparison of
            such), or what `probes.representers` returned.

    Example:
        >>> import numpy as np, probes
        >>> rng = np.random.default_rng(0)
        >>> y = np.arange(90) % 3
        >>> x = rng.normal(size=(90, 8)) + 2 * np.eye(8)[y]
        >>> RepresenterPanel(probes.representers(x[:60], x[60:], labels=y[:60], l2=1e-2))
        <RepresenterPanel of representers: 90 sentences, layer 0, 0 selected>
    """

    own_parts: ClassVar[tuple[str, ...]] = ("controls", "maps", "sentences")

    def __init__(self, source: Source | RepresenterValues, **settings: Any) -> None:
        """Begin with the colours of representer values."""
        super().__init__(as_representations(source) if isinstance(source, RepresenterValues) else source, **settings)
        if isinstance(source, RepresenterValues):
            self.numbers.speakers.fitted[0] = source
        if "colour" not in settings and "representer" in self.about["colours"]:
            self.colour = "representer"
