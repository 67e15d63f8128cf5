"""Published methods that fine-tune by another objective: hard texts, contrast, candidate labels, noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.candidates import CandidateLabels
from compress.objectives.dropout_views import SupCLSeq
from compress.objectives.labels import CrossEntropy
from compress.objectives.noise import NoiseContrast
from compress.objectives.pairs import PairSupCon
from compress.objectives.robust import Robust
from compress.training.gradients import TrainedLayers
from compress.tuning.finetune import finetune

# What is asked of the model in training: of two trainings, of the second.
_MEASURED = ("best", "dev", "languages", "looks", "evaluate", "evaluate_at", "callbacks")


def p_dro(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    temperature: float = 0.01,
    fitted: int = 300,
    **settings: Any,
) -> PreTrainedModel:
    """Fine-tune a model on the texts that a language model finds to be hard for it.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text.
        steps: updates of the weights.
        temperature: of the losses that the language model follows.
        fitted: updates in which it is fitted to the text before.
        settings: of `compress.finetune`; by default learning_rate=2e-5.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `Robust` and `finetune` raise.

    Notes:
        Michel, Hashimoto and Neubig 2021, arXiv 2103.10282, with their rates: 2e-5 and, of the
        language model, 1e-4. The step is the last one, or the best one on labels (`best=`); they choose
        it by the worst of all adversaries, as `compress.training.MinmaxValidation` does.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(16))
        >>> made = p_dro(model, tokenizer, train, steps=2, fitted=2, batch_size=4, progress=False)
        >>> made.config.compression["objective"]
        ['robust']

    See also:
        `Robust`, `compress.recipes.rp_dro`
    """
    objective = Robust(CrossEntropy(), method="p-dro", temperature=temperature, fitted=fitted)
    how: dict[str, Any] = {"learning_rate": 2e-5} | settings
    return finetune(model, tokenizer, train, steps=steps, objective=objective, **how)


def rp_dro(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    temperature: float = 0.01,
    **settings: Any,
) -> PreTrainedModel:
    """Fine-tune a model on the texts that a second network of its kind finds to be hard for it.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text.
        steps: updates of the weights.
        temperature: the larger, the more alike texts count.
        settings: of `compress.finetune`; by default learning_rate=2e-5, also that of the second
            network.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `Robust` and `finetune` raise.

    Notes:
        Michel, Hashimoto and Neubig 2022, arXiv 2204.06340, with their rate. The step is the last
        one, or the best one on labels (`best=`); they choose it by the worst of all adversaries, as
        `compress.training.MinmaxValidation` does.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(16))
        >>> made = rp_dro(model, tokenizer, train, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["objective"]
        ['robust']

    See also:
        `Robust`, `compress.recipes.p_dro`
    """
    objective = Robust(CrossEntropy(), method="rp-dro", temperature=temperature)
    how: dict[str, Any] = {"learning_rate": 2e-5} | settings
    return finetune(model, tokenizer, train, steps=steps, objective=objective, **how)


def supcl_seq(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    head_steps: int | None = None,
    head_learning_rate: float = 1e-3,
    rates: tuple[float, ...] = (0.0, 0.05, 0.2),
    **settings: Any,
) -> PreTrainedModel:
    """Bring texts of a class together under several dropout rates, then train the head alone.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with labels, one class a text.
        steps: updates of the encoder.
        head_steps: updates of the head, by default as many.
        head_learning_rate: of the head.
        rates: dropout of each view beside that of the model's own.
        settings: of `compress.finetune`, for both trainings; what measures the model for the second
            alone. In a `folder` each training has its own.

    Returns:
        A new model, as `compress.finetune` gives it; its `history` is that of the head.

    Raises:
        InputError: what `SupCLSeq` and `finetune` raise.

    Notes:
        Sedghamiz, Raval, Santus, Alhanai and Ghassemi 2021, arXiv 2109.07424, with their rates: 5e-5
        and, of the head, 1e-3. The head is that of the architecture, which may have a layer more.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(16))
        >>> made = supcl_seq(model, tokenizer, train, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["objective"], made.config.compression["before"]["objective"]
        (['cross_entropy'], ['supcl_seq'])

    See also:
        `SupCLSeq`, `TrainedLayers`
    """
    folder = settings.pop("folder", None)
    views, head = (None if folder is None else Path(folder) / name for name in ("views", "head"))
    shared = {name: value for name, value in settings.items() if name not in _MEASURED}
    seen = finetune(model, tokenizer, train, steps=steps, objective=SupCLSeq(rates=rates), folder=views, **shared)
    how = settings | {"learning_rate": head_learning_rate, "gradients": TrainedLayers(), "folder": head}
    return finetune(seen, tokenizer, train, steps=head_steps or steps, objective=CrossEntropy(), **how)


def pair_sup_con(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    positive: str = "entailment",
    learning_rate: float = 5e-6,
    **settings: Any,
) -> PreTrainedModel:
    """Bring the texts of a pair together, and apart from those of others, hard ones above all.

    Args:
        model: a pretrained model, with a head or without; it is not changed.
        tokenizer: of the model.
        train: pairs: a corpus with `text_pair` and label, or of translations.
        steps: updates of the weights.
        positive: the label of pairs that belong together.
        learning_rate: of the model; what the objective learns has 100 times that.
        settings: of `compress.finetune`.

    Returns:
        A new model, as `compress.finetune` gives it; mean states are what it is for.

    Raises:
        InputError: what `PairSupCon` and `finetune` raise.

    Notes:
        Zhang, Li, Xiao, Zhu, Nallapati, Arnold and Xiang 2021, arXiv 2109.05424, with their rates;
        also theirs: batch_size=1024, max_length=32.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en", "zh"])
        >>> made = pair_sup_con(model, tokenizer, train, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["objective"]
        ['pair_sup_con']

    See also:
        `PairSupCon`
    """
    objective = PairSupCon(positive=positive, learning_rate=100 * learning_rate)
    how = {"learning_rate": learning_rate} | settings
    return finetune(model, tokenizer, train, steps=steps, objective=objective, **how)


def plsp(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    warmup_epochs: int = 1,
    top_k: int = 200,
    **settings: Any,
) -> PreTrainedModel:
    """Fine-tune a model on texts of several candidate labels, one of which is right.

    Args:
        model: a pretrained model; it is not changed.
        tokenizer: of the model.
        train: a corpus with a column `labels`, of several names a text.
        steps: updates of the weights, of more than one time through the rows.
        warmup_epochs: in which all candidates count alike.
        top_k: texts of each class that are then learned from.
        settings: of `compress.finetune`.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `CandidateLabels` and `finetune` raise.

    Notes:
        Li, Jiang, Li, Wang and Ouyang 2023, arXiv 2211.13655, who train image classifiers for 250
        epochs by SGD, 10 of them warm-up; what differs is said by `CandidateLabels`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(8))
        >>> names = list(model.config.id2label.values())
        >>> cells = [" ".join({label, names[0]}) for label in corpus["label"]]
        >>> train = corpus.add_column("labels", cells)
        >>> made = plsp(model, tokenizer, train, steps=4, batch_size=4, progress=False)
        >>> made.config.compression["objective"]
        ['candidate_labels']

    See also:
        `CandidateLabels`
    """
    objective = CandidateLabels(warmup=warmup_epochs, top_k=top_k)
    return finetune(model, tokenizer, train, steps=steps, objective=objective, **settings)


def noise_contrast(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    *,
    steps: int,
    k: int = 25,
    **settings: Any,
) -> PreTrainedModel:
    """Train a model of the next token without a softmax over its vocabulary, against unigrams.

    Args:
        model: a decoder, trained before or not; it is not changed.
        tokenizer: of the model.
        train: a corpus.
        steps: updates of the weights.
        k: draws of noise for each token.
        settings: of `compress.finetune`.

    Returns:
        A new model, as `compress.finetune` gives it.

    Raises:
        InputError: what `NoiseContrast` and `finetune` raise.

    Notes:
        Mnih and Teh 2012, arXiv 1206.6426, with their noise and k; what differs is said by
        `NoiseContrast`.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled-decoder")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"]).select(range(8))
        >>> made = noise_contrast(model, tokenizer, train, steps=2, batch_size=4, progress=False)
        >>> made.config.compression["objective"]
        ['noise_contrast']

    See also:
        `NoiseContrast`, `self_normalization`
    """
    return finetune(model, tokenizer, train, steps=steps, objective=NoiseContrast(k=k), **settings)
