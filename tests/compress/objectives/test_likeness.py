"""Which rows and classes count as alike: by states, by confusion, by words; and how often each is drawn."""

import copy
import math

import numpy as np
import pytest
import torch
from banked import LABELS, ROWS, some_rows
from scipy import stats

from compress.objectives.contrast import CRD
from compress.objectives.likeness import confused_classes, embedded_names, name_vectors, named_classes
from compress.objectives.memory import pools_of
from compress.objectives.supervised import SupervisedContrast
from probes.errors import InputError


def z_alone(teacher, rows, pooling):
    """The teacher's representation of each row and its probabilities, one unpadded text at a time."""
    z, p = [], []
    with torch.no_grad():
        for row in rows:
            out = teacher(torch.tensor([row["input_ids"]]), output_hidden_states=True)
            states = out.hidden_states[-1][0].double()
            z.append((states[0] if pooling == "first" else states.mean(0)).numpy())
            p.append(out.logits[0].double().softmax(0).numpy())
    return np.array(z), np.array(p)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labelled", "unlabelled"])
def test_instances_are_drawn_by_the_similarity_the_teacher_sees(student, teacher, pooling, labels, monkeypatch):
    rows = some_rows(labels, ROWS)
    z, _ = z_alone(teacher, rows, pooling)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    objective = CRD(k=1, negatives="instances", top_k=4, pooling=pooling)
    monkeypatch.setattr("compress.objectives.likeness._BLOCK", 5 * ROWS)  # in blocks of 5, 5 and 2 rows
    monkeypatch.setattr("compress.objectives.likeness._TEXTS", 5)
    memory = objective.prepare(student, teacher, rows, seed=0)
    for own in (0, 5, 11):
        may = [j for j in range(ROWS) if (labels[j] != labels[own] if labels else j != own)]
        nearest = sorted(may, key=lambda j: -(z[j] @ z[own]))[:4]
        chance = np.exp([z[j] @ z[own] / 0.1 for j in nearest])
        chance /= chance.sum()
        drawn, near = memory.draw(np.random.default_rng(1), np.full(4000, own), 1)
        assert near == 1
        assert set(drawn[:, 0]) <= set(nearest)
        shares = np.array([(drawn[:, 0] == j).mean() for j in nearest])
        assert (abs(shares - chance) < 5 * np.sqrt(chance * (1 - chance) / 4000) + 1e-6).all()
        # All four first where more are drawn, and the rest from everything that may be.
        drawn, near = memory.draw(np.random.default_rng(1), np.full(500, own), 6)
        assert near == 4
        assert (np.sort(drawn[:, :4], 1) == sorted(nearest)).all()
        assert set(drawn[:, 4:].ravel()) == set(may)


def test_classes_are_drawn_by_what_the_teacher_takes_them_for(student, teacher):
    rows = some_rows()
    _, p = z_alone(teacher, rows, "first")
    y = np.array(LABELS)
    for top_k, sharpness in ((2, 0.1), (2, 0.5), (1, 0.1)):
        objective = CRD(k=1, negatives="classes", top_k=top_k, sharpness=sharpness)
        memory = objective.prepare(student, teacher, rows, seed=0)
        for c in range(3):
            others = [o for o in range(3) if o != c]
            s = np.array([p[y == c, o].mean() for o in others])
            s /= s.sum()
            chance = np.exp(s / sharpness) / np.exp(s / sharpness).sum()
            if top_k == 1:
                chance = (s == s.max()).astype(float)
            drawn, near = memory.draw(np.random.default_rng(1), np.full(4000, LABELS.index(c)), 1)
            assert near == 1
            for other, expected in zip(others, chance, strict=True):
                share = (y[drawn[:, 0]] == other).mean()
                assert abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / 4000)
                if expected > 0.2:  # all rows of it alike
                    counts = np.bincount(drawn[:, 0], minlength=ROWS)[y == other]
                    q = expected / len(counts)
                    assert abs(counts - 4000 * q).max() < 5 * math.sqrt(4000 * q)


def test_a_class_the_teacher_confuses_is_drawn_most(student, teacher):
    """Planted: labels 0 and 1 are what the teacher cannot tell apart; one that takes nothing for anything has none."""
    confused = copy.deepcopy(teacher)
    with torch.no_grad():
        confused.classifier.weight.zero_()
        confused.classifier.bias.copy_(torch.tensor([3.0, 3.0, -3.0]))
    drawn = {}
    for name, sharpness in (("sharp", 0.1), ("flat", 1e6)):
        memory = CRD(negatives="classes", sharpness=sharpness).prepare(student, confused, some_rows(), seed=0)
        drawn[name] = np.array(LABELS)[memory.draw(np.random.default_rng(0), np.zeros(20, int), 100)[0]]
    assert (drawn["sharp"] == 1).mean() > 0.99
    pools = pools_of(some_rows(), "crd")
    means = torch.tensor([[0.1, 0.4, 0.5], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]])[pools.of]
    nearest, chances = confused_classes(pools, means, 2, 5e-4, "crd")  # exp(-1 / 5e-4) is 0
    assert nearest[[0, 2]].tolist() == [[2, 1], [0, 1]]
    assert chances == pytest.approx(np.array([[1, 0], [0.5, 0.5], [1, 0]]), abs=1e-6)
    assert (drawn["flat"] == 1).mean() == pytest.approx(0.5, abs=0.06)
    with torch.no_grad():
        confused.classifier.bias.copy_(torch.tensor([1e4, -1e4, -1e4]))  # probabilities of exactly 0
    memory = CRD(negatives="classes").prepare(student, confused, some_rows(), seed=0)
    assert (np.array(LABELS)[memory.draw(np.random.default_rng(0), np.zeros(20, int), 100)[0]] == 1).mean() < 0.6


@pytest.mark.parametrize("make", [CRD, SupervisedContrast])
def test_without_top_k_instances_differ_between_batches_and_follow_their_distribution(student, teacher, make):
    """Chi-square of the first two negatives of three, each pair of which has a chance in closed form."""
    rows = some_rows(None if make is CRD else LABELS * 1, ROWS)
    memory = make(k=2, negatives="instances", sharpness=0.02).prepare(student, teacher, rows, seed=0)
    own, draws = 3, 6000
    z, _ = z_alone(teacher if make is CRD else student, rows, "first")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    may = [j for j in range(ROWS) if (j != own if make is CRD else LABELS[j] != LABELS[own])]
    nearest = sorted(may, key=lambda j: -(z[j] @ z[own]))[:10]  # 5 k
    if make is SupervisedContrast:
        nearest = nearest[: ROWS - max(np.bincount(LABELS))]  # as many as every text has
    chance = np.exp([z[j] @ z[own] / 0.02 for j in nearest])
    chance /= chance.sum()
    drawn, near = memory.draw(np.random.default_rng(7), np.full(draws, own), 2)
    assert near == 2
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) > 5
    first = np.array([(drawn[:, 0] == j).sum() for j in nearest])
    assert first.sum() == draws
    assert _chi_square(first, chance * draws) > 1e-3
    assert _chi_square(first, np.full(len(nearest), draws / len(nearest))) < 1e-3  # a control: it is not uniform
    pairs, expected = [], []
    for a, i in enumerate(nearest):
        for b, j in enumerate(nearest):
            if i != j:
                pairs.append(((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum())
                expected.append(draws * chance[a] * chance[b] / (1 - chance[a]))
    assert _chi_square(np.array(pairs), np.array(expected)) > 1e-3


def _chi_square(counts, expected):
    """The p-value, where cells that expect fewer than five are put together."""
    few = expected < 5
    if few.any():
        counts, expected = np.append(counts[~few], counts[few].sum()), np.append(expected[~few], expected[few].sum())
    return stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


def test_sharpness_matters_by_default_and_not_where_all_of_the_pool_are_drawn(student, teacher):
    rows, generator = some_rows(None, ROWS), np.random.default_rng
    shares = []
    for sharpness in (1e-3, 1e3):
        memory = CRD(k=2, negatives="instances", sharpness=sharpness).prepare(student, teacher, rows, seed=0)
        drawn, _ = memory.draw(generator(0), np.zeros(500, int), 2)
        shares.append(np.bincount(drawn.ravel(), minlength=ROWS).max() / 500)
        all_of_it = CRD(k=2, top_k=2, negatives="instances", sharpness=sharpness)
        drawn, _ = all_of_it.prepare(student, teacher, rows, seed=0).draw(generator(0), np.zeros(50, int), 2)
        assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 1
    assert shares[0] > 0.95
    assert shares[1] < 0.35


WORDS = {"cat": [1.0, 0.0], "dog": [0.8, 0.6], "maple": [0.0, 1.0], "tree": [-1.0, 1.0]}


def test_names_of_classes_by_their_words(student, teacher):
    vectors = name_vectors(["cat", "Dog", "maple_tree"], WORDS)
    assert {k: v.tolist() for k, v in vectors.items()} == {
        "cat": [1.0, 0.0],
        "Dog": [0.8, 0.6],
        "maple_tree": [-0.5, 1.0],
    }
    named = copy.deepcopy(teacher)
    named.config.id2label = {0: "cat", 1: "Dog", 2: "maple_tree"}
    objective = CRD(k=1, negatives="classes", vectors=vectors, sharpness=0.5)
    memory = objective.prepare(student, named, some_rows(), seed=0)
    unit = {k: v / np.linalg.norm(v) for k, v in vectors.items()}
    s = np.exp(np.array([unit["cat"] @ unit["Dog"], unit["cat"] @ unit["maple_tree"]]) / 0.5)
    drawn, _ = memory.draw(np.random.default_rng(1), np.zeros(4000, int), 1)
    counts = np.bincount(np.array(LABELS)[drawn[:, 0]], minlength=3)
    assert counts[0] == 0
    assert _chi_square(counts[1:], 4000 * s / s.sum()) > 1e-3
    # What the teacher would confuse plays no part.
    with torch.no_grad():
        named.classifier.weight.mul_(100)
    again = objective.prepare(student, named, some_rows(), seed=0).draw(
        np.random.default_rng(1), np.zeros(4000, int), 1
    )
    assert (again[0] == drawn).all()


def test_names_of_classes_by_the_embeddings_of_a_model(teacher, make_tokenizer):
    tokenizer = make_tokenizer()
    found = embedded_names(["red_dog"], teacher, tokenizer)["red_dog"]
    weight = teacher.get_input_embeddings().weight.detach().double()
    ids = tokenizer.convert_tokens_to_ids(["red", "dog"])
    np.testing.assert_allclose(found, weight[ids].mean(0).numpy(), rtol=1e-12)
    with pytest.raises(InputError, match=r"the class '' has no piece in the vocabulary"):
        embedded_names([""], teacher, tokenizer)


def test_names_without_vectors_are_refused(student, teacher):
    with pytest.raises(InputError, match=r"the class 'big cat': no vector for 'big': give vectors for all words"):
        name_vectors(["big cat"], WORDS)
    with pytest.raises(InputError, match=r"the class '_': it has no word"):
        name_vectors(["_"], WORDS)
    pools = pools_of(some_rows(), "crd")
    names = {0: "a", 1: "b", 2: "c"}
    for vectors, message in (
        (
            {"a": [1.0], "b": [1.0]},
            "vectors has no entry for the class 'c': expected one for each of",
        ),
        ({"a": [1.0], "b": [1.0], "c": [1.0, 2.0]}, "expected one vector a class, all of one size"),
        ({"a": [1.0], "b": [1.0], "c": [0.0]}, "the vector of 'c' is zero or not finite"),
        ({"a": [1.0], "b": [float("nan")], "c": [0.5]}, "the vector of 'b' is zero or not finite"),
    ):
        with pytest.raises(InputError, match=message):
            named_classes(pools, names, vectors, 2, 0.1, "crd")
    with pytest.raises(InputError, match='vectors are of negatives="classes": leave them out'):
        CRD(negatives="instances", vectors={"a": [1.0]})
