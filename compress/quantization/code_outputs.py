"""The output layer in codewords: a few bits in place of a number for each word."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_finite, check_plain
from compress.objectives.base import Objective, is_whole
from compress.objectives.codes import MIXTURES, CodedLabels, CodedTokens
from compress.quantization.codewords import (
    ASSIGNMENTS,
    embedding_codewords,
    frequency_codewords,
    given_codewords,
    random_codewords,
)
from compress.rows import reading_of, training_rows
from compress.saving import record
from compress.training.inside import Training
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.models.facts import head_of, name_of, predicted_tokens
from probes.models.formats.output_codes import (
    CodedOutput,
    apply_output_codes,
    check_bits,
    output_layer,
    saying_bits,
)
from probes.states.by_token import after_output


def code_outputs(
    model: PreTrainedModel,
    *,
    bits: int,
    assignment: str | np.ndarray = "embedding",
    train: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int = 0,
    mixture: str | None = None,
    objective: Objective | Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model whose output layer says the bits of a codeword (error-correcting output
    codes).

    A layer of V words (tokens of a language model, classes of a classifier) and h features has V x h
    numbers; of n bits it has n x (h + 1), and n bits a word that say which codeword it has. What
    the model gives are logits of words as before: the log-likelihood of each codeword, whose
    softmax is renormalised over words. So loss and perplexity can be compared with those of any
    softmax, and all that reads logits reads these.

    Args:
        model: a decoder that predicts the next token, or a classifier of texts; it is not changed.
        bits: of a codeword, at least log2 of the number of words; those beyond it correct errors.
        assignment: which word has which codeword: "random"; "frequency", by how often words occur
            in `train`; "embedding", so that words of similar rows of the output layer differ in few
            bits; or codewords of one's own, zeros and ones (word, bit).
        train: a corpus to train on; also says how frequent words are.
        tokenizer: of the model, where there is text.
        steps: updates of the weights, 0 for no training.
        mixture: of a language model, latent mixture sampling in training: "curriculum" or
            "differentiable", as `compress.CodedTokens` says; None for none.
        objective: what is trained for, of `compress.objectives`; by default the bits
            (`compress.CodedTokens` or `compress.CodedLabels`). For the least perplexity take
            `compress.LanguageModel`, the loss renormalised over words: bits are not independent.
        teacher: for the objectives that need one; by default the model as it is given.
        seed: of the codewords and of the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (gradients, evaluate, evaluate_at, callbacks, save_every, progress).

    Returns:
        A new model, whose output layer is a `probes.models.formats.output_codes.CodedOutput`, before
        training nearest to the layer that it replaces. `model.config.output_codes` has its bits:
        `probes.load_checkpoint` reads it, and plain transformers does not. `model.config.compression`
        says how it was made: how many bits at least and on average codewords differ in (`distance`),
        and the bytes of the layer before and after; `model.history` is what was logged.

    Raises:
        InputError: too few bits for so many words; two words have the same codeword; the model has
            no output layer, or predicts masked tokens, or changes its logits further; frequencies
            are asked for without a corpus; settings that do not go together; what
            `compress.training.train` raises.

    Notes:
        O'Neill and Bollegala 2019, arXiv 1901.07002; output codes: Dietterich and Bakiri 1995, arXiv
        cs/9501101. Choices made here: how the codes are made, on the reference page, and where the
        bits begin: by least squares, so that codewords times weights come near the old layer up to
        what all words share, each word counted by its frequency. An output layer that is tied to
        the embeddings saves no bytes, as these stay: a warning says so.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> train = probes.load_corpus("bundled", split="train", languages=["en"])
        >>> given = {"train": train, "tokenizer": tokenizer, "steps": 2, "progress": False}
        >>> coded = code_outputs(model, bits=6, **given)
        >>> coded.config.output_codes, coded.classifier.linear.out_features, list(coded.history)
        ({'bits': 6}, 6, ['step', 'coded_labels', 'loss'])

    See also:
        `code_accuracy`, `prune_vocabulary`, `factorize`, `footprint`.
    """
    layer = codable_layer(model)
    weight: Any = layer.weight
    words = len(weight)
    if not is_whole(bits) or bits < 1:
        raise InputError(f"bits={bits!r}: expected a whole number of at least 1, the bits of a codeword")
    bits = int(bits)
    check_bits(bits, words, f"bits={bits}")
    table: np.ndarray | None = None
    if isinstance(assignment, str):
        check_choice("assignment", assignment, ASSIGNMENTS, "or give zeros and ones (word, bit)")
        if assignment == "frequency" and (train is None or tokenizer is None):
            raise InputError("assignment='frequency' counts words: give train=..., a corpus, and tokenizer=...")
    else:
        table = given_codewords(assignment, words, bits)
    check_finite(weight, "the output layer")
    tokens = head_of(model) == "tokens"
    own = _objective(tokens, objective, mixture, steps, settings)
    counted = isinstance(assignment, str) and assignment == "frequency"
    training = Training(
        model, train, tokenizer, steps, own, teacher, folder=folder, seed=seed, used=counted, **settings
    )
    counts = np.zeros(words)
    if train is not None and tokenizer is not None:
        counts = _counts(model, train, tokenizer, words, tokens, **reading_of(settings))
    if table is None:
        if assignment == "random":
            table = random_codewords(words, bits, seed)
        elif assignment == "frequency":
            table = frequency_codewords(counts, bits, seed)
        else:
            table = embedding_codewords(weight.detach().double().cpu(), bits, seed)
    shared = any(p is weight for p in model.base_model.parameters())
    if shared:
        warnings.warn(
            f"{name_of(model)}: its output layer is its table of embeddings, which stays: codewords add "
            f"{bits * (weight.shape[1] + 1):,} parameters and {len(table) * -(-bits // 8):,} bytes, and save only "
            "operations",
            LayerscopeWarning,
            stacklevel=2,
        )
    coded = copy.deepcopy(model)
    coded.config.output_codes = {"bits": bits}
    apply_output_codes(coded)
    found = output_layer(coded)
    assert found is not None  # codable_layer has raised
    head = found[1]
    assert isinstance(head, CodedOutput)
    head.set_codes(table)
    _begin(head, layer, counts)
    if steps:
        # Logits of words are not made where nobody looks at them.
        bits_alone = all(isinstance(o, CodedTokens | CodedLabels) for o in training.objective)
        bits_alone = bits_alone and not settings.get("callbacks") and settings.get("replace_words") is None
        with saying_bits(coded) if bits_alone else nullcontext():
            training.run(coded, about={"bits": bits, "assignment": _said(assignment)}, measuring=_by_words)
    bytes_of = {
        "output_bytes_of_parent": sum(p.numel() * p.element_size() for p in layer.parameters()),
        "output_bytes": sum(t.numel() * t.element_size() for t in (*head.parameters(), head.codes)),
    }
    how: dict[str, Any] = {
        "method": "code_outputs",
        "bits": bits,
        "assignment": _said(assignment),
        "words": words,
        "mixture": mixture,
        "distance": distances(table, seed),
        **bytes_of,
    }
    return record(coded, how | training.recorded(), parent=model, history=training.history)


def codable_layer(model: PreTrainedModel) -> nn.Module:
    """Return the output layer of a model that codewords can take the place of; raise `InputError`
    where it has none.
    """
    check_plain(model, "code_outputs")
    name, kind = name_of(model), type(model).__name__
    head = head_of(model)
    if head not in ("tokens", "classes") or model.config.is_encoder_decoder:
        what = (
            "is an encoder-decoder" if model.config.is_encoder_decoder else "has no output layer of tokens or classes"
        )
        raise InputError(
            f"{name}: {kind} {what}: expected a decoder that predicts the next token, or a classifier of texts "
            "(compress.finetune makes one of a model without a head)"
        )
    if head == "tokens" and predicted_tokens(model) == "masked":
        raise InputError(
            f"{name}: {kind} predicts masked tokens: expected a decoder that predicts the next token, or a classifier "
            "of texts"
        )
    found = output_layer(model)
    if found is None or type(found[1]) is not nn.Linear:
        what = "none was found" if found is None else f"found {type(found[1]).__name__}"
        raise InputError(f"{name}: expected a plain linear map as output layer of {kind}, {what}")
    said = torch.tensor([-200.0, -3.0, 2.0])
    if head == "tokens" and not torch.equal(after_output(model)(said), said):
        raise InputError(
            f"{name}: {kind} scales or caps what its output layer gives, so that codewords would not mean what they "
            "say: expected a model whose logits are those of its output layer"
        )
    return found[1]


def distances(table: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return in how many bits codewords (word, bit) differ: the `least` and the `mean` over pairs of
    words; of more than 4,096 words over pairs with so many of them, drawn by the seed.

    Example:
        >>> distances(np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1]]))
        {'least': 1.0, 'mean': 2.0}
    """
    signs = torch.from_numpy(np.asarray(table, np.float32)) * 2 - 1
    words, bits = signs.shape
    some = np.sort(np.random.default_rng(seed).permutation(words)[:4096])
    least, total = float(bits), 0.0
    for part in np.array_split(some, max(1, len(some) * words // 2**22)):
        apart = (bits - signs[part] @ signs.T) / 2
        total += float(apart.double().sum())
        apart[torch.arange(len(part)), torch.from_numpy(part)] = bits  # a word and itself
        least = min(least, float(apart.min()))
    return {"least": least, "mean": total / max(1, len(some) * (words - 1))}


def _objective(
    tokens: bool, given: Objective | Sequence[Objective], mixture: str | None, steps: int, settings: Mapping[str, Any]
) -> list[Objective]:
    """What is trained for; raise where the settings of the mixture cannot be meant."""
    own = list(given) if isinstance(given, Sequence) else [given]
    if mixture is not None:
        check_choice("mixture", mixture, MIXTURES, "or None for none")
        if not tokens:
            raise InputError(f"mixture={mixture!r} mixes tokens that are read, and the model puts texts into classes")
        if not steps:
            raise InputError(f"mixture={mixture!r} is of a training, and steps=0 trains nothing: give steps=...")
        if own:
            raise InputError("mixture=... and objective=... both say what is trained for: leave one of the two out")
    if own:
        return own
    accumulate = settings.get("accumulate", 1)
    batches = steps * accumulate if is_whole(steps) and is_whole(accumulate) else 1
    return [CodedTokens(mixture=mixture, batches=max(1, batches)) if tokens else CodedLabels()]


def _counts(
    model: PreTrainedModel,
    train: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    words: int,
    tokens: bool,
    **reading: Any,
) -> np.ndarray:
    """How often each word (word,) is to be said in the texts that are trained on."""
    rows, labelled = training_rows(train, model, tokenizer, numbered_by=None if tokens else "student", **reading)
    if tokens:
        return np.bincount(np.concatenate([row["input_ids"][1:] for row in rows]).astype(int), minlength=words)[:words]
    if not labelled:
        return np.zeros(words)
    return np.bincount([row["labels"] for row in rows], minlength=words)


def _begin(head: CodedOutput, layer: nn.Module, counts: np.ndarray) -> None:
    """Give the bits the weights by which words have logits nearest to those of a plain layer.

    Each word counts by its frequency, with one added; what all words share does not count.
    """
    weight: Any = layer.weight
    bias: Any = layer.bias
    weight = weight.detach().double()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    share = torch.from_numpy(counts + 1.0).to(weight)
    root = (share / share.sum()).sqrt()[:, None]
    wanted = torch.cat([weight, bias[:, None]], dim=1)
    codes = head.table().double()
    codes, wanted = (root * (x - (root.square() * x).sum(0)) for x in (codes, wanted))
    square = codes.T @ codes
    square.diagonal().add_(1e-6 * square.diagonal().mean() + 1e-12)  # two bits may be the same in all words
    found = torch.linalg.solve(square, codes.T @ wanted)
    with torch.no_grad():
        head.linear.weight.copy_(found[:, :-1])
        head.linear.bias.copy_(found[:, -1])


def _by_words(evaluate: Callable[[PreTrainedModel], Mapping[str, float]]) -> Callable[..., Mapping[str, float]]:
    """What is measured in training is what the model says of words."""

    def measured(model: PreTrainedModel) -> Mapping[str, float]:
        with saying_bits(model, "words"):
            return evaluate(model)

    return measured


def _said(assignment: str | np.ndarray) -> str:
    return assignment if isinstance(assignment, str) else "given"
