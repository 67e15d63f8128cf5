"""Accuracy: labels by name and by number, and classes that cannot be told apart."""

import numpy as np
import pytest
from planted import with_logits

import probes
from probes.measures.fidelity.accuracy import accuracy


def test_accuracy_by_name_and_by_number(rng):
    label = np.arange(60) % 3
    logits = np.eye(3)[np.where(np.arange(60) < 45, label, (label + 1) % 3)]
    named = probes.from_arrays(np.ones((60, 2)), label=np.array(["a", "b", "c"])[label])
    numbered = probes.from_arrays(np.ones((60, 2)), label=label)
    for reps, classes in ((named, "abc"), (numbered, "abc"), (numbered, ("LABEL_0", "LABEL_1", "LABEL_2"))):
        out = accuracy(with_logits(reps, logits, list(classes)))
        assert float(out.value.sel(language="pooled")) == 0.75
        assert out.value.dims == ("language",)
        assert out.low.sel(language="pooled") < 0.75 < out.high.sel(language="pooled")


def test_a_label_that_is_no_class_is_refused_with_what_to_do(rng):
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "dog", "c"])
    with pytest.raises(
        probes.InputError, match=r"label 'dog' is no class of model 'arrays'; it has 'a', 'b', 'c'.*id2label"
    ):
        accuracy(with_logits(reps, np.eye(4)[:, :3]))


def test_classes_of_one_name_are_refused():
    reps = probes.from_arrays(np.ones((4, 2)), label=["a", "b", "a", "b"])
    with pytest.raises(probes.InputError, match=r"two classes of model 'arrays' have one name, among 'a', 'b', 'b'"):
        accuracy(with_logits(reps, np.eye(4)[:, :3], "abb"))


def test_of_several_classes_and_of_words_it_is_the_share_of_decisions(rng):
    label = rng.integers(0, 2, (50, 3))
    said = np.where(rng.random((50, 3)) < 0.8, label, 1 - label)
    named = [" ".join(np.array([*"abc"])[row == 1]) for row in label]
    reps = probes.from_arrays(np.ones((50, 2))).assign_coords(labels=("example", named), choice=[*"abc"])
    several = accuracy(reps.assign(several=(("example", "choice"), 2.0 * said - 1)))
    assert float(several.value.sel(language="pooled")) == pytest.approx((said == label).mean())
    assert int(several.n.sel(language="pooled")) == 50
    lengths = rng.integers(1, 4, 50)
    words = np.full((3, 50, 2), -np.inf)
    for i, length in enumerate(lengths):
        words[:length, i] = np.eye(2)[said[i, :length]]
    tags = [" ".join("ab"[c] for c in row[:length]) for row, length in zip(label, lengths, strict=True)]
    reps = reps.assign_coords(tags=("example", tags), tag=[*"ab"])
    found = accuracy(reps.assign(words=(("word", "example", "tag"), words)))
    there = np.arange(3) < lengths[:, None]
    assert float(found.value.sel(language="pooled")) == pytest.approx((said == label)[there].mean())
    assert int(found.n.sel(language="pooled")) == 50


def test_words_of_one_sentence_that_go_wrong_together_widen_the_interval():
    """As many words, right or wrong by sentence, or each for itself."""
    rng = np.random.default_rng(0)
    width = {}
    for together in (True, False):
        right = np.repeat(rng.random(60) < 0.7, 10) if together else rng.random(600) < 0.7
        words = np.eye(2)[(~right).astype(int)].reshape(60, 10, 2).transpose(1, 0, 2)
        reps = probes.from_arrays(np.ones((60, 2))).assign_coords(tags=("example", [" ".join("a" * 10)] * 60))
        reps = reps.assign(words=(("word", "example", "tag"), words)).assign_coords(tag=["a", "b"])
        out = accuracy(reps).sel(language="pooled")
        width[together] = float(out.high - out.low)
    assert 2 < width[True] / width[False] < 5  # the root of ten
