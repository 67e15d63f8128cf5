"""The zero-shot gap against accuracies, planted gaps, chance, and how often its interval holds."""

import numpy as np
import pytest

import probes
from probes.measures.fidelity.zero_shot_gap import zero_shot_gap


def answers(seed, n=200, right=(0.9, 0.7, 0.9)):
    """The same sentences in three languages, whose difficulty is partly the sentence's own."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n)
    z = 0.7 * shared + 0.51**0.5 * rng.normal(size=(3, n))
    from scipy.stats import norm

    ok = norm.cdf(z / (0.49 + 0.51) ** 0.5) < np.array(right)[:, None]
    label = np.arange(n) % 2
    said = np.where(ok, label, 1 - label)
    reps = probes.from_arrays(
        np.ones((3 * n, 2)), id=np.tile(np.arange(n), 3), language=np.repeat(["en", "sw", "xx"], n),
        label=np.tile(np.array(["a", "b"])[label], 3),
    )  # fmt: skip
    return reps.assign(logits=(("example", "class"), np.eye(2)[said.ravel()])).assign_coords({"class": ["a", "b"]}), ok


def test_it_is_the_difference_of_accuracies_and_pooled_their_mean():
    reps, ok = answers(0)
    found = zero_shot_gap(reps, pivot="en").value
    assert float(found.sel(language="sw")) == pytest.approx(ok[0].mean() - ok[1].mean())
    own = probes.accuracy(reps, draws=2).value
    gaps = [float(own.sel(language="en") - own.sel(language=x)) for x in ("sw", "xx")]
    assert float(found.sel(language="pooled")) == pytest.approx(np.mean(gaps))
    assert "en" not in found.language


def test_its_interval_sees_a_planted_gap_and_holds_none():
    held, seen = [], []
    for seed in range(100):
        out = zero_shot_gap(answers(seed)[0], pivot="en", draws=100, seed=seed)
        sw, xx = out.sel(language="sw"), out.sel(language="xx")
        held.append(float(xx.low) <= 0 <= float(xx.high))
        held.append(float(sw.low) <= 0.2 <= float(sw.high))
        seen.append(float(sw.low) > 0)
    assert np.mean(held) >= 0.9
    assert np.mean(seen) == 1


def test_what_is_refused():
    reps, _ = answers(0)
    with pytest.raises(probes.InputError, match="pivot='fr': expected the language with labels, one of en, sw, xx"):
        zero_shot_gap(reps, pivot="fr")
    alone = reps.isel(example=reps.language.values == "en")
    with pytest.raises(probes.InputError, match="beside at least one other"):
        zero_shot_gap(alone, pivot="en")
