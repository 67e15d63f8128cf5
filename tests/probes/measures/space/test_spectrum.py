"""Spectrum: a class that a fast component carries is found there, and in no other band; energies add up."""

import numpy as np
import pytest
import xarray as xr

import probes
from probes.measures.space.spectrum import amplitudes_of


def planted(rng, sentences=60, strength=1.5, speed=1.0, languages=("en", "de"), features=6, layers=1, tokens=(6, 14)):
    """Sentences of two classes: a component along one of two features, that changes its sign at some speed (1: from
    each token to the next, 0: never), on noise, so that its mean is the same for both unless it never changes.
    """
    n = sentences * len(languages)
    label = np.tile(np.arange(sentences) % 2, len(languages))
    counts = rng.integers(*tokens, n)
    starts = np.cumsum(counts) - counts
    place = np.arange(counts.sum()) - np.repeat(starts, counts)
    x = rng.normal(size=(layers, counts.sum(), features))
    of = np.repeat(label, counts)
    x[:, np.arange(len(of)), of] += strength * np.where(place % 2, 1 - 2 * speed, 1.0)
    means = np.add.reduceat(x, starts, axis=1) / counts[:, None]
    reps = probes.from_arrays(
        means,
        id=np.tile(np.arange(sentences), len(languages)),
        language=np.repeat(languages, sentences),
        label=label,
    )
    return reps.assign_coords(token_text=("vocabulary", ["a"])).assign(
        tokens=(("layer", "token", "feature"), x),
        token_start=("example", starts),
        token_count=("example", counts),
        token_place=("token", place),
        token_code=("token", 0 * place),
    )


def measured(reps, **options):
    return probes.spectrum(reps, progress=False, **{"bands": 4, "draws": 40} | options).isel(layer=0)


def of_class(reps):
    return measured(reps).sel(measure="spectrum_class", language="pooled")


def test_a_class_that_changes_fast_is_found_in_the_fastest_band_and_missed_by_the_mean():
    fast = of_class(planted(np.random.default_rng(0)))
    assert fast.value[3] > 0.9
    assert fast.low[3] > fast.high[0]
    assert fast.value[0] < 0.65
    assert fast.value[1] < 0.65
    slow = of_class(planted(np.random.default_rng(1), speed=0.0))
    assert slow.value[0] > 0.9
    assert slow.value[3] < 0.65
    nothing = of_class(planted(np.random.default_rng(2), strength=0.0))
    assert (nothing.value < 0.65).all()
    assert ((nothing.low < 0.5) & (nothing.high > 0.5)).sum() >= 3


def test_a_probe_on_the_band_finds_it_too():
    reps = planted(np.random.default_rng(3), sentences=40, languages=("en",))
    x = amplitudes_of(reps, 0, 4)
    accuracy = [probes.linear_probe(x[:, band], reps.label.values) for band in (0, 3)]
    assert accuracy[1] > 0.9 > 0.7 > accuracy[0]


def test_energies_are_shares_of_the_variance_and_are_read_in_pieces_as_at_once(monkeypatch):
    reps = planted(np.random.default_rng(4), strength=4.0)
    energy = measured(reps).sel(measure="spectrum_energy")
    np.testing.assert_allclose(energy.value.sum("band"), 1)
    assert (energy.value.sel(band=3) > 0.5).all()
    white = measured(planted(np.random.default_rng(5), strength=0.0, tokens=(13, 14))).sel(measure="spectrum_energy")
    # Of white noise each of the 13 coefficients has as much.
    np.testing.assert_allclose(white.value.sel(language="pooled"), [1 / 13, 4 / 13, 4 / 13, 4 / 13], atol=0.03)
    shifted = reps.assign(tokens=reps.tokens + 50)  # what all tokens have in common is no energy
    np.testing.assert_allclose(measured(shifted).sel(measure="spectrum_energy").value, energy.value, atol=1e-6)
    monkeypatch.setattr("probes.states.ragged.PIECE", 40)
    np.testing.assert_allclose(measured(reps).value, measured(reps).value)
    np.testing.assert_allclose(measured(reps).sel(measure="spectrum_energy").value, energy.value)


def test_the_order_of_sentences_does_not_matter_and_neither_does_a_scale():
    reps = planted(np.random.default_rng(6), sentences=30)
    order = np.random.default_rng(7).permutation(60)
    once = measured(reps)
    again = measured(reps.isel(example=order)).sel(language=once.language)
    np.testing.assert_allclose(again.value, once.value, atol=1e-9)
    np.testing.assert_allclose(measured(reps.assign(tokens=3 * reps.tokens)).value, once.value, atol=1e-9)


def test_a_language_that_is_told_by_speed_is_named_and_one_language_is_not_asked_for():
    reps = planted(np.random.default_rng(8), strength=0.0)
    x = reps.tokens.values.copy()
    at = np.repeat(reps.language.values == "de", reps.token_count.values)
    x[0, at, 2] += 2 * np.where(reps.token_place.values[at] % 2, 1, -1)
    found = measured(reps.assign(tokens=(reps.tokens.dims, x))).sel(measure="spectrum_language", language="pooled")
    assert found.value[3] > 0.9
    assert found.value[0] < 0.65
    alone = reps.isel(example=reps.language.values == "en")
    assert list(measured(alone).measure.values) == ["spectrum_energy", "spectrum_class"]


def test_what_sentences_of_one_group_tell_of_each_other_is_no_class():
    rng = np.random.default_rng(21)
    reps = planted(rng, sentences=80, strength=0.0, languages=("en",))
    group = np.arange(80) // 4
    own = 3 * rng.normal(size=(20, 6))[np.repeat(group, reps.token_count.values)]
    reps = reps.assign(tokens=reps.tokens + own)
    reps = reps.assign_coords(label=("example", (rng.permutation(20) % 2).astype(str).astype(object)[group]))
    told = [
        of_class(one).value[0]
        for one in (reps, reps.assign_coords(group=("example", group.astype(str).astype(object))))
    ]
    assert told[0] > told[1] + 0.15
    assert abs(float(told[1]) - 0.5) < 0.25


def test_a_comparison_has_its_three_speeds_beside_each_other():
    reps = planted(np.random.default_rng(20), sentences=30)
    # One in which words are all near their mean has lost what changes along a sentence.
    near = np.repeat(reps.hidden.values, reps.token_count.values, axis=1)
    still = reps.assign(tokens=near + 0.01 * (reps.tokens - near))
    asked = ["spectrum_energy", "spectrum_language", "spectrum_class"]
    found = probes.compare({"base": reps, "still": still}, probes=asked, draws=40, progress=False)
    table = found.table.query("language == 'pooled'").set_index(["model", "probe"])
    own = {"base": reps, "still": still}
    for model, one in own.items():
        apart = measured(one, bands=3).sel(language="pooled")
        for what in ("energy", "language", "class"):
            for band, speed in enumerate(("mean", "slow", "fast")):
                row = table.loc[(model, f"spectrum_{what}_{speed}")]
                said = apart.sel(measure=f"spectrum_{what}", band=band)
                ends = ["value", "low", "high"]
                np.testing.assert_allclose(row[ends].astype(float), [float(said[k]) for k in ends], atol=1e-9)
    lost = table.loc[("still", "spectrum_energy_fast")]
    assert lost["difference_high"] < 0
    assert not found.is_map("spectrum_class_fast")
    assert "spectrum_class_fast" in {p["name"] for p in found.explore().about["probes"]}
    alone = reps.isel(example=reps.language.values == "en")
    with pytest.raises(probes.InputError, match="spectrum_language_fast cannot be measured without several languages"):
        probes.compare({"base": alone}, probes=["spectrum_language"], progress=False)
    few = alone.assign_coords(label=("example", np.where(np.arange(30) == 3, "odd", "even")))
    with pytest.raises(probes.InputError, match="spectrum: class 'odd' has 1 sentences, and needs at least 5"):
        probes.compare({"base": few}, probes=["spectrum_class"], progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": 20}, r"spectrum: bands=20: the longest text has 13 tokens, so that some bands are empty everywhere"),
        ({"bands": 1}, r"spectrum: bands=1: expected a whole number, at least 2 \(the mean, and what is faster\)"),
    ],
)
def test_bands_that_cannot_be_are_refused(change, message):
    with pytest.raises(probes.InputError, match=message):
        measured(planted(np.random.default_rng(9), sentences=200), **change)


def test_what_cannot_be_measured_is_refused_or_has_no_value():
    reps = planted(np.random.default_rng(10), sentences=20)
    with pytest.raises(probes.InputError, match=r"spectrum: model arrays has no states of tokens"):
        measured(reps.drop_vars("tokens"))
    few = reps.assign_coords(label=("example", np.where(np.arange(40) == 3, "odd", "even")))
    with pytest.raises(probes.InputError, match="spectrum: class 'odd' has 1 sentences, and needs at least 5"):
        measured(few)
    with pytest.raises(probes.InputError, match="spectrum: class 'odd' has 1 sentences, and needs at least 5"):
        measured(reps.assign_coords(label=("example", np.where(reps.id.values == "3", "odd", "even"))))
    grouped = reps.assign_coords(group=("example", (reps.id.values.astype(int) % 3).astype(str).astype(object)))
    with pytest.raises(probes.InputError, match="spectrum: language 'en' has 3 groups, and needs at least 5"):
        measured(grouped.drop_vars("label"))
    ones = reps.isel(example=slice(0, 20)).assign(token_count=("example", np.ones(20, int)))
    with pytest.raises(probes.InputError, match="bands=4: the longest text has 1 token, so that some bands are empty"):
        measured(ones)
    broken = reps.tokens.values.copy()
    broken[0, 0] = np.nan
    with pytest.warns(probes.LayerscopeWarning, match="has no value at"):
        out = measured(reps.assign(tokens=(reps.tokens.dims, broken)))
    assert out.value.sel(language="pooled").isnull().all()


# --- along the layers ------------------------------------------------------------------------------------------------


def path(rng, kind, layers=8, sentences=60):
    """Sentences that stay, drift, or jump to and fro from layer to layer, on a little noise."""
    start, end = rng.normal(size=(2, sentences, 10))
    when = np.arange(layers) / (layers - 1)
    step = {"stays": 0 * when, "drifts": when, "jumps": np.arange(layers) % 2}[kind][:, None, None]
    states = (1 - step) * start + step * end
    return probes.from_arrays(states + 0.05 * rng.normal(size=states.shape))


def test_a_path_is_told_by_its_speed_and_lengths_are_no_change():
    rng = np.random.default_rng(11)
    found = {k: probes.depth_spectrum(path(rng, k), draws=40).sel(language="und") for k in ("stays", "drifts", "jumps")}
    for one in found.values():
        assert float(one.value.sum()) == pytest.approx(1)
    assert found["stays"].value[0] > 0.98
    assert found["drifts"].low[1] > found["stays"].high[1]
    assert found["jumps"].value[-1] > 0.3 > 0.05 > found["drifts"].value[-1]
    reps = path(rng, "stays")
    growing = reps.assign(hidden=reps.hidden * np.exp(np.arange(8))[:, None, None])
    assert probes.depth_spectrum(growing).value.sel(language="und")[0] > 0.98


def test_a_path_that_is_too_short_or_has_a_layer_without_values_has_none():
    with pytest.raises(probes.InputError, match="depth_spectrum: found 2 layers, and needs at least 3"):
        probes.depth_spectrum(probes.from_arrays(np.zeros((2, 8, 3))))
    reps = path(np.random.default_rng(12), "stays")
    flat = reps.assign(hidden=xr.where(reps.layer == 3, 1.0, reps.hidden).transpose(*reps.hidden.dims))
    with pytest.warns(probes.LayerscopeWarning, match="has no value at every frequency: at some layer"):
        assert probes.depth_spectrum(flat).value.isnull().all()


def test_intervals_of_a_path_hold():
    rng = np.random.default_rng(14)
    when = np.arange(5)[:, None, None] / 4

    def found():
        stays, drifts, noise = rng.normal(size=(30, 6)), rng.normal(size=(30, 6)), rng.normal(size=(5, 30, 6))
        x = stays + when * drifts * rng.uniform(size=(30, 1)) + 0.2 * noise
        return probes.depth_spectrum(probes.from_arrays(x)).sel(language="und")

    every = [found() for _ in range(60)]
    mean = np.mean([one.value for one in every], axis=0)
    assert np.mean([(one.low <= mean) & (one.high >= mean) for one in every]) > 0.88


def test_intervals_of_energies_hold():
    rng = np.random.default_rng(13)
    held = [
        (one.low <= truth) & (one.high >= truth)
        for truth in [np.array([1 / 13, 4 / 13, 4 / 13, 4 / 13])]
        for one in (
            measured(
                planted(rng, sentences=40, strength=0.0, languages=("en",), tokens=(13, 14)).drop_vars("label")
            ).sel(measure="spectrum_energy", language="en")
            for _ in range(20)
        )
    ]
    assert np.mean(held) > 0.85
