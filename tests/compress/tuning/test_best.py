"""The best step: measured apart, its weights what comes out, and resumed with the checkpoint."""

import pandas as pd
import pytest
import torch
from stops import Stops
from trained import QUIET, make_corpus, same, weights

import compress
import probes
from compress.objectives.held_out import language_model_loss
from compress.tuning.best import Best
from probes.errors import InputError, LayerscopeWarning

BEST = {"best": "accuracy", "steps": 8, "looks": 4, **QUIET, "learning_rate": 1e-2}
PLAIN = {k: v for k, v in BEST.items() if k not in ("best", "looks")}


@pytest.fixture
def given(tokenizer):
    return {"train": make_corpus(), "tokenizer": tokenizer}


class Takes(Best):
    """Measures nothing, and takes values that are given."""

    def __init__(self, values):
        self.sign, self.values, self.step, self.weights, self.measure = 1, {}, None, {}, "accuracy"
        self.given = values

    def run(self, model):
        for step, value in self.given.items():
            with torch.no_grad():
                model.classifier.bias.fill_(step)
            self.take(step, value, model)
        self.give(model)
        return float(model.classifier.bias.detach()[0])


def test_of_steps_the_best_comes_out_of_equal_ones_the_first(classifier):
    assert Takes({2: 0.3, 4: 0.5, 6: 0.5, 8: 0.1}).run(classifier) == 4
    assert Takes({2: float("nan"), 4: -0.5, 6: float("nan")}).run(classifier) == 4
    least = Takes({2: 0.3, 4: 0.1, 6: 0.5})
    least.sign = -1
    assert least.run(classifier) == 4
    with pytest.warns(LayerscopeWarning, match="accuracy had no value at any of 1 looks: the weights are those of the"):
        assert Takes({2: float("nan")}).run(classifier) == 2


def test_what_comes_out_are_the_weights_of_the_best_step(make_classifier, given, monkeypatch):
    values = iter([0.2, 0.9, 0.4, 0.9])
    monkeypatch.setattr(Best, "_measured", lambda self, model: next(values))
    tuned = compress.finetune(make_classifier(), **given, **BEST)
    assert tuned.config.compression["best"] == {
        "measure": "accuracy",
        "languages": ["en"],
        "step": 4,
        "values": {"2": 0.2, "4": 0.9, "6": 0.4, "8": 0.9},
    }
    seen = {}
    last = compress.finetune(
        make_classifier(),
        **given,
        **PLAIN,
        evaluate=lambda model: {"seen": seen.update({len(seen): weights(model)}) or 0.0},
        evaluate_at=[4],
    )
    assert same(weights(tuned), seen[0])
    assert not same(weights(tuned), weights(last))


def test_it_measures_the_dev_rows_of_the_languages_trained_on_and_disturbs_nothing(make_classifier, given):
    frame = make_corpus().to_pandas()
    other = frame.assign(language="fr", label=frame["label"].map(dict(zip("xyz", "yzx", strict=True))))
    both = probes.load_corpus(pd.concat([frame, other[other["split"] == "dev"]], ignore_index=True))
    tuned = compress.finetune(make_classifier(), **given | {"train": both}, **BEST)
    plain = compress.finetune(make_classifier(), **given, **PLAIN)
    done = tuned.config.compression["best"]
    assert done["languages"] == ["en"]
    assert tuned.history["loss"].tolist() == plain.history["loss"].tolist()
    dev = probes.load_corpus(frame[frame["split"] == "dev"].drop(columns="split"))
    found = compress.quality(tuned, given["tokenizer"], dev, draws=2)
    assert found["value"].iloc[-1] == max(done["values"].values()) == done["values"][str(done["step"])]
    # The labels of the French rows are others, which must not be looked at unasked.
    alone = compress.finetune(make_classifier(), **given, **BEST)
    assert alone.config.compression["best"] == done
    french = compress.finetune(make_classifier(), **given | {"train": both}, **BEST, languages=["fr"])
    assert french.config.compression["best"]["languages"] == ["fr"]


def test_what_is_measured_is_read_as_what_is_trained_on(given, tiny_models):
    reading = {"prompt": "big cat ", "max_length": 6}
    frame = make_corpus().to_pandas()
    train = probes.load_corpus(frame.assign(label=frame["label"].map({"x": "0.5", "y": "1.5", "z": "2.5"})))
    numbers = tiny_models("BertForSequenceClassification", num_labels=1, problem_type="regression")
    how = given | {"train": train} | BEST | {"best": "squared_error"}
    tuned = compress.finetune(numbers, **how, **reading)
    done = tuned.config.compression["best"]
    dev = train.filter(lambda row: row["split"] == "dev").remove_columns("split")

    def error(**how):
        found = compress.quality(tuned, given["tokenizer"], dev, draws=2, **how)
        return found.set_index(["measure", "language"]).loc[("squared_error", "pooled"), "value"]

    assert error(**reading) == done["values"][str(done["step"])] != error()
    how = BEST | {"best": "nats", "steps": 2, "looks": 1}
    spoken = compress.finetune(tiny_models("GPT2LMHeadModel"), **given, **how, **reading)
    (value,) = spoken.config.compression["best"]["values"].values()
    assert value == language_model_loss(spoken, given["tokenizer"], dev, **reading)["nats"]


def test_a_training_that_was_interrupted_ends_with_the_same_best_step(make_classifier, given, tmp_path, monkeypatch):
    values = {2: 0.2, 4: 0.9, 6: 0.4, 8: 0.1}
    # The step, told by what was measured before.
    monkeypatch.setattr(Best, "_measured", lambda self, model: values[2 + 2 * len(self.values)])
    whole = compress.finetune(make_classifier(), **given, **BEST)
    with pytest.raises(KeyboardInterrupt):
        compress.finetune(make_classifier(), **given, **BEST, folder=tmp_path, save_every=5, callbacks=[Stops(6)])
    again = compress.finetune(make_classifier(), **given, **BEST, folder=tmp_path, save_every=5)
    assert same(weights(again), weights(whole))
    assert again.config.compression["best"] == whole.config.compression["best"]
    finished = compress.finetune(make_classifier(), **given, **BEST, folder=tmp_path, save_every=5)
    assert same(weights(finished), weights(whole))
    with pytest.raises(InputError, match="best is None here and was 'accuracy' there"):
        compress.finetune(make_classifier(), **given, **PLAIN, folder=tmp_path, save_every=5)


def test_a_language_model_is_measured_by_nats(tiny_models, given):
    model = tiny_models("GPT2LMHeadModel")
    with pytest.raises(InputError, match="best='accuracy'"):
        compress.finetune(model, **given, **BEST)
    tuned = compress.finetune(model, **given, **BEST | {"best": "nats", "steps": 2, "looks": 2})
    values = tuned.config.compression["best"]["values"]
    assert min(values.values()) == values[str(tuned.config.compression["best"]["step"])] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best": "f1"}, r"best='f1'.*accuracy"),
        ({"looks": 0}, r"looks=0: expected a whole number from 1 to 8, the steps of the training"),
        ({"languages": ["de"]}, r"dev has no text in 'de'; it has en"),
        ({"best": None, "languages": ["en"]}, r"dev and languages are for the best step: give best=..., a measure"),
    ],
)
def test_what_cannot_be(classifier, given, changes, message):
    with pytest.raises(InputError, match=message):
        compress.finetune(classifier, **given, **BEST | changes)


def test_without_text_to_measure_on_it_is_refused(classifier, given):
    frame = make_corpus().to_pandas()
    train = probes.load_corpus(frame[frame["split"] == "train"].drop(columns="split"))
    dev = probes.load_corpus(frame[frame["split"] == "dev"].drop(columns="split").assign(language="fr"))
    with pytest.raises(InputError, match=r"the best step is told by held-out text: give dev=..., or a corpus that has"):
        compress.finetune(classifier, **given | {"train": train}, **BEST)
    with pytest.raises(InputError, match=r"dev has no text in en, which is trained on; it has fr. Give other"):
        compress.finetune(classifier, **given, dev=dev, **BEST)
    with pytest.raises(InputError, match="dev has no labels, and the best step is told by them"):
        compress.finetune(classifier, **given, dev=dev.remove_columns("label"), languages=["fr"], **BEST)
    wrong = probes.load_corpus(dev.to_pandas().assign(label="w"))
    with pytest.raises(InputError, match="label 'w' is no class of model"):
        compress.finetune(classifier, **given, dev=wrong, languages=["fr"], **BEST)
