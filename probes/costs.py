"""What a model costs: parameters, bytes, operations and time, also beside a smaller one."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from probes.errors import InputError
from probes.models.facts import positions_of
from probes.models.formats.coded import is_coded
from probes.models.formats.packed import pack_weights
from probes.models.weights import block_weights
from probes.silence import quiet
from probes.states.batches import random_batch
from probes.states.running import evaluating

_SHAPE = (32, 32)  # texts and tokens of the batch that is timed
_ROUNDS = 7


def footprint(model: PreTrainedModel, smaller: PreTrainedModel | None = None) -> pd.DataFrame:
    """Count and measure what a model costs, and what a smaller one does.

    Args:
        model: a model of transformers.
        smaller: what was made of it, to be measured side by side.

    Returns:
        One row a model: "model"; where two are given also "smaller", and "share", the smaller over
        the model. The columns: `parameters` and `nonzero` (of the whole model), `encoder` and
        `encoder_nonzero` (of the weight matrices in its blocks), `bytes` (of its weights as
        `save_pretrained` writes them), `packed_bytes` (of the same as `compress.save(...,
        packed=True)` does, without the zeros), `flops` (multiplications and additions in matrix
        products of one forward pass over 32 texts of 32 tokens, zeros counted like any number), and
        `seconds` (of that pass, the median of 7, both models in turns, on the device that the model
        is on).

    Raises:
        InputError: the model is not one of transformers.

    Notes:
        Weights that are zero take as many bytes and as long as others, unless a format or a kernel
        makes something of them: what is saved and what is fast is told by `bytes`, `packed_bytes`
        and `seconds`, what could be by `nonzero`. Packed weights are small on disk only; loaded,
        they take the memory of any others.

    Example:
        >>> import compress, probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> cost = footprint(model, compress.prune(model, sparsity=0.6))
        >>> cost.loc["share", ["parameters", "encoder_nonzero"]].round(2).tolist()
        [1.0, 0.4]

    See also:
        `retrieval_cost`, `save`.
    """
    models = {"model": model} | ({} if smaller is None else {"smaller": smaller})
    for name, one in models.items():
        if not isinstance(one, PreTrainedModel):
            raise InputError(f"{name}: expected a model of transformers, found {type(one).__name__}")
    rows = {name: _counts(one) for name, one in models.items()}
    seconds = _seconds(models)
    out = pd.DataFrame([row | {"seconds": seconds[name]} for name, row in rows.items()], index=list(rows), dtype=float)
    if smaller is not None:
        out.loc["share"] = out.loc["smaller"] / out.loc["model"]
    return out


def _counts(model: PreTrainedModel) -> dict[str, float]:
    every = list(model.parameters())
    blocks = list(block_weights(model).values())
    with tempfile.TemporaryDirectory() as folder:
        with quiet():
            model.save_pretrained(folder)
        size = sum(f.stat().st_size for f in Path(folder).iterdir() if f.suffix == ".safetensors")
        packed = math.nan if is_coded(model) else pack_weights(Path(folder)).stat().st_size
    # Fused attention is not counted everywhere; the plain one does the same operations.
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    learned = [p for p in every if p.requires_grad]  # the counter would follow their gradients, which there are none of
    try:
        for p in learned:
            p.requires_grad_(False)
        with evaluating(model, model.device), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**_batch(model))
    finally:
        model.set_attn_implementation(implementation)
        for p in learned:
            p.requires_grad_(True)
    return {
        "parameters": sum(p.numel() for p in every),
        "nonzero": sum(_nonzero(p) for p in every),
        "encoder": sum(w.numel() for w in blocks),
        "encoder_nonzero": sum(_nonzero(w) for w in blocks),
        "bytes": size,
        "packed_bytes": packed,
        "flops": counter.get_total_flops(),
    }


def _nonzero(weight: torch.Tensor) -> int:
    # What another package stores by codes does not count by itself.
    return int((weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight).count_nonzero())


def _seconds(models: dict[str, PreTrainedModel]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in models}
    batches = {name: _batch(model) for name, model in models.items()}
    # In turns, so that a busy machine is busy for both; the first round warms up.
    for number in range(_ROUNDS + 1):
        for name, model in models.items():
            with evaluating(model, model.device), torch.inference_mode():
                _wait(model.device)
                started = time.perf_counter()
                model(**batches[name])
                _wait(model.device)
            if number:
                times[name].append(time.perf_counter() - started)
    return {name: median(found) for name, found in times.items()}


def _batch(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return random_batch(model, [min(_SHAPE[1], positions_of(model) or _SHAPE[1])] * _SHAPE[0])


def _wait(device: torch.device) -> None:
    """Let what was handed to an accelerator finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
