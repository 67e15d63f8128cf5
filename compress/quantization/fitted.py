"""Weights rounded by what they are fed on texts: the methods that do so, and what they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.blocks import Change, block_by_block, check_tokens
from compress.inputs import row_batches
from compress.kernels import check_linear
from compress.matrices import every_matrix
from compress.moments import check_damping
from compress.quantization.awq import by_awq
from compress.quantization.gptq import by_gptq
from compress.quantization.weights import QuantizedMatrices
from compress.rows import every_row
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, check_choice

# A new method has a file of its own and a line here: what changes the matrices of a block, by their moments.
_FITTED: dict[str, Callable[[PreTrainedModel, QuantizedMatrices, bool, float], Change]] = {
    "awq": lambda model, matrices, _act_order, _damping: by_awq(model, matrices),
    "gptq": lambda _model, matrices, act_order, damping: by_gptq(matrices, act_order, damping),
}
METHODS = ("rtn", *_FITTED)


def check_method(
    method: str, calibrate: Any, tokenizer: Any, steps: int, backend: str | None, act_order: bool, damping: float
) -> None:
    """Raise `InputError` where a method of rounding does not fit what else is given to `quantize`."""
    check_choice("method", method, METHODS)
    check_damping(damping)
    if act_order and method != "gptq":
        raise InputError(f"act_order=True is of method='gptq', found method={method!r}: leave it out")
    if method == "rtn":
        return
    if calibrate is None or tokenizer is None:
        raise InputError(f"method={method!r} looks at text: give calibrate=..., a corpus, and tokenizer=...")
    if steps:
        raise InputError(
            f"method={method!r} rounds after a training, and steps={steps} trains for rounding to nearest: train "
            "first, as by compress.finetune, or take method='rtn'"
        )
    if backend is not None:
        raise InputError(
            f"method={method!r} is simulated, and backend={backend!r} rounds in its own way: leave one out"
        )


def fit(
    model: PreTrainedModel,
    matrices: QuantizedMatrices,
    method: str,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    act_order: bool,
    damping: float,
    progress: bool,
) -> dict[str, Any]:
    """Round the matrices of a model by what they are fed, block by block, and say how.

    Args:
        model: it is changed.
        matrices: of the model; those outside its blocks, as embeddings, which are fed no numbers,
            are rounded to nearest.
        method: "gptq" or "awq".
        corpus, tokenizer: all rows are looked at.
        act_order, damping: as in `compress.quantization.gptq.gptq`.
        progress: show a progress bar.

    Raises:
        InputError: matrices are of convolutions or LSTM layers; there are fewer tokens than inputs,
            and no damping.
    """
    check_linear(model, list(matrices.parameters), f"method={method!r} fits weights to what they are fed")
    rows = every_row(corpus, model, tokenizer)
    tokens = sum(len(row["input_ids"]) for row in rows)
    known = every_matrix(model)
    inside = {name: weight for name, weight in matrices.parameters.items() if name in known}
    widths = {name: matrices.by_unit(name, weight.detach()).shape[1] for name, weight in inside.items()}
    check_tokens(model, widths, tokens, damping, "calibrate")
    matrices.write(matrices.rounded(name for name in matrices.parameters if name not in inside))
    change = _FITTED[method](model, matrices, act_order, damping)
    batches = list(row_batches(rows, tokenizer, model))
    block_by_block(model, inside, batches, change, so="they are rounded to nearest", progress=progress)
    what = {"rounding": method, "damping": damping, "fitted_on": corpus_fingerprint(check_corpus(corpus))}
    return what | {"fitted_tokens": tokens} | ({"act_order": act_order} if method == "gptq" else {})
