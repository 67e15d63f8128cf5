"""Distillation: students are parts of their teacher at first, then trained; layers are matched by similarity."""

import architectures
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from stops import Stops
from students import blocks, build, logits
from trained import QUIET, same, weights

import compress
import probes
from compress.distillation.distill import distill
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import HiddenStates
from probes.models.fingerprint import weights_fingerprint


def test_making_a_student_draws_no_random_numbers_and_keeps_type_and_mode():
    model = build().to(torch.bfloat16).train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    student = distill(model, layers=2, hidden_size=9)
    assert torch.equal(torch.rand(3), expected)
    assert student.dtype == torch.bfloat16
    assert student.training


@pytest.mark.filterwarnings("ignore:.*no configuration of transformers can say")
@pytest.mark.parametrize(
    "kind", ["albert", "deberta-v2", "mpnet", "modernbert", "gpt2", "llama", "gemma2", "mixtral", "t5", "bart"]
)
def test_a_student_of_any_family_is_its_teacher_without_some_layers(kind):
    model = architectures.make(kind)
    student = distill(model, layers=2)
    assert student.config.compression["kept"] == [1, 3]
    expected = compress.drop_layers(model, [0, 2])
    assert torch.equal(architectures.states(student), architectures.states(expected))


@pytest.mark.parametrize("settings", [{"layers": 2}, {"hidden_size": 9}, {"layers": 1, "hidden_size": 6}])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
def test_a_student_is_saved_and_plain_transformers_loads_it(family, settings, tmp_path):
    model = build(family)
    student = distill(model, **settings)
    compress.save(student, tmp_path / "student")
    plain = type(model).from_pretrained(tmp_path / "student").eval()
    assert torch.equal(logits(plain), logits(student))
    assert plain.config.compression == student.config.compression
    what = student.config.compression
    assert what["method"] == "distill"
    assert what["parent"] == weights_fingerprint(model)
    assert "before" not in what
    assert what["parameters"] == sum(p.numel() for p in plain.parameters()) < what["parameters_of_parent"]


def test_what_was_done_before_stays_said():
    once = distill(build(layers=4), layers=3)
    twice = distill(once, layers=2).config.compression
    assert twice["before"] == once.config.compression
    assert (twice["kept"], twice["parent"]) == ([1, 2], weights_fingerprint(once))


def test_a_student_learns_and_says_what_was_done(tokenizer, corpus):
    model = build(layers=4)
    before = weights(model)
    student = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=5, **QUIET)
    assert same(before, weights(model))
    names = ["cross_entropy", "soft_labels", "hidden_states"]
    assert list(student.history) == ["step", *names, "loss"]
    for name in ("soft_labels", "hidden_states"):
        assert student.history[name][-5:].mean() < 0.9 * student.history[name][:5].mean()
    what = student.config.compression
    assert what["objective"] == names
    assert what["map"] == {"hidden_states": {"0": 0, "1": 2, "2": 4}}
    assert (what["steps"], what["seed"], what["layers"], what["keep"]) == (30, 5, 2, "uniform")
    again = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=5, **QUIET)
    assert same(weights(student), weights(again))
    other = distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=30, seed=6, **QUIET)
    assert not same(weights(student), weights(other))


def test_what_is_trained_for_by_default_is_what_there_is(tokenizer, corpus):
    settings = {"tokenizer": tokenizer, "steps": 1, **QUIET}
    bare = corpus.remove_columns("label")
    found = distill(build(), layers=2, hidden_size=6, train=bare, **settings).history
    assert list(found) == ["step", "soft_labels", "hidden_states", "loss"]
    found = distill(build(kind="BertModel"), layers=2, train=bare, **settings).history
    assert list(found) == ["step", "hidden_states", "loss"]
    given = [CrossEntropy(), HiddenStates(name="own", layers={2: 3})]
    student = distill(build(), layers=2, train=corpus, objective=given, **settings)
    assert list(student.history) == ["step", "cross_entropy", "own", "loss"]
    assert student.config.compression["map"] == {"own": {"2": 3}}


def test_by_default_the_rows_are_trained_on_three_times(tokenizer, corpus):
    student = distill(build(), layers=1, train=corpus, tokenizer=tokenizer, objective=[SoftLabels()], **QUIET)
    assert len(student.history) == 15  # 36 rows of 48, in batches of 8
    assert distill(build(), layers=1).history is None


def test_numbers_and_arrays_of_numpy_are_taken_and_saved(tokenizer, corpus, tmp_path):
    model = build()
    given = distill(model, keep=np.array([0, 2]), hidden_size=np.int64(9))
    assert same(weights(given), weights(distill(model, keep=[0, 2], hidden_size=9)))
    how = {"train": corpus, "tokenizer": tokenizer, "steps": 1, **QUIET}
    maps = [
        HiddenStates(layers=dict(zip(*(f(pair) for pair in ([1, 2], [2, 3])), strict=True))) for f in (list, np.array)
    ]
    plain, student = (distill(model, layers=n, objective=[o], **how) for n, o in ((2, maps[0]), (np.int64(2), maps[1])))
    assert same(weights(plain), weights(student))
    for name, made in (("given", given), ("student", student)):
        loaded, _ = probes.load_checkpoint(compress.save(made, tmp_path / name, tokenizer))
        assert same(weights(loaded), weights(made))
    assert student.config.compression["map"] == {"hidden_states": {"1": 2, "2": 3}}
    for keep in (np.array([2, 0]), np.array([0.0, 2.0]), np.array([[0, 2]]), np.array([True, False]), 1):
        with pytest.raises(probes.InputError, match="expected ascending numbers of layers from 0 to 2"):
            distill(model, keep=keep)


def test_a_student_of_another_width_learns_in_float64(tokenizer, corpus):
    how = {"layers": 2, "hidden_size": 9, "train": corpus, "tokenizer": tokenizer, "steps": 2, **QUIET}
    double, single = (distill(build().to(dtype), **how) for dtype in (torch.float64, torch.float32))
    assert double.dtype == torch.float64
    assert double.history["loss"].to_numpy() == pytest.approx(single.history["loss"].to_numpy(), rel=1e-4)


def test_any_student_of_the_same_tokenizer_learns(tokenizer, corpus):
    model, student = build(layers=4), build("distilbert", layers=2, dim=8)
    student.config.id2label = model.config.id2label
    before = weights(student)
    found = distill(model, student=student, train=corpus, tokenizer=tokenizer, steps=20, **QUIET)
    assert same(before, weights(student))
    assert isinstance(found, transformers.DistilBertForSequenceClassification)
    assert not same(before, weights(found))
    assert found.history["hidden_states"][-5:].mean() < found.history["hidden_states"][:5].mean()
    assert found.config.compression["student"] == weights_fingerprint(student)
    assert "kept" not in found.config.compression


def test_a_teacher_of_its_own_is_what_is_learned_from(tokenizer, corpus):
    model, teacher = build(), build(seed=1, layers=4)
    settings = {"layers": 2, "train": corpus, "tokenizer": tokenizer, "steps": 1, **QUIET}
    found = [
        distill(model, objective=[SoftLabels()], **settings, **more).history for more in ({}, {"teacher": teacher})
    ]
    assert found[0]["soft_labels"][0] != pytest.approx(found[1]["soft_labels"][0], rel=1e-2)
    distill(model, teacher=teacher, **settings)


def test_a_distillation_that_was_interrupted_ends_as_it_would_have(tokenizer, corpus, tmp_path):
    def run(folder, *callbacks):
        settings = {"layers": 2, "hidden_size": 6, "train": corpus, "tokenizer": tokenizer, "steps": 9, "save_every": 3}
        return distill(build(), folder=tmp_path / folder, callbacks=callbacks, **settings, **QUIET)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    again = run("run")
    pd.testing.assert_frame_equal(again.history, whole.history)
    assert same(weights(again), weights(whole))


def test_a_student_of_two_layers_keeps_english_and_what_was_never_labelled():
    """The bundled model: six layers, labels in English alone. Texts of other languages need none to learn from it."""
    model, tokenizer = probes.load_checkpoint("bundled")
    languages = ["en", "de", "fr", "ru"]
    test = probes.load_corpus("bundled", split="test", languages=languages)

    def accuracy(one):
        found = probes.accuracy(probes.capture(one, tokenizer, test, progress=False), draws=2).value
        return float(found.sel(language="en")), float(found.drop_sel(language=["en", "pooled"]).mean())

    settings = {"layers": 2, "tokenizer": tokenizer, "steps": 40, "learning_rate": 5e-4, "seed": 1, "progress": False}
    english = probes.load_corpus("bundled", split="train", languages=["en"])
    labelled = distill(model, train=english, objective=[CrossEntropy()], **settings)
    texts = probes.load_corpus("bundled", split="train", languages=languages).remove_columns("label")
    distilled = distill(model, train=texts, **settings)
    (whole, _), (_, zero_shot), (kept, more) = (accuracy(one) for one in (model, labelled, distilled))
    assert kept >= 0.9 * whole
    assert more > zero_shot + 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"nothing to make smaller: give layers=..., hidden_size=... or student=..."),
        ({"layers": 4}, r"layers=4: expected a whole number from 1 to 3, the layers of the model"),
        ({"layers": 0}, r"layers=0: expected a whole number from 1 to 3"),
        ({"layers": True}, r"layers=True: expected a whole number"),
        ({"layers": 2, "keep": "middle"}, r"keep='middle' is not known; choose one of 'uniform', 'top', 'bottom'"),
        ({"keep": [0, 3]}, r"keep=\[0, 3\]: expected ascending numbers of layers from 0 to 2"),
        ({"keep": [1, 0]}, r"keep=\[1, 0\]: expected ascending"),
        ({"keep": []}, r"keep=\[\]: expected ascending"),
        ({"keep": [0.5, 2]}, r"keep=\[0.5, 2\]: expected ascending"),
        ({"keep": [False, True]}, r"keep=\[False, True\]: expected ascending"),
        ({"layers": 2, "keep": [0]}, r"keep=\[0\] are 1 layers, and layers=2: leave one of them out"),
        ({"layers": 2, "keep": "matched"}, r"keep='matched' needs text: give train=..., a corpus, and tokenizer=..."),
        ({"layers": 2, "steps": 3}, r"training needs text: give train=..., a corpus, and tokenizer=..."),
        ({"layers": 2, "steps": -1}, r"steps=-1: expected a whole number, 0 for no training"),
        ({"layers": 2, "step": 1}, r"step=1: no such setting"),
        (
            {"hidden_size": 10},
            r"hidden_size=10: expected a multiple of 3, the size of an attention head, and at most 12",
        ),
        ({"hidden_size": 15}, r"hidden_size=15: expected a multiple of 3, .* at most 12, the model's"),
        ({"hidden_size": 0}, r"hidden_size=0: expected a multiple of 3"),
        ({"hidden_size": 9, "initialise": "pca"}, r"initialise='pca' is not known; choose one of 'truncate', 'svd'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(probes.InputError, match=message):
        distill(build(), **settings)


def test_models_in_factors_are_refused_with_what_to_do(tokenizer, corpus):
    model = build()
    low = compress.factorize(model, rank=2)
    message = r"18 matrices of its layers are in factors .* Distil first, then factorise; or give a student="
    for settings in ({"layers": 2}, {"hidden_size": 9}):
        with pytest.raises(probes.InputError, match=message):
            distill(low, **settings)
    distill(model, student=low, train=corpus, tokenizer=tokenizer, steps=1, **QUIET)
    words = compress.factorize(model, rank=2, only="word_embeddings", embeddings=True)
    student = distill(words, layers=2)
    assert same(weights(blocks(student)[0]), weights(blocks(words)[1]))
