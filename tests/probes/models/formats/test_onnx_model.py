import copy
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

import probes
from compress.quantization.deploy import deploy, export
from probes.errors import DependencyError, InputError
from probes.models.facts import embedding_rows
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.onnx_model import OnnxModel

TEXTS = ["the red dog sat", "a cat", "the small bird sang under the big tree and then it ran", "she", "he ran on"]


@pytest.fixture(scope="module")
def corpus():
    rows = [{"id": str(i), "language": "en", "text": t, "label": "ab"[i % 2]} for i, t in enumerate(TEXTS)]
    return probes.load_corpus(pd.DataFrame(rows))


def exported(model):
    return OnnxModel(export(model).SerializeToString(), model.config)


@pytest.fixture(scope="module")
def bert(tiny_models):
    return exported(tiny_models("BertForSequenceClassification"))


@pytest.mark.parametrize(
    "architecture",
    [
        "BertForSequenceClassification",
        "BertModel",
        "RobertaForSequenceClassification",
        "DistilBertForSequenceClassification",
        "GPT2LMHeadModel",
        "GPT2ForSequenceClassification",
        "LlamaForCausalLM",
        "LlamaForSequenceClassification",
        "T5ForConditionalGeneration",
    ],
)
def test_what_is_captured_of_an_export_is_what_is_captured_of_the_model(
    architecture, tiny_models, make_tokenizer, corpus
):
    model, tokenizer = tiny_models(architecture), make_tokenizer()
    how = {"progress": False, "device": "cpu", "batch_size": 2}
    expected = probes.capture(model, tokenizer, corpus, **how)
    found = probes.capture(exported(model), tokenizer, corpus, **how)
    assert found.sizes == expected.sizes
    assert set(found) == set(expected)
    assert found.sizes["layer"] == 4
    for key in expected:
        assert expected[key].std() > 0.1
        np.testing.assert_allclose(found[key], expected[key], atol=1e-4)
    for key in ("max_length", "pooling", "logits", "dtype", "tokenizer"):
        assert found.attrs[key] == expected.attrs[key]


def test_called_as_models_of_transformers_are(tiny_models, bert):
    model = tiny_models("BertForSequenceClassification")
    ids = torch.tensor([[2, 5, 6, 7], [2, 8, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    types = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    with torch.no_grad():
        plain, full = model(ids), model(ids, mask, types, output_hidden_states=True)
    torch.testing.assert_close(bert(ids).logits, plain.logits, atol=1e-5, rtol=0)
    given = bert(ids, mask, types, output_hidden_states=True, return_dict=True)
    torch.testing.assert_close(given.logits, full.logits, atol=1e-5, rtol=0)
    assert (given.logits - bert(ids).logits).abs().max() > 1e-3  # mask and types count
    assert len(given.hidden_states) == 4
    for one, other in zip(given.hidden_states, full.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        given.head_input @ model.classifier.weight.T + model.classifier.bias, full.logits, atol=1e-5, rtol=0
    )
    assert (bert.training, bert.device.type, bert.dtype) == (False, "cpu", torch.float32)
    assert embedding_rows(bert) == embedding_rows(model)


def test_saved_and_loaded_it_gives_the_same(bert, make_tokenizer, tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    loaded, _ = probes.load_checkpoint(tmp_path)
    assert isinstance(loaded, OnnxModel)
    assert weights_fingerprint(loaded) == weights_fingerprint(bert)
    ids = torch.tensor([[2, 5, 6, 7]])
    for key, value in bert.run(ids).items():
        assert torch.equal(loaded.run(ids)[key], value)
    assert loaded.config.name_or_path == str(tmp_path)


def test_weights_beside_it_are_preferred(tiny_folder, bert, tmp_path):
    bert.save_pretrained(tmp_path)
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert type(probes.load_checkpoint(tmp_path)[0]).__name__ == "BertForSequenceClassification"


def test_fingerprint_is_that_of_the_weights(tiny_models, bert):
    same, other = tiny_models("BertForSequenceClassification"), tiny_models("BertForSequenceClassification")
    with torch.no_grad():
        other.bert.encoder.layer[1].output.dense.weight[0, 0] += 1
    assert weights_fingerprint(exported(same)) == weights_fingerprint(bert)
    assert weights_fingerprint(exported(other)) != weights_fingerprint(bert)


def test_as_many_threads_as_torch_has(bert):
    threads = torch.get_num_threads()
    ids = torch.tensor([[2, 5, 6, 7]])
    expected = bert(ids).logits
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(bert(ids).logits, expected)
        assert bert._session.get_session_options().intra_op_num_threads == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_what_cannot_be_asked_of_it(bert, tiny_models, make_tokenizer, corpus):
    with pytest.raises(InputError, match="device='cuda': the int8 kernels of onnxruntime run on the CPU"):
        bert.to("cuda")
    with pytest.raises(InputError, match="device='meta': the int8 kernels"):
        probes.capture(bert, make_tokenizer(), corpus, device="meta")
    assert bert.to("cpu") is bert
    with pytest.raises(InputError, match="dtype='bfloat16': an exported model computes in the precision"):
        probes.capture(bert, make_tokenizer(), corpus, dtype="bfloat16")
    with pytest.raises(InputError, match="an exported model has no modules to name"):
        probes.capture(bert, make_tokenizer(), corpus, modules=["encoder"])
    model = tiny_models("BertForSequenceClassification")
    for pair in ((bert, model), (model, bert)):
        with pytest.raises(InputError, match="was exported to ONNX and has no modules to look into"):
            probes.module_error(*pair, make_tokenizer(), corpus, progress=False)
    words = [f"w{i}" for i in range(60)]
    with pytest.raises(InputError, match="tokenizer and model do not fit: 64 tokens, but 27 embeddings"):
        probes.capture(bert, make_tokenizer(words=words), corpus)


def test_inputs_that_the_model_does_not_take(tiny_models):
    gpt = exported(tiny_models("GPT2LMHeadModel"))
    ids = torch.tensor([[2, 5]])
    assert len(gpt(ids).hidden_states) == 4
    with pytest.raises(InputError, match=r"takes input_ids, attention_mask, found input_ids, .*, token_type_ids"):
        gpt(ids, token_type_ids=torch.zeros_like(ids))


def test_a_file_that_is_no_export(bert, make_tokenizer, tmp_path):
    make_tokenizer().save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    file = tmp_path / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"onnxruntime cannot read it \(.*\). Copy or export it again"):
        probes.load_checkpoint(tmp_path)
    graph = onnx.load_from_string(whole)
    graph.metadata_props[0].value = '{"embeddings": "many"}'
    file.write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"layerscope\['embeddings'\]: expected a whole number of 1 .*, found 'many'"):
        probes.load_checkpoint(tmp_path)
    del graph.metadata_props[:]
    file.write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"expected an ONNX file that compress.deploy wrote"):
        probes.load_checkpoint(tmp_path)


def test_without_the_package(bert, make_tokenizer, tmp_path, monkeypatch):
    make_tokenizer().save_pretrained(tmp_path)
    bert.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError) as raised:
        probes.load_checkpoint(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: a model in ONNX needs the package onnxruntime, which is not installed: "
        "pip install 'layerscope[deploy]'"
    )
    assert isinstance(raised.value, InputError)
    assert isinstance(raised.value, ImportError)


def test_a_copy_runs_by_itself():
    model, tokenizer = probes.load_checkpoint("bundled")
    deployed = deploy(model, "onnxruntime")
    copied = copy.deepcopy(deployed)
    inputs = tokenizer("a text", return_tensors="pt")
    assert torch.equal(deployed(**inputs).logits, copied(**inputs).logits)
    assert copied.config is not deployed.config
