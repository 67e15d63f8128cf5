"""Capture: the pooled states are right, whatever the batches, and a store is written, reused and resumed."""

import numpy as np
import pandas as pd
import pytest
from capturing import TEXTS, assert_close, capture, independent, make_corpus

import probes

# --- settings and material that cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pooling": "max"},
            "pooling='max' is not known; choose one of 'mean', 'mean_all', 'weighted', 'first', 'last'",
        ),
        ({"dtype": "float16"}, "dtype='float16' is not known; choose one of 'float32', 'bfloat16'"),
        ({"max_length": 0}, "max_length=0: expected 1 to 32"),
        ({"max_length": -3}, "max_length=-3: expected 1 to 32"),
        ({"max_length": 33}, "max_length=33: expected 1 to 32, the most tokens the model and its tokenizer take"),
        ({"max_length": 1}, "1 tokens leave no room for special tokens. Raise max_length"),
        ({"max_length": 2}, r"row 0 \(id '0', language 'en'\) has no tokens of its own within 2 tokens; 6 such in all"),
        ({"batch_size": 0}, "expected batch_size and batch_tokens of at least 1; found 0 and 4096"),
        ({"batch_tokens": 0}, "found 64 and 0"),
        ({"device": "bogus"}, "device='bogus' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"modules": ["bert.encoder.layer.7"]}, "no module named 'bert.encoder.layer.7'; it has bert, bert.embeddings"),
        ({"modules": []}, r"no module named \(none given\)"),
    ],
)
def test_bad_settings_are_refused_before_the_model_runs(
    bert, tokenizer, corpus, monkeypatch, tmp_path, options, message
):
    monkeypatch.setattr(bert.bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(probes.InputError, match=message):
        capture(bert, tokenizer, corpus, store=tmp_path / "s.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_another_model_is_refused(bert, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"do not fit: 64 tokens, but \d+ embeddings"):
        capture(bert, make_tokenizer(words=[str(i) for i in range(60)]), corpus)


def test_a_corpus_that_was_not_checked_is(bert, tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"expected a datasets\.Dataset, found list"):
        capture(bert, tokenizer, TEXTS)
    with pytest.raises(probes.InputError, match="no column 'language'"):
        capture(bert, tokenizer, corpus.remove_columns("language"))


# --- a real checkpoint and real text ---------------------------------------------------------------------------------


@pytest.mark.pretrained
@pytest.mark.shared_data
def test_states_of_a_pretrained_model_do_not_depend_on_batch_padding_or_order(pretrained, shared_data):
    model, tokenizer = probes.load_checkpoint(pretrained)
    frame = pd.read_parquet(shared_data / "sib200.test.parquet")
    frame = frame[frame["id"].isin(sorted(frame["id"].unique())[:10])]
    corpus = probes.load_corpus(frame, languages=["eng_Latn", "arb_Arab", "zho_Hans"])
    n = len(corpus)
    assert n == 30
    as_tested = {"pooling": "mean", "normalize": False, "max_length": 512}  # the checkpoint declares others
    plain = capture(model, tokenizer, corpus, **as_tested)
    assert_close(plain, independent(model.base_model, tokenizer, corpus), 1e-4)
    assert_close(capture(model, tokenizer, corpus, batch_size=1, **as_tested), plain.hidden.values, 1e-4)
    order = np.random.default_rng(0).permutation(n)
    assert_close(capture(model, tokenizer, corpus.select(order), **as_tested), plain.hidden.values[:, order], 1e-4)
    long = make_corpus([*corpus["text"], " ".join(corpus["text"][:6])])
    padded = capture(model, tokenizer, long, batch_size=64, batch_tokens=10**6, **as_tested)
    assert_close(padded.hidden.values[:, :n], plain.hidden.values, 1e-4)
    # The control: states that are pooled over padding too are far from these.
    wrong = independent(model.base_model, tokenizer, corpus, "mean_all")
    assert np.abs(wrong - plain.hidden.values).max() > 0.1
