"""Sentences token by token: what each token is, where it stands, and what both models hold."""

import numpy as np
import pytest
import torch
from speaking import masking, of_kind, of_masked_tokens, spoken, two_of

import probes
from probes.errors import InputError
from probes.states.by_token import said_by
from probes.states.spoken import spoken as sentences


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def models(tokenizer):
    return two_of(tokenizer)


def test_each_token_is_that_of_the_family_with_its_letters_and_likeliest_tokens(models, tokenizer):
    corpus = spoken().select(range(4))
    found = sentences(models, tokenizer, corpus, ["a", "b"], who="tokens")
    said = said_by(models, tokenizer, corpus, ["a", "b"], who="tokens")
    for row, one in enumerate(found):
        first, *rest = one["tokens"]
        assert (one["id"], one["language"], one["text"]) == (str(corpus["id"][row]), "en", corpus["text"][row])
        assert (first["p"], first["kl"], first["top"]) == ([None, None], None, [[], []])
        at = said.row == row
        assert [t["place"] for t in rest] == said.place[at].tolist()
        np.testing.assert_allclose([t["p"] for t in rest], np.exp(-said.nats[:, at].T), rtol=1e-4)
        np.testing.assert_allclose([t["kl"] for t in rest], said.kl[at], rtol=1e-4, atol=1e-6)
        words = [one["text"][t["start"] : t["end"]] for t in rest[:-1]]
        assert words == one["text"].split()
        ids = torch.tensor([tokenizer(one["text"])["input_ids"]])
        for model, which in zip(models, (0, 1), strict=True):
            likely = torch.softmax(model(input_ids=ids).logits[0, 2], -1).topk(5)
            assert [t for t, _ in rest[2]["top"][which]] == [tokenizer.decode([i]) for i in likely.indices.tolist()]
            np.testing.assert_allclose([p for _, p in rest[2]["top"][which]], likely.values.tolist(), atol=1e-4)


def test_layers_say_of_the_tokens_that_moved_most_what_the_lens_does(models, tokenizer):
    corpus = spoken().select(range(4))
    found = sentences(models, tokenizer, corpus, ["a", "b"], who="w", lensed=3)
    for one, text in zip(found, corpus["text"], strict=True):
        asked = [t for t in one["tokens"] if "layers" in t]
        assert {t["place"] for t in asked} == {
            t["place"] for t in sorted(one["tokens"][1:], key=lambda t: -t["kl"])[:3]
        }
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        for which, model in enumerate(models):
            out = model(input_ids=ids, output_hidden_states=True)
            logits = [*(model.lm_head(model.model.norm(h)) for h in out.hidden_states[:-1]), out.logits]
            for token in asked:
                for (top, p), x in zip(token["layers"][which], logits, strict=True):
                    here = x[0, token["place"] - 1]
                    assert top == tokenizer.decode([int(here.argmax())])
                    assert p == pytest.approx(float(here.softmax(-1)[ids[0, token["place"]]]), abs=1e-4)
    assert torch.is_grad_enabled()
    assert not any(p.is_inference() for model in models for p in model.parameters())
    alone = sentences(models[:1], tokenizer, corpus.select([0]), ["a"], who="w", lensed=2)[0]["tokens"]
    hardest = sorted(alone[1:], key=lambda t: t["p"][0])[:2]
    assert all(len(t["layers"]) == 1 for t in hardest)


def test_a_model_whose_layers_cannot_be_read_has_none(tokenizer):
    model = of_kind("llama", tokenizer)
    forward = model.model.forward

    def doubled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out["last_hidden_state"] = 2 * out["last_hidden_state"]
        return out

    model.model.forward = doubled
    found = sentences([model], tokenizer, spoken().select([0]), ["m"], who="w", lensed=2)[0]["tokens"]
    assert sum(t.get("layers") == [[]] for t in found) == 2


def test_parts_of_letters_and_tokenizers_that_say_no_places_have_a_text(models, tokenizer, monkeypatch):
    model, bytewise = probes.load_checkpoint("bundled-decoder")
    corpus = probes.load_corpus("bundled", split="dev", languages=["zh", "hi", "ar"]).select(range(3))
    for one, text in zip(sentences([model], bytewise, corpus, ["m"], who="tokens"), corpus["text"], strict=True):
        ends = [t["end"] for t in one["tokens"][:-1]]
        assert ends == sorted(ends)
        assert ends[-1] == len(text)
        assert one["tokens"][1]["kl"] is None
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    slow = sentences([models[0]], tokenizer, spoken().select([0]), ["m"], who="tokens")[0]
    assert "".join(slow["text"][t["start"] : t["end"]] for t in slow["tokens"]) == slow["text"]


def test_models_of_masked_tokens_are_refused(tokenizer):
    with pytest.raises(InputError, match="tokens: BertForMaskedLM predicts masked tokens: expected a decoder"):
        sentences([of_masked_tokens(tokenizer)], tokenizer, spoken(), ["m"], who="tokens")
