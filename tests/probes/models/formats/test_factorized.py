"""Modules in factors: what they compute, entry by entry; made from a configuration, saved, loaded and copied."""

import copy
import itertools
import json
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers

import probes
from compress.pruning.structure import prune_heads
from compress.saving import save
from probes.errors import InputError
from probes.models.formats.factorized import (
    LowRankEmbedding,
    LowRankLinear,
    TensorTrainEmbedding,
    TensorTrainLinear,
    apply_factors,
    from_cores,
)

DENSE = "encoder.layer.1.output.dense"
QUERY = "encoder.layer.0.attention.self.query"
WORDS = "embeddings.word_embeddings"
TRAIN = {"rows": [2, 2, 3], "columns": [5, 2, 2], "ranks": [3, 4]}


def brute_force(cores):
    """The matrix of a tensor train, each entry by its digits, in float64."""
    cores = [core.detach().double().numpy() for core in cores]
    rows, columns = [c.shape[1] for c in cores], [c.shape[2] for c in cores]
    out = np.empty((math.prod(rows), math.prod(columns)))
    every = [list(itertools.product(*map(range, bases))) for bases in (rows, columns)]
    for i, row in enumerate(every[0]):
        for j, column in enumerate(every[1]):
            product = np.ones((1, 1))
            for core, a, b in zip(cores, row, column, strict=True):
                product = product @ core[:, a, b, :]
            out[i, j] = product.item()
    return out


def states(model, batch):
    with torch.no_grad():
        return model(**batch, output_hidden_states=True).hidden_states


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def made(model, settings, seed=0):
    """A model with random factors where its configuration says."""
    model.config.factorized = settings
    apply_factors(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name in settings:
            for parameter in model.base_model.get_submodule(name).parameters():
                parameter.normal_(std=0.3)
    return model


# --- what they compute -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_map_of_low_rank_is_the_product(bias):
    torch.manual_seed(0)
    layer = LowRankLinear(7, 5, rank=2, bias=bias).double()
    x = torch.randn(3, 4, 7, dtype=torch.float64)
    matrix = layer.second.weight.detach().numpy() @ layer.first.weight.detach().numpy()
    expected = x.numpy() @ matrix.T + (layer.second.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(layer.weight.detach().numpy(), matrix, atol=1e-12)
    assert np.linalg.matrix_rank(matrix) == 2
    assert sum(p.numel() for p in layer.parameters()) == 2 * (7 + 5) + 5 * bias


@pytest.mark.parametrize(
    ("rows", "columns", "ranks"),
    [((2, 3), (4, 2), (5,)), ((2, 1, 3), (2, 5, 2), (2, 3)), ((2, 2, 3, 2), (3, 1, 2, 2), (2, 4, 3)), ((3,), (4,), ())],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_tensor_train_is_the_product_of_its_cores_entry_by_entry(rows, columns, ranks, bias):
    torch.manual_seed(0)
    layer = TensorTrainLinear(rows, columns, ranks, bias=bias).double()
    if bias:
        torch.nn.init.normal_(layer.bias)
    matrix = brute_force(layer.cores())
    np.testing.assert_allclose(layer.weight.detach().numpy(), matrix, atol=1e-12)
    np.testing.assert_allclose(from_cores(layer.cores()).detach().numpy(), matrix, atol=1e-12)
    x = torch.randn(3, 4, math.prod(columns), dtype=torch.float64)
    expected = x.numpy() @ matrix.T + (layer.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(layer(x[0, 0]).detach().numpy(), expected[0, 0], atol=1e-12)
    # Through the cores, once something watches one.
    seen = []
    layer.core0.register_forward_hook(lambda _, given, out: seen.append((given[0].shape, out.shape)))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(layer(x[0, 0]).detach().numpy(), expected[0, 0], atol=1e-12)
    rest = math.prod(columns[1:])
    assert seen[0] == ((3, 4, 1, rest, columns[0]), (3, 4, 1, rest, rows[0] * (*ranks, 1)[0]))
    around = (1, *ranks, 1)
    sizes = [rows[k] * columns[k] * around[k] * around[k + 1] for k in range(len(rows))]
    assert sum(p.numel() for p in layer.parameters()) == sum(sizes) + len(expected[0, 0]) * bias
    # Not a train whose digits are counted the other way round.
    if len(rows) > 1:
        assert np.abs(brute_force([c.permute(3, 1, 2, 0) for c in layer.cores()[::-1]]) - matrix).max() > 0.01


def test_cores_are_put_where_they_are_read():
    layer = TensorTrainLinear((2, 3), (4, 2), (5,))
    cores = [torch.randn(1, 2, 4, 5), torch.randn(5, 3, 2, 1)]
    layer.set_cores(cores)
    assert same(layer.cores(), cores)
    table = TensorTrainEmbedding(6, (2, 3), (4, 2), (5,))
    table.set_cores(cores)
    assert same(table.cores(), cores)


@pytest.mark.parametrize(("rows", "columns", "ranks"), [((3, 4), (2, 3), (4,)), ((2, 3, 2), (3, 2, 2), (3, 2))])
def test_an_embedding_in_cores_looks_up_the_rows_of_its_table(rows, columns, ranks):
    torch.manual_seed(0)
    layer = TensorTrainEmbedding(11, rows, columns, ranks).double()
    table = brute_force(layer.cores())
    assert layer.weight.shape == (11, math.prod(columns))
    np.testing.assert_allclose(layer.weight.detach().numpy(), table[:11], atol=1e-12)
    tokens = torch.tensor([[0, 10, 3], [7, 7, 1]])
    np.testing.assert_allclose(layer(tokens).detach().numpy(), table[tokens.numpy()], atol=1e-12)
    for bad in (12, 100, -1):
        with pytest.raises(IndexError):
            layer(torch.tensor([bad]))


def test_an_embedding_of_low_rank_looks_up_the_rows_of_the_product():
    torch.manual_seed(0)
    layer = LowRankEmbedding(9, 5, rank=2, padding_idx=0).double()
    table = layer.weight.detach().numpy() @ layer.second.weight.detach().numpy().T
    tokens = torch.tensor([[0, 8], [3, 3]])
    np.testing.assert_allclose(layer(tokens).detach().numpy(), table[tokens.numpy()], atol=1e-12)
    assert not table[0].any()
    assert sum(p.numel() for p in layer.parameters()) == 2 * (9 + 5)


def test_gradients_are_those_of_the_product():
    torch.manual_seed(0)
    layer = TensorTrainLinear((2, 3), (2, 2), (3,)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *layer.parameters()))
    watched = copy.deepcopy(layer)
    watched.core1.register_forward_pre_hook(lambda *_: None)
    assert torch.autograd.gradcheck(lambda x, *_: watched(x), (x, *watched.parameters()))
    layer(x).square().sum().backward()
    assert all(bool(p.grad.any()) for p in layer.parameters())


def test_cores_of_another_number_are_refused():
    with pytest.raises(InputError, match="2 rows, 3 columns and 1 ranks: expected as many columns as rows, and one"):
        TensorTrainLinear((2, 3), (2, 2, 1), (3,))


# --- from a configuration --------------------------------------------------------------------------------------------

SETTINGS = {QUERY: {"rank": 5}, DENSE: TRAIN, WORDS: {"rank": 4}}


def test_the_configuration_says_which_modules_are_in_factors(tiny_models, batch):
    model = tiny_models("BertForSequenceClassification").train()
    plain = states(copy.deepcopy(model).eval(), batch)
    state = torch.get_rng_state()
    model.config.factorized = SETTINGS
    apply_factors(model)
    assert torch.equal(torch.get_rng_state(), state)
    kinds = [type(model.base_model.get_submodule(name)) for name in SETTINGS]
    assert kinds == [LowRankLinear, TensorTrainLinear, LowRankEmbedding]
    assert model.get_input_embeddings() is model.base_model.get_submodule(WORDS)
    assert all(m.training for m in model.modules())
    made(model.eval(), SETTINGS)
    first = states(model, batch)
    assert not torch.allclose(first[0], plain[0])
    # Once more is no more.
    before = dict(model.named_modules())
    apply_factors(model)
    assert all(module is before[name] for name, module in model.named_modules())
    assert same(states(model, batch), first)
    # Without anything in the configuration nothing happens.
    other = tiny_models("BertForSequenceClassification")
    apply_factors(other)
    assert same(states(other, batch), plain)
    other.config.factorized = SETTINGS
    apply_factors(other)
    assert not any(m.training for m in other.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder.layer.9.output.dense": {"rank": 2}}, "names the module 'encoder.layer.9.output.dense', which Bert"),
        ({"encoder.layer.0.output.LayerNorm": {"rank": 2}}, "expected a plain linear map or embedding, found LayerN"),
        ({DENSE: {"rank": 13}}, "12 x 20: expected a rank of at most 12, or the rows, columns and ranks"),
        ({DENSE: {"rank": 0}}, "expected a rank of at most 12"),
        ({DENSE: {"rank": 2.0}}, "expected a rank of at most 12"),
        ({DENSE: {"rank": True}}, "expected a rank of at most 12"),
        ({DENSE: {"rank": 2, "rows": [12]}}, "expected a rank of at most 12"),
        ({DENSE: 3}, "expected a rank of at most 12"),
        ({DENSE: TRAIN | {"columns": [5, 2, 3]}}, "expected a rank of at most 12"),
        ({DENSE: TRAIN | {"rows": [2, 2, 4]}}, "expected a rank of at most 12"),
        ({DENSE: TRAIN | {"ranks": [3]}}, "expected a rank of at most 12"),
        ({DENSE: TRAIN | {"ranks": [3, 0]}}, "expected a rank of at most 12"),
        ({DENSE: TRAIN | {"ranks": [3, 10**9]}}, "expected a rank of at most 12"),
        ({WORDS: {"rows": [2, 2], "columns": [4, 3], "ranks": [2]}}, "expected a rank of at most 12"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tiny_models, settings, message):
    model = tiny_models("BertForSequenceClassification")
    model.config.factorized = settings
    with pytest.raises(InputError) as error:
        apply_factors(model)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("family", "name", "bias"),
    [("GPT2LMHeadModel", "h.1.mlp.c_fc", True), ("LlamaModel", "layers.1.mlp.up_proj", False)],
)
def test_conv1d_and_maps_without_a_bias(tiny_models, family, name, bias):
    model = tiny_models(family)
    module = model.base_model.get_submodule(name)
    matrix = module.weight.T if bias else module.weight
    model.config.factorized = {name: {"rank": 2}}
    apply_factors(model)
    layer = model.base_model.get_submodule(name)
    assert (layer.weight.shape, layer.second.bias is not None) == (matrix.shape, bias)


# --- saved, loaded, copied -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("words", [{"rank": 4}, {"rows": [4, 3, 3], "columns": [3, 2, 2], "ranks": [2, 3]}])
def test_saved_and_loaded_it_computes_the_same_bit_for_bit(tiny_models, make_tokenizer, batch, tmp_path, packed, words):
    model = made(tiny_models("BertForSequenceClassification"), SETTINGS | {WORDS: words})
    save(model, tmp_path / "small", make_tokenizer(), packed=packed)
    state = torch.get_rng_state()
    loaded, _ = probes.load_checkpoint(tmp_path / "small")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model)
    assert same(states(loaded, batch), states(model, batch))
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert probes.models.fingerprint.weights_fingerprint(loaded) == probes.models.fingerprint.weights_fingerprint(model)


def test_a_folder_that_does_not_say_its_class_loads_as_the_bare_model(tiny_models, make_tokenizer, batch, tmp_path):
    model = made(tiny_models("BertForSequenceClassification"), SETTINGS)
    save(model, tmp_path / "small", make_tokenizer())
    written = tmp_path / "small" / "config.json"
    config = json.loads(written.read_text(encoding="utf-8"))
    del config["architectures"]
    written.write_text(json.dumps(config), encoding="utf-8")
    loaded, _ = probes.load_checkpoint(tmp_path / "small")
    assert type(loaded) is transformers.BertModel
    assert same(states(loaded, batch), states(model, batch))


def test_heads_that_were_pruned_before_stay_pruned(tiny_models, make_tokenizer, batch, tmp_path):
    pruned = prune_heads(tiny_models("BertForSequenceClassification"), 0.5)
    model = made(pruned, {QUERY: {"rank": 2}, DENSE: {"rank": 3}})
    save(model, tmp_path / "small", make_tokenizer())
    loaded, _ = probes.load_checkpoint(tmp_path / "small")
    assert loaded.config.heads_kept == [1, 1, 1]
    assert type(loaded) is transformers.BertForSequenceClassification
    assert same(states(loaded, batch), states(model, batch))


def test_inputs_of_factors_that_are_rounded_are_so_after_loading(tiny_models, make_tokenizer, batch, tmp_path):
    model = made(tiny_models("BertForSequenceClassification"), SETTINGS)
    plain = states(model, batch)
    model.config.quantized_inputs = {DENSE: {"bits": 3}, f"{QUERY}.first": {"bits": 3}}
    probes.models.formats.quantized_inputs.apply_quantized_inputs(model)
    save(model, tmp_path / "small", make_tokenizer())
    loaded, _ = probes.load_checkpoint(tmp_path / "small")
    assert same(states(loaded, batch), states(model, batch))
    assert not same(states(loaded, batch), plain)


def test_a_configuration_that_lies_is_refused_on_loading(tiny_models, make_tokenizer, tmp_path):
    model = made(tiny_models("BertForSequenceClassification"), SETTINGS)
    save(model, tmp_path / "small", make_tokenizer())
    for changed, message in (
        ({DENSE: {"rank": 5}}, "weights of the model are"),
        (
            {**SETTINGS, QUERY: {"rank": 4}},
            f"weights of the model are of another shape in the checkpoint: bert.{QUERY}",
        ),
        ({**SETTINGS, "encoder.nothing": {"rank": 4}}, "names the module 'encoder.nothing', which"),
        ({DENSE: {"rank": 10**12}}, "expected a whole number of 1 to 2147483647"),
    ):
        folder = tmp_path / "lie"
        shutil.copytree(tmp_path / "small", folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | {"factorized": changed}), encoding="utf-8")
        with pytest.raises(InputError) as error:
            probes.load_checkpoint(folder)
        assert message in str(error.value)
        shutil.rmtree(folder)


def test_copies_are_on_their_own(tiny_models, batch):
    model = made(tiny_models("BertForSequenceClassification"), SETTINGS)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = states(model, batch)
    assert all(same(states(copied, batch), expected) for copied in copies)
    with torch.no_grad():
        model.get_submodule(f"bert.{DENSE}").core1.weight.zero_()
    assert not same(states(model, batch), expected)
    assert all(same(states(copied, batch), expected) for copied in copies)
