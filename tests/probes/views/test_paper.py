import numpy as np
import pytest

import probes


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(3), 20)
    about = {"id": np.tile(np.arange(60), 2), "language": np.repeat(["eng_Latn", "swh_Latn"], 60)}
    about["label"] = np.tile(label, 2)
    x = np.tile(rng.normal(size=(60, 6)), (2, 1))
    models = {}
    for name, far in (("base_100%", 3.0), ("near|*", 0.5), ("same", 3.0)):
        layers = [x + far * np.eye(6)[about["label"]] + 0.1 * rng.normal(size=(120, 6)) for _ in range(2)]
        models[name] = probes.from_arrays(np.stack(layers), **about)
    return probes.compare(models, probes=["snr", "retrieval", "cka"], pivot="eng_Latn", draws=50)


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_values_are_those_of_the_table_at_the_last_layer(comparison):
    head, _, *rows = cells(comparison.to_markdown(digits=3))
    assert head == ["probe", "model", "all", "English", "Swahili"]
    assert len(rows) == 6  # similarity is a map
    table = comparison.to_dataframe().set_index(["model", "probe", "language", "layer"])
    at = table.loc[("near|*", "snr", "swh_Latn", 1)]
    row = next(r for r in rows if r[0].startswith("signal") and r[1].startswith("near"))
    assert row[1] == r"near\|\*"
    assert row[-1] == f"{at.value:.3f} [{at.low:.3f}, {at.high:.3f}]\\*"
    # The pivot is not retrieved from itself, and the baseline does not differ from itself.
    assert next(r for r in rows if r[1].startswith("base") and r[0].startswith("retrieval"))[3] == ""
    assert not any("*" in cell for r in rows if r[1].startswith(("base", "same")) for cell in r[2:])


def test_layers_probes_and_languages_can_be_chosen(comparison):
    head, _, *rows = cells(comparison.to_markdown(["snr"], layer=0, languages=["swh_Latn"]))
    assert head == ["probe", "model", "Swahili"]
    assert len(rows) == 3
    value = comparison.table.query("model == 'same' and probe == 'snr' and language == 'swh_Latn' and layer == 0")
    assert rows[2][2].startswith(f"{value['value'].item():.2f} [")
    assert "At layer 0, with 95% intervals by 50 bootstrap draws of sentence ids." in comparison.to_markdown(layer=0)


def test_latex_is_escaped_and_says_the_same(comparison):
    text = comparison.to_latex(["snr"], label="tab:snr")
    assert r"base\_100\%" in text
    assert r"\label{tab:snr}" in text
    assert "$^{*}$" in text
    assert text.count("[") - text.count("[t]") >= 9
    assert r"differs from base\_100\% (p < 0.05" in text
    found = comparison.table.query("model == 'near|*' and probe == 'snr' and language == 'pooled' and layer == 1")
    assert f"{found['value'].item():.2f} [{found['low'].item():.2f}, {found['high'].item():.2f}]$^{{*}}$" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": "snr"}, r"probes='snr': expected a list of names"),
        ({"probes": ["cka"]}, "cka"),
        ({"languages": ["fra_Latn"]}, "fra_Latn"),
        ({"layer": 7}, "layer=7: no model has values there"),
        ({"digits": -1}, r"digits=-1: expected a whole number of 0 to 10"),
    ],
)
def test_what_is_not_there_is_said(comparison, options, message):
    with pytest.raises(probes.InputError, match=message):
        comparison.to_markdown(**options)
