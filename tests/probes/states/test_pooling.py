"""Pooling: one vector a text is what an independent computation gives, and padding never leaks."""

import numpy as np
import pandas as pd
import pytest
import torch
from capturing import TEXTS, Spoiler, assert_close, capture, independent

import probes
from probes.states.pooling import POOLINGS, sinks


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_equals_an_independent_computation_and_no_other(bert, tokenizer, corpus, pooling):
    reps = capture(bert, tokenizer, corpus, pooling=pooling)
    assert reps.hidden.dtype == np.float32
    assert reps.hidden.sizes == {"layer": 4, "example": 6, "feature": 12}
    for other in POOLINGS:
        expected = independent(bert.bert, tokenizer, corpus, other)
        if other == pooling:
            assert_close(reps, expected)
        else:
            assert np.abs(reps.hidden.values - expected).max() > 0.05


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_of_padding_do_not_leak_even_where_they_are_nan(tokenizer, corpus, pooling):
    model = Spoiler()
    table = model.table.weight.detach().double().numpy()
    reps = capture(model, tokenizer, corpus, modules=["spoilt", "tuple"], pooling=pooling)
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    if pooling == "weighted":
        expected = np.stack([np.average(table[i[1:-1]], axis=0, weights=np.arange(len(i) - 2) + 1.0) for i in ids])
        return assert_close(reps, np.stack([expected, 2 * expected]))
    kept = [{"mean": i[1:-1], "mean_all": i, "first": i[:1], "last": i[-1:]}[pooling] for i in ids]
    expected = np.stack([table[i].mean(0) for i in kept])
    assert_close(reps, np.stack([expected, 2 * expected]))
    assert list(reps.module.values) == ["spoilt", "tuple"]


def test_a_nan_in_the_text_itself_is_not_hidden(tokenizer, corpus):
    model = Spoiler()
    with torch.no_grad():
        model.table.weight[tokenizer.convert_tokens_to_ids("bird")] = float("nan")
    reps = capture(model, tokenizer, corpus, modules=["spoilt"])
    assert [bool(np.isnan(v).all()) for v in reps.hidden.values[0]] == ["bird" in text.split() for text in TEXTS]


def planted(place, times, texts=8, tokens=12, features=16, share=1.0):
    """States of two layers, in the second of which a token at one place is so many times longer."""
    generator = torch.Generator().manual_seed(0)
    layers = torch.randn(2, texts, tokens, features, generator=generator)
    for text in range(int(share * texts)):
        layers[1, text, place] *= times
    return layers


def test_a_token_that_dwarfs_the_others_at_one_place_is_a_sink():
    weights = torch.ones(8, 12)
    found = sinks(planted(2, 50), weights)
    assert list(found) == [1]
    assert found[1][0] == 2
    assert found[1][1] == pytest.approx(50, rel=0.4)
    weights[:, :2] = 0  # special tokens: the place is counted among those that are pooled
    assert sinks(planted(2, 50), weights)[1][0] == 0
    weights[:, 2] = 0  # it is left out itself
    assert sinks(planted(2, 50), weights) == {}


@pytest.mark.parametrize("states", [planted(2, 3), planted(2, 50, share=0.4), torch.full((2, 8, 12, 16), torch.nan)])
def test_what_is_somewhat_longer_or_so_in_few_texts_is_none(states):
    assert sinks(states, torch.ones(8, 12)) == {}
    scattered = torch.randn(1, 8, 12, 16)
    scattered[0, torch.arange(8), torch.arange(8)] *= 50  # another place in every text
    assert sinks(scattered, torch.ones(8, 12)) == {}
    assert sinks(planted(0, 50)[:, :, :3], torch.ones(8, 3)) == {}  # too short to tell


def test_a_mean_over_a_sink_is_said_once_with_the_name_of_the_model(tiny_models, make_tokenizer):
    model = tiny_models("GPT2LMHeadModel")
    texts = ["the red cat sat", "a big dog ran", "the small bird sang on the tree", "he and she sat under it"] * 2
    corpus = probes.load_corpus(pd.DataFrame({"id": range(8), "language": "en", "text": texts}))

    def push(_module, _inputs, output):
        states = output[0] if isinstance(output, tuple) else output
        states[:, 0] += 500

    hook = model.transformer.h[0].register_forward_hook(push)
    run = {"name": "gpt", "progress": False, "batch_size": 3}
    with pytest.warns(probes.LayerscopeWarning) as said:
        probes.capture(model, make_tokenizer(special=False), corpus, **run)
    assert len(said) == 1
    assert str(said[0].message).startswith(
        "gpt: at layers 1, 2 one token of each text, the first that counts, is up to "
    )
    probes.capture(model, make_tokenizer(special=False), corpus, **run, pooling="last")
    hook.remove()
    probes.capture(model, make_tokenizer(special=False), corpus, **run)
