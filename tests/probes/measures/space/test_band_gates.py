"""Band gates: they open for the band that carries the classes, and for none where nothing does."""

import numpy as np
import pytest
import torch

import probes
from probes.measures.space.spectrum import folds_of
from probes.results.draws import sample


def planted(strength, band_of, sentences=60, tokens=8, features=4, seed=0):
    """Sentences of two classes: one of two features changes its sign from token to token, or is shifted."""
    rng = np.random.default_rng(seed)
    label = np.arange(sentences) % 2
    x = rng.normal(size=(sentences, tokens, features))
    change = np.where(np.arange(tokens) % 2, -1.0, 1.0) if band_of == "fast" else np.ones(tokens)
    x[np.arange(sentences), :, label] += strength * change
    n = sentences * tokens
    reps = probes.from_arrays(x.mean(axis=1), label=np.array(["one", "two"])[label])
    return reps.assign_coords(token_text=("vocabulary", ["a"])).assign(
        tokens=(("layer", "token", "feature"), x.reshape(1, n, features)),
        token_start=("example", np.arange(0, n, tokens)),
        token_count=("example", np.full(sentences, tokens)),
        token_place=("token", np.arange(n) % tokens),
        token_code=("token", np.zeros(n, int)),
    )


@pytest.mark.parametrize(("band_of", "right"), [("fast", 2), ("mean", 0)])
def test_the_band_that_carries_the_classes_is_chosen(band_of, right):
    found = probes.band_gates(planted(2.0, band_of), layer=0, bands=3, draws=20)
    assert found.chosen.values.tolist() == [float(band == right) for band in range(3)]
    assert found.open.values.argmax() == right
    accuracy = found.value.sel(language="pooled")
    assert (accuracy.sel(read=["every band", "gated", "chosen"]) > 0.9).all()
    assert (accuracy.sel(read="mean") > 0.9) == (band_of == "mean")
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_no_band_is_chosen_where_none_says_anything():
    found = probes.band_gates(planted(0.0, "fast"), layer=0, bands=3, draws=20)
    assert found.chosen.values.sum() < 1
    assert (found.value < 0.7).all()
    assert (found.low.sel(language="pooled") < 0.5).all()


def test_the_same_seed_gives_the_same_gates_and_leaves_that_of_torch_alone(monkeypatch):
    monkeypatch.setattr("probes.measures.space.band_gates._STEPS", 5)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    reps = planted(1.0, "fast", sentences=30)
    one, two = (probes.band_gates(reps, layer=0, bands=2, draws=5) for _ in range(2))
    np.testing.assert_array_equal(one.value, two.value)
    np.testing.assert_array_equal(one.open, two.open)
    assert torch.equal(torch.get_rng_state(), before)


def test_folds_keep_groups_together():
    reps = planted(1.0, "fast", sentences=40)
    reps = reps.assign_coords(group=("example", (np.arange(40) // 4).astype(str).astype(object)))
    drawn = sample(reps, draws=2, seed=0)
    for train, test in folds_of(drawn, 0, drawn.label):
        assert not set(reps.group.values[train]) & set(reps.group.values[test])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": 3}, "band_gates: layer=3: expected one of 0"),
        ({"cost": -1}, "band_gates: cost=-1: expected a number, at least 0"),
        ({"bands": 9}, "band_gates: bands=9: the longest text has 8 tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(probes.InputError, match=message):
        probes.band_gates(planted(1.0, "fast"), **{"layer": 0, "bands": 3} | change)


def test_what_cannot_be_measured_is_refused():
    reps = planted(1.0, "fast")
    with pytest.raises(probes.InputError, match="this probe needs labels, and the Representations have none"):
        probes.band_gates(reps.drop_vars("label"), layer=0)
    with pytest.raises(probes.InputError, match="band_gates: model arrays has no states of tokens"):
        probes.band_gates(reps.drop_vars("tokens"), layer=0)
    few = reps.assign_coords(label=("example", np.array(["one"] * 57 + ["odd"] * 3, object)))
    with pytest.raises(probes.InputError, match="band_gates: class 'odd' has 3 sentences, and needs at least 5"):
        probes.band_gates(few, layer=0, bands=3)
    reps.tokens.values[0, 3] = np.nan
    with pytest.raises(probes.InputError, match="layer 0: the states of 1 texts are not finite"):
        probes.band_gates(reps, layer=0, bands=3)
