"""Pooling: one vector a text is what an independent computation gives, and padding never leaks."""

import numpy as np
import pytest
import torch
from capturing import TEXTS, Spoiler, assert_close, capture, independent

from probes.states.pooling import POOLINGS


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
