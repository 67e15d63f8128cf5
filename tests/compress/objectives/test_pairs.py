"""Contrast of pairs: against its formula in float64 by loops, its gradient, which texts are pairs, and a training."""

import math

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from stops import goes_on
from torch.autograd import gradcheck
from trained import QUIET, make_corpus

import probes
from compress.objectives.base import Pass
from compress.objectives.labels import CrossEntropy
from compress.objectives.pairs import PairSupCon, another, pair_contrast
from compress.training.loop import train
from probes.errors import InputError

NAME = "pair_sup_con"


def by_loops(z, groups, temperature, hard):
    """The contrast one text at a time."""
    n, total = len(z), 0.0
    for i in range(n):
        e = [math.exp(z[i] @ z[j] / temperature) for j in range(n)]
        other = [j for j in range(n) if groups[j] != groups[i]]
        mean = np.mean([e[j] for j in other]) if other else 1.0
        against = sum(e[j] * (e[j] / mean if hard else 1.0) for j in other)
        own = e[(i + n // 2) % n]
        total -= math.log(own / (own + against))
    return total / n


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 1, 0, 3], [5, 5, 5, 5]])
def test_the_contrast_is_its_formula(hard, groups):
    z = torch.nn.functional.normalize(
        torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    both = torch.tensor(groups * 2)
    found = pair_contrast(z @ z.T / 0.2, both, hard)
    assert float(found) == pytest.approx(by_loops(z.numpy(), groups * 2, 0.2, hard), rel=1e-12)
    assert gradcheck(lambda x: pair_contrast(x @ x.T / 0.2, both, hard), [z.clone().requires_grad_()])


def test_without_hard_weights_it_is_infonce():
    z = torch.nn.functional.normalize(
        torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    scores = z @ z.T / 0.05
    expected = torch.nn.functional.cross_entropy(
        scores.masked_fill(torch.eye(8, dtype=torch.bool), -math.inf), (torch.arange(8) + 4) % 8
    )
    groups = torch.arange(4).repeat(2)
    assert float(pair_contrast(scores, groups, hard=False)) == pytest.approx(float(expected), rel=1e-12)
    assert float(pair_contrast(scores, groups, hard=True)) > float(expected)


def rows_of(paired):
    rows = [{"input_ids": [2, 4 + i, 3], "index": i, "beside": {"id": f"s{i // 3}"}} for i in range(6)]
    if paired:
        for i, row in enumerate(rows):
            row["beside"] |= {
                "id": str(i),
                "pair": [2, 14 + i, 3],
                "label": ["entailment", "contradiction"][i % 3 == 1],
            }
    return rows


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("objective", [PairSupCon(size=4), PairSupCon(size=3, hard=False, weight=0.5, classify=2)])
def test_the_loss_is_its_formula(student, paired, objective):
    model = student
    module = objective.prepare(model, None, rows_of(paired), seed=0)
    index = [0, 1, 2, 4]
    ids = torch.tensor([rows_of(paired)[i]["input_ids"] for i in index])
    batch = {"index": torch.tensor(index), "attention_mask": torch.ones_like(ids), "modules": {NAME: module}}
    states = model(ids, output_hidden_states=True).hidden_states
    found = objective(Pass(model, None, hidden_states=states), None, batch)
    if paired:
        other, positive = [[2, 14 + i, 3] for i in index], np.array([1, 0, 1, 0])
    else:
        groups = np.array([0, 0, 0, 1, 1, 1])
        drawn = another(groups, np.array(index), np.random.default_rng([0, 0]))
        assert (groups[drawn] == groups[index]).all()
        assert (drawn != index).all()
        other, positive = [[2, 4 + i, 3] for i in drawn], np.ones(4)
    with torch.no_grad():
        e = [model.bert(x).last_hidden_state.mean(1).double().numpy() for x in (ids, torch.tensor(other))]
    one, two = (module.contrast[i].weight.detach().double().numpy() for i in (0, 2))
    z = np.concatenate([np.maximum(x[positive == 1] @ one.T, 0) @ two.T for x in e])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    of = np.array([0, 1, 2, 4]) if paired else np.array([0, 0, 0, 1])
    expected = by_loops(z, list(of[positive == 1]) * 2, 0.05, objective.hard)
    if paired:
        said = np.concatenate([*e, np.abs(e[0] - e[1])], 1) @ module.classifier.weight.detach().double().numpy().T
        logs = said - np.log(np.exp(said).sum(1, keepdims=True))
        expected -= objective.classify * np.mean([logs[i, int(y)] for i, y in enumerate(positive)])
    assert float(found.detach()) == pytest.approx(objective.weight * expected, rel=1e-4)
    assert int(module.batches) == 1
    found.backward()
    assert all(p.grad is not None for p in module.parameters())
    model.zero_grad()


def test_another_row_of_the_group_is_any_of_it_alike():
    groups = np.array([0, 1, 0, 2, 0, 1])
    drawn = another(groups, np.full(3000, 2), np.random.default_rng(0))
    assert np.bincount(drawn, minlength=6)[[0, 4]] == pytest.approx(1500, abs=150)
    assert another(groups, np.array([3, 1, 5]), np.random.default_rng(0)).tolist() == [3, 5, 1]


def parallel(shuffled):
    """Sentences in two languages of other words; shuffled, the ids of one say nothing of the other."""
    words = ["red dog", "small bird", "big cat", "on mat", "under tree", "over house", "he ran", "it sang"]
    theirs = ["and then", "but she", "and he", "but it", "then sat", "then ran", "sang and", "sat but"]
    order = np.random.default_rng(0).permutation(8) if shuffled else np.arange(8)
    return pd.DataFrame(
        [{"id": i, "language": "a", "text": t} for i, t in enumerate(words)]
        + [{"id": int(k), "language": "b", "text": t} for t, k in zip(theirs, order, strict=True)]
    )


def test_training_brings_translations_together(tiny_models, tokenizer):
    found = {}
    for shuffled in (False, True):
        model, objective = tiny_models("BertModel"), PairSupCon(size=8, temperature=0.3)
        corpus = probes.load_corpus(parallel(shuffled))
        settings = QUIET | {"learning_rate": 1e-2}
        history = train(model, tokenizer, corpus, objective=[objective], steps=20, **settings)
        assert history["loss"][-5:].mean() < history["loss"][:5].mean()
        texts = list(parallel(False)["text"])
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        z = ((states * mask).sum(1) / mask.sum(1)).numpy()
        z = (z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=1, keepdims=True)
        found[shuffled] = (z[:8] @ z[8:].T).diagonal().mean() - (z[:8] @ z[8:].T).mean()
    assert found[False] > found[True] + 0.3


def test_it_goes_on_where_it_was_interrupted(make_classifier, tokenizer, tmp_path):
    """With the draw of translations, the maps and their moments, and dropout of the second texts."""
    corpus = probes.load_corpus(parallel(shuffled=False))

    def run(folder, *callbacks):
        student = make_classifier(hidden_dropout_prob=0.1)
        how = {"steps": 6, "save_every": 2, "folder": folder, "callbacks": callbacks, **QUIET}
        return train(student, tokenizer, corpus, objective=[PairSupCon(learning_rate=1e-2)], **how), student

    (history, _), _ = goes_on(run, tmp_path, 5)
    assert history[NAME].iloc[-1] != history[NAME].iloc[0]


def test_pairs_of_texts_are_read_apart_beside_labels_of_their_own(make_classifier, tokenizer):
    corpus = make_corpus()
    labels = ["entailment" if k == "x" else "contradiction" for k in corpus["label"]]
    paired = datasets.Dataset.from_pandas(corpus.to_pandas().assign(text_pair="the dog", label=labels))
    seen = []

    class Sees(PairSupCon):
        def prepare(self, student, teacher, rows, seed):
            seen.extend(rows)
            return super().prepare(student, teacher, rows, seed)

    history = train(make_classifier(), tokenizer, paired, objective=[Sees()], steps=2, **QUIET)
    assert history["loss"].gt(0).all()
    wanted = tokenizer([corpus["text"][12], "the dog"])["input_ids"]
    assert [seen[0]["input_ids"], seen[0]["beside"]["pair"]] == wanted
    both = corpus.map(lambda row: {"id": f"{row['label']}{int(row['id']) // 6}", "language": row["id"]})
    history = train(make_classifier(), tokenizer, both, objective=[CrossEntropy(), PairSupCon()], steps=2, **QUIET)
    assert list(history) == ["step", "cross_entropy", NAME, "loss"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairSupCon(temperature=0), "temperature=0: expected a finite number above 0"),
        (lambda: PairSupCon(classify=-1), "classify=-1: expected a finite number at least 0"),
        (lambda: PairSupCon(size=0), "size=0: expected a whole number of at least 1"),
        (lambda: PairSupCon(learning_rate=0), "learning_rate=0: expected a finite number above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_rows_without_pairs_are_refused_before_a_step(make_classifier, tokenizer):
    corpus = make_corpus()
    paired = corpus.map(lambda row: {"text_pair": "the dog"})
    for given, message in (
        (corpus, "there is no column text_pair, and id '12' has no translation, nor have 35 more"),
        (paired, "no pair has the label 'entailment', found 'x', 'y', 'z': say with positive"),
    ):
        with pytest.raises(InputError, match=message):
            train(make_classifier(), tokenizer, given, objective=[PairSupCon()], steps=1, **QUIET)
