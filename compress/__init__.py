"""layerscope's compressions: model in, smaller model out, the input untouched."""

from compress.prune import prune
from compress.saving import save

__all__ = ["prune", "save"]
