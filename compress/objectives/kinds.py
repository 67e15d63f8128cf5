"""Which objective a head is for: one of its labels, and one of what a teacher says in their place."""

from __future__ import annotations

from transformers import PreTrainedModel

from compress.objectives.base import Objective
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.language_model import LanguageModel
from compress.objectives.numbers import SquaredError
from probes.models.facts import head_of


def supervised(model: PreTrainedModel, weight: float = 1.0) -> Objective:
    """Return the objective of what the head of a model says: of classes, of a text or of its words,
    the cross-entropy with the labels, of numbers the squared error, of a language model the
    cross-entropy of its tokens.

    Example:
        >>> import probes
        >>> supervised(probes.load_checkpoint("bundled")[0]).name
        'cross_entropy'
    """
    head = head_of(model)
    if head == "tokens":
        return LanguageModel(weight=weight)
    return SquaredError(weight=weight) if head == "numbers" else CrossEntropy(weight=weight)


def taught(model: PreTrainedModel, weight: float = 1.0, temperature: float = 1.0) -> Objective:
    """Return the objective of what a teacher with the same head says: soft labels at a temperature,
    or of numbers, which have none, the squared error.

    Example:
        >>> import probes
        >>> taught(probes.load_checkpoint("bundled")[0], temperature=2).name
        'soft_labels'
    """
    if head_of(model) == "numbers":
        return SquaredError(weight=weight, of="teacher")
    return SoftLabels(weight=weight, temperature=temperature)
