"""Vectors as a checkpoint says or as was asked: against one text at a time by hand."""

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
from transformers import PreTrainedTokenizerFast

import probes
from probes.errors import LayerscopeWarning
from probes.models.formats.embedding import Embedding

TEXTS = ["the cat sat", "A Dog", "a small bird sang on the tree and the cat ran"]
CORPUS = pd.DataFrame({"id": [0, 1, 2], "language": "en", "text": TEXTS})
SAID = [
    Embedding(),
    Embedding(pooling="first", max_length=8),
    Embedding(pooling="last", normalize=True),
    Embedding(pooling="mean_all", prompt="he ran ", dimensions=5, normalize=True),
    Embedding(pooling="mean_all", prompt="he ran ", pools_prompt=False, lowercase=True),
    Embedding(pooling="mean", prompt="he ran ", pools_prompt=False, max_length=9),
]


def by_hand(model, tokenizer, text, how):
    """(layer, feature) of one text in float64."""
    text = how.prompt + (text.lower() if how.lowercase else text)
    ids = tokenizer(text, truncation=True, max_length=how.max_length or 32, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        states = torch.stack(model.double()(ids, output_hidden_states=True).hidden_states)[:, 0]
    skip = 0 if how.pools_prompt else 1 + len(how.prompt.split())
    if how.pooling == "mean":
        states = states[:, max(1, skip) : -1]
    elif how.pooling == "mean_all":
        states = states[:, skip:]
    else:
        states = states[:, :1] if how.pooling == "first" else states[:, -1:]
    vectors = states.mean(1)[:, : how.dimensions]
    return vectors / vectors.norm(dim=1, keepdim=True) if how.normalize else vectors


@pytest.mark.parametrize("how", SAID)
def test_vectors_are_made_as_the_checkpoint_says(tiny_models, make_tokenizer, how):
    model, tokenizer = tiny_models("BertModel"), make_tokenizer()
    model.config.text_embedding = how.said()
    corpus = probes.load_corpus(CORPUS)
    cut = how.max_length is not None
    with pytest.warns(LayerscopeWarning, match="are cut there") if cut else np.errstate():
        reps = probes.capture(model, tokenizer, corpus, progress=False, batch_size=2)
    expected = torch.stack([by_hand(model, tokenizer, text, how) for text in TEXTS], 1)
    np.testing.assert_allclose(reps.hidden, expected, atol=1e-5)
    assert reps.attrs["declared"] == list(how.said())
    assert list(reps["text"].values) == TEXTS
    model.config.text_embedding = None
    asked = {k: getattr(how, k) for k in ("pooling", "max_length", "prompt", "normalize", "dimensions")}
    if how.pools_prompt and not how.lowercase:
        with pytest.warns(LayerscopeWarning, match="are cut there") if cut else np.errstate():
            same = probes.capture(model.float(), tokenizer, corpus, progress=False, **asked)
        np.testing.assert_allclose(same.hidden, expected, atol=1e-5)
        assert same.attrs["declared"] == []


@pytest.fixture
def unigrams():
    """A tokenizer where a space is a token by itself, or the beginning of a word that is known."""
    pieces = [
        ("<s>", 0),
        ("<pad>", 0),
        ("</s>", 0),
        ("<unk>", 0),
        *((p, -2) for p in ["▁", "▁query", ":", "▁a", "▁dog"]),
    ]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=3))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    named = {f"{key}_token": f"<{key}>" for key in ("pad", "unk")} | {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **named)


@pytest.mark.parametrize("pooling", ["mean", "mean_all"])
def test_a_prompt_that_ends_in_a_space_takes_no_token_of_a_text(tiny_models, unigrams, pooling):
    model, texts = tiny_models("BertModel"), {"a dog": 3, "中 a": 4}  # tokens of the prompt before each
    model.resize_token_embeddings(len(unigrams))
    model.config.text_embedding = Embedding(pooling=pooling, prompt="query: ", pools_prompt=False).said()
    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": list(texts)}))
    reps = probes.capture(model, unigrams, corpus, progress=False)
    for i, (text, first) in enumerate(texts.items()):
        ids = unigrams(f"query: {text}", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = torch.stack(model(ids, output_hidden_states=True).hidden_states)[:, 0]
        last = -1 if pooling == "mean" else None
        np.testing.assert_allclose(reps.hidden[:, i], states[:, first:last].mean(1), atol=1e-5)


def test_what_is_asked_for_goes_before_what_the_checkpoint_says(tiny_models, make_tokenizer):
    model, tokenizer, corpus = tiny_models("BertModel"), make_tokenizer(), probes.load_corpus(CORPUS)
    plain = probes.capture(model, tokenizer, corpus, progress=False)
    model.config.text_embedding = SAID[3].said() | {"max_length": 1000}
    asked = {"pooling": "mean", "prompt": "", "normalize": False, "dimensions": 12}
    reps = probes.capture(model, tokenizer, corpus, progress=False, **asked)
    np.testing.assert_array_equal(reps.hidden, plain.hidden)
    assert (reps.attrs["declared"], reps.attrs["max_length"]) == (
        ["max_length"],
        32,
    )  # not more than there are positions
    assert reps.attrs["weights"] == plain.attrs["weights"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            "b: its files say that tokens are pooled by 'max', which is none of 'mean', .* Choose one with pooling=...",
        ),
        ({"pooling": "mean", "dimensions": 13}, "b: dimensions=13: expected 1 to 12, the features of its states"),
        ({"dimensions": 0}, "dimensions=0: expected a whole number, at least 1"),
        ({"prompt": 3}, "prompt=3: expected a text, as 'query: '"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_model_is_run(
    tiny_models, make_tokenizer, monkeypatch, settings, message
):
    model = tiny_models("BertModel")
    model.config.text_embedding = {"pooling": "max"}
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("a model was run"))
    for measure in (
        lambda: probes.capture(model, make_tokenizer(), probes.load_corpus(CORPUS), name="b", **settings),
        lambda: probes.compare({"b": model}, probes.load_corpus(CORPUS), tokenizer=make_tokenizer(), **settings),
    ):
        with pytest.raises(probes.InputError, match=message):
            measure()


def test_models_whose_vectors_are_made_in_other_ways_are_named(tiny_models, make_tokenizer):
    models = {"a": tiny_models("BertModel"), "b": tiny_models("BertModel")}
    models["b"].config.text_embedding = {"pooling": "mean_all", "normalize": True}
    frame = pd.concat([CORPUS.assign(id=i, text=["cat", "dog", "bird"][i]) for i in range(3)])
    corpus = probes.load_corpus(frame.assign(id=range(9), text=[f"{t} the" for t in frame["text"]]))
    run = {"tokenizer": make_tokenizer(), "probes": ["cka"], "draws": 10, "progress": False}
    said = r"pooling is 'mean' of 'a', 'mean_all' of 'b'; normalize is False of 'a', True of 'b'. Set"
    with pytest.warns(LayerscopeWarning, match=said):
        probes.compare(models, corpus, **run)
    probes.compare(models, corpus, **run, pooling="mean", normalize=False)
