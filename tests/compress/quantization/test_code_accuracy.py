"""How often codewords are read as the right word: against bits counted text by text."""

import numpy as np
import pandas as pd
import pytest
import torch
from speaking import masking_tokenizer, of_the_next_token, spoken
from trained import make_corpus

import compress
import probes
from compress.quantization.code_accuracy import code_accuracy
from probes.errors import InputError
from probes.models.formats.output_codes import coded_output_of, saying_bits

tokenizer = masking_tokenizer


@pytest.fixture
def coded(tokenizer):
    return compress.code_outputs(of_the_next_token(tokenizer), bits=9, assignment="random")


@pytest.fixture
def corpus():
    texts = spoken().to_pandas().head(6)
    return probes.load_corpus(texts.assign(language=["en", "de"] * 3))


def test_shares_are_those_counted_word_by_word(coded, tokenizer, corpus):
    table = coded_output_of(coded).table().numpy()
    rows = []
    for language, text in zip(corpus["language"], corpus["text"], strict=True):
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad(), saying_bits(coded):
            said = coded(torch.tensor([ids])).logits[0].double().numpy()
        for z, word in zip(said[:-1], ids[1:], strict=True):
            wrong = ((z > 0) != table).sum(1)
            p = 1 / (1 + np.exp(-z))
            likely = (table * np.log(p) + (1 - table) * np.log(1 - p)).sum(1)
            rows.append((language, wrong[word] == 0, wrong.argmin() == word, likely.argmax() == word, wrong[word]))
    every = pd.DataFrame(rows, columns=["language", "exact", "hamming", "likelihood", "bits_wrong"])
    for size in (1, 4):
        found = code_accuracy(coded, tokenizer, corpus, batch_size=size).set_index("language")
        assert list(found.index) == ["en", "de", "pooled"]
        for language in found.index:
            here = every[(every["language"] == language) | (language == "pooled")]
            assert found.loc[language, "words"] == len(here)
            for column in ("exact", "hamming", "likelihood", "bits_wrong"):
                assert found.loc[language, column] == pytest.approx(here[column].astype(float).mean(), abs=1e-9)
    assert (found["hamming"] >= found["exact"]).all()


def test_classes_are_counted_by_their_labels_and_a_sure_head_is_always_right(make_classifier, make_tokenizer):
    coded, train = compress.code_outputs(make_classifier(), bits=6, assignment="random"), make_corpus()
    found = code_accuracy(coded, make_tokenizer(), train)
    assert found["words"].tolist() == [48, 48]
    head = coded_output_of(coded)
    with torch.no_grad():  # says x, whatever it reads
        head.linear.weight.zero_()
        head.linear.bias.copy_(8 * (2 * head.table()[0] - 1))
    sure = code_accuracy(coded, make_tokenizer(), train).iloc[-1]
    assert [sure[k] for k in ("exact", "hamming", "likelihood")] == pytest.approx([1 / 3] * 3)


def test_what_cannot_be_counted_is_refused(coded, tokenizer, corpus, make_classifier, make_tokenizer):
    with pytest.raises(InputError, match="has no output codes: expected a model of"):
        code_accuracy(of_the_next_token(tokenizer), tokenizer, corpus)
    with pytest.raises(InputError, match="batch_size=0: expected a whole number of at least 1"):
        code_accuracy(coded, tokenizer, corpus, batch_size=0)
    classes = compress.code_outputs(make_classifier(), bits=6)
    with pytest.raises(InputError, match="expected a corpus with a column 'label'"):
        code_accuracy(classes, make_tokenizer(), corpus)
