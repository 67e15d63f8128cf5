"""Objectives of layers: another depth, attention outputs from the weights, maps of heads, and watching."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from passes import (
    BY_LAYER,
    ENCODER,
    a_pass,
    moved,
)
from scipy.special import log_softmax

from compress import prune_heads
from compress.objectives.base import Pass, check
from compress.objectives.layers import AttentionOutputs, Attentions, HiddenStates, watching_attention
from probes.errors import InputError


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
        with pytest.raises(
            InputError, match=f"{architecture}: the attention outputs .* not known.* 3 blocks .* found 3 and is_enc"
        ):
            check(own, model, tiny_models(architecture), labelled=False)


@pytest.mark.parametrize("empty", [None, (), (None, None)])
def test_attention_maps_that_come_back_empty_name_the_way_out(model, batch, empty):
    with pytest.raises(InputError, match="eager"):
        Attentions()(dataclasses.replace(a_pass(model, 0), attentions=empty), a_pass(model, 1), batch)


def test_the_attention_of_transformers_that_returns_none_is_told_from_the_one_that_does(model, batch):
    model.set_attn_implementation("sdpa")
    out = model(torch.ones(1, 3, dtype=torch.long), output_attentions=True)
    with pytest.raises(InputError, match="eager"):
        Attentions()(Pass(model, out.logits, attentions=out.attentions), a_pass(model, 1), batch)


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


def test_numbers_of_numpy_are_numbers(model, batch):
    objective = HiddenStates(weight=np.int64(2), layers={np.int64(1): np.int64(2)})
    s, t = a_pass(model, 0), a_pass(model, 1)
    assert objective(s, t, batch) == HiddenStates(weight=2, layers={1: 2})(s, t, batch)
