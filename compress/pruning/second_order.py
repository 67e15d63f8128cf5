"""SparseGPT: weights pruned so that those after them make good for what is lost, on what they are fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.blocks import block_by_block, check_tokens
from compress.inputs import row_batches
from compress.matrices import Matrix, check_finite, transposed
from compress.moments import Moments, factor, squared_error
from compress.pruning.criteria import smallest
from compress.pruning.patterns import by_pattern
from compress.rows import training_rows

_COLUMNS = 128  # of a stretch, among whose weights those that go are chosen


def sparsegpt(
    weight: torch.Tensor,
    sparsity: float,
    moments: Moments,
    *,
    pattern: tuple[int, int] | None = None,
    scope: str = "matrix",
    damping: float = 0.01,
    name: str = "the matrix",
) -> torch.Tensor:
    """Set the weights of a matrix to zero, one input after the other, that cost its output least on
    what it is fed, and let those after them make good for it.

    Args:
        weight: (unit, input), computed with in float32.
        sparsity: share that becomes zero.
        moments: of what the matrix is fed.
        pattern: (2, 4): of 4 inputs side by side each unit keeps 2. None for any place.
        scope: what is compared within 128 inputs: all units ("matrix"), or each alone ("unit").
        damping: share of the mean square of inputs that is added to that of each.
        name: what the matrix is called in messages.

    Returns:
        The matrix pruned. What was zero stays zero. Its error on what was seen is at most that of
        pruning as many by |w|, or by |w| times the norm of the input, with the weights that are
        left as they were: where it were not, that is taken.

    Raises:
        InputError: weights are NaN or infinite; the moments have no inverse.

    Notes:
        Frantar and Alistarh 2023, arXiv 2301.00774. Which weights go is decided 128 inputs at a
        time by w^2 over the diagonal of the inverse of the second moments of the inputs from there
        on, where errors before are made good; by a pattern m inputs at a time. Computed without the
        inverse, see `compress.moments.factor`. With a given mask and no other weight it is Optimal
        Brain Surgeon, one input after the other.

    Example:
        >>> x = torch.randn(64, 8) @ torch.randn(8, 8)
        >>> pruned = sparsegpt(torch.randn(4, 8), 0.5, Moments.of(x), pattern=(2, 4))
        >>> (pruned.reshape(4, 2, 4) == 0).sum(-1).unique().tolist()
        [2]

    See also:
        `prune`.
    """
    weight = weight.detach().float()
    check_finite(weight, name)
    products = moments.products
    share, cost = factor(products, damping, name)
    left = weight.T.contiguous()
    alive = left != 0
    new, error = torch.zeros_like(left), torch.zeros_like(left)
    width = len(left)
    among = pattern[1] if pattern else 1
    to_go = round(sparsity * left.numel())
    stretch = max(_COLUMNS // among * among, among)
    for begin in range(0, width, stretch):
        end = min(begin + stretch, width)
        carried = share[begin:end, :begin] @ error[:begin]
        stays = alive[begin:end].clone()
        if pattern is None:
            target = left[begin:end] + _solved(share[begin:end, begin:end], carried)
            # As many as are due, but not fewer than are zero, nor so many that later stretches had to give some back.
            gone, later = int((~stays).sum()), int((~alive[end:]).sum())
            due = round(to_go * stays.numel() / (stays.numel() + alive[end:].numel()))
            due = max(gone, min(due, to_go - later))
            to_go -= due
            chosen = {"w": target.square() * cost[begin:end, None]}
            stays = smallest(chosen, {"w": stays}, due / stays.numel(), scope, {"w": True})["w"]
        for k in range(begin, end):
            at = k - begin
            if pattern is not None and at % among == 0:
                part = slice(at, at + among)
                ahead = carried[part] + share[k : k + among, begin:k] @ error[begin:k]
                target = left[k : k + among] + _solved(share[k : k + among, k : k + among], ahead)
                chosen = {"w": target.square() * cost[k : k + among, None]}
                stays[part] = by_pattern(chosen, {"w": stays[part]}, *pattern, {"w": True})["w"]
            wanted = torch.addmv(left[k] + carried[at], error[begin:k].T, share[k, begin:k])
            torch.mul(wanted, stays[at], out=new[k])
            torch.sub(left[k], new[k], out=error[k])
    return _best(weight, new.T, sparsity, products, pattern, scope)


def _solved(share: torch.Tensor, carried: torch.Tensor) -> torch.Tensor:
    """What errors before a stretch add to each of its weights, where those in it make no new ones."""
    return torch.linalg.solve_triangular(share, carried, upper=False, unitriangular=True)


def _best(
    weight: torch.Tensor,
    pruned: torch.Tensor,
    sparsity: float,
    products: torch.Tensor,
    pattern: tuple[int, int] | None,
    scope: str,
) -> torch.Tensor:
    """The one of least error: pruned by second order, by magnitude, or by magnitude and input."""
    size, kept = weight.abs(), {"w": weight != 0}
    found = [pruned]
    for score, compared in ((size, scope), (size * products.diagonal().sqrt().float(), "unit")):
        if pattern is None:
            stays = smallest({"w": score}, kept, sparsity, compared, {"w": False})["w"]
        else:
            stays = by_pattern({"w": score}, kept, *pattern, {"w": False})["w"]
        found.append(weight * stays)
    return min(found, key=lambda one: float(squared_error(one - weight, products).sum(dtype=torch.float64)))


def prune_by_second_order(
    model: PreTrainedModel,
    matrices: Mapping[str, Matrix],
    sparsity: float,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pattern: tuple[int, int] | None,
    scope: str,
    damping: float,
    progress: bool,
) -> int:
    """Prune the matrices of a model block by block, each fed by what those before it give when they
    are pruned; return on how many tokens.

    Args:
        model: it is changed.
        matrices: of the model.
        sparsity, pattern, scope, damping: as in `sparsegpt`.
        corpus, tokenizer: of split "train", where it has splits.
        progress: show a progress bar.
    """
    rows, _ = training_rows(corpus, model, tokenizer, numbered_by=None)
    rows = [{k: v for k, v in row.items() if k != "labels"} for row in rows]
    across = transposed(model, matrices)
    widths = {name: w.shape[0 if across[name] else 1] for name, w in matrices.items()}
    tokens = sum(len(row["input_ids"]) for row in rows)
    check_tokens(model, widths, tokens, damping, "train")
    how: dict[str, Any] = {"pattern": pattern, "scope": scope, "damping": damping}

    def change(moments: Mapping[str, Moments]) -> None:
        for name, seen in moments.items():
            values = matrices[name].detach()
            pruned = sparsegpt(values.T if across[name] else values, sparsity, seen, name=name, **how)
            values.copy_(pruned.T if across[name] else pruned)

    batches = list(row_batches(rows, tokenizer, model))
    block_by_block(
        model,
        matrices,
        batches,
        change,
        so="of their weights those of one input count as much as those of another",
        progress=progress,
    )
    return tokens
