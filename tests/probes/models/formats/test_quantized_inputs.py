"""Inputs rounded by hooks: each token alone or by a fixed range, once, on copies too, and after loading."""

import copy
import shutil

import numpy as np
import pytest
import torch
import transformers

import probes
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.quantized_inputs import QuantizedInput, apply_quantized_inputs

NAME = "encoder.layer.1.output.dense"


def by_hand(rows, bits, low=None, high=None):
    """The formula, row by row, in float64."""
    out = []
    for row in rows.double().numpy():
        least, most = min(row.min() if low is None else low, 0.0), max(row.max() if high is None else high, 0.0)
        step = (most - least) / (2**bits - 1) or 1.0
        zero = np.floor(-least / step + 0.5)
        out.append((np.clip(np.round(row / step) + zero, 0, 2**bits - 1) - zero) * step)
    return np.array(out)


@pytest.mark.parametrize("bits", range(2, 9))
def test_each_token_has_its_own_range(bits):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 40) * torch.exp(3 * torch.randn(3, 5, 1))
    (found,) = QuantizedInput(bits)(torch.nn.Identity(), (x,))
    rows = x.reshape(15, 40)
    step = (rows.amax(1) - rows.amin(1)).double().numpy() / (2**bits - 1)
    off = np.abs(found.reshape(15, 40).double().numpy() - by_hand(rows, bits)) / step[:, None]
    assert (off > 0.01).mean() < 0.01  # but for ties, by the rounding of the step
    assert ((found.reshape(15, 40) - rows).abs().double().numpy() / step[:, None]).max() <= 0.51
    assert torch.equal(QuantizedInput(bits)(torch.nn.Identity(), (found,))[0], found)
    # A token is the same whatever stands beside it.
    assert torch.equal(QuantizedInput(bits)(torch.nn.Identity(), (x[1:2, 2:3],))[0], found[1:2, 2:3])


def test_a_fixed_range_clips():
    x = torch.tensor([[-3.0, -0.4, 0.0, 0.4, 2.6, 9.0]])
    (found,) = QuantizedInput(3, low=-2.0, high=5.0)(torch.nn.Identity(), (x,))
    assert found.tolist() == [[-2.0, 0.0, 0.0, 0.0, 3.0, 5.0]]
    (found,) = QuantizedInput(3, low=2.0, high=7.0)(torch.nn.Identity(), (x,))  # made to include 0
    assert found.tolist() == [[0.0, 0.0, 0.0, 0.0, 3.0, 7.0]]
    (found,) = QuantizedInput(3, low=0.0, high=0.0)(torch.nn.Identity(), (x,))
    assert bool((found.abs() < 1e-30).all())


def test_degenerate_tokens():
    x = torch.zeros(4, 6)
    x[1], x[2, 0], x[3, 3] = 2.5, float("nan"), float("inf")
    (found,) = QuantizedInput(8)(torch.nn.Identity(), (x,))
    assert found[0].tolist() == [0.0] * 6
    torch.testing.assert_close(found[1], x[1], rtol=2e-5, atol=0)
    assert bool(found[2:].isnan().all())  # seen, and in their own rows alone


def test_the_gradient_passes_as_if_nothing_had_been_rounded():
    torch.manual_seed(0)
    linear = torch.nn.Linear(4, 3)
    linear.register_forward_pre_hook(QuantizedInput(2, low=-0.5, high=0.5))
    x = torch.randn(5, 4, requires_grad=True)
    out = linear(x)
    rounded = QuantizedInput(2, low=-0.5, high=0.5)(linear, (x.detach(),))[0]
    assert torch.equal(out, torch.nn.functional.linear(rounded, linear.weight, linear.bias))
    weights = torch.randn(5, 3)
    (out * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights @ linear.weight)  # that of what was clipped too
    torch.testing.assert_close(linear.weight.grad, weights.T @ rounded)
    assert not torch.equal(rounded, x)


def test_the_type_stays():
    x = torch.randn(2, 8).bfloat16()
    assert QuantizedInput(4)(torch.nn.Identity(), (x,))[0].dtype == torch.bfloat16


def states(model, batch):
    with torch.no_grad():
        return model(**batch, output_hidden_states=True).hidden_states


def hooks(model):
    return [h for m in model.modules() for h in m._forward_pre_hooks.values() if isinstance(h, QuantizedInput)]


def test_the_configuration_says_which_modules_round(tiny_models, batch):
    model = tiny_models("BertForSequenceClassification")
    plain = states(model, batch)
    model.config.quantized_inputs = {NAME: {"bits": 2}}
    assert list(apply_quantized_inputs(model)) == [NAME]
    rounded = states(model, batch)
    assert [torch.equal(a, b) for a, b in zip(plain, rounded, strict=True)] == [True, True, False, False]
    # Once more is no more.
    apply_quantized_inputs(model)
    assert len(hooks(model)) == 1
    assert all(torch.equal(a, b) for a, b in zip(rounded, states(model, batch), strict=True))
    # A copy is on its own.
    copied = copy.deepcopy(model)
    assert len(hooks(copied)) == 1
    assert all(torch.equal(a, b) for a, b in zip(rounded, states(copied, batch), strict=True))
    del model.config.quantized_inputs
    assert apply_quantized_inputs(model) == {}
    assert all(torch.equal(a, b) for a, b in zip(plain, states(model, batch), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(rounded, states(copied, batch), strict=True))


def test_neither_padding_nor_the_batch_changes_what_comes_out(tiny_models, batch):
    model = tiny_models("BertModel")
    model.config.quantized_inputs = {f"encoder.layer.{i}.output.dense": {"bits": 4} for i in range(3)}
    apply_quantized_inputs(model)
    together = states(model, batch)[-1]
    for row in range(2):
        length = int(batch["attention_mask"][row].sum())
        alone = states(model, {k: v[row : row + 1, :length] for k, v in batch.items()})[-1][0]
        torch.testing.assert_close(together[row, :length], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entry", [{"bits": 8}, {"bits": 3, "low": -0.1234567890123, "high": 0.9876543210987}])
def test_loaded_by_probes_it_rounds_and_by_transformers_alone_it_does_not(tiny_folder, tmp_path, batch, entry):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    model, tokenizer = probes.load_checkpoint(folder)
    plain = states(model, batch)
    before = weights_fingerprint(model)
    model.config.quantized_inputs = {NAME: entry}
    apply_quantized_inputs(model)
    assert weights_fingerprint(model) != before
    expected = states(model, batch)
    shutil.rmtree(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    loaded, _ = probes.load_checkpoint(folder)
    assert all(torch.equal(a, b) for a, b in zip(expected, states(loaded, batch), strict=True))
    assert weights_fingerprint(loaded) == weights_fingerprint(model)
    for kind in (transformers.AutoModelForSequenceClassification, transformers.AutoModel):
        bare = kind.from_pretrained(folder).eval()
        assert torch.equal(states(bare, batch)[-1], plain[-1])
        apply_quantized_inputs(bare)  # by names without the head's prefix, so of both
        assert torch.equal(states(bare, batch)[-1], expected[-1])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"layer.9": {"bits": 8}},
            "names the module 'layer.9', which BertModel does not have: configuration and weights",
        ),
        ({NAME: {"bits": 9}}, "expected bits of 2 to 8 and either no range or low and high, found {'bits': 9}"),
        ({NAME: {"bits": 8, "low": -1.0}}, "expected bits of 2 to 8 and either no range or low and high"),
        ({NAME: {"bits": 8, "low": 1.0, "high": 0.0}}, "expected bits of 2 to 8 and either no range or low and high"),
        ({NAME: {"bits": 8, "low": "a", "high": "b"}}, "expected bits of 2 to 8 and either no range or low and high"),
        ({NAME: {"size": 8}}, "expected bits of 2 to 8 and either no range or low and high"),
        ({NAME: 8}, "expected bits of 2 to 8 and either no range or low and high"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tiny_models, wanted, message):
    model = tiny_models("BertModel")
    model.config.quantized_inputs = wanted
    with pytest.raises(probes.InputError, match=message):
        apply_quantized_inputs(model)
    assert hooks(model) == []
