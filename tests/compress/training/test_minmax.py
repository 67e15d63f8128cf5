"""The step that is kept by the worst adversary: by hand, in a training that is interrupted, and bad input."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from stops import Stops
from trained import QUIET, make_corpus, same, weights

import compress
from compress.training.minmax import MinmaxValidation, worst
from probes.errors import InputError
from probes.models.weights import stored_bytes

OBJECTIVE = compress.Robust(compress.CrossEntropy(), temperature=0.1)


def dev():
    return make_corpus().filter(lambda row: row["split"] == "dev")


def test_the_worst_adversary_so_far_decides(tokenizer):
    kept = MinmaxValidation(OBJECTIVE, tokenizer, dev(), every=1)
    model = torch.nn.Linear(1, 1)
    ratios, best, chosen = [np.ones(40)], None, []
    rng = np.random.default_rng(0)
    for step in range(1, 7):
        losses, logs = rng.uniform(0, 2, 40) / step**0.5, rng.standard_normal(40) * (9 if step == 3 else 1)
        model.weight.data.fill_(step)
        kept.take(step, losses, logs, model)
        r = np.exp(logs) / np.exp(logs).mean()
        if (r * np.log(r)).mean() <= np.log(10):
            ratios.append(r)
        score = max((x * losses).mean() for x in ratios)
        if best is None or score < max((x * best).mean() for x in ratios):
            best = losses
            chosen.append(step)
        assert kept.looks["robust"].iloc[-1] == pytest.approx(score)
        assert float(kept.weights["weight"]) == chosen[-1]
    assert len(ratios) == 6  # one of the adversaries looked at few texts alone
    assert kept.looks["step"][kept.looks["kept"]].tolist() == chosen
    assert worst(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [2.0, 0.0]])) == 2


@pytest.mark.parametrize("method", ["rp-dro", "p-dro"])
def test_the_weights_of_the_kept_step_come_out_also_where_it_was_interrupted(
    make_classifier, tokenizer, tmp_path, method
):
    settings = {"fitted": 2, "learning_rate": 1e-2} if method == "p-dro" else {}
    objective = compress.Robust(compress.CrossEntropy(), method=method, **settings)

    def run(folder, *callbacks):
        student, seen = make_classifier(), {}
        kept = MinmaxValidation(objective, tokenizer, dev(), every=2)
        how = {"steps": 6, "folder": tmp_path / folder, "save_every": 2, "callbacks": [kept, *callbacks]}
        how |= {"evaluate": lambda model: seen.update({len(seen): weights(model)}) or {}, "evaluate_at": [2, 4, 6]}
        compress.training.train(student, tokenizer, make_corpus(), objective=[objective], **how, **QUIET)
        return kept.looks, weights(student), seen

    looks, expected, seen = run("whole")
    assert looks["step"].tolist() == [2, 4, 6]
    step = looks["step"][looks["kept"]].iloc[-1]
    assert same(expected, seen[int(step) - 1])  # seen before and after each look
    assert (looks["robust"] >= looks["loss"] - 1e-9).all()
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    found = run("run")
    pd.testing.assert_frame_equal(found[0], looks)
    assert same(found[1], expected)


def test_errors_may_count_in_place_of_losses(make_classifier, tokenizer, tmp_path):
    told = []

    def run(folder, *callbacks, errors=True, every=2, texts=None):
        student = make_classifier()
        kept = MinmaxValidation(OBJECTIVE, tokenizer, texts or dev(), every=every, errors=errors)

        def measured(model):
            found = compress.quality(model, tokenizer, dev().remove_columns("split"), draws=2)
            told.append(1 - found.loc[found["language"] == "pooled", "value"].iloc[0])
            return {"error": told[-1]}

        how = {"steps": 6, "folder": tmp_path / folder, "save_every": 2, "callbacks": [kept, *callbacks]}
        how |= {"evaluate": measured, "evaluate_at": [2, 4, 6], **QUIET, "learning_rate": 2e-2}
        compress.training.train(student, tokenizer, make_corpus(), objective=[OBJECTIVE], **how)
        return kept, student

    kept, student = run("whole")
    looks = kept.looks
    assert looks["loss"].tolist() == pytest.approx(told[::2])  # seen before and after each look
    assert looks["loss"].nunique() > 1
    assert (looks["robust"] >= looks["loss"] - 1e-9).all()
    # The errors that were kept are those of the weights that come out, and the best until then by the worst adversary.
    texts = dev()
    with torch.no_grad():
        said = student.eval()(**tokenizer(list(texts["text"]), padding=True, return_tensors="pt")).logits.argmax(1)
    wrong = np.array([student.config.id2label[int(i)] for i in said]) != np.array(texts["label"])
    np.testing.assert_array_equal(kept.found["best"], wrong)
    assert worst(wrong, kept.found["r"]) <= looks["robust"].iloc[-1] + 1e-9
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    again, found = run("run")
    pd.testing.assert_frame_equal(again.looks, looks)
    assert same(weights(found), weights(student))
    with pytest.raises(KeyboardInterrupt):
        run("other", Stops(5))
    with pytest.raises(InputError, match=r"errors is False here and was True there\. Give the settings that it was"):
        run("other", errors=False)
    with pytest.raises(InputError, match=r"every is 3 here and was 2 there\. Give the settings that it was written by"):
        run("other", every=3)
    fewer = dev().select(range(len(dev()) - 1))
    with pytest.raises(InputError, match=r"dev is text of fingerprint \w+ here and was text of fingerprint \w+ there"):
        run("other", texts=fewer)


def test_held_out_text_is_read_as_said(make_classifier, tokenizer):
    kept = MinmaxValidation(OBJECTIVE, tokenizer, dev(), every=1, max_length=5, prompt="big cat ")
    how = QUIET | {"max_length": 5, "prompt": "big cat ", "callbacks": [kept]}
    compress.finetune(make_classifier(), tokenizer, make_corpus(), objective=OBJECTIVE, steps=1, **how)
    first = [" ".join(("big cat " + text).split()[:3]) for text in dev()["text"]]
    assert [row["input_ids"] for row in kept.rows] == tokenizer(first)["input_ids"]


def test_errors_are_of_classes(make_classifier, tokenizer):
    # Candidates of a head of classes: which class is wrong is not told.
    corpus = make_corpus().to_pandas()
    candidates = datasets.Dataset.from_pandas(corpus.drop(columns="label").assign(labels="x y"))
    objective = compress.Robust(compress.CandidateLabels(), temperature=0.1)
    kept = MinmaxValidation(objective, tokenizer, candidates, every=1, errors=True)
    with pytest.raises(InputError, match=r"errors=True\) counts texts whose class is wrong: give a model with a head"):
        compress.finetune(
            make_classifier(), tokenizer, candidates, objective=objective, steps=1, callbacks=[kept], **QUIET
        )


def test_the_disk_must_have_room_for_the_weights_that_are_kept(make_classifier, tokenizer, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("compress.training.trainer.check_room", lambda *given: asked.append(given[-1]))
    kept, student = MinmaxValidation(OBJECTIVE, tokenizer, dev(), every=1), make_classifier()
    how = {"objective": [OBJECTIVE], "steps": 1, "callbacks": [Stops(9), kept], "folder": tmp_path, **QUIET}
    compress.training.train(student, tokenizer, make_corpus(), **how)
    # What the adversaries learn is counted once it is made, with two means of each number.
    learned = load_file(tmp_path / "checkpoint-1" / "objectives.safetensors")
    adversaries = sum(v.numel() * v.element_size() for v in learned.values() if v.is_floating_point())
    assert adversaries > 0
    assert asked[0] == stored_bytes(student)
    assert 3 * adversaries <= asked[1] - asked[0] < 3 * adversaries + 100
    assert asked[0] <= (tmp_path / "checkpoint-1" / "minmax.safetensors").stat().st_size


def test_what_is_refused(make_classifier, tokenizer):
    for objective, message in (
        (compress.CrossEntropy(), "asks adversaries, and the objective has none"),
        (compress.Robust(compress.CrossEntropy(), method="cvar"), "asks adversaries, and the objective has none"),
        (compress.Robust(compress.SoftLabels()), "soft_labels needs a teacher: give an objective of labels"),
    ):
        with pytest.raises(InputError, match=message):
            MinmaxValidation(objective, tokenizer, dev(), every=1)
    with pytest.raises(InputError, match="every=0: expected a whole number of at least 1"):
        MinmaxValidation(OBJECTIVE, tokenizer, dev(), every=0)
    kept = MinmaxValidation(OBJECTIVE, tokenizer, dev(), every=1)
    with pytest.raises(InputError, match="is given objective robust, which is not trained for"):
        compress.finetune(
            make_classifier(), tokenizer=tokenizer, train=make_corpus(), steps=1, callbacks=[kept], **QUIET
        )
