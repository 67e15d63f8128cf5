"""Linear maps and embeddings in factors: two of low rank, or the cores of a tensor train; and how
they are loaded.

The factors are `torch.nn.Linear` and `torch.nn.Embedding`, so that what works on these works on
them: training, pruning, quantisation. Which modules are in factors, and of which ranks, is in the
configuration of a model (`config.factorized`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from probes.errors import InputError
from probes.models.facts import name_of
from probes.models.formats.format import Format, Verb


class LowRankLinear(nn.Module):
    """A linear map in two: `first` from the inputs to a few numbers, `second` from these to the
    outputs.

    Attributes:
        first: Linear, inputs -> rank, without a bias.
        second: Linear, rank -> outputs.

    Notes:
        It has rank * (inputs + outputs) weights, where the matrix has inputs * outputs.

    Example:
        >>> import torch
        >>> LowRankLinear(8, 6, rank=2)(torch.zeros(5, 8)).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a map of random factors."""
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.first = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.second = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The matrix (output, input) that the factors make, computed each time."""
        return self.second.weight @ self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input) to (..., output)."""
        out: torch.Tensor = self.second(self.first(x))
        return out


class LowRankEmbedding(nn.Embedding):
    """An embedding in two: a narrow table `weight` (token, rank), and `second` from there to the
    features.

    Attributes:
        second: Linear, rank -> features, without a bias.

    Example:
        >>> import torch
        >>> LowRankEmbedding(100, 12, rank=3)(torch.tensor([[4, 7]])).shape
        torch.Size([1, 2, 12])
    """

    def __init__(
        self,
        tokens: int,
        features: int,
        rank: int,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an embedding of random factors."""
        super().__init__(tokens, rank, padding_idx=padding_idx, device=device, dtype=dtype)
        self.second = nn.Linear(rank, features, bias=False, device=device, dtype=dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map tokens (...) to features (..., feature)."""
        out: torch.Tensor = self.second(super().forward(input))
        return out


class _TensorTrain(nn.Module):
    """What both tensor trains share: their cores as one list, whatever module each of them is."""

    def cores(self) -> list[torch.Tensor]:
        """Return the cores (rank before, row, column, rank after)."""
        raise NotImplementedError

    def set_cores(self, cores: Sequence[torch.Tensor]) -> None:
        """Put values into the cores."""
        with torch.no_grad():
            for own, core in zip(self.cores(), cores, strict=True):
                own.copy_(core)


class TensorTrainLinear(_TensorTrain):
    """A linear map whose matrix is a tensor train.

    Outputs are counted by digits of the bases `rows`, inputs by those of `columns`, the first digit
    the highest. The entry of output i and input j is the product G1[i1, j1] G2[i2, j2] ... of small
    matrices.

    Attributes:
        core0, core1, ...: Linear without a bias, core k of (rank before, row, column, rank after)
            as the map from (rank before, column) to (row, rank after).
        bias: (output), or None.

    Notes:
        The weights number the sum of row * column * rank before * rank after over the cores.
        Oseledets 2011; in networks Novikov, Podoprikhin, Osokin and Vetrov 2015, arXiv 1509.06569.
        The matrix is made once a call, which takes far fewer operations than to take every token
        through the cores, and its memory for as long. Tokens go through the cores only where
        something is done to what a core gets: hooks, or weights that are not plain numbers.

    Example:
        >>> import torch
        >>> layer = TensorTrainLinear(rows=(2, 3), columns=(4, 2), ranks=(5,))
        >>> layer(torch.zeros(7, 8)).shape, sum(p.numel() for p in layer.parameters())
        (torch.Size([7, 6]), 76)
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        rows: Sequence[int],
        columns: Sequence[int],
        ranks: Sequence[int],
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make a map of random cores."""
        super().__init__()
        self.in_features, self.out_features = math.prod(columns), math.prod(rows)
        self.rows, self.columns = tuple(rows), tuple(columns)
        self.ranks = _all_ranks(rows, columns, ranks)
        for k, (before, after) in enumerate(pairwise(self.ranks)):
            core = nn.Linear(before * columns[k], rows[k] * after, bias=False, device=device, dtype=dtype)
            self.add_module(f"core{k}", core)
        self.bias = nn.Parameter(torch.zeros(self.out_features, device=device, dtype=dtype)) if bias else None

    def cores(self) -> list[torch.Tensor]:
        """Return the cores (rank before, row, column, rank after), views of the weights."""
        out = []
        for k, (before, after) in enumerate(pairwise(self.ranks)):
            weight: Any = self.get_submodule(f"core{k}").weight
            out.append(weight.view(self.rows[k], after, before, self.columns[k]).permute(2, 0, 3, 1))
        return out

    @property
    def weight(self) -> torch.Tensor:
        """The matrix (output, input) that the cores make, computed each time."""
        return from_cores(self.cores())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input) to (..., output)."""
        if all(map(_plain, self.children())):
            return nn.functional.linear(x, self.weight, self.bias)
        lead = x.shape[:-1]
        # What is left of the inputs last, what is made of the outputs first: (..., rows done, columns left, rank).
        x = x.reshape(*lead, 1, -1, 1)
        for k, columns in enumerate(self.columns):
            x = x.unflatten(-2, (columns, -1)).transpose(-3, -2).transpose(-2, -1)
            x = self.get_submodule(f"core{k}")(x.flatten(-2))  # (..., done, left, rank * column)
            x = x.unflatten(-1, (self.rows[k], -1)).transpose(-3, -2).flatten(-4, -3)
        x = x.reshape(*lead, self.out_features)
        return x if self.bias is None else x + self.bias


class TensorTrainEmbedding(_TensorTrain):
    """An embedding whose table is a tensor train: tokens are counted by digits of the bases `rows`.

    Attributes:
        core0, core1, ...: Embedding, core k of (rank before, row, column, rank after) as a table of
            a row a digit.

    Notes:
        Where the bases make more tokens than there are, the last ones are never looked up.

    Example:
        >>> import torch
        >>> table = TensorTrainEmbedding(98, rows=(10, 10), columns=(4, 3), ranks=(5,))
        >>> table(torch.tensor([[4, 97]])).shape
        torch.Size([1, 2, 12])
    """

    def __init__(
        self,
        tokens: int,
        rows: Sequence[int],
        columns: Sequence[int],
        ranks: Sequence[int],
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an embedding of random cores."""
        super().__init__()
        self.num_embeddings = tokens
        self.rows, self.columns = tuple(rows), tuple(columns)
        self.ranks = _all_ranks(rows, columns, ranks)
        for k, (before, after) in enumerate(pairwise(self.ranks)):
            core = nn.Embedding(rows[k], before * columns[k] * after, device=device, dtype=dtype)
            self.add_module(f"core{k}", core)

    def cores(self) -> list[torch.Tensor]:
        """Return the cores (rank before, row, column, rank after), views of the tables."""
        out = []
        for k, (before, after) in enumerate(pairwise(self.ranks)):
            table: Any = self.get_submodule(f"core{k}").weight
            out.append(table.view(self.rows[k], before, self.columns[k], after).transpose(0, 1))
        return out

    @property
    def weight(self) -> torch.Tensor:
        """The table (token, feature) that the cores make, computed each time."""
        return from_cores(self.cores())[: self.num_embeddings]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (...) to features (..., feature)."""
        digits = []
        for base in reversed(self.rows[1:]):
            digits.append(tokens % base)
            tokens = tokens // base
        digits.append(tokens)  # the highest, not wrapped round: a token too high is an error, as in any embedding
        out: torch.Tensor = self.get_submodule("core0")(digits.pop()).unflatten(-1, (self.columns[0], -1))
        for k in range(1, len(self.rows)):
            core = self.get_submodule(f"core{k}")(digits.pop()).unflatten(-1, (self.ranks[k], -1))
            out = (out @ core).unflatten(-1, (self.columns[k], -1)).flatten(-3, -2)  # (..., feature so far, rank)
        return out.squeeze(-1)


def _plain(core: nn.Module) -> bool:
    """Whether it does not matter that a core is called: nothing watches it, and its weights are
    numbers as they are.
    """
    hooks = core._forward_pre_hooks or core._forward_hooks
    return not hooks and type(core.weight) in (torch.Tensor, nn.Parameter)


def from_cores(cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the matrix (row, column) of a tensor train with cores (rank before, row, column, rank
    after).
    """
    out = cores[0]
    for core in cores[1:]:
        # (before, rows, columns, rank) x (rank, row, column, after) -> (before, rows, row, columns, column, after)
        out = torch.einsum("aijr,rklb->aikjlb", out, core).flatten(3, 4).flatten(1, 2)
    return out[0, :, :, 0]


def apply_factors(model: PreTrainedModel) -> None:
    """Put factors in place of the modules that a model's configuration names, in place; their
    weights come after.

    `config.factorized` has the settings of each module, by its name in `model.base_model`: of low
    rank {"rank": 8}, of a tensor train {"rows": [4, 4, 8], "columns": [8, 4, 4], "ranks": [6, 6]}.
    What is in factors already stays. The new factors hold no values yet.

    Args:
        model: a model of transformers; it is changed.

    Raises:
        InputError: the configuration names a module that the model does not have, or that is no
            linear map and no embedding, or settings that do not fit it.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> model.config.factorized = {"encoder.layer.0.output.dense": {"rank": 8}}
        >>> apply_factors(model)
        >>> type(model.bert.encoder.layer[0].output.dense).__name__
        'LowRankLinear'
    """
    FACTORIZED.put_modules(model, _in_factors, FACTORS)


FACTORS = (LowRankLinear, LowRankEmbedding, TensorTrainLinear, TensorTrainEmbedding)


def _in_factors(name: str, module: nn.Module, settings: Any) -> nn.Module:
    """Make the factors of a module, without values, where it is and of its type."""
    rows, columns = _shape(name, module)
    keys = set(settings) if isinstance(settings, dict) else set()
    good = keys == {"rank"} and _whole(settings["rank"]) and settings["rank"] <= min(rows, columns)
    embedding = isinstance(module, nn.Embedding)
    if keys == {"rows", "columns", "ranks"}:
        sizes = list(settings.values())
        good = all(isinstance(s, list | tuple) and s and all(map(_whole, s)) for s in sizes)
        good = good and len(settings["rows"]) == len(settings["columns"]) == len(settings["ranks"]) + 1
        if good:
            counted = math.prod(settings["rows"])
            good = math.prod(settings["columns"]) == columns and (counted >= rows if embedding else counted == rows)
            good = good and max(settings["ranks"], default=1) <= rows * columns
    if not good:
        raise InputError(
            f"config.factorized of the module {name!r}, {rows} x {columns}: expected a rank of at most "
            f"{min(rows, columns)}, or the rows, columns and ranks of a tensor train of that size, found {settings}"
        )
    weight: Any = module.weight
    # Without a trace in the caller's random numbers.
    how: dict[str, Any] = {"device": "meta", "dtype": weight.dtype}
    made: nn.Module
    if isinstance(module, nn.Embedding):
        if "rank" in settings:
            made = LowRankEmbedding(rows, columns, settings["rank"], padding_idx=module.padding_idx, **how)
        else:
            made = TensorTrainEmbedding(rows, **settings, **how)
    elif "rank" in settings:
        made = LowRankLinear(columns, rows, settings["rank"], bias=module.bias is not None, **how)
    else:
        made = TensorTrainLinear(**settings, bias=module.bias is not None, **how)
    made.train(module.training)
    return made if weight.is_meta else made.to_empty(device=weight.device)


def _shape(name: str, module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear map, tokens and features of an embedding."""
    own = isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.models.")  # as Falcon's
    if not own and type(module) not in (nn.Linear, nn.Embedding, Conv1D):
        raise InputError(
            f"config.factorized names the module {name!r}: expected a plain linear map or embedding, found "
            f"{type(module).__name__}"
        )
    weight: Any = module.weight
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


def _all_ranks(rows: Sequence[int], columns: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
    if not len(rows) == len(columns) == len(ranks) + 1:
        raise InputError(
            f"a tensor train of {len(rows)} rows, {len(columns)} columns and {len(ranks)} ranks: expected as many "
            "columns as rows, and one rank less"
        )
    return (1, *ranks, 1)


def _lacks(model: PreTrainedModel) -> str | None:
    known = dict(model.base_model.named_modules())
    whole = [name for name in model.config.factorized if not isinstance(known.get(name), FACTORS)]
    return f"{whole[0]} is whole" if whole else None


def _forbidden(model: PreTrainedModel, verb: Verb) -> str | None:
    in_layers = [name for name in model.config.factorized if re.search(r"\.\d+\.", name)]
    if verb in ("distill", "narrow") and in_layers:
        return (
            f"{name_of(model)}: {len(in_layers)} matrices of its layers are in factors (config.factorized), the first "
            f"{in_layers[0]}, and students are not made of those. Distil first, then factorise; or give a student=..., "
            "which may be in factors"
        )
    return None


_SIZE = range(1, 2**31)
# Lists one by one: what they must make together is said with the module, in `apply_factors`.
_FORM = {str: ({"rows": [_SIZE], "columns": [_SIZE], "ranks": [_SIZE]}, {"rank": _SIZE})}
FACTORIZED = Format("factorized", "matrices in factors", _FORM, make=apply_factors, lacks=_lacks, forbids=_forbidden)
