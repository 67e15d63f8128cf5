"""What the matrices of a model are fed on texts: the second moment of their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import datasets
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.factorization.factors import Matrix
from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.facts import body_of, check_fit, embedding_rows, name_of
from probes.states.running import evaluating
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
    mask = torch.empty(0)

    def see(key: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0].detach()
        if matrices[key].embedding:
            x = x[mask] if x.shape == mask.shape else x.flatten()
            found = torch.bincount(x, minlength=len(matrices[key].values)).double()
        else:
            x = (x[mask] if x.shape[:-1] == mask.shape else x.flatten(0, -2)).double()
            found = x.T @ x
        sums[key] = sums[key] + found if key in sums else found
        counts[key] = counts.get(key, 0) + len(x)

    handles = [matrix.module.register_forward_pre_hook(partial(see, key)) for key, matrix in matrices.items()]
    try:
        with evaluating(model, where), torch.inference_mode():
            for _, batch in batches():
                mask = batch["attention_mask"].bool()
                body_of(model)(**batch)
    finally:
        for handle in handles:
            handle.remove()
    unseen = [key for key in matrices if key not in sums]
    if unseen:
        raise InputError(
            f"calibrate: no text reaches {unseen[0]!r} and {len(unseen) - 1} more, as of a decoder whose encoder alone "
            "is run. Choose the others with only="
        )
    for key, found in sums.items():
        if not torch.isfinite(found).all():
            raise InputError(
                f"{key}: its inputs are not finite, so nothing can be measured on them. Look at the weights"
            )
    return {key: found.cpu() / counts[key] for key, found in sums.items()}
