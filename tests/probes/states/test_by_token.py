"""What language models say of tokens: against float64, one sentence at a time; architectures; what cannot be read."""

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import ARCHITECTURES, TEXT, masking, of_kind, of_masked_tokens, of_the_next_token, spoken

import probes
from probes.errors import InputError
from probes.states import by_token
from probes.states.by_token import before_output, said_by
from probes.states.tokens import Batches, tokenise


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def corpus():
    return spoken().select(range(12))


def one_by_one(models, tokenizer, corpus, masked=None):
    """Every token of every text by itself, in float64: (nats of each model, KL, same)."""
    found = []
    for text in corpus["text"]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        logs = [torch.log_softmax(m.double()(input_ids=ids).logits, -1)[0].detach().numpy() for m in models]
        for place in range(1, ids.shape[1]):
            here = [x[place - 1] for x in logs]
            kl = (np.exp(here[0]) * (here[0] - here[-1])).sum()
            found.append([*(-x[ids[0, place]] for x in here), kl, here[0].argmax() == here[-1].argmax()])
    [m.float() for m in models]
    return np.array(found).T


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_token_is_that_of_the_model_alone_in_float64(kind, tokenizer, corpus, recwarn):
    models = [of_kind(kind, tokenizer, seed) for seed in (0, 1)]
    said = said_by(models, tokenizer, corpus, ["a", "b"], who="next_token", batch_size=5)
    one, two, kl, same = one_by_one(models, tokenizer, corpus)
    np.testing.assert_allclose(said.nats, [one, two], atol=2e-5)
    np.testing.assert_allclose(said.kl, kl, atol=2e-5)
    assert (said.same == same).all()
    assert said.kl.mean() > 0.01
    ids = [tokenizer(text)["input_ids"] for text in corpus["text"]]
    assert said.token.tolist() == [i for row in ids for i in row[1:]]
    assert said.place.tolist() == [k for row in ids for k in range(1, len(row))]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_only_some_tokens_have_logits_at_a_time(kind, tokenizer, corpus):
    model = of_kind(kind, tokenizer)
    tokens = tokenise(tokenizer, corpus, None, model, "m")
    with before_output(model, Batches(tokens, 8, 4096), torch.device("cpu")) as run, torch.no_grad():
        assert run.__name__ == "run"  # up to the output layer
        inputs = Batches(tokens, 8, 4096).tensors(np.arange(3), "mean", torch.device("cpu"))[0]
        there = inputs["attention_mask"].bool()
        made = run(inputs, there)
        torch.testing.assert_close(made.of(slice(2, 7)), model(**inputs).logits[there][2:7], atol=1e-5, rtol=1e-5)
    assert "forward" not in vars(model.get_output_embeddings())


def test_a_model_that_does_more_to_its_logits_runs_as_a_whole(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    plain, forward = said_by([model], tokenizer, corpus, ["m"], who="w"), model.forward

    def doubled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = 2 * out.logits + torch.arange(out.logits.shape[-1]) / 10
        return out

    model.forward = doubled
    said = said_by([model], tokenizer, corpus, ["m"], who="w")
    assert abs(said.nats - plain.nats).max() > 0.01
    ids = torch.tensor([tokenizer(corpus["text"][0])["input_ids"]])
    expected = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
    assert said.nats[0, said.row == 0].mean() == pytest.approx(float(expected), rel=1e-6)


def test_batches_padding_and_order_change_nothing(tokenizer, corpus, monkeypatch):
    model, other = of_the_next_token(tokenizer), of_kind("llama", tokenizer)
    said = said_by([model, other], tokenizer, corpus, ["a", "b"], who="w")
    monkeypatch.setattr(by_token, "_LOGITS", 1)
    monkeypatch.setattr(by_token, "_TOKENS", 3)
    order = np.random.default_rng(0).permutation(len(corpus))
    again = said_by([model, other], tokenizer, corpus.select(order), ["a", "b"], who="w", batch_size=2)
    for row, old in enumerate(order):
        np.testing.assert_allclose(again.nats[:, again.row == row], said.nats[:, said.row == old], atol=1e-5)
        np.testing.assert_allclose(again.kl[again.row == row], said.kl[said.row == old], atol=1e-5)


def test_a_masked_token_is_predicted_from_all_others(tokenizer, corpus):
    model = of_masked_tokens(tokenizer)
    said = said_by([model], tokenizer, corpus, ["m"], who="w", batch_size=3)
    assert said.reads == "masked"
    expected = []
    for text in corpus["text"]:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        for place in range(1, ids.shape[1] - 1):  # the first and the last are special
            masked = ids.clone()
            masked[0, place] = tokenizer.mask_token_id
            logits = model.double()(input_ids=masked, attention_mask=torch.ones_like(ids)).logits[0, place]
            expected.append(-float(torch.log_softmax(logits, -1)[ids[0, place]]))
    model.float()
    np.testing.assert_allclose(said.nats[0], expected, atol=2e-5)
    # A sample: the same of a text wherever it stands, and of another seed another.
    some = said_by([model], tokenizer, corpus, ["m"], who="w", per_text=2)
    assert set(np.bincount(some.row)) == {2}
    turned = said_by([model], tokenizer, corpus.select(range(len(corpus))[::-1]), ["m"], who="w", per_text=2)
    np.testing.assert_allclose(turned.nats[0].reshape(-1, 2)[::-1], some.nats[0].reshape(-1, 2), atol=1e-5)
    other = said_by([model], tokenizer, corpus, ["m"], who="w", per_text=2, seed=1)
    assert (other.place != some.place).any()


def test_of_a_text_that_is_cut_the_bytes_that_are_read_count(tokenizer, corpus):
    model = of_the_next_token(tokenizer)
    said = said_by([model], tokenizer, corpus, ["m"], who="w", max_length=5)
    first = [" ".join(text.split()[:3]) for text in corpus["text"]]  # between two special tokens
    assert said.size.tolist() == [len(text.encode()) for text in first]


def test_what_cannot_be_read_is_said_first(tokenizer, corpus, make_tokenizer, tiny_models):
    def refused(models, message, tokenizer=tokenizer, corpus=corpus, **how):
        with pytest.raises(InputError, match=message):
            said_by(models, tokenizer, corpus, ["a", "b"][: len(models)], who="next_token", **how)

    model, masked = of_the_next_token(tokenizer), of_masked_tokens(tokenizer)
    refused([model.model], "next_token: a: LlamaModel predicts no tokens: expected a model with a head")
    refused([model, masked], "one of 'a', 'b' predicts the next token and the other masked ones. Compare models of one")
    refused([tiny_models("T5ForConditionalGeneration", decoder_start_token_id=0)], "encoder-decoder", make_tokenizer())
    refused([model], "per_text=0: expected a whole number, at least 1", per_text=0)
    refused([torch.nn.Linear(1, 1)], "a: expected a model of transformers, found Linear")
    refused([model], "64 tokens, but 20 embeddings", make_tokenizer(words=[f"w{i}" for i in range(60)]))
    plain = masking(make_tokenizer)
    plain.mask_token = None
    refused([masked], "predicts masked tokens, and the tokenizer has no mask token: set tokenizer.mask_token", plain)
    words = make_tokenizer(special=False, words=TEXT.split())
    short = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["the", "dog"]}))
    refused([model], "every text is one token long, and none has a next one: give longer texts", words, short)
