"""What all objectives have in common: their formula in float64, zero, gradient, what padding does, and bad input."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch
from passes import (
    BY_LAYER,
    ENCODER,
    HEADS,
    LAYERS,
    PAIRED,
    VARIANTS,
    WIDTH,
    a_pass,
    by_hand,
    compared,
    replaced,
)
from torch.autograd import gradcheck

from compress.objectives.base import Objective, Pass, check, uniform_layers
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates, watching_attention
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE
from compress.objectives.weights import AlignedWeights
from probes.errors import InputError


@pytest.mark.parametrize("objective", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_an_objective_is_its_formula(model, batch, objective, dtype):
    student, teacher = (a_pass(model, seed, dtype=dtype) for seed in (0, 1))
    in_float64 = [
        dataclasses.replace(
            p,
            logits=p.logits.double(),
            hidden_states=tuple(x.double() for x in p.hidden_states),
            attentions=tuple(x.double() for x in p.attentions),
            attention_outputs=tuple(x.double() for x in p.attention_outputs),
        )
        for p in (student, teacher)
    ]
    found = objective(student, teacher, batch)
    assert found.shape == ()
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = objective.weight * by_hand(objective, *in_float64, batch)
    assert expected > 1e-3
    assert float(found) == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("kind", [k for k in PAIRED if k is not CrossCorrelation])
def test_a_student_that_equals_its_teacher_has_no_loss_and_another_has(model, batch, kind):
    student = a_pass(model, 0)
    assert float(kind()(student, student, batch)) == pytest.approx(0, abs=1e-15)
    assert float(kind()(student, a_pass(model, 1), batch)) > 1e-3


@pytest.mark.parametrize("objective", [o for o in VARIANTS if getattr(o, "layers", None) is None], ids=str)
def test_the_gradient_is_that_of_the_loss_and_none_reaches_the_teacher(model, batch, objective):
    what, of = compared(objective)
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    s, t = of(student).clone().requires_grad_(), of(teacher).clone().requires_grad_()
    assert gradcheck(lambda x: objective(replaced(student, what, x), teacher, batch), (s,))
    loss = objective(replaced(student, what, s), replaced(teacher, what, t), batch)
    loss.backward()
    assert t.grad is None
    # A small step against the gradient lowers the loss, by what the gradient says.
    step = 1e-5 / float(s.grad.norm())
    lower = objective(replaced(student, what, s.detach() - step * s.grad), teacher, batch)
    assert float(loss.detach() - lower) == pytest.approx(step * float(s.grad.square().sum()), rel=1e-2)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("objective", VARIANTS, ids=str)
def test_more_padding_changes_nothing_whatever_stands_there(model, batch, objective, side):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    expected = float(objective(student, teacher, batch))
    if objective.needs == {"teacher"}:
        student, teacher = a_pass(model, 0, tokens=True), a_pass(model, 1, tokens=True)
        expected = float(objective(student, teacher, batch))

    def pad(x, tokens, value=math.nan):
        add = (0, 3) if side == "right" else (3, 0)
        return torch.nn.functional.pad(x, add if tokens == 1 else (0, 0, *add) if tokens == 0 else add * 2, value=value)

    def padded(given):
        return Pass(
            model,
            pad(given.logits, 0),
            tuple(pad(h, 0) for h in given.hidden_states),
            tuple(pad(a, 2) for a in given.attentions),
            tuple(pad(a, 0) for a in given.attention_outputs),
        )

    longer = {"attention_mask": pad(batch["attention_mask"], 1, 0)}
    student, teacher = padded(student), padded(teacher)
    what, of = compared(objective)
    x = of(student).requires_grad_()
    loss = objective(replaced(student, what, x), teacher, longer)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    if getattr(objective, "layers", None) is None:
        loss.backward()
        assert torch.isfinite(x.grad).all()
        if x.ndim == 3:
            assert (x.grad[longer["attention_mask"] == 0] == 0).all()


def test_what_is_not_padding_does_change_something(model, batch):
    """The control to the test above: unmasked, the same tokens count."""
    student, teacher = a_pass(model, 0, tokens=True), a_pass(model, 1, tokens=True)
    everything = {"attention_mask": torch.ones_like(batch["attention_mask"])}
    for objective in [SoftLabels(), RepresentationMSE(pooling="mean"), *(kind() for kind in BY_LAYER)]:
        found = [float(objective(student, teacher, b)) for b in (batch, everything)]
        assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_texts_of_padding_alone_are_finite(model, batch):
    batch["attention_mask"][0] = 0
    none = {"attention_mask": torch.zeros_like(batch["attention_mask"])}
    for objective in VARIANTS:
        for given in (batch, none):
            assert torch.isfinite(objective(a_pass(model, 0, tokens=True), a_pass(model, 1, tokens=True), given))


def test_the_pass_of_a_real_model_and_more_padding(tiny_models):
    """All objectives at once on what transformers returns, with and without padding, and gradients on the model."""
    student, teacher = tiny_models(ENCODER), tiny_models(ENCODER, hidden_act="relu")
    ids = torch.randint(4, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), torch.tensor([0, 1, 2, 0])
    mask[0, 4:] = 0
    short = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    pad = {k: torch.nn.functional.pad(short[k], (0, 5)) for k in ("input_ids", "attention_mask")}
    objectives = [CrossEntropy(), *(kind() for kind in PAIRED), AlignedWeights(teacher)]
    check(objectives, student, teacher, labelled=True)
    found = []
    for b in (short, {**short, **pad}):
        passes = []
        for model in (student, teacher):
            model.set_attn_implementation("eager")
            with watching_attention(model) as seen:
                out = model(b["input_ids"], b["attention_mask"], output_hidden_states=True, output_attentions=True)
            passes.append(Pass(model, out.logits, out.hidden_states, out.attentions, tuple(seen)))
        found.append(torch.stack([o(*passes, b) for o in objectives]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-7)
    found[0].sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())


# Students of another width or depth


@pytest.mark.parametrize("kind", [RepresentationMSE, RepresentationCosine, CrossCorrelation, *BY_LAYER])
def test_what_differs_in_width_is_compared_by_a_learned_map(tiny_models, kind):
    objective = kind(weight=2)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 5}
    student, teacher = tiny_models(ENCODER), tiny_models(ENCODER, **sizes)
    ids = torch.randint(4, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    passes = []
    for one in (student, teacher):
        one.set_attn_implementation("eager")
        with watching_attention(one) as seen, torch.no_grad():
            out = one(ids, mask, output_hidden_states=True, output_attentions=True)
        passes.append(Pass(one, out.logits, out.hidden_states, out.attentions, tuple(seen)))
    check([objective], *(p.model for p in passes), labelled=False)
    learned = objective.prepare(student, teacher, [], 0)
    batch = {"attention_mask": mask, "modules": {objective.name: learned}}
    loss = objective(*passes, batch)
    # The same by a student that gives the mapped numbers itself.
    what = "attentions" if kind is Attentions else next(iter(objective.needs - {"teacher"}))
    mine = [np.asarray(x, float) for x in getattr(passes[0], what)]
    last = str(len(mine) - 1) if kind in BY_LAYER else "0"
    mapped = []
    for i, x in enumerate(mine):
        layer = learned[str(i) if kind in BY_LAYER else "0"]
        weight = layer.weight.detach().numpy()
        if kind is Attentions:
            assert layer.bias is None
            mapped.append(torch.tensor(np.einsum("bhst,gh->bgst", x, weight)))
        else:
            mapped.append(torch.tensor(x @ weight.T + layer.bias.detach().numpy()))
    replaced_student = dataclasses.replace(passes[0], **{what: tuple(mapped)})
    theirs = dataclasses.replace(passes[1], **{what: tuple(x.double() for x in getattr(passes[1], what))})
    by_number = objective
    if kind in BY_LAYER:
        pairs = {0: 0, 1: 2, 2: 3, 3: 5} if kind is HiddenStates else {1: 2, 2: 3, 3: 5}
        assert sorted(learned) == [str(i) for i in range(len(pairs))]
        by_number = dataclasses.replace(objective, layers=pairs)
    expected = 2 * by_hand(by_number, replaced_student, theirs, batch)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in learned[last].parameters())
    with pytest.raises(InputError, match=r"by the student, .* by the teacher: expected the same"):
        objective(*passes, {"attention_mask": mask})
    # Of models of one size nothing is learned, and angles need no map.
    assert not list(objective.prepare(student, tiny_models(ENCODER), [], 0).parameters())
    assert not list(Relational().prepare(student, teacher, [], 0).parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (2, 6, [0, 3, 6]),
        (3, 12, [0, 4, 8, 12]),
        (4, 4, [0, 1, 2, 3, 4]),
        (2, 5, [0, 3, 5]),
        (1, 7, [0, 7]),
        (0, 3, [0]),
    ],
)
def test_the_uniform_map_ends_where_the_teacher_does(student, teacher, expected):
    assert uniform_layers(student, teacher) == expected


# Bad input


@pytest.mark.parametrize("kind", [CrossEntropy, *PAIRED, AlignedWeights])
@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, "1", None])
def test_a_weight_is_a_finite_number_of_at_least_zero(model, kind, weight):
    first = [model] if kind is AlignedWeights else []
    with pytest.raises(InputError, match=r"weight=.*expected a finite number at least 0"):
        kind(*first, weight=weight)
    kind(*first, weight=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftLabels(temperature=0), "temperature=0: expected a finite number above 0"),
        (lambda: SoftLabels(temperature=-1), "temperature=-1"),
        (lambda: SoftLabels(temperature=math.inf), "temperature=inf"),
        (lambda: CrossCorrelation(off_diagonal=-1), "off_diagonal=-1"),
        (lambda: RepresentationMSE(pooling="last"), "pooling='last': expected one of"),
        (lambda: RepresentationCosine(pooling="cls"), "pooling='cls': expected one of"),
        (lambda: CrossCorrelation(pooling=""), "pooling='': expected one of"),
        (lambda: Relational(distance=-1), "distance=-1"),
        (lambda: Relational(angle=math.nan), "angle=nan"),
        (lambda: HiddenStates(layers={}), "layers is empty"),
        (lambda: Attentions(layers={}), "layers is empty"),
        (lambda: AlignedWeights({}, form="l2"), "form='l2': expected one of"),
        (lambda: AlignedWeights({}, matrices=[]), "expected a list of names"),
        (lambda: AlignedWeights({}, matrices="encoder"), "expected a list of names"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_check_passes_what_fits(tiny_models, model):
    teacher = tiny_models(ENCODER)
    check([CrossEntropy(), *(kind() for kind in PAIRED), AlignedWeights(teacher)], model, teacher, labelled=True)
    check([SoftLabels(), SoftLabels(name="again", temperature=2)], model, teacher, labelled=False)
    check([AlignedWeights(teacher)], model, None, labelled=False)
    shallow = tiny_models(ENCODER, num_hidden_layers=2)
    layers = [HiddenStates(layers={0: 0, 2: 3}), Attentions(layers={1: 1, 2: 3})]
    check([SoftLabels(), CrossCorrelation(), *layers], shallow, teacher, labelled=False)
    narrow = tiny_models("DistilBertForSequenceClassification", dim=8)
    check([SoftLabels(), Attentions()], narrow, teacher, labelled=False)
    check(
        [CrossEntropy(), SoftLabels()], tiny_models("GPT2LMHeadModel"), tiny_models("LlamaForCausalLM"), labelled=True
    )


@pytest.mark.parametrize(
    ("objectives", "student", "teacher", "message"),
    [
        ([], {}, {}, "at least one objective"),
        ([SoftLabels(), SoftLabels(temperature=2)], {}, {}, "2 objectives are named soft_labels: give each"),
        *(([kind()], {}, None, "needs a teacher, found none") for kind in PAIRED),
        ([SoftLabels()], {}, {"num_labels": 4}, "the student has 3 classes, the teacher 4"),
        ([SoftLabels()], {}, {"id2label": {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}}, "in different orders"),
        ([SoftLabels()], {"num_labels": 1}, {"num_labels": 1}, "at least two classes"),
        ([CrossEntropy()], {"num_labels": 1}, None, "takes labels of .* is for one number a text"),
        ([HiddenStates()], {}, {"num_hidden_layers": 2}, "student has 4 layers to compare, the teacher 3.*layers="),
        ([Attentions()], {}, {"num_hidden_layers": 2}, "student has 3 layers to compare, the teacher 2"),
        ([AttentionOutputs()], {}, {"num_hidden_layers": 2}, "student has 3 layers to compare, the teacher 2"),
        ([HiddenStates(layers={0: 4})], {}, {}, "layers has 0: 4.*from 0 to 3"),
        ([HiddenStates(layers={-1: 3})], {}, {}, "layers has -1: 3"),
        ([Attentions(layers={1: 4})], {}, {}, "layers has 1: 4.*from 1 to 3"),
        ([AttentionOutputs(layers={0: 1})], {}, {}, "layers has 0: 1.*from 1 to 3, as 0 is the embeddings"),
    ],
)
def test_check_refuses_what_does_not_fit(tiny_models, objectives, student, teacher, message):
    student = tiny_models(ENCODER, **student)
    with pytest.raises(InputError, match=message):
        check(objectives, student, None if teacher is None else tiny_models(ENCODER, **teacher), labelled=True)


def test_an_objective_of_ones_own_is_checked_too(model):
    own = types.SimpleNamespace(name="own", weight=1.0, needs=frozenset())
    check([own], model, None, labelled=False)
    own.check = lambda student, teacher: (_ for _ in ()).throw(InputError("own check"))
    with pytest.raises(InputError, match="own check"):
        check([own], model, None, labelled=False)
    for change, message in [
        ({"needs": frozenset({"gradients"})}, "needs .'gradients'.*any of"),
        ({"weight": -1}, "-1"),
    ]:
        with pytest.raises(InputError, match=message):
            check([types.SimpleNamespace(**{**vars(own), **change})], model, None, labelled=False)


@pytest.mark.parametrize("kind", PAIRED)
def test_a_call_without_what_is_needed_says_so(model, batch, kind):
    student, teacher, objective = a_pass(model, 0), a_pass(model, 1), kind()
    with pytest.raises(InputError, match="needs a teacher"):
        objective(student, None, batch)
    what, of = compared(objective)
    wanted = {
        "logits": "gave no logits",
        "hidden_states": "output_hidden_states=True",
        "attentions": r'output_attentions=True after model.set_attn_implementation\("eager"\)',
        "attention_outputs": "gave no attention outputs: call it within watching_attention",
    }[what]
    with pytest.raises(InputError, match=wanted):
        objective(dataclasses.replace(student, **{what: None}), teacher, batch)
    with pytest.raises(InputError, match=wanted):
        objective(student, dataclasses.replace(teacher, **{what: None}), batch)
    x = of(teacher)
    with pytest.raises(InputError, match=r"of shape .* by the student, .* by the teacher"):
        objective(student, replaced(teacher, what, torch.cat([x, x], dim=1)), batch)
    if what != "logits":
        with pytest.raises(InputError, match="the batch has no attention_mask"):
            objective(student, teacher, {"labels": batch["labels"]})
        with pytest.raises(InputError, match=r"attention_mask of shape \(6, 5\).*found \(6, 4\)"):
            objective(student, teacher, {"attention_mask": batch["attention_mask"][:, :4]})


def test_every_objective_is_one_to_a_type_checker_and_has_a_name_of_its_own(model):
    every: list[Objective] = [
        CrossEntropy(),
        SoftLabels(),
        RepresentationMSE(),
        RepresentationCosine(),
        CrossCorrelation(),
        Relational(),
        HiddenStates(),
        Attentions(),
        AttentionOutputs(),
        AlignedWeights(model),
        AlignedWeights(model, form="frobenius"),
    ]
    assert len({o.name for o in every}) == len(every)
    assert all(o.weight == 1 for o in every)
    with pytest.raises(dataclasses.FrozenInstanceError):
        every[0].weight = 2
    assert "Parameter" not in repr(every[-1])


@pytest.mark.parametrize("kind", [HiddenStates, RepresentationMSE, RepresentationCosine, CrossCorrelation])
def test_a_learned_map_reads_states_in_float64(tiny_models, batch, kind):
    sizes = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS - 1}
    narrow, teacher = (tiny_models(ENCODER, **sizes | more) for more in ({}, {"hidden_size": 6}))
    objective = kind()
    learned = objective.prepare(narrow, teacher, [], seed=0)  # in float32
    s, t = a_pass(narrow, 0), a_pass(teacher, 1)
    t = dataclasses.replace(t, hidden_states=tuple(torch.cat([x, x[..., :2].cos()], 2) for x in t.hidden_states))
    got = objective(s, t, batch | {"modules": {objective.name: learned}})
    exact = objective(s, t, batch | {"modules": {objective.name: learned.double()}})
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(exact.item(), rel=1e-5)
