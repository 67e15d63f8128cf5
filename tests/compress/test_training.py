import copy

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import TrainerCallback

import probes
from compress.objectives import Attentions, CrossEntropy, HiddenStates, Pass, SoftLabels
from compress.training import train

WORDS = {"x": "red dog ran on mat", "y": "small bird sang under tree", "z": "big cat sat over house"}


@pytest.fixture
def corpus():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        label = "xyz"[i % 3]
        text = " ".join(rng.permutation(WORDS[label].split())[: 2 + i % 4])
        rows.append({"id": i, "language": "en", "text": text, "label": label, "split": "dev" if i < 12 else "train"})
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture
def make(tiny_models):
    def make(dropout=0.0, **changes):
        model = tiny_models(
            "BertForSequenceClassification",
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **changes,
        )
        model.config.id2label = {0: "x", 1: "y", 2: "z"}
        return model

    return make


def weights(model):
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def same(a, b, atol=0.0):
    return all(torch.allclose(a[k], b[k], rtol=0, atol=atol) for k in a)


QUIET = {"progress": False, "batch_size": 8, "learning_rate": 1e-3}


def test_learns_and_logs_every_update(make, tokenizer, corpus):
    student = make()
    before = weights(student)
    history = train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=60, **QUIET | {"learning_rate": 1e-2})
    assert list(history) == ["step", "cross_entropy", "loss"]
    assert history["step"].tolist() == list(range(1, 61))
    assert history["loss"][-5:].mean() < 0.3 * history["loss"][:5].mean()
    assert not same(before, weights(student))


def test_only_the_rows_of_train_are_trained_on(make, tokenizer, corpus):
    kept = corpus.filter(lambda row: row["split"] == "train").remove_columns("split")
    one, other = make(), make()
    a = train(one, tokenizer, corpus, objective=[CrossEntropy()], steps=6, **QUIET)
    b = train(other, tokenizer, kept, objective=[CrossEntropy()], steps=6, **QUIET)
    pd.testing.assert_frame_equal(a, b)
    assert same(weights(one), weights(other))


def test_the_first_loss_is_that_of_an_independent_computation(make, tokenizer, corpus):
    student = make()
    rows = corpus.filter(lambda row: row["split"] == "train")
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(
                student(**tokenizer(row["text"], return_tensors="pt")).logits,
                torch.tensor(["xyz".index(row["label"])])[:1],
            )
            for row in rows
        ]
    # All rows are one batch: their order does not matter, and texts of different length are padded.
    history = train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=36)
    assert history["loss"][0] == pytest.approx(float(sum(losses)) / len(losses), rel=1e-5)


def test_objectives_add_up_and_the_teacher_stays_as_it_was(make, tokenizer, corpus):
    student, teacher = make(), make()
    with torch.no_grad():
        teacher.classifier.weight.add_(1.0)
    before = weights(teacher)
    parts = [CrossEntropy(), SoftLabels(weight=0.5, temperature=2.0), HiddenStates(weight=0.1), Attentions()]
    implementation = student.config._attn_implementation
    history = train(student, tokenizer, corpus, objective=parts, teacher=teacher, steps=3, **QUIET)
    names = [p.name for p in parts]
    np.testing.assert_allclose(history[names].sum(axis=1), history["loss"], rtol=1e-6)
    assert (history[names].loc[1:] > 0).all(axis=None)
    # Student and teacher differ in their heads alone at first.
    assert history.loc[0, "hidden_states"] < 1e-12
    assert same(before, weights(teacher))
    assert all(p.grad is None for p in teacher.parameters())
    assert student.config._attn_implementation == teacher.config._attn_implementation == implementation


def test_gradients_that_are_gathered_over_batches_are_those_of_one_large_batch(make, tokenizer, corpus):
    one, other = make(), make()
    a = train(one, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=36)
    b = train(other, tokenizer, corpus, objective=[CrossEntropy()], steps=1, progress=False, batch_size=9, accumulate=4)
    assert a["loss"][0] == pytest.approx(b["loss"][0], rel=1e-5)
    assert same(weights(one), weights(other), atol=1e-6)


def test_the_same_seed_gives_the_same_model_and_another_one_another(make, tokenizer, corpus):
    found = []
    for seed in (0, 0, 1):
        student = make(dropout=0.2)
        train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=4, seed=seed, **QUIET)
        found.append(weights(student))
    assert same(found[0], found[1])
    assert not same(found[0], found[2], atol=1e-6)


class Stops(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_training_that_was_interrupted_ends_as_it_would_have(make, tokenizer, corpus, tmp_path):
    options = {"objective": [CrossEntropy()], "steps": 12, "save_every": 4, **QUIET}
    whole = make(dropout=0.2)
    expected = train(whole, tokenizer, corpus, folder=tmp_path / "whole", **options)
    student = make(dropout=0.2)
    with pytest.raises(KeyboardInterrupt):
        train(student, tokenizer, corpus, folder=tmp_path / "run", callbacks=[Stops(10)], **options)
    again = make(dropout=0.2)
    history = train(again, tokenizer, corpus, folder=tmp_path / "run", **options)
    pd.testing.assert_frame_equal(history, expected)
    assert same(weights(again), weights(whole))


def test_measures_the_student_before_and_after_what_callbacks_do_and_disturbs_nothing(make, tokenizer, corpus):
    class Zeroes(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            if state.global_step == 2:
                with torch.no_grad():
                    model.classifier.weight.zero_()

    def evaluate(model):
        assert not model.training
        torch.rand(3)
        return {"size": float(model.classifier.weight.abs().sum())}

    student, unwatched = make(dropout=0.2), make(dropout=0.2)
    options = {"objective": [CrossEntropy()], "steps": 4, "callbacks": [Zeroes()], **QUIET}
    history = train(student, tokenizer, corpus, evaluate=evaluate, evaluate_at={1, 2}, **options)
    measured = history.dropna(subset="when").set_index(["step", "when"])["size"]
    assert measured.index.tolist() == [(1, "before"), (1, "after"), (2, "before"), (2, "after")]
    assert measured[1, "before"] == measured[1, "after"]
    assert measured[2, "before"] > 0
    assert measured[2, "after"] == 0
    train(unwatched, tokenizer, corpus, **options)
    assert same(weights(student), weights(unwatched))


class Spoils:
    name, weight, needs = "spoilt", 1.0, frozenset()

    def __init__(self, step):
        self.left = step

    def __call__(self, student: Pass, teacher, batch):
        self.left -= 1
        return student.logits.sum() * (float("nan") if self.left == 0 else 0.0)


def test_a_loss_that_is_not_finite_ends_it_by_name_and_keeps_the_last_checkpoint(make, tokenizer, corpus, tmp_path):
    student = make()
    with pytest.raises(probes.InputError, match=r"step 5: the objective 'spoilt' is nan. The last checkpoint is kept"):
        train(
            student,
            tokenizer,
            corpus,
            objective=[CrossEntropy(), Spoils(5)],
            steps=9,
            folder=tmp_path,
            save_every=2,
            **QUIET,
        )
    assert (tmp_path / "checkpoint-4" / "model.safetensors").is_file()
    assert all(torch.isfinite(p).all() for p in student.parameters())


def test_the_mode_of_the_student_is_restored(make, tokenizer, corpus):
    student = make().eval()
    train(student, tokenizer, corpus, objective=[CrossEntropy()], steps=1, **QUIET)
    assert not student.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps=0: expected a whole number of at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0.0: expected a number above 0"),
        ({"objective": [SoftLabels()]}, "soft_labels needs a teacher"),
        ({"objective": []}, "expected at least one objective"),
    ],
)
def test_bad_settings_are_refused_before_a_step(make, tokenizer, corpus, options, message):
    student = make()
    before = weights(student)
    given = {"objective": [CrossEntropy()], "steps": 3, **QUIET} | options
    with pytest.raises(probes.InputError, match=message):
        train(student, tokenizer, corpus, **given)
    assert same(before, weights(student))


def test_bad_text_is_refused_before_a_step(make, tokenizer, corpus):
    dev = corpus.filter(lambda row: row["split"] == "dev")
    with pytest.raises(probes.InputError, match=r"no row of split 'train', only of 'dev'"):
        train(make(), tokenizer, dev, objective=[CrossEntropy()], steps=1, **QUIET)
    other = corpus.map(lambda row: {"label": "w" + row["label"]})
    with pytest.raises(probes.InputError, match=r"label 'wx' is no class of model"):
        train(make(), tokenizer, other, objective=[CrossEntropy()], steps=1, **QUIET)
    with pytest.raises(probes.InputError, match="needs labels, the data has none"):
        train(make(), tokenizer, corpus.remove_columns("label"), objective=[CrossEntropy()], steps=1, **QUIET)


def test_a_copy_is_what_compressions_train(make, tokenizer, corpus):
    model = make()
    before = weights(model)
    train(copy.deepcopy(model), tokenizer, corpus, objective=[CrossEntropy()], steps=2, **QUIET)
    assert same(before, weights(model))


def test_long_texts_are_cut_at_the_positions_that_a_model_can_use(tiny_models, make_tokenizer, corpus):
    # RoBERTa counts positions from its padding index on, so two of its 20 are never used.
    student = tiny_models("RobertaForSequenceClassification", max_position_embeddings=20)
    student.config.id2label = {0: "x", 1: "y", 2: "z"}
    long = corpus.map(lambda row: {"text": " ".join([row["text"]] * 9)})
    train(student, make_tokenizer(limit=64), long, objective=[CrossEntropy()], steps=1, **QUIET)
