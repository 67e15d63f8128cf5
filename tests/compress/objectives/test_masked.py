"""Masked tokens beside any head: the loss in float64 by hand, and that it is `LanguageModel` where there is a head."""

import copy

import pytest
import torch
import torch.nn.functional as F
from speaking import masking, of_masked_tokens, spoken
from trained import QUIET, same, weights

from compress.objectives.base import Pass, State
from compress.objectives.language_model import LanguageModel
from compress.objectives.masked import MaskedTokens
from compress.training.loop import train
from probes.errors import InputError

STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


def test_the_loss_and_its_gradient_are_those_of_float64(tokenizer):
    model, objective = of_masked_tokens(tokenizer, **STEADY).bert, MaskedTokens(weight=0.3, masked=0.5)
    ids = torch.tensor(tokenizer(["the red dog sat on a mat", "a big cat ran under the tree"])["input_ids"])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    module = objective.prepare(model, None, [], 0)
    batch |= {"modules": {"masked_tokens": module}}
    batch |= objective.alter(batch, tokenizer)
    out = model(batch["input_ids"], output_hidden_states=True)
    given = Pass(model, None, out.hidden_states)
    each = objective.each(given, None, batch)
    loss = objective(given, None, batch)
    assert float(each.detach().mean()) == pytest.approx(float(loss.detach()))
    loss.backward()
    twin, head = copy.deepcopy(model).double(), copy.deepcopy(module.head).double()
    twin.zero_grad()
    states, table = twin(batch["input_ids"]).last_hidden_state, twin.get_input_embeddings().weight
    found = [
        -(head.norm(F.gelu(head.dense(states[i, j]))) @ table.T + head.bias).log_softmax(0)[batch["targets"][i, j]]
        for i, j in (batch["targets"] >= 0).nonzero().tolist()
    ]
    assert len(found) > 3
    expected = 0.3 * torch.stack(found).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        if q.grad is not None:
            torch.testing.assert_close(p.grad.double(), q.grad, atol=1e-5, rtol=1e-3)


def test_a_model_with_a_head_of_its_own_trains_as_by_its_language_model(tokenizer):
    found = []
    for objective in (LanguageModel(masked=0.3), MaskedTokens(masked=0.3)):
        model = of_masked_tokens(tokenizer, **STEADY)
        history = train(model, tokenizer, spoken(), objective=[objective], steps=3, **QUIET)
        found.append((history["loss"].tolist(), weights(model)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert same(found[0][1], found[1][1], atol=1e-6)
    assert isinstance(MaskedTokens().prepare(model, None, [], 0), State)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, "objective masked_tokens: weight=-1: expected a finite number at least 0"),
        ({"masked": 1}, "masked=1: expected a share above 0 and below 1"),
        ({"learning_rate": -1}, "learning_rate=-1: expected a finite number above 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        MaskedTokens(**settings)


def test_what_cannot_be_masked_is_refused(tokenizer, make_tokenizer, tiny_models):
    with pytest.raises(
        InputError, match=r"T5Model is an encoder-decoder: expected an encoder, which reads a text both"
    ):
        MaskedTokens().check(tiny_models("T5Model"), None)
    with pytest.raises(InputError, match=r"not see what comes after a token: expected an encoder. Train a decoder"):
        MaskedTokens().check(tiny_models("LlamaForCausalLM"), None)
    MaskedTokens().check(tiny_models("RobertaModel"), None)
    rows = [{"input_ids": [2, 3]}]
    with pytest.raises(InputError, match="masks tokens, and the tokenizer has no mask token"):
        MaskedTokens().check_text(None, make_tokenizer(), rows)
    with pytest.raises(InputError, match="no text has a token that is not special"):
        MaskedTokens().check_text(None, tokenizer, rows)
