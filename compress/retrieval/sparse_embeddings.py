"""Sparse vectors of texts, by a model that was trained to give them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import scipy.sparse
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.objectives.base import pooled
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import body_of, check_fit, embedding_rows, name_of, types_tokens
from probes.models.formats.sparse_embeddings import sparse_head_of
from probes.states.running import evaluating
from probes.states.tokens import batches_of

ZERO = 1e-8  # up to here a feature counts as zero


def sparse_embeddings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    *,
    max_length: int | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    batch_tokens: int = 4096,
    progress: bool = True,
) -> scipy.sparse.csr_array:
    """Return the sparse vectors of texts, by a model of `sparsify_embeddings`.

    Args:
        model: a model with a sparse head.
        tokenizer: the tokenizer that belongs to it.
        corpus: as `load_corpus` gives it.
        max_length, device, batch_size, batch_tokens, progress: as in `probes.capture`.

    Returns:
        (text, feature) in float32, rows in the order of the corpus and of length 1, so that
        products are cosines. What is at most 1e-8 is left out.

    Raises:
        InputError: the model has no sparse head; every vector is zero; corpus, tokenizer, model and
            settings do not fit together.

    Notes:
        A text in which no feature is active has a row of zeros, which finds nothing and is not
        found; a warning says how many there are.

    Example:
        >>> import compress, probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="train", languages=["en", "de"])
        >>> sparse = compress.sparsify_embeddings(
        ...     model, train=corpus, tokenizer=tokenizer, steps=1, progress=False
        ... )
        >>> sparse_embeddings(sparse, tokenizer, corpus, progress=False).shape == (len(corpus), 512)
        True

    See also:
        `sparsify_embeddings`, `inverted_index`.
    """
    head = sparse_head_of(model)
    corpus = check_corpus(corpus)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    how = {"max_length": max_length, "device": device, "batch_size": batch_size, "batch_tokens": batch_tokens}
    order, parts = [], []
    for rows, means in pooled_states(model, tokenizer, corpus, progress, **how):
        vectors = head(means).float().cpu().numpy()
        order.append(rows)
        parts.append(scipy.sparse.csr_array(np.where(np.abs(vectors) > ZERO, vectors, np.float32(0))))
    found = scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr"))[np.argsort(np.concatenate(order))]
    empty = int((np.diff(found.indptr) == 0).sum())
    if empty == len(corpus):
        raise InputError(
            f"{name_of(model)}: the vectors of all {empty} texts are zero: the head is dead. Train it again with a "
            "smaller flops= (or l1=), a longer ramp=, or a lower learning_rate="
        )
    if empty:
        warnings.warn(
            f"{name_of(model)}: the vectors of {empty} of {len(corpus)} texts are zero: they find nothing and are not "
            "found. A smaller flops= in training leaves more features active",
            LayerscopeWarning,
            stacklevel=2,
        )
    return found


def pooled_states(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: datasets.Dataset,
    progress: bool,
    **how: Any,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield rows and mean last states batch by batch, the model in evaluation mode."""
    where, batches = batches_of(model, tokenizer, corpus, name_of(model), **how)
    body = body_of(model)
    bar = tqdm(total=len(corpus), desc=f"vectors {name_of(model)}", unit="text", disable=not progress)
    with evaluating(model, where), torch.inference_mode(), bar:
        for rows, inputs in batches():
            given = {k: v for k, v in inputs.items() if k != "token_type_ids" or types_tokens(body)}
            states = body(**given, return_dict=True).last_hidden_state
            yield rows, pooled(states, inputs["attention_mask"].bool(), "mean")
            bar.update(len(rows))
