"""Factorisation: matrices as products of two of low rank, or of the cores of a tensor train."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import expert_matrices
from compress.factorization.budget import ranks_by_budget
from compress.factorization.factors import free_matrices, put_factors
from compress.factorization.low_rank import LowRank
from compress.factorization.moments import second_moments
from compress.factorization.tensor_train import TensorTrain
from compress.matrices import block_matrices, check_plain, covered
from compress.objectives.base import is_whole
from compress.saving import record
from probes.errors import InputError, LayerscopeWarning, check_choice
from probes.models.facts import name_of

METHODS = ("svd", "activation", "tensor_train")


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

    Factorised are the weight matrices of the transformer blocks (query, key, value, attention
    output, feed-forward), each by itself; norms, biases, pooler and head stay as they are. How
    small they get is said by one of `rank`, `energy` and `budget`. A matrix that would need more
    parameters in factors than it has stays as it is.

    Args:
        model: a model of transformers; it is not changed.
        rank: of every matrix, at least 1 and at most its smaller side; of a tensor train the most
            between two cores.
        energy: share, above 0 and at most 1, of each matrix's squared singular values that is kept
            at least, by the lowest rank there is.
        budget: share, above 0 and at most 1, of the parameters of all these matrices together that
            is kept at most. Every matrix starts at rank 1; then, again and again, of the next
            components of all matrices the one with the most energy (squared singular value) for
            each parameter it takes is added, as long as it fits. Where the next one would take a
            matrix over its own size, the whole of what it lacks stands in for it.
        method: "svd", "activation" (nearest in what the matrix gives on the texts of `calibrate`,
            not in its entries) or "tensor_train".
        only: a regular expression; of the matrices only those whose name it finds are factorised.
        embeddings: also factorise the word embeddings.
        calibrate: for "activation": a corpus that the inputs of every matrix are measured on, all
            of its rows; some hundred texts are enough, and labels are not needed.
        tokenizer: of the model, where there is text.

    Returns:
        A new model of the same class, with modules of `probes.models.formats.factorized` in it:
        `torch.nn.Linear` and `torch.nn.Embedding` that train, prune and quantise like any other.
        Which ones is kept in `model.config.factorized`; `probes.load_checkpoint` reads it, and
        plain transformers does not. `model.config.compression` says what was done: for each matrix
        the `rank`, the share of `energy` kept, the `relative_error` ||W - W'|| / ||W|| in Frobenius
        norms, and the parameters; which ones were `left`; the parameters before and after.

    Raises:
        InputError: not exactly one of rank, energy and budget is given, or it is out of range; the
            method is not known; weights are NaN or infinite; no matrix is found, or one that others
            share, or experts, of which each is no module; the embeddings are tied to an output
            layer; what "activation" measures on is missing or empty.

    Notes:
        "activation" minimises ||(W - W') X||, X the inputs of all tokens of the corpus but padding:
        the aim of ASVD (Yuan et al. 2023, arXiv 2312.05821) and of SVD-LLM (Wang et al. 2024, arXiv
        2403.07378), here in closed form. Tensor trains are those of Oseledets 2011, as layers those
        of Novikov et al. 2015, arXiv 1509.06569; three cores are a choice made here. Derivations
        and the other choices: on the reference page.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> low = factorize(model, rank=32)
        >>> what = low.config.compression
        >>> what["parameters_of_matrices"] / what["parameters_of_matrices_before"]
        0.375

    See also:
        `low_rank_lstm`, `tensor_train_lstm`, `footprint`.
    """
    _check_settings(model, rank, energy, budget, method, calibrate, tokenizer)
    rank = None if rank is None else int(rank)  # what is saved as JSON
    smaller = copy.deepcopy(model)
    check_experts(model, only)
    matrices = free_matrices(smaller, only, embeddings)
    touched = {name: weight for name, weight in block_matrices(smaller).items() if name in matrices}
    share = covered(smaller, touched, "factorize", asked=only is not None)
    moments: dict[str, torch.Tensor] = {}
    if method == "activation":
        assert calibrate is not None  # _check_settings has raised
        assert tokenizer is not None
        moments = second_moments(smaller, matrices, calibrate, tokenizer)
    parts: dict[str, Any] = {
        name: TensorTrain(matrix) if method == "tensor_train" else LowRank(matrix, moments.get(name))
        for name, matrix in matrices.items()
    }
    if rank is not None:
        for name, part in parts.items():
            _check_rank(name, part, rank)
    ranks: Mapping[str, Sequence[int] | None]
    if budget is not None:
        ranks = ranks_by_budget(parts, budget, shares=method == "activation")
    else:
        ranks = {name: part.ranks(rank, energy) for name, part in parts.items()}
    chosen = {n: part.cut(r) for n, part in parts.items() if (r := ranks[n]) is not None and part.saves(r)}
    put_factors(smaller, matrices, chosen)

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
        "coverage": share,
        "parameters_of_matrices": sum(chosen[n].about["parameters"] if n in chosen else whole[n] for n in whole),
        "parameters_of_matrices_before": sum(whole.values()),
        "parameters": sum(p.numel() for p in smaller.parameters()),
        "parameters_of_parent": sum(p.numel() for p in model.parameters()),
        **({"before": before} if before is not None else {}),
    }
    return record(smaller, what, parent=model)


def check_experts(model: PreTrainedModel, only: str | None = None) -> None:
    """Raise `InputError` where all matrices are asked for, and those of experts cannot be in
    factors.
    """
    if only is None and (experts := list(expert_matrices(model))):
        raise InputError(
            f"{name_of(model)} ({model.config.model_type}): {experts[0]} and {len(experts) - 1} more matrices of "
            "experts are no modules of their own, so they cannot be in factors. Choose the others with only=, as "
            "only='attn|shared'; compress.prune and compress.quantize take experts too"
        )


def _check_settings(
    model: PreTrainedModel,
    rank: int | None,
    energy: float | None,
    budget: float | None,
    method: str,
    calibrate: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    check_plain(model)
    given = [f"{k}={v}" for k, v in (("rank", rank), ("energy", energy), ("budget", budget)) if v is not None]
    if len(given) != 1:
        raise InputError(f"expected exactly one of rank, energy and budget, found {' and '.join(given) or 'none'}")
    if rank is not None and (not is_whole(rank) or rank < 1):
        raise InputError(f"rank={rank!r}: expected a whole number of at least 1")
    for name, share in (("energy", energy), ("budget", budget)):
        if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1):
            kept = "squared singular values" if name == "energy" else "parameters"
            raise InputError(f"{name}={share!r}: expected a number above 0 and at most 1, the share of the {kept} kept")
    check_choice("method", method, METHODS)
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


def _check_rank(name: str, part: LowRank | TensorTrain, rank: int) -> None:
    full = max(part.full())
    if rank > full:
        raise InputError(
            f"rank={rank}: {name}, {' x '.join(map(str, part.matrix.values.shape))}, has at most {full}. Ask for less, "
            "or choose the others with only="
        )
