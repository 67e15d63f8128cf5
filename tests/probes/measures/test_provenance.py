"""What stands beside a table: all that a reader needs to trust it or make it again."""

import json

import numpy as np

import probes


def test_it_names_models_probes_corpus_settings_and_versions() -> None:
    rng = np.random.default_rng(0)
    reps = probes.from_arrays(
        rng.normal(size=(2, 20, 4)), language=np.repeat(["en", "fr"], 10), id=np.tile(np.arange(10), 2)
    )
    about = probes.compare(
        {"a": reps, "b": reps}, pivot="en", probes=["retrieval", "norm"], draws=20, seed=3
    ).provenance
    assert (about["baseline"], about["pivot"], about["draws"], about["seed"]) == ("a", "en", 20, 3)
    assert list(about["models"]) == ["a", "b"]
    assert about["probes"]["retrieval"]["tolerance"] == 0.01
    assert about["probes"]["norm"]["tolerance"] is None
    assert about["corpus"]["languages"]["fr"]["texts"] == 10
    assert about["versions"]["numpy"] == np.__version__
    assert json.loads(json.dumps(about)) == about
