"""Two and three values a row: the best of all by exhaustion, what they store, and that they are kept."""

import itertools

import numpy as np
import pytest
import torch

import compress
import probes
from compress.quantization.quantizers import dequantize, quantize_tensor
from compress.quantization.scaled_signs import binary_step, signs_of, ternary_step
from probes.costs import as_stored

HOW = {"ranges": "least_squares"}


def best_of_all(row, values):
    """The least squared error of a row by any choice of values times any step, in float64."""
    least = np.inf
    for chosen in itertools.product(values, repeat=len(row)):
        c = np.array(chosen, float)
        step = max(0.0, (c @ row) / (c @ c)) if c.any() else 0.0
        least = min(least, ((row - step * c) ** 2).sum())
    return least


@pytest.mark.parametrize(("bits", "values"), [(1, (-1, 1)), (2, (-1, 0, 1))])
@pytest.mark.parametrize("kind", ["normal", "heavy", "few", "one", "constant", "zero"])
def test_no_signs_and_no_step_come_nearer(bits, values, kind):
    rng = np.random.default_rng(0)
    for _ in range(3):
        row = {
            "normal": rng.normal(size=6),
            "heavy": rng.standard_t(1, size=6),
            "few": np.round(rng.normal(size=6)),
            "one": np.eye(6)[2] * 7,
            "constant": np.full(6, -0.3),
            "zero": np.zeros(6),
        }[kind].astype(np.float32)
        found = dequantize(quantize_tensor(torch.tensor(row)[None], bits, **HOW))[0].double().numpy()
        error = ((found - row.astype(np.float64)) ** 2).sum()
        least = best_of_all(row.astype(np.float64), values)
        assert least <= error * (1 + 1e-9) + 1e-30
        assert error <= least * (1 + 1e-4) + 1e-9 * float(row @ row)  # steps have 16 significant bits


def test_steps_by_hand():
    rows = torch.tensor([[-1.0, 0.1, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [-5.0, -5.0, -5.0, -5.0]])
    assert binary_step(rows)[:, 0].tolist() == pytest.approx([1.525, 0, 5], rel=2e-5)
    # (3)^2, (3 + 2)^2 / 2, (3 + 2 + 1)^2 / 3 and 6.1^2 / 4 are 9, 12.5, 12 and 9.3: two stay.
    assert ternary_step(rows)[:, 0].tolist() == pytest.approx([2.5, 0, 5], rel=2e-5, abs=1e-37)
    assert signs_of(torch.tensor([-0.0, 0.0, -1e-40])).tolist() == [1, 1, -1]


@pytest.mark.parametrize("bits", [1, 2])
def test_planted_values_come_back_and_a_control_does_not(bits):
    torch.manual_seed(0)
    levels = torch.randint(0, 2, (8, 32)) * 2 - 1 if bits == 1 else torch.randint(-1, 2, (8, 32))
    planted = levels * torch.tensor([0.75, 2, 3, 4, 5, 6, 7, 8.5])[:, None]
    assert torch.equal(dequantize(quantize_tensor(planted, bits, **HOW)), planted)
    normal = torch.randn(8, 4096)
    error = (dequantize(quantize_tensor(normal, bits, **HOW)) - normal).square().mean() / normal.square().mean()
    # Of a normal row what Lloyd-Max quantisers of two, and of three, levels leave (Max 1960).
    assert float(error) == pytest.approx({1: 1 - 2 / np.pi, 2: 0.1902}[bits], abs=0.01)


@pytest.mark.parametrize("bits", [1, 2])
@pytest.mark.parametrize("group", ["tensor", "channel", 4])
def test_twice_is_once(bits, group):
    torch.manual_seed(1)
    for weight in (torch.randn(6, 12), torch.randn(6, 12) * 1e-40, torch.randn(6, 12) * 1e30, torch.zeros(6, 12)):
        once = dequantize(quantize_tensor(weight, bits, group=group, **HOW))
        assert torch.equal(dequantize(quantize_tensor(once, bits, group=group, **HOW)), once)


def test_a_binary_model_is_saved_counted_and_loaded(classifier, tokenizer, tmp_path):
    small = compress.quantize(classifier, bits=1, activation_bits=None, **HOW)
    done = small.config.compression
    matrices = [small.get_parameter(n) for n in done["quantized"]]
    assert all(bool((w.abs() == w.abs()[:, :1]).all()) for w in matrices)  # of a unit one size
    assert done["bytes_of_quantized"] == sum(-(-w.numel() // 8) + 4 * len(w) for w in matrices)
    assert as_stored(small) == {"stored_bytes": done["bytes_of_model"], "stored_as": "integers"}
    compress.save(small, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    given = tokenizer("a red dog ran", return_tensors="pt")
    assert torch.equal(loaded(**given).logits, small.eval()(**given).logits)
    with pytest.raises(probes.InputError, match="weights of 1 bit, which have no 0, and the layout holds grids that"):
        compress.save_codes(small, tmp_path / "codes")
