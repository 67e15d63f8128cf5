"""Sparse vectors of texts, trained so that translations lie together and few are active."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.matrices import check_plain
from compress.objectives.base import is_whole
from compress.objectives.sparse import SparseActivations, Translations
from compress.retrieval.retrieval_cost import retrieval_cost
from compress.retrieval.sparse_embeddings import pooled_states, sparse_embeddings
from compress.rows import trained_on
from compress.saving import record
from compress.training.inside import Training
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import check_fit, embedding_rows, name_of
from probes.models.formats.sparse_embeddings import apply_sparse_head, sparse_head_of
from probes.states.running import removed

_SOME = 1024  # texts that say where the head begins, and what its vectors cost in the end


def sparsify_embeddings(
    model: PreTrainedModel,
    *,
    train: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    features: int = 512,
    flops: float = 0.1,
    l1: float = 0.0,
    ramp: int | None = None,
    temperature: float = 0.05,
    threshold: float = 0.0,
    moving: float = 0.0,
    learning_rate: float = 1e-3,
    seed: int = 0,
    folder: str | Path | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model that gives sparse vectors of texts, trained on translations.

    The mean of the last hidden states goes through a linear map to many features, ReLU, and
    division by the length. Map and model are trained on two losses: the vectors of translations of
    one sentence come together (`Translations`), and few features are active, all equally often
    (`SparseActivations`).

    Args:
        model: an encoder or decoder of transformers; it is not changed.
        train: a corpus with sentence ids in two languages or more; of rows with a split, those of
            "train". Rows without a translation are left out. Labels are not looked at.
        tokenizer: of the model.
        steps: updates of the weights.
        features: of the sparse vectors, at least 1.
        flops: weight of the loss that keeps retrieval cheap, at least 0: the larger, the sparser. 0
            for none.
        l1: weight of the L1 norm of the vectors in its place, to compare with.
        ramp: steps until these weights are whole; by default half of all.
        temperature: of the contrastive loss, above 0.
        threshold: of a soft threshold in place of ReLU, above 0; then features can be negative.
        moving: as in `SparseActivations`.
        learning_rate: of the head and the model.
        seed: of the head and the training.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on.
        settings: further settings of `compress.training.train`: batch_size, accumulate, evaluate,
            evaluate_at, callbacks, save_every, progress. The negatives of a text are the others of
            its batch: a larger one is a harder task.

    Returns:
        A new model with `model.sparse_head`, for `sparse_embeddings`.
        `model.config.sparse_embeddings` has its size: `probes.load_checkpoint` reads it, and plain
        transformers loads the model without the head. `model.config.compression` says how it was
        made, and by `cost` what `retrieval_cost` is on at most 1,024 of the texts that were trained
        on; `model.history` is what was logged.

    Raises:
        InputError: no sentence of the corpus is there in two languages; features, steps, weights or
            ramp are out of range; a setting is not known; the model is an encoder-decoder, or has a
            sparse head already; tokenizer and model do not fit; all vectors have become zero; what
            `compress.training.train` raises.

    Notes:
        Paria, Yeh, Yen, Xu, Ravikumar and Poczos 2020, arXiv 2004.05665: ReLU, the length divided
        out before the regulariser, the mean over the batch before the square, and the quadratic
        ramp are theirs. Choices made here: the contrastive loss, for parallel sentences (theirs
        were faces and images); the mean over all tokens, special ones included; AdamW with linear
        decay; all weights and sizes. The reference page says how the head begins.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", languages=["en", "de"])
        >>> given = {"train": corpus, "tokenizer": tokenizer}
        >>> sparse = sparsify_embeddings(model, steps=2, progress=False, **given)
        >>> list(sparse.history)
        ['step', 'translations', 'flops', 'loss']
        >>> vectors = sparse_embeddings(sparse, tokenizer, corpus.select(range(10)), progress=False)
        >>> vectors.shape
        (10, 512)

    See also:
        `sparse_embeddings`, `inverted_index`, `retrieval_cost`.
    """
    check_plain(model, "sparsify_embeddings")
    if model.config.is_encoder_decoder:
        raise InputError(f"{type(model).__name__} is an encoder-decoder: expected an encoder or a decoder")
    if not is_whole(features) or features < 1:
        raise InputError(f"features={features!r}: expected a whole number of at least 1")
    for name, weight in (("flops", flops), ("l1", l1)):
        if not isinstance(weight, int | float) or not math.isfinite(weight) or weight < 0:
            raise InputError(f"{name}={weight!r}: expected a finite number of at least 0")
    if not isinstance(threshold, int | float) or not 0 <= threshold < math.inf:
        raise InputError(f"threshold={threshold!r}: expected a finite number of at least 0, 0 for ReLU")
    if not is_whole(steps) or steps < 1:
        raise InputError(f"steps={steps!r}: expected a whole number of at least 1: the head is nothing untrained")
    if ramp is not None and (not is_whole(ramp) or ramp < 0):
        raise InputError(f"ramp={ramp!r}: expected a whole number of steps, 0 for none, or None")
    features, steps = int(features), int(steps)  # what is saved as JSON
    settings |= {"learning_rate": learning_rate}
    training = Training(model, train, tokenizer, steps, folder=folder, seed=seed, **settings)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    rows, left_out = _with_translations(train)
    training.corpus = rows
    ramp = max(1, steps // 2) if ramp is None else int(ramp)
    sparse = copy.deepcopy(model)
    sparse.config.sparse_embeddings = {"features": features} | ({"threshold": float(threshold)} if threshold else {})
    apply_sparse_head(sparse)
    _begin(sparse, tokenizer, _some(rows, seed), seed)
    batches = settings.get("accumulate", 1)
    objective: list[Any] = [Translations(rows["id"][:], tokenizer, temperature)]
    for form, weight in (("flops", flops), ("l1", l1)):
        if weight:
            objective.append(SparseActivations(weight, form, ramp * batches, moving=moving))  # type: ignore[arg-type]
    training.objective = objective
    with removed([sparse.register_forward_hook(_keep_head)]):
        training.run(sparse, about={"ramp": ramp, "temperature": temperature, "threshold": threshold, "moving": moving})
    home: Any = next(model.parameters()).device
    sparse.to(home).train(model.training)
    some = _some(rows, seed)
    how: dict[str, Any] = {
        "method": "sparsify_embeddings",
        "features": features,
        "flops": flops,
        "l1": l1,
        "ramp": ramp,
        "temperature": temperature,
        "threshold": float(threshold),
        "moving": moving,
        "learning_rate": learning_rate,
        "texts": len(rows),
        "texts_left_out": left_out,
        "cost": retrieval_cost(sparse_embeddings(sparse, tokenizer, some, progress=False)),
    }
    return record(sparse, how | training.recorded(), parent=model, history=training.history)


def _keep_head(model: torch.nn.Module, inputs: Any, output: Any) -> None:
    """Let the first output depend on the head, where processes look for it."""
    if not torch.is_grad_enabled():
        return
    head: Any = model.sparse_head
    first = next(iter(output))
    output[first] = output[first] + sum(p.sum() * 0 for p in head.parameters())


def _some(corpus: datasets.Dataset, seed: int) -> datasets.Dataset:
    """Return some rows of a corpus, the same for a seed."""
    return corpus.select(np.sort(np.random.default_rng(seed).permutation(len(corpus))[:_SOME]))


def _begin(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: datasets.Dataset, seed: int) -> None:
    """Give the head its first weights: random, each feature active in half the texts."""
    means = torch.cat([x for _, x in pooled_states(model, tokenizer, corpus, progress=False)])
    linear = sparse_head_of(model).linear
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        drawn = torch.randn(linear.weight.shape, generator=random) / math.sqrt(linear.in_features)
        linear.weight.copy_(drawn)
        linear.bias.copy_(-(linear.weight @ means.mean(0).to(linear.weight)))


def _with_translations(corpus: datasets.Dataset) -> tuple[datasets.Dataset, int]:
    """Return the rows with a translation, without labels, and how many have none."""
    corpus = check_corpus(corpus)
    corpus = corpus.select(trained_on(corpus))
    ids, languages = np.array(corpus["id"][:], object), set(corpus["language"])
    _, group, counts = np.unique(ids, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[group] > 1)
    if not len(kept):
        raise InputError(
            f"expected sentences in two languages or more, found {len(ids)} rows in {len(languages)} language(s) "
            f"({', '.join(sorted(languages)[:5])}) and no id in two of them: translations are what is trained on. Give "
            "a corpus in which translations of a sentence have the same id"
        )
    if len(np.unique(group[kept])) < 2:
        raise InputError("only one sentence has translations: expected at least two, to tell them apart")
    unread = [c for c in ("label",) if c in corpus.column_names]
    return corpus.select(kept).remove_columns(unread), len(ids) - len(kept)
