"""Linear maps whose weights are few numbers, dealt out to their places by a hash; and how they are loaded.

Only the numbers are in the file. Which modules these are, how many numbers each has and the seed of
its hash is in the configuration of a model (`config.hashed_weights`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import InputError
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb


class HashedLinear(nn.Module):
    """A linear map whose weight at (output, input) is a sign times one of few numbers, both by a hash
    of the place.

    Attributes:
        values: (bucket, 1), the numbers.
        bias: (output), or None.

    Notes:
        HashedNets, Chen, Wilson, Tyree, Weinberger and Chen 2015, arXiv 1504.04788, with their signs.
        The hash of place output * inputs + input is that word of the stream of numpy's Philox, a
        generator by counter: its lowest bit is the sign, the others modulo the buckets the number.
        The matrix is made once a call: as many operations as before and as much memory while it
        runs.

    Example:
        >>> import torch
        >>> layer = HashedLinear(8, 6, buckets=5, seed=0)
        >>> layer(torch.zeros(7, 8)).shape, sum(p.numel() for p in layer.parameters())
        (torch.Size([7, 6]), 11)
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        buckets: int,
        seed: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a map of zeros."""
        super().__init__()
        self.in_features, self.out_features, self.buckets, self.seed = in_features, out_features, buckets, seed
        self.values = nn.Parameter(torch.zeros(buckets, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        self._places: tuple[torch.Tensor, torch.Tensor] | None = None  # made when needed: it belongs into no file

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the number of the bucket and the sign of every place, (output, input) each."""
        if self._places is None or self._places[0].device != self.values.device:
            words = np.random.Philox(key=self.seed).random_raw(self.out_features * self.in_features)
            shape = (self.out_features, self.in_features)
            numbers = torch.from_numpy(((words >> np.uint64(1)) % np.uint64(self.buckets)).astype(np.int64))
            signs = torch.from_numpy(1 - 2 * (words & np.uint64(1)).astype(np.int8))
            self._places = tuple(t.view(shape).to(self.values.device) for t in (numbers, signs))  # type: ignore[assignment]
        assert self._places is not None
        return self._places

    @property
    def weight(self) -> torch.Tensor:
        """The matrix (output, input) that the numbers make, computed each time."""
        numbers, signs = self.places()
        return self.values[:, 0][numbers] * signs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input) to (..., output)."""
        return nn.functional.linear(x, self.weight, self.bias)


def apply_hashing(model: PreTrainedModel) -> None:
    """Put hashed maps in place of the modules that a model's configuration names, in place; their
    numbers come after.

    `config.hashed_weights` has for each module, by its name in `model.base_model`, how many numbers
    it has and the seed of its hash: {"encoder.layer.0.output.dense": {"buckets": 64, "seed": 7}}.
    What is hashed already stays.

    Args:
        model: a model of transformers; it is changed.

    Raises:
        InputError: the configuration names a module that the model does not have, or that is no
            plain linear map, or more numbers than it has weights.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.hashed_weights = {"encoder.layer.0.output.dense": {"buckets": 8, "seed": 0}}
        >>> apply_hashing(model)
        >>> type(model.bert.encoder.layer[0].output.dense).__name__
        'HashedLinear'
    """
    HASHED_WEIGHTS.put_modules(model, _hashed, HashedLinear)


def hashed_of(model: PreTrainedModel) -> dict[str, dict[str, int]]:
    """Return what `config.hashed_weights` has to say of a model as it is, some layers taken out.

    Example:
        >>> import probes
        >>> hashed_of(probes.load_checkpoint("bundled")[0])
        {}
    """
    return {
        name: {"buckets": module.buckets, "seed": module.seed}
        for name, module in model.base_model.named_modules()
        if isinstance(module, HashedLinear)
    }


def can_be_hashed(module: nn.Module) -> bool:
    """Whether a module is a plain linear map.

    Example:
        >>> can_be_hashed(nn.Linear(2, 3)), can_be_hashed(nn.Embedding(2, 3))
        (True, False)
    """
    return type(module) in (nn.Linear, Conv1D)


def _hashed(name: str, module: nn.Module, settings: dict[str, int]) -> nn.Module:
    if not can_be_hashed(module):
        raise InputError(
            f"config.hashed_weights names the module {name!r}: expected a plain linear map, found "
            f"{type(module).__name__}"
        )
    weight: Any = module.weight
    rows, columns = weight.shape if isinstance(module, nn.Linear) else reversed(weight.shape)
    if settings["buckets"] > rows * columns:
        raise InputError(
            f"config.hashed_weights of the module {name!r}, {rows} x {columns}: expected at most {rows * columns} "
            f"buckets, found {settings['buckets']}"
        )
    made = HashedLinear(columns, rows, **settings, bias=module.bias is not None, device="meta", dtype=weight.dtype)
    made.train(module.training)
    return made if weight.is_meta else made.to_empty(device=weight.device)


def _lacks(model: PreTrainedModel) -> str | None:
    known = dict(model.base_model.named_modules())
    whole = [name for name in model.config.hashed_weights if not isinstance(known.get(name), HashedLinear)]
    return f"{whole[0]} has a number for every weight" if whole else None


_LEFT = {"sparsify_embeddings", "save packed"}  # what needs no matrix of its own


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    if verb in _LEFT or _lacks(model) is not None:  # what is not there is said by itself
        return None
    names = list(model.config.hashed_weights)
    return (
        f"{name_of(model)}: {len(names)} of its matrices are few numbers dealt out by a hash (config.hashed_weights), "
        f"the first {names[0]}, and have no weights of their own. Do it before they are hashed, and train in "
        "compress.hash_weights"
    )


_FORM = {str: {"buckets": range(1, 2**31), "seed": range(2**63)}}
HASHED_WEIGHTS = Format(
    "hashed_weights", "matrices of hashed weights", _FORM, make=apply_hashing, lacks=_lacks, forbids=_forbidden
)
