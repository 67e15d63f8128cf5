"""Attention before the softmax: what is collected, against the softmax of transformers, and what is refused."""

import numpy as np
import pytest
import torch
from architectures import inputs, make
from passes import ENCODER

from compress.objectives.base import Pass, check
from compress.objectives.layers import Attentions, watching
from compress.objectives.scores import check_scores, watching_scores
from probes.errors import InputError


def a_text():
    ids = torch.randint(4, 20, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 4:], mask[2, 2:] = 0, 0
    return ids, mask


FAMILIES = ["bert", "distilbert", "xlm-roberta", "electra", "gpt2", "llama", "gemma2", "qwen3", "modernbert", "bart"]


@pytest.mark.parametrize("kind", FAMILIES[:-1])
def test_their_softmax_is_the_attention_of_transformers(kind):
    wide = {"local_attention": 16} if kind == "modernbert" else {}  # transformers gives NaN where padding sees nothing
    model = make(kind, **wide)
    ids, mask = inputs(model).values()
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).to_tuple()[0]
        name = model.config._attn_implementation
        with watching_scores(model) as seen:
            watched = model(input_ids=ids, attention_mask=mask).to_tuple()[0]
        assert model.config._attn_implementation == name
        model.set_attn_implementation("eager")
        maps = model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions
    np.testing.assert_allclose(watched[mask == 1], before[mask == 1], atol=1e-6)
    assert len(seen) == len(maps) == model.config.num_hidden_layers
    for scores, expected in zip(seen, maps, strict=True):
        there = (mask[:, None, :, None] == 1).expand_as(expected)
        np.testing.assert_allclose(scores.softmax(-1)[there], expected[there], atol=1e-6)
    model(input_ids=ids, attention_mask=mask)
    assert len(seen) == len(maps)  # nothing is watched any more


def scores_by_hand(model, ids):
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    out = []
    for layer, x in zip(model.bert.encoder.layer, states[:-1], strict=True):
        q, k = (
            x.numpy() @ m.weight.detach().numpy().T + m.bias.detach().numpy()
            for m in (layer.attention.self.query, layer.attention.self.key)
        )
        size = q.shape[-1] // model.config.num_attention_heads
        cut = [slice(at, at + size) for at in range(0, q.shape[-1], size)]
        out.append(np.stack([q[..., c] @ k[..., c].transpose(0, 2, 1) / size**0.5 for c in cut], 1))
    return out


def two_of(tiny_models):
    student, teacher = tiny_models(ENCODER).double(), tiny_models(ENCODER).double()
    with torch.no_grad():
        for p in teacher.bert.encoder.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return student, teacher


def watched(model, ids, mask):
    with watching(model, {"attention_scores"}) as seen:
        logits = model(ids, mask).logits
    return Pass(model, logits, attention_scores=tuple(seen["attention_scores"]))


def test_of_two_tokens_they_are_the_closed_form_and_so_are_probabilities(tiny_models):
    """softmax of two scores is 1 / (1 + exp(-(s_0 - s_1))): both losses from queries and keys by hand."""
    student, teacher = two_of(tiny_models)
    ids, mask = torch.tensor([[5, 6], [7, 8]]), torch.ones(2, 2, dtype=torch.long)
    s, t = (scores_by_hand(m, ids) for m in (student, teacher))
    passes = [watched(m, ids, mask) for m in (student, teacher)]
    expected = np.mean([((a - b) ** 2).mean() for a, b in zip(s, t, strict=True)])
    got = Attentions(form="scores", weight=0.5)(*passes, {"attention_mask": mask})
    assert got.item() == pytest.approx(0.5 * expected, rel=1e-10)
    assert expected > 1e-3
    first = [[1 / (1 + np.exp(x[..., 1] - x[..., 0])) for x in each] for each in (s, t)]
    expected = np.mean([((a - b) ** 2).mean() for a, b in zip(*first, strict=True)])  # of the second as of the first
    for m in (student, teacher):
        m.set_attn_implementation("eager")
    maps = [Pass(m, None, attentions=m(ids, mask, output_attentions=True).attentions) for m in (student, teacher)]
    assert Attentions()(*maps, {"attention_mask": mask}).item() == pytest.approx(expected, rel=1e-6)
    got.backward()
    last = student.bert.encoder.layer[-1].attention.self
    assert last.query.weight.grad.abs().sum() > 0
    assert last.value.weight.grad is None
    assert all(p.grad is None for p in teacher.parameters())


def test_padding_and_what_is_masked_play_no_part(tiny_models):
    student, teacher = two_of(tiny_models)
    ids, mask = a_text()
    batch, objective = {"attention_mask": mask}, Attentions(form="scores")
    whole = objective(watched(student, ids, mask), watched(teacher, ids, mask), batch)
    cut = ids[:, :6].clone()
    cut[0, 4:], cut[2, 2:] = 19, 3
    assert objective(watched(student, cut, mask), watched(teacher, cut, mask), batch).item() == pytest.approx(
        whole.item(), rel=1e-9
    )
    decoder = tiny_models("LlamaForCausalLM").double()
    given = watched(decoder, ids, torch.ones_like(ids))
    other = tuple(x + 1.0 for x in given.attention_scores)  # one more everywhere, -inf stays
    loss = objective(given, Pass(decoder, None, attention_scores=other), {"attention_mask": torch.ones_like(ids)})
    assert loss.item() == pytest.approx(1.0, rel=1e-12)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in decoder.parameters())


def test_a_mixture_of_heads_is_learned_where_they_differ(tiny_models):
    student, teacher = tiny_models("LlamaForCausalLM"), tiny_models("LlamaForCausalLM", num_attention_heads=3)
    objective, (ids, mask) = Attentions(form="scores"), a_text()
    learned = objective.prepare(student, teacher, [], seed=0)
    batch = {"attention_mask": mask, "modules": {"attentions": learned}}
    loss = objective(watched(student, ids, mask), watched(teacher, ids, mask), batch)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in learned.parameters())


def test_what_has_none_is_refused(tiny_models, model, batch):
    own = [Attentions(form="scores")]
    check(own, model, tiny_models("RobertaModel"), labelled=False)
    for kind in ("deberta-v2", "mpnet", FAMILIES[-1]):
        with pytest.raises(InputError, match=r"gave the attention scores of 0 blocks of \d.*: expected a model of one"):
            check_scores("attentions", make(kind))
    with pytest.raises(InputError, match=r"gave no attention scores: call it within watching_scores\(model\)"):
        own[0](Pass(model, None), Pass(model, None), batch)
    with pytest.raises(InputError, match="form='logits': expected one of"):
        Attentions(form="logits")
