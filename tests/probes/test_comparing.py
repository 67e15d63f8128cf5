import pandas as pd
import pytest
import torch

import compress
import probes
from probes.comparing import measure_models

PLAIN = {
    **dict.fromkeys(("tokenizer", "baseline", "store")),
    "draws": 20,
    "seed": 0,
    "allow_pickle": False,
    "timing": False,
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


def test_what_models_cost_is_measured_once_beside_the_baseline(bundled, monkeypatch):
    model, tokenizer = probes.load_checkpoint("bundled")
    small = compress.drop_layers(model, [0, 1, 2])
    few = bundled.select(range(40))
    kept = probes.capture(model, tokenizer, few, progress=False)
    how = {"tokenizer": tokenizer, "probes": ["norm"], "draws": 5, "progress": False}
    compared = probes.compare({"kept": kept, "base": "bundled", "small": small}, few, baseline="base", **how)
    costs = compared.models.set_index("model")
    assert list(costs.index) == ["kept", "base", "small"]
    assert costs.loc["kept"].drop("stored_as").isna().all()
    assert costs.loc["base", "bytes"] == probes.costs.weight_files("bundled")[0].stat().st_size
    assert costs.loc["small", "operations"] < 0.6 * costs.loc["base", "operations"]
    assert costs.loc["small", "speed_32"] > 0
    assert compared.provenance["timed"] == {"texts": [1, 32], "rounds": 1, "threads": torch.get_num_threads()}
    quiet = probes.compare({"base": "bundled"}, few, timing=False, **how)
    assert quiet.models[["operations", "seconds_1", "seconds_32"]].isna().all(axis=None)
    assert quiet.models["parameters"].tolist() == [costs.loc["base", "parameters"]]
    assert "timed" not in quiet.provenance
