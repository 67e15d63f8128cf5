"""Quantisation that runs: a model for the int8 kernels of onnxruntime, or with weights that torchao
stores in int8.
"""

from __future__ import annotations

import copy
import io
import json
import math
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from compress.matrices import block_matrices, covered
from compress.quantization.backends import check_backend
from compress.saving import record
from probes.errors import InputError, needed
from probes.models.facts import embedding_rows, positions_of, types_tokens
from probes.models.fingerprint import plain_parts
from probes.models.formats.extensions import apply_formats, from_pretrained
from probes.models.formats.onnx_model import METADATA, OnnxModel
from probes.models.formats.quantized_inputs import apply_quantized_inputs
from probes.models.formats.shared_layers import unshare
from probes.silence import no_graphs_printed, quiet
from probes.states.batches import random_batch
from probes.states.layers import runner_of
from probes.states.running import reading

# Of `deploy`: with onnxruntime's own `quantize_dynamic`, which gives all tokens of a batch one step, a text's states
# depend on its batch by nearly as much as on the quantisation itself.
_OPSET = 20
_GROUP = 32  # of 4 bits
# What the nodes of linear maps read beside their weights.
_CONSTANTS: dict[str, np.ndarray] = {
    "one": np.array(1, np.float32),
    "middle": np.array(128, np.uint8),
    "top": np.array(127, np.float32),
    "least": np.array(1e-30, np.float32),  # so that zeros are divided by something
    "last": np.array([-1]),
}
_SMALL = 1024  # matrices of fewer weights stay as they are: token types, relative positions, heads
_ROUNDED = 0.5  # ||W' - W|| / ||W|| at most: 4 bits give 0.1, other numbers 1.4
_ALIKE = 0.5  # the mean cosine of a layer's states at least
_NEAR = 1e-3  # how far an output of the export may be from the model's, of its largest value


def deploy(model: PreTrainedModel, backend: str, *, bits: int = 8) -> PreTrainedModel | OnnxModel:
    """Return a quantised model that another package's kernels run, its hidden states with it.

    Args:
        model: a model of transformers; it is not changed.
        backend: "onnxruntime" exports the model and quantises its linear maps and its embeddings;
            it is small, and fast on a CPU, the only place where it runs. "torchao" quantises the
            linear maps and leaves a model of transformers, that runs and can be looked into like
            any other; without compilation it is no faster.
        bits: of the weights: 8, or with torchao also 4, for which it still takes a byte each.

    Returns:
        With "torchao" a model of the same class, with "onnxruntime" an `OnnxModel`. Both are saved
        by `compress.save`, loaded by `probes.load_checkpoint` with equal outputs, and captured with
        the same layers and pooling. `config.compression` says what was done.

    Raises:
        InputError: the backend is not known or cannot do so many bits; weights are NaN or infinite;
            the model is not where the backend runs; it has an operator that cannot be exported, or
            its export computes something else; a matrix is not the model's afterwards, or the first
            forward pass fails.
        DependencyError: a package of the backend is not installed.

    Notes:
        onnxruntime: a step for each output unit, each row of embeddings and each token that a map
            is fed, so that a text's states do not depend on its batch. Matrices of fewer than 1,024
            weights, products within attention, norms and experts stay in float32; of a mixture each
        token's experts are copied, so that long batches take much memory.
        torchao: 8 bits are its Int8DynamicActivationInt8WeightConfig (weights by output unit,
            inputs by token), 4 its IntxWeightOnlyConfig in groups of 32, inputs as they are.
            Embeddings stay as they are; a sparse head is quantised like the other maps.

    Example:
        >>> import probes
        >>> model, tokenizer = probes.load_checkpoint("bundled")
        >>> deployed = deploy(model, "onnxruntime")
        >>> deployed.config.compression["backend"]
        'onnxruntime'
    """
    check_deployed(model, backend, bits)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"{name}: expected finite weights, found NaN or infinite ones. Load the model again")
    what: dict[str, Any] = {
        "method": "quantize",
        "backend": backend,
        "bits": bits,
        "group": "channel" if bits == 8 else _GROUP,
        "activation_bits": 8 if bits == 8 else None,
        backend: needed(backend, f"backend={backend!r}").__version__,
    }
    parent, model = model, copy.deepcopy(model).eval()
    if what["activation_bits"] and hasattr(model.config, "quantized_inputs"):
        del model.config.quantized_inputs  # the backend rounds them of its own accord
        apply_quantized_inputs(model)
    share = covered(model, block_matrices(model), f"backend={backend!r}", asked=False)
    what["coverage"] = share
    if backend == "torchao":
        quantized = _with_torchao(model, bits)
        _check_weights(model, quantized)
        _check_pass(model, quantized, backend)
        parts = [part for tensor in quantized.state_dict().values() for part in plain_parts(tensor)]
        return record(quantized, what | {"bytes_of_model": sum(p.nbytes for p in parts)}, parent=parent)
    graph = export(model)
    quantize_graph(graph)
    serialized = graph.SerializeToString()
    model.config.architectures = [type(model).__name__]
    deployed = OnnxModel(serialized, model.config)
    _check_pass(model, deployed, backend)
    record(model, what | {"bytes_of_model": len(serialized)}, parent=parent)
    return deployed


def check_deployed(model: PreTrainedModel, backend: str, bits: object) -> None:
    """Raise what `deploy` raises, as far as it can be known without looking at the weights."""
    check_backend(model, backend)
    allowed = (8,) if backend == "onnxruntime" else (4, 8)
    if bits not in allowed:
        raise InputError(
            f"bits={bits!r}: backend={backend!r} runs {' or '.join(map(str, allowed))} bits. Leave backend= out to "
            "simulate 1 to 8"
        )
    if backend == "onnxruntime" and model.device.type != "cpu":
        raise InputError(
            f"the model is on {str(model.device)!r}, and the int8 kernels of onnxruntime run on the CPU. Move it there "
            "with model.to('cpu'), or take backend='torchao'"
        )


class _AsCaptured(torch.nn.Module):
    """What `probes.capture` takes of a model, as a function of tensors."""

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        super().__init__()
        self.model = model
        self.name = name
        self.inputs = ["input_ids", "attention_mask"]
        if types_tokens(model):
            self.inputs.append("token_type_ids")

    def named(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        run, taken = runner_of(self.model, None, self.name)
        with reading(self.model), taken as states_of:
            states, outputs = states_of(run, dict(zip(self.inputs, tensors, strict=True)))
        return {f"hidden_{i}": h for i, h in enumerate(states)} | outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.named(*tensors).values())


def export(model: PreTrainedModel) -> Any:
    """Return a model as an `onnx.ModelProto` in float32, with what `probes.capture` takes of it as
    outputs.

    These are `hidden_0`, `hidden_1`, ... (batch, token, feature), and of a head that classifies
    texts `logits` and `head_input` (batch, feature). `OnnxModel` runs it.

    Raises:
        DependencyError: the package onnx is not installed.
        InputError: it has an operator that cannot be exported, or the export computes something
            else than the model.
    """
    onnx = needed("onnx", "backend='onnxruntime'")
    name = model.config.name_or_path or type(model).__name__
    model = copy.deepcopy(model).float().eval()
    model.set_experts_implementation("batched_mm")  # others have operators that cannot be exported
    traced = _AsCaptured(model, name).eval()
    batches = [_batch(model, traced.inputs, rows, tokens) for rows, tokens in ((2, 5), (3, 4), (1, 7))]
    with torch.inference_mode():
        expected = [traced.named(*batch.values()) for batch in batches]
    outputs = list(expected[0])
    axes = {k: {0: "batch"} if k in ("logits", "head_input") else {0: "batch", 1: "token"} for k in outputs}
    file = io.BytesIO()
    try:
        # It warns of conditions that are traced one way only: whether that is right is seen below.
        with warnings.catch_warnings(), torch.no_grad(), no_graphs_printed():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                traced,
                tuple(batches[0].values()),
                file,  # type: ignore[arg-type]  # a buffer will do
                input_names=traced.inputs,
                output_names=outputs,
                dynamic_axes=axes | {k: {0: "batch", 1: "token"} for k in traced.inputs},
                opset_version=_OPSET,
                dynamo=False,  # the newer exporter needs more packages, and does not know which layer gave the logits
            )
    except Exception as error:  # of many kinds for the same thing
        raise InputError(
            f"{name}: it cannot be exported to ONNX ({str(error).strip().splitlines()[0]}). Take backend='torchao', "
            "which exports nothing"
        ) from error
    graph = onnx.load_from_string(file.getvalue())
    about = {"embeddings": embedding_rows(model), "positions": positions_of(model)}
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(about)})
    exported = OnnxModel(graph.SerializeToString(), model.config)
    for batch, wanted in zip(batches, expected, strict=True):
        wrong = _differs(exported, batch, wanted)
        if wrong is not None:
            raise InputError(
                f"{name}: its export to ONNX computes something else on a batch of shape "
                f"{tuple(batch['input_ids'].shape)} ({wrong}). Take backend='torchao', which exports nothing"
            )
    return graph


def _differs(exported: OnnxModel, batch: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str | None:
    """In what an exported model differs from the one that gave what is expected; None where they
    agree.
    """
    try:
        found = exported.run(**batch)
    except Exception as error:  # of a kind of onnxruntime's own: shapes that were traced as constants do not fit
        return str(error).strip().splitlines()[0]
    for key, value in expected.items():
        if found[key].shape != value.shape:
            return f"{key} has the shape {tuple(found[key].shape)}, not {tuple(value.shape)}"
        far = float((found[key] - value).abs().max() / value.abs().max().clamp_min(1e-6))
        if not far < _NEAR:
            return f"{key} is {far:.1e} off"
    return None


def _batch(model: PreTrainedModel, inputs: list[str], rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """Texts of random tokens, each shorter than the one before."""
    given = random_batch(model, [tokens - i for i in range(rows)], seed=rows)
    given["token_type_ids"] = torch.zeros_like(given["input_ids"])
    return {k: given[k] for k in inputs}


def quantize_graph(graph: Any) -> None:
    """Put int8 in place of the constant matrices of linear maps and embeddings, in place.

    Args:
        graph: an `onnx.ModelProto`, as `export` gives it.

    Notes:
        A linear map multiplies codes: those of its inputs, uint8 with 128 for zero and a step for
        each token, and those of its weights, int8 with a step for each output unit. The sums are
        exact, in int32. Of embeddings a row has one step; it is gathered with it.
    """
    onnx = needed("onnx", "backend='onnxruntime'")
    main = graph.graph
    weights = {w.name: w for w in main.initializer}
    arrays: dict[str, np.ndarray] = {}
    nodes: dict[str, Any] = {}  # by output, so that what several maps read is rounded once
    for node in main.node:
        place = {"MatMul": 1, "Gemm": 1, "Gather": 0}.get(node.op_type)
        weight = None if place is None else weights.get(node.input[place])
        made = None
        if weight is not None and len(weight.dims) == 2 and math.prod(weight.dims) >= _SMALL:
            values = onnx.numpy_helper.to_array(weight).astype(np.float32)
            settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            make = _gather if node.op_type == "Gather" else _linear
            made = make(onnx.helper.make_node, node, values, settings, arrays)
        for one in made or [node]:
            nodes.setdefault(one.output[0], one)
    del main.node[:]
    main.node.extend(nodes.values())
    main.initializer.extend(onnx.numpy_helper.from_array(a, k) for k, a in arrays.items())
    used = {name for node in main.node for name in node.input}
    kept = [w for w in main.initializer if w.name in used]
    del main.initializer[:]
    main.initializer.extend(kept)
    if arrays:
        graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _linear(
    make: Callable[..., Any], node: Any, values: np.ndarray, settings: dict[str, Any], arrays: dict[str, np.ndarray]
) -> list[Any] | None:
    """Return the nodes of a linear map on codes, and add what they read to the arrays; None where
    it is another map.
    """
    scaled = {settings.get("alpha", 1), settings.get("beta", 1)} != {1}
    if node.op_type == "Gemm" and (settings.get("transA") or scaled):
        return None
    x, name, *bias = node.input
    codes, steps = _rounded(values if settings.get("transB") else values.T)
    arrays |= {f"{name}.codes": np.ascontiguousarray(codes.T), f"{name}.steps": steps.reshape(-1)} | _CONSTANTS
    out = node.output[0]
    codes_of_both = [f"{x}.codes", f"{name}.codes"]
    product = f"{out}.product" if bias else out
    return [
        make("Abs", [x], [f"{x}.abs"]),
        make("ReduceMax", [f"{x}.abs", "last"], [f"{x}.max"]),
        make("Max", [f"{x}.max", "least"], [f"{x}.most"]),
        make("Div", [f"{x}.most", "top"], [f"{x}.step"]),
        make("Div", [x, f"{x}.step"], [f"{x}.scaled"]),
        make("QuantizeLinear", [f"{x}.scaled", "one", "middle"], [f"{x}.codes"]),
        # This operator knows one step for all tokens only: theirs come after it.
        make(
            "MatMulIntegerToFloat",
            [*codes_of_both, "one", f"{name}.steps", "middle"],
            [f"{out}.sums"],
            domain="com.microsoft",
        ),
        make("Mul", [f"{out}.sums", f"{x}.step"], [product]),
        *([make("Add", [product, *bias], [out])] if bias else []),
    ]


def _gather(
    make: Callable[..., Any], node: Any, values: np.ndarray, settings: dict[str, Any], arrays: dict[str, np.ndarray]
) -> list[Any] | None:
    """As `_linear`, of embeddings."""
    if settings.get("axis", 0) != 0:
        return None
    table, rows = node.input
    out = node.output[0]
    codes, steps = _rounded(values)
    arrays |= {f"{table}.codes": codes, f"{table}.steps": steps, "one": _CONSTANTS["one"]}
    return [
        make("Gather", [f"{table}.codes", rows], [f"{out}.row_codes"]),
        make("Gather", [f"{table}.steps", rows], [f"{out}.row_steps"]),
        make("DequantizeLinear", [f"{out}.row_codes", "one"], [f"{out}.row_scaled"]),
        make("Mul", [f"{out}.row_scaled", f"{out}.row_steps"], [out]),
    ]


def _rounded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round along the last dimension to int8: codes of -127 to 127, and their step (..., 1)."""
    steps = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
    return np.rint(values / np.where(steps == 0, 1, steps)).astype(np.int8), steps


def _check_weights(model: PreTrainedModel, quantized: PreTrainedModel) -> None:
    """Raise `InputError` where a matrix is not the model's, up to rounding."""
    found = dict(quantized.named_parameters())
    for name, weight in model.named_parameters():
        other = found.get(name)
        if other is None or other.shape != weight.shape:
            continue  # one that others share has one name of several
        codes: Any = other
        values = codes.dequantize() if hasattr(codes, "__tensor_flatten__") else codes
        if not (values.float() - weight).norm() <= _ROUNDED * weight.norm():
            raise InputError(_unlike(model, name, "has other values after it"))


def _unlike(model: PreTrainedModel, name: str, how: str) -> str:
    return (
        f"{model.config.name_or_path or type(model).__name__}: backend='torchao' quantises while transformers loads "
        f"the weights, which for {model.config.model_type} joins or splits matrices: {name} {how}. Take "
        "backend='onnxruntime', or leave backend= out to simulate"
    )


def _check_pass(model: PreTrainedModel, deployed: PreTrainedModel | OnnxModel, backend: str) -> None:
    """Raise `InputError` where one forward pass fails, or has little to do with the model's."""
    name = model.config.name_or_path or type(model).__name__
    other = "onnxruntime" if backend == "torchao" else "torchao"
    traced = _AsCaptured(model, name).eval()
    batch = _batch(model, traced.inputs, 2, 5)
    with torch.inference_mode():
        expected = [v for k, v in traced.named(*batch.values()).items() if k.startswith("hidden_")]
        try:
            if isinstance(deployed, OnnxModel):
                found = list(deployed(**batch).hidden_states)
            else:
                found = [
                    v for k, v in _AsCaptured(deployed, name).named(*batch.values()).items() if k.startswith("hidden_")
                ]
        except Exception as error:  # of many kinds for the same thing
            raise InputError(
                f"{name}: with backend={backend!r} its first forward pass fails ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[0][:120]}). Take backend={other!r}, or leave backend= out to "
                "simulate"
            ) from error
    inside = batch["attention_mask"].bool().cpu()
    for layer, (x, y) in enumerate(zip(expected, found, strict=True)):
        cosine = float(torch.nn.functional.cosine_similarity(x[inside].float(), y[inside].float(), dim=-1).mean())
        if not cosine > _ALIKE:
            raise InputError(
                f"{name}: with backend={backend!r} the states of layer {layer} have a mean cosine of {cosine:.2f} to "
                f"the model's, so that it computes something else. Take backend={other!r}, or leave backend= out to "
                "simulate"
            )


def _with_torchao(model: PreTrainedModel, bits: int) -> PreTrainedModel:
    """Quantise while loading: transformers saves only what it has quantised itself."""
    ao = needed("torchao.quantization", "backend='torchao'")
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if bits == 8:
        how = ao.Int8DynamicActivationInt8WeightConfig()
    else:
        odd = {n: m.in_features for n, m in linear.items() if m.in_features % _GROUP}
        for name, inputs in odd.items():
            raise InputError(
                f"{name}: backend='torchao' has 4 bits in groups of {_GROUP} inputs, which do not divide its {inputs}. "
                "Ask for bits=8"
            )
        how = ao.IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, "int4"),  # noqa: B009  # which its type stubs lack
            granularity=ao.PerGroup(_GROUP),
        )
    kind: Any = type(model)
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.random.fork_rng(devices=[]):
        separate = copy.deepcopy(model)
        unshare(separate)  # transformers itself loads them
        separate.save_pretrained(folder)
        quantized, loaded = from_pretrained(
            kind,
            separate.config,
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            quantization_config=transformers.TorchAoConfig(how),
            output_loading_info=True,
        )
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise InputError(_unlike(model, missing[0], f"and {len(missing) - 1} more have no values after it"))
    apply_formats(quantized)
    quantized.config.name_or_path = quantized.name_or_path = model.config.name_or_path
    return quantized.to(model.device).eval()
