"""What the matrices of a model are fed on texts: the second moment of their inputs."""

from __future__ import annotations

from collections.abc import Mapping

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.factorization.factors import Matrix
from compress.inputs import run_of, say_unreached, walk
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import check_fit, embedding_rows, name_of
from probes.states.tokens import batches_of


def second_moments(
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, torch.Tensor]:
    """Mean outer product of the inputs of every matrix over all tokens but padding, in float64.

    Of embeddings the share of each token, the diagonal of it.
    """
    corpus = check_corpus(corpus)
    name = name_of(model)
    check_fit(embedding_rows(model), tokenizer, name)
    where, batches = batches_of(model, tokenizer, corpus, name)
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def see(key: str, x: torch.Tensor) -> None:
        if matrices[key].embedding:
            found = torch.bincount(x, minlength=len(matrices[key].values)).double()
        else:
            x = x.double()
            found = x.T @ x
        sums[key] = sums[key] + found if key in sums else found
        counts[key] = counts.get(key, 0) + len(x)

    modules = {key: matrix.module for key, matrix in matrices.items()}
    walk(model, run_of(model), modules, (batch for _, batch in batches()), see, device=where)
    unseen = [key for key in matrices if key not in sums]
    say_unreached(model, unseen, "their factors are those of the weights alone")
    for key in unseen:
        width = len(matrices[key].values) if matrices[key].embedding else matrices[key].values.shape[1]
        sums[key] = torch.ones(width).double() if matrices[key].embedding else torch.eye(width).double()
        counts[key] = 1
    for key, found in sums.items():
        if not torch.isfinite(found).all():
            raise InputError(
                f"{key}: its inputs are not finite, so nothing can be measured on them. Look at the weights"
            )
    return {key: found.cpu() / counts[key] for key, found in sums.items()}
