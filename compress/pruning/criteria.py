"""Criteria of pruning: how much each weight matters, and which ones go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import datasets
import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import ExpertMatrix
from compress.inputs import row_batches, run_of, say_unreached, walk
from compress.kernels import check_linear
from compress.matrices import Matrix, transposed
from compress.pruning.gradients import curvatures, mean_gradients, say_unreached_experts
from compress.rows import training_rows
from probes.errors import InputError, check_choice
from probes.models.blocks import read_next

# What each compares: the weights of one matrix, of all matrices together, or of one output unit.
SCOPES = {
    "random": "matrix",
    "magnitude": "matrix",
    "gradient": "matrix",
    "fisher": "global",
    "obd": "global",
    "lookahead": "matrix",
    "movement": "matrix",
    "lamp": "global",
    "wanda": "unit",
    "sparsegpt": "matrix",
}
NEED_TEXT = {"gradient", "fisher", "obd", "wanda", "sparsegpt"}
_FED = {"wanda", "sparsegpt"}  # look at what matrices are fed
_LITTLE = 4_000_000  # weights
_EVERY = 17  # of weights one is looked at for where a threshold lies about; prime, so that it comes to all columns
_Matrices = Mapping[str, Matrix]


def check_fed(model: PreTrainedModel, matrices: _Matrices, criterion: str) -> None:
    """Raise `InputError` where a criterion looks at what matrices are fed, and some are of no
    linear map.
    """
    if criterion in _FED:
        check_linear(model, list(matrices), f"criterion={criterion!r} weighs weights by what they are fed")


def check_criterion(criterion: str, scope: str | None) -> str:
    """Return what a criterion compares; raise `InputError` where it is not known."""
    check_choice("criterion", criterion, SCOPES)
    if scope is not None:
        check_choice("scope", scope, ("matrix", "global", "unit"))
    return scope or SCOPES[criterion]


def scores(
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    criterion: str,
    *,
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return how much each weight of some matrices matters, by name; low ones go first.

    - "random": by the seed.
    - "magnitude": |w|.
    - "gradient": |w g|, g the gradient of the loss on a labelled corpus (first-order Taylor; of a
      model that is not trained yet the connection sensitivity of SNIP).
    - "fisher": w^2 f / 2, f the mean over the texts of a labelled corpus of g^2, g the gradient of
      the loss of a text; in units of the loss, to be compared over all matrices (Theis, Korshunova,
      Tejani, Huszar 2018, arXiv 1801.05787, there of feature maps).
    - "obd": w^2 h / 2, h the second derivative of the loss by the weight (Optimal Brain Damage,
      LeCun, Denker, Solla 1989), here the diagonal of the Gauss-Newton matrix, exactly and without
      labels, see `compress.pruning.gradients.curvatures`; as many passes a text as classes.
    - "lamp": w^2 over the sum of the squares that are not smaller, in each matrix; to be compared
      over all of them (Lee, Park, Mo, Ahn, Shin 2020, arXiv 2010.07611).
    - "lookahead": |w| times the norms of what the weight connects: the unit of the matrix before
      that it reads, and that of the matrix after which reads it (Park, Lee, Mo, Shin 2020, arXiv
      2002.04809). Matrices with no such neighbour, as query and key, are scored by |w| and that of
      the one side they have.
    - "wanda": |w| times the norm of its input over a corpus, of an expert over the tokens that are
      sent to it; to be compared within an output unit (Sun, Liu, Bair, Kolter 2023, arXiv
      2306.11695).

    Raises:
        InputError: the criterion needs text, or labels, and there are none.

    Example:
        >>> import torch, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, -1.0], [0.5, 2.0]]))
        >>> scores(model, {"w": weight}, "lamp")["w"]
        tensor([[1.0000, 0.0714],
                [0.0175, 0.3077]])

    See also:
        `prune`.
    """
    if criterion in NEED_TEXT and (corpus is None or tokenizer is None):
        raise InputError(f"criterion={criterion!r} looks at text: give corpus=... and tokenizer=...")
    with torch.no_grad(), few_threads(matrices):
        sizes = {name: w.detach().abs().float() for name, w in matrices.items()}
        if criterion == "magnitude":
            return sizes
        if criterion == "random":
            generator = torch.Generator().manual_seed(seed)
            # By name, so that it does not matter in which order matrices come.
            drawn = {name: torch.rand(sizes[name].shape, generator=generator) for name in sorted(sizes)}
            return {name: drawn[name].to(sizes[name].device) for name in sizes}
        if criterion == "lamp":
            return {name: _lamp(size) for name, size in sizes.items()}
        if criterion == "lookahead":
            return _lookahead(model, matrices, sizes)
    assert corpus is not None  # checked above
    assert tokenizer is not None
    if criterion == "gradient":
        return {n: (sizes[n] * g.abs()) for n, g in mean_gradients(model, matrices, corpus, tokenizer).items()}
    if criterion in ("fisher", "obd"):
        bent = curvatures(model, matrices, corpus, tokenizer, criterion)
        # In float64: squares of small gradients are below what float32 holds.
        return {n: sizes[n].double().square() * bent[n] / 2 for n in sizes}
    if criterion == "wanda":
        check_fed(model, matrices, criterion)
        norms = _input_norms(model, matrices, corpus, tokenizer)
        across = transposed(model, sizes)
        return {n: sizes[n] * (norms[n][:, None] if across[n] else norms[n]) for n in sizes}
    if criterion == "sparsegpt":
        raise InputError("criterion='sparsegpt' changes the weights that stay, too: prune by it, it has no scores")
    raise InputError(f"criterion={criterion!r} is gathered in training: give train=... and steps=...")


@contextmanager
def few_threads(matrices: Mapping[str, Matrix]) -> Iterator[None]:
    """Let one thread do what is little work: to wake up others takes longer."""
    threads = torch.get_num_threads()
    if sum(w.numel() for w in matrices.values()) < _LITTLE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def smallest(
    score: Mapping[str, torch.Tensor],
    kept: Mapping[str, torch.Tensor],
    sparsity: float,
    scope: str,
    transposed: Mapping[str, bool],
) -> dict[str, torch.Tensor]:
    """Return which weights stay (True), so that exactly the share `sparsity` of them is gone.

    Those that are gone stay gone; of equal ones the last go. Per matrix and per output unit the
    count is exact in every matrix, over all matrices together in their sum. What is not a number
    goes first.
    """
    out: dict[str, torch.Tensor] = {}
    if scope != "unit":
        for names in [list(score)] if scope == "global" else [[name] for name in score]:
            total = sum(score[n].numel() for n in names)
            among = _top([score[n] for n in names], [kept[n] for n in names], total - round(sparsity * total))
            out.update(zip(names, among, strict=True))
        return out
    for name, s in score.items():
        ranked = behind(s, kept[name])
        units = ranked.T if transposed[name] else ranked
        keep = s.numel() - round(sparsity * s.numel())
        counts = _evenly(kept[name].sum(0 if transposed[name] else 1), keep)[:, None]
        stays = _first(units, counts)
        out[name] = (stays.T if transposed[name] else stays) & kept[name]
    return out


def _first(units: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mark the largest of each row, so many; of equal ones the first. No entry is NaN."""
    # Values are sorted several times as fast as an order is found; only rows with equal ones at the end need it.
    if units.device.type == "cpu" and units.dtype in (torch.float32, torch.float64):
        ascending = torch.from_numpy(np.sort(units.detach().contiguous().numpy(), axis=1))
    else:
        ascending = units.sort(dim=1).values
    width = units.shape[1]
    least = ascending.gather(1, (width - counts).clamp_max(width - 1))
    stays = (units >= least) & (counts > 0)
    tied = (stays.sum(1, keepdim=True) != counts).flatten().nonzero().flatten()
    if len(tied):
        order = units[tied].argsort(dim=1, descending=True, stable=True)
        first = torch.arange(width, device=units.device) < counts[tied]
        stays[tied] = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, first)
    return stays


def _evenly(left: torch.Tensor, keep: int) -> torch.Tensor:
    """How many weights each unit keeps of those it has left: as even as can be."""
    keep = min(keep, int(left.sum()))
    low, high = 0, int(left.max())
    if keep // len(left) < int(left.min()):  # all have enough
        low = high = keep // len(left)
    while low < high:  # the largest number that all may keep
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(left.clamp_max(middle).sum()) <= keep else (low, middle - 1)
    counts = left.clamp_max(low)
    more = (left > low).nonzero().flatten()[: keep - int(counts.sum())]
    counts[more] += 1
    return counts


def _top(score: Sequence[torch.Tensor], kept: Sequence[torch.Tensor], keep: int) -> list[torch.Tensor]:
    """Mark the largest of some tensors together, so many; of equal ones the first."""
    least = _nth_largest(score, keep) if keep else torch.inf
    stays = [(s >= least).logical_and_(k) for s, k in zip(score, kept, strict=True)]
    if sum(int(s.count_nonzero()) for s in stays) == keep:
        return stays
    # Some are as large as the least that stays, or what is gone scores higher than what is left, or too few are left.
    keep = min(keep, sum(int(k.count_nonzero()) for k in kept))
    if keep == 0:
        return [torch.zeros_like(k) for k in kept]
    flat = torch.cat([behind(s, k).flatten() for s, k in zip(score, kept, strict=True)])
    least = _nth_largest([flat], keep)
    among = flat >= least
    equal = (flat == least).nonzero().flatten()
    among[equal[len(equal) - int(among.count_nonzero()) + keep :]] = False
    return [a.view_as(s) for a, s in zip(among.split([s.numel() for s in score]), score, strict=True)]


def _nth_largest(values: Sequence[torch.Tensor], n: int) -> float:
    """Return the n-th largest entry of some tensors together, counted from 1; NaN is below all."""
    flat = [v.detach().flatten() for v in values]
    down = torch.cat(flat).neg_() if len(flat) > 1 else flat[0].neg()
    if down.device.type != "cpu" or down.dtype not in (torch.float32, torch.float64):
        return -float(down.kthvalue(n).values)
    # NumPy's selection is several times as fast as torch's, but not where many equal entries come first, as the zeros
    # of what is gone would: hence downwards.
    numbers = down.numpy()
    numbers.partition(n - 1)
    return -float(numbers[n - 1])


def behind(score: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return scores with what is gone behind everything, and what is not a number right before it.

    Example:
        >>> behind(torch.tensor([3.0, 1.0]), torch.tensor([False, True]))
        tensor([-inf, 1.])
    """
    lowest = torch.finfo(score.dtype).min
    numbers = score.nan_to_num(nan=lowest, posinf=torch.inf, neginf=lowest)
    # At most infinity, or minus that: a fifth of the time of `torch.where`, which decides for each entry anew.
    return torch.minimum(numbers, (kept.to(numbers.dtype) - 0.5) * torch.inf)


def _lamp(size: torch.Tensor) -> torch.Tensor:
    ascending, places = _sorted(size.flatten())
    squares = ascending.double().square_()
    rest = squares.flip(0).cumsum(0).flip(0)  # of those that are not smaller
    out = torch.empty_like(ascending)
    out[places] = squares.div_(rest.clamp_min_(torch.finfo(torch.float64).tiny)).float()
    return out.view_as(size)


def _sorted(sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort float32 numbers of at least 0, of equal ones the first first; with their places."""
    if sizes.device.type != "cpu":
        return sizes.sort(stable=True)
    # Their bits are ordered as they are. With the place below the bits one integer says both, and to sort integers
    # takes NumPy a small part of the time that it takes torch to find an order.
    both = (sizes.view(torch.int32).long() << 32).add_(torch.arange(len(sizes)))
    both.numpy().sort()
    return (both >> 32).int().view(torch.float32), both.bitwise_and_(2**32 - 1)


def smallest_by_lamp(
    sizes: Mapping[str, torch.Tensor], kept: Mapping[str, torch.Tensor], sparsity: float
) -> dict[str, torch.Tensor] | None:
    """Return what `smallest` finds by the scores of "lamp" over all matrices, in a third of the time;
    None where these have to say, as where weights are equal.

    In a matrix the score grows with the size, so that what stays is what is at least so large. Some
    of the weights say about where that lies; only those that are near are put in order.

    Args:
        sizes: absolute values, float32.
        kept, sparsity: as `smallest` takes them.
    """
    if any(type(s) is not torch.Tensor or s.device.type != "cpu" or s.dtype != torch.float32 for s in sizes.values()):
        return None
    flat = [s.flatten().numpy() for s in sizes.values()]
    if not all(np.isfinite(f.sum()) for f in flat):
        return None
    total = sum(map(len, flat))
    keep = total - round(sparsity * total)
    some = [_lamp_of_descending(np.sort(f[::_EVERY])[::-1]) for f in flat]
    every = np.sort(np.concatenate(some))
    about = every[-max(1, round(keep / total * len(every)))]
    above, near, whole = [], [], []
    for f, s in zip(flat, some, strict=True):
        share, size = float((s >= about).mean()), len(f)
        margin = math.ceil(size * (4 * math.sqrt(share * (1 - share) / len(s)) + 3 / len(s)))
        first, last = max(0, round(share * size) - margin), min(size, round(share * size) + margin)
        down = np.negative(f)
        down.partition(last - 1)
        if first:  # one after the other: both at once would take several times as long
            down[:last].partition(first - 1)
        above.append(down[:first].astype(np.float64))
        near.append(-np.sort(down[first:last]))
        whole.append((first == 0, last == size))
    found = [_lamp_of_descending(some_near, float(a @ a)) for some_near, a in zip(near, above, strict=True)]
    among, left = np.concatenate(found), keep - sum(map(len, above))
    if not 0 < left <= len(among):
        return None
    least = -np.partition(-among, left - 1)[left - 1]
    out: dict[str, torch.Tensor] = {}
    for (name, of), score, ordered, (from_first, to_last) in zip(sizes.items(), found, near, whole, strict=True):
        stay = int((score >= least).sum())
        # It may lie farther off than was thought.
        if (stay == 0 and not from_first) or (stay == len(score) and not to_last):
            return None
        out[name] = (of >= (float(ordered[stay - 1]) if stay else math.inf)).logical_and_(kept[name])
    return out if sum(int(s.count_nonzero()) for s in out.values()) == keep else None


def _lamp_of_descending(sizes: np.ndarray, larger: float = 0.0) -> np.ndarray:
    """The scores of sizes in descending order, after others that are larger, by the sum of the squares of these."""
    squares = np.square(sizes, dtype=np.float64)
    rest = np.maximum(squares.cumsum() + larger, np.finfo(np.float64).tiny)
    return np.asarray((squares / rest).astype(np.float32))


def _lookahead(
    model: PreTrainedModel, matrices: _Matrices, sizes: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    out = {name: size.clone() for name, size in sizes.items()}
    for before, after in read_next():
        for name in matrices:
            if not name.endswith(f".{before}.weight"):
                continue
            follower = name[: -len(f"{before}.weight")] + f"{after}.weight"
            if follower not in matrices:
                continue
            one, two = sizes[name], sizes[follower]
            if one.shape[0] != two.shape[1]:  # grouped heads share their values
                continue
            out[name] = out[name] * two.norm(dim=0)[:, None]  # the columns that read each unit
            out[follower] = out[follower] * one.norm(dim=1)[None, :]  # the units that each column reads
    return out


def _input_norms(
    model: PreTrainedModel, matrices: _Matrices, corpus: datasets.Dataset, tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Euclidean norm of every input of every matrix over all tokens but padding."""
    squares: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor) -> None:
        squares[name] = squares.get(name, 0) + x.double().square().sum(0)

    modules = {
        n: w if isinstance(w, ExpertMatrix) else model.get_submodule(n.removesuffix(".weight"))
        for n, w in matrices.items()
    }
    rows, _ = training_rows(corpus, model, tokenizer, numbered_by=None)
    rows = [{k: v for k, v in row.items() if k != "labels"} for row in rows]
    walk(model, run_of(model), modules, row_batches(rows, tokenizer, model), see, device=model.device)
    unseen = [name for name in matrices if name not in squares]
    say_unreached_experts(model, [name for name in unseen if isinstance(matrices[name], ExpertMatrix)])
    others = [name for name in unseen if not isinstance(matrices[name], ExpertMatrix)]
    say_unreached(model, others, "of their weights those of one input count as much as those of another")
    for name in unseen:
        width = matrices[name].shape[0 if transposed(model, [name])[name] else 1]
        squares[name] = torch.ones(width, dtype=torch.float64, device=model.device)
    return {name: value.sqrt().float() for name, value in squares.items()}


def sparsity_at(number: int, of: int, schedule: str) -> float:
    """Return which share is done after pruning `number` of `of`: evenly, or fast first (cubic)."""
    done = number / of
    return done if schedule == "uniform" else 1 - (1 - done) ** 3
