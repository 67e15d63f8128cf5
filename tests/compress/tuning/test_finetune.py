"""Plain fine-tuning: what is trained, what stays as it was, what is recorded."""

import pytest
import torch
from trained import QUIET, make_corpus, same, weights

import compress
from compress.training.loop import train
from probes.errors import InputError


@pytest.fixture
def given(tokenizer):
    return {"train": make_corpus(), "tokenizer": tokenizer, "steps": 3, **QUIET}


def test_a_copy_is_trained_as_the_loop_trains_and_the_model_stays(classifier, given):
    before = weights(classifier)
    tuned = compress.finetune(classifier, seed=3, weight_decay=0.1, **given)
    assert same(before, weights(classifier))
    again = compress.prune(classifier, sparsity=0.0)
    rest = {k: v for k, v in given.items() if k not in ("train", "tokenizer")}
    history = train(
        again, given["tokenizer"], given["train"], objective=[compress.CrossEntropy()], seed=3, weight_decay=0.1, **rest
    )
    assert same(weights(again), weights(tuned))
    assert not same(before, weights(tuned))
    assert tuned.history["loss"].tolist() == history["loss"].tolist()
    done = tuned.config.compression
    assert (done["method"], done["objective"], done["steps"]) == ("finetune", ["cross_entropy"], 3)
    assert done["training"]["weight_decay"] == 0.1


def test_factors_stay_factors_and_shared_tensors_shared(classifier, given):
    low = compress.factorize(classifier, rank=2)
    tuned = compress.finetune(low, **given)
    assert weights(tuned).keys() == weights(low).keys()
    assert [m["method"] for m in (tuned.config.compression, tuned.config.compression["before"])] == [
        "finetune",
        "factorize",
    ]
    fused = compress.fuse(classifier, share=0.5)
    tuned = compress.finetune(fused, **given)
    count = sum(p.numel() for p in tuned.parameters())
    assert count == sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in classifier.parameters())


def test_without_steps_it_is_refused(classifier, given):
    with pytest.raises(InputError, match=r"train=... is given, and steps=0 trains nothing: give steps=..."):
        compress.finetune(classifier, train=given["train"], tokenizer=given["tokenizer"], steps=0)
    with pytest.raises(InputError, match="expected a model of transformers, found Linear"):
        compress.finetune(torch.nn.Linear(2, 2), **given)
