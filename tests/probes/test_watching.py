import random

import numpy as np
import pytest
import torch
from trained import make_corpus, same, weights
from transformers import TrainerCallback, TrainerState

import compress
import probes
from probes import watching
from probes.watching import Watch, unchanged

HOW = {"progress": False, "batch_size": 8, "learning_rate": 1e-3, "steps": 5}


@pytest.fixture
def seen(monkeypatch):
    found = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **given):
            found.append((state.global_step, logs))

    monkeypatch.setattr(watching, "get_reporting_integration_callbacks", lambda names: [Logger])
    return found


@pytest.fixture
def corpus():
    return make_corpus()


def test_a_watched_training_is_the_same_to_the_last_bit_and_is_measured(make_classifier, make_tokenizer, corpus, seen):
    tokenizer = make_tokenizer()
    model = make_classifier(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    how = {"train": corpus, "tokenizer": tokenizer, **HOW}
    plain = compress.finetune(model, **how)
    watch = Watch(corpus, every=2, probes=["snr", "accuracy"], tokenizer=tokenizer, draws=10, name="tuned")
    watched = compress.finetune(model, callbacks=[watch], **how)
    assert same(weights(plain), weights(watched))
    assert list(watch.states) == [0, 2, 4, 5]
    made = watch.comparison()
    assert made.baseline == "tuned 0"
    # What is seen at the end is what a look at the trained model sees, in evaluation mode.
    after = probes.capture(watched, tokenizer, corpus, progress=False)
    np.testing.assert_allclose(watch.states[5].hidden, after.hidden, atol=1e-6)
    assert [step for step, _ in seen] == [0, 2, 4, 5]
    value = made.table.query("model == 'tuned 4' and probe == 'snr' and language == 'en' and layer == 1")
    assert seen[2][1]["snr/en/layer1"] == value["value"].item()
    assert seen[2][1]["snr/en/layer1_low"] == value["low"].item()
    assert (
        seen[2][1]["accuracy/en/output"]
        == made.table.query("model == 'tuned 4' and probe == 'accuracy' and language == 'en'")["value"].item()
    )


def test_states_of_each_step_are_kept_where_they_are_asked_for(make_classifier, make_tokenizer, corpus, seen, tmp_path):
    tokenizer = make_tokenizer()
    watch = Watch(corpus, every=3, probes=["snr"], tokenizer=tokenizer, draws=5, store=tmp_path)
    compress.finetune(make_classifier(), train=corpus, tokenizer=tokenizer, callbacks=[watch], **HOW | {"steps": 3})
    assert sorted(p.name for p in tmp_path.glob("*.zarr")) == ["training 0.zarr", "training 3.zarr"]
    reopened = probes.open_representations(tmp_path / "training 3.zarr")
    np.testing.assert_array_equal(reopened.hidden, watch.states[3].hidden)


def test_random_numbers_go_on():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    first, second = drawn(), drawn()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    assert drawn() == first
    with unchanged():
        drawn()
    assert drawn() == second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0: expected a whole number of steps, at least 1"),
        ({"probes": "snr"}, "probes='snr': expected a list of names"),
        ({"draws": 1}, "draws=1"),
        ({"pooling": "sum"}, "pooling"),
    ],
)
def test_bad_settings_are_refused_before_the_training(options, message, corpus):
    with pytest.raises(probes.InputError, match=message):
        Watch(corpus, **options)


def test_what_lacks_is_said(make_classifier, corpus):
    watch = Watch(corpus, every=2, probes=["snr"])
    with pytest.raises(probes.InputError, match="training: nothing was measured yet"):
        watch.comparison()
    with pytest.raises(probes.InputError, match=r"the Trainer has no tokenizer: give Watch\(..., tokenizer=...\)"):
        watch.on_train_begin(None, TrainerState(), None, model=make_classifier())
