"""Recipes: published methods of compression, each a schedule and its objectives, by the verbs of this package."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.distill import distill
from compress.objectives.base import Objective
from compress.objectives.contrast import CRD, CoDIR
from compress.objectives.domains import DomainHead, transferability
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE
from compress.objectives.transferability import MetaTeacher, Transferable
from compress.objectives.weights import AlignedWeights
from compress.pruning.grafting import Grafting
from compress.pruning.prune import prune
from compress.quantization.codebooks import product_quantize
from compress.quantization.quantize import quantize
from compress.training.loop import check_settings
from compress.training.loop import train as run_training
from probes.errors import InputError
from probes.models.facts import size_of


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


def sparse_progressive_distillation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float = 0.9,
    steps: int,
    probability: float = 0.8,
    prune_until: float = 1 / 2,
    alone_from: float = 2 / 3,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a fine-tuned model block by block inside the model itself, so that it learns without overfitting.

    In three stages: the blocks are pruned while each stands, with some probability, in its place in the frozen model,
    whose own block is used otherwise; then that probability rises to 1; then the pruned model is trained alone. All the
    while attention maps, hidden states and soft labels of the model are distilled.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus; labels are not used.
        sparsity, steps, settings: as in `compress.prune`; pruned is by a cubic schedule, 12 times or fewer.
        probability, prune_until, alone_from: as in `compress.pruning.grafting.Grafting`.

    Raises:
        InputError: what `Grafting` and `compress.prune` raise.

    Notes:
        Huang et al. 2022, arXiv 2110.08190: blocks only are trained, and the learning rate decays once until the
        pruning ends and once after it. The authors' learning rates (1.6e-4 and above) are higher than the default here.
        Attention is compared as probabilities, and padding is left out, see `compress.objectives`.
    """
    layers, classes = model.config.num_hidden_layers, max(1, len(model.config.id2label or {}))
    parts: list[Objective] = [
        Attentions(weight=layers),
        HiddenStates(weight=layers + 1),
        SoftLabels(weight=1 / classes),
    ]
    teacher = settings.pop("teacher", model)
    grafting = Grafting(
        teacher,
        probability=probability,
        prune_until=prune_until,
        alone_from=alone_from,
        seed=settings.get("seed", 0),
    )
    how = {"teacher": teacher, "schedule": "cubic", "prunings": min(12, max(1, int(steps * prune_until)))} | settings
    how["callbacks"] = [grafting, *how.get("callbacks", ())]
    return _prune(model, tokenizer, train, parts, sparsity, steps, {"prune_until": prune_until} | how)


def self_distilled_quantization(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    variant: Literal["attention_and_logits", "logits", "attention", "hidden_states"] = "attention_and_logits",
    host: Literal["quant_noise", "product"] = "quant_noise",
    alpha: float = 0.5,
    beta: float = 1.0,
    temperature: float = 2.0,
    **settings: Any,
) -> PreTrainedModel:
    """Quantise a fine-tuned model in training, while the model in full precision is distilled into it.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        steps: updates of the weights.
        variant: what is distilled beside the labels: what each attention head gives, the class probabilities, both, or
            the hidden states.
        host: "quant_noise" rounds random blocks in training and all in the end (`compress.quantize`), "product" gives
            one layer after another few codewords (`compress.product_quantize`).
        alpha, beta: what class probabilities count, and what heads or hidden states do.
        temperature: of the class probabilities.
        settings: of the host: bits, group, noise, ... or codes, block, ..., and of `compress.training.train`.

    Raises:
        InputError: variant or host is not known; what the host raises.

    Notes:
        O' Neill and Dutta 2023, arXiv 2307.05972, its objectives as recalled. With the host "product" the attention of
        all layers is compared all along, not only of those that are quantised by then.
    """
    logits = SoftLabels(weight=alpha, temperature=temperature)
    distilled: dict[str, list[Objective]] = {
        "attention_and_logits": [logits, AttentionOutputs(weight=beta)],
        "logits": [logits],
        "attention": [AttentionOutputs(weight=beta)],
        "hidden_states": [HiddenStates(weight=beta)],
    }
    hosts = {"quant_noise": quantize, "product": product_quantize}
    if variant not in distilled:
        raise InputError(f"variant={variant!r} is not known; choose one of {', '.join(map(repr, distilled))}")
    if host not in hosts:
        raise InputError(f"host={host!r} is not known; choose one of {', '.join(map(repr, hosts))}")
    objective = [CrossEntropy(), *distilled[variant]]
    return hosts[host](model, tokenizer=tokenizer, train=train, steps=steps, objective=objective, **settings)


def codir(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    layers: int,
    steps: int,
    beta: float = 0.5,
    temperature: float = 2.0,
    contrast: float = 0.1,
    **settings: Any,
) -> PreTrainedModel:
    """Distil a fine-tuned model into fewer layers, its intermediate states by contrast with those of other texts.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        layers: of the student.
        steps: updates of the weights.
        beta: what the soft labels count; the labels count 1 - beta.
        temperature: of the soft labels.
        contrast: what the contrast counts.
        settings: of `compress.distill`.

    Raises:
        InputError: what `compress.CoDIR` and `compress.distill` raise.

    Notes:
        Sun, Gan, Cheng, Fang, Wang and Liu 2020, arXiv 2009.14167, with the published loss and mean pooling; the weight
        of the contrast is a choice made here.
    """
    parts: list[Objective] = [
        CrossEntropy(weight=1 - beta),
        SoftLabels(weight=beta, temperature=temperature),
        CoDIR(weight=contrast),
    ]
    return _distill(model, tokenizer, train, parts, layers, steps, settings)


def contrastive_distillation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    layers: int,
    steps: int,
    negatives: Literal["uniform", "classes", "instances"] = "instances",
    mixup: float | None = None,
    contrast: float = 0.8,
    temperature: float = 4.0,
    **settings: Any,
) -> PreTrainedModel:
    """Distil a fine-tuned model into fewer layers by contrast, with negatives that its own representations choose.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        layers: of the student.
        steps: updates of the weights.
        negatives: of similar "classes", similar "instances", or drawn alike ("uniform").
        mixup: interpolate latents into further negatives, with this parameter of the Beta distribution.
        contrast: what the contrast counts.
        temperature: of the soft labels.
        settings: of `compress.distill`.

    Raises:
        InputError: what `compress.CRD` and `compress.distill` raise.

    Notes:
        The papers, and what is a choice made here, are named by `compress.CRD`.
    """
    parts: list[Objective] = [
        CrossEntropy(),
        SoftLabels(temperature=temperature),
        CRD(weight=contrast, negatives=negatives, mixup=mixup),
    ]
    return _distill(model, tokenizer, train, parts, layers, steps, settings)


def relational_distillation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    layers: int,
    steps: int,
    relations: float = 1.0,
    temperature: float = 2.0,
    **settings: Any,
) -> PreTrainedModel:
    """Distil a fine-tuned model into fewer layers by how texts lie to each other, in distances and angles.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels.
        layers: of the student.
        steps: updates of the weights.
        relations: what the distances and angles count.
        temperature: of the soft labels.
        settings: of `compress.distill`.

    Raises:
        InputError: what `compress.Relational` and `compress.distill` raise.

    Notes:
        Park, Kim, Lu and Cho 2019, arXiv 1904.05068; soft labels beside it, and all weights, are choices made here.
    """
    parts: list[Objective] = [CrossEntropy(), SoftLabels(temperature=temperature), Relational(weight=relations)]
    return _distill(model, tokenizer, train, parts, layers, steps, settings)


def meta_distillation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    layers: int,
    steps: int,
    teacher_steps: int | None = None,
    domain: str = "language",
    domain_weight: float = 0.5,
    temperature: float = 2.0,
    **settings: Any,
) -> PreTrainedModel:
    """Distil a model into fewer layers by way of a teacher of several domains, by texts that are typical of them all.

    In three trainings: a copy of the model becomes the teacher, each text counted by its transferability and the
    domains corrupted; then, for half the steps, hidden states, attention maps and domain features of the student come
    close to the teacher's; then its class probabilities do.

    Args:
        model: the model, fine-tuned or not, with a head for the task; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, of two domains at least.
        layers: of the student.
        steps: updates of the student, at least 2.
        teacher_steps: updates of the teacher; by default once through the rows of `train`.
        domain: the column that names the domain of a text: "language", "label" or any other.
        domain_weight: what the corrupted domains count, for teacher and student.
        temperature: of the soft labels.
        settings: of `compress.distill`; those of a training hold for all three, but for what changes or measures the
            student. In a `folder` each training has its own.

    Returns:
        The student. Its `history` has the steps of both its trainings, `config.compression` what was done in the
        second, and under `before` in the first.

    Raises:
        InputError: there are fewer than 2 steps; a teacher is given; what `compress.transferability`,
            `compress.Transferable` and `compress.distill` raise.

    Notes:
        Pan et al. 2021 (Meta-KD), arXiv 2012.01266. Choices made here: one student for all domains, made of layers of
        `model`, and two trainings of the same length.
    """
    if steps < 2:
        raise InputError(f"steps={steps}: expected at least 2, one by layers and one by class probabilities")
    made = {name: settings[name] for name in ("keep", "hidden_size", "initialise", "student") if name in settings}
    check_settings({k: v for k, v in settings.items() if k not in made}, train, tokenizer, steps)
    if "teacher" in settings:
        raise InputError("teacher=...: this recipe trains its own, of model: leave it out")
    # A student without training, so that what cannot be made of the model is refused before its teacher is trained.
    matched = isinstance(made.get("keep"), str) and made["keep"] == "matched"  # which takes text
    distill(model, layers=layers, **made | ({"keep": "uniform"} if matched else {}))
    soft_labels = SoftLabels(temperature=temperature)
    folder = settings.pop("folder", None)
    folders = {name: Path(folder) / name if folder else None for name in ("teacher", "layers", "probabilities")}
    shared = ("batch_size", "learning_rate", "accumulate", "save_every", "seed", "progress")
    common = {name: settings[name] for name in shared if name in settings}
    transfer = transferability(model, tokenizer, train, domain=domain, progress=settings.get("progress", True))
    head = DomainHead(sorted(set(transfer["domain"])), size_of(model, "hidden_size"), seed=settings.get("seed", 0))
    teacher, size = copy.deepcopy(model), settings.get("batch_size", 32)
    size = size if isinstance(size, int) and size > 0 else 1  # what is no size of a batch is refused by the training
    run_training(
        teacher,
        tokenizer,
        train,
        objective=[MetaTeacher(transfer, head, domain_weight=domain_weight)],
        steps=-(-len(transfer) // size) if teacher_steps is None else teacher_steps,
        folder=folders["teacher"],
        **common,
    )
    transferable = Transferable(transfer, head, domain_weight=domain_weight)
    given = {"teacher": teacher, "folder": folders["layers"]} | settings
    halfway = _distill(model, tokenizer, train, [transferable], layers, steps // 2, given)
    for name in made:
        settings.pop(name)
    given = {"teacher": teacher, "folder": folders["probabilities"], "student": halfway} | settings
    student = _distill(model, tokenizer, train, [soft_labels], None, steps - steps // 2, given)
    first, second = (pd.DataFrame(vars(s)["history"]) for s in (halfway, student))
    second["step"] += steps // 2
    vars(student)["history"] = pd.concat([first, second], ignore_index=True)
    return student


def _distill(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    objective: list[Objective],
    layers: int | None,
    steps: int,
    settings: dict[str, Any],
) -> PreTrainedModel:
    return distill(model, layers=layers, train=train, tokenizer=tokenizer, steps=steps, objective=objective, **settings)


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
