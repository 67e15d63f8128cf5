import json
import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import tiny
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper

import compress
import compress.quantization.deploy as deploy_module
import probes
from compress.quantization.deploy import deploy, export, quantize_graph
from probes.errors import DependencyError, InputError
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.onnx_model import OnnxModel
from probes.models.formats.quantized_inputs import apply_quantized_inputs

TEXTS = [
    "A man is playing the guitar.",
    "Interest rates fell again.",
    "The committee postponed its decision until the end of the following month, since two members were absent.",
    "No.",
    "Fresh snow covered the mountains, and the road was closed.",
    "The players were tired after the match.",
]


@pytest.fixture(scope="module")
def bundled():
    return probes.load_checkpoint("bundled")


@pytest.fixture(scope="module")
def on_onnx(bundled):
    return deploy(bundled[0], "onnxruntime")


@pytest.fixture(scope="module")
def minilm(pretrained):
    model, tokenizer = probes.load_checkpoint(pretrained)
    return model, tokenizer, deploy(model, "onnxruntime")


def rows(texts):
    corpus = pd.DataFrame({"id": [str(i) for i in range(len(texts))], "language": "en", "text": texts})
    return probes.load_corpus(corpus)


def captured(model, tokenizer, texts=TEXTS, **settings):
    return probes.capture(model, tokenizer, rows(texts), progress=False, device="cpu", **settings)


def cosines(a, b):
    """By layer, the mean over the texts."""
    a, b = a.hidden.values.astype(np.float64), b.hidden.values.astype(np.float64)
    return ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean(-1)


def graph_of(op, weight, bias=None, **settings):
    """One linear map, or one table of embeddings, as a model in ONNX."""
    names, kind = (["w", "x"], TensorProto.INT64) if op == "Gather" else (["x", "w"], TensorProto.FLOAT)
    node = helper.make_node(op, [*names, *(["b"] if bias is not None else [])], ["y"], "it", **settings)
    x = helper.make_tensor_value_info("x", kind, [None] if op == "Gather" else [None, None])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    constants = {"w": weight} | ({} if bias is None else {"b": bias})
    held = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()]
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(helper.make_graph([node], "g", [x], [y], held), opset_imports=opset, ir_version=9)


def run(graph, x):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as probes.load_checkpoint runs it
    return onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"x": x})[0]


def held_by(graph):
    return {i.name: numpy_helper.to_array(i) for i in graph.graph.initializer}


# --- the weights in the graph -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [32, 70, 384])
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "transposed Gemm"])
def test_a_linear_map_is_that_of_its_rounded_weights_and_inputs(op, inputs):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(inputs, 40))  # as x @ weight has it
    weight[:, 3] = 0
    weight[5, 7] = 1e4
    others = np.arange(40) != 7
    x = rng.normal(size=(9, inputs)).astype(np.float32) * np.logspace(-3, 0, 9)[:, None].astype(np.float32)
    x[2] = 0
    bias = None if op == "MatMul" else rng.normal(size=40)
    kind, settings = ("MatMul", {}) if op == "MatMul" else ("Gemm", {"transB": int(op != "Gemm")})
    graph = graph_of(kind, weight.T if op == "transposed Gemm" else weight, bias, **settings)
    quantize_graph(graph)
    held = held_by(graph)
    constants = {"one", "middle", "top", "least", "last"}
    assert set(held) - constants == {"w.codes", "w.steps"} | ({"b"} if bias is not None else set())
    assert (held["w.codes"].dtype, held["w.codes"].shape) == (np.int8, weight.shape)
    step = np.abs(weight).max(axis=0) / 127
    np.testing.assert_allclose(held["w.steps"], step, rtol=1e-6)
    rounded = held["w.codes"].astype(np.float64) * held["w.steps"]
    off = np.abs(rounded - weight)
    assert (off <= 0.5001 * step).all()
    assert off[:, others].max() > 0.4 * step[others].max()
    assert (rounded[:, 3] == 0).all()

    # Inputs are rounded to the nearest of 255 values, by the largest of each row.
    found = run(graph, x).astype(np.float64)
    steps = np.abs(x).max(axis=1, keepdims=True).astype(np.float64) / 127
    steps[steps == 0] = 1
    both = (np.rint(x / steps) * steps) @ rounded + (0 if bias is None else bias)
    np.testing.assert_allclose(found, both, rtol=1e-5, atol=1e-5 * step.max())
    # Rows alone are what they are among others, to the last bit.
    np.testing.assert_array_equal(np.concatenate([run(graph, row[None]) for row in x]), found)
    exact = x.astype(np.float64) @ weight + (0 if bias is None else bias)
    far = np.abs(found - exact)[:, others].max()
    assert 1e-3 < far < 0.1 * exact[:, others].std()


def test_embeddings_have_a_step_a_row():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 24)) * np.logspace(-3, 3, 50)[:, None]
    table[4] = 0
    graph = graph_of("Gather", table)
    quantize_graph(graph)
    held = held_by(graph)
    assert (held["w.codes"].dtype, held["w.codes"].shape, held["w.steps"].shape) == (np.int8, (50, 24), (50, 1))
    found = run(graph, np.array([4, 49, 0, 49]))
    step = np.abs(table[[4, 49, 0, 49]]).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - table[[4, 49, 0, 49]]) <= 0.5001 * step).all()
    assert (found[0] == 0).all()
    assert not np.allclose(found, table[[4, 49, 0, 49]], rtol=1e-4)


def test_what_is_no_plain_matrix_stays_as_it_is():
    weight = np.random.default_rng(0).normal(size=(40, 40))
    for graph in (
        graph_of("MatMul", weight[:20, :20]),  # small
        graph_of("Gemm", weight, weight[0], alpha=2.0),
        graph_of("Gather", weight, axis=1),
    ):
        before = graph.graph.SerializeToString()
        quantize_graph(graph)
        assert graph.graph.SerializeToString() == before


def test_every_large_matrix_of_a_model_is_quantised(bundled, on_onnx):
    graph = onnx.load_from_string(on_onnx.onnx.numpy().tobytes())
    floats = {k: v.shape for k, v in held_by(graph).items() if v.dtype == np.float32 and v.ndim == 2}
    assert [s for k, s in floats.items() if not k.endswith(".steps") and np.prod(s) >= 1024] == []
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 6 * 6 + 1  # of six layers, and the pooler
    assert kinds.count("QuantizeLinear") == 6 * 4 + 1  # query, key and value read the same codes
    codes = sum(v.size for k, v in held_by(graph).items() if k.endswith(".codes"))
    model = bundled[0]
    large = [p for p in model.parameters() if p.ndim == 2 and p.numel() >= 1024]
    assert codes == sum(p.numel() for p in large)
    assert model.config.num_hidden_layers == 6


# --- onnxruntime on a real checkpoint ---------------------------------------------------------------------------------


def test_an_export_computes_what_the_model_does(minilm):
    model, tokenizer, deployed = minilm
    exported = OnnxModel(export(model).SerializeToString(), model.config)
    expected = captured(model, tokenizer)
    found = captured(exported, tokenizer)
    assert found.hidden.shape == expected.hidden.shape == (7, len(TEXTS), 384)
    np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-4)
    first = [captured(m, tokenizer, TEXTS[:2], pooling="first").hidden for m in (exported, model)]
    np.testing.assert_allclose(*first, atol=1e-4)
    # int8 is near, layer by layer, and no layer is another one; nor is it the same.
    near = cosines(captured(deployed, tokenizer), expected)
    assert near.shape == (7,)
    assert (near > 0.99).all()
    assert near[-1] >= 0.98
    assert (near < 1 - 1e-6).all()
    shifted = expected.roll(layer=1)
    assert (cosines(captured(deployed, tokenizer), shifted) < 0.99).all()


def test_small_and_saved_and_loaded_elsewhere(minilm, pretrained, tmp_path):
    _, tokenizer, deployed = minilm
    folder = compress.save(deployed, tmp_path / "int8", tokenizer)
    written = {f.name: f.stat().st_size for f in folder.iterdir()}
    assert {"model.onnx", "config.json", "compression.json", "tokenizer.json"} <= set(written)
    original = sum(f.stat().st_size for f in pretrained.glob("*.safetensors"))
    assert written["model.onnx"] <= 0.27 * original
    what = json.loads((folder / "compression.json").read_text())
    assert what["bytes_of_model"] == written["model.onnx"]
    assert (what["backend"], what["bits"], what["group"]) == ("onnxruntime", 8, "channel")
    assert what["parent"] == weights_fingerprint(probes.load_checkpoint(pretrained)[0])

    code = """if True:
        import sys, numpy, probes, torch
        from probes.models.fingerprint import weights_fingerprint
        model, tokenizer = probes.load_checkpoint(sys.argv[1])
        given = model(**tokenizer(sys.argv[3:], padding=True, return_tensors="pt"))
        numpy.save(sys.argv[2], torch.stack(given.hidden_states).numpy())
        print(weights_fingerprint(model))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, folder, tmp_path / "states.npy", *TEXTS],
        capture_output=True,
        text=True,
        check=True,
    )
    given = deployed(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
    np.testing.assert_array_equal(np.load(tmp_path / "states.npy"), torch.stack(given.hidden_states).numpy())
    assert done.stdout.strip() == weights_fingerprint(deployed)


def test_a_text_does_not_depend_on_its_batch(minilm):
    _, tokenizer, deployed = minilm
    together = captured(deployed, tokenizer)
    # With one step for a whole batch it were about 0.01.
    assert (1 - cosines(captured(deployed, tokenizer, batch_size=1), together) < 1e-3).all()
    assert (
        1 - cosines(captured(deployed, tokenizer, TEXTS[:4] * 3), together.sel(example=[0, 1, 2, 3] * 3)) < 1e-3
    ).all()
    assert captured(deployed, tokenizer).equals(together)


# --- onnxruntime and the rest of the package --------------------------------------------------------------------------


def test_compared_with_its_original(bundled, on_onnx, tmp_path):
    model, tokenizer = bundled
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "de"]).sort("id").select(range(240))
    found = probes.compare(
        {"original": model, "int8": on_onnx}, corpus, tokenizer=tokenizer, pivot="en", draws=20, progress=False
    )
    pooled = found.to_dataframe().query("language == 'pooled'").set_index(["probe", "model"])
    near = pooled.loc[("cosine_to_baseline", "int8")]
    assert set(near["layer"]) == set(range(7))
    assert 0.99 < near["value"].min() < 1 - 1e-6
    assert float(pooled.loc[("label_loyalty", "int8"), "value"].item()) > 0.97
    accuracy = pooled.loc["accuracy", "value"]
    assert 0.85 < accuracy["original"] < 1
    assert abs(accuracy["int8"] - accuracy["original"]) < 0.02
    # as a folder it is the same
    folder = compress.save(on_onnx, tmp_path / "int8", tokenizer)
    models = {"original": model, "int8": folder}
    again = probes.compare(models, corpus, tokenizer=tokenizer, probes=["drift"], draws=20, progress=False)
    drift = again.to_dataframe().query("probe == 'cosine_to_baseline' and language == 'pooled'")
    np.testing.assert_array_equal(drift["value"], near["value"])


def test_representers_see_its_head(bundled, on_onnx):
    model, tokenizer = bundled
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
    found, expected = (probes.capture(m, tokenizer, corpus, progress=False, device="cpu") for m in (on_onnx, model))
    assert list(found["class"].values) == list(expected["class"].values)
    with torch.no_grad():
        again = model.classifier(torch.from_numpy(found.head_input.values))
    np.testing.assert_allclose(again, found.logits, atol=1e-4)
    assert (found.logits.argmax("class") == expected.logits.argmax("class")).mean() > 0.97


def test_the_same_file_each_time_and_the_model_untouched(bundled, on_onnx):
    model, _ = probes.load_checkpoint("bundled")
    model.train()
    before, drawn = weights_fingerprint(model), torch.get_rng_state()
    for backend in ("onnxruntime", "torchao"):
        deployed = deploy(model, backend)
        assert not deployed.training
    assert weights_fingerprint(model) == before
    assert all(module.training for module in model.modules())
    assert not hasattr(model.config, "compression") or model.config.compression is None
    assert getattr(model.config, "quantization_config", None) is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.equal(deploy(model, "onnxruntime").onnx, on_onnx.onnx)


def test_pruned_heads_and_simulated_rounding(bundled, tmp_path):
    model, tokenizer = bundled
    fewer = compress.prune_heads(model, 0.5)
    expected = captured(fewer, tokenizer)
    for backend in ("onnxruntime", "torchao"):
        folder = compress.save(deploy(fewer, backend), tmp_path / backend, tokenizer)
        assert (cosines(captured(probes.load_checkpoint(folder)[0], tokenizer), expected) > 0.99).all()
    # Inputs that were rounded to two bits in simulation are rounded by the backend instead.
    rounding, _ = probes.load_checkpoint("bundled")
    names = [f"encoder.layer.{i}.{part}.dense" for i in range(6) for part in ("attention.output", "intermediate")]
    rounding.config.quantized_inputs = {name: {"bits": 2} for name in names}
    apply_quantized_inputs(rounding)
    assert cosines(captured(rounding, tokenizer), captured(model, tokenizer)).min() < 0.995
    for backend in ("onnxruntime", "torchao"):
        assert weights_fingerprint(deploy(rounding, backend)) == weights_fingerprint(deploy(model, backend))
    assert rounding.config.quantized_inputs


# --- torchao ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
def test_torchao_is_the_same_when_loaded_again(bits, bundled, tmp_path):
    model, tokenizer = bundled
    quantized = deploy(model, "torchao", bits=bits)
    assert type(quantized) is type(model)
    folder = compress.save(quantized, tmp_path / "ao", tokenizer)
    # safetensors only: nothing that is unpickled
    assert {f.name for f in folder.iterdir() if f.suffix != ".json"} == {"model.safetensors"}
    size = (folder / "model.safetensors").stat().st_size
    assert abs(size - quantized.config.compression["bytes_of_model"]) < 0.02 * size
    assert size < 0.55 * sum(p.nbytes for p in model.parameters())
    loaded, _ = probes.load_checkpoint(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        one, other, plain = (m(**inputs, output_hidden_states=True) for m in (quantized, loaded, model))
    assert torch.equal(one.logits, other.logits)
    assert all(torch.equal(a, b) for a, b in zip(one.hidden_states, other.hidden_states, strict=True))
    assert torch.equal(one.hidden_states[0], plain.hidden_states[0])
    assert not torch.equal(one.hidden_states[1], plain.hidden_states[1])
    prints = [weights_fingerprint(m) for m in (quantized, loaded, model)]
    assert prints[0] == prints[1] != prints[2]
    near = cosines(captured(loaded, tokenizer), captured(model, tokenizer))
    assert (near > {8: 0.995, 4: 0.97}[bits]).all()
    # Each token is rounded by itself: what is left is where the last bit of a float decides on a code.
    alone = cosines(captured(loaded, tokenizer, batch_size=1), captured(loaded, tokenizer))
    assert (1 - alone <= 0.5 * (1 - near) + 1e-6).all()


def test_torchao_beside_tensors_that_are_in_no_module_is_loaded_again(tmp_path):
    """BART's bias of logits lies beside its modules, where torchao's reader of files finds no name."""
    model, tokenizer = tiny.make("bart", "lm"), tiny.tokenizer_of("bart")
    model.final_logits_bias.normal_()
    folder = compress.save(deploy(model, "torchao"), tmp_path / "ao", tokenizer)
    loaded, _ = probes.load_checkpoint(folder)
    assert torch.equal(loaded.final_logits_bias, model.final_logits_bias)
    for back in (loaded, transformers.BartForConditionalGeneration.from_pretrained(folder)):
        assert type(back.model.decoder.layers[3].fc2.weight).__name__ == "Int8Tensor"


def test_fingerprint_of_torchao_sees_a_single_weight(bundled):
    other, _ = probes.load_checkpoint("bundled")
    with torch.no_grad():
        weight = other.bert.encoder.layer[0].output.dense.weight
        weight[0, 0] += 0.5 * weight[0].abs().max()
    one, two = (deploy(m, "torchao") for m in (bundled[0], other))
    assert weights_fingerprint(one) != weights_fingerprint(two)


def test_its_weights_are_rounded_by_output_unit(bundled):
    quantized = deploy(bundled[0], "torchao")
    name = "bert.encoder.layer.2.intermediate.dense"
    weight = bundled[0].get_submodule(name).weight.detach().double()
    rounded = quantized.get_submodule(name).weight.dequantize().detach().double()
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= 0.51 * step).all()
    assert ((rounded - weight).abs() > 0.3 * step).any()


# --- what cannot be ---------------------------------------------------------------------------------------------------


class Odd(transformers.BertModel):
    """A layer's output goes through something else."""

    def __init__(self, config, how):
        super().__init__(config)
        self.encoder.layer[1].register_forward_hook(lambda _m, _i, output: how(output))


@pytest.fixture
def odd():
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
    )
    return lambda how: Odd(config, how).eval()


def test_an_operator_that_cannot_be_exported_is_named_and_no_graph_printed(odd, capfd):
    with pytest.raises(
        InputError, match=r"Odd: it cannot be exported to ONNX \(.*special_bessel_j0.*backend='torchao'"
    ):
        deploy(odd(torch.special.bessel_j0), "onnxruntime")
    assert "graph" not in "".join(capfd.readouterr())


def test_an_export_that_computes_something_else_is_refused(odd):
    assert deploy(odd(lambda x: 2 * x), "onnxruntime")
    with pytest.raises(InputError, match=r"computes something else on a batch of shape \(1, 7\) \(hidden_2 is .* off"):
        deploy(odd(lambda x: x if len(x[0]) < 6 else 2 * x), "onnxruntime")
    with pytest.raises(InputError, match=r"computes something else on a batch of shape \(3, 4\) \("):
        deploy(odd(lambda x: x + torch.arange(len(x))[:, None, None]), "onnxruntime")


def test_bad_input(bundled, on_onnx, tiny_models):
    model = bundled[0]
    with pytest.raises(InputError, match="backend='tensorrt' is not known; choose one of 'onnxruntime', 'torchao'"):
        deploy(model, "tensorrt")
    with pytest.raises(InputError, match=r"bits=4: backend='onnxruntime' runs 8 bits. Leave backend= out to simulate"):
        deploy(model, "onnxruntime", bits=4)
    with pytest.raises(InputError, match="bits=3: backend='torchao' runs 4 or 8 bits"):
        deploy(model, "torchao", bits=3)
    for other in (on_onnx, torch.nn.Linear(2, 2)):
        with pytest.raises(InputError, match=r"expected a model of transformers, found (OnnxModel|Linear)"):
            deploy(other, "torchao")
    with pytest.raises(InputError, match="its weights are quantised already"):
        deploy(deploy(model, "torchao"), "onnxruntime")
    with pytest.raises(InputError, match="the model is on 'meta', and the int8 kernels of onnxruntime run on the CPU"):
        deploy(tiny_models("BertModel").to("meta"), "onnxruntime")
    broken = tiny_models("BertModel")
    with torch.no_grad():
        broken.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    for backend in ("onnxruntime", "torchao"):
        with pytest.raises(
            InputError, match=r"encoder.layer.1.output.dense.weight: expected finite weights, found NaN"
        ):
            deploy(broken, backend)
    with pytest.raises(InputError, match=r"query: .* 4 bits in groups of 32 inputs, which do not divide its 12"):
        deploy(tiny_models("BertModel"), "torchao", bits=4)
    with pytest.raises(InputError, match=r"h.0.attn.c_attn: backend='torchao' quantises torch.nn.Linear, found Conv1D"):
        deploy(tiny_models("GPT2LMHeadModel"), "torchao")


@pytest.mark.parametrize(
    ("missing", "backend"), [("onnxruntime", "onnxruntime"), ("onnx", "onnxruntime"), ("torchao", "torchao")]
)
def test_a_backend_that_is_not_installed(missing, backend, tiny_models, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError) as raised:
        deploy(tiny_models("BertModel"), backend)
    assert str(raised.value) == (
        f"backend='{backend}' needs the package {missing}, which is not installed: pip install 'layerscope[deploy]'"
    )


def test_a_checkpoint_of_torchao_without_it(bundled, tmp_path, monkeypatch):
    folder = compress.save(deploy(bundled[0], "torchao"), tmp_path / "ao", bundled[1])
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(DependencyError, match=r"ao: a model quantised by torchao needs the package torchao, which is"):
        probes.load_checkpoint(folder)


def test_nothing_is_said(bundled):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        deploy(bundled[0], "onnxruntime")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nomic_bert",
            r"for nomic_bert joins or splits matrices: layers\.0\.self_attn\.k_proj\.weight and 7 more",
        ),
        ("gte", r"for gte joins or splits matrices: layers\.0\..* more have no values after it. Take backend='onnx"),
        (
            "falcon",
            r"backend='torchao' its first forward pass fails \(NotImplementedError: .* Take backend='onnx",
        ),
    ],
)
def test_models_that_torchao_would_spoil_are_refused_by_name(name, said, monkeypatch):
    with pytest.raises(probes.InputError, match=r"as one tensor, which|found FalconLinear"):  # before any work
        compress.quantize(tiny.make(name), backend="torchao")
    # What is not known before is found afterwards.
    monkeypatch.setattr("compress.quantization.deploy.check_backend", lambda *_: None)
    with pytest.raises(probes.InputError, match=said):
        compress.quantize(tiny.make(name), backend="torchao")


def test_a_matrix_that_is_not_the_models_afterwards_is_named(monkeypatch):
    model, load = tiny.make("bert"), deploy_module.from_pretrained

    def spoilt(*args, **settings):
        quantized, loaded = load(*args, **settings)
        with torch.no_grad():
            quantized.encoder.layer[1].output.dense.weight.copy_(quantized.encoder.layer[0].output.dense.weight)
        return quantized, loaded

    monkeypatch.setattr(deploy_module, "from_pretrained", spoilt)
    with pytest.raises(probes.InputError, match=r"encoder\.layer\.1\.output\.dense\.weight has other values after it"):
        compress.quantize(model, backend="torchao")


def test_a_graph_that_computes_something_else_is_refused(monkeypatch):
    def emptied(graph):
        for weight in graph.graph.initializer:
            if list(weight.dims) == [32, 32]:
                values = numpy_helper.to_array(weight)
                weight.CopyFrom(numpy_helper.from_array(-100 * values, weight.name))

    monkeypatch.setattr(deploy_module, "quantize_graph", emptied)
    with pytest.raises(probes.InputError, match=r"backend='onnxruntime' the states of layer \d have a mean cosine of"):
        compress.quantize(tiny.make("bert"), backend="onnxruntime")


def test_experts_that_a_backend_passes_over_are_said():
    with pytest.warns(probes.LayerscopeWarning, match=r"backend='torchao' touches \d+% of the weights of its blocks"):
        quantized = compress.quantize(tiny.make("qwen3_moe"), backend="torchao")
    assert quantized.config.compression["coverage"] < 0.95


@pytest.mark.filterwarnings("ignore:.*qwen3_moe.* touches 25% of the weights:probes.errors.LayerscopeWarning")
def test_a_mixture_is_exported_with_its_experts():
    model, tokenizer = tiny.make("qwen3_moe"), tiny.tokenizer_of("qwen3_moe")
    model.layers = model.layers[:1]
    model.config.num_hidden_layers = 1
    corpus = rows(["a dog sat on the mat", "the cat", "bird"])
    exported = OnnxModel(export(model).SerializeToString(), model.config)
    for batch_size in (1, 3):
        found = probes.capture(exported, tokenizer, corpus, progress=False, batch_size=batch_size)
        whole = probes.capture(model, tokenizer, corpus, progress=False)
        np.testing.assert_allclose(found.hidden.values, whole.hidden.values, atol=1e-5)
    assert model.config._experts_implementation != "batched_mm"


@pytest.mark.filterwarnings("ignore:.*xlnet.* touches 37% of the weights:probes.errors.LayerscopeWarning")
@pytest.mark.parametrize("name", ["xlnet", "llama"])
def test_an_exported_classifier_gives_the_logits_of_each_text_alone(name):
    model, tokenizer = tiny.make(name, "head"), tiny.tokenizer_of(name)
    corpus = rows(["a dog sat on the mat", "the cat", "bird"])
    exported = compress.quantize(model, backend="onnxruntime")
    one, many = (probes.capture(exported, tokenizer, corpus, progress=False, batch_size=b) for b in (1, 3))
    np.testing.assert_allclose(one.logits.values, many.logits.values, atol=2e-2)
    whole = probes.capture(model, tokenizer, corpus, progress=False)
    np.testing.assert_allclose(many.logits.values, whole.logits.values, atol=0.1)
