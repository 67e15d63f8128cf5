"""The next-token family: against float64 one sentence at a time, transformers' own loss, and drawn text by text."""

import copy
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import masking, of_masked_tokens, of_the_next_token, spoken

import probes
from probes.errors import InputError, LayerscopeWarning

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return masking(make_tokenizer)


@pytest.fixture(scope="module")
def corpus():
    """20 sentences in two languages."""
    one = spoken().select(range(40)).to_pandas()
    one["id"], one["language"] = np.arange(40) % 20, np.repeat(["en", "fr"], 20)
    return probes.load_corpus(one)


@pytest.fixture(scope="module")
def models(tokenizer):
    base = of_the_next_token(tokenizer)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    other = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return base, other


def tokens_of(models, tokenizer, texts):
    """A row a predicted token: text, -log p in both, KL, whether the top is the same; each text alone, in float64."""
    rows = []
    for number, text in enumerate(texts):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        logs = [torch.log_softmax(m.double()(input_ids=ids).logits, -1)[0].detach().numpy() for m in models]
        for place in range(1, ids.shape[1]):
            one, two = (x[place - 1] for x in logs)
            token, kl = ids[0, place], (np.exp(one) * (one - two)).sum()
            rows.append((number, -one[token], -two[token], kl, one.argmax() == two.argmax()))
    [m.float() for m in models]
    return pd.DataFrame(rows, columns=["text", "base", "other", "kl", "same"])


def statistics(tokens, size):
    p, q = np.exp(-tokens["base"]), np.exp(-tokens["other"])
    at = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1}
    return {
        "nats_per_token": tokens["other"].mean(),
        "perplexity": np.exp(tokens["other"].mean()),
        "bits_per_byte": tokens["other"].sum() / np.log(2) / size,
        "kl": tokens["kl"].mean(),
        **{f"kl_{name}": np.quantile(tokens["kl"], q) for name, q in at.items()},
        "same_top_token": tokens["same"].mean(),
        "probability_change": (q - p).mean(),
        "probability_change_rms": np.sqrt(((q - p) ** 2).mean()),
        "log_perplexity_ratio": (tokens["other"] - tokens["base"]).mean(),
    }


def test_every_value_and_draw_is_that_of_the_tokens_in_float64(models, tokenizer, corpus):
    found = probes.next_token(*models, tokenizer, corpus, draws=3, **QUIET)
    tokens = tokens_of(models, tokenizer, corpus["text"])
    size = np.array([len(text.encode()) for text in corpus["text"]])
    drawn = probes.results.draws.sample(found_on(corpus), draws=3, seed=0)
    for language in ("en", "fr", "pooled"):
        for draw in range(4):
            times = drawn.weights[draw][drawn.ids] * (
                (np.array(corpus["language"]) == language) | (language == "pooled")
            )
            repeated = tokens.loc[np.repeat(tokens.index, times[tokens["text"]])]
            for name, expected in statistics(repeated, times @ size).items():
                one = found.sel(measure=name, language=language)
                value = one.value if draw == 0 else one.draws[draw - 1]
                assert float(value) == pytest.approx(float(expected), abs=2e-5, rel=1e-5), (name, language, draw)
    few = ["kl_max", "kl_p999", "kl_p99"]  # fewer than five tokens lie beyond
    assert np.isnan(found.low.sel(measure=few)).all()
    rest = found.drop_sel(measure=few)
    assert ((rest.low <= rest.value) & (rest.value <= rest.high)).all()


def found_on(corpus):
    return probes.from_arrays(np.zeros((len(corpus), 1)), id=corpus["id"], language=corpus["language"])


def test_a_model_beside_itself_is_exactly_the_same(models, tokenizer, corpus):
    found = probes.next_token(models[0], models[0], tokenizer, corpus, draws=4, **QUIET)
    for name, value in (("kl", 0), ("kl_max", 0), ("same_top_token", 1), ("log_perplexity_ratio", 0)):
        assert (found.value.sel(measure=name) == value).all()
        assert (found.draws.sel(measure=name) == value).all()
    assert (found.low.sel(measure="same_top_token") < 1).all()  # so many tokens cannot show that none ever differs


def test_perplexity_is_that_of_transformers_own_loss(models, tokenizer, corpus):
    found = probes.next_token(models[0], None, tokenizer, corpus, draws=2, **QUIET)
    assert list(found.measure.values) == ["nats_per_token", "perplexity", "bits_per_byte"]
    batch = tokenizer(list(corpus["text"]), padding=True, return_tensors="pt", return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    loss = models[0](**batch, labels=labels).loss
    value = found.value.sel(language="pooled")
    assert float(value.sel(measure="nats_per_token")) == pytest.approx(float(loss), rel=1e-6)
    assert float(value.sel(measure="perplexity")) == pytest.approx(float(loss.exp()), rel=1e-6)


def test_groups_are_drawn_together_and_masked_tokens_are_asked_for(tokenizer, corpus):
    model = of_masked_tokens(tokenizer)
    grouped = corpus.add_column("group", [str(int(i) // 4) for i in corpus["id"]])
    found = probes.next_token(model, None, tokenizer, grouped, draws=10, per_text=2, **QUIET)
    assert found.attrs["reads"] == "masked"
    assert (found.units == 5).all()
    assert np.isfinite(found.value).all()


def test_logits_that_are_not_finite_have_no_value_and_are_named(models, tokenizer, corpus):
    broken = copy.deepcopy(models[1])

    def without(_module, _inputs, output):
        output[..., 7] = -torch.inf
        return output

    broken.lm_head.register_forward_hook(without)
    said = r"kl of model LlamaForCausalLM has no value at the output: what is said of \d+ tokens is not finite \(logits"
    with pytest.warns(LayerscopeWarning) as caught:
        found = probes.next_token(models[0], broken, tokenizer, corpus, draws=4, **QUIET)
    assert any(re.match(said, str(w.message)) for w in caught)
    assert found.value.sel(measure="kl").isnull().all()
    same = probes.next_token(broken, broken, tokenizer, without_it(corpus, tokenizer), draws=4, **QUIET)
    assert (same.value.sel(measure="kl") == 0).all()  # what has no probability in both counts nothing


def without_it(corpus, tokenizer):
    """The texts that do not hold the token that has no probability."""
    return corpus.filter(lambda row: 7 not in tokenizer(row["text"])["input_ids"])


def test_a_comparison_of_decoders_has_them_by_default(models, tokenizer, corpus):
    named = dict(zip(("base", "other"), models, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)  # there are no labels
        comparison = probes.compare(named, corpus, tokenizer=tokenizer, draws=10, timing=False, progress=False)
    alone = probes.next_token(*models, tokenizer, corpus, draws=10, **QUIET)
    table = comparison.table.query("model == 'other' and language == 'pooled'").set_index("probe")
    for name in alone.measure.values:
        assert table.loc[name, "value"] == pytest.approx(float(alone.value.sel(measure=name, language="pooled")))
    own = probes.next_token(models[0], None, tokenizer, corpus, draws=10, **QUIET)
    base = comparison.table.query("model == 'base' and language == 'pooled'").set_index("probe")
    assert base.loc["bits_per_byte", "value"] == pytest.approx(
        float(own.value.sel(measure="bits_per_byte", language="pooled"))
    )
    assert "kl" not in base.index
    assert table.loc["bits_per_byte", "difference"] == pytest.approx(
        table.loc["bits_per_byte", "value"] - base.loc["bits_per_byte", "value"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        more = comparison.adjusted(draws=40)  # of states: what runs the models keeps its draws
    assert (more["probe"] == "kl").any()
    assert set(comparison.verdict().models["probe"]) == {"bits_per_byte", "same_top_token"}


def test_tokenizers_that_differ_leave_bits_per_byte(models, tokenizer, corpus, make_tokenizer):
    other = masking(lambda words: make_tokenizer(words=[*words[:1], *reversed(words[1:])]))
    given = {"tokenizer": {"base": tokenizer, "other": other}, "draws": 4, "timing": False, "progress": False}
    named = dict(zip(("base", "other"), models, strict=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        comparison = probes.compare(named, corpus, **given)
    assert any(str(w.message).startswith("no models of one tokenizer: kl, kl_median, kl_p90") for w in caught)
    assert "bits_per_byte" in set(comparison.table["probe"])
    assert "kl" not in set(comparison.table["probe"])
    with pytest.raises(
        InputError, match=r"kl cannot be measured without models of one tokenizer. Give .* bits_per_byte"
    ):
        probes.compare(named, corpus, probes=["kl"], **given)
    with pytest.raises(
        InputError, match=r"bits_per_byte cannot be measured without predicted tokens. Give language mod"
    ):
        probes.compare({"body": models[0].model}, corpus, tokenizer=tokenizer, probes=["bits_per_byte"])


def test_replicates_and_models_of_masked_tokens_are_compared_too(models, tokenizer, corpus):
    corpus = corpus.select(range(6))
    how = {"tokenizer": tokenizer, "draws": 4, "timing": False, "progress": False}
    seeds = [models[1], copy.deepcopy(models[0])]
    found = probes.compare({"base": models[0], "seeds": seeds}, corpus, probes=["next_token"], **how).table
    rows = found.query("model == 'seeds' and language == 'pooled'").set_index("probe")
    one = probes.next_token(*models, tokenizer, corpus, draws=4, **QUIET).value.sel(measure="kl", language="pooled")
    assert rows.loc["kl", "value"] == pytest.approx(float(one) / 2)  # the other is the baseline again
    masked = {"a": of_masked_tokens(tokenizer), "b": of_masked_tokens(tokenizer, hidden_act="relu")}
    found = probes.compare(masked, corpus, probes=["next_token"], **how)
    assert {"perplexity", "kl", "same_top_token"} <= set(found.table["probe"])
    assert found.provenance["tokens"] == {"b": []}  # of decoders only
    with pytest.raises(InputError, match="kl cannot be measured without predicted tokens"):
        probes.compare({"a": masked["a"], "b": models[0]}, corpus, probes=["kl"], **how)
