"""Published methods that fine-tune and keep more of what pretraining gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.replaced_tokens import ReplacedTokens
from compress.training.gradients import GradDrop, GradualUnfreezing
from compress.tuning.finetune import finetune


def graddrop(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    p: float | Sequence[float] = 0.3,
    per: Literal["step", "epoch", "layer"] = "step",
    accumulating: bool = False,
    falling: bool = False,
    strict: bool = False,
    **settings: Any,
) -> PreTrainedModel:
    """Fine-tune a model while gradients of its encoder are dropped at random.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, or, for a language model, text.
        steps: updates of the weights.
        p, per, accumulating, falling, strict: of `compress.GradDrop`: what is dropped, and when it
            is drawn anew.
        settings: of `compress.finetune`.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `GradDrop` and `finetune` raise.

    Notes:
        O' Neill and Dutta 2023, GradDrop, the variants as recalled. Suggested: `p` picked from 0.1
        to 0.9 on held-out English (`best="accuracy"`), learning rates of 5e-6 to 2e-5 for a large
        encoder.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = graddrop(model, tokenizer, train, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["gradients"]["p"]
        0.3

    See also:
        `GradDrop`, `compress.recipes.gradual_unfreezing`
    """
    rule = GradDrop(p, per=per, accumulating=accumulating, falling=falling, strict=strict)
    return finetune(model, tokenizer, train, steps=steps, gradients=rule, **settings)


def gradual_unfreezing(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    **settings: Any,
) -> PreTrainedModel:
    """Fine-tune the head of a model, and from each epoch on one more layer, from the last one down.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, or, for a language model, text.
        steps: updates of the weights, of more than one time through the rows.
        settings: of `compress.finetune`.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `GradualUnfreezing` and `finetune` raise.

    Notes:
        Howard and Ruder 2018, arXiv 1801.06146, without their slanted learning rates; what `GradDrop`
        is held to.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(8))
        >>> made = gradual_unfreezing(model, tokenizer, train, steps=3, batch_size=4, progress=False)
        >>> made.config.compression["gradients"]
        {'rule': 'GradualUnfreezing'}

    See also:
        `GradualUnfreezing`, `compress.recipes.graddrop`
    """
    return finetune(model, tokenizer, train, steps=steps, gradients=GradualUnfreezing(), **settings)


def variability_tuning(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    tuned: int = 2,
    **settings: Any,
) -> PreTrainedModel:
    """Put the head where classes vary least, train the layers up to there, and remove those above.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with one class a text.
        steps: updates of the weights.
        tuned: how many layers are trained.
        settings: of `compress.finetune`; by default with a warm-up of 0.06.

    Returns:
        A new model, as `compress.finetune` gives it, with as many layers as the head needs.

    Raises:
        InputError: there are no classes; what `finetune` raises.

    Notes:
        Xie, Qiu, Pasad, Du, Qu and Mei 2022, arXiv 2210.10041: warm-up of 0.06, no weight decay, the
        head placed at the layer with the least variability of the pretrained states, the layers
        above deleted, the embeddings frozen. Their heads are of RoBERTa; here that of the
        architecture. Also theirs: batches of 8, 20 epochs, the best one by `best="accuracy"`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> made = variability_tuning(
        ...     model, tokenizer, train, steps=2, tuned=1, batch_size=4, progress=False
        ... )
        >>> made.config.compression["layers"] == [made.config.num_hidden_layers]
        True

    See also:
        `finetune`, `probes.best_layer`
    """
    how: dict[str, Any] = {"warmup": 0.06} | settings
    return finetune(model, tokenizer, train, steps=steps, layers="by variability", tuned=tuned, **how)


def replaced_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    generator: Any = None,
    **settings: Any,
) -> PreTrainedModel:
    """Heal a compressed encoder on text without labels: which tokens has a small generator replaced?

    Args:
        model: an encoder, with any head or none; it is not changed.
        tokenizer: of the model.
        train: a corpus of text, in all languages that are to be healed.
        steps: updates of the weights.
        generator: as of `ReplacedTokens`.
        settings: of `compress.finetune`; by default keep_zeros=True, so that a pruned model stays
            pruned.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `ReplacedTokens` and `finetune` raise.

    Notes:
        Niklaus and Giofre 2022 (BudgetLongformer), arXiv 2211.17135, after Clark et al. 2020 (ELECTRA),
        arXiv 2003.10555. They pretrain from nothing, in 100,000 steps and more.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> text = probes.load_corpus("bundled", split="train", languages=["en", "zh"]).select(range(8))
        >>> pruned = compress.prune(model, sparsity=0.7)
        >>> healed = replaced_tokens(pruned, tokenizer, text, steps=2, progress=False)
        >>> healed.config.compression["objective"], healed.config.compression["keep_zeros"]
        (['replaced_tokens'], True)

    See also:
        `ReplacedTokens`, `MaskedTokens`
    """
    how: dict[str, Any] = {"keep_zeros": True} | settings
    return finetune(model, tokenizer, train, steps=steps, objective=ReplacedTokens(generator), **how)
