"""What the tests of comparisons share: planted models, also with heads, their comparison, and bundled text."""

import numpy as np
import pandas as pd
import pytest
from planted import planted

import probes
from probes.measures.catalogue import families


@pytest.fixture(scope="module")
def models():
    rng = np.random.default_rng(0)
    base = planted(rng, ids=60, layers=3)
    worse = base.assign(hidden=base.hidden + rng.normal(size=base.hidden.shape))
    return {"base": base, "worse": worse, "half": base.isel(layer=slice(0, 2))}


@pytest.fixture(scope="module")
def comparison(models):
    return probes.compare(models, pivot="l0", probes=[*families()["labels"], *families()["alignment"]])


@pytest.fixture(scope="module")
def bundled():
    return probes.load_corpus("bundled", split="dev", languages=["en", "fr", "ar"])


def logits(reps, rng, sharp=3.0):
    codes = pd.factorize(reps.label.values, sort=True)[0]
    values = sharp * np.eye(4)[codes] + rng.normal(size=(len(codes), 4))
    return reps.assign(logits=(("example", "class"), values)).assign_coords({"class": [str(c) for c in range(4)]})


@pytest.fixture(scope="module")
def with_heads(models):
    rng = np.random.default_rng(1)
    return {k: logits(models[k], rng, sharp) for k, sharp in (("base", 3.0), ("worse", 1.0))}
