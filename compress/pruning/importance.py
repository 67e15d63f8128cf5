"""Which heads and channels matter: by weights, by gradients of the loss, or by given scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import datasets
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.corpus import check_corpus
from probes.errors import InputError
from probes.models.blocks import Site, count_of, ends_of
from probes.models.facts import check_fit, classifies, embedding_rows, name_of
from probes.states.running import evaluating, removed
from probes.states.tokens import batches_of


def given_scores(values: npt.ArrayLike, shape: tuple[int, ...], named: str) -> np.ndarray:
    """Return given scores; raise `InputError` where they are not finite or of this shape."""
    try:
        scores = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"importance: expected numbers of shape ({named}) = {shape}, found {values!r}") from error
    if scores.shape != shape:
        raise InputError(f"importance: expected scores of shape ({named}) = {shape}, found {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError(f"importance: score {np.argwhere(~np.isfinite(scores))[0].tolist()} is not finite")
    return scores


def magnitude_scores(site: Site) -> np.ndarray:
    """Frobenius norm of what each head or channel writes with times what it reads with.

    A channel behind a gate reads with both: the product of their norms. Heads that share key and
    value count as one: the norm of all their maps.
    """
    reads, out = ends_of(site)
    # |W R|^2 = trace(W'W RR'), from matrices of the size of a head.
    squares = (out @ out.transpose(1, 2)).unsqueeze(0)
    for into in reads:
        squares = squares * (into @ into.transpose(1, 2)).unsqueeze(0)
    units = squares.sum((0, 2, 3)).unflatten(0, (count_of(site), -1)).sum(1)
    return units.clamp_min(0).sqrt().cpu().numpy()


def gate_scores(
    model: PreTrainedModel,
    sites: Sequence[Site],
    corpus: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    importance: str = "taylor",
) -> list[np.ndarray]:
    """Mean over the texts, by place, of |dL/dm| ("taylor") or (dL/dm)^2 / 2 ("fisher"), m = 1 scaling
    what a head or channel gives.
    """
    experts = [site for site in sites if site.expert is not None]
    if experts:
        raise InputError(
            f"importance={importance!r}: {type(model).__name__} ({model.config.model_type}) has experts "
            f"({experts[0].name}.{experts[0].part.names[-1]}), which see some tokens of a text each: what one "
            "of their channels does to the loss of a text is not measured here. Choose 'magnitude', or give scores"
        )
    if not classifies(model):
        problem = getattr(model.config, "problem_type", None)
        raise InputError(
            f"importance={importance!r} needs a head that gives each text one of several classes, found "
            f"{type(model).__name__} with problem_type={problem!r}, num_labels={model.config.num_labels}. "
            "Give a model with such a head, or choose 'magnitude'"
        )
    corpus, tokenizer = check_measurable(model, corpus, tokenizer, importance)
    codes = _label_codes(model, corpus, importance)
    where, batches = batches_of(model, tokenizer, corpus, name_of(model))
    counts = [count_of(site) for site in sites]
    writers = [site.block.get_submodule(site.part.names[-1]) for site in sites]
    totals = [np.zeros(n) for n in counts]
    scales: list[torch.Tensor] = []

    def scaled(number: int, _module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        given = inputs[0].unflatten(-1, (counts[number], -1))  # (text, token, head, feature)
        return ((given * scales[number][:, None, :, None].to(given.dtype)).flatten(-2),)

    hooks = (writer.register_forward_pre_hook(partial(scaled, i)) for i, writer in enumerate(writers))
    with removed(hooks), evaluating(model, where), torch.enable_grad():
        for rows, inputs in batches():
            scales[:] = [torch.ones(len(rows), n, device=where, requires_grad=True) for n in counts]
            wanted = codes[torch.from_numpy(rows)].to(where)
            # A sum, so that each text's gradient is its own, whatever the batch.
            loss = nn.functional.cross_entropy(model(**inputs).logits.float(), wanted, reduction="sum")
            for total, gradient in zip(totals, torch.autograd.grad(loss, scales), strict=True):
                moved = gradient.double().abs() if importance == "taylor" else gradient.double().square() / 2
                total += moved.sum(0).cpu().numpy()
    means = [total / len(corpus) for total in totals]
    for number, values in enumerate(means):
        if not np.isfinite(values).all():
            raise InputError(
                f"importance={importance!r}: a gradient in layer {number} is not finite. Look at the weights"
            )
    return means


def _label_codes(model: PreTrainedModel, corpus: datasets.Dataset, importance: str) -> torch.Tensor:
    """The number of every text's class, named as the head names it or by its number."""
    if "label" not in corpus.column_names:
        raise InputError(f"importance={importance!r} needs a corpus with labels, and it has no column 'label'")
    names = {str(i): i for i in range(model.config.num_labels or 0)}
    named = {str(name): int(i) for i, name in (model.config.id2label or {}).items()}
    labels = [str(label) for label in corpus["label"]]
    known = named if set(labels) <= set(named) else names
    for row, label in enumerate(labels):
        if label not in known:
            raise InputError(
                f"importance={importance!r}: row {row}: label {label!r} is no class of the model, which "
                f"has {', '.join(map(repr, list(named)[:10]))}. Name them as the labels are, in model.config.id2label"
            )
    return torch.tensor([known[label] for label in labels])


def check_measurable(
    model: PreTrainedModel, corpus: datasets.Dataset | None, tokenizer: PreTrainedTokenizerBase | None, importance: str
) -> tuple[datasets.Dataset, PreTrainedTokenizerBase]:
    """Return the corpus, checked, and the tokenizer."""
    if corpus is None or tokenizer is None:
        lacking = " and ".join(n for n, v in (("corpus", corpus), ("tokenizer", tokenizer)) if v is None)
        raise InputError(
            f"importance={importance!r} is measured on texts: {lacking} missing. Give corpus= and tokenizer="
        )
    corpus = check_corpus(corpus)
    check_fit(embedding_rows(model), tokenizer, name_of(model))
    return corpus, tokenizer
