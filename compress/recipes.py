"""Recipes: published methods of pruning, each a schedule and its objectives. Settings go on to `compress.prune`."""

from __future__ import annotations

from typing import Any, Literal

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives import (
    AlignedWeights,
    Attentions,
    CrossCorrelation,
    CrossEntropy,
    HiddenStates,
    Objective,
    RepresentationCosine,
    RepresentationMSE,
    SoftLabels,
)
from compress.prune import prune
from probes.errors import InputError


def magnitude_pruning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float,
    steps: int,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a fine-tuned model by magnitude in equal steps while it is trained on its labels: what others are held to.

    Args:
        model: the fine-tuned model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        sparsity, steps, settings: as in `compress.prune`.

    Notes:
        Han, Pool, Tran and Dally 2015, arXiv 1506.02626, with one training over all prunings.
    """
    return _prune(model, tokenizer, train, [CrossEntropy()], sparsity, steps, settings)


def self_distilled_pruning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float,
    steps: int,
    variant: Literal["cross_correlation", "soft_labels", "mse", "cosine"] = "cross_correlation",
    alpha: float = 0.5,
    temperature: float = 2.0,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a fine-tuned model by magnitude while the model before any pruning is distilled into it.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        sparsity, steps, settings: as in `compress.prune`.
        variant: what is distilled: the cross-correlation of the representations with those of the teacher, its class
            probabilities, or the representations by squared difference or by cosine.
        alpha: what the distillation counts; for soft labels the labels count 1 - alpha.
        temperature: of the soft labels.

    Raises:
        InputError: the variant is not known; what `compress.prune` raises.

    Notes:
        O' Neill, Dutta and Assem 2021, arXiv 2109.15014; the weights are a choice made here.
    """
    distilled: dict[str, list[Objective]] = {
        "cross_correlation": [CrossEntropy(), CrossCorrelation(weight=alpha)],
        "soft_labels": [CrossEntropy(weight=1 - alpha), SoftLabels(weight=alpha, temperature=temperature)],
        "mse": [CrossEntropy(), RepresentationMSE(weight=alpha)],
        "cosine": [CrossEntropy(), RepresentationCosine(weight=alpha)],
    }
    if variant not in distilled:
        raise InputError(f"variant={variant!r} is not known; choose one of {', '.join(map(repr, distilled))}")
    return _prune(model, tokenizer, train, distilled[variant], sparsity, steps, settings)


def aligned_weights(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float,
    steps: int,
    form: Literal["cosine", "frobenius"] = "cosine",
    weight: float = 0.1,
    reference: PreTrainedModel | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a fine-tuned model by magnitude while each unit is kept aligned with the same unit before any pruning.

    Args:
        model: the fine-tuned model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        sparsity, steps, settings: as in `compress.prune`.
        form: "cosine" ignores the length of a unit, "frobenius" does not.
        weight: what the alignment counts.
        reference: whose units are kept; by default the model's own, or give the pretrained model.

    Notes:
        O' Neill, Dutta and Assem 2022, arXiv 2204.01385; the formulas are a choice made here, see
        `compress.objectives.AlignedWeights`.
    """
    aligned = AlignedWeights(model if reference is None else reference, form=form, weight=weight)
    return _prune(model, tokenizer, train, [CrossEntropy(), aligned], sparsity, steps, settings)


def sparse_bert(
    pretrained: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    teacher: PreTrainedModel,
    sparsity: float = 0.95,
    steps: int,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a pretrained model while it learns a task from a model that was fine-tuned on it.

    Args:
        pretrained: the model before fine-tuning, with a head for the task; it is not changed.
        tokenizer: of both.
        train: a corpus; labels are not used.
        teacher: the fine-tuned model, of the same depth and width.
        sparsity, steps, settings: as in `compress.prune`; pruned is by a cubic schedule, 100 times or fewer.

    Notes:
        Xu, Yen, Zhao and Xiao 2021, arXiv 2104.08682: attention maps, hidden states and soft labels at once, no hard
        labels. Attention is compared as probabilities, not as scores.
    """
    layers = pretrained.config.num_hidden_layers
    parts: list[Objective] = [Attentions(weight=layers), HiddenStates(weight=layers + 1), SoftLabels()]
    settings = {"teacher": teacher, "schedule": "cubic", "prunings": min(100, max(1, steps // 2))} | settings
    return _prune(pretrained, tokenizer, train, parts, sparsity, steps, settings)


def _prune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    objective: list[Objective],
    sparsity: float,
    steps: int,
    settings: dict[str, Any],
) -> PreTrainedModel:
    how: dict[str, Any] = {"schedule": "uniform", "prunings": min(10, max(1, steps // 2))} | settings
    return prune(model, sparsity=sparsity, train=train, tokenizer=tokenizer, steps=steps, objective=objective, **how)
