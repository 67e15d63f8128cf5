import pandas as pd
import pytest

import probes
from probes.comparing import measure_models

PLAIN = {
    **dict.fromkeys(("tokenizer", "baseline", "store")),
    "draws": 20,
    "seed": 0,
    "allow_pickle": False,
    "settings": {},
}


def test_what_is_measured_is_what_a_comparison_is_made_of(models):
    found = measure_models(models, pivot="l0", probes=["retrieval"], **PLAIN)
    compared = probes.compare(models, pivot="l0", probes=["retrieval"], draws=20)
    values = ["model", "layer", "language", "probe", "value", "low", "high", "n"]
    pd.testing.assert_frame_equal(found.table[values], compared.table[values])
    assert found.provenance == compared.provenance
    assert list(found.representations) == list(models) == list(compared.representations)


def test_the_baseline_is_one_of_the_models(models):
    with pytest.raises(probes.InputError, match="baseline 'none': no such model; there are 'base', 'worse', 'half'"):
        measure_models(models, pivot="l0", probes=["retrieval"], **PLAIN | {"baseline": "none"})
