"""Losses against sizes: scipy, planted losses, chance, and what is refused."""

import numpy as np
import pytest
from judged import right_answers, table_of
from scipy.stats import spearmanr

import probes
from probes.results.by_size import loss_by_size, pretraining_sizes

CODES = ["en", "ru", "de", "fr", "hi", "ur", "sw", "am", "so", "xh"]


def a_table(seed, losses, n=400):
    rng = np.random.default_rng(seed)
    return table_of(right_answers(rng, n, len(CODES), 0.8, [(np.array(losses), 0.02)]), rng, names=CODES)


def test_it_is_spearmans_correlation_of_the_losses():
    table = a_table(0, np.linspace(0, 0.3, len(CODES)))
    (row,) = loss_by_size(table).to_dict("records")
    own = table.table[table.table["language"] != "pooled"].pivot(index="language", columns="model", values="value")
    loss = (own["m0"] - own["m1"])[CODES]
    expected = spearmanr(loss, pretraining_sizes()[CODES])
    assert row["correlation"] == pytest.approx(expected.statistic, rel=1e-12)
    assert row["p"] == pytest.approx(expected.pvalue, abs=0.01)
    assert row["languages"] == len(CODES)
    assert row["low"] <= row["correlation"] <= row["high"]


def test_small_languages_that_lose_more_are_seen_and_equal_losses_are_not():
    size = np.log(pretraining_sizes()[CODES].to_numpy())
    planted = 0.3 * (size.max() - size) / (size.max() - size.min())
    seen = [loss_by_size(a_table(seed, planted)).iloc[0] for seed in range(4)]
    assert all(row.correlation < -0.8 and row.p < 0.05 and row.high < 0 for row in seen)
    none = [loss_by_size(a_table(seed, np.full(len(CODES), 0.1))).iloc[0] for seed in range(20)]
    assert np.mean([row.p < 0.05 for row in none]) <= 0.2
    assert abs(np.mean([row.correlation for row in none])) < 0.25


def test_sizes_can_be_others_and_codes_have_scripts():
    table = a_table(1, np.linspace(0, 0.3, len(CODES)))
    rows = table.table.assign(language=[c if c == "pooled" else f"{c}_X" for c in table.table["language"]])
    table.table = rows
    assert loss_by_size(table)["languages"].item() == len(CODES)
    own = {f"{c}_X": 10.0**-i for i, c in enumerate(CODES)}
    assert loss_by_size(table, sizes=own)["correlation"].item() < -0.8


def test_what_is_refused():
    table = a_table(0, np.zeros(len(CODES)))
    for how, message in (
        ({"probe": "snr"}, "probe='snr' is not known"),
        ({"layer": 3}, r"layer=3: accuracy has the layers \[-1\]"),
        ({"sizes": {"en": 1}}, "1 languages have a size: expected 4 or more; ru, de"),
        ({"sizes": dict.fromkeys(CODES, 0)}, "sizes: 'en' has 0.0: expected a number above 0"),
    ):
        with pytest.raises(probes.InputError, match=message):
            loss_by_size(table, **how)
    table.provenance["probes"]["accuracy"]["better"] = ""
    with pytest.raises(probes.InputError, match="neither side of it is better"):
        loss_by_size(table)


def test_all_sizes_are_of_languages_and_above_nothing():
    sizes = pretraining_sizes()
    assert len(sizes) == sizes.index.nunique() == 93
    assert (sizes > 0).all()
    assert sizes["zh"] == 63.5
