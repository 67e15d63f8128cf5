"""The bundled model is what its card says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import probes

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def accuracy():
    model = AutoModelForSequenceClassification.from_pretrained(DATA / "model")
    tokenizer = AutoTokenizer.from_pretrained(DATA / "model")
    corpus = probes.load_corpus("bundled", split="test")
    right = {}
    with torch.inference_mode():
        for i in range(0, len(corpus), 256):
            rows = corpus[i : i + 256]
            best = model(**tokenizer(rows["text"], padding=True, return_tensors="pt")).logits.argmax(-1).tolist()
            for language, label, k in zip(rows["language"], rows["label"], best, strict=True):
                right.setdefault(language, []).append(model.config.id2label[k] == label)
    return {language: np.mean(r) for language, r in right.items()}


@pytest.fixture(scope="module")
def found():
    model, tokenizer = probes.load_checkpoint("bundled")
    reps = probes.capture(model, tokenizer, probes.load_corpus("bundled", split="test"), progress=False)
    return probes.retrieval(reps, pivot="en").value.sel(language="pooled").values


def test_weights_are_small_and_safetensors_only():
    files = {f.name: f.stat().st_size for f in (DATA / "model").iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(files.values()) <= 12e6


def test_english_is_learnt_and_other_languages_follow_zero_shot(accuracy):
    assert accuracy["en"] >= 0.9
    assert np.mean([v for k, v in accuracy.items() if k != "en"]) >= 0.6


def test_translations_are_found_at_the_best_layer(found):
    assert found.max() >= 0.5


def card_rows():
    return re.findall(r"^\| (topics|retrieval[^|]*) \|(.*)\|$", (DATA / "MODEL.md").read_text(encoding="utf-8"), re.M)


def test_card_gives_the_figures_measured(accuracy, found):
    rows = {name.split()[0]: [float(v) for v in values.split("|")] for name, values in card_rows()}
    np.testing.assert_allclose(rows["topics"], list(accuracy.values()), atol=0.005)
    np.testing.assert_allclose(rows["retrieval"], found, atol=0.005)


def test_every_token_of_the_corpus_is_known_to_the_tokenizer():
    _, tokenizer = probes.load_checkpoint("bundled")
    texts = probes.load_corpus("bundled")["text"]
    assert tokenizer.decode(tokenizer(texts[5])["input_ids"], skip_special_tokens=True).strip() == texts[5]
    assert not any(tokenizer.unk_token_id in ids for ids in tokenizer(list(texts))["input_ids"])
