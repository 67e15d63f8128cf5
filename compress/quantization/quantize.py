"""Quantisation, simulated: weights and inputs of linear maps rounded to a few bits, computed with in float32."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import torch
import transformers
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from compress.matrices import block_matrices, check_plain, found_by, matrices_of, transposed
from compress.objectives.base import Objective
from compress.objectives.labels import CrossEntropy
from compress.quantization.deploy import check_deployed, deploy
from compress.quantization.quantizers import (
    check_bits,
    check_matrix,
    check_quantizer,
    dequantize,
    packed_bytes,
    quantize_tensor,
)
from compress.rows import collate, training_rows
from compress.saving import record
from compress.training.loop import check_settings
from compress.training.loop import train as run_training
from probes.corpus import check_corpus, corpus_fingerprint
from probes.errors import InputError
from probes.files import write_whole
from probes.measures.fidelity.module_error import module_error
from probes.models.facts import body_of
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.quantized_inputs import QuantizedInput, apply_quantized_inputs
from probes.states.running import evaluating

_BATCH = 32
_NEW = 0.1  # what the latest batch counts in a running range
_RANGES = "quantized_inputs.json"


def quantize(
    model: PreTrainedModel,
    *,
    bits: int | Mapping[str, int] = 8,
    group: str | int = "channel",
    symmetric: bool = True,
    ranges: str = "minmax",
    percentile: float = 99.9,
    activation_bits: int | None = 8,
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

    It is simulated: the model computes in float32 with the values that the codes stand for, and takes as much memory
    and time as before. Quantised are the weight matrices of the transformer blocks (query, key, value, attention
    output, feed-forward), and what they are multiplied with; norms, biases, pooler and head stay as they are.

    Args:
        model: a model of transformers, in float32; it is not changed.
        bits: of the weights, 2 to 8; or of each matrix, by its name as `compress.matrices.block_matrices` has it:
            those without stay as they are.
        group, symmetric, ranges, percentile: as in `compress.quantization.quantizers.quantize_tensor`.
        activation_bits: of the inputs of the quantised matrices, 2 to 8; None leaves them as they are.
        calibrate: a corpus that the range of each matrix's inputs is measured on, all of its rows, and fixed; by
            default each token has its own, from its least to its largest value.
        tokenizer: of the model, where there is text.
        embeddings: also round the word embeddings, where "channel" means each token's row. An output layer that shares
            them is rounded with them.
        only: a regular expression; of the matrices only those whose name it finds are quantised.
        train: a corpus to train on before all is quantised, so that the weights get used to it (Quant-Noise).
        steps: updates of the weights; 0 for no training.
        noise: share of the blocks that are quantised in each forward pass of the training, 0 to 1; 1 is classical
            quantisation-aware training.
        block: how many inputs of a unit, side by side, are quantised together or not.
        objective: what is trained for, of `compress.objectives`; by default the cross-entropy with the labels.
        teacher: for the objectives that need one; by default the model itself, before any quantisation.
        seed: of the training, the noise, and the order of the texts that ranges are measured on.
        folder: for checkpoints, as in `compress.training.train`; a training that was interrupted goes on. They hold the
            weights as they are trained, not yet quantised.
        backend: "onnxruntime" or "torchao": not simulated, but run by that package, see
            `compress.quantization.deploy`; how weights and inputs are rounded is then its own, and training only
            prepares for it.
        settings: further settings of `compress.training.train`: batch_size, learning_rate, accumulate, evaluate,
            evaluate_at, callbacks, save_every, progress. `evaluate` sees "before" the weights as they are trained and
            "after" all of them quantised, inputs quantised in both.

    Returns:
        A new model of the same class, or what the backend makes of it. `model.config.compression` says what was done to
        it, with the bytes that a packed format takes; after training `model.history` is what was logged. How inputs are
        rounded is kept in `model.config.quantized_inputs`; `probes.load_checkpoint` reads it. Plain transformers loads
        the quantised weights and does not round the inputs, unless
        `probes.models.formats.quantized_inputs.apply_quantized_inputs` is called.

    Raises:
        InputError: bits, group, ranges, noise or block are out of range; a group does not divide the inputs of a
            matrix; weights are NaN or infinite; no matrix is found, or one is named that is not there; the corpus to
            calibrate on is empty; what `compress.training.train` raises.

    Notes:
        Weights that are zero stay zero without training; training changes them like any other. A matrix whose inputs
        were quantised before gets the new settings. Quant-Noise is that of Fan et al. 2020, arXiv 2004.07320: blocks
        drawn at random in every forward pass are replaced by their quantised values, the gradient passes to the weights
        behind them as if they had not been, and at the end all are quantised. Choices made here: the rate 0.1 and the
        block of 8; inputs are quantised all along, their gradient passing likewise; a range is a moving average
        over batches to which the latest adds a tenth, that goes on in training; padding is left out, special tokens
        count; the bytes count steps in float32 and leave out ranges of inputs; `average_bits` are these bytes in bits
        over the number of weights. With "least_squares" each update searches anew, which takes long.

    Example:
        >>> import probes
        >>> model, _ = probes.load_checkpoint("bundled")
        >>> quantized = quantize(model, bits=4, group=32)
        >>> quantized.config.compression["average_bits"]
        5.0
    """
    check_plain(model)
    _check_settings(activation_bits, calibrate, tokenizer, noise, block)
    check_settings(settings, train, tokenizer, steps)
    if train is not None and not steps:
        raise InputError("train=... is given, and steps=0 trains nothing: give steps=...")
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
        check_quantizer(each, group, ranges, percentile)
    quantized = copy.deepcopy(model)
    chosen = _chosen(quantized, bits, embeddings, only)
    how = {"group": group, "symmetric": symmetric, "ranges": ranges, "percentile": percentile}
    matrices = _Matrices(quantized, chosen, how)
    inside = {id(w) for w in matrices.parameters.values()}
    names = [n for n, w in block_matrices(quantized).items() if id(w) in inside]  # all modules that share one, too
    inputs = _module_names(quantized, names)
    _round_inputs(quantized, inputs, None)
    found: dict[str, tuple[float, float]] | None = None
    history = None
    if steps:
        assert train is not None  # _check_settings has raised
        assert tokenizer is not None
        running = None
        if calibrate is not None:
            found = _measured(quantized, inputs, calibrate, tokenizer, seed)
            running = _Running(quantized, inputs, found)
        hooks = _round_inputs(quantized, inputs, activation_bits, found)
        callback = _Noise(matrices, noise, block, seed, running, hooks)
        if settings.get("evaluate") is not None:
            settings["evaluate"] = callback.measuring(settings["evaluate"])
        with callback.watching(quantized):
            history = run_training(
                quantized,
                tokenizer,
                train,
                objective=list(objective) or [CrossEntropy()],
                teacher=model if teacher is None else teacher,
                steps=steps,
                callbacks=[callback, *settings.pop("callbacks", ())],
                folder=folder,
                seed=seed,
                about={
                    "bits": chosen,
                    **how,
                    "activation_bits": activation_bits,
                    "calibrate": None if calibrate is None else corpus_fingerprint(check_corpus(calibrate)),
                    "noise": noise,
                    "block": block,
                },
                **settings,
            )
        found = None if running is None else running.found
    if backend is not None:
        _round_inputs(quantized, inputs, None)
        return cast(PreTrainedModel, deploy(quantized, backend, bits=cast(int, bits)))
    matrices.write(matrices.rounded())
    if calibrate is not None and not steps:
        assert tokenizer is not None
        found = _measured(quantized, inputs, calibrate, tokenizer, seed)
    _round_inputs(quantized, inputs, activation_bits, found)

    weights = sum(w.numel() for w in matrices.parameters.values())
    packed = matrices.bytes()
    rest = sum(p.numel() * p.element_size() for p in quantized.parameters() if id(p) not in inside)
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
        "bytes_of_quantized": packed,
        "bytes_of_model": packed + rest,
        "parent": weights_fingerprint(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if steps or calibrate is not None:
        what["seed"] = seed
    if steps:
        what |= {"steps": steps, "noise": noise, "block": block}
        what["objective"] = [o.name for o in objective] or ["cross_entropy"]
    return record(quantized, what, history)


def quantization_error(
    model: PreTrainedModel,
    quantized: PreTrainedModel,
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    **settings: Any,
) -> xr.Dataset:
    """Measure, module by module, what a quantised model gets wrong itself and what it inherits from layers before.

    Args:
        model: in full precision.
        quantized: the same, quantised in any way that left its modules in place.
        corpus: as `load_corpus` gives it.
        tokenizer: of both.
        settings: of `probes.module_error`, which this is.

    Returns:
        `value, low, high (measure, module, language)`: `local_error`, `accumulated_error` and their ratio
        `amplification`. As the family "module_error" of `probes.compare` it is drawn, modules by layers.

    Raises:
        InputError: the models are not of one architecture.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
        >>> error = quantization_error(model, quantize(model, bits=4), corpus, tokenizer, progress=False)
        >>> last = error.value.sel(measure="amplification", language="pooled").isel(module=-1)
        >>> bool(last > 1)  # the last block inherits more than it adds
        True
    """
    return module_error(model, quantized, tokenizer, corpus, names=("the original", "the quantised model"), **settings)


class _Matrices:
    """The matrices of a model that are quantised, how, and their values quantised."""

    def __init__(self, model: PreTrainedModel, chosen: Mapping[str, int], how: dict[str, Any]) -> None:
        self.bits, self.how = dict(chosen), how
        self.parameters = {name: model.get_parameter(name) for name in chosen}
        self.transposed = transposed(model, chosen)
        for name, weight in self.parameters.items():
            if weight.dtype != torch.float32:
                raise InputError(
                    f"{name}: expected weights in float32, found {weight.dtype}, in which quantised values are not "
                    "exact. Give model.float()"
                )
            check_matrix(self.by_unit(name, weight), how["group"], name)

    def by_unit(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a matrix as (unit, input), or one of that shape as the model has it."""
        return weight.T if self.transposed[name] else weight

    def rounded(self) -> dict[str, torch.Tensor]:
        """Return what the matrices are when they are quantised, as the model has them."""
        out = {}
        for name, weight in self.parameters.items():
            codes = quantize_tensor(self.by_unit(name, weight), self.bits[name], name=name, **self.how)
            out[name] = self.by_unit(name, dequantize(codes))
        return out

    def write(self, values: Mapping[str, torch.Tensor]) -> None:
        """Put values into the model."""
        with torch.no_grad():
            for name, weight in self.parameters.items():
                weight.copy_(values[name])

    def read(self) -> dict[str, torch.Tensor]:
        """Return a copy of the values in the model."""
        return {name: weight.detach().clone() for name, weight in self.parameters.items()}

    def bytes(self) -> int:
        """Return how many bytes the packed matrices take."""
        how = {"group": self.how["group"], "symmetric": self.how["symmetric"]}
        shapes = {name: self.by_unit(name, weight).shape for name, weight in self.parameters.items()}
        return sum(packed_bytes((shapes[n][0], shapes[n][1]), self.bits[n], **how) for n in shapes)


class _Noise(TrainerCallback):
    """Quantises random blocks of the weights in every forward pass of a training.

    The values are written into the model before each pass and those behind them put back before the update, so that
    the gradient of the one is applied to the other: that is what straight-through means, and no module needs to know.
    """

    def __init__(
        self,
        matrices: _Matrices,
        rate: float,
        block: int,
        seed: int,
        running: _Running | None,
        hooks: Mapping[str, QuantizedInput],
    ) -> None:
        self.matrices, self.rate, self.block, self.seed = matrices, rate, block, seed
        self.running, self.hooks = running, hooks
        self.latent: dict[str, torch.Tensor] = {}
        self.quantized: dict[str, torch.Tensor] = {}
        self.substep, self.updated = 0, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        saved = _saved_ranges(args.output_dir, state.global_step)
        if self.running is not None and saved.is_file():
            self.running.set({k: tuple(v) for k, v in json.loads(saved.read_text(encoding="utf-8")).items()})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.running is not None and state.is_world_process_zero:
            write_whole(_saved_ranges(args.output_dir, state.global_step), json.dumps(self.running.found) + "\n")

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.latent, self.quantized = self.matrices.read(), self.matrices.rounded()
        self.substep, self.updated = 0, False
        self._disturb(state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.substep += 1
        self._disturb(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.matrices.write(self.latent)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.updated = True

    def measuring(
        self, evaluate: Callable[[PreTrainedModel], Mapping[str, float]]
    ) -> Callable[[PreTrainedModel], Mapping[str, float]]:
        """Let what measures the model see it quantised, once the callbacks of a step are through."""

        def measured(model: PreTrainedModel) -> Mapping[str, float]:
            if not self.updated:
                return evaluate(model)
            latent = self.matrices.read()
            self.matrices.write(self.matrices.rounded())
            try:
                return evaluate(model)
            finally:
                self.matrices.write(latent)

        return measured

    @contextmanager
    def watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Let the ranges of inputs run along with the training."""
        if self.running is None:
            yield
            return
        with self.running.watching(model, self.hooks):
            yield

    def _disturb(self, step: int) -> None:
        # From the numbers of step and pass alone, so that a training that goes on draws what it would have drawn.
        state = np.random.SeedSequence([self.seed, step, self.substep]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        mixed = {}
        for name in sorted(self.latent):
            latent = self.matrices.by_unit(name, self.latent[name])
            units, width = latent.shape
            drawn = torch.rand(units, -(-width // self.block), generator=generator) < self.rate
            taken = drawn.repeat_interleave(self.block, 1)[:, :width].to(latent.device)
            quantized = self.matrices.by_unit(name, self.quantized[name])
            mixed[name] = self.matrices.by_unit(name, torch.where(taken, quantized, latent))
        self.matrices.write(mixed)


class _Running:
    """The range of the inputs of some modules: a moving average of what each batch spans."""

    def __init__(
        self, model: PreTrainedModel, names: Sequence[str], found: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.modules = {name: model.base_model.get_submodule(name) for name in names}
        self.found = dict(found or {})
        self.mask: torch.Tensor | None = None
        self.hooks: Mapping[str, QuantizedInput] = {}

    def set(self, found: Mapping[str, tuple[float, float]]) -> None:
        """Go on from these ranges."""
        self.found = dict(found)
        for name, hook in self.hooks.items():
            hook.low, hook.high = self.found[name]

    def see(self, name: str, x: torch.Tensor, shared: bool) -> None:
        """Take in the inputs (batch, token, feature) of a module, but for padding; `shared`: of all processes."""
        x = x.detach().float()
        if self.mask is not None and x.shape[:-1] == self.mask.shape:
            x = x[self.mask]
        ends = torch.stack([-x.min(), x.max()])
        if shared and torch.distributed.is_initialized():  # each process has a part of the batch
            torch.distributed.all_reduce(ends, torch.distributed.ReduceOp.MAX)
        low, high = -ends[0].item(), ends[1].item()
        if not np.isfinite([low, high]).all():
            raise InputError(f"{name}: its inputs span {low} to {high}, so they have no range. Look at the weights")
        if name in self.found:
            before = self.found[name]
            low, high = before[0] + _NEW * (low - before[0]), before[1] + _NEW * (high - before[1])
        self.found[name] = low, high

    @contextmanager
    def watching(
        self, model: PreTrainedModel | None = None, hooks: Mapping[str, QuantizedInput] | None = None
    ) -> Iterator[None]:
        """Take in what the modules get: always, or of a model while it trains, and tell those that round it."""
        self.hooks = hooks or {}

        def masked(_module: torch.nn.Module, _inputs: object, settings: dict[str, Any]) -> None:
            mask = settings.get("attention_mask")
            self.mask = None if mask is None else mask.bool()

        def seen(name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if model is not None and not module.training:
                return
            self.see(name, inputs[0], shared=model is not None)
            if name in self.hooks:
                self.hooks[name].low, self.hooks[name].high = self.found[name]

        handles = [] if model is None else [model.register_forward_pre_hook(masked, with_kwargs=True)]
        for name, module in self.modules.items():
            handles.append(module.register_forward_pre_hook(partial(seen, name), prepend=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _saved_ranges(folder: str, step: int) -> Path:
    return Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{step}" / _RANGES


def _measured(
    model: PreTrainedModel,
    names: Sequence[str],
    corpus: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The range of the inputs of some modules over all rows of a corpus, in an order drawn by the seed."""
    # Neither its split nor its labels count.
    corpus = corpus.remove_columns([c for c in ("split", "label") if c in corpus.column_names])
    rows, _ = training_rows(corpus, model, tokenizer)
    order = np.random.default_rng(seed).permutation(len(rows))
    running = _Running(model, names)
    with running.watching(), evaluating(model, model.device), torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = collate(tokenizer, [rows[i] for i in order[start : start + _BATCH]])
            batch = {k: v.to(model.device) for k, v in batch.items()}
            running.mask = batch["attention_mask"].bool()
            body_of(model)(**batch)
    unseen = [name for name in names if name not in running.found]
    if unseen:
        raise InputError(
            f"calibrate: no text reaches {unseen[0]!r} and {len(unseen) - 1} more, as of a decoder whose encoder alone "
            "is run. Leave calibrate out, or choose the others with only="
        )
    return running.found


def _round_inputs(
    model: PreTrainedModel,
    names: Sequence[str],
    bits: int | None,
    found: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, QuantizedInput]:
    """Note in the configuration how the inputs of some modules are rounded, and do so; others stay as they are."""
    wanted = {k: v for k, v in (getattr(model.config, "quantized_inputs", None) or {}).items() if k not in names}
    for name in names if bits is not None else ():
        wanted[name] = {"bits": bits}
        if found is not None:
            wanted[name] |= {"low": found[name][0], "high": found[name][1]}
    if wanted:
        model.config.quantized_inputs = wanted
    elif hasattr(model.config, "quantized_inputs"):
        del model.config.quantized_inputs
    return apply_quantized_inputs(model)


def _module_names(model: PreTrainedModel, matrices: Sequence[str]) -> list[str]:
    """The modules of some matrices, by their names in the model without its head."""
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [name.removeprefix(prefix).removesuffix(".weight") for name in matrices]


def _chosen(
    model: PreTrainedModel, bits: int | Mapping[str, int], embeddings: bool, only: str | None
) -> dict[str, int]:
    """The matrices that are quantised, and their bits."""
    known = list(matrices_of(model, embeddings=embeddings))
    if isinstance(bits, Mapping):
        for name in bits:
            if name not in known:
                raise InputError(
                    f"bits names {name!r}, which is none of the matrices; they are {', '.join(known[:6])}, ... (all of "
                    "them: compress.matrices.block_matrices; with embeddings=True the word embeddings too)"
                )
        if not bits:
            raise InputError("bits names no matrix: expected a number of bits, or at least one matrix and its bits")
        chosen = {name: bits[name] for name in known if name in bits}
    else:
        chosen = dict.fromkeys(known, bits)
    return found_by(only, chosen)


def _check_settings(
    activation_bits: int | None,
    calibrate: datasets.Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    noise: float,
    block: int,
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
    if activation_bits is None:
        raise InputError("calibrate=... measures the inputs, which activation_bits=None leaves as they are: give one")
    if tokenizer is None:
        raise InputError("calibrate=... looks at text: give tokenizer=... too")
    if isinstance(calibrate, datasets.Dataset) and len(calibrate) == 0:
        raise InputError("calibrate: expected a corpus with texts, found one of no rows")
    check_corpus(calibrate)
