"""The read-out of words and relations: the recursion against all ways to split, planted facts and chance."""

import itertools

import numpy as np
import pytest
import torch

from probes.measures.attribution.relations import (
    ReadOut,
    Sentences,
    Spelling,
    Vocabulary,
    Ways,
    directions_of,
    forward,
    posteriors,
)

PLACES = [(0, 0, 2), (0, 1, 4), (0, 1, 4), (0, 2, 3), (1, 0, 1), (1, 1, 3), (0, 3, 4)]


def ways_to_split(words, spans, sentence, length):
    """Every way to split a sentence, as its log-probability and the spans it takes."""
    mine = [k for k, (i, *_) in enumerate(PLACES) if i == sentence]
    for count in range(len(mine) + 1):
        for taken in itertools.combinations(mine, count):
            covered = [t for k in taken for t in range(PLACES[k][1], PLACES[k][2])]
            if len(set(covered)) < len(covered):
                continue
            left = [t for t in range(length) if t not in covered]
            yield sum(words[sentence, t] for t in left) + sum(spans[k] for k in taken), set(taken)


def test_the_recursion_sums_all_ways_to_split():
    rng = np.random.default_rng(0)
    words, spans = rng.normal(size=(2, 4)) - 2, rng.normal(size=len(PLACES)) - 2
    words[1, 3] = 0  # the second has three words
    given = torch.from_numpy(words), torch.from_numpy(spans), Ways(PLACES)
    found, shares = forward(*given), posteriors(*given)
    for sentence, length in ((0, 4), (1, 3)):
        every = list(ways_to_split(words, spans, sentence, length))
        total = sum(np.exp(p) for p, _ in every)
        assert float(found[sentence]) == pytest.approx(np.log(total), abs=1e-12)
        for k in (k for k, (i, *_) in enumerate(PLACES) if i == sentence):
            expected = sum(np.exp(p) for p, taken in every if k in taken) / total
            assert float(shares[k]) == pytest.approx(expected, abs=1e-12)


def test_without_spans_it_is_the_sum_of_words_and_layers_stand_side_by_side():
    words = torch.randn(3, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(forward(words, words.new_zeros(3, 0), Ways()), words.sum(-1))
    spans = torch.randn(3, len(PLACES), dtype=torch.float64)
    one = forward(words[1], spans[1], Ways(PLACES))
    torch.testing.assert_close(forward(words, spans, Ways(PLACES))[1], one)


def test_spelling_is_a_probability_of_words():
    spelling = Spelling(["ab", "ba"])
    letters = ["a", "b"]
    total = sum(np.exp(-spelling.nats("".join(w))) for n in range(9) for w in itertools.product(letters, repeat=n))
    assert 0.5 < total < 1  # the rest is for longer words and for letters never seen
    assert spelling.nats("ab") < spelling.nats("xq")


def test_words_that_come_once_are_unknown():
    numbers, costs = Vocabulary.of([["a", "b", "a"], ["c"]]).look_up(["a", "b", "zz"])
    assert numbers.tolist() == [1, 0, 0]
    assert costs[0] == 0 < costs[1] < costs[2]


def test_directions_are_uncorrelated_and_those_without_variance_are_zero():
    x = np.random.default_rng(0).normal(size=(50, 2)) @ np.random.default_rng(1).normal(size=(2, 5)) + 7
    mean, by = directions_of(x, 4)
    np.testing.assert_allclose((x - mean) @ by @ np.eye(4) * 1.0, (x - mean) @ by)
    np.testing.assert_allclose(np.cov(((x - mean) @ by).T, bias=True), np.diag([1, 1, 0, 0]), atol=1e-9)


def planted(rng, count, told=True):
    """Sentences of three words and a name; the state before the name says which of three facts is stated, or not."""
    fact = rng.integers(3, size=count)
    words = [["on", "x", "is", f"n{k}{f}"] for k, f in enumerate(fact)]
    z = 0.3 * rng.normal(size=(1, 4 * count, 3))
    z[0, 3::4] += 2 * np.eye(3)[fact if told else rng.permutation(fact)]
    every = np.arange(count)
    given = Sentences(
        words, 4 * every, every, np.full(count, 3), np.full(count, 4), fact, np.zeros(count, int),
        np.tile([0, 1, 2], (count, 1)), np.ones((count, 1), int),
    )  # fmt: skip
    return torch.from_numpy(z).float(), given


def test_a_fact_that_states_tell_is_read_and_one_that_they_do_not_tell_is_not():
    rng = np.random.default_rng(0)
    chosen, saved = {}, {}
    for told in (True, False):
        z, given = planted(rng, 90, told)
        other, tested = planted(rng, 90, told)
        vocabulary = Vocabulary.of(given.words)
        inputs = []
        for one in (given, tested):
            numbers, costs = vocabulary.look_up([w for words in one.words for w in words])
            inputs.append((torch.from_numpy(numbers), torch.from_numpy(costs).float()))
        read = ReadOut(3, len(vocabulary.numbers) + 1, 3, 1).fit(z, *inputs[0], given)
        alone = ReadOut(3, len(vocabulary.numbers) + 1, 0, 1).fit(z, *inputs[0], given)
        chosen[told] = float(read.chosen(other, tested).exp().mean())
        likely = [
            float(forward(*r.said(other, *inputs[1], tested), Ways.of(tested) if r is read else Ways()).mean())
            for r in (read, alone)
        ]
        saved[told] = likely[0] - likely[1]
    assert chosen[True] > 0.8
    assert chosen[False] == pytest.approx(1 / 3, abs=0.06)
    assert saved[True] - saved[False] == pytest.approx(np.log(3), abs=0.35)
    assert read.size > alone.size
