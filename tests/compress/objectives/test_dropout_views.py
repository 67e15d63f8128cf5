"""Contrast of views: against its formula by loops, its gradient, the dropout of each view, and a training."""

import math

import numpy as np
import pytest
import torch
from stops import goes_on
from torch.autograd import gradcheck
from trained import QUIET, make_corpus

from compress.objectives.base import Pass
from compress.objectives.dropout_views import SupCLSeq, dropout_at, view_contrast
from compress.training.loop import train
from probes.errors import InputError

LABELS = [0, 1, 0, 2]


def by_loops(v, labels, temperature):
    v = v / np.linalg.norm(v, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(v)):
        scores = [math.exp(v[i] @ v[j] / temperature) for j in range(len(v))]
        rest = sum(s for j, s in enumerate(scores) if j != i)
        alike = [j for j in range(len(v)) if j != i and labels[j] == labels[i]]
        if alike:
            total -= temperature / 0.07 * np.mean([math.log(scores[j] / rest) for j in alike])
    return total / len(v)


def test_the_contrast_is_its_formula():
    v = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for labels in (torch.tensor(LABELS * 2), torch.arange(8)):
        found = view_contrast(v, labels, 0.2)
        assert float(found) == pytest.approx(by_loops(v.numpy(), labels.tolist(), 0.2), rel=1e-12)
    assert gradcheck(lambda x: view_contrast(x, torch.tensor(LABELS * 2), 0.2), [v.clone().requires_grad_()])


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_the_loss_is_that_of_a_pass_for_each_rate(make_classifier, pooling):
    model = make_classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    ids = torch.randint(4, 20, (4, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(LABELS)}
    passes = []
    handle = model.bert.register_forward_hook(lambda *_: passes.append(1))
    own = model(ids, mask, output_hidden_states=True).hidden_states
    rates = (0.0, 0.4)
    others = [make_classifier(hidden_dropout_prob=rate, attention_probs_dropout_prob=rate).train() for rate in rates]
    torch.manual_seed(7)
    objective = SupCLSeq(weight=2, rates=rates, pooling=pooling)
    found = objective(Pass(model, None, hidden_states=own), None, batch)
    assert len(passes) == 3  # one a view, the loop's own included
    torch.manual_seed(7)
    states = [own[-1], *(other.bert(ids, mask).last_hidden_state for other in others)]
    v = [s[:, 0] if pooling == "first" else (s * mask[..., None]).sum(1) / mask.sum(1, keepdim=True) for s in states]
    expected = 2 * by_loops(torch.cat(v).detach().double().numpy(), LABELS * 3, 0.05)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    handle.remove()


@pytest.mark.parametrize(
    ("architecture", "where"),
    [
        ("BertModel", "encoder.layer.0.attention.self.dropout.p"),
        ("DistilBertModel", "transformer.layer.0.attention.dropout.p"),
        ("LlamaModel", "layers.0.self_attn.attention_dropout"),
    ],
)
def test_dropout_is_set_everywhere_and_put_back(tiny_models, architecture, where):
    model = tiny_models(architecture)

    def rate():
        module, name = where.rsplit(".", 1)
        return getattr(model.get_submodule(module), name)

    before = rate()
    with dropout_at(model, 0.37):
        assert rate() == 0.37
    assert rate() == before


def test_training_brings_classes_together_and_shuffled_ones_do_not_help(make_classifier, tokenizer):
    found = {}
    corpus = make_corpus()
    shuffled = corpus.map(lambda row, i: {"label": "xyz"[(7 * i) // 5 % 3]}, with_indices=True)
    for name, given in (("planted", corpus), ("shuffled", shuffled)):
        model = make_classifier()
        settings = QUIET | {"learning_rate": 5e-3, "batch_size": 12}
        train(model, tokenizer, given, objective=[SupCLSeq(pooling="mean", temperature=0.2)], steps=12, **settings)
        inputs = tokenizer(list(corpus["text"]), padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model.eval().bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        z = ((states * mask).sum(1) / mask.sum(1)).numpy()
        z = (z - z.mean(0)) / np.linalg.norm(z - z.mean(0), axis=1, keepdims=True)
        alike = np.array(corpus["label"])[:, None] == np.array(corpus["label"])
        found[name] = (z @ z.T)[alike].mean() - (z @ z.T)[~alike].mean()
    assert found["planted"] > 0.5
    assert found["planted"] > found["shuffled"] + 0.2


def test_it_goes_on_where_it_was_interrupted(make_classifier, tokenizer, tmp_path):
    corpus = make_corpus()

    def run(folder, *callbacks):
        student = make_classifier(hidden_dropout_prob=0.1)
        how = {"steps": 4, "save_every": 2, "folder": folder, "callbacks": callbacks, **QUIET}
        return train(student, tokenizer, corpus, objective=[SupCLSeq(rates=(0.2,))], **how), student

    (history, _), _ = goes_on(run, tmp_path, 3)
    assert history["supcl_seq"].is_unique  # each batch, and each draw of dropout, is another


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SupCLSeq(rates=()), "rates is empty: give the dropout of one further view at least"),
        (lambda: SupCLSeq(rates=(0.1, 1.0)), "rates has 1.0: expected below 1"),
        (lambda: SupCLSeq(rates=(-0.1,)), "rates=-0.1: expected a finite number at least 0"),
        (lambda: SupCLSeq(temperature=0), "temperature=0: expected a finite number above 0"),
        (lambda: SupCLSeq(pooling="last"), "pooling='last': expected one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_labels_are_needed(make_classifier, tokenizer):
    bare = make_corpus().remove_columns("label")
    with pytest.raises(InputError, match="supcl_seq needs labels, the data has none: add a label column"):
        train(make_classifier(), tokenizer, bare, objective=[SupCLSeq()], steps=1, **QUIET)
