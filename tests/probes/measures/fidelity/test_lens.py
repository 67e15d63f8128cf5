"""The lens by layer and language: by hand, planted, in a comparison, and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import masking, of_kind, of_masked_tokens

import probes
from probes.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer):
    return of_kind("llama", tokenizer)


@pytest.fixture(scope="module")
def corpus():
    """Two languages: one says nothing but 'the red dog', one 'a big cat'; 'sat' is of both."""
    rng = np.random.default_rng(0)
    words = {"l0": ["the", "red", "dog", "sat"], "l1": ["a", "big", "cat", "sat"]}
    rows = [
        {"id": i, "language": language, "text": " ".join(rng.choice(words[language], size=6)), "split": split}
        for language in words
        for i, split in enumerate(["train"] * 14 + ["test"] * 10)
    ]
    return probes.load_corpus(pd.DataFrame(rows))


def by_hand(model, tokenizer, text):
    """The top token, p of the right one and KL from the output, at every layer, of one text in float64."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        model.double()
        out = model(input_ids=ids, output_hidden_states=True)
        logits = [model.lm_head(model.model.norm(h)) for h in out.hidden_states[:-1]] + [out.logits]
        model.float()
    logs = torch.stack([torch.log_softmax(x[0, :-1], -1) for x in logits])
    kl = (logs[-1].exp() * (logs[-1] - logs)).sum(-1)
    own = logs.gather(2, ids[0, 1:].expand(len(logs), -1)[..., None])[..., 0]
    return logs.argmax(-1).numpy(), own.exp().numpy(), kl.numpy(), (logs >= own[..., None]).sum(-1).numpy()


def test_values_are_those_of_each_text_alone_in_float64(model, tokenizer, corpus):
    found = probes.lens(model, tokenizer, corpus, draws=4)
    tops, p, kl, rank = (
        np.concatenate(parts, axis=1)
        for parts in zip(*(by_hand(model, tokenizer, t) for t in corpus["text"]), strict=True)
    )
    value = found.value.sel(language="pooled")
    np.testing.assert_allclose(value.sel(measure="lens_kl"), kl.mean(1), atol=2e-5)
    np.testing.assert_allclose(value.sel(measure="lens_probability"), p.mean(1), atol=2e-6)
    np.testing.assert_allclose(value.sel(measure="lens_rank"), np.exp(np.log(rank).mean(1)), rtol=1e-5)
    settles = [next(k for k in range(len(tops)) if (t[k:] == t[-1]).all()) for t in tops.T]
    assert float(found.settles.sel(language="pooled")) == pytest.approx(np.mean(settles))
    of = dict.fromkeys(("the", "red", "dog"), "l0") | dict.fromkeys(("a", "big", "cat"), "l1")
    names = [[of.get(tokenizer.convert_ids_to_tokens(int(t)), "shared") for t in row] for row in tops]
    for language in ("l0", "l1", "shared"):
        share = [np.mean([n == language for n in row]) for row in names]
        np.testing.assert_allclose(found.top_language.sel(language="pooled", other_language=language), share)
    assert (found.value.sel(measure="lens_kl", layer=2) == 0).all()
    assert (found.top_language.sum("other_language").round(9) == 1).all()


def test_the_tuned_lens_is_no_worse_than_the_logit_lens_on_held_out_text(model, tokenizer, corpus):
    train, test = (corpus.filter(lambda row, s=s: row["split"] == s).remove_columns("split") for s in ("train", "test"))
    plain = probes.lens(model, tokenizer, test, draws=20)
    tuned = probes.lens(model, tokenizer, test, kind="tuned", train=train, draws=20)
    one = plain.sel(measure="lens_kl", language="pooled")
    two = tuned.sel(measure="tuned_lens_kl", language="pooled")
    assert (two.value <= one.high).all()
    assert float(two.value[0]) < float(one.value[0])
    assert tuned.attrs["held_out"].startswith("layer 0: ")


def test_a_comparison_has_both_by_name_and_the_tuned_one_of_the_test_split(model, tokenizer, corpus):
    models = {"base": model, "other": of_kind("llama", tokenizer, seed=1)}
    how = {"tokenizer": tokenizer, "draws": 4, "timing": False, "progress": False}
    found = probes.compare(models, corpus, probes=["lens", "tuned_lens"], **how)
    alone = probes.lens(models["other"], tokenizer, corpus, draws=4)
    rows = found.table.query("model == 'other' and language == 'pooled'").set_index(["probe", "layer"])
    for layer in range(3):
        expected = float(alone.value.sel(measure="lens_kl", language="pooled", layer=layer))
        assert rows.loc[("lens_kl", layer), "value"] == pytest.approx(expected)
    assert rows.loc["lens_kl", "difference"].notna().all()
    assert set(rows.loc["tuned_lens_kl", "n"]) == {20}
    assert set(rows.loc["lens_language", "other_language"]) == {"l0", "l1", "shared"}
    assert found.plot("lens_kl").axes
    assert found.plot("lens_language").axes


def test_what_it_refuses(model, tokenizer, corpus):
    with pytest.raises(InputError, match="kind='tuned' needs train=, texts to fit on"):
        probes.lens(model, tokenizer, corpus, kind="tuned")
    with pytest.raises(InputError, match="kind='logit' takes no train="):
        probes.lens(model, tokenizer, corpus, train=corpus)
    with pytest.raises(InputError, match="kind='both' is not known; choose one of 'logit', 'tuned'"):
        probes.lens(model, tokenizer, corpus, kind="both")
    with pytest.raises(InputError, match="BertForMaskedLM predicts masked tokens: expected a decoder"):
        probes.lens(of_masked_tokens(tokenizer), tokenizer, corpus)
