"""States along a corpus: neighbours that are alike beyond their labels, language by language."""

import numpy as np

import probes
from probes.states.order import alike_in_order

RNG = np.random.default_rng(0)
OF_ARTICLE = np.repeat(RNG.normal(size=(60, 12)), 4, axis=0) + RNG.normal(size=(240, 12))


def test_only_the_languages_in_order_of_their_articles_are_named():
    both = np.concatenate([OF_ARTICLE, RNG.permutation(OF_ARTICLE)])
    reps = probes.from_arrays(both, id=np.r_[:240, :240], language=np.repeat(["a", "b"], 240))
    assert alike_in_order(reps) == ["a"]
    mixed = reps.isel(example=np.arange(480).reshape(2, 240).T.ravel())  # rows of both languages in turn
    assert alike_in_order(mixed) == ["a"]


def test_a_corpus_in_order_of_its_labels_is_none_of_articles():
    label = np.repeat(np.arange(6), 40)
    x = RNG.normal(size=(240, 12)) + 3 * np.eye(12)[label]
    assert alike_in_order(probes.from_arrays(x)) == ["und"]
    assert alike_in_order(probes.from_arrays(x, label=label)) == []
    of_article = np.repeat(RNG.normal(size=(60, 12)), 4, axis=0)
    assert alike_in_order(probes.from_arrays(x + of_article, label=label)) == ["und"]


def test_states_that_are_not_finite_say_nothing():
    assert alike_in_order(probes.from_arrays(np.where(np.arange(240)[:, None] == 3, np.nan, OF_ARTICLE))) == []
