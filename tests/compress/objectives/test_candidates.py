"""Candidate labels: each part by hand, the loss over epochs, sets of one, and that it finds the labels."""

import math

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, softmax
from stops import Stops
from torch.autograd import gradcheck
from trained import QUIET, make_corpus, same, weights

from compress.objectives.base import Pass
from compress.objectives.candidates import (
    CandidateLabels,
    complementary,
    differences,
    expected_softmax,
    reliable_rows,
    shortened,
)
from compress.objectives.labels import CrossEntropy
from compress.objectives.robust import Robust
from compress.training.loop import train
from probes.errors import InputError

NAME = "candidate_labels"
CELLS = [
    "LABEL_0 LABEL_1",
    "LABEL_1",
    "LABEL_1 LABEL_2",
    "LABEL_0 LABEL_2",
    "LABEL_0 LABEL_1 LABEL_2",
    "LABEL_0 LABEL_2",
]
SETS = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 0, 1]], bool)


def rows_of(cells=CELLS, **more):
    return [
        {"input_ids": [2, 4 + i, 9, 3], "index": i, "beside": {"id": f"s{i}", "labels": cell, **more}}
        for i, cell in enumerate(cells)
    ]


def draw(seed, count=6):
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2


def test_the_complementary_loss_is_its_formula():
    z, candidates = draw(0), torch.tensor(SETS)
    p = softmax(z.numpy(), axis=1)
    np.testing.assert_allclose(complementary(z, candidates), -(np.log(1 - p) * ~SETS).sum(1), rtol=1e-10)
    assert gradcheck(lambda x: complementary(x, candidates), [z.requires_grad_()])
    sure = torch.tensor([[200.0, 0.0, 0.0]])  # where 1 - p is 0 in any precision
    assert float(complementary(sure, torch.tensor([[False, True, True]]))) == pytest.approx(200 - math.log(2))


@pytest.mark.parametrize("classes", [2, 4])
def test_what_is_expected_of_a_softmax_is_what_draws_give(classes):
    rng = np.random.default_rng(classes)
    root = rng.standard_normal((classes, classes))
    mean, covariance = rng.standard_normal(classes) * 1.5, root @ root.T
    drawn = softmax(rng.multivariate_normal(mean, covariance, 100_000), axis=1).mean(0)
    found = expected_softmax(torch.tensor(mean[None]), torch.tensor(covariance[None]))[0].numpy()
    np.testing.assert_allclose(found, drawn, atol=0.04)
    assert np.abs(softmax(mean) - drawn).max() > 0.06  # what the covariance does is more than that
    plain = expected_softmax(torch.tensor(mean[None]), torch.zeros(1, classes, classes))
    np.testing.assert_allclose(plain[0], softmax(mean), rtol=1e-6)
    expected = [
        [covariance[c, c] + covariance[k, k] - 2 * covariance[c, k] for k in range(classes)] for c in range(classes)
    ]
    np.testing.assert_allclose(differences(torch.tensor(covariance)), expected, atol=1e-12)


def test_reliable_rows_are_the_largest_of_each_class():
    z, candidates = draw(1, 60), torch.tensor(np.random.default_rng(0).random((60, 3)) < 0.6)
    candidates[:, 0] |= ~candidates.any(1)
    score = (z * (z - 1).abs()).numpy()
    expected = np.full(60, -1)
    for c in range(3):
        there = [i for i in range(60) if score[i].argmax() == c and candidates[i, c] and candidates[i].sum() > 1]
        expected[sorted(there, key=lambda i: -score[i, c])[:4]] = c
    assert reliable_rows(z, candidates, 4).tolist() == expected.tolist()
    assert sorted(np.bincount(expected + 1)) == [4, 4, 4, 48]


def test_the_loss_is_its_formula_over_epochs(student):
    """Of six texts in two batches: a warm-up of one epoch, and then each kind of text; and so its gradient."""
    objective = CandidateLabels(weight=0.5, warmup=1, ramp=4, top_k=1, augment=3.0, confidence=0.5)
    module = objective.prepare(student, None, rows_of(), seed=0)
    seen, counts = np.zeros((6, 3)), np.zeros(3)
    of_class: dict[int, list] = {c: [] for c in range(3)}
    chosen, confidently = np.full(6, -1), np.full(6, -1)
    kinds = set()
    for step in range(8):
        index, epoch = np.arange(3) + 3 * (step % 2), step // 2
        if epoch and step % 2 == 0:
            chosen = reliable_rows(torch.tensor(seen), torch.tensor(SETS), 1).numpy()
        z = draw(step, 3).requires_grad_()
        batch = {"index": torch.tensor(index), "modules": {NAME: module}}
        batch |= {"views": [{"input_ids": [2, 4 + i, 3]} for i in index] if epoch else None}
        found = objective.each(Pass(student, z), None, batch)
        with torch.no_grad():
            views = [student(torch.tensor([[2, 4 + i, 3]])).logits[0].double().numpy() for i in index]
        (moves,) = torch.autograd.grad(found.sum(), z)
        share, z = min(1, epoch / 4), z.detach().numpy()
        known = {i: int(SETS[i].argmax()) for i in range(6) if SETS[i].sum() == 1}
        if epoch:
            for i, row in zip(index, z, strict=True):
                if (y := known.get(i, chosen[i])) >= 0:
                    of_class[y].append(row)
        cov = {c: np.cov(np.array(x).T, bias=True) if x else np.zeros((3, 3)) for c, x in of_class.items()}
        expected, gradients, targets = [], [], {}
        for i, row in zip(index, z, strict=True):
            if epoch and i not in known:
                y = chosen[i] if chosen[i] >= 0 else np.where(SETS[i], row, -np.inf).argmax()
                spread = torch.tensor(3.0 * share * cov[int(y)][None])
                target = expected_softmax(torch.tensor(row[None]), spread)[0].numpy() * SETS[i]
                targets[i] = target / target.sum()
                if targets[i].max() >= 0.5:
                    confidently[i] = targets[i].argmax()
        counts = np.bincount(confidently + 1, minlength=4)
        for place, (i, row) in enumerate(zip(index, z, strict=True)):
            logs, p, one = log_softmax(row), softmax(row), np.eye(3)
            extra, moved_by = 0, 0
            if i not in known:
                extra = -(np.log(1 - p) * ~SETS[i]).sum()
                moved_by = sum(p[c] / (1 - p[c]) * (one[c] - p) for c in np.flatnonzero(~SETS[i]))
            if i in known:
                kinds.add("known")
                part = -logs[known[i]]
                moved_by = moved_by + p - one[known[i]]
            elif not epoch:
                kinds.add("warm-up")
                part = -logs[SETS[i]].mean()
                moved_by = moved_by + p - SETS[i] / SETS[i].sum()
            elif chosen[i] >= 0:
                kinds.add("reliable")
                y, s = chosen[i], cov[int(chosen[i])]
                moved = [row[c] + 3.0 * share / 2 * (s[c, c] + s[y, y] - 2 * s[c, y]) for c in range(3)]
                part = -share * log_softmax(moved)[y]
                moved_by = moved_by + share * (softmax(moved) - one[y])
            else:
                a = counts[1:] / counts.max()
                c = targets[i].argmax()
                counted = targets[i].max() >= 0.5 * a[c] / (2 - a[c])
                kinds.add(f"other {bool(counted)}")
                part = -share * counted * (targets[i] * log_softmax(views[place])).sum()
            expected.append(0.5 * (part + extra))
            gradients.append(0.5 * (moved_by + np.zeros(3)))
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(moves, gradients, rtol=1e-4, atol=1e-6)  # neither targets nor spread have one
        seen[index] = z
    assert {"known", "warm-up", "reliable", "other True"} <= kinds


def test_sets_of_one_are_cross_entropy(make_classifier, tokenizer):
    corpus = make_corpus()
    single = datasets.Dataset.from_pandas(corpus.to_pandas().assign(labels=corpus["label"]))
    found = []
    for given, objective in ((corpus, CrossEntropy()), (single, CandidateLabels())):
        student = make_classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        history = train(student, tokenizer, given, objective=[objective], steps=12, **QUIET)  # of two epochs and more
        found.append((history["loss"], weights(student)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    real = [{k: v for k, v in w.items() if not k.endswith("key.bias")} for _, w in found]
    assert same(*real, atol=1e-4)


def test_a_view_leaves_out_some_tokens_and_never_all():
    special, rng = np.array([2, 3]), np.random.default_rng(0)
    row = {"input_ids": [2, *range(10, 30), 3], "token_type_ids": [0] * 22, "index": 5}
    kept = [len(shortened(row, special, 0.25, rng)["input_ids"]) - 2 for _ in range(400)]
    assert np.mean(kept) == pytest.approx(15, abs=0.3)
    found = shortened(row, special, 0.5, rng)
    assert found["input_ids"][0] == 2
    assert found["input_ids"][-1] == 3
    assert set(found) == {"input_ids", "token_type_ids"}
    assert shortened(row, special, 0.0, rng)["input_ids"] == row["input_ids"]
    assert {len(shortened({"input_ids": [2, 7, 8, 3]}, special, 0.999, rng)["input_ids"]) for _ in range(20)} == {3}
    assert shortened({"input_ids": [2, 3]}, special, 0.5, rng)["input_ids"] == [2, 3]


def test_the_other_view_is_a_translation_where_there_is_one(student, tokenizer):
    rows = rows_of()
    for i in (0, 3):
        rows[i]["beside"]["id"] = "shared"
    for translate, expected in ((True, [3, 0, 1]), (False, [0, 3, 1])):
        objective = CandidateLabels(dropped=0.0, translate=translate)
        module = objective.prepare(student, None, rows, seed=0)
        batch = {"index": torch.tensor([0, 3, 1]), "modules": {NAME: module}}
        assert objective.alter(batch, tokenizer) == {"views": None}
        module.texts.fill_(6)
        found = objective.alter(batch, tokenizer)["views"]
        assert [view["input_ids"] for view in found] == [rows[i]["input_ids"] for i in expected]


def ambiguous(false, seed=0):
    corpus = make_corpus().to_pandas()
    rng = np.random.default_rng(seed)
    cells = []
    for label in corpus["label"]:
        others = [k for k in "xyz" if k != label]
        cells.append(" ".join(sorted([label, *rng.choice(others, false, replace=False)])))
    return datasets.Dataset.from_pandas(corpus.drop(columns="label").assign(labels=cells))


def test_it_finds_the_labels(make_classifier, tokenizer):
    told, student = make_corpus(), make_classifier(hidden_dropout_prob=0.0)
    objective = CandidateLabels(warmup=6, top_k=8)
    settings = QUIET | {"learning_rate": 5e-3}
    train(student, tokenizer, ambiguous(1), objective=[objective], steps=80, **settings)
    inputs = tokenizer(list(told["text"]), padding=True, return_tensors="pt")
    with torch.no_grad():
        said = student.eval()(**inputs).logits.argmax(1).numpy()
    assert np.mean(said == ["xyz".index(k) for k in told["label"]]) > 0.65


def test_it_goes_on_where_it_was_interrupted(make_classifier, tokenizer, tmp_path):
    corpus = ambiguous(1)

    def run(folder, *callbacks):
        student = make_classifier()
        parts = [CandidateLabels(top_k=8, ramp=2)]
        options = {"objective": parts, "steps": 12, "save_every": 4, "folder": tmp_path / folder, **QUIET}
        return train(student, tokenizer, corpus, callbacks=callbacks, **options), weights(student)

    expected = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(9))
    found = run("run")
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert same(found[1], expected[1])


def test_its_texts_can_count_by_how_hard_they_are(make_classifier, tokenizer):
    robust = Robust(CandidateLabels(), method="cvar", share=0.5)
    history = train(make_classifier(), tokenizer, ambiguous(1), objective=[robust], steps=6, **QUIET)
    assert history["robust"].gt(0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CandidateLabels(warmup=0), "warmup=0: expected a whole number of at least 1"),
        (lambda: CandidateLabels(ramp=0.5), "ramp=0.5: expected a whole number of at least 1"),
        (lambda: CandidateLabels(top_k=0), "top_k=0"),
        (lambda: CandidateLabels(augment=-1), "augment=-1: expected a finite number at least 0"),
        (lambda: CandidateLabels(confidence=1.5), "confidence=1.5: expected at most 1, a probability"),
        (lambda: CandidateLabels(dropped=1), "dropped=1: expected below 1, or no token is left"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_candidates_that_cannot_be_meant_are_refused_before_a_step(make_classifier, tokenizer):
    corpus, plain = ambiguous(1), make_corpus()
    cells = list(corpus["labels"])
    empty = datasets.Dataset.from_pandas(corpus.to_pandas().assign(labels=[*cells[:20], "", *cells[21:]]))
    unknown = corpus.map(lambda row: {"labels": row["labels"] + " w"})
    wrong = datasets.Dataset.from_pandas(corpus.to_pandas().assign(label=[cell.split()[0] for cell in cells]))
    wrong = wrong.map(lambda row, i: {"label": "z" if i == 30 else row["label"], "labels": "x y"}, with_indices=True)
    wrong = wrong.map(lambda row: {"label": row["label"] if row["label"] in "xz" else "x"})
    for given, message in (
        (plain, "candidate_labels needs candidates, the data has none: add a column 'labels'"),
        (empty, r"row 8 of those trained on \(id '20'\) has no candidate"),
        (unknown, "label 'w' is no class of model"),
        (wrong, r"row 18 of those trained on \(id '30'\) has the label 'z', which is none of its candidates 'x y'"),
    ):
        with pytest.raises(InputError, match=message):
            train(make_classifier(), tokenizer, given, objective=[CandidateLabels()], steps=1, **QUIET)
    several = make_classifier(problem_type="multi_label_classification")
    with pytest.raises(InputError, match=r"takes labels of one class a text, and the head .* is for none or several"):
        train(several, tokenizer, corpus, objective=[CandidateLabels()], steps=1, **QUIET)
