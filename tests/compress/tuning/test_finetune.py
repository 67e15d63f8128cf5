"""Plain fine-tuning: what is trained, what stays as it was, what is recorded."""

import pytest
import torch
from ranked import together
from safetensors.torch import load_file, save_file
from trained import QUIET, make_corpus, same, weights

import compress
from compress.training.loop import train
from compress.training.minmax import MinmaxValidation
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


def by_the_worst_adversary(tokenizer):
    objective = compress.Robust(compress.CrossEntropy(), temperature=0.1)
    dev = make_corpus().filter(lambda row: row["split"] == "dev")
    return {"objective": objective, "callbacks": [MinmaxValidation(objective, tokenizer, dev, every=2)]}


@pytest.mark.parametrize(
    "make_settings",
    [
        pytest.param(lambda _: {"best": "accuracy", "looks": 4}, id="best step"),
        pytest.param(by_the_worst_adversary, id="worst adversary"),
        pytest.param(lambda _: {"layers": "by variability", "tuned": 1}, id="by variability"),
        pytest.param(lambda _: {"gradients": compress.GradualUnfreezing()}, id="unfreezing"),
        pytest.param(lambda _: {"gradients": compress.GradDrop(0.5, per="layer")}, id="by layer"),
        pytest.param(lambda _: {"gradients": compress.GradDrop(0.2, "epoch", accumulating=True)}, id="accumulating"),
    ],
)
def test_two_processes_tune_as_one_does(make_classifier, given, tmp_path, make_settings):
    how = given | {"steps": 10, "learning_rate": 5e-3}
    model = make_classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

    def tuned(folder):
        def work(rank):
            made = compress.finetune(model, **how, **make_settings(given["tokenizer"]))
            save_file(weights(made), folder / f"{rank}.safetensors")
            done = made.config.compression
            return [done.get(name) for name in ("best", "layers", "head_layer", "gradients")]

        return work

    (tmp_path / "one").mkdir()
    (_, expected), *_ = together(tuned(tmp_path / "one"), 1)
    ends = together(tuned(tmp_path), 2)
    assert ends == [("done", expected)] * 2
    alone, *found = (load_file(tmp_path / name) for name in ("one/0.safetensors", "0.safetensors", "1.safetensors"))
    assert same(*found)
    # Softmax does not see the biases of keys: their gradients are rounding, which AdamW takes for a direction.
    real = {name for name in alone if not name.endswith("key.bias")}
    assert same({name: alone[name] for name in real}, {name: found[0][name] for name in real}, atol=1e-5)
    assert not same({k: v for k, v in weights(model).items() if k in alone}, alone, atol=1e-4)  # it was trained
