"""Quantisation, simulated: weights and inputs of linear maps rounded, computed in float32."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compress.experts import expert_matrices
from compress.kernels import kernel_matrices
from compress.matrices import block_matrices, check_plain, covered, distinct
from compress.objectives.base import Objective
from compress.quantization.deploy import check_deployed, deploy
from compress.quantization.fitted import check_method, fit
from compress.quantization.noise import Noise
from compress.quantization.quantizers import check_bits, check_quantizer
from compress.quantization.ranges import RunningRanges, measured_ranges, module_names, round_inputs
from compress.quantization.weights import QuantizedMatrices, chosen_bits
from compress.saving import record
from compress.training.inside import Training
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError, LayerscopeWarning
from probes.models.facts import name_of


def quantize(
    model: PreTrainedModel,
    *,
    bits: int | Mapping[str, int] = 8,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    method: str = "rtn",
    act_order: bool = False,
    damping: float = 0.01,
    activation_bits: int | Literal["auto"] | None = "auto",
    calibrate: datasets.Dataset | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    embeddings: bool = False,
    only: str | None = None,
    train: datasets.Dataset | None = None,
    steps: int = 0,
    noise: float = 0.1,
    block: int = 8,
    objective: Sequence[Objective] = (),
    teacher: PreTrainedModel | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    backend: str | None = None,
    **settings: Any,
) -> PreTrainedModel:
    """Return a copy of a model whose weights, and inputs of linear maps, are rounded to a few bits.

    It is simulated: the model computes in float32 with the values that the codes stand for, and
    takes as much memory and time as before. Quantised are the weight matrices of the transformer
    blocks (query, key, value, attention output, feed-forward), of convolutions and LSTM layers, and
    what linear maps are fed; norms, biases, pooler and head stay as they are, and what experts of a
    mixture, convolutions and LSTM layers are fed. Of a model without blocks, as
    `LSTMLanguageModel`, all such matrices are, that of its output layer too.

    Args:
        model: a model of transformers, in float32; it is not changed.
        bits: of the weights, 1 to 8 (1 and 2 with `ranges="least_squares"`: binary and ternary with
            the best step); or of each matrix, by its name as
            `compress.matrices.every_matrix` has it: those without stay as they are.
        group, symmetric, ranges, percentile: as in
            `compress.quantization.quantizers.quantize_tensor`.
        method: how weights are rounded: "rtn", each to the nearest value of its grid; "gptq", so that
            those after it make good for what is lost (`compress.quantization.gptq.gptq`); "awq", to
            the nearest, with finer steps for inputs that are large, by which norms change too
            (`compress.quantization.awq.by_awq`). All but "rtn" look at `calibrate`, block by block,
            each fed by what those before it give when they are rounded.
        act_order, damping: of "gptq", see there.
        activation_bits: of the inputs of the quantised matrices, 2 to 8; None leaves them as they
            are. "auto" is 8 of "rtn", and None of "gptq" and "awq", which are of weights alone.
        calibrate: a corpus, of which all rows are looked at: by `method`, and to measure the range
            of each matrix's inputs, where these are rounded, which is then fixed; by default each
            token has its own, from its least to its largest value.
        tokenizer: of the model, where there is text.
        embeddings: also round the word embeddings, where "channel" means each token's row. An
            output layer that shares them is rounded with them.
        only: a regular expression; of the matrices only those whose name it finds are quantised.
        train: a corpus to train on before all is quantised, so that the weights get used to it
            (Quant-Noise).
        steps: updates of the weights; 0 for no training.
        noise: share of the blocks that are quantised in each forward pass of the training, 0 to 1;
            1 is classical quantisation-aware training.
        block: how many inputs of a unit, side by side, are quantised together or not.
        objective: what is trained for, of `compress.objectives`; by default what the model's
            head is for: its labels, or the tokens of the text.
        teacher: for the objectives that need one; by default the model itself, before any
            quantisation.
        seed: of the training, the noise, and the order of the texts that ranges are measured on.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted
            goes on. They hold the weights as they are trained, not yet quantised.
        backend: "onnxruntime" or "torchao": not simulated, but run by that package, see
            `compress.quantization.deploy`; how weights and inputs are rounded is then its own, and
            training only prepares for it.
        settings: how the training goes, of `compress.TrainingSettings` (batch_size, learning_rate,
            weight_decay, warmup, max_length, ...), and further ones of `compress.training.train`
            (evaluate, evaluate_at, callbacks, save_every, progress). `evaluate` sees "before" the
            weights as they are trained and "after" all of them quantised, inputs quantised in both.

    Returns:
        A new model of the same class, or what the backend makes of it. `model.config.compression`
        says what was done to it, with the bytes that a packed format takes; after training
        `model.history` is what was logged. How inputs are rounded is kept in
        `model.config.quantized_inputs`; `probes.load_checkpoint` reads it. Plain transformers loads
        the quantised weights and does not round the inputs, unless
        `probes.models.formats.quantized_inputs.apply_quantized_inputs` is called.

    Raises:
        InputError: bits, group, ranges, noise or block are out of range; a group does not divide
            the inputs of a matrix; weights are NaN or infinite; no matrix is found, or one is named
            that is not there; the corpus to calibrate on is empty; what `compress.training.train`
            raises.

    Notes:
        Quant-Noise is that of Fan et al. 2020, arXiv 2004.07320: blocks drawn at random in every
        forward pass are replaced by their quantised values, the gradient passes to the weights
        behind them as if they had not been, and at the end all are quantised. The rate 0.1 and the
        block of 8 are choices made here; the reference page names the others. Weights that are zero
        stay zero without training, but of 1 bit; training changes them like any other.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> quantized = quantize(model, bits=4, group=32)
        >>> quantized.config.compression["average_bits"]
        5.0

    See also:
        `allocate_bits`, `product_quantize`, `quantization_error`.
    """
    check_plain(model)
    check_method(method, calibrate, tokenizer, steps, backend, act_order, damping)
    if activation_bits == "auto":
        activation_bits = 8 if method == "rtn" else None
    _check_settings(activation_bits, calibrate, tokenizer, noise, block, method)
    progress = settings.pop("progress", True) if method != "rtn" else True
    training = Training(model, train, tokenizer, steps, objective, teacher, folder=folder, seed=seed, **settings)
    if backend is not None:
        check_deployed(model, backend, bits)
        if not steps:
            simulated = {"group": group != "channel", "symmetric": not symmetric, "ranges": ranges != "minmax"}
            simulated |= {"activation_bits": activation_bits != 8, "calibrate": calibrate is not None}
            simulated |= {"embeddings": embeddings, "only": only is not None}
            if ignored := [name for name, differs in simulated.items() if differs]:
                raise InputError(
                    f"{ignored[0]}=... is of the simulation: backend={backend!r} rounds in its own way. Leave one of "
                    "the two out"
                )
            return cast(PreTrainedModel, deploy(model, backend, bits=cast(int, bits)))
    given = [bits] if not isinstance(bits, Mapping) else [8, *bits.values()]
    for each in given:
        check_quantizer(each, group, ranges, percentile, symmetric)
    quantized = copy.deepcopy(model)
    chosen = chosen_bits(quantized, bits, embeddings, only)
    how = {"group": group, "symmetric": symmetric, "ranges": ranges, "percentile": percentile}
    matrices = QuantizedMatrices(quantized, chosen, how)
    inside = {id(w) for w in matrices.parameters.values()}
    names = [n for n, w in block_matrices(quantized).items() if id(w) in inside]  # all modules that share one, too
    share = covered(quantized, matrices.parameters, "quantize", asked=only is not None or isinstance(bits, Mapping))
    others: dict[str, set[str]] = {
        "experts": set(expert_matrices(quantized)),
        "convolutions and LSTM layers": set(kernel_matrices(quantized)),
    }
    for kind, known in others.items() if activation_bits is not None else ():
        unfed = sorted(known & set(matrices.parameters))
        if not unfed:
            continue
        warnings.warn(
            f"{name_of(model)}: activation_bits={activation_bits}: what its {kind} are fed ({unfed[0]} and "
            f"{len(unfed) - 1} more) is not rounded, their weights are. Give activation_bits=None to round no inputs",
            LayerscopeWarning,
            stacklevel=2,
        )
    inputs = module_names(quantized, names)
    round_inputs(quantized, inputs, None)
    found: dict[str, tuple[float, float]] | None = None
    if steps:
        running = None
        if calibrate is not None:
            assert tokenizer is not None  # _check_settings has raised
            found = measured_ranges(quantized, inputs, calibrate, tokenizer, seed)
            running = RunningRanges(quantized, list(found), found)
        hooks = round_inputs(quantized, inputs, activation_bits, found)
        callback = Noise(matrices, noise, block, seed, running, hooks)
        with callback.watching(quantized):
            training.run(
                quantized,
                callbacks=[callback],
                measuring=callback.measuring,
                about={
                    "bits": chosen,
                    **how,
                    "activation_bits": activation_bits,
                    "calibrate": None if calibrate is None else corpus_fingerprint(check_corpus(calibrate)),
                    "noise": noise,
                    "block": block,
                },
            )
        found = None if running is None else running.found
    if backend is not None:
        round_inputs(quantized, inputs, None)
        return cast(PreTrainedModel, deploy(quantized, backend, bits=cast(int, bits)))
    fitted: dict[str, Any] = {}
    if method == "rtn":
        matrices.write(matrices.rounded())
    else:
        assert calibrate is not None  # check_method has raised
        assert tokenizer is not None
        how_fitted: dict[str, Any] = {"act_order": act_order, "damping": damping, "progress": progress}
        fitted = fit(quantized, matrices, method, calibrate, tokenizer, **how_fitted)
    if calibrate is not None and activation_bits is not None and not steps:
        assert tokenizer is not None
        found = measured_ranges(quantized, inputs, calibrate, tokenizer, seed)
    round_inputs(quantized, inputs, activation_bits, found)

    weights = sum(w.numel() for w in matrices.parameters.values())
    packed = matrices.bytes()
    rest = sum(p.numel() * p.element_size() for p in quantized.parameters())
    rest -= sum(w.numel() * w.element_size() for w in distinct(matrices.parameters).values())
    what: dict[str, Any] = {
        "method": "quantize",
        "bits": chosen if isinstance(bits, Mapping) else bits,
        "average_bits": 8 * packed / weights,
        "group": group,
        "symmetric": symmetric,
        "ranges": f"percentile {percentile}" if ranges == "percentile" else ranges,
        "activation_bits": activation_bits,
        "activation_ranges": None if activation_bits is None else "dynamic" if calibrate is None else "calibrated",
        "quantized": sorted(chosen),
        "coverage": share,
        "bytes_of_quantized": packed,
        "bytes_of_model": packed + rest,
    } | fitted
    if calibrate is not None:
        what["seed"] = seed
    if steps:
        what |= {"noise": noise, "block": block}
    return record(quantized, what | training.recorded(), parent=model, history=training.history)


def _check_settings(
    activation_bits: int | None,
    calibrate: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    noise: float,
    block: int,
    method: str,
) -> None:
    if activation_bits is not None:
        check_bits("activation_bits", activation_bits)
    if not 0 <= noise <= 1:
        raise InputError(
            f"noise={noise}: expected 0 to 1, the share of the blocks that are quantised in a forward pass"
        )
    if type(block) is not int or block < 1:
        raise InputError(f"block={block!r}: expected a whole number of inputs of at least 1")
    if calibrate is None:
        return
    if activation_bits is None and method == "rtn":
        raise InputError("calibrate=... measures the inputs, which activation_bits=None leaves as they are: give one")
    if tokenizer is None:
        raise InputError("calibrate=... looks at text: give tokenizer=... too")
    if isinstance(calibrate, datasets.Dataset) and len(calibrate) == 0:
        raise InputError("calibrate: expected a corpus with texts, found one of no rows")
    check_corpus(calibrate)
