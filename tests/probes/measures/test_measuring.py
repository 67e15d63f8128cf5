"""What is measured on all replicates of a model, and how much wider groups make an interval."""

import numpy as np
import pytest

import probes
from probes.measures import catalogue
from probes.measures.measuring import measured_on
from probes.measures.probe import Run
from probes.results.draws import sample

RNG = np.random.default_rng(0)
GROUP = np.repeat(np.arange(40), 4)
LABEL = RNG.permutation(np.arange(40) % 3)[GROUP]


def states(alike, seed):
    """States (example, feature) with classes; a share of their noise is that of their group."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(alike) * rng.normal(size=(40, 8))[GROUP] + np.sqrt(1 - alike) * rng.normal(size=(160, 8))
    return 2 + noise + 2 * np.eye(8)[LABEL]


def run_of(x, **options):
    reps = probes.from_arrays(x, label=LABEL, group=GROUP)
    return Run(reps, sample(reps, draws=200, seed=0), progress=False, **options)


def by_id():
    return sample(probes.from_arrays(np.zeros((160, 1)), label=LABEL), draws=200, seed=0)


def named(*names):
    return [catalogue.by_name()[name] for name in names]


def test_the_design_effect_is_the_width_with_groups_over_that_without():
    chosen = named("norm", "mean_cosine_of_pairs")
    found = measured_on(chosen, [run_of(states(0.9, 1))], "m", by_id=by_id())
    x = probes.from_arrays(states(0.9, 1), label=LABEL)
    alone = probes.geometry(x).sel(measure="norm")
    wide = found["norm"]
    ratio = (wide.high - wide.low) / (alone.high - alone.low)
    assert wide.design_effect.values == pytest.approx(ratio.transpose(*wide.design_effect.dims).values)
    assert 1.5 < wide.design_effect.sel(language="pooled").item() < 2.3  # at most the root of four
    independent = measured_on(chosen, [run_of(states(0.0, 1))], "m", by_id=by_id())
    assert 0.8 < independent["norm"].design_effect.sel(language="pooled").item() < 1.25
    assert "design_effect" not in measured_on(chosen, [run_of(states(0.9, 1))], "m")["norm"]


def test_what_is_trained_is_trained_once(monkeypatch):
    from probes.measures.classes import linear_probe

    calls = []
    answers = linear_probe.folds_of
    monkeypatch.setattr(linear_probe, "folds_of", lambda *given: calls.append(given) or answers(*given))
    found = measured_on(named("linear_probe"), [run_of(states(0.5, 1))], "m", by_id=by_id())
    assert len(calls) == 1
    assert np.isfinite(found["linear_probe"].design_effect.values).all()


def test_replicates_are_measured_each_and_put_together():
    runs = [run_of(states(0.5, seed)) for seed in (1, 2, 3)]
    found = measured_on(named("norm", "snr"), runs, "all", by_id=by_id())
    for name, result in found.items():
        each = [measured_on(named(name), [run], "one")[name].value.values for run in runs]
        assert result.value.values == pytest.approx(np.mean(each, axis=0))
        assert result.between.values == pytest.approx(np.std(each, axis=0, ddof=1))
        assert result.attrs["model"] == "all"
        assert result.design_effect.dims == result.value.dims


@pytest.mark.filterwarnings("ignore::probes.errors.LayerscopeWarning")
def test_what_counts_is_groups():
    reps = probes.from_arrays(
        np.concatenate([states(0.5, 1), states(0.5, 2)[:80]]),
        id=np.r_[:160, :80],
        language=np.repeat(["a", "b"], [160, 80]),
        label=np.r_[LABEL, LABEL[:80]],
        group=np.r_[GROUP, GROUP[:80]],
    )
    run = Run(reps, sample(reps, draws=20, seed=0), pivot="a", progress=False)
    alone = sample(reps.drop_vars("group"), draws=20, seed=0)
    names = ["norm", "snr", "retrieval", "linear_probe", "cka", "best_layer"]
    found = measured_on(named(*names), [run], "m", by_id=alone)
    counts = {name: found[name].groups.to_series().to_dict() for name in names}
    for name in ("norm", "snr", "cka", "best_layer"):
        assert counts[name] == {"a": 40, "b": 20, "pooled": 40}
    assert counts["retrieval"] == {"b": 20, "pooled": 20}
    assert counts["linear_probe"] == {"a": 40, "b": 20, "pooled": 20}


def test_the_measuring_says_how_far_it_is(capsys):
    reps = probes.from_arrays(states(0.5, 1), label=LABEL)
    run = Run(reps, sample(reps, draws=20, seed=0), progress=True)
    measured_on(named("snr", "norm", "iso_score"), [run], "m")
    said = capsys.readouterr().err
    assert "measure m: 100%" in said
    assert "3/3" in said
