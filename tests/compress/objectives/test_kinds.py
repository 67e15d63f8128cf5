"""Every kind of labels through every verb and objective that applies, and each refusal by its text."""

import numpy as np
import pytest
import torch
from labelled import HEADS, corpus_of, model_of
from trained import QUIET

import compress
from compress.objectives.kinds import supervised, taught
from compress.training.loop import train
from probes.errors import InputError
from probes.states.predictions import label_codes

OF_LABELS = dict.fromkeys(HEADS, "cross_entropy") | {"numbers": "squared_error"}
STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS = list(HEADS)
ANY = [
    compress.HiddenStates(),
    compress.Attentions(),
    compress.AttentionOutputs(),
    compress.CrossCorrelation(),
    compress.Relational(),
    compress.RepresentationCosine(),
    compress.RepresentationMSE(),
]


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("BertForSequenceClassification", ("cross_entropy", "soft_labels")),
        ("GPT2LMHeadModel", ("language_model", "soft_labels")),
        ("BertModel", ("cross_entropy", "soft_labels")),
    ],
)
def test_the_objective_is_that_of_the_head(tiny_models, architecture, names):
    model = tiny_models(architecture)
    assert [(o.name, o.weight) for o in (supervised(model, 0.5), taught(model, 0.5))] == [(name, 0.5) for name in names]
    assert taught(model_of("numbers", tiny_models), 0.5).name == "squared_error_to_teacher"


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_transformers(tokenizer, tiny_models, kind):
    corpus, model = (
        corpus_of(kind, 8),
        model_of(kind, tiny_models, **STEADY),
    )
    batch = tokenizer(list(corpus["text"]), padding=True, return_tensors="pt")
    names = list(model.config.id2label.values())
    if kind == "numbers":
        labels = torch.tensor([float(label) for label in corpus["label"]])
    elif kind == "several":
        labels = torch.tensor([[float(c in cell.split()) for c in names] for cell in corpus["labels"]])
    elif kind == "words":  # one token a word, between the two special ones
        labels = torch.full_like(batch["input_ids"], -100)
        for row, tags in zip(labels, corpus["tags"], strict=True):
            codes = [names.index(tag) for tag in tags.split()]
            row[1 : 1 + len(codes)] = torch.tensor(codes)
    else:
        labels = torch.from_numpy(label_codes(np.asarray(corpus["label"]), names, "m").astype(np.int64))
    with torch.no_grad():
        expected = float(model(**batch, labels=labels).loss)
    history = train(model, tokenizer, corpus, objective=[supervised(model)], steps=1, **QUIET)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-6)
    assert list(history) == ["step", OF_LABELS[kind], "loss"]


def loss_of(model, tokenizer, corpus):
    copied = compress.prune(model, sparsity=0.0)
    return train(copied, tokenizer, corpus, objective=[supervised(model)], steps=1, **QUIET | {"batch_size": 48})[
        "loss"
    ][0]


@pytest.mark.parametrize("kind", ["numbers", "several", "words"])
def test_each_kind_is_learned_and_goes_through_every_verb(tokenizer, tiny_models, kind):
    corpus = corpus_of(kind)
    model = model_of(kind, tiny_models, **STEADY)
    given = {"train": corpus, "tokenizer": tokenizer, **QUIET, "learning_rate": 5e-3}
    tuned = compress.finetune(model, steps=40, **given)
    assert loss_of(tuned, tokenizer, corpus) < 0.8 * loss_of(model, tokenizer, corpus)
    given |= {"steps": 1}
    assert list(compress.prune(tuned, sparsity=0.5, **given).history) == ["step", OF_LABELS[kind], "loss"]
    assert list(compress.quantize(tuned, bits=4, **given).history) == ["step", OF_LABELS[kind], "loss"]
    student = compress.distill(tuned, layers=2, **given)
    assert list(student.history) == ["step", OF_LABELS[kind], taught(model).name, "hidden_states", "loss"]
    del given["train"], given["tokenizer"]
    made = compress.recipes.self_distilled_pruning(
        tuned, tokenizer, corpus, sparsity=0.5, variant="soft_labels", **given
    )
    assert list(made.history) == ["step", OF_LABELS[kind], taught(model).name, "loss"]


@pytest.mark.parametrize("kind", ["numbers", "several", "words"])
def test_objectives_that_read_no_labels_apply_to_every_kind(tokenizer, tiny_models, kind):
    corpus, teacher = corpus_of(kind), model_of(kind, tiny_models)
    student = compress.prune(teacher, sparsity=0.3)
    objective = [supervised(student), taught(student), *ANY, compress.AlignedWeights(teacher)]
    history = train(student, tokenizer, corpus, objective=objective, teacher=teacher, steps=1, **QUIET)
    assert np.isfinite(history.to_numpy(float)).all()
    assert history.shape == (1, 2 + len(objective))


def test_soft_labels_of_several_classes_are_those_of_each_apart(tiny_models):
    model = model_of("several", tiny_models)
    one, two = (torch.randn(4, 3, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    found = compress.SoftLabels(temperature=2.0)(
        compress.objectives.Pass(model, one), compress.objectives.Pass(model, two), {}
    )
    p, q = (two / 2).sigmoid(), (one / 2).sigmoid()
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(found) == pytest.approx(4 * float(by_hand), rel=1e-6)


NUMBERS = "takes labels of one class a text, and the head of BertForSequenceClassification is for one number a text"


@pytest.mark.parametrize(
    ("objective", "kind", "message"),
    [
        (compress.CRD(k=2), "numbers", f"objective crd {NUMBERS}: take another objective, or another head"),
        (compress.CoDIR(k=2), "numbers", f"objective codir {NUMBERS}"),
        (compress.SupervisedContrast(), "numbers", f"objective supervised_contrast {NUMBERS}"),
        *(
            (contrastive, kind, f"{contrastive.name} takes labels of one class a text, and the head of .* is for {of}")
            for contrastive in (compress.CRD(k=2), compress.CoDIR(k=2), compress.SupervisedContrast())
            for kind, of in (("several", "none or several classes a text"), ("words", "one class a word"))
        ),
        (compress.CrossEntropy(), "numbers", "objective cross_entropy takes labels of .* is for one number a text"),
        (compress.SquaredError(), "words", "squared_error: BertForTokenClassification gives 3 classes or numbers a te"),
        (compress.LanguageModel(), "words", "BertForTokenClassification predicts no tokens"),
    ],
)
def test_a_kind_that_an_objective_cannot_take_is_refused_by_name(tokenizer, tiny_models, objective, kind, message):
    model = model_of(kind, tiny_models)
    with pytest.raises(InputError, match=message):
        train(model, tokenizer, corpus_of(kind), objective=[objective], teacher=model, steps=1, **QUIET)


def test_what_is_missing_is_named(tokenizer, tiny_models):
    for kind, message in (
        ("words", "add a column 'tags', one class a word"),
        ("several", "add a column 'labels', none or"),
    ):
        with pytest.raises(InputError, match=f"cross_entropy needs labels, the data has none: {message}"):
            compress.finetune(model_of(kind, tiny_models), train=corpus_of("classes"), tokenizer=tokenizer, steps=1)
    with pytest.raises(InputError, match=r"criterion='gradient' is of the loss of one class a text, and the head"):
        compress.prune(
            model_of("numbers", tiny_models), sparsity=0.5, criterion="gradient", train=corpus_of("numbers"),
            tokenizer=tokenizer,
        )  # fmt: skip
    with pytest.raises(InputError, match=r"importance='taylor' needs a head .* num_labels=1"):
        compress.prune_heads(
            model_of("numbers", tiny_models), 0.5, importance="taylor", corpus=corpus_of("numbers"), tokenizer=tokenizer
        )
