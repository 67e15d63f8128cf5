"""The head that makes sparse representations of texts, and how a model that has one is loaded."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb


class SparseHead(nn.Module):
    """A linear map of a text's mean state to many features, ReLU, and division by the length.

    With a threshold above 0, in place of ReLU the soft threshold sign(x) max(|x| - threshold, 0).

    Attributes:
        linear: Linear, features of the states -> sparse features.
        threshold: 0 for ReLU.

    Example:
        >>> import torch
        >>> vectors = SparseHead(8, 32)(torch.ones(5, 8))
        >>> vectors.shape, bool((vectors >= 0).all())
        (torch.Size([5, 32]), True)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: Any = None,
        dtype: torch.dtype | None = None,
        threshold: float = 0.0,
    ) -> None:
        """Make a head of random weights."""
        super().__init__()
        self.threshold = threshold
        self.linear = nn.Linear(in_features, out_features, device=device, dtype=dtype)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map (text, feature) to (text, sparse feature), of length 1, or 0 where no feature is
        active; not negative without a threshold.
        """
        given = self.linear(pooled.to(self.linear.weight.dtype))
        active = F.softshrink(given, self.threshold) if self.threshold else torch.relu(given)
        return F.normalize(active.to(torch.promote_types(active.dtype, torch.float32)), dim=-1)


def apply_sparse_head(model: PreTrainedModel) -> None:
    """Give a model, in place, the head `model.sparse_head` that its configuration names; its
    weights come after.

    `config.sparse_embeddings` has its size, {"features": 512}, and its "threshold" where it has
    one. A head that is there already stays.

    Args:
        model: a model of transformers; it is changed.

    Raises:
        InputError: the configuration says something else, or a head of another size is there.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.sparse_embeddings = {"features": 512}
        >>> apply_sparse_head(model)
        >>> model.sparse_head.linear
        Linear(in_features=128, out_features=512, bias=True)
    """
    wanted = SPARSE_EMBEDDINGS.said(model.config)
    if wanted is None:
        return
    features = wanted.get("features") if isinstance(wanted, dict) else None
    threshold = wanted.get("threshold", 0.0) if isinstance(wanted, dict) else None
    if type(features) is not int or features < 1 or type(threshold) is not float or not 0 <= threshold < math.inf:
        raise InputError(
            f'config.sparse_embeddings is {wanted!r}: expected {{"features": a whole number, at least 1}}, and '
            '"threshold", where it is there, a number with a point of at least 0'
        )
    head = getattr(model, "sparse_head", None)
    if head is None:
        weight: Any = next(p for p in model.parameters() if p.is_floating_point())
        inputs = int(model.config.get_text_config().hidden_size)
        # Without a trace in the caller's random numbers.
        head = SparseHead(inputs, features, "meta", weight.dtype, threshold).train(model.training)
        model.sparse_head = head if weight.is_meta else head.to_empty(device=weight.device)
    elif head.linear.out_features != features:
        raise InputError(
            f"config.sparse_embeddings says {features} features and the model's head has {head.linear.out_features}: "
            "configuration and weights do not belong together"
        )


def sparse_head_of(model: Any) -> SparseHead:
    """Return the sparse head of a model; raise `InputError` where it has none."""
    head = getattr(model, "sparse_head", None)
    if head is None:
        raise InputError(
            f"{name_of(model)} has no sparse head: expected a model of compress.sparsify_embeddings, or one that "
            "probes.load_checkpoint loaded (plain transformers leaves the head out)"
        )
    found: SparseHead = head
    return found


def _lacks(model: PreTrainedModel) -> str | None:
    return None if hasattr(model, "sparse_head") else "the model has none (plain transformers leaves it out)"


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    name = name_of(model)
    if verb == "sparsify_embeddings":
        return f"{name} has a sparse head already: give the model that it was made from"
    if verb == "narrow":
        return (
            f"hidden_size: the sparse head of {name} reads states of the width that it has. Make the model narrower "
            "that it was made from, then call sparsify_embeddings; or leave hidden_size out"
        )
    if verb == "onnxruntime":
        return (
            f"{name} has a sparse head (config.sparse_embeddings), and an export to ONNX has none. Take "
            "backend='torchao', which keeps it, or give the model that it was made from"
        )
    return None


SPARSE_EMBEDDINGS = Format(
    "sparse_embeddings",
    "a sparse head",
    {"features": range(1, 2**31), "threshold?": float},
    make=apply_sparse_head,
    lacks=_lacks,
    forbids=_forbidden,
)
