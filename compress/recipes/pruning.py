"""Published methods that prune while they distil."""

from __future__ import annotations

from typing import Any, Literal

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.distillation.augmented import augmented
from compress.objectives.base import Objective
from compress.objectives.kinds import supervised, taught
from compress.objectives.layers import Attentions, HiddenStates
from compress.objectives.texts import CrossCorrelation, RepresentationCosine, RepresentationMSE
from compress.objectives.weights import AlignedWeights
from compress.pruning.grafting import Grafting
from compress.pruning.prune import prune
from probes.errors import check_choice


def magnitude_pruning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float,
    steps: int,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a model by magnitude while it is trained on its labels: what others are held to.

    Args:
        model: the fine-tuned model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels of any kind that `compress.objectives.kinds` lists, or, for a
            language model, text.
        sparsity, steps, settings: as in `compress.prune`.

    Returns:
        A new model, as `compress.prune` gives it.

    Notes:
        Han, Pool, Tran and Dally 2015, arXiv 1506.02626, with one training over all prunings. They
        train image classifiers by SGD, so that no setting of theirs is one here.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = magnitude_pruning(
        ...     model, tokenizer, train, sparsity=0.5, steps=2, batch_size=4, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy']

    See also:
        `prune`, `compress.recipes.self_distilled_pruning`.
    """
    return _prune(model, tokenizer, train, [supervised(model)], sparsity, steps, settings)


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
    """Prune a model by magnitude while the model before any pruning is distilled into it.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels of any kind that `compress.objectives.kinds` lists, or, for a
            language model, text.
        sparsity, steps, settings: as in `compress.prune`.
        variant: what is distilled: the cross-correlation of the representations with those of the
            teacher, its class probabilities, or the representations by squared difference or by
            cosine.
        alpha: what the distillation counts; for soft labels the labels count 1 - alpha.
        temperature: of the soft labels.

    Returns:
        A new model, as `compress.prune` gives it.

    Raises:
        InputError: the variant is not known; what `compress.prune` raises.

    Notes:
        O' Neill, Dutta and Assem 2021, arXiv 2109.15014; the weights are a choice made here, and
        their settings of the training are not known here.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = self_distilled_pruning(
        ...     model, tokenizer, train, sparsity=0.5, steps=2, batch_size=4, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'cross_correlation']

    See also:
        `prune`, `CrossCorrelation`, `compress.recipes.magnitude_pruning`.
    """
    labels = supervised(model)
    distilled: dict[str, list[Objective]] = {
        "cross_correlation": [labels, CrossCorrelation(weight=alpha)],
        "soft_labels": [supervised(model, 1 - alpha), taught(model, alpha, temperature)],
        "mse": [labels, RepresentationMSE(weight=alpha)],
        "cosine": [labels, RepresentationCosine(weight=alpha)],
    }
    check_choice("variant", variant, distilled)
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
    """Prune a model by magnitude while each unit stays aligned with what it was before.

    Args:
        model: the fine-tuned model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels of any kind that `compress.objectives.kinds` lists, or, for a
            language model, text.
        sparsity, steps, settings: as in `compress.prune`.
        form: "cosine" ignores the length of a unit, "frobenius" does not.
        weight: what the alignment counts.
        reference: whose units are kept; by default the model's own, or give the pretrained model.

    Returns:
        A new model, as `compress.prune` gives it.

    Notes:
        O' Neill, Dutta and Assem 2022, arXiv 2204.01385; the formulas are a choice made here, see
        `compress.objectives.AlignedWeights`. Their settings of the training are not known here.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = aligned_weights(
        ...     model, tokenizer, train, sparsity=0.5, steps=2, batch_size=4, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['cross_entropy', 'aligned_weights_cosine']

    See also:
        `prune`, `AlignedWeights`, `compress.recipes.magnitude_pruning`.
    """
    aligned = AlignedWeights(model if reference is None else reference, form=form, weight=weight)
    return _prune(model, tokenizer, train, [supervised(model), aligned], sparsity, steps, settings)


def snip(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    sparsity: float,
    steps: int,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a model before it is trained, by how much each connection moves the loss, and train what
    is left.

    Args:
        model: one that is not trained yet, as `type(model)(model.config)` makes it, with a head that
            gives each text one of several classes; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, looked at for the connections and then trained on.
        sparsity, steps, settings: as in `compress.prune`.

    Returns:
        A new model, as `compress.prune` gives it.

    Raises:
        InputError: what `compress.prune` raises.

    Notes:
        Lee, Ajanthan and Torr 2019, arXiv 1810.02340: |w g|, compared over all matrices, once; that
        of the criterion "gradient". Their gradient is of one batch, here of the whole corpus, and
        their weights are drawn with a variance by layer; here they are what the model has. Of a
        model that is trained already the same call prunes by first-order Taylor.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(8))
        >>> new = type(model)(model.config)
        >>> made = snip(new, tokenizer, train, sparsity=0.9, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["criterion"]
        'gradient, global, one shot'

    See also:
        `prune`, `compress.recipes.magnitude_pruning`.
    """
    how = {"criterion": "gradient", "scope": "global", "schedule": "one_shot"} | settings
    return _prune(model, tokenizer, train, [supervised(model)], sparsity, steps, how)


def sparse_bert(
    pretrained: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    teacher: PreTrainedModel,
    sparsity: float = 0.95,
    steps: int,
    attention: Literal["scores", "probabilities"] = "scores",
    copies: int = 0,
    **settings: Any,
) -> PreTrainedModel:
    """Prune a pretrained model while it learns a task from a model that was fine-tuned on it.

    Args:
        pretrained: the model before fine-tuning, with a head for the task; it is not changed.
        tokenizer: of both.
        train: a corpus; labels are not used, and the head may be of any kind.
        teacher: the fine-tuned model, of the same depth and width.
        sparsity, steps, settings: as in `compress.prune`; pruned is by a cubic schedule, 100 times
            or fewer.
        attention: whether attention is compared before the softmax ("scores") or after it.
        copies: of each text, with words replaced by near ones, that are trained on beside it, as
            `compress.distillation.augmented` makes them; about 20 in the paper.

    Returns:
        A new model, as `compress.prune` gives it.

    Notes:
        Xu, Yen, Zhao and Xiao 2021, arXiv 2104.08682: attention, hidden states and soft labels at
        once, no hard labels, as in its authors' code: scores, sums over the layers, and the soft
        labels' mean over classes, which is a weight of one over the classes. Probabilities differ
        so little that with them attention hardly counts. Other than there, padding is left out, and
        near words are those of the model's embeddings.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = sparse_bert(
        ...     model, tokenizer, train, teacher=model, sparsity=0.5, steps=2, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['attentions', 'hidden_states', 'soft_labels']

    See also:
        `prune`, `Attentions`, `HiddenStates`.
    """
    if copies:
        train = augmented(train, pretrained, tokenizer, copies=copies, seed=settings.get("seed", 0))
    parts = _layers_and_labels(teacher, attention)
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
    schedule_of_blocks: Literal["mixed", "linear", "constant"] = "mixed",
    attention: Literal["scores", "probabilities"] = "scores",
    **settings: Any,
) -> PreTrainedModel:
    """Prune a model block by block inside itself, so that it learns without overfitting.

    In three stages: the blocks are pruned while each stands, with some probability, in its place in
    the frozen model, whose own block is used otherwise; then that probability rises to 1; then the
    pruned model is trained alone. All the while attention maps, hidden states and soft labels of
    the model are distilled.

    Args:
        model: the fine-tuned model, also the teacher; it is not changed.
        tokenizer: of the model.
        train: a corpus; labels are not used, and the head may be of any kind.
        sparsity, steps, settings: as in `compress.prune`; pruned is by a cubic schedule, 12 times
            or fewer.
        probability, prune_until, alone_from: as in `compress.pruning.grafting.Grafting`.
        schedule_of_blocks: its `schedule`: how the probability rises.
        attention: whether attention is compared before the softmax ("scores") or after it.

    Returns:
        A new model, as `compress.prune` gives it.

    Raises:
        InputError: what `Grafting` and `compress.prune` raise.

    Notes:
        Huang et al. 2022, arXiv 2110.08190: blocks only are trained, and the learning rate decays
        once until the pruning ends and once after it. The authors' learning rates (1.6e-4 and
        above) are higher than the default here. Scores of attention, sums over the layers and the
        weight of soft labels, one over the classes, are those of their code; padding is left out.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = sparse_progressive_distillation(
        ...     model, tokenizer, train, sparsity=0.5, steps=2, batch_size=4, progress=False
        ... )
        >>> made.config.compression["objective"]
        ['attentions', 'hidden_states', 'soft_labels']

    See also:
        `prune`, `Attentions`, `HiddenStates`.
    """
    teacher = settings.pop("teacher", model)
    parts = _layers_and_labels(teacher, attention)
    grafting = Grafting(
        teacher,
        probability=probability,
        prune_until=prune_until,
        alone_from=alone_from,
        schedule=schedule_of_blocks,
        seed=settings.get("seed", 0),
    )
    how = {"teacher": teacher, "schedule": "cubic", "prunings": min(12, max(1, int(steps * prune_until)))} | settings
    how["callbacks"] = [grafting, *how.get("callbacks", ())]
    return _prune(model, tokenizer, train, parts, sparsity, steps, {"prune_until": prune_until} | how)


def _layers_and_labels(teacher: PreTrainedModel, attention: Literal["scores", "probabilities"]) -> list[Objective]:
    """Attention, hidden states and soft labels, weighted as the authors' code sums them."""
    layers, classes = teacher.config.num_hidden_layers, max(1, len(teacher.config.id2label or {}))
    return [
        Attentions(weight=layers, form=attention),
        HiddenStates(weight=layers + 1),
        taught(teacher, 1 / classes),
    ]


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
