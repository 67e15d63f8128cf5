"""Output layers of codewords: probabilities against brute force, decoding, and what a configuration promises."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
import transformers

import probes
from probes.models.formats.extensions import check_kept
from probes.models.formats.output_codes import (
    CodedOutput,
    apply_output_codes,
    check_bits,
    check_distinct,
    coded_output_of,
    output_layer,
    saying_bits,
)


def a_layer(words, bits, features=4, seed=0):
    torch.manual_seed(seed)
    layer = CodedOutput(features, words, bits).double()
    numbers = np.random.default_rng(seed).choice(2**bits, words, replace=False)
    layer.set_codes((numbers[:, None] >> np.arange(bits)) & 1)
    return layer


def by_hand(layer, state):
    """Unnormalised probabilities of words, bit by bit."""
    z = [float((w @ state + b).detach()) for w, b in zip(layer.linear.weight, layer.linear.bias, strict=True)]
    p = [1 / (1 + math.exp(-x)) for x in z]
    return [math.prod(q if c else 1 - q for q, c in zip(p, row, strict=True)) for row in layer.table().tolist()]


@pytest.mark.parametrize(("words", "bits"), [(5, 3), (8, 3), (7, 11), (1, 1)])
def test_logits_are_the_log_likelihood_of_codewords(words, bits):
    layer = a_layer(words, bits)
    states = torch.randn(2, 3, 4, dtype=torch.float64)
    found = layer(states)
    assert found.shape == (2, 3, words)
    for i, j in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(found[i, j].exp().detach(), by_hand(layer, states[i, j]), rtol=1e-12)


def test_a_full_table_is_a_softmax_and_needs_no_renormalising():
    full, part = a_layer(16, 4), a_layer(15, 4)
    states = torch.randn(20, 4, dtype=torch.float64)
    torch.testing.assert_close(full(states).exp().sum(-1), torch.ones(20, dtype=torch.float64))
    assert float(part(states).detach().exp().sum(-1).max()) < 1
    # The softmax form of the same probabilities: a plain layer of rank four.
    matrix = torch.nn.functional.linear(states, full.table().double() @ full.linear.weight)
    matrix = matrix + full.table().double() @ full.linear.bias
    words = torch.randint(16, (20,))
    perplexities = [
        torch.nn.functional.cross_entropy(x, words).exp() for x in (full(states), matrix, full(states).log_softmax(-1))
    ]
    torch.testing.assert_close(perplexities[0], perplexities[1])
    torch.testing.assert_close(perplexities[0], perplexities[2])
    torch.testing.assert_close(full(states), matrix.log_softmax(-1))


def test_sure_bits_are_decoded_and_errors_are_corrected():
    layer = a_layer(6, 12, seed=3)
    table = layer.table().double()
    apart = (table[:, None] != table).sum(-1) + 12 * torch.eye(6)
    corrected = int(apart.min() - 1) // 2
    assert corrected >= 1
    said = 4 * (2 * table - 1)
    for by in ("hamming", "likelihood"):
        assert layer.decoded(said, by).tolist() == list(range(6))
    wrong = said.clone()
    wrong[:, :corrected] *= -1
    assert layer.decoded(wrong, "hamming").tolist() == list(range(6))
    # By likelihood a bit that is unsure counts less than one that is sure.
    shape = layer.decoded(torch.randn(2, 3, 12), "likelihood").shape
    assert shape == (2, 3)
    assert layer.decoded(torch.zeros(0, 12)).tolist() == []
    random = torch.randn(50, 12, dtype=torch.float64)
    brute = [min(range(6), key=lambda w: int(((z > 0) != (table[w] > 0)).sum())) for z in random]
    assert layer.decoded(random, "hamming").tolist() == brute
    assert layer.decoded(random).tolist() == layer.likelihoods(random).argmax(-1).tolist()
    with pytest.raises(probes.InputError, match="by='near' is not known; choose one of 'likelihood', 'hamming'"):
        layer.decoded(random, "near")


def test_bits_are_packed_and_words_can_be_dropped():
    layer = a_layer(5, 11)
    assert layer.codes.shape == (5, 2)
    table = layer.table()
    layer.keep(torch.tensor([4, 1]))
    assert layer(torch.zeros(4, dtype=torch.float64)).shape == (2,)
    assert torch.equal(layer.table(), table[[4, 1]])
    for bad in (np.full((2, 11), 2), np.zeros((3, 11), int)):
        with pytest.raises(probes.InputError, match=r"expected zeros and ones of shape \(2, 11\)"):
            layer.set_codes(bad)


def test_half_precision_sums_bits_in_full():
    layer = a_layer(30, 40).to(torch.bfloat16)
    states = torch.randn(3, 4).to(torch.bfloat16)
    bits = layer.linear(states)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(states)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, layer.double().likelihoods(bits.double()).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("LlamaForCausalLM", "lm_head"),
        ("GPT2LMHeadModel", "lm_head"),
        ("BertForSequenceClassification", "classifier"),
        ("RobertaForSequenceClassification", "classifier.out_proj"),
        ("LlamaForSequenceClassification", "score"),
        ("BertModel", None),
    ],
)
def test_the_layer_is_found_made_and_promised(tiny_models, architecture, name):
    model = tiny_models(architecture)
    found = output_layer(model)
    assert (found and found[0]) == name
    model.config.output_codes = {"bits": 7}
    if name is None:  # a body has no output layer, whatever the whole model has
        apply_output_codes(model)
        check_kept(model)
        return
    with pytest.raises(probes.InputError, match=r"promises an output layer of codewords .* its output layer has a num"):
        check_kept(model)
    before = torch.random.get_rng_state()
    apply_output_codes(model)
    assert torch.equal(before, torch.random.get_rng_state())
    made = coded_output_of(model)
    assert output_layer(model) == (name, made)
    assert (made.bits, made.out_features) == (7, found[1].out_features)
    apply_output_codes(model)
    assert coded_output_of(model) is made
    check_kept(model)
    model.config.output_codes = {"bits": 8}
    with pytest.raises(probes.InputError, match="says 8 bits where the output layer has 7"):
        check_kept(model)


def test_bits_are_said_for_a_while_only(tiny_models):
    model = tiny_models("LlamaForCausalLM")
    with pytest.raises(probes.InputError, match="has no output codes: expected a model of"):
        coded_output_of(model)
    model.config.output_codes = {"bits": 7}
    apply_output_codes(model)
    ids = torch.tensor([[4, 5]])
    sizes = [model(ids).logits.shape[-1]]

    def interrupted():
        with saying_bits(model):
            sizes.append(model(ids).logits.shape[-1])
            with saying_bits(model, "words"):
                sizes.append(model(ids).logits.shape[-1])
            sizes.append(model(ids).logits.shape[-1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    sizes.append(model(ids).logits.shape[-1])
    assert sizes == [model.config.vocab_size, 7, model.config.vocab_size, 7, model.config.vocab_size]


def test_too_few_bits_and_codes_that_collide_are_refused(tiny_models):
    check_bits(4, 16, "x")
    check_bits(1, 1, "x")
    with pytest.raises(
        probes.InputError, match=r"x: 4 bits make 16 codewords .* there are 17 words .* at least 5 bits"
    ):
        check_bits(4, 17, "x")
    check_distinct(np.eye(3), "x")
    with pytest.raises(probes.InputError, match="x: the words 1 and 3 have the same codeword"):
        check_distinct(np.array([[0, 1], [1, 1], [0, 0], [1, 1]]), "x")
    model = tiny_models("LlamaForCausalLM")
    model.config.output_codes = {"bits": 2}
    with pytest.raises(probes.InputError, match=r"config.output_codes: 2 bits make 4 codewords at most"):
        apply_output_codes(model)


@pytest.fixture(scope="module")
def coded_folder(tmp_path_factory, tiny_models, make_tokenizer):
    model = tiny_models("LlamaForCausalLM")
    model.config.output_codes = {"bits": 9}
    apply_output_codes(model)
    with torch.no_grad():
        model.lm_head.linear.weight.normal_()
        model.lm_head.linear.bias.normal_()
    words = model.config.vocab_size
    model.lm_head.set_codes((np.arange(words)[:, None] * 7 >> np.arange(9)) & 1)
    folder = tmp_path_factory.mktemp("coded") / "coded"
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder, model


def test_a_file_without_its_codewords_or_with_two_alike_is_refused(coded_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, model = coded_folder
    loaded, _ = probes.load_checkpoint(folder)
    ids = torch.tensor([[4, 5, 9]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.config.output_codes == {"bits": 9}
    state = load_file(folder / "model.safetensors")
    same = state["lm_head.codes"].clone()
    same[3] = same[5]
    spoiled = {
        "are not in its weights": {k: v for k, v in state.items() if k != "lm_head.codes"},
        "the words 3 and 5 have the same codeword": state | {"lm_head.codes": same},
    }
    for message, tensors in spoiled.items():
        other = tmp_path / message[:4].strip()
        other.mkdir()
        for file in folder.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        save_file(tensors, other / "model.safetensors", {"format": "pt"})
        with pytest.raises(probes.InputError, match=message):
            probes.load_checkpoint(other)
    said = json.loads((folder / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(said | {"output_codes": {"bits": "many"}}))
    with pytest.raises(probes.InputError, match=r"config.output_codes\['bits'\]: expected"):
        probes.load_checkpoint(other)


def test_plain_transformers_is_told_apart(coded_folder):
    folder, _ = coded_folder
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(probes.InputError, match=r"promises an output layer of codewords .*Load it with probes.load"):
        check_kept(plain)


def test_as_many_bits_as_classes_are_not_taken_for_the_layer(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.output_codes = {"bits": 3}
    apply_output_codes(model)
    assert model.classifier.linear.out_features == model.classifier.out_features == 3
    assert output_layer(model) == ("classifier", model.classifier)
    check_kept(model)
