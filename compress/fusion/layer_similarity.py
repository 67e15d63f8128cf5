"""How alike the layers of a model are, by their weights or by what they make of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from compress.experts import expert_matrices
from compress.fusion.pairs import UNITS, module_name, pairs_of
from probes.errors import InputError, check_choice
from probes.measures.fidelity.similarity import similarity as states_similarity
from probes.models.blocks import weight_of
from probes.models.formats.shared_layers import layer_parameters
from probes.models.spread import check_whole
from probes.states.capture import capture
from probes.states.representations import from_arrays

_EMD = (10, 100)  # draws, and the weights of each


def layer_similarity(
    model: PreTrainedModel,
    *,
    similarity: str = "euclidean",
    unit: str = "matrix",
    corpus: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how alike the layers of a model are, pair by pair within one part of them.

    With W a matrix (output, input), of a convolution (unit, channels and places), in float64:

    - "euclidean": |W_i - W_j|, Frobenius; a distance.
    - "cosine": the mean over the rows of the cosine of row with row; of a row of zeros it is 0.
    - "kl": |KL(softmax(W_i) || softmax(W_j))| over all weights, i the earlier layer; a distance.
    - "wasserstein": Wasserstein-1 between the two samples of softmax(W), over all weights: where in
      the matrix they stand does not matter; a distance.
    - "emd": Wasserstein-1 between 100 weights of each, drawn at the same places, the mean of 10
      draws; a distance.
    - "covariance": ||S_i| - |S_j||, Frobenius, S the covariance of the rows of W with each column
      standardised; a distance.
    - "weight_cka": <W_i, W_j> / (|W_i| |W_j|), each column less its mean.
    - "moments": sqrt(|m_i - m_j| + |s_i - s_j|), mean and standard deviation of the weights; a
      distance.
    - "cka": linear CKA of the layers' pooled outputs over the texts of a corpus
      (`probes.similarity`).

    Args:
        model: a model of transformers.
        similarity: one of these.
        unit: "matrix", or "layer": of the weights, the mean over its matrices; for "cka" what the
            whole layer gives. The layers of an LSTM are compared as layers either way.
        corpus, tokenizer: for "cka", some hundred texts and the model's tokenizer.
        seed: of the draws of "emd".

    Returns:
        One row a pair of one shape: `part` (the name with `*` for the number of the layer),
        `layer`, `other_layer` (from 0, as in the model's list of layers) and `value`; of each part
        the most similar pair first, which is the smallest value of a distance. What has no value
        comes last. Of layers that share a tensor the first stands for all. `attrs` has the
        similarity and its `kind`, "similarity" or "distance".

    Raises:
        InputError: the similarity or unit is not known; no two layers are of one shape; weights are
            not finite; "cka" without corpus and tokenizer, or of convolutions or an LSTM's layers, or
            a corpus for another similarity.

    Notes:
        After the released code of O' Neill, Ver Steeg and Galstyan 2020, arXiv 2007.14917. What it
        leaves open is chosen here: the Frobenius norm, population standard deviations, centred
        columns, and draws at the same places.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> table = layer_similarity(model, similarity="cosine")
        >>> table.columns.tolist(), table.attrs["kind"]
        (['part', 'layer', 'other_layer', 'value'], 'similarity')

    See also:
        `fuse`, `probes.similarity`.
    """
    check_similarity(similarity, unit, corpus is None or tokenizer is None, corpus is not None)
    pairs = pairs_of(model, unit)
    check_compared(model, pairs, similarity)
    if similarity != "cka":
        check_whole(model, f"similarity={similarity!r}, of weights,")
    if similarity == "cka":
        assert corpus is not None  # _check_similarity has raised
        assert tokenizer is not None
        values = _by_states(model, pairs, corpus, tokenizer)
    else:
        values = _by_weights(model, pairs, similarity, seed)
    kind = "similarity" if similarity in _LARGE else "distance"
    rows = [
        (part, i, j, values[module_name(part, i), module_name(part, j)])
        for part, between in pairs.items()
        for i, j in between
    ]
    table = pd.DataFrame(rows, columns=["part", "layer", "other_layer", "value"])
    order = {part: k for k, part in enumerate(pairs)}
    # Of equal values the first pair comes first.
    table = table.iloc[
        np.lexsort(
            (
                table["other_layer"],
                table["layer"],
                table["value"].fillna(np.inf if kind == "distance" else -np.inf) * (1 if kind == "distance" else -1),
                table["part"].map(order),
            )
        )
    ].reset_index(drop=True)
    table.attrs = {"similarity": similarity, "kind": kind, "unit": unit}
    return table


_LARGE = ("cosine", "weight_cka", "cka")  # most similar where largest


class _Similarity(NamedTuple):
    prepare: Callable[[torch.Tensor], torch.Tensor]  # of one matrix (output, input) in float64
    compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of two that were prepared


def _similarities(seed: int) -> dict[str, _Similarity]:
    def flat_mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean()

    def drawn(w: torch.Tensor) -> torch.Tensor:
        places = torch.randint(w.numel(), _EMD, generator=torch.Generator().manual_seed(seed))
        return w.flatten()[places.to(w.device)].sort(dim=1).values

    return {
        "euclidean": _Similarity(lambda w: w, lambda a, b: (a - b).norm()),
        "cosine": _Similarity(lambda w: nn.functional.normalize(w, dim=1), lambda a, b: (a * b).sum(1).mean()),
        "kl": _Similarity(lambda w: w.flatten().log_softmax(0), lambda a, b: (a.exp() * (a - b)).sum().abs()),
        # In one dimension the optimal transport between samples of one size leads from rank to rank.
        "wasserstein": _Similarity(lambda w: w.flatten().softmax(0).sort().values, flat_mean),
        "emd": _Similarity(drawn, flat_mean),
        "covariance": _Similarity(_size_of_covariance, lambda a, b: (a - b).abs()),
        "weight_cka": _Similarity(lambda w: _unit(w - w.mean(0)), lambda a, b: (a * b).sum()),
        "moments": _Similarity(
            lambda w: torch.stack([w.mean(), w.std(correction=0)]), lambda a, b: (a - b).abs().sum().sqrt()
        ),
    }


def _unit(w: torch.Tensor) -> torch.Tensor:
    return w / w.norm()


def _size_of_covariance(w: torch.Tensor) -> torch.Tensor:
    """Frobenius norm of the covariance of the rows, each column standardised."""
    w = w - w.mean(0)
    sd = w.std(0, correction=0)
    w = torch.where(sd > 0, w / sd, 0.0)
    w = w - w.mean(1, keepdim=True)
    # |W W'| = |W' W|: the smaller one.
    return (w @ w.T if len(w) <= w.shape[1] else w.T @ w).norm() / (w.shape[1] - 1)


def _by_weights(
    model: PreTrainedModel, pairs: Mapping[str, Sequence[tuple[int, int]]], similarity: str, seed: int
) -> dict[tuple[str, str], float]:
    """The value of every pair of modules: of a layer the mean over its matrices."""
    prepare, compare = _similarities(seed)[similarity]
    known = dict(model.base_model.named_modules())
    values: dict[tuple[str, str], float] = {}
    with torch.no_grad():
        for part, between in pairs.items():
            numbers = sorted({i for pair in between for i in pair})
            inside = {i: _matrices_in(known, module_name(part, i)) for i in numbers}
            found = {pair: [] for pair in between}  # type: dict[tuple[int, int], list[float]]
            for name in dict.fromkeys(name for matrices in inside.values() for name in matrices):
                ready = {
                    i: prepare(_finite(matrices[name](), module_name(part, i)))
                    for i, matrices in inside.items()
                    if name in matrices
                }
                for i, j in between:  # which have the same ones
                    if i in ready and j in ready:
                        found[i, j].append(float(compare(ready[i], ready[j])))
            values |= {(module_name(part, i), module_name(part, j)): float(np.mean(v)) for (i, j), v in found.items()}
    return values


def _matrices_in(known: Mapping[str, nn.Module], name: str) -> dict[str, Callable[[], torch.Tensor]]:
    """What gives the matrices of a module, or of a layer of an LSTM, (output, input), by their names
    in it.
    """
    if name not in known:
        lstm = known[name.rpartition(".")[0]]
        own = {n: path.rpartition(".")[2] for n, path in layer_parameters(known, name).items()}
        return {n: partial(_of_unit, lstm, last) for n, last in own.items() if n.startswith("weight")}
    module = known[name]
    out: dict[str, Callable[[], torch.Tensor]] = {}
    for inside, m in module.named_modules():
        if isinstance(m, nn.Linear | Conv1D):
            out[inside] = partial(weight_of, m)
        elif isinstance(m, nn.Conv1d | nn.Conv2d):
            out[inside] = partial(_of_unit, m, "weight")
        elif isinstance(m, nn.LSTM):
            out |= {f"{inside}.{n}": partial(_of_unit, m, n) for n, _ in m.named_parameters() if n.startswith("weight")}
    for inside, matrix in expert_matrices(module).items():
        out[inside] = partial(lambda m: m.detach().T if m.inputs_first else m.detach(), matrix)
    return out


def _of_unit(module: nn.Module, name: str) -> torch.Tensor:
    """The weights of a convolution or an LSTM layer, a row a unit."""
    return module.get_parameter(name).detach().flatten(1)


def check_compared(model: PreTrainedModel, pairs: Mapping[str, Sequence[tuple[int, int]]], similarity: str) -> None:
    """Raise `InputError` where layers give no states of tokens to be compared by."""
    if similarity != "cka":
        return
    known = dict(model.base_model.named_modules())
    for name in (module_name(part, i) for part, between in pairs.items() for i, _ in between):
        module = known.get(name)
        if module is None or isinstance(module, nn.Conv1d | nn.Conv2d | nn.LSTM):
            what = "a layer of an LSTM" if module is None else f"a torch.nn.{type(module).__name__}"
            raise InputError(
                f"similarity='cka' compares what layers make of each token, and {name} is {what}, of which that is not "
                "known. Choose a similarity of the weights, as 'euclidean'"
            )


def _finite(weight: torch.Tensor, name: str) -> torch.Tensor:
    weight = weight.double()
    if not torch.isfinite(weight).all():
        raise InputError(
            f"{name}: its weights are not all finite, so it is like no other layer. Look at the checkpoint"
        )
    return weight


def _by_states(
    model: PreTrainedModel,
    pairs: Mapping[str, Sequence[tuple[int, int]]],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[tuple[str, str], float]:
    """Linear CKA of the pooled outputs of every pair of modules."""
    base: Any = model.base_model
    prefix = "" if base is model else f"{model.base_model_prefix}."
    widths: dict[int, list[str]] = {}  # one pass for all that are of one width
    for part, between in pairs.items():
        for number in sorted({i for pair in between for i in pair}):
            name = module_name(part, number)
            module = base.get_submodule(name)
            width = 0  # whole layers, which are alone
            if isinstance(module, nn.Linear | Conv1D):
                width = module.weight.shape[isinstance(module, Conv1D)]
            widths.setdefault(width, []).append(name)
    states: dict[str, np.ndarray] = {}
    for names in widths.values():
        found = capture(model, tokenizer, corpus, modules=[prefix + name for name in names], progress=False)
        states |= dict(zip(names, found["hidden"].values, strict=True))
    values: dict[tuple[str, str], float] = {}
    for part, between in pairs.items():
        numbers = sorted({i for pair in between for i in pair})
        # All texts as those of one language: only their whole is asked for.
        reps = from_arrays(np.stack([states[module_name(part, i)] for i in numbers]))
        cka = states_similarity(reps, measure="cka", draws=2)["value"].sel(language="pooled").values
        values |= {
            (module_name(part, i), module_name(part, j)): float(cka[numbers.index(i), numbers.index(j)])
            for i, j in between
        }
    return values


def check_similarity(similarity: str, unit: str, no_text: bool, corpus: bool) -> None:
    """Raise `InputError` where a similarity, unit or text is not what is needed."""
    known = ("cka", *_similarities(0))
    check_choice("similarity", similarity, known)
    check_choice("unit", unit, UNITS)
    if similarity == "cka" and no_text:
        raise InputError("similarity='cka' compares what layers make of texts: give corpus=... and tokenizer=...")
    if similarity != "cka" and corpus:
        raise InputError(
            f"corpus=... is given and nothing reads it: similarity={similarity!r} is of the weights alone. Leave it "
            "out, or choose similarity='cka'"
        )
