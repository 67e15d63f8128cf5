"""Causes of what is lost: of these rows alone, all languages together first."""

import pandas as pd

from probes.results.blame import CAUSE, COLUMNS, blamed


def row(language, layer, low):
    return {"measure": "accuracy", "language": language, "layer": layer, "gain": low + 0.1, "low": low} | {
        "high": low + 0.2,
        "damage": 0.3,
        "bytes": 10,
        "named": low > 0,
    }


def test_rows_of_what_is_lost_and_pooled_first():
    causes = {"m": [row(k, layer, 0.1 * layer - 0.1) for k in ("en", "fr", "pooled") for layer in (1, 2)]}
    judged = pd.DataFrame(
        [
            {"model": m, "probe": "accuracy", "language": k, "state": s}
            for m, k, s in [("m", "en", "lost"), ("m", "fr", "kept"), ("m", "pooled", "lost"), ("other", "en", "lost")]
        ]
    )
    found = blamed(causes, judged)
    assert found.columns.tolist() == COLUMNS
    assert found["language"].tolist() == ["pooled", "pooled", "en", "en"]
    assert found["named"].tolist() == [False, True, False, True]
    assert {name.rstrip("?") for name in CAUSE} <= {*causes["m"][0], "module"}
    assert set(found["module"]) == {""}


def test_without_causes_there_are_no_rows():
    judged = pd.DataFrame([{"model": "m", "probe": "accuracy", "language": "en", "state": "lost"}])
    assert blamed({}, judged).columns.tolist() == COLUMNS
    assert blamed({"m": []}, judged).empty
