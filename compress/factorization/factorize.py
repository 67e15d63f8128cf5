"""Factorisation: weight matrices as products of two of low rank, or of the cores of a tensor train."""

from __future__ import annotations

import copy
import heapq
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from compress.matrices import block_matrices, found_by
from compress.objectives.base import is_whole
from compress.saving import record
from probes.corpus import check_corpus
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import body_of, check_fit, embedding_rows, name_of
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.factorized import (
    FACTORS,
    LowRankEmbedding,
    LowRankLinear,
    TensorTrainEmbedding,
    TensorTrainLinear,
    apply_factors,
    from_cores,
)
from probes.models.formats.quantized_inputs import apply_quantized_inputs
from probes.states.running import evaluating
from probes.states.tokens import batches_of

METHODS = ("svd", "activation", "tensor_train")
_CORES = 3
_RIDGE = 1e-6  # of the mean second moment
_WHOLE = -1  # in place of a cut: all of a matrix that is left
_LITTLE = 1e-9  # in place of no parameters


def factorize(
    model: PreTrainedModel,
    *,
    rank: int | None = None,
    energy: float | None = None,
    budget: float | None = None,
    method: str = "svd",
    only: str | None = None,
    embeddings: bool = False,
    calibrate: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """Return a copy of a model whose weight matrices are products of smaller ones.

    Factorised are the weight matrices of the transformer blocks (query, key, value, attention output, feed-forward),
    each by itself; norms, biases, pooler and head stay as they are. How small they get is said by one of `rank`,
    `energy` and `budget`. A matrix that would need more parameters in factors than it has stays as it is.

    Args:
        model: a model of transformers; it is not changed.
        rank: of every matrix, at least 1 and at most its smaller side; of a tensor train the most between two cores.
        energy: share, above 0 and at most 1, of each matrix's squared singular values that is kept at least, by the
            lowest rank there is.
        budget: share, above 0 and at most 1, of the parameters of all these matrices together that is kept at most.
            Every matrix starts at rank 1; then, again and again, of the next components of all matrices the one with
            the most energy (squared singular value) for each parameter it takes is added, as long as it fits. Where the
            next one would take a matrix over its own size, the whole of what it lacks stands in for it.
        method: "svd", "activation" (nearest in what the matrix gives on the texts of `calibrate`, not in its entries)
            or "tensor_train".
        only: a regular expression; of the matrices only those whose name it finds are factorised.
        embeddings: also factorise the word embeddings.
        calibrate: for "activation": a corpus that the inputs of every matrix are measured on, all of its rows; some
            hundred texts are enough, and labels are not needed.
        tokenizer: of the model, where there is text.

    Returns:
        A new model of the same class, with modules of `probes.factors` in it: `torch.nn.Linear` and
        `torch.nn.Embedding` that train, prune and quantise like any other. Which ones is kept in
        `model.config.factorized`; `probes.load_checkpoint` reads it, and plain transformers does not.
        `model.config.compression` says what was done: for each matrix the `rank`, the share of `energy` kept, the
        `relative_error` ||W - W'|| / ||W|| in Frobenius norms, and the parameters; which ones were `left`; the
        parameters before and after.

    Raises:
        InputError: not exactly one of rank, energy and budget is given, or it is out of range; the method is not known;
            weights are NaN or infinite; no matrix is found, or one that others share; the embeddings are tied to an
            output layer; what "activation" measures on is missing or empty.

    Notes:
        Singular values are computed in float64. The two factors of low rank have the same norms, component by
        component.
        "activation" minimises ||(W - W') X||, X the inputs of all tokens of the corpus but padding, in closed form, by
        the singular values of W (X X' / n + ridge)^(1/2). That is the aim of ASVD (Yuan et al. 2023, arXiv 2312.05821),
        which scales the inputs one by one, and of SVD-LLM (Wang et al. 2024, arXiv 2403.07378), which whitens them by
        a Cholesky factor; here it is the eigendecomposition, with a ridge of 1e-6 of the mean second moment, a choice
        made here, for what no text shows; the inputs are those in the model as it was given. Energy is then that of
        what a matrix gives on the corpus, and since matrices differ in its scale, `budget` counts shares of it. Of
        embeddings each token's row counts as often as the token occurs.
        Tensor trains are those of Oseledets 2011, by TT-SVD, and as layers those of Novikov et al. 2015, arXiv
        1509.06569. Choices made here: three cores, their sizes by `balanced`, outputs ascending and inputs descending;
        tokens are filled up to a product of three near their cube root; `energy` allows each of the two cuts half of
        the error; `budget` counts the singular values of the matrix unfolded at each cut, of which the discarded
        ones bound the error, and adds where a matrix discards most.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> low = factorize(model, rank=32)
        >>> what = low.config.compression
        >>> what["parameters_of_matrices"] / what["parameters_of_matrices_before"]
        0.375
    """
    _check_settings(model, rank, energy, budget, method, calibrate, tokenizer)
    rank = None if rank is None else int(rank)  # what is saved as JSON
    smaller = copy.deepcopy(model)
    matrices = _matrices(smaller, only, embeddings)
    moments: dict[str, torch.Tensor] = {}
    if method == "activation":
        assert calibrate is not None  # _check_settings has raised
        assert tokenizer is not None
        moments = _second_moments(smaller, matrices, calibrate, tokenizer)
    parts: dict[str, Any] = {
        name: _Train(matrix) if method == "tensor_train" else _LowRank(matrix, moments.get(name))
        for name, matrix in matrices.items()
    }
    if rank is not None:
        for name, part in parts.items():
            _check_rank(name, part, rank)
    ranks: Mapping[str, Sequence[int] | None]
    if budget is not None:
        ranks = _ranks_by_budget(parts, budget, shares=method == "activation")
    else:
        ranks = {name: part.ranks(rank, energy) for name, part in parts.items()}
    chosen = {n: part.cut(r) for n, part in parts.items() if (r := ranks[n]) is not None and part.saves(r)}
    _replace(smaller, matrices, chosen)

    left = [name for name in matrices if name not in chosen]
    if not chosen:
        asked = f"rank={rank}" if rank is not None else f"energy={energy}" if energy is not None else f"budget={budget}"
        warnings.warn(
            f"{asked}: in factors each of the {len(matrices)} matrices would need more parameters than it has, so all "
            "are left as they are. Ask for less",
            LayerscopeWarning,
            stacklevel=2,
        )
    whole = {name: matrix.values.numel() for name, matrix in matrices.items()}
    before = getattr(model.config, "compression", None)
    what: dict[str, Any] = {
        "method": "factorize",
        "factors": method,
        **{k: v for k, v in (("rank", rank), ("energy", energy), ("budget", budget)) if v is not None},
        "matrices": {name: factors.about for name, factors in chosen.items()},
        "left": left,
        "parameters_of_matrices": sum(chosen[n].about["parameters"] if n in chosen else whole[n] for n in whole),
        "parameters_of_matrices_before": sum(whole.values()),
        "parameters": sum(p.numel() for p in smaller.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        "parent": weights_fingerprint(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"before": before} if before is not None else {}),
    }
    return record(smaller, what)


def balanced(size: int, parts: int = _CORES) -> tuple[int, ...]:
    """Return whole numbers, ascending, whose product is `size`, the largest of them as small as can be.

    Of several such the one whose smallest number is largest. A prime number gives itself and ones.

    Example:
        >>> balanced(128), balanced(768), balanced(13)
        ((4, 4, 8), (8, 8, 12), (1, 1, 13))
    """

    def splits(size: int, parts: int, least: int) -> list[tuple[int, ...]]:
        if parts == 1:
            return [(size,)] if size >= least else []
        found = []
        for first in range(least, math.floor(size ** (1 / parts) + 1e-9) + 1):
            if size % first == 0:
                found += [(first, *rest) for rest in splits(size // first, parts - 1, first)]
        return found

    return min(splits(size, parts, 1), key=lambda found: (found[-1], tuple(-f for f in found)))


def tensor_train(
    matrix: torch.Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    *,
    ranks: Sequence[int] | None = None,
    energy: float = 1.0,
) -> tuple[list[torch.Tensor], list[float]]:
    """Cut a matrix into the cores of a tensor train, by TT-SVD.

    Args:
        matrix: (row, column), of the sizes that the products of `rows` and `columns` are.
        rows, columns: the bases of the digits that rows and columns are counted by, one of each a core.
        ranks: the most between two cores, one less than there are cores.
        energy: where no ranks are given, the share of the squared norm that is kept at least; every cut may lose an
            equal part of the rest.

    Returns:
        The cores (rank before, row, column, rank after) in float64, all of one norm, and for each cut the norm of the
        singular values that were discarded. The error is the root of the sum of their squares.

    Example:
        >>> import torch
        >>> matrix = torch.kron(torch.ones(2, 4), torch.arange(6.0).view(3, 2))
        >>> cores, lost = tensor_train(matrix, (2, 3), (4, 2), ranks=(1,))
        >>> [tuple(core.shape) for core in cores], lost[0] < 1e-12
        ([(1, 2, 4, 1), (1, 3, 2, 1)], True)
    """
    count = len(rows)
    rest = _digits(matrix.detach().cpu().double(), rows, columns)
    allowed = (1 - energy) * float(rest.square().sum()) / max(1, count - 1)
    cores, lost, before = [], [], 1
    for k in range(count - 1):
        left, values, right = torch.linalg.svd(rest.reshape(before * rows[k] * columns[k], -1), full_matrices=False)
        tails = _tails(values.square())
        rank = _least_rank(tails, allowed) if ranks is None else min(ranks[k], len(values))
        cores.append(left[:, :rank].reshape(before, rows[k], columns[k], rank))
        lost.append(math.sqrt(float(tails[rank])))
        rest, before = values[:rank, None] * right[:rank], rank
    cores.append(rest.reshape(before, rows[-1], columns[-1], 1))
    norms = [float(core.norm()) for core in cores]
    if all(norms):
        mean = math.prod(norms) ** (1 / count)
        cores = [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]
    return cores, lost


@dataclass
class _Matrix:
    """A matrix of a model: its module and that one's name, and its values (output or token, input or feature)."""

    module: nn.Module
    name: str
    values: torch.Tensor

    @property
    def embedding(self) -> bool:
        return isinstance(self.module, nn.Embedding)


def _matrices(model: PreTrainedModel, only: str | None, embeddings: bool) -> dict[str, _Matrix]:
    """The matrices that are factorised, by the names of their parameters."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    modules = dict(model.base_model.named_modules())
    in_factors = {id(part) for m in modules.values() if isinstance(m, FACTORS) for part in m.modules()}
    names = [name.removeprefix(prefix).removesuffix(".weight") for name in block_matrices(model)]
    free = [name for name in names if id(modules[name]) not in in_factors]
    if not free and not embeddings:
        raise InputError(
            f"{type(model).__name__}: all matrices inside its blocks are in factors already. Factorise the model as it "
            "was before"
            if names
            else f"{type(model).__name__} has no weight matrices inside repeated blocks, so none to factorise"
        )
    if embeddings:
        table = model.get_input_embeddings()
        if type(table) is not nn.Embedding:
            raise InputError(
                f"embeddings=True: expected one plain torch.nn.Embedding of tokens, found {type(table).__name__}"
            )
        free.append(next(name for name, module in modules.items() if module is table))
    named = found_by(only, {f"{prefix}{name}.weight": name for name in free})
    uses: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        uses.setdefault(id(parameter), []).append(key)
    out = {}
    for key, name in named.items():
        weight: Any = modules[name].weight
        others = [other for other in uses[id(weight)] if other != key]
        if others:
            raise InputError(
                f"{key} is one with {others[0]}, which factors would part. "
                + (
                    "Leave out embeddings=True, or give each its own weights first"
                    if isinstance(modules[name], nn.Embedding)
                    else "Factorise before layers are shared, or choose the others with only="
                )
            )
        values = weight.detach().cpu()
        bad = ~torch.isfinite(values)
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            raise InputError(
                f"{key}: row {row} holds {values[row, column].item()}; {int(bad.sum())} of its {values.numel()} values "
                "are NaN or infinite. Look at how it was trained or saved"
            )
        out[key] = _Matrix(modules[name], name, values.T if isinstance(modules[name], Conv1D) else values)
    return out


def _check_settings(
    model: PreTrainedModel,
    rank: int | None,
    energy: float | None,
    budget: float | None,
    method: str,
    calibrate: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of transformers, found {type(model).__name__}")
    if getattr(model.config, "quantization_config", None) is not None:
        raise InputError(
            f"{type(model).__name__}: expected weights that are plain numbers, found quantised ones "
            "(config.quantization_config). Factorise first, then quantise"
        )
    given = [f"{k}={v}" for k, v in (("rank", rank), ("energy", energy), ("budget", budget)) if v is not None]
    if len(given) != 1:
        raise InputError(f"expected exactly one of rank, energy and budget, found {' and '.join(given) or 'none'}")
    if rank is not None and (not is_whole(rank) or rank < 1):
        raise InputError(f"rank={rank!r}: expected a whole number of at least 1")
    for name, share in (("energy", energy), ("budget", budget)):
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            kept = "squared singular values" if name == "energy" else "parameters"
            raise InputError(f"{name}={share!r}: expected a number above 0 and at most 1, the share of the {kept} kept")
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known; choose one of {', '.join(map(repr, METHODS))}")
    if method != "activation":
        if calibrate is not None:
            raise InputError(f"calibrate=... is looked at by method='activation', not by {method!r}: choose that one")
        return
    if calibrate is None:
        raise InputError("method='activation' looks at text: give calibrate=..., a corpus, and tokenizer=...")
    if tokenizer is None:
        raise InputError("calibrate=... looks at text: give tokenizer=... too")
    if len(calibrate) == 0:
        raise InputError("calibrate: expected a corpus with texts, found one of no rows")


def _check_rank(name: str, part: _LowRank | _Train, rank: int) -> None:
    full = max(part.full())
    if rank > full:
        raise InputError(
            f"rank={rank}: {name}, {' x '.join(map(str, part.matrix.values.shape))}, has at most {full}. Ask for less, "
            "or choose the others with only="
        )


@dataclass
class _Factors:
    """What comes in place of a matrix: what its configuration says, its values, and what is recorded of it."""

    settings: dict[str, Any]
    values: list[torch.Tensor]
    about: dict[str, Any]


class _LowRank:
    """A matrix by its singular values, over what it gives for inputs of some second moment."""

    def __init__(self, matrix: _Matrix, moment: torch.Tensor | None) -> None:
        self.matrix = matrix
        given = self.map if moment is None else _times_root(self.map, moment)
        self.left, values, _ = torch.linalg.svd(given, full_matrices=False)
        self.energies = [values.square()]
        self.sizes = [self.map.shape[1], self.map.shape[0]]

    @property
    def map(self) -> torch.Tensor:
        """From inputs to outputs, which for an embedding are tokens and features."""
        values = self.matrix.values.double()
        return values.T if self.matrix.embedding else values

    def full(self) -> list[int]:
        return [min(self.sizes)]

    def ranks(self, rank: int | None, energy: float | None) -> list[int]:
        if rank is not None:
            return [rank]
        assert energy is not None
        tails = _tails(self.energies[0])
        return [_least_rank(tails, (1 - energy) * float(tails[0]))]

    def saves(self, ranks: Sequence[int]) -> bool:
        return ranks[0] * sum(self.sizes) <= self.matrix.values.numel()

    def cut(self, ranks: Sequence[int]) -> _Factors:
        rank = ranks[0]
        whole, second = self.map, self.left[:, :rank]
        first = second.T @ whole
        # Components of equal norms in both, where they are not zero.
        norms = first.norm(dim=1).sqrt()
        norms = torch.where(norms > 0, norms, 1)
        first, second = first / norms[:, None], second * norms
        tails = _tails(self.energies[0])
        about = {
            "rank": rank,
            "energy": 1.0 - _ratio(float(tails[rank]), float(tails[0])),
            "relative_error": _relative_error(whole, second @ first),
            "parameters": rank * sum(self.sizes),
        }
        return _Factors({"rank": rank}, [first, second], about)


class _Train:
    """A matrix as a tensor train."""

    def __init__(self, matrix: _Matrix) -> None:
        self.matrix = matrix
        outputs, inputs = matrix.values.shape
        self.rows = _above(outputs) if matrix.embedding else balanced(outputs)
        self.columns = balanced(inputs)[::-1]
        self.sizes = [r * c for r, c in zip(self.rows, self.columns, strict=True)]

    @property
    def filled(self) -> torch.Tensor:
        """The matrix, filled up with rows of zeros."""
        lacking = math.prod(self.rows) - len(self.matrix.values)
        return torch.nn.functional.pad(self.matrix.values.double(), (0, 0, 0, lacking))

    @property
    def energies(self) -> list[torch.Tensor]:
        """Squared singular values of the matrix unfolded at each cut."""
        digits = _digits(self.filled, self.rows, self.columns)
        cuts = [math.prod(self.sizes[: k + 1]) for k in range(_CORES - 1)]
        return [torch.linalg.svdvals(digits.reshape(cut, -1)).square() for cut in cuts]

    def full(self) -> list[int]:
        cuts = [math.prod(self.sizes[: k + 1]) for k in range(_CORES - 1)]
        return [min(cut, math.prod(self.sizes) // cut) for cut in cuts]

    def ranks(self, rank: int | None, energy: float | None) -> list[int]:
        if rank is not None:
            return [min(rank, full) for full in self.full()]
        assert energy is not None
        cores, _ = tensor_train(self.filled, self.rows, self.columns, energy=energy)
        return [core.shape[3] for core in cores[:-1]]

    def saves(self, ranks: Sequence[int]) -> bool:
        return _train_parameters(self.sizes, ranks) <= self.matrix.values.numel()

    def cut(self, ranks: Sequence[int]) -> _Factors:
        cores, lost = tensor_train(self.filled, self.rows, self.columns, ranks=ranks)
        found = [core.shape[3] for core in cores[:-1]]
        settings = {"rows": list(self.rows), "columns": list(self.columns), "ranks": found}
        energy = float(self.filled.square().sum())
        about = {
            "rank": found,
            "energy": 1.0 - _ratio(sum(part**2 for part in lost), energy),
            "relative_error": _relative_error(self.filled, from_cores(cores)),
            "parameters": _train_parameters(self.sizes, found),
        }
        return _Factors(settings, cores, about)


def _replace(model: PreTrainedModel, matrices: Mapping[str, _Matrix], chosen: Mapping[str, _Factors]) -> None:
    """Put factors in place of some matrices of a model, in place."""
    if not chosen:
        return
    known = dict(getattr(model.config, "factorized", None) or {})
    model.config.factorized = known | {matrices[key].name: factors.settings for key, factors in chosen.items()}
    apply_factors(model)
    for key, factors in chosen.items():
        module = model.base_model.get_submodule(matrices[key].name)
        old: Any = matrices[key].module
        with torch.no_grad():
            if isinstance(module, LowRankLinear):
                module.first.weight.copy_(factors.values[0])
                module.second.weight.copy_(factors.values[1])
            elif isinstance(module, LowRankEmbedding):
                module.weight.copy_(factors.values[0].T)
                module.second.weight.copy_(factors.values[1])
            elif isinstance(module, TensorTrainLinear | TensorTrainEmbedding):
                module.set_cores(factors.values)
            bias = module.second.bias if isinstance(module, LowRankLinear) else getattr(module, "bias", None)
            if bias is not None:
                bias.copy_(old.bias)
        for parameter in module.parameters():
            parameter.requires_grad_(old.weight.requires_grad)
    apply_quantized_inputs(model)


def _ranks_by_budget(
    parts: Mapping[str, _LowRank | _Train], budget: float, shares: bool
) -> dict[str, list[int] | None]:
    """The ranks of every matrix, None for the whole of it, so that together they take a share of their parameters.

    Greedy: of the next components of all matrices, the one of most energy for each parameter comes first, as it is or
    as its share of that of its matrix.
    """
    energies = {name: part.energies for name, part in parts.items()}
    if shares:
        energies = {name: [e / e.sum().clamp_min(torch.finfo(e.dtype).tiny) for e in energies[name]] for name in parts}
    whole = {name: part.matrix.values.numel() for name, part in parts.items()}
    ranks: dict[str, list[int] | None] = {name: [1] * len(energies[name]) for name in parts}
    used = {name: _train_parameters(part.sizes, [1] * len(energies[name])) for name, part in parts.items()}
    for name in parts:
        if used[name] > whole[name]:
            ranks[name], used[name] = None, whole[name]
    left = math.floor(budget * sum(whole.values()) + 1e-9) - sum(used.values())
    if left < 0:
        raise InputError(
            f"budget={budget}: rank 1 in every matrix takes {sum(used.values()) / sum(whole.values()):.1%} of the "
            "parameters already. Ask for more, or choose some of the matrices with only="
        )
    tails = {name: [_tails(e) for e in energies[name]] for name in parts}

    def next_of(name: str) -> tuple[float, int, int]:
        """Energy, parameters and cut of the next component of a matrix."""
        now, sizes = ranks[name] or [], parts[name].sizes
        lost = [float(tail[rank]) for tail, rank in zip(tails[name], now, strict=True)]
        cut, around = lost.index(max(lost)), [1, *now, 1]
        cost = sizes[cut] * around[cut] + sizes[cut + 1] * around[cut + 2]
        if used[name] + cost > whole[name]:
            return sum(lost), whole[name] - used[name], _WHOLE
        return float(energies[name][cut][now[cut]]) if lost[cut] else 0.0, cost, cut

    names = [name for name in parts if ranks[name] is not None]
    queue: list[tuple[float, int]] = []  # minus the energy for each parameter, and the matrix

    def push(number: int) -> None:
        gained, cost, _ = next_of(names[number])
        if gained > 0:
            heapq.heappush(queue, (-gained / max(cost, _LITTLE), number))

    for number in range(len(names)):
        push(number)
    while queue:
        _, number = heapq.heappop(queue)
        name = names[number]
        _, cost, cut = next_of(name)
        if cost > left:
            continue
        left, used[name] = left - cost, used[name] + cost
        now = ranks[name]
        if cut == _WHOLE:
            ranks[name] = None
        elif now is not None:
            now[cut] += 1
            push(number)
    return ranks


def _train_parameters(sizes: Sequence[int], ranks: Sequence[int]) -> int:
    around = [1, *ranks, 1]
    return sum(size * around[k] * around[k + 1] for k, size in enumerate(sizes))


def _tails(squares: torch.Tensor) -> torch.Tensor:
    """Sums of what is left of squares, in descending order, from each place on; 0 at the end."""
    return torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])


def _least_rank(tails: torch.Tensor, allowed: float) -> int:
    """The lowest rank, at least 1, that loses no more than is allowed."""
    return max(1, int((tails <= allowed).nonzero()[0]))


def _above(size: int) -> tuple[int, ...]:
    """Numbers near the cube root of a size whose product is the size or little above."""
    out, rest = [], size
    for parts in range(_CORES, 0, -1):
        out.append(next(n for n in range(max(1, math.floor(rest ** (1 / parts))), rest + 1) if n**parts >= rest))
        rest = -(-rest // out[-1])
    return tuple(out)


def _digits(matrix: torch.Tensor, rows: Sequence[int], columns: Sequence[int]) -> torch.Tensor:
    """A matrix as a tensor with the digits of row and column side by side: (row 1, column 1, row 2, ...)."""
    count = len(rows)
    return matrix.reshape(*rows, *columns).permute([k + side * count for k in range(count) for side in (0, 1)])


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _relative_error(matrix: torch.Tensor, made: torch.Tensor) -> float:
    return _ratio(float((matrix - made).norm()), float(matrix.norm()))


def _times_root(matrix: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """A map times a root of the second moment of its inputs, given whole or, where it is diagonal, as that."""
    if moment.ndim == 1:
        return matrix * (moment + _RIDGE * moment.mean()).sqrt()
    values, vectors = torch.linalg.eigh(moment)
    return (matrix @ vectors) * (values.clamp_min(0) + _RIDGE * values.mean()).sqrt()


def _second_moments(
    model: PreTrainedModel,
    matrices: Mapping[str, _Matrix],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, torch.Tensor]:
    """Mean over all tokens of a corpus, but padding, of the outer product of the inputs of every matrix, in float64.

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
