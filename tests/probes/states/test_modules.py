"""States of modules that read no text."""

import numpy as np
import pytest
import torch

import probes
from probes.errors import InputError


class Picture(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.drop = torch.nn.Conv2d(1, 6, 3), torch.nn.Dropout(0.5)
        self.linear, self.last = torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)
        self.pair = torch.nn.LSTM(3, 6, batch_first=True)

    def forward(self, x, scale):
        seen = self.conv(x) * scale[:, None, None, None]
        steps, _ = self.pair(x[:, 0, :, :3])
        return self.last(self.linear(self.drop(seen).mean((2, 3))) + steps[:, -1])


@pytest.fixture(scope="module")
def model():
    return Picture().train()


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(10, 1, 5, 5)).astype("f4"), "scale": rng.normal(size=10).astype("f4")}


def test_an_example_is_the_mean_over_what_is_no_feature(model, inputs):
    reps = probes.capture_modules(model, inputs, ["conv", "linear"], label=np.arange(10) % 2, name="small")
    with torch.no_grad():
        conv = model.conv(torch.from_numpy(inputs["x"]))
        linear = model.linear((conv * torch.from_numpy(inputs["scale"])[:, None, None, None]).mean((2, 3)))
    np.testing.assert_allclose(reps["hidden"], np.stack([conv.mean((2, 3)), linear]), atol=1e-6)
    assert reps["module"].values.tolist() == ["conv", "linear"]
    assert reps.attrs["model"] == "small"
    assert reps["label"].values.tolist() == ["0", "1"] * 5
    assert model.training  # and ran without dropout
    assert not any(m._forward_hooks for m in model.modules())


def test_features_are_of_the_dimension_that_is_said_and_of_several_outputs_the_first_counts(model, inputs):
    reps = probes.capture_modules(model, inputs, ["pair"], features=-1)
    with torch.no_grad():
        steps = model.pair(torch.from_numpy(inputs["x"][:, 0, :, :3]))[0]
    np.testing.assert_allclose(reps["hidden"][0], steps.mean(1), atol=1e-6)


def test_what_is_run_at_once_does_not_matter(model, inputs):
    one, other = (probes.capture_modules(model, inputs, ["conv", "linear"], batch_size=n) for n in (10, 3))
    np.testing.assert_allclose(one["hidden"], other["hidden"], atol=1e-6)


def test_probes_take_them(model, inputs):
    reps = probes.capture_modules(model, inputs, ["conv", "linear"])
    found = probes.similarity(reps, reps, draws=20)["value"].values
    np.testing.assert_allclose(np.diagonal(found), 1, atol=1e-9)
    assert found[0, 1].max() < 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": ["nowhere"]}, "Picture: no module named 'nowhere'; it has conv, drop, linear"),
        ({"modules": []}, r"no module named \(none given\)"),
        ({"modules": ["conv", "last"]}, r"the modules differ in width \({'conv': 6, 'last': 2}\)"),
        ({"modules": ["linear"], "features": 2}, "whose dimension 2 are features, found .*Choose another module"),
        ({"modules": ["linear"], "features": 0}, "whose dimension 0 are features"),
        ({"inputs": {"x": np.ones((3, 1, 5, 5)), "scale": np.ones(2)}}, "expected inputs of one length"),
        ({"inputs": {}}, "expected inputs of one length"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"id": [0] * 10}, "id '0' comes twice in language 'und'"),
    ],
)
def test_what_cannot_be_captured_is_named(model, inputs, changes, message):
    given = {"inputs": inputs, "modules": ["conv"]} | changes
    with pytest.raises(InputError, match=message):
        probes.capture_modules(model, given.pop("inputs"), given.pop("modules"), **given)
