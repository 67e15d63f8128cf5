"""Some logits alone are those of the model, of each architecture, or all are computed."""

import copy

import pytest
import torch
from speaking import ARCHITECTURES, masking_tokenizer, of_kind
from torch.nn.utils import parametrizations

from compress.objectives.base import Pass
from compress.objectives.sampled import left_out, logits_of, plain_output, rows_are_logits, sample

tokenizer = masking_tokenizer
IDS = torch.tensor([[5, 6, 7, 8]])
THERE = torch.tensor([[True, False, True, True]])
ASKED = torch.tensor([[3, 1], [2, 2], [0, 9]])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite", "cohere", "gptj", "mixtral"])
def test_rows_of_the_output_layer_make_the_logits_of_the_model(tokenizer, kind):
    model = of_kind(kind, tokenizer)
    assert kind in ARCHITECTURES
    assert rows_are_logits(model)
    expected = model(input_ids=IDS).logits
    with left_out(model) as fed:
        model(input_ids=IDS)
    found = logits_of(Pass(model, None, output_inputs=fed[0]), THERE, ASKED, "x")
    torch.testing.assert_close(found, expected[THERE].gather(1, ASKED), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(Pass(model, expected), THERE, ASKED, "x"), expected[THERE].gather(1, ASKED))
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)  # nothing of it stays


def test_an_output_layer_that_is_more_than_its_weights_runs(tokenizer):
    model = of_kind("llama", tokenizer)
    scaled, normed, hooked = (copy.deepcopy(model) for _ in range(3))
    scaled.config.logits_scaling = 2.0  # which this model does not heed
    assert plain_output(scaled) is not None
    assert not rows_are_logits(scaled)
    parametrizations.weight_norm(normed.lm_head)
    hooked.lm_head.register_forward_hook(lambda *_: None)
    for other in (normed, hooked):
        assert plain_output(other) is None
        assert not rows_are_logits(other)
        with left_out(other) as fed:
            assert other(input_ids=IDS).logits.shape[-1] == len(tokenizer)
        assert fed == []


def test_it_is_left_out_only_where_all_read_rows_alone():
    one, other = torch.nn.Module(), torch.nn.Module()
    one.samples = True
    assert [sample([one]), sample([one, other]), sample([])] == [True, False, False]
