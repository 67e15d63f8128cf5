"""Objectives: each against its formula in float64, its zero, its gradient, what padding does to it, and bad input."""

import dataclasses
import itertools
import math
import types

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.autograd import gradcheck

from compress import prune, prune_heads
from compress.matrices import block_matrices
from compress.objectives.base import Objective, Pass, check, uniform_layers
from compress.objectives.labels import CrossEntropy, SoftLabels
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates, watching_attention
from compress.objectives.texts import CrossCorrelation, Relational, RepresentationCosine, RepresentationMSE
from compress.objectives.weights import AlignedWeights
from probes.errors import InputError

BATCH, TOKENS, WIDTH, HEADS, LAYERS, CLASSES = 6, 5, 4, 2, 3, 3
REPRESENTATION = [RepresentationMSE, RepresentationCosine, CrossCorrelation, Relational]
BY_LAYER = [HiddenStates, Attentions, AttentionOutputs]
PAIRED = [*REPRESENTATION, SoftLabels, *BY_LAYER]
ENCODER = "BertForSequenceClassification"


@pytest.fixture
def batch():
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
    mask[0, 3:], mask[1, 2:], mask[2, 4:] = 0, 0, 0
    return {"attention_mask": mask, "labels": torch.tensor([0, 1, 2, 2, 1, 0])}


@pytest.fixture
def model(tiny_models):
    return tiny_models(ENCODER)


def a_pass(model, seed, tokens=False, dtype=torch.float64):
    make = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64).to(dtype)

    return Pass(
        model,
        logits=2 * draw(BATCH, *([TOKENS] if tokens else []), CLASSES),
        hidden_states=tuple(draw(BATCH, TOKENS, WIDTH) + 1 for _ in range(LAYERS)),
        attentions=tuple(draw(BATCH, HEADS, TOKENS, TOKENS).softmax(-1) for _ in range(LAYERS - 1)),
        attention_outputs=tuple(draw(BATCH, TOKENS, WIDTH) for _ in range(LAYERS - 1)),
    )


def z_of(given, batch, pooling="first"):
    last, mask = given.hidden_states[-1].double().numpy(), batch["attention_mask"].numpy()
    if pooling == "first":
        return np.stack([text[np.flatnonzero(m)[0]] for text, m in zip(last, mask, strict=True)])
    return np.stack([text[m == 1].mean(0) for text, m in zip(last, mask, strict=True)])


def kl(s, t, temperature):
    s, t = (log_softmax(x.double().numpy() / temperature, axis=-1) for x in (s, t))
    return temperature**2 * (np.exp(t) * (t - s)).sum(-1)


def by_hand(objective, student, teacher, batch):
    """The loss without its weight, in numpy, one text, token or pair of features at a time."""
    mask = batch["attention_mask"].numpy() == 1
    match objective:
        case SoftLabels():
            each = kl(student.logits, teacher.logits, objective.temperature)
            return each[mask].mean() if each.ndim == 2 else each.mean()
        case HiddenStates() | Attentions() | AttentionOutputs():
            what, hidden = compared(objective)[0], not isinstance(objective, Attentions)
            s, t = (getattr(p, what) for p in (student, teacher))
            out, first = [], 0 if isinstance(objective, HiddenStates) else 1  # of layer 0 there is no attention
            for i, j in (objective.layers or {first + i: first + i for i in range(len(s))}).items():
                d = (s[i - first] - t[j - first]).numpy() ** 2
                parts = [x[m] if hidden else x[:, m][:, :, m] for x, m in zip(d, mask, strict=True)]
                out.append(np.concatenate([p.ravel() for p in parts]).mean())
            return np.mean(out)
    s, t = (z_of(given, batch, objective.pooling) for given in (student, teacher))
    match objective:
        case RepresentationMSE():
            return np.mean([((a - b) ** 2).sum() / len(a) for a, b in zip(s, t, strict=True)])
        case RepresentationCosine():
            norm = np.linalg.norm
            return np.mean([1 - a @ b / norm(a) / norm(b) for a, b in zip(s, t, strict=True)])
        case Relational():
            return relational(objective, s, t)
    if objective.center:
        s, t = s - s.mean(0), t - t.mean(0)
    total, d = 0.0, s.shape[1]
    for i in range(d):
        for j in range(d):
            c = (s[:, i] * t[:, j]).sum() / math.sqrt((s[:, i] ** 2).sum() * (t[:, j] ** 2).sum())
            total += (1 - c) ** 2 if i == j else objective.off_diagonal * c**2
    return total / d


def huber(d):
    return d**2 / 2 if abs(d) <= 1 else abs(d) - 0.5


def relational(objective, s, t):
    texts, norm = range(len(s)), np.linalg.norm
    pairs, triples = list(itertools.permutations(texts, 2)), list(itertools.permutations(texts, 3))
    distances, angles = [], []
    for z in (s, t):
        mean = np.mean([norm(z[i] - z[j]) for i, j in pairs])
        distances.append([norm(z[i] - z[j]) / mean for i, j in pairs])
        angles.append([(z[i] - z[j]) @ (z[k] - z[j]) / norm(z[i] - z[j]) / norm(z[k] - z[j]) for i, j, k in triples])
    parts = [np.mean([huber(a - b) for a, b in zip(*x, strict=True)]) for x in (distances, angles)]
    return objective.distance * parts[0] + objective.angle * parts[1]


VARIANTS = [
    SoftLabels(),
    SoftLabels(weight=0.3, temperature=3),
    RepresentationMSE(),
    RepresentationMSE(weight=2, pooling="mean"),
    RepresentationCosine(),
    RepresentationCosine(weight=0.1, pooling="mean"),
    CrossCorrelation(),
    CrossCorrelation(weight=0.5, off_diagonal=1, pooling="mean"),
    CrossCorrelation(center=False, off_diagonal=0.1),
    Relational(),
    Relational(weight=0.5, distance=3, angle=0, pooling="mean"),
    HiddenStates(),
    HiddenStates(weight=3, layers={0: 2, 2: 0}),
    Attentions(),
    Attentions(weight=0.25, layers={2: 1}),
    AttentionOutputs(),
    AttentionOutputs(weight=0.5, layers={1: 2}),
]


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


@pytest.mark.parametrize("temperature", [1, 2])
def test_soft_labels_of_tokens_leave_padding_out(model, batch, temperature):
    student, teacher = a_pass(model, 0, tokens=True), a_pass(model, 1, tokens=True)
    objective = SoftLabels(temperature=temperature)
    assert float(objective(student, teacher, batch)) == pytest.approx(by_hand(objective, student, teacher, batch))


def test_cross_entropy_is_its_formula_for_texts_and_tokens(model, batch):
    student = a_pass(model, 0)
    expected = -log_softmax(student.logits.numpy(), axis=-1)[np.arange(BATCH), batch["labels"].numpy()].mean()
    assert float(CrossEntropy(weight=0.5)(student, None, batch)) == pytest.approx(0.5 * expected)
    student = a_pass(model, 0, tokens=True)
    labels = torch.randint(0, CLASSES, (BATCH, TOKENS), generator=torch.Generator().manual_seed(0))
    labels[batch["attention_mask"] == 0] = -100
    labels[:, 0] = -100
    chosen = [(b, t) for b in range(BATCH) for t in range(TOKENS) if labels[b, t] != -100]
    logs = log_softmax(student.logits.numpy(), axis=-1)
    expected = -np.mean([logs[b, t, labels[b, t]] for b, t in chosen])
    assert float(CrossEntropy()(student, None, {"labels": labels})) == pytest.approx(expected)
    assert float(CrossEntropy()(student, None, {"labels": torch.full_like(labels, -100)})) == 0
    one = {"labels": batch["labels"].to(torch.int32)}
    assert CrossEntropy()(a_pass(model, 0), None, one) == CrossEntropy()(a_pass(model, 0), None, batch)


@pytest.mark.parametrize("architecture", [ENCODER, "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration"])
def test_cross_entropy_is_the_loss_of_transformers(tiny_models, architecture):
    model = tiny_models(architecture, **({"decoder_start_token_id": 0} if architecture.startswith("T5") else {}))
    ids = torch.randint(4, 20, (3, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 1]) if architecture == ENCODER else ids.clone()
    if architecture != ENCODER:
        labels[0, 4:] = -100
    with torch.no_grad():
        out = model(input_ids=ids, labels=labels)
    found = CrossEntropy()(Pass(model, out.logits), None, {"labels": labels})
    assert float(found) == pytest.approx(float(out.loss), rel=1e-6)


@pytest.mark.parametrize("kind", [k for k in PAIRED if k is not CrossCorrelation])
def test_a_student_that_equals_its_teacher_has_no_loss_and_another_has(model, batch, kind):
    student = a_pass(model, 0)
    assert float(kind()(student, student, batch)) == pytest.approx(0, abs=1e-15)
    assert float(kind()(student, a_pass(model, 1), batch)) > 1e-3


def with_z(model, z):
    return Pass(model, None, hidden_states=(torch.as_tensor(z)[:, None],))


def uncorrelated(rows, width, seed=0):
    """Features of mean 0 that are uncorrelated, each of length 1."""
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return np.linalg.qr(x - x.mean(0))[0]


def test_cross_correlation_is_zero_at_the_identity_and_counts_each_part(model):
    z, one = uncorrelated(32, 4), {"attention_mask": torch.ones(32, 1)}
    teacher = with_z(model, z)
    whole = CrossCorrelation(off_diagonal=1)
    scale, shift = np.array([3, 0.1, 1, 20]), np.array([1, -2, 0, 5])
    assert float(whole(with_z(model, z * scale + shift), teacher, one)) == pytest.approx(0, abs=1e-25)
    assert float(whole(with_z(model, -z), teacher, one)) == pytest.approx(4)  # 4 d / d
    exchanged = with_z(model, z[:, [1, 0, 2, 3]])  # two off the diagonal are 1, two on it 0
    assert float(CrossCorrelation(off_diagonal=0)(exchanged, teacher, one)) == pytest.approx(2 / 4)
    assert float(whole(exchanged, teacher, one)) == pytest.approx(4 / 4)
    # Without centring a shift matters.
    assert float(CrossCorrelation(center=False)(with_z(model, z + shift), teacher, one)) > 0.1


def test_cross_correlation_of_a_student_with_itself_is_the_redundancy_of_its_features(model):
    z = np.random.default_rng(0).normal(size=(32, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    found = CrossCorrelation(off_diagonal=0.1)(
        with_z(model, z), with_z(model, z), {"attention_mask": torch.ones(32, 1)}
    )
    squares = np.corrcoef(z.T) ** 2
    assert float(found) == pytest.approx(0.1 * (squares.sum() - 5) / 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_correlation_of_constant_features_is_finite_and_moves_nothing(model, dtype):
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    z[:, 1] = 0.1
    assert (z[:, 1] != z[:, 1].mean()).all()  # by rounding
    s, t = z.clone().requires_grad_(), z.flip(0)
    loss = CrossCorrelation(off_diagonal=0)(with_z(model, s), with_z(model, t), {"attention_mask": torch.ones(7, 1)})
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()
    assert (s.grad[:, 1] == 0).all()
    assert (s.grad[:, [0, 2]] != 0).any()
    c = [np.corrcoef(z[:, i], t[:, i])[0, 1] for i in (0, 2)]
    assert float(loss.detach()) == pytest.approx(((1 - c[0]) ** 2 + (1 - c[1]) ** 2 + 1) / 3, rel=1e-5)


def test_cross_correlation_of_one_text_is_one_without_a_gradient(model):
    s = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    one, teacher = {"attention_mask": torch.ones(1, 1)}, with_z(model, torch.ones(1, 4, dtype=torch.float64))
    loss = CrossCorrelation(weight=3)(with_z(model, s), teacher, one)
    loss.backward()
    assert float(loss.detach()) == 3
    assert (s.grad == 0).all()
    # Not centred, each correlation is the sign of a product.
    signs = np.sign(s.detach().numpy())[0]
    expected = (((1 - signs) ** 2).sum() + 0.5 * 12) / 4
    found = CrossCorrelation(center=False, off_diagonal=0.5)(with_z(model, s.detach()), teacher, one)
    assert float(found) == pytest.approx(expected)


def test_cross_correlation_keeps_its_precision_under_autocast(model):
    z, one = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), {"attention_mask": torch.ones(32, 1)}
    student, teacher = with_z(model, z), with_z(model, z + 0.1 * z.flip(0))
    expected = CrossCorrelation()(student, teacher, one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(CrossCorrelation()(student, teacher, one)) == pytest.approx(float(expected), rel=1e-6)


def replaced(given, what, x):
    """The pass with its logits, its last hidden state or its last attention map replaced by x."""
    if what == "logits":
        return dataclasses.replace(given, logits=x)
    return dataclasses.replace(given, **{what: (*getattr(given, what)[:-1], x)})


def compared(objective):
    """What an objective compares, and that of a pass."""
    what = next(iter(objective.needs - {"teacher"}), "logits")
    return what, lambda given: given.logits if what == "logits" else getattr(given, what)[-1]


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


def test_the_gradient_of_cross_entropy_is_that_of_the_loss(model, batch):
    logits = a_pass(model, 0).logits.requires_grad_()
    assert gradcheck(lambda x: CrossEntropy(weight=0.3)(Pass(model, x), None, batch), (logits,))


@pytest.mark.parametrize("temperature", [1, 2])
def test_soft_labels_have_the_gradient_of_soft_cross_entropy(model, temperature):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    s = student.logits.requires_grad_()
    p = (teacher.logits / temperature).softmax(-1)
    (expected,) = torch.autograd.grad(-(p * (s / temperature).log_softmax(-1)).mean(), s)  # over texts and classes
    weight = 1 / (CLASSES * temperature**2)
    (found,) = torch.autograd.grad(SoftLabels(weight=weight, temperature=temperature)(student, teacher, {}), s)
    torch.testing.assert_close(found, expected)


def test_soft_labels_at_the_limits_of_the_temperature(model):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    difference = (student.logits - teacher.logits).numpy()
    hot = float(SoftLabels(temperature=1e4)(student, teacher, {}))
    assert hot == pytest.approx(0.5 * difference.var(axis=-1).mean(), rel=1e-3)
    # Cold, a text costs nothing where both prefer the same class, else temperature x what the student's logits lack.
    cold = 1e-3
    best = teacher.logits.argmax(-1, keepdim=True)
    lack = (student.logits.max(-1, keepdim=True).values - student.logits.gather(-1, best)).mean()
    assert float(SoftLabels(temperature=cold)(student, teacher, {})) == pytest.approx(cold * float(lack), rel=1e-6)
    # A constant added to all logits of a text says nothing.
    moved = dataclasses.replace(student, logits=student.logits + 7)
    assert float(SoftLabels()(moved, student, {})) == pytest.approx(0, abs=1e-12)


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


def test_a_representation_of_zeros_has_a_finite_gradient(model):
    s = torch.zeros(2, 3, requires_grad=True)
    loss = RepresentationCosine()(
        with_z(model, s), with_z(model, torch.ones(2, 3)), {"attention_mask": torch.ones(2, 1)}
    )
    loss.backward()
    assert float(loss.detach()) == 1
    assert torch.isfinite(s.grad).all()


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


# Relations between texts


def test_relations_do_not_see_scale_shift_rotation_and_width_and_see_all_else(model):
    z, one = np.random.default_rng(0).normal(size=(9, 4)), {"attention_mask": torch.ones(9, 1)}
    teacher = with_z(model, z)
    turned = 3 * z @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0][:4] + 5
    assert float(Relational()(with_z(model, turned), teacher, one)) == pytest.approx(0, abs=1e-20)
    for other in (z * [1, 1, 1, 2], z[::-1].copy(), z[:, :3]):
        for kind in (Relational(angle=0), Relational(distance=0)):
            assert float(kind(with_z(model, other), teacher, one)) > 1e-3


def test_texts_that_the_student_cannot_tell_apart_count_by_hand(model):
    # The teacher's lie at distances of their mean and at 60 degrees, the student's at 0 without an angle.
    teacher, student = with_z(model, np.eye(3)), with_z(model, np.ones((3, 2)))
    found = Relational(distance=3, angle=5)(student, teacher, {"attention_mask": torch.ones(3, 1)})
    assert float(found) == pytest.approx(3 * 1**2 / 2 + 5 * 0.5**2 / 2)


def test_copies_of_a_text_and_too_few_texts_are_finite(model):
    z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[1] = z[0]
    for count, angles in ((5, True), (2, False), (1, False)):
        s, one = z[:count].clone().requires_grad_(), {"attention_mask": torch.ones(count, 1)}
        loss = Relational()(with_z(model, s), with_z(model, z.flip(0)[:count]), one)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(s.grad).all()
        assert (float(loss.detach()) > 0) == (count > 1)
        of_angles = Relational(distance=0)(with_z(model, s.detach()), with_z(model, z.flip(0)[:count]), one)
        assert (float(of_angles) > 0) == angles


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
        pairs = {0: 0, 1: 2, 2: 3, 3: 5} if kind is HiddenStates else {0: 1, 1: 2, 2: 4}
        assert sorted(learned) == [str(i) for i in pairs]
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


def test_of_another_depth_layers_are_compared_uniformly(model, batch):
    student, teacher = a_pass(model, 0), a_pass(model, 1)
    deep = dataclasses.replace(
        teacher,
        hidden_states=tuple(h for h in teacher.hidden_states for _ in range(2))[1:],  # 5: 0 1 1 2 2
        attentions=tuple(a for a in teacher.attentions for _ in range(2)),
        attention_outputs=tuple(a for a in teacher.attention_outputs for _ in range(2)),
    )
    for kind in BY_LAYER:
        assert float(kind()(student, deep, batch)) == float(kind()(student, teacher, batch))


# Attention outputs


def texts_with_padding():
    ids = torch.randint(4, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:], mask[2, 2:] = 0, 0
    return ids, mask


def heads_by_hand(model, ids, mask):
    """softmax(QK^T / sqrt(d)) V of each block and head of a BERT, from its weights and hidden states, in numpy."""
    with torch.no_grad():
        states = model(ids, mask, output_hidden_states=True).hidden_states
    out = []
    for layer, x in zip(model.bert.encoder.layer, states[:-1], strict=True):
        q, k, v = (
            x.numpy() @ m.weight.detach().numpy().T + m.bias.detach().numpy()
            for m in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value)
        )
        size = q.shape[-1] // model.config.num_attention_heads
        for at in range(0, q.shape[-1], size):
            scores = q[..., at : at + size] @ k[..., at : at + size].transpose(0, 2, 1) / math.sqrt(size)
            scores = np.where(mask.numpy()[:, None] == 1, scores, -np.inf)
            out.append(np.exp(log_softmax(scores, axis=-1)) @ v[..., at : at + size])
    return out


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_outputs_are_those_of_queries_keys_and_values(tiny_models, implementation):
    student, teacher = tiny_models(ENCODER).double(), tiny_models(ENCODER).double()
    teacher = moved(teacher, 0.3)
    ids, mask = texts_with_padding()
    passes = []
    for model in (student, teacher):
        model.set_attn_implementation(implementation)
        with watching_attention(model) as seen:
            passes.append(Pass(model, model(ids, mask).logits, attention_outputs=tuple(seen)))
    objective = AttentionOutputs(weight=0.7)
    check([objective], student, teacher, labelled=False)
    found = objective(*passes, {"attention_mask": mask})
    pairs = zip(heads_by_hand(student, ids, mask), heads_by_hand(teacher, ids, mask), strict=True)
    each = [((s - t)[mask.numpy() == 1] ** 2).mean() for s, t in pairs]
    assert len(each) == 3 * 2
    assert float(found.detach()) == pytest.approx(0.7 * np.mean(each), rel=1e-10)
    assert np.mean(each) > 1e-3
    # The gradient reaches what the outputs are made of in the student, and nothing else.
    found.backward()
    assert all(p.grad is None for p in teacher.parameters())
    last = student.bert.encoder.layer[-1]
    assert all(m.weight.grad.abs().sum() > 0 for m in (last.attention.self.query, last.attention.self.value))
    assert last.attention.output.dense.weight.grad is None
    assert student.classifier.weight.grad is None


@pytest.mark.parametrize(
    "architecture", ["DistilBertModel", "RobertaModel", "GPT2LMHeadModel", "LlamaForCausalLM", "LlamaModel"]
)
def test_attention_outputs_of_each_family_are_maps_times_values(tiny_models, architecture):
    model = tiny_models(architecture)
    model.set_attn_implementation("eager")
    values = []
    for name, module in model.named_modules():
        if name.endswith(("v_lin", "self.value", "v_proj", "c_attn")):
            module.register_forward_hook(lambda m, i, o: values.append(o.detach().numpy()))
    ids, mask = texts_with_padding()
    with watching_attention(model) as seen:
        out = model(ids, attention_mask=mask, output_attentions=True)
    assert len(seen) == len(values) == len(out.attentions) == 3
    for found, value, maps in zip(seen, values, out.attentions, strict=True):
        value = value[..., -12:] if architecture.startswith("GPT2") else value  # behind queries and keys
        value = np.split(value, value.shape[-1] // 6, axis=-1)
        heads = [maps[:, h].detach().numpy() @ value[h % len(value)] for h in range(2)]  # Llama's share their values
        np.testing.assert_allclose(found.detach().numpy(), np.concatenate(heads, axis=-1), atol=1e-5)
    model(ids, attention_mask=mask)
    assert len(seen) == 3  # nothing is watched any more


def test_attention_is_not_watched_any_more_after_an_error(model):
    with pytest.raises(KeyError), watching_attention(model) as seen:
        raise KeyError
    model(torch.ones(1, 3, dtype=torch.long))
    assert not seen
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_check_compares_the_attention_outputs_of_two_models(tiny_models, model):
    own = [AttentionOutputs()]
    check(own, model, tiny_models("RobertaModel"), labelled=False)  # other families
    check(own, model, tiny_models(ENCODER, num_attention_heads=3), labelled=False)  # the same width in other heads
    check(own, model, tiny_models(ENCODER, hidden_size=24), labelled=False)  # by a learned map
    shallow = tiny_models(ENCODER, num_hidden_layers=2)
    check(own, shallow, model, labelled=False)
    with pytest.raises(InputError, match="the student has 3 layers to compare, the teacher 2: say with layers="):
        check(own, model, shallow, labelled=False)
    check([AttentionOutputs(layers={1: 1, 2: 3})], shallow, model, labelled=False)
    for architecture in ("T5Model", "T5ForConditionalGeneration"):
        with pytest.raises(InputError, match=f"{architecture}: the attention outputs .* not known.* 3 blocks, found 0"):
            check(own, model, tiny_models(architecture), labelled=False)


# Aligned weights


def weights_of(model):
    return {k: v.detach().double().numpy() for k, v in block_matrices(model).items()}


def aligned_by_hand(model, reference, form, conv1d=False):
    out = []
    for name, w in weights_of(model).items():
        w0 = weights_of(reference)[name]
        if conv1d:
            w, w0 = w.T, w0.T
        if form == "cosine":
            norm = np.linalg.norm
            out.append(np.mean([1 - a @ b / norm(a) / norm(b) for a, b in zip(w, w0, strict=True)]))
        else:
            out.append(np.sqrt(((w - w0) ** 2).sum() / (w0**2).sum()))
    return np.mean(out)


def moved(model, size=0.1):
    """A copy of a model, all its weights moved at random."""
    copy = prune(model, sparsity=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for w in block_matrices(copy).values():
            w.add_(size * torch.randn_like(w))
    return copy


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
@pytest.mark.parametrize("architecture", [ENCODER, "GPT2LMHeadModel", "LlamaModel", "DistilBertModel"])
def test_aligned_weights_are_their_formula(tiny_models, architecture, form):
    reference = tiny_models(architecture)
    model = prune(moved(reference), sparsity=0.3)
    found = AlignedWeights(reference, form=form, weight=0.7)(Pass(model, None), None, {})
    expected = aligned_by_hand(model, reference, form, conv1d=architecture.startswith("GPT2"))
    assert float(found.detach()) == pytest.approx(0.7 * expected, rel=1e-5)
    assert expected > 0.01


def test_the_units_of_gpt2_are_the_columns_of_its_matrices(tiny_models):
    """The control to the test above: by rows its cosines are others."""
    reference = tiny_models("GPT2LMHeadModel")
    model = moved(reference)
    found = AlignedWeights(reference)(Pass(model, None), None, {})
    assert float(found.detach()) != pytest.approx(aligned_by_hand(model, reference, "cosine"), rel=1e-3)


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_aligned_weights_are_zero_at_the_reference_which_is_a_frozen_copy(model, form):
    aligned = AlignedWeights(model, form=form)
    assert aligned.name == f"aligned_weights_{form}"
    loss = aligned(Pass(model, None), None, {})
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert all(torch.isfinite(w.grad).all() for w in block_matrices(model).values())
    with torch.no_grad():
        for w in block_matrices(model).values():
            w[:, 0] += 1
    assert float(aligned(Pass(model, None), None, {}).detach()) > 0.01


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_pruned_weights_get_no_gradient_and_all_others_do(model, form):
    student = prune(moved(model), sparsity=0.6)
    AlignedWeights(model, form=form)(Pass(student, None), None, {}).backward()
    matrices = block_matrices(student)
    for name, w in student.named_parameters():
        if name not in matrices:
            assert w.grad is None, name
            continue
        assert (w.grad[w == 0] == 0).all(), name
        alone = (w != 0).sum(1, keepdim=True) == 1  # a row of one weight has a direction, which cannot turn
        free = (w != 0) & ~alone if form == "cosine" else w != 0
        assert (w.grad[free] != 0).all(), name


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_the_gradient_of_aligned_weights_is_that_of_the_loss(tiny_models, form):
    reference = tiny_models("BertModel", num_hidden_layers=1).double()
    student = prune(moved(reference), sparsity=0.5)
    name, w = next(iter(block_matrices(student).items()))
    aligned, kept = AlignedWeights(reference, form=form, weight=2, matrices=[name]), w != 0
    aligned(Pass(student, None), None, {}).backward()
    for i, j in torch.nonzero(kept)[::7].tolist():
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                w[i, j] += step
                values.append(float(aligned(Pass(student, None), None, {})))
                w[i, j] -= step
        assert float(w.grad[i, j]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-8)
    with torch.no_grad():
        before = float(aligned(Pass(student, None), None, {}))
        w -= 1e-3 * w.grad
        assert float(aligned(Pass(student, None), None, {})) < before


def test_the_scale_of_a_unit_is_nothing_to_the_cosine_and_something_to_frobenius(model):
    reference, student = model, moved(model)
    scaled = prune(student, sparsity=0)
    with torch.no_grad():
        for w in block_matrices(scaled).values():
            w.mul_(torch.linspace(0.1, 5, len(w))[:, None])
    for form, same in [("cosine", True), ("frobenius", False)]:
        aligned = AlignedWeights(reference, form=form)
        before, after = (float(aligned(Pass(m, None), None, {}).detach()) for m in (student, scaled))
        assert (after == pytest.approx(before, rel=1e-4)) is same


def test_masked_alone_the_cosine_is_the_energy_kept_and_frobenius_that_lost(model):
    student = prune(model, sparsity=0.6)
    kept, lost = [], []
    for name, w0 in weights_of(model).items():
        w = weights_of(student)[name]
        kept.append(np.mean(np.linalg.norm(w, axis=1) / np.linalg.norm(w0, axis=1)))
        lost.append(np.sqrt(1 - (w**2).sum() / (w0**2).sum()))
    found = [
        float(AlignedWeights(model, form=f)(Pass(student, None), None, {}).detach()) for f in ("cosine", "frobenius")
    ]
    assert found == pytest.approx([1 - np.mean(kept), np.mean(lost)], rel=1e-5)
    # Of all masks of one count the smallest weights cost least.
    other = prune(model, sparsity=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for w in block_matrices(other).values():
            w.view(-1)[torch.randperm(w.numel())[: round(0.6 * w.numel())]] = 0
    for form, value in zip(("cosine", "frobenius"), found, strict=True):
        assert float(AlignedWeights(model, form=form)(Pass(other, None), None, {}).detach()) > value


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_rows_and_matrices_of_zeros_are_finite(tiny_models, form):
    reference = tiny_models("BertModel", num_hidden_layers=1)
    student = moved(reference)
    (first, w), (second, v), *_ = block_matrices(student).items()
    with torch.no_grad():
        w[0] = 0  # pruned as a whole
        reference.get_parameter(first)[1] = 0  # without a direction to keep
        reference.get_parameter(second)[:] = 0
    loss = AlignedWeights(reference, form=form, matrices=[first, second])(Pass(student, None), None, {})
    loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in (w, v))
    assert (w.grad[0] == 0).all()
    assert (v.grad == 0).all()
    s, t = w.detach().double().numpy(), reference.get_parameter(first).detach().double().numpy()
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(s[2:], t[2:], strict=True)]
    expected = {
        "cosine": np.mean([1, *(1 - np.array(cosines))]) / 2,
        "frobenius": np.linalg.norm(s - t) / np.linalg.norm(t) / 2,
    }
    assert float(loss.detach()) == pytest.approx(expected[form], rel=1e-5)


@pytest.mark.parametrize("form", ["cosine", "frobenius"])
def test_the_reference_follows_the_model_to_its_device(model, form):
    aligned = AlignedWeights(model, form=form)
    assert aligned(Pass(model.to("meta"), None), None, {}).device.type == "meta"


def test_the_reference_may_have_another_head_or_be_tensors_in_half_precision(tiny_models, model):
    base = tiny_models("BertModel")
    student = moved(model)
    expected = AlignedWeights(model)(Pass(student, None), None, {})
    for reference in (dict(model.named_parameters()), model.state_dict(), model.base_model):
        assert AlignedWeights(reference)(Pass(student, None), None, {}) == expected
    name = next(iter(block_matrices(student)))
    some = [AlignedWeights(r, matrices=[name])(Pass(student, None), None, {}) for r in (model, model.base_model)]
    assert some[0] == some[1] != expected
    assert AlignedWeights(model)(Pass(moved(base), None), None, {}).isfinite()  # a head, and a student without
    half = {k: v.bfloat16() for k, v in model.state_dict().items()}
    found = AlignedWeights(half)(Pass(student, None), None, {})
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-2)


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
        ([CrossEntropy()], {"num_labels": 1}, None, "at least two classes"),
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


def test_check_refuses_data_without_labels_and_models_without_a_head(tiny_models, model):
    with pytest.raises(InputError, match="cross_entropy needs labels, the data has none"):
        check([CrossEntropy()], model, None, labelled=False)
    for objective, student in [(CrossEntropy(), tiny_models("BertModel")), (SoftLabels(), model)]:
        with pytest.raises(InputError, match="BertModel has no head"):
            check([objective], student, tiny_models("BertModel"), labelled=True)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"intermediate_size": 24}, r"has shape \(20, 12\), in the reference \(24, 12\)"),
        ({}, {"num_hidden_layers": 2}, r"the reference has no matrix bert.encoder.layer.2"),
        ({"matrices": ["encoder.nowhere"]}, {}, "has no matrix encoder.nowhere: expected names"),
        ({"matrices": ["classifier.bias"]}, {}, "has no matrix classifier.bias: expected names"),
        ({"matrices": ["classifier.weight"]}, {"num_labels": 4}, "classifier.weight has shape"),
    ],
)
def test_check_refuses_a_reference_that_does_not_fit(tiny_models, model, settings, changes, message):
    aligned = AlignedWeights(tiny_models(ENCODER, **changes), **settings)
    with pytest.raises(InputError, match=message):
        check([aligned], model, None, labelled=True)
    with pytest.raises(InputError, match=message):
        aligned(Pass(model, None), None, {})


def test_check_refuses_an_empty_reference_and_a_student_without_blocks(tiny_models, model):
    with pytest.raises(InputError, match="the reference has no matrix"):
        check([AlignedWeights({})], model, None, labelled=True)
    with pytest.raises(InputError, match="no matrices in blocks"):
        check([AlignedWeights(model)], tiny_models(ENCODER, num_hidden_layers=0), None, labelled=True)


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


@pytest.mark.parametrize("empty", [None, (), (None, None)])
def test_attention_maps_that_come_back_empty_name_the_way_out(model, batch, empty):
    with pytest.raises(InputError, match="eager"):
        Attentions()(dataclasses.replace(a_pass(model, 0), attentions=empty), a_pass(model, 1), batch)


def test_the_attention_of_transformers_that_returns_none_is_told_from_the_one_that_does(model, batch):
    model.set_attn_implementation("sdpa")
    out = model(torch.ones(1, 3, dtype=torch.long), output_attentions=True)
    with pytest.raises(InputError, match="eager"):
        Attentions()(Pass(model, out.logits, attentions=out.attentions), a_pass(model, 1), batch)


@pytest.mark.parametrize(
    "labels", [None, torch.zeros(BATCH), torch.zeros(BATCH, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long)]
)
def test_labels_that_do_not_fit_the_logits_are_refused(model, labels):
    message = (
        "the batch has no labels" if labels is None else r"expected labels of whole numbers of shape \(6,\), found"
    )
    with pytest.raises(InputError, match=message):
        CrossEntropy()(a_pass(model, 0), None, {} if labels is None else {"labels": labels})
    with pytest.raises(InputError, match="gave no logits"):
        CrossEntropy()(Pass(model, None), None, {"labels": torch.zeros(BATCH, dtype=torch.long)})


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


def test_a_student_that_lost_heads_learns_a_mixture_of_those_it_has(model, batch):
    student = prune_heads(model, 0.5)
    assert (student.config.num_attention_heads, set(student.config.heads_kept)) == (2, {1})
    objective = Attentions()
    mixtures = objective.prepare(student, model, [], seed=0)
    assert {tuple(m.weight.shape) for m in mixtures.values()} == {(2, 1)}
    s, t = a_pass(student, 0), a_pass(model, 1)
    s = dataclasses.replace(s, attentions=tuple(x[:, :1] for x in s.attentions))
    there = batch["attention_mask"].numpy().astype(bool)
    there = there[:, :, None] & there[:, None, :]
    expected = []
    for i, (x, y) in enumerate(zip(s.attentions, t.attentions, strict=True)):
        weight = mixtures[str(i)].weight.detach().double().numpy()[:, 0]
        squares = [(w * x[:, 0].numpy() - y[:, h].numpy()) ** 2 for h, w in enumerate(weight)]
        expected.append(np.mean([square[there].mean() for square in squares]))
    got = objective(s, t, batch | {"modules": {"attentions": mixtures}})
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert len(Attentions().prepare(student, student, [], seed=0)) == 0


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


def test_numbers_of_numpy_are_numbers(model, batch):
    objective = HiddenStates(weight=np.int64(2), layers={np.int64(1): np.int64(2)})
    s, t = a_pass(model, 0), a_pass(model, 1)
    assert objective(s, t, batch) == HiddenStates(weight=2, layers={1: 2})(s, t, batch)
