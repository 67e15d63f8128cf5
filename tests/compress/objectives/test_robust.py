"""Training for the worst mixture: the loss by hand, what it leaves as it was, and that the worst group gains by it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from banked import some_rows
from passes import BATCH, a_pass
from scipy.special import log_softmax, softmax
from speaking import masking, of_masked_tokens
from stops import Stops
from torch.autograd import gradcheck
from trained import QUIET, make_corpus, same, weights

import probes
from compress.objectives.base import Pass, check
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.language_model import LanguageModel
from compress.objectives.layers import HiddenStates
from compress.objectives.numbers import SquaredError
from compress.objectives.robust import Robust
from compress.objectives.robust_adversaries import ratio_loss, ratios
from compress.objectives.robust_weights import Weights
from compress.training.loop import train
from probes.errors import InputError

LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
IN_BATCH = [
    Robust(CrossEntropy(), method="kl"),
    Robust(CrossEntropy(), method="kl", bound=0.2),
    Robust(CrossEntropy(weight=0.3), method="chi2", weight=2),
    Robust(SoftLabels(temperature=2), method="cvar", share=0.3),
]


def batch_of(module, **more):
    rows = list(range(BATCH))
    return {"labels": LABELS, "index": torch.tensor(rows), "modules": {"robust": module}, **more}


@pytest.mark.parametrize(
    "objective", [CrossEntropy(weight=0.3), SoftLabels(temperature=2), SoftLabels(weight=2), SquaredError(weight=3)]
)
@pytest.mark.parametrize("tokens", [False, True])
def test_losses_of_texts_have_the_loss_as_their_mean(model, batch, objective, tokens):
    student, teacher = (a_pass(model, seed, tokens=tokens) for seed in (0, 1))
    if isinstance(objective, SquaredError):
        if tokens:
            return
        student.logits.resize_(BATCH, 1)
        batch["labels"] = LABELS.double()
    elif tokens:
        batch["labels"] = torch.where(batch["attention_mask"] == 1, 1, -100)
    each = objective.each(student, teacher, batch)
    assert each.shape == (BATCH,)
    assert float(each.mean()) == float(objective(student, teacher, batch))
    # A text alone has its own loss; of tokens, what they add to the mean over those of all texts.
    share = batch["attention_mask"].sum(1) / batch["attention_mask"].sum() * BATCH if tokens else torch.ones(BATCH)
    for i in range(BATCH):
        one, other = (type(p)(model, p.logits[i : i + 1]) for p in (student, teacher))
        alone = objective(one, other, {k: v[i : i + 1] for k, v in batch.items()})
        assert float(each[i]) == pytest.approx(float(alone * share[i]), rel=1e-6)


@pytest.mark.parametrize("objective", IN_BATCH, ids=str)
def test_the_loss_and_its_gradient_are_those_of_the_weighted_texts(model, batch, objective):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    module = objective.prepare(model, teacher.model, some_rows(), 0)
    given = batch | batch_of(module)
    each = objective.objective.each(student, teacher, given)
    r, _ = module.weigh(each, given, model)
    assert float(objective(student, teacher, given)) == pytest.approx(objective.weight * float((r * each).mean()))
    assert int(module.batches) == 1
    logits = student.logits.clone().requires_grad_()
    objective(type(student)(model, logits), teacher, given).backward()
    expected = torch.zeros_like(logits)
    for i in range(BATCH):  # each text apart
        x = student.logits.clone().requires_grad_()
        objective.objective.each(type(student)(model, x), teacher, given)[i].backward()
        expected += objective.weight * r[i] / BATCH * x.grad
    torch.testing.assert_close(logits.grad, expected)
    if objective.method != "kl" or objective.bound is not None:
        # By the envelope theorem it is the gradient of the worst case itself.
        assert gradcheck(lambda x: objective(type(student)(model, x), teacher, given), [logits], atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("method", ["kl", "cvar", "chi2", "rp-dro", "p-dro"])
def test_where_all_texts_count_alike_it_is_plain_training(make_classifier, tokenizer, method):
    """In the batch towards an infinite temperature; adversaries as they begin, whatever the temperature is."""
    limit = {"kl": {"temperature": 1e12}, "cvar": {"share": 1.0}, "chi2": {"bound": 0.0}, "p-dro": {"fitted": 2}}
    robust = Robust(CrossEntropy(), method=method, **limit.get(method, {}))
    steps = 1 if "dro" in method else 4
    steady = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    found = []
    for objective in (CrossEntropy(), robust):
        student = make_classifier(**steady)
        history = train(student, tokenizer, make_corpus(), objective=[objective], steps=steps, **QUIET)
        found.append((history["loss"], weights(student)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    real = [{k: v for k, v in w.items() if not k.endswith("key.bias")} for _, w in found]  # whose gradient is rounding
    assert same(*real, atol=1e-5)


class Learned(Weights):
    """Weighs texts by the softmax of numbers that it learns."""

    def __init__(self):
        super().__init__(0, None)
        self.logs = torch.nn.Parameter(torch.linspace(-1, 1, BATCH))

    def weigh(self, losses, batch, model):
        return ratios(self.logs, None), ratio_loss(self.logs, losses.to(self.logs), 0.5, None)


def test_an_adversary_learns_by_its_own_loss_and_the_student_by_the_weighted_one(model, batch):
    objective, module = Robust(CrossEntropy(), weight=2), Learned()
    given = batch | batch_of(module)
    logits = a_pass(model, 0).logits.clone().requires_grad_()
    loss = objective(Pass(model, logits), None, given)
    loss.backward()
    z, r = logits.detach().double().numpy(), BATCH * softmax(np.linspace(-1, 1, BATCH))
    labels = LABELS.numpy()
    losses = -log_softmax(z, axis=1)[np.arange(BATCH), labels]
    assert float(loss.detach()) == pytest.approx(2 * (r * losses).mean(), rel=1e-5)
    expected = 2 * r[:, None] / BATCH * (softmax(z, axis=1) - np.eye(z.shape[1])[labels])
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-4, atol=1e-6)
    # By hand, of v = -loss + 0.5 log r: (r / n) (v - mean of r v).
    v = -losses + 0.5 * np.log(r)
    np.testing.assert_allclose(module.logs.grad, r / BATCH * (v - (r * v).mean()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 8])
def test_a_ratio_of_a_high_temperature_is_plain_training_over_many_steps(make_classifier, tokenizer, batch_size):
    steady = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    found = []
    for objective in (CrossEntropy(), Robust(CrossEntropy(), temperature=1e6), Robust(CrossEntropy())):
        student = make_classifier(**steady)
        how = QUIET | {"batch_size": batch_size, "steps": 12}
        found.append(train(student, tokenizer, make_corpus(), objective=[objective], **how)["loss"])
    # AdamW takes steps of the learning rate also by rounding, so that ratios stay near 1, and not at it.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
    assert (found[0] - found[2]).abs().max() > 3 * (found[0] - found[1]).abs().max()


def test_it_trains_language_models_and_keeps_what_an_objective_remembers(make_tokenizer):
    tokenizer = masking(make_tokenizer)
    objective = Robust(LanguageModel(masked=0.3), method="rp-dro", temperature=1.0)
    model = of_masked_tokens(tokenizer)
    history = train(model, tokenizer, make_corpus(), objective=[objective], steps=2, **QUIET)
    assert history["robust"].gt(0).all()
    module = objective.prepare(model, None, some_rows(), 0)
    altered = objective.alter(
        {"input_ids": torch.full((2, 9), 7), "attention_mask": torch.ones(2, 9), "modules": {"robust": module}},
        tokenizer,
    )
    assert set(altered) == {"input_ids", "targets"}
    assert not hasattr(Robust(CrossEntropy()), "alter")


def test_adversaries_go_on_where_they_were_interrupted(make_classifier, tokenizer, tmp_path):
    corpus = make_corpus()

    def run(folder, *callbacks, temperature=0.5):
        student = make_classifier(hidden_dropout_prob=0.1)
        parts = [
            Robust(CrossEntropy(), temperature=temperature),
            Robust(CrossEntropy(), method="p-dro", fitted=3, name="generated", learning_rate=1e-2),
            Robust(CrossEntropy(), method="group-dro", groups="label", name="grouped"),
        ]
        options = {"objective": parts, "steps": 6, "save_every": 2, "folder": tmp_path / folder, **QUIET}
        return train(student, tokenizer, corpus, callbacks=callbacks, **options), weights(student), student

    expected = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("run", Stops(5))
    found = run("run")
    pd.testing.assert_frame_equal(found[0], expected[0])
    assert same(found[1], expected[1])
    assert set(dict(found[2].named_modules())) == set(dict(make_classifier().named_modules()))  # the adversary is gone
    with pytest.raises(InputError, match=r"temperature of robust is 0.4 here and was 0.5 there"):
        run("run", temperature=0.4)


# Planted structure: a feature that goes with nearly all texts of one class, and nearly none of the other


class OfFeatures(Weights):
    """RP-DRO by a linear model of the ratio, of the features a text has."""

    def __init__(self, x, y, temperature):
        super().__init__(0, None)
        self.x, self.y, self.temperature, self.linear = x, y, temperature, torch.nn.Linear(3, 2).double()

    def weigh(self, losses, batch, model):
        index = batch["index"]
        logs = self.linear(self.x[index]).log_softmax(1).gather(1, self.y[index, None])[:, 0]
        return ratios(logs, None).detach(), ratio_loss(logs, losses, self.temperature, None)


def worst_group(method, share, seed):
    """The accuracy of the worst of four groups, by a linear classifier of a clear feature and an unclear one."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 3000)
    marked = rng.random(3000) < np.where(np.arange(3000) < 1000, np.where(label == 0, share, 1 - share), 0.5)
    x = np.column_stack([4 * marked - 2, (2 * label - 1) + 0.7 * rng.standard_normal(3000), np.ones(3000)])
    x, y, group = torch.tensor(x), torch.tensor(label), 2 * label + marked
    rows = [{"input_ids": [1], "beside": {"bias": str(g)}} for g in group[:1000]]
    objective, module = CrossEntropy(), torch.nn.Module()
    if method == "group-dro":
        objective = Robust(CrossEntropy(), method="group-dro", groups="bias")
        module = objective.prepare(None, None, rows, seed)
    elif method == "rp-dro":
        objective, module = Robust(CrossEntropy()), OfFeatures(x, y, temperature=0.1)
    linear = torch.nn.Linear(3, 2).double()
    optimizer = torch.optim.Adam([*linear.parameters(), *module.parameters()], lr=0.05)
    for _ in range(100):
        index = torch.tensor(rng.integers(0, 1000, 64))
        batch = {"labels": y[index], "index": index, "modules": {"robust": module}}
        optimizer.zero_grad()
        objective(Pass(None, linear(x[index])), None, batch).backward()
        optimizer.step()
    right = (linear(x[1000:]).argmax(1) == y[1000:]).numpy()
    return pd.Series(right).groupby(group[1000:]).mean().min()


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_the_worst_group_gains_where_a_feature_is_spurious_and_not_where_it_is_none(share):
    plain = [worst_group("plain", share, seed) for seed in range(2)]
    for method in ("group-dro", "rp-dro"):
        gains = [worst_group(method, share, seed) - plain[seed] for seed in range(2)]
        if share > 0.9:  # of 500 texts a group, two accuracies of .7 differ by .06 once in twenty cases
            assert min(gains) > 0.08
        else:
            assert max(gains) < 0.08


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Robust(HiddenStates()), "hidden_states gives no loss for each text, so that none can count more"),
        (lambda: Robust(Robust(CrossEntropy())), "robust gives no loss for each text"),
        (lambda: Robust(LanguageModel(packed=True)), "language_model packs several texts into a row"),
        (lambda: Robust(CrossEntropy(), method="dro"), "method='dro': expected one of"),
        (
            lambda: Robust(CrossEntropy(), groups="label"),
            "groups='label' is of method='group-dro', found method='rp-dro'",
        ),
        (lambda: Robust(CrossEntropy(), "cvar", share=1.5), "share=1.5: expected at most 1"),
        (lambda: Robust(CrossEntropy(), "cvar", share=0), "share=0: expected a finite number above 0"),
        (lambda: Robust(CrossEntropy(), temperature=0), "temperature=0: expected a finite number above 0"),
        (lambda: Robust(CrossEntropy(), "kl", bound=-1), "bound=-1: expected a finite number at least 0"),
        (lambda: Robust(CrossEntropy(), "kl", bound=1, temperature=1), "temperature=1 and bound=1: give one"),
        (lambda: Robust(CrossEntropy(), "p-dro", fitted=0), "fitted=0: expected a whole number of at least 1"),
        (lambda: Robust(CrossEntropy(), weight=math.nan), "weight=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_groups_and_text_are_refused_before_a_step(make_classifier, tokenizer):
    corpus = make_corpus()
    nothing = probes.load_corpus(
        pd.DataFrame({"id": range(4), "language": "en", "text": "[PAD]", "label": ["x", "y"] * 2})
    )
    uneven = corpus.map(lambda row, i: {"topic": "rare" if i == 20 else "usual"}, with_indices=True)
    gaps = corpus.map(lambda row, i: {"topic": None if i == 14 else "pq"[i % 2]}, with_indices=True)
    for given, settings, message in (
        (
            corpus,
            {"groups": "topic"},
            r"the corpus has no column 'topic', which this training reads; it has 'id', 'lang",
        ),
        (corpus, {"groups": "group"}, r"groups='group': the column is missing in row 0 of those trained on"),
        (corpus, {}, "all 36 texts are of the group 'en': expected at least two groups"),
        (uneven, {"groups": "topic"}, "the group 'rare' has one text"),
        (gaps, {"groups": "topic"}, "groups='topic': the column is null in row 2 of those trained on"),
    ):
        objective = Robust(CrossEntropy(), method="group-dro", **settings)
        with pytest.raises(InputError, match=message):
            train(make_classifier(), tokenizer, given, objective=[objective], steps=1, **QUIET)
    with pytest.raises(
        InputError, match="an adversary that generates text, and no text has a token that is not special"
    ):
        train(make_classifier(), tokenizer, nothing, objective=[Robust(CrossEntropy(), "p-dro")], steps=1, **QUIET)
    with pytest.raises(InputError, match="robust needs labels, the data has none"):
        check([Robust(CrossEntropy())], make_classifier(), None, labelled=False)
    with pytest.raises(InputError, match="robust needs a teacher"):
        check([Robust(SoftLabels())], make_classifier(), None, labelled=False)
