"""Which objective a model's head is for: one of its labels, and one of what a teacher says in their place."""

from __future__ import annotations

from transformers import PreTrainedModel

from compress.objectives.base import Objective
from compress.objectives.labels import CrossEntropy
from compress.objectives.language_model import LanguageModel
from probes.models.facts import head_of


def supervised(model: PreTrainedModel, weight: float = 1.0) -> Objective:
    """Return the objective of what the head of a model says: of classes the cross-entropy with the
    labels, of a language model that of its tokens.

    Example:
        >>> import probes
        >>> supervised(probes.load_checkpoint("bundled")[0]).name
        'cross_entropy'
    """
    return LanguageModel(weight=weight) if head_of(model) == "tokens" else CrossEntropy(weight=weight)
