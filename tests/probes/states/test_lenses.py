"""States of layers through what follows the last block: every architecture, and translators that are fitted."""

import numpy as np
import pytest
import torch
import transformers
from speaking import ARCHITECTURES, masking, of_kind, of_masked_tokens, of_the_next_token, spoken

from probes.errors import InputError
from probes.states.by_token import names_of, planned
from probes.states.lenses import at_layers, fitted, said_at


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def corpus():
    return spoken()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_last_layer_says_what_the_model_does_and_the_others_go_through_its_end(kind, tokenizer, corpus):
    model = of_kind(kind, tokenizer)
    plan = planned([model], tokenizer, corpus, ["m"], "lens")
    inputs = plan.batches.tensors(np.arange(4), "mean", plan.device)[0]
    there = inputs["attention_mask"].bool()
    with at_layers(model, plan, "lens") as run:
        layers = run(inputs, there)
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
        assert len(layers.states) == len(out.hidden_states)
        last = layers.logits(len(layers.states) - 1, slice(None))
        torch.testing.assert_close(last, out.logits[there], atol=1e-5, rtol=1e-5)
        # So do the states of the last block, through norm, map and cap.
        torch.testing.assert_close(layers.said(layers.finish(layers.states[-1])), last, atol=1e-5, rtol=1e-5)
        if kind == "llama":
            for layer, states in enumerate(out.hidden_states[:-1]):
                expected = model.lm_head(model.model.norm(states))[there]
                torch.testing.assert_close(layers.logits(layer, slice(None)), expected, atol=1e-5, rtol=1e-5)
    assert not model._forward_hooks


def test_what_layers_say_is_counted_token_by_token(tokenizer, corpus):
    model = of_kind("llama", tokenizer)
    plan = planned([model], tokenizer, corpus, ["m"], "lens")
    inputs = plan.batches.tensors(np.arange(4), "mean", plan.device)[0]
    there, targets = inputs["attention_mask"].bool(), torch.arange(int(inputs["attention_mask"].sum())) % len(tokenizer)
    with at_layers(model, plan, "lens") as run:
        layers = run(inputs, there)
    rows, found = next(said_at(layers, targets))
    assert len(targets[rows]) == len(targets)
    output = torch.log_softmax(layers.logits(2, slice(None)).double(), -1)
    for layer, one in enumerate(found):
        logs = torch.log_softmax(layers.logits(layer, slice(None)).double(), -1)
        own = logs.gather(1, targets[:, None])
        torch.testing.assert_close(one["kl"], (output.exp() * (output - logs)).sum(-1), atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(one["p"], own[:, 0].exp(), atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(one["rank"].exp(), (logs >= own).sum(-1).double())
        assert (one["top"] == logs.argmax(-1)).all()
    assert (found[-1]["kl"] == 0).all()


def test_translators_bring_turned_states_back_and_never_harm_on_held_out_texts(tokenizer, corpus):
    model = of_kind("llama", tokenizer)
    plan = planned([model], tokenizer, corpus, ["m"], "lens")
    found = fitted(model, plan, "lens", np.arange(40), names_of(corpus), 0)
    assert all(after <= before for before, after in found.held_out)
    assert found.held_out[0][1] < 0.9 * found.held_out[0][0]
    again = fitted(model, plan, "lens", np.arange(40)[::-1].copy(), names_of(corpus), 0)
    torch.testing.assert_close(again.weights, found.weights, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_read_is_said(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    plan = planned([model], tokenizer, corpus, ["m"], "lens")
    with pytest.raises(InputError, match="lens: 3 texts to fit translators on: expected at least 10, as of a split"):
        fitted(model, plan, "lens", np.arange(3), names_of(corpus), 0)
    forward = model.forward

    def more(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits + torch.arange(out.logits.shape[-1])
        return out

    model.forward = more
    with (
        pytest.raises(InputError, match="between its last block and its logits is not known"),
        at_layers(model, plan, "lens"),
    ):
        pass
    shared = transformers.AlbertForMaskedLM(
        transformers.AlbertConfig(
            vocab_size=20,
            **{
                "hidden_size": 16,
                "embedding_size": 8,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "intermediate_size": 24,
            },
        )
    )
    plan = planned([of_masked_tokens(tokenizer)], tokenizer, corpus, ["m"], "lens")
    with pytest.raises(InputError, match="AlbertForMaskedLM has no list of 3 blocks"), at_layers(shared, plan, "lens"):
        pass
