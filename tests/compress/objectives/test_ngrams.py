"""Noise by n-grams: chances against counts by hand, draws against chances, and counts that are given."""

import numpy as np
import pytest
from scipy.stats import chisquare

from compress.objectives.ngrams import Ngrams, Shares, check_noise, check_support, contexts_of
from probes.errors import InputError

WORDS = 5
RNG = np.random.default_rng(0)
TEXTS = [RNG.integers(0, WORDS - 1, size=RNG.integers(2, 9)).tolist() for _ in range(40)]  # the last token is in none


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_chances_are_those_of_counts_by_hand_and_add_up_to_one(order, ends):
    counted = Ngrams(TEXTS, order, WORDS, ends=ends)
    begin, end = counted.start, WORDS
    flat = [[begin] * (order - 1) + text + [end] * ends for text in TEXTS]
    # What stands before a text is context and never a token that follows.
    rng, outcomes = np.random.default_rng(1), WORDS + ends
    contexts = [[begin] * (order - 1), [4] * (order - 1), *rng.integers(0, WORDS, (6, order - 1)).tolist()]
    tokens = np.tile(np.arange(outcomes), (len(contexts), 1))
    found = np.exp(counted.log_chances(np.array(contexts).reshape(len(contexts), -1), tokens))
    np.testing.assert_allclose(found.sum(1), 1)

    def expected(context, token):
        follows = [
            text[i] for text in flat for i in range(order - 1, len(text)) if text[i - len(context) : i] == context
        ]
        shorter = expected(context[1:], token) if context else 1 / outcomes
        if not follows:
            return shorter
        return (max(follows.count(token) - 0.75, 0) + 0.75 * len(set(follows)) * shorter) / len(follows)

    np.testing.assert_allclose(found, [[expected(c, t) for t in range(outcomes)] for c in contexts])
    assert (found > 0).all()  # also of the token that no text has


@pytest.mark.parametrize("order", [1, 3])
def test_draws_are_as_often_as_their_chances(order):
    counted = Ngrams(TEXTS, order, WORDS, first=1)
    contexts = np.array([TEXTS[0][: order - 1], [counted.start] * (order - 1), [4] * (order - 1)]).reshape(3, order - 1)
    drawn = counted.draw(contexts, 4000, np.random.default_rng(0))
    expected = np.exp(counted.log_chances(contexts, np.tile(np.arange(WORDS), (3, 1))))
    for row, chances in zip(drawn, expected, strict=True):
        assert chisquare(np.bincount(row, minlength=WORDS), 4000 * chances).pvalue > 1e-3
    assert (drawn == counted.draw(contexts, 4000, np.random.default_rng(0))).all()


def test_counting_begins_where_it_is_told_to():
    assert np.exp(Ngrams([[4, 0], [4, 1]], 1, 5, first=1).log_chances(np.zeros((1, 0)), np.array([[4]])))[0, 0] == (
        pytest.approx(0.75 / 5)  # only what is left over for all
    )


def test_given_shares_are_drawn_as_they_are():
    shares = Shares([1, 0, 3, 0])
    drawn = shares.draw(np.zeros((50, 0)), 40, np.random.default_rng(0))
    assert chisquare(np.bincount(drawn.ravel(), minlength=4)[[0, 2]], [500, 1500]).pvalue > 1e-3
    assert not np.isin(drawn, (1, 3)).any()
    assert shares.log_chances(np.zeros((1, 0)), np.array([[1]]))[0, 0] == -np.inf


def test_contexts_begin_with_the_text_whichever_side_padding_is_on():
    ids = np.array([[0, 0, 7, 8], [5, 6, 0, 0]])
    found = contexts_of(ids, np.array([[0, 0, 1, 1], [1, 1, 0, 0]], bool), 2, 9)
    assert found[0, 2:].tolist() == [[9, 7], [7, 8]]
    assert found[1, :2].tolist() == [[9, 5], [5, 6]]


@pytest.mark.parametrize("noise", [(), (1.0, -1.0), (0.0, 0.0), (float("nan"),), ((1.0, 2.0),)])
def test_counts_that_are_none_are_refused(noise):
    with pytest.raises(InputError, match=r"objective x: noise: expected one of .*, or a count a token, each a fini"):
        check_noise("x", noise)


def test_what_noise_cannot_be_is_said():
    with pytest.raises(
        InputError, match=r"noise='uniform': expected one of \('unigram', 'bigram', .*, or a count a tok"
    ):
        check_noise("x", "uniform")
    with pytest.raises(
        InputError, match="noise has 3 counts, and the model predicts 4 tokens: give one count for each"
    ):
        check_support("x", (1, 1, 1), [[0]], 4)
    with pytest.raises(
        InputError, match="gives 2 of the tokens that the texts have no chance, as 3, which they have 2"
    ):
        check_support("x", (1, 0, 1, 0), [[0, 1], [3, 3]], 4)
    check_support("x", (1, 0, 1, 0), [[0, 2]], 4)
