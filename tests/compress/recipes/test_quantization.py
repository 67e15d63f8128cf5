"""Recipes that quantise: on their objectives, by both hosts."""

import pytest
import torch
from trained import QUIET

import probes
from compress import recipes


@pytest.mark.parametrize(
    ("variant", "objectives"),
    [
        ("attention_and_logits", ["cross_entropy", "soft_labels", "attention_outputs"]),
        ("logits", ["cross_entropy", "soft_labels"]),
        ("attention", ["cross_entropy", "attention_outputs"]),
        ("hidden_states", ["cross_entropy", "hidden_states"]),
    ],
)
@pytest.mark.parametrize("host", ["quant_noise", "product"])
def test_quantises_in_training_on_its_objectives(classifier, make_tokenizer, corpus, variant, objectives, host):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    how = {"bits": 2, "activation_bits": None} if host == "quant_noise" else {"codes": 4, "block": 2}
    quantized = recipes.self_distilled_quantization(
        classifier, make_tokenizer(), corpus, steps=8, variant=variant, host=host, **how, **QUIET
    )
    if host == "product":  # which compares the layers that are quantised by then
        objectives = ["quantized_layers" if o == "attention_outputs" else o for o in objectives]
    else:
        assert (quantized.config.compression["group"], quantized.config.compression["symmetric"]) == ("tensor", False)
    assert quantized.config.compression["objective"] == objectives
    assert set(objectives) < set(quantized.history)
    for matrix in quantized.config.compression["quantized"]:
        weight = quantized.get_parameter(matrix)
        parts = weight.reshape(-1, 1 if host == "quant_noise" else 2)
        assert len(parts.unique(dim=0)) <= 4  # of a whole matrix
        assert not torch.equal(weight, before[matrix])
    assert all(torch.equal(v, before[k]) for k, v in classifier.state_dict().items())


def test_an_unknown_variant_or_host_of_quantisation_is_refused(classifier, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"variant='kl' is not known; choose one of 'attention_and_logits'"):
        recipes.self_distilled_quantization(classifier, make_tokenizer(), corpus, steps=2, variant="kl")
    with pytest.raises(probes.InputError, match=r"host='none' is not known; choose one of 'quant_noise', 'product'"):
        recipes.self_distilled_quantization(classifier, make_tokenizer(), corpus, steps=2, host="none")


def test_hidden_states_of_blocks_are_compared_and_the_grid_can_be_another(
    classifier, make_tokenizer, corpus, monkeypatch
):
    seen = {}
    monkeypatch.setattr("compress.recipes.quantization.quantize", lambda *_, **given: seen.update(given))
    how = {"steps": 8, "variant": "hidden_states", "group": "channel"}
    recipes.self_distilled_quantization(classifier, make_tokenizer(), corpus, **how)
    assert (seen["group"], seen["symmetric"]) == ("channel", False)
    assert seen["objective"][1].layers == {i: i for i in range(1, 1 + classifier.config.num_hidden_layers)}
