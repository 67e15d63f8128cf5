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
