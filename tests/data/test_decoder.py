"""The bundled decoder is what its card says."""

import re
from pathlib import Path

import numpy as np
import pytest

import probes

DATA = Path(__file__).parents[2] / "data"


def test_weights_are_small_and_safetensors_only():
    files = {f.name: f.stat().st_size for f in (DATA / "decoder").iterdir()}
    assert set(files) - {"generation_config.json"} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    assert sum(files.values()) <= 8e6


def card_rows():
    rows = re.findall(r"^\| (\w+) \| ([\d. |]+) \|$", (DATA / "DECODER.md").read_text(encoding="utf-8"), re.M)
    return {language: [float(v) for v in values.split("|")] for language, values in rows}


def test_it_is_better_than_a_model_of_three_tokens_by_a_tenth():
    _nats, _perplexity, bits, _of_three, bits_of_three, _train = card_rows()["all"]
    assert bits <= 0.9 * bits_of_three


@pytest.mark.parametrize("language", ["en", "zh"])
def test_card_gives_the_figures_measured(language):
    model, tokenizer = probes.load_checkpoint(DATA / "decoder")
    corpus = probes.load_corpus("bundled", split="test", languages=[language])
    found = probes.next_token(model, None, tokenizer, corpus, draws=2, progress=False).value.sel(language="pooled")
    np.testing.assert_allclose(found.values, card_rows()[language][:3], atol=0.006)
