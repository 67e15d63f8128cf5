"""Which layers belong together: planted students, random ones, real models, the table, and what is refused."""

import itertools

import numpy as np
import pytest
import torch
from students import blocks, build
from trained import QUIET

import probes
from compress.distillation.distill import distill
from compress.distillation.match_layers import in_order, match_layers
from compress.objectives.layers import HiddenStates


def test_layers_in_order_pass_over_those_without_a_value():
    alike = np.array([[0.1, -np.inf, 0.9, 0.2], [0.8, -np.inf, 0.1, 0.3]])
    assert in_order(alike) == [2, 3]
    with pytest.raises(probes.InputError, match="only 1 layers of the teacher can be compared with 2"):
        in_order(np.where(np.arange(4) == 2, alike, -np.inf))


def planted(kept, layers=5):
    """A teacher of which the blocks that are not kept change little, next to the others."""
    teacher = build(layers=layers)
    with torch.no_grad():
        for i, block in enumerate(blocks(teacher)):
            for name in ("attention.output.dense", "output.dense"):
                block.get_submodule(name).weight.mul_(4 if i in kept else 0.25)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
                block.get_submodule(norm).weight.fill_(1)
                block.get_submodule(norm).bias.zero_()
    return teacher


@pytest.mark.parametrize("measure", ["cka", "cka_debiased", "procrustes"])
@pytest.mark.parametrize("kept", [[0, 2, 4], [1, 3], [0, 1, 3]])
def test_a_student_of_some_layers_is_matched_to_these(texts, tokenizer, kept, measure):
    teacher = planted(kept)
    student = distill(teacher, keep=kept)
    found = match_layers(teacher, student, texts, tokenizer=tokenizer, measure=measure)
    assert found["student"].tolist() == list(range(len(kept) + 1))
    assert found.attrs["layers"] == dict(zip(found["student"], found["matched"], strict=True))
    # What follows a kept block is nearly what it gives: a run of the teacher's layers is right.
    runs = [range(a + 1, b + 1) for a, b in itertools.pairwise([*kept, 5])]
    for j, run in zip(found["matched"][1:], runs, strict=True):
        assert j in run
    assert (found["matched"].diff()[1:] > 0).all()
    assert (found["lead"] >= 0).all()
    HiddenStates(layers=found.attrs["layers"]).check(student, teacher)


def test_a_student_of_the_first_layers_is_matched_to_these_with_certainty(texts, tokenizer):
    teacher = build(layers=5)
    found = match_layers(teacher, distill(teacher, layers=3, keep="bottom"), texts, tokenizer=tokenizer)
    assert found["teacher"].tolist() == found["matched"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(found["value"], 1, atol=1e-6)
    assert (found["lead_low"] > 0).all()


def test_a_student_of_random_weights_has_no_clear_match(texts, tokenizer):
    # The teacher's blocks change nothing but by chance, so that all its layers are as near.
    teacher = planted([], layers=3)
    found = match_layers(teacher, build(layers=3, seed=9), texts, tokenizer=tokenizer)
    assert (found["lead_low"] <= 0).all()
    assert (found["lead_high"] >= 0).all()
    # Near as they are, its own are told apart.
    found = match_layers(teacher, distill(teacher, layers=3), texts, tokenizer=tokenizer)
    assert (found["lead_low"] > 0).all()


def test_all_layers_of_an_untrained_student_are_most_like_the_embeddings_of_a_real_model():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(100))
    student = distill(model, layers=2, keep="bottom")
    trained = match_layers(model, student, corpus, tokenizer=tokenizer)
    torch.manual_seed(0)
    found = match_layers(model, type(model)(student.config), corpus, tokenizer=tokenizer)
    assert found["teacher"].tolist() == [0, 0, 0]
    assert trained["teacher"].tolist() == [0, 1, 2]
    assert found["value"].max() < trained["low"].min()


def test_the_table_is_that_of_the_similarities(texts, tokenizer):
    teacher, student = build(layers=4), build(layers=2, seed=3)
    states = [probes.capture(m, tokenizer, texts, progress=False) for m in (student, teacher)]
    x, y = (s.hidden.values for s in states)
    for measure, sign in (("cka", 1), ("procrustes", -1)):
        found = match_layers(teacher, student, texts, tokenizer=tokenizer, measure=measure)
        values = np.array([[probes.similarity(a, b, measure=measure) for b in y] for a in x])
        order = np.argsort(-sign * values, axis=1)
        assert found["teacher"].tolist() == order[:, 0].tolist()
        assert found["runner_up"].tolist() == order[:, 1].tolist()
        ranked = np.take_along_axis(values, order, 1)
        np.testing.assert_allclose(found["value"], ranked[:, 0], rtol=1e-6)
        np.testing.assert_allclose(found["lead"], sign * (ranked[:, 0] - ranked[:, 1]), atol=1e-7)
        assert (found["low"] <= found["value"]).all()
        assert (found["value"] <= found["high"]).all()
        assert (found["lead_low"] <= found["lead"]).all()
        assert (found["lead"] <= found["lead_high"]).all()
        draws = sign * probes.similarity(*states, measure=measure).draws.sel(language="pooled").values
        gaps = [draws[:, i, best] - draws[:, i, second] for i, (best, second) in enumerate(order[:, :2])]
        low, high = np.quantile(gaps, [0.025, 0.975], axis=1, method="weibull")
        np.testing.assert_allclose(found["lead_low"], np.minimum(low, found["lead"]), atol=1e-12)
        np.testing.assert_allclose(found["lead_high"], np.maximum(high, found["lead"]), atol=1e-12)
        options = itertools.combinations(range(5), 3)
        best = max(options, key=lambda js: sum(sign * values[i, j] for i, j in enumerate(js)))
        assert found["matched"].tolist() == list(best)


def test_a_layer_without_a_value_is_left_out(texts, tokenizer):
    teacher, student = build(layers=3), build(layers=3, seed=3)
    with torch.no_grad():
        blocks(student)[1].output.LayerNorm.weight.zero_()  # all texts become one
    with pytest.warns(probes.LayerscopeWarning, match="all states are equal"):
        found = match_layers(teacher, student, texts, tokenizer=tokenizer)
    assert found["student"].tolist() == list(found.attrs["layers"]) == [0, 1]
    with torch.no_grad():
        student.base_model.embeddings.LayerNorm.weight.zero_()
    with (
        pytest.warns(probes.LayerscopeWarning, match="all states are equal"),
        pytest.raises(probes.InputError, match="no layer of the student can be compared"),
    ):
        match_layers(teacher, student, texts, tokenizer=tokenizer)


def test_models_that_do_not_fit_are_refused(tokenizer, corpus, tiny_models, texts):
    model = build()
    with pytest.raises(probes.InputError, match=r"student=... has its layers and width already: leave layers"):
        distill(model, layers=2, student=build(layers=1))
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        distill(model, student=torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        distill(torch.nn.Linear(2, 2), layers=2)
    other = build(vocab_size=30)
    message = (
        r"not known to share a tokenizer: the student .* has 30 token embeddings, the teacher .* 27 token .* make "
    )
    message += "both 30 by resize_token_embeddings"
    with pytest.raises(probes.InputError, match=message):
        distill(model, student=other)
    with pytest.raises(probes.InputError, match="not known to share a tokenizer"):
        distill(other, layers=2, teacher=model)
    model.resize_token_embeddings(30)  # as the message says
    assert distill(model, student=other).config.vocab_size == 30
    model = build()
    with pytest.raises(probes.InputError, match=r"share a tokenizer: .* the padding token 1, the teacher .* 0"):
        match_layers(model, build("roberta"), texts, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="the student has 4 layers, the teacher 3: expected at most as many"):
        match_layers(model, build(layers=4), texts, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="the student has 5 layers to compare, the teacher 4: say with layers="):
        distill(model, student=build(layers=4), train=corpus, tokenizer=tokenizer, steps=1, **QUIET)
    with pytest.raises(probes.InputError, match="measure='cosine' is not known"):
        match_layers(model, model, texts, tokenizer=tokenizer, measure="cosine")
    with pytest.raises(probes.InputError, match=r"train=... is given, and steps=0 trains nothing"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, steps=0)
    with pytest.raises(probes.InputError, match="batch_size=0: expected a whole number of at least 1"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, **QUIET | {"batch_size": 0})
    dev = corpus.filter(lambda row: row["split"] == "dev")
    with pytest.raises(probes.InputError, match="the corpus has no row of split 'train'"):
        distill(model, layers=2, train=dev, tokenizer=tokenizer)
    with pytest.raises(probes.InputError, match="at least one row, found none"):
        distill(model, layers=2, train=corpus.select([]), tokenizer=tokenizer)
    out_of_range = HiddenStates(layers={3: 1})
    with pytest.raises(probes.InputError, match="layers has 3: 1: expected a layer of the student from 0 to 2"):
        distill(model, layers=2, train=corpus, tokenizer=tokenizer, objective=[out_of_range], steps=1, **QUIET)
