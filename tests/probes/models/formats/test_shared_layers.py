"""Shared parameters: one tensor at the places that the configuration names, saved once, tied again when loaded."""

import copy

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import probes
from probes.models.formats.shared_layers import apply_sharing, renumber_sharing, unshare

SHARED = {
    "encoder.layer.1.intermediate.dense": "encoder.layer.0.intermediate.dense",
    "encoder.layer.2.intermediate.dense": "encoder.layer.0.intermediate.dense",
}
NAMES = {f"bert.{name}.{kind}" for name in SHARED for kind in ("weight", "bias")}


@pytest.fixture
def shared(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    model.config.shared_layers = dict(SHARED)
    assert apply_sharing(model) == NAMES
    return model


@pytest.fixture
def folder(shared, make_tokenizer, tmp_path):
    shared.save_pretrained(tmp_path / "shared")
    make_tokenizer().save_pretrained(tmp_path / "shared")
    return tmp_path / "shared"


def test_the_others_take_what_the_first_has(tiny_models, shared):
    before = tiny_models("BertForSequenceClassification").bert.encoder.layer
    first, second, third = shared.bert.encoder.layer
    assert torch.equal(first.intermediate.dense.weight, before[0].intermediate.dense.weight)
    assert first.intermediate.dense.weight is second.intermediate.dense.weight is third.intermediate.dense.weight
    assert first.intermediate.dense.bias is third.intermediate.dense.bias
    assert first.output.dense.weight is not second.output.dense.weight
    assert torch.equal(second.output.dense.weight, before[1].output.dense.weight)
    again = copy.deepcopy(shared)
    assert apply_sharing(again) == NAMES
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in shared.state_dict().items())


def test_without_a_word_of_it_nothing_is_shared(tiny_models):
    model = tiny_models("BertModel")
    assert apply_sharing(model) == set()
    assert model._tied_weights_keys == type(model)._tied_weights_keys
    assert len({p.data_ptr() for p in model.parameters()}) == len(model.state_dict())


def test_what_is_shared_is_in_the_file_once_and_one_when_loaded(shared, folder):
    written = load_file(folder / "model.safetensors")
    assert set(shared.state_dict()) - set(written) == NAMES
    loaded, _ = probes.load_checkpoint(folder)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in shared.state_dict().items())
    first, second, _ = loaded.bert.encoder.layer
    assert first.intermediate.dense.weight is second.intermediate.dense.weight
    assert sum(p.numel() for p in loaded.parameters()) == sum(v.numel() for v in written.values())


def test_a_file_that_holds_it_twice_must_hold_the_same(folder):
    written = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.{}.intermediate.dense.weight"
    written[name.format(1)] = written[name.format(0)].clone()
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    loaded, _ = probes.load_checkpoint(folder)
    assert loaded.get_parameter(name.format(1)) is loaded.get_parameter(name.format(0))
    written[name.format(1)] += 1
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(probes.InputError, match=r"'encoder.layer.1.intermediate.dense' shares .* the file has others"):
        probes.load_checkpoint(folder)


def test_a_file_without_what_is_shared_is_refused(folder):
    written = load_file(folder / "model.safetensors")
    del written["bert.encoder.layer.0.intermediate.dense.weight"]
    save_file(written, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        probes.InputError,
        match=r"weights of the model are missing .*: bert.encoder.layer.0.intermediate.dense.weight\.",
    ):
        probes.load_checkpoint(folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder.layer.7": "encoder.layer.0"}, r"names the module 'encoder.layer.7', which BertForSequence"),
        ({"encoder.layer.1": "encoder.layer.9"}, r"names the module 'encoder.layer.9', which BertForSequence"),
        (
            {"encoder.layer.1.output.dense": "encoder.layer.0.intermediate.dense"},
            r"parameters of 'encoder.layer.0.intermediate.dense', which are of other names or shapes: configuration",
        ),
        (
            {"encoder.layer.2": "encoder.layer.1", "encoder.layer.1": "encoder.layer.0"},
            r"gives 'encoder.layer.2' the parameters of 'encoder.layer.1', which shares those of another module",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_and_nothing_changed(tiny_models, wrong, message):
    model = tiny_models("BertForSequenceClassification")
    model.config.shared_layers = wrong
    with pytest.raises(probes.InputError, match=message):
        apply_sharing(model)
    assert len({p.data_ptr() for p in model.parameters()}) == len(list(model.parameters()))


def by_tensor(model):
    """Which names stand for one tensor."""
    places = {}
    for name, tensor in model.state_dict().items():
        places.setdefault(tensor.data_ptr(), []).append(name)
    return sorted(tuple(names) for names in places.values() if len(names) > 1)


@pytest.mark.parametrize("unit", ["", ".attention.self.query"])
@pytest.mark.parametrize("gone", [[0], [1], [0, 2], [4], [0, 1, 3], [1, 4, 5]])
def test_layers_that_are_left_share_what_they_shared(tiny_models, make_tokenizer, tmp_path, unit, gone):
    model = tiny_models("BertForSequenceClassification", num_hidden_layers=6)
    model.config.shared_layers = {
        f"encoder.layer.{target}{unit}": f"encoder.layer.{source}{unit}"
        for target, source in {2: 0, 4: 0, 3: 1}.items()
    }
    apply_sharing(model)
    for number in reversed(gone):
        del model.bert.encoder.layer[number]
    model.config.num_hidden_layers = 6 - len(gone)
    expected = by_tensor(model)  # as the tensors are, whatever the configuration says
    values = {k: v.clone() for k, v in model.state_dict().items()}
    renumber_sharing(model, "encoder.layer", [i for i in range(6) if i not in gone])
    assert by_tensor(model) == expected
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    model.save_pretrained(tmp_path / "out")
    make_tokenizer().save_pretrained(tmp_path / "out")
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    assert by_tensor(loaded) == expected
    assert all(torch.equal(v, values[k]) for k, v in loaded.state_dict().items())


def test_what_is_shared_no_more_is_saved_in_full_for_plain_transformers(shared, tmp_path):
    values = {k: v.clone() for k, v in shared.state_dict().items()}
    unshare(shared)
    assert by_tensor(shared) == []
    shared.save_pretrained(tmp_path / "full")
    assert set(load_file(tmp_path / "full" / "model.safetensors")) == set(values)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "full")
    assert all(torch.equal(v, values[k]) for k, v in plain.state_dict().items())
    assert not hasattr(plain.config, "shared_layers")
    unshare(shared)  # nothing more to do
    assert by_tensor(shared) == []
