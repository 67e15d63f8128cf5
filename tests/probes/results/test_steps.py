import numpy as np
import pytest

import probes


def states(far, seed=0, layers=2):
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(3), 20)
    x = np.random.default_rng(99).normal(size=(60, 6)) + far * np.eye(6)[label]
    noise = 0.05 * rng.normal(size=(layers, 120, 6))
    about = {"id": np.tile(np.arange(60), 2), "language": np.repeat(["en", "sw"], 60), "label": np.tile(label, 2)}
    return probes.from_arrays(np.tile(x, (2, 1)) + noise, **about)


FARS = {0: 1.0, 10: 1.0, 20: 2.0, 30: 3.0, 40: 3.0}


@pytest.fixture(scope="module")
def compared():
    run = probes.series([(step, states(far, step)) for step, far in FARS.items()])
    return probes.compare(
        {"base": states(1.0, 7), "run": run}, probes=["snr", "drift", "cka"], draws=100, progress=False
    )


def test_differences_are_to_the_first_the_one_before_or_the_baseline(compared):
    models = [f"run {step}" for step in FARS]
    value = compared.table.query("probe == 'snr' and language == 'sw' and layer == 1").set_index("model")["value"]
    for against, other in (
        ("first", dict.fromkeys(models[1:], models[0])),
        ("before", dict(zip(models[1:], models, strict=False))),
        ("baseline", dict.fromkeys(models, "base")),
    ):
        found = compared.steps(against=against).query("probe == 'snr' and language == 'sw' and layer == 1")
        assert found["step"].tolist() == list(FARS)
        found = found.set_index("model")
        for name in models:
            gap = value[name] - value[other[name]] if name in other else np.nan
            np.testing.assert_allclose(found.loc[name, "difference"], gap, rtol=1e-12)
    one = compared.difference("run 30", "run 20").query("probe == 'snr' and language == 'sw' and layer == 1")
    same = compared.steps(against="before").query(
        "model == 'run 30' and probe == 'snr' and language == 'sw' and layer == 1"
    )
    assert same["p_adjusted"].item() == one["p_adjusted"].item()


def test_a_change_is_found_at_the_step_where_it_was_planted_and_nowhere_else(compared):
    found = compared.since().query("probe == 'snr'")
    assert len(found) == 2 * 3
    assert found["step"].tolist() == [20] * 6
    assert (found["adjusted_low"] > 0).all()
    still = probes.series([(step, states(1.0, step)) for step in FARS])
    none = probes.compare({"run": still}, probes=["snr"], draws=100, progress=False).since(
        over=("model", "layer", "language")
    )
    assert none["step"].isna().all()
    assert none["difference"].isna().all()


def test_a_change_that_goes_away_again_did_not_stay(compared):
    run = probes.series([(step, states(far, step)) for step, far in {0: 1.0, 1: 3.0, 2: 1.0, 3: 1.0}.items()])
    assert probes.compare({"run": run}, probes=["snr"], draws=50, progress=False).since()["step"].isna().all()


def test_a_series_of_one_step_is_the_model(compared):
    one = probes.compare({"run": probes.series([(5, states(2.0))])}, probes=["snr"], draws=20, progress=False)
    alone = probes.compare({"run 5": states(2.0)}, probes=["snr"], draws=20, progress=False)
    assert one.table.equals(alone.table)


def test_a_series_is_saved_opened_and_drawn(compared, tmp_path):
    opened = probes.Comparison.open(compared.save(tmp_path / "run"))
    assert opened.steps()["step"].tolist() == compared.steps()["step"].tolist()
    figure = opened.plot_steps("snr", languages=["en", "sw"])
    assert figure.axes[0].get_xlabel() == "step of run"
    assert figure.axes[0].lines[0].get_xdata().tolist() == list(FARS)
    assert figure.axes[1].get_title() == "since step 0, English"
    plain = opened.plot_steps("cosine_to_baseline", layer=0)
    assert plain.axes[0].get_title() == "cosine to the baseline, layer 0"


def test_what_is_not_there_is_said(compared):
    none = probes.compare({"one": states(1.0)}, probes=["snr"], draws=5, progress=False)
    with pytest.raises(probes.InputError, match="there is no series of checkpoints in this comparison"):
        none.steps()
    with pytest.raises(probes.InputError, match="runs"):
        compared.steps("runs")
    with pytest.raises(probes.InputError, match="against"):
        compared.since(against="last")
    with pytest.raises(probes.InputError, match="cka has more to a number than layer and language"):
        compared.plot_steps("cka")
    both = {"a": probes.series([(1, states(1.0))]), "b": probes.series([(1, states(2.0))])}
    two = probes.compare(both, probes=["snr"], draws=5, progress=False)
    with pytest.raises(probes.InputError, match="there are several series, 'a', 'b': name one"):
        two.since()
    assert two.steps("b")["model"].unique().tolist() == ["b 1"]
