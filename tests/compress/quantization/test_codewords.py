"""Which codeword each word has: distinct always, by rank, and near where vectors are."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from compress.quantization.codewords import (
    embedding_codewords,
    frequency_codewords,
    given_codewords,
    in_binary,
    random_codewords,
)
from probes.errors import InputError

MAKERS = {
    "random": lambda words, bits, seed=0: random_codewords(words, bits, seed),
    "frequency": lambda words, bits, seed=0: frequency_codewords(np.arange(words) % 7, bits, seed),
    "embedding": lambda words, bits, seed=0: embedding_codewords(
        np.random.default_rng(1).normal(size=(words, 5)), bits, seed
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("words", "bits"), [(1, 1), (2, 1), (5, 3), (32, 5), (33, 6), (33, 21), (33, 70)])
def test_each_word_has_a_codeword_of_its_own(name, words, bits):
    table = MAKERS[name](words, bits)
    assert (table.shape, table.dtype) == ((words, bits), np.uint8)
    assert len(np.unique(table, axis=0)) == words
    assert set(np.unique(table)) <= {0, 1}
    assert np.array_equal(table, MAKERS[name](words, bits))
    if words == 33 and bits > 21:
        assert not np.array_equal(table, MAKERS[name](words, bits, seed=1))


@pytest.mark.parametrize("name", MAKERS)
def test_too_few_bits_are_refused(name):
    with pytest.raises(InputError, match=r"bits=4: 4 bits make 16 codewords at most, and there are 17 words"):
        MAKERS[name](17, 4)


def test_a_table_that_is_full_has_all_codewords():
    assert sorted(random_codewords(16, 4) @ [8, 4, 2, 1]) == list(range(16))


def test_the_first_bits_of_a_frequency_code_are_the_rank_and_the_others_their_parities():
    counts = np.array([3, 90, 7, 7, 1, 0, 12])
    table = frequency_codewords(counts, 9)
    ranks = table[:, :3] @ [4, 2, 1]
    assert ranks.tolist() == [4, 0, 2, 3, 5, 6, 1]
    # A sum of codewords is the codeword of the sum of ranks: the code is linear.
    by_rank = dict(zip(ranks, table, strict=True))
    for a in range(7):
        for b in range(7):
            if a ^ b < 7:
                assert (by_rank[a] ^ by_rank[b]).tolist() == by_rank[a ^ b].tolist()
    assert not table[1].any()
    assert (table[:, 3:].any(0)).all()  # no parity is of no bit


def test_similar_words_differ_in_few_bits_and_others_do_not():
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(20, 16))
    vectors = np.repeat(middles, 10, axis=0) + 0.1 * rng.normal(size=(200, 16))
    within = np.arange(200)[:, None] // 10 == np.arange(200) // 10
    apart = ~np.eye(200, dtype=bool)

    def differ(table):
        return (table[:, None] != table).sum(-1)

    near = differ(embedding_codewords(vectors, 40))
    assert near[within & apart].mean() < 0.4 * near[~within].mean()
    unit = vectors - vectors.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1))[apart]
    assert spearmanr(angles, near[apart]).statistic > 0.6
    # Of random codewords, and of vectors of other words, neither holds.
    for other in (random_codewords(200, 40), embedding_codewords(rng.permutation(vectors), 40)):
        found = differ(other)
        assert found[within & apart].mean() == pytest.approx(found[~within].mean(), rel=0.1)
        assert abs(spearmanr(angles, found[apart]).statistic) < 0.15


def test_the_tree_cuts_along_what_varies_most():
    vectors = np.array([[-3.0, 0.0], [3.0, 1.0], [-3.0, 1.0], [3.0, 0.0]])
    table = embedding_codewords(vectors, 2)
    assert table[0, 0] == table[2, 0] != table[1, 0] == table[3, 0]
    # Below, both sides cut the same way.
    assert table[0, 1] == table[3, 1] != table[1, 1] == table[2, 1]


def test_vectors_that_are_the_same_have_codewords_of_their_own_and_what_is_not_finite_is_refused():
    assert len(np.unique(embedding_codewords(np.ones((9, 3)), 6), axis=0)) == 9
    with pytest.raises(InputError, match="the vector of word 1 holds NaN or infinite values"):
        embedding_codewords(np.array([[0.0], [np.nan]]), 4)


def test_codewords_that_are_given_are_checked():
    table = in_binary(np.arange(5), 3)
    found = given_codewords(table.astype(bool), 5, 3)
    assert np.array_equal(found, table)
    assert found.dtype == np.uint8
    with pytest.raises(InputError, match="assignment: the words 1 and 4 have the same codeword"):
        given_codewords(table[[0, 1, 2, 3, 1]], 5, 3)
    with pytest.raises(InputError, match=r"'random', 'frequency', 'embedding', or zeros and ones of shape \(5, 4\)"):
        given_codewords(table, 5, 4)
    with pytest.raises(InputError, match=r"zeros and ones of shape \(5, 3\), a row a word, found int64"):
        given_codewords(table.astype(int) * 2, 5, 3)
