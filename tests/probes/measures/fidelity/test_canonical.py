"""SVCCA and PWCCA: whose axes they know, and where there is no value."""

import numpy as np
import pytest
from alike import rotation

import probes
from probes.measures.fidelity.similarity import similarity


def test_pwcca_depends_on_the_axes_of_the_first_model_and_not_of_the_second(rng, two_arrays):
    x, y = two_arrays
    value = similarity(x, y, measure="pwcca")
    assert similarity(x @ rotation(rng, x.shape[1]), y, measure="pwcca") != pytest.approx(value, abs=1e-4)
    assert similarity(x, y @ rotation(rng, y.shape[1]), measure="pwcca") == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", ["svcca", "pwcca"])
def test_too_few_examples_for_canonical_correlations_have_no_value_and_a_reason(rng, measure):
    with pytest.warns(
        probes.LayerscopeWarning, match="more directions to match than examples, so that everything would. Take more"
    ):
        out = similarity(probes.from_arrays(rng.normal(size=(20, 30))), measure=measure)
    assert np.isnan(out.value).all()


@pytest.mark.parametrize("measure", ["svcca", "pwcca"])
def test_layers_that_are_nearly_alike_have_a_value_and_no_interval_and_a_warning_says_so(rng, measure):
    x = rng.normal(size=(80, 6))
    base, near, far = (probes.from_arrays(x + noise * rng.normal(size=x.shape)) for noise in (0, 0.1, 1))
    with pytest.warns(probes.LayerscopeWarning, match=rf"{measure} of model arrays has no interval at 2 of 2 .*cka"):
        out = similarity(base, near, measure=measure)
    assert (out.value > 0.95).all()
    assert np.isnan(out.low).all()
    assert np.isnan(out.high).all()
    assert np.isnan(out.draws).all()
    # Others have one, and so has what is the same in every sample.
    out = similarity(base, far, measure=measure)
    assert (out.low < out.high).all()
    assert similarity(base, measure=measure).low.values == pytest.approx(1)


def test_a_comparison_of_models_that_are_nearly_alike_has_no_difference_without_an_interval(rng):
    x = rng.normal(size=(80, 6))
    models = {
        name: probes.from_arrays(x + noise * rng.normal(size=x.shape))
        for name, noise in {"base": 0, "near": 0.1, "far": 1}.items()
    }
    with pytest.warns(probes.LayerscopeWarning, match="svcca of model near has no interval"):
        found = probes.compare(models, probes=["svcca"], progress=False)
    rows = found.table.set_index("model").query("language == 'pooled'")
    assert np.isnan(rows.low["near"])
    assert np.isfinite(rows.low["far"])
    assert np.isnan(found.bands().low[found.table["model"] == "near"]).all()
    assert found.difference("near", "far")["p"].isna().all()
