"""Mean and spread of log Z: by hand, of a model that is normalised, and of one whose logits are moved."""

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import masking_tokenizer, of_masked_tokens, of_the_next_token, spoken_corpus

import probes
from compress.objectives.normalizers import self_normalization
from probes.errors import InputError

tokenizer, corpus = masking_tokenizer, spoken_corpus


def test_mean_and_spread_are_those_of_tokens_one_text_at_a_time(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    few = corpus.select(range(8)).to_pandas()
    both = probes.load_corpus(pd.concat([few, few.assign(language="de", text=few["text"] + " and")]))
    found = self_normalization(model, tokenizer, both, batch_size=3).set_index("language")
    logs = {"en": [], "de": []}
    for row in both:
        ids = torch.tensor([tokenizer(row["text"])["input_ids"]])
        with torch.no_grad():
            logs[row["language"]] += model(ids).logits[0, :-1].double().exp().sum(1).log().tolist()
    logs["pooled"] = logs["en"] + logs["de"]
    for language, values in logs.items():
        row = found.loc[language]
        assert row["mean"] == pytest.approx(np.mean(values), rel=1e-5)
        assert row["spread"] == pytest.approx(np.std(values), rel=1e-4)
        assert row["tokens"] == len(values)
        assert row["low"] <= row["mean"] <= row["high"]


class Normalised(torch.nn.Module):
    """An output layer whose logits are log probabilities, moved by one number."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.out_features = linear, linear.out_features

    def forward(self, states):
        return self.linear(states).log_softmax(-1) + 7.0


def test_what_is_normalised_but_for_a_constant_has_no_spread(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    model.lm_head = Normalised(model.lm_head)
    found = self_normalization(model, tokenizer, corpus.select(range(4))).iloc[-1]
    assert found["mean"] == pytest.approx(7)
    assert found["spread"] < 1e-5


def test_what_has_no_log_z_of_the_next_token_is_refused(tokenizer, corpus):
    with pytest.raises(InputError, match="self_normalization: BertForMaskedLM predicts masked tokens: expected a mode"):
        self_normalization(of_masked_tokens(tokenizer), tokenizer, corpus)
    with pytest.raises(InputError, match="draws=1: expected a whole number of at least 2"):
        self_normalization(of_the_next_token(tokenizer), tokenizer, corpus, draws=1)
