"""Clusters along a line: the best by exhaustion, near it for many values, and models that are made of them."""

import itertools

import numpy as np
import pytest
import torch
from trained import QUIET

import compress
import probes
from compress.quantization.clusters import clusters, nearest_of
from compress.quantization.codebooks import fit_codebook


def spread(values, centres):
    return (np.abs(values[:, None] - centres[None]).min(1) ** 2).sum()


def best_of_all(values, count):
    """The least spread of all ways to cut the ordered values, one by one."""
    ordered = np.sort(values)
    least = np.inf
    for cuts in itertools.combinations(range(1, len(ordered)), count - 1):
        least = min(least, sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, cuts)))
    return least


def exact(values, count):
    """The same by dynamic programming over every value, as it is written down."""
    v = np.sort(values)
    n = len(v)
    s, q = np.append(0, np.cumsum(v)), np.append(0, np.cumsum(v * v))
    cost = lambda i, j: q[j] - q[i] - (s[j] - s[i]) ** 2 / (j - i)  # noqa: E731
    least = np.array([0.0] + [cost(0, j) for j in range(1, n + 1)])
    for _ in range(count - 1):
        least = np.array([0.0] + [min(least[i] + cost(i, j) for i in range(j)) for j in range(1, n + 1)])
    return least[n]


KINDS = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(2, size=n),
    "lumps": lambda rng, n: rng.choice([-7.0, 0, 1, 20], n, p=[0.05, 0.5, 0.4, 0.05]) + rng.normal(size=n) / 10,
    "few": lambda rng, n: np.round(rng.normal(size=n) * 2),
    "far": lambda rng, n: np.append(rng.normal(size=n - 1), 1e6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_cut_of_few_values_is_better(kind):
    rng = np.random.default_rng(0)
    for count in (1, 2, 4):
        values = KINDS[kind](rng, 14)
        centres = clusters(values, count)
        assert len(centres) <= count
        assert spread(values, centres) == pytest.approx(best_of_all(values, count), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["normal", "heavy", "lumps"])
def test_of_many_values_it_comes_within_a_thousandth_of_the_best(kind):
    values = KINDS[kind](np.random.default_rng(1), 1500)
    values = np.append(values, values[:3] + 1e-9)
    exactly = exact_of(values, 8)
    assert exactly * (1 - 1e-9) <= spread(values, clusters(values, 8)) <= 1.001 * exactly


def exact_of(values, count):
    """Exactly, by numpy: a cut for every value."""
    v = np.sort(values)
    s, q = np.append(0, np.cumsum(v)), np.append(0, np.cumsum(v * v))
    least = np.append(0.0, q[1:] - s[1:] ** 2 / np.arange(1, len(v) + 1))
    for _ in range(count - 1):
        found = np.zeros_like(least)
        for j in range(1, len(v) + 1):
            number = np.arange(j, 0, -1)
            found[j] = (least[:j] + q[j] - q[:j] - (s[j] - s[:j]) ** 2 / number).min()
        least = found
    return least[-1]


def test_the_two_ways_to_the_best_agree():
    values = KINDS["heavy"](np.random.default_rng(2), 40)
    assert exact(values, 5) == pytest.approx(exact_of(values, 5))


def test_planted_values_come_back_and_without_them_as_many_do_not_serve():
    rng = np.random.default_rng(0)
    planted = np.array([-3.0, -0.5, 0.25, 0.3, 8.0])
    values = planted[rng.integers(0, 5, 400)]
    assert clusters(values, 5).tolist() == planted.tolist()
    assert clusters(values, 9).tolist() == planted.tolist()
    assert spread(values, clusters(values, 4)) > 0.01
    assert clusters(np.full(6, 2.5), 3).tolist() == [2.5]
    assert clusters(np.array([1.0]), 3).tolist() == [1.0]


def test_more_clusters_than_parts_are_found_from_the_better_start():
    values = np.random.default_rng(0).normal(size=4000)
    for count in (300, 1000):
        centres = clusters(values, count)
        quantiles = np.quantile(values, (np.arange(count) + 0.5) / count)
        assert len(centres) <= count
        assert spread(values, centres) < spread(values, quantiles)


def test_nearest_by_hand():
    centres, numbers = nearest_of(np.array([2.0, -1.0, 0.4, 100.0]), np.array([3.0, 0.0, 3.0, 50.0, 7.0]))
    assert centres.tolist() == [0, 3, 50]
    assert numbers.tolist() == [1, 0, 0, 2]


def test_a_codebook_of_single_numbers_is_that_of_its_clusters():
    values = torch.randn(300, 1, generator=torch.Generator().manual_seed(0))
    words, numbers = fit_codebook(values, 6)
    np.testing.assert_allclose(words[:, 0], clusters(values[:, 0].numpy(), 6), rtol=1e-6)
    assert torch.equal(numbers, (values - words.T).abs().argmin(1))
    again = fit_codebook(words[numbers], 6)[0]
    assert torch.equal(again, words)


@pytest.mark.parametrize("steps", [0, 5])
def test_a_model_of_few_values_is_saved_counted_and_loaded(steps, classifier, corpus, tokenizer, tmp_path):
    trained = {"train": corpus, "tokenizer": tokenizer, "steps": steps, **QUIET} if steps else {}
    small = compress.product_quantize(classifier, codes=8, block=1, **trained)
    done = small.config.compression
    values = {n: small.get_parameter(n).detach().unique() for n in done["quantized"]}
    assert max(map(len, values.values())) <= 8
    weights = {n: classifier.get_parameter(n).numel() for n in values}
    assert done["bytes_of_quantized"] == sum(-(-3 * weights[n] // 8) + 4 * len(values[n]) for n in values)
    if steps:  # the values are trained, and still few
        before = compress.product_quantize(classifier, codes=8, block=1)
        assert not any(torch.equal(values[n], before.get_parameter(n).detach().unique()) for n in values)
    compress.save(small, tmp_path / "out", tokenizer)
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    given = tokenizer("a red dog ran", return_tensors="pt")
    assert torch.equal(loaded(**given).logits, small.eval()(**given).logits)
