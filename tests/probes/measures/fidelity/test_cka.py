"""CKA: the same by every way of computing it, and unbiased where it says so."""

import itertools

import numpy as np
import pytest
from alike import cka, hsic

import probes
from probes.measures.fidelity import cka as cka_module
from probes.measures.fidelity.similarity import similarity


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("features", [5, 300])
def test_cka_is_the_same_by_gram_matrices_and_by_products_of_features(rng, debiased, features):
    # With 5 features and 80 examples features are fewer to multiply, with 300 examples are.
    x = rng.normal(size=(2, 80, features))
    y = x[:, :, ::-1] + rng.normal(size=x.shape)
    out = similarity(probes.from_arrays(x), probes.from_arrays(y), measure="cka_debiased" if debiased else "cka")
    within = similarity(probes.from_arrays(x), measure="cka_debiased" if debiased else "cka")
    for i, j in itertools.product(range(2), range(2)):
        assert float(out.value[i, j, 0]) == pytest.approx(cka(x[i], y[j], debiased), abs=1e-9)
        assert float(within.value[i, j, 0]) == pytest.approx(cka(x[i], x[j], debiased), abs=1e-9)


def test_gram_matrices_in_blocks_of_rows_give_the_same(rng, monkeypatch):
    x, y = rng.normal(size=(2, 3, 50, 40))
    whole = similarity(probes.from_arrays(x), probes.from_arrays(y))
    monkeypatch.setattr(cka_module, "ENTRIES", 6 * 50 * 7)
    blocks = similarity(probes.from_arrays(x), probes.from_arrays(y))
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(blocks[name], whole[name], atol=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_of_many_float32_states_is_that_of_float64(rng, debiased, monkeypatch):
    monkeypatch.setattr(cka_module, "_MANY", 10**6)
    x = (rng.normal(size=(2, 700, 40)) * np.linspace(5, 0.1, 40)).astype(np.float32)
    y = (0.3 * x + rng.normal(size=x.shape)).astype(np.float32)
    measure = "cka_debiased" if debiased else "cka"
    exact = np.array([[cka(a, b, debiased) for b in y] for a in x])
    doubled = [probes.from_arrays(z.astype(np.float64)) for z in (x, y)]
    double = similarity(*doubled, measure=measure).sel(language="pooled")
    np.testing.assert_allclose(double.value, exact, atol=1e-12)
    single = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(single.value, exact, atol=1e-8)
    np.testing.assert_allclose(single.low, double.low, atol=1e-7)
    # Nor where one feature dwarfs the others: float32 would keep little of these.
    x[:, :, 0] *= 1000
    exact = np.array([[cka(a, b, debiased) for b in y] for a in x])
    dominated = similarity(probes.from_arrays(x), probes.from_arrays(y), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(dominated.value, exact, atol=1e-10)
    # Numbers whose products float32 cannot hold are multiplied in float64.
    tiny, huge = (1e-25 * x).astype(np.float32), (1e25 * y).astype(np.float32)
    far = similarity(probes.from_arrays(tiny), probes.from_arrays(huge), measure=measure).sel(language="pooled")
    np.testing.assert_allclose(far.value, exact, atol=1e-6)


@pytest.mark.parametrize("measure", ["cka", "cka_debiased"])
def test_cka_of_features_dominated_by_their_mean(rng, measure):
    x = rng.normal(size=(100, 30))
    y = x[:, :20] + rng.normal(size=(100, 20))
    shift = 1e4 * rng.normal(size=30)
    moved = (x + shift).astype(np.float32), (y + shift[:20]).astype(np.float32)
    # What float32 keeps of them, by a Gram matrix of centred float64.
    exact = cka(*(z.astype(np.float64) - z.astype(np.float64).mean(axis=0) for z in moved), measure == "cka_debiased")
    assert similarity(*moved, measure=measure) == pytest.approx(exact, abs=1e-6)
    k, l = (z @ z.T for z in moved)  # noqa: E741
    assert abs(hsic(k, l, True) / np.sqrt(abs(hsic(k, k, True) * hsic(l, l, True))) - exact) > 1e-3


def test_debiased_cka_of_unrelated_states_is_around_zero_and_stays_negative_where_it_is(rng):
    values = [similarity(*rng.normal(size=(2, 30, 50)), measure="cka_debiased") for _ in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert min(values) < -0.02
    biased = [similarity(*rng.normal(size=(2, 30, 50))) for _ in range(10)]
    assert min(biased) > 0.5
