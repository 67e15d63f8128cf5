"""Published methods that distil a model into fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import datasets
import pandas as pd
from numpy.typing import ArrayLike
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.distill import distill
from compress.objectives.base import Objective
from compress.objectives.contrast import CRD, CoDIR
from compress.objectives.domains import DomainHead, transferability
from compress.objectives.kinds import supervised, taught
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.patient import PatientStates
from compress.objectives.texts import Relational
from compress.objectives.transferability import MetaTeacher, Transferable
from compress.training.inside import check_settings
from compress.training.loop import train as run_training
from compress.training.settings import FIELDS
from probes.errors import InputError
from probes.models.facts import size_of


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
    """Distil a model into fewer layers, its intermediate states by contrast with other texts.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text: they choose the negatives. Of a model of
            masked tokens it is text, and the loss of its tokens stands for that of labels, as in
            the pre-training of the paper. Other kinds of labels are refused.
        layers: of the student.
        steps: updates of the weights.
        beta: what the soft labels count; the labels count 1 - beta.
        temperature: of the soft labels.
        contrast: what the contrast counts.
        settings: of `compress.distill`.

    Returns:
        A student, as `compress.distill` gives it.

    Raises:
        InputError: what `compress.CoDIR` and `compress.distill` raise.

    Notes:
        Sun, Gan, Cheng, Fang, Wang and Liu 2020, arXiv 2009.14167, with the published loss and mean
        pooling; the weight of the contrast is a choice made here. Their code trains by
        betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.1 and, for most tasks, warmup=0.06.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = codir(
        ...     model, tokenizer, train, layers=2, steps=2, batch_size=8, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'soft_labels', 'codir']

    See also:
        `CoDIR`, `distill`.
    """
    parts: list[Objective] = [
        supervised(model, 1 - beta),
        taught(model, beta, temperature),
        CoDIR(weight=contrast),
    ]
    return _distill(model, tokenizer, train, parts, layers, steps, settings)


def patient_distillation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    layers: int,
    steps: int,
    alpha: float = 0.5,
    beta: float = 100.0,
    temperature: float = 10.0,
    strategy: Literal["skip", "last"] = "skip",
    **settings: Any,
) -> PreTrainedModel:
    """Distil a model into fewer layers, the directions of its states layer by layer.

    What CoDIR is held to.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, classes.
        layers: of the student, at least 2.
        steps: updates of the weights.
        alpha: what the soft labels count; the labels count 1 - alpha.
        beta: what the directions of states count.
        temperature: of the soft labels.
        strategy: which of the teacher's layers: spread over them ("skip") or its "last" ones.
        settings: of `compress.distill`, and how the training goes, of `compress.TrainingSettings`.

    Returns:
        A student, as `compress.distill` gives it.

    Raises:
        InputError: what `compress.PatientStates` and `compress.distill` raise.

    Notes:
        Sun, Cheng, Gan and Liu 2019, arXiv 1908.09355, as recalled: they search alpha in 0.2 to
        0.7, beta in 10 to 1000 and the temperature in 5, 10 and 20; the values here are choices
        from these.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = patient_distillation(
        ...     model, tokenizer, train, layers=2, steps=2, batch_size=8, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'soft_labels', 'patient_states']

    See also:
        `PatientStates`, `compress.recipes.codir`, `distill`.
    """
    parts: list[Objective] = [
        CrossEntropy(weight=1 - alpha),
        SoftLabels(weight=alpha, temperature=temperature),
        PatientStates(weight=beta, strategy=strategy),
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
    k: int = 100,
    top_k: int | None = None,
    sharpness: float = 0.1,
    vectors: Mapping[str, ArrayLike] | None = None,
    contrast: float = 0.8,
    temperature: float = 4.0,
    **settings: Any,
) -> PreTrainedModel:
    """Distil a model into fewer layers by contrast, its representations choosing negatives.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text; other kinds are refused.
        layers: of the student.
        steps: updates of the weights.
        negatives: of similar "classes", similar "instances", or drawn alike ("uniform").
        mixup: interpolate latents into further negatives, with this parameter of the Beta
            distribution.
        k: negatives of a text.
        top_k, sharpness, vectors: among which they are drawn and how sharply, and whose names are
            alike, as in `compress.CRD`.
        contrast: what the contrast counts.
        temperature: of the soft labels.
        settings: of `compress.distill`.

    Returns:
        A student, as `compress.distill` gives it.

    Raises:
        InputError: what `compress.CRD` and `compress.distill` raise.

    Notes:
        Tian, Krishnan and Isola 2019, arXiv 1910.10699, with the negatives of O' Neill and
        Bollegala 2021, arXiv 2102.06603. The weights are those of RepDistiller as recalled; what is
        a choice made here is said by `compress.CRD`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = contrastive_distillation(
        ...     model, tokenizer, train, layers=2, steps=2, batch_size=8, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'soft_labels', 'crd']

    See also:
        `CRD`, `distill`.
    """
    parts: list[Objective] = [
        CrossEntropy(),
        SoftLabels(temperature=temperature),
        CRD(
            weight=contrast,
            negatives=negatives,
            mixup=mixup,
            k=k,
            top_k=top_k,
            sharpness=sharpness,
            vectors=vectors,
        ),
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
    """Distil a model into fewer layers by how texts lie to each other: distances and angles.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels of any kind that `compress.objectives.kinds` lists, or, for a
            language model, text.
        layers: of the student.
        steps: updates of the weights.
        relations: what the distances and angles count.
        temperature: of the soft labels.
        settings: of `compress.distill`.

    Returns:
        A student, as `compress.distill` gives it.

    Raises:
        InputError: what `compress.Relational` and `compress.distill` raise.

    Notes:
        Park, Kim, Lu and Cho 2019, arXiv 1904.05068; soft labels beside it, and all weights, are
        choices made here.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = relational_distillation(
        ...     model, tokenizer, train, layers=2, steps=2, batch_size=8, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'soft_labels', 'relational']

    See also:
        `Relational`, `distill`.
    """
    parts: list[Objective] = [supervised(model), taught(model, temperature=temperature), Relational(weight=relations)]
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
    """Distil a model into fewer layers by a teacher of several domains and typical texts.

    In three trainings: a copy of the model becomes the teacher, each text counted by its
    transferability and the domains corrupted; then, for half the steps, hidden states, attention
    maps and domain features of the student come close to the teacher's; then its class
    probabilities do.

    Args:
        model: the model, fine-tuned or not, with a head for the task; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text, of two domains at least.
        layers: of the student.
        steps: updates of the student, at least 2.
        teacher_steps: updates of the teacher; by default once through the rows of `train`.
        domain: the column that names the domain of a text: "language", "label" or any other.
        domain_weight: what the corrupted domains count, for teacher and student.
        temperature: of the soft labels.
        settings: of `compress.distill`; those of `compress.TrainingSettings` hold for all three,
            what changes or measures the student for its own two. In a `folder` each training has its own.

    Returns:
        The student. Its `history` has the steps of both its trainings, `config.compression` what
        was done in the second, and under `before` in the first.

    Raises:
        InputError: there are fewer than 2 steps; a teacher is given; what
            `compress.transferability`, `compress.Transferable` and `compress.distill` raise.

    Notes:
        Pan et al. 2021 (Meta-KD), arXiv 2012.01266. Choices made here: one student for all domains,
        made of layers of `model`, and two trainings of the same length. Their settings:
        learning_rate=3e-5, batch_size=16, max_length=128.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en", "zh"])
        >>> train = corpus.remove_columns("split").select(range(0, len(corpus), 5))
        >>> made = meta_distillation(
        ...     model, tokenizer, train, layers=2, steps=2, teacher_steps=1, progress=False
        ... )
        >>> made.config.num_hidden_layers, list(made.history["step"])
        (2, [1, 2])

    See also:
        `transferability`, `MetaTeacher`, `Transferable`.
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
    shared = (*FIELDS, "save_every", "seed", "progress")
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
