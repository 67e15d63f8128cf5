"""Neighbours in a file: alike where sentences of one article follow each other, and not where they are shuffled."""

import numpy as np
import pytest

from probes.order import caution, neighbours_agree, one_hot


def articles(rng, count=100, size=4, share=0.3, features=16):
    """Rows of which a share of the variance is that of their article."""
    of_article = np.repeat(rng.normal(size=(count, features)), size, axis=0)
    return np.sqrt(share) * of_article + np.sqrt(1 - share) * rng.normal(size=of_article.shape) + 3


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_rows_of_one_article_after_each_other_agree_and_shuffled_ones_do_not(share):
    rng = np.random.default_rng(0)
    for _ in range(10):
        x = articles(rng, share=share)
        assert neighbours_agree(x)
        assert not neighbours_agree(rng.permutation(x))


def test_labels_of_articles_agree_and_shuffled_ones_do_not():
    rng = np.random.default_rng(0)
    for _ in range(10):
        labels = np.repeat(rng.integers(0, 7, 80), 4)
        labels = np.where(rng.random(320) < 0.3, rng.integers(0, 7, 320), labels).astype(str)
        assert neighbours_agree(one_hot(labels))
        assert not neighbours_agree(one_hot(rng.permutation(labels)))


def test_shuffled_files_of_any_kind_are_quiet():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(400, 64)) * np.exp(-np.arange(64) / 4)
    rare = (rng.random(400) < 0.02).astype(str)
    two = rng.integers(0, 2, 60).astype(str)
    found = [neighbours_agree(rng.permutation(x)) for x in (wide, one_hot(rare), one_hot(two)) for _ in range(100)]
    assert not any(found)


def test_what_alternates_or_is_equal_or_short_does_not_agree():
    assert not neighbours_agree(one_hot(np.arange(200) % 4))
    assert not neighbours_agree(np.ones((200, 3)))
    assert not neighbours_agree(np.repeat(np.eye(6), 8, axis=0))  # 48 rows


def test_the_caution_says_where_and_what_to_do():
    assert caution(["en", "fr"], "labels").startswith("neighbours in the file share labels in en, fr, far more than")
    assert "group=... (--group)" in caution(["en"], "labels")
