"""Heads that were kept: a model is made with as many as its configuration says, and says how many each layer has."""

import pytest
import torch

import compress
import probes
from probes.models.formats.heads_kept import apply_shapes, heads_of


@pytest.mark.parametrize("architecture", ["BertModel", "RobertaModel", "DistilBertModel"])
def test_a_model_is_made_with_the_heads_that_were_kept_and_runs(tiny_models, architecture):
    model = tiny_models(architecture)
    assert heads_of(model) == [2, 2, 2]
    apply_shapes(model)
    model.config.heads_kept = [1, 2, 1]
    apply_shapes(model)
    apply_shapes(model)  # nothing more to do
    assert heads_of(model) == [1, 2, 1]
    assert model(torch.tensor([[2, 5, 3]])).last_hidden_state.shape == (1, 3, 12)


def test_a_decoder_has_the_heads_that_its_configuration_says(tiny_models):
    assert heads_of(tiny_models("LlamaModel")) == [2, 2, 2]


def test_heads_kept_of_another_model_are_refused(tiny_models, make_tokenizer, tmp_path):
    pruned = compress.prune_heads(tiny_models("BertModel"), 0.5)
    pruned.config.heads_kept = [1, 1]
    pruned.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(probes.InputError, match=r"config.heads_kept has 2 numbers and the model 3 layers"):
        probes.load_checkpoint(tmp_path)
