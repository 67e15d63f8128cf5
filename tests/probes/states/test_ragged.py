"""States of tokens: a store holds what memory holds, in pieces and resumed; each is an example where asked."""

import numpy as np
import pandas as pd
import pytest
import tiny
import xarray as xr
import zarr
from capturing import LONG, capture, make_corpus

import probes
from probes.states.ragged import in_pieces, states_of_tokens, tokens_at


@pytest.fixture
def many(monkeypatch):
    """Twenty rows, in chunks of 4 rows and tokens, in windows of about 16 tokens."""
    monkeypatch.setattr("probes.states.store.BLOCK", 4)
    monkeypatch.setattr("probes.states.capture._HELD", 16 * 4 * 4 * 12)
    return make_corpus([" ".join(LONG.split()[: 1 + i % 7]) for i in range(20)])


@pytest.mark.parametrize("kept", [{"tokens": True}, {"words": True}])
def test_a_store_in_many_windows_holds_what_memory_holds(bert, tokenizer, many, tmp_path, kept):
    memory = capture(bert, tokenizer, many, **kept)
    stored = capture(bert, tokenizer, many, store=tmp_path / "s.zarr", **kept)
    assert zarr.open_group(tmp_path / "s.zarr")["tokens"].chunks == (1, 4, 12)
    assert stored.sizes["token"] == sum(1 + i % 7 for i in range(20))
    for name in ("hidden", "tokens", "logits"):
        np.testing.assert_allclose(stored[name], memory[name], atol=1e-5)
    arrays = ["hidden", "tokens", "logits", "head_input"]
    xr.testing.assert_identical(stored.load().drop_vars(arrays), memory.drop_vars(arrays))


@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_capture_of_tokens_goes_on_where_it_stopped(
    bert, tokenizer, many, tmp_path, monkeypatch, stop_after
):
    expected = capture(bert, tokenizer, many, tokens=True, store=tmp_path / "whole.zarr").load()
    seen, forward = [], bert.bert.forward

    def counting(*args, **inputs):
        if len(seen) == stop_after:
            raise KeyboardInterrupt
        seen.append(1)
        return forward(*args, **inputs)

    monkeypatch.setattr(bert.bert, "forward", counting)
    with pytest.raises(KeyboardInterrupt):
        capture(bert, tokenizer, many, tokens=True, store=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    seen.clear()
    monkeypatch.setattr(bert.bert, "forward", lambda *a, **k: (seen.append(1), forward(*a, **k))[1])
    resumed = capture(bert, tokenizer, many, tokens=True, store=tmp_path / "s.zarr")
    rest = len(seen)
    xr.testing.assert_identical(resumed.load(), expected)
    seen.clear()
    capture(bert, tokenizer, many, tokens=True, store=tmp_path / "again.zarr")
    assert rest < len(seen) or stop_after == 1


def test_a_store_with_tokens_is_another_than_one_without_and_a_lost_piece_of_it_is_found(
    bert, tokenizer, many, tmp_path
):
    store = tmp_path / "s.zarr"
    capture(bert, tokenizer, many, store=store)
    with pytest.warns(probes.LayerscopeWarning, match="captured from another model, corpus or settings"):
        capture(bert, tokenizer, many, store=store, tokens=True)
    reps = capture(bert, tokenizer, many, store=store, tokens=True)  # opened without a warning
    with pytest.warns(probes.LayerscopeWarning, match="captured from another model, corpus or settings"):
        capture(bert, tokenizer, many, store=store, words={"en": str.split})
    reps = capture(bert, tokenizer, many, store=store, words={"en": str.split})
    assert reps.attrs["tokens"] == "words"
    next(p for p in (store / "tokens" / "c" / "1").rglob("*") if p.is_file()).unlink()
    with pytest.raises(probes.InputError, match="a chunk of states is missing"):
        probes.open_representations(store)


def test_some_examples_read_right_and_in_pieces(bert, tokenizer, many, tmp_path):
    memory = capture(bert, tokenizer, many, tokens=True)
    reps = capture(bert, tokenizer, many, store=tmp_path / "s.zarr", tokens=True).isel(example=[7, 3, 12])
    for rows in (np.array([0, 1, 2]), np.array([1])):
        x, counts = states_of_tokens(reps, 1, rows)
        expected = [memory.tokens.values[1, tokens_at(memory, np.array([[7, 3, 12][r]]))[0]] for r in rows]
        np.testing.assert_allclose(x, np.concatenate(expected), atol=1e-5)
        assert x.dtype == np.float64
        assert counts.tolist() == [len(e) for e in expected]
    everything = np.arange(20)
    pieces = list(in_pieces(memory, everything, 10))
    assert np.concatenate(pieces).tolist() == everything.tolist()
    assert all(len(p) == 1 or memory.token_count.values[p].sum() <= 10 for p in pieces)
    assert len(pieces) > 5
    left = memory.assign_coords(left_out=(("layer", "feature"), np.eye(4, 12, dtype=bool)))
    assert (states_of_tokens(left, 1, everything)[0][:, 1] == 0).all()


@pytest.mark.parametrize("name", ["t5", "bart", "xlnet", "llama"])
def test_tokens_of_decoders_and_of_texts_padded_on_the_left_are_those_that_a_mean_is_of(corpus, name):
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    for part in ["encoder", "decoder"] if model.config.is_encoder_decoder else ["encoder"]:
        reps = capture(model, tokenizer, corpus, part=part, tokens=True, batch_size=4, pooling="mean")
        means = [reps.tokens.values[:, tokens_at(reps, np.array([row]))[0]].mean(1) for row in range(len(corpus))]
        np.testing.assert_allclose(np.stack(means, 1), reps.hidden, atol=1e-5)


# --- each word an example ------------------------------------------------------------------------------------------


def planted(separation, sentences=40, seed=0):
    """Words of two languages, two tags of a sentence each, whose states lie apart by so much."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        [(i, language, "a b c", "N V N" if i % 2 else "V N N") for language in ("en", "de") for i in range(sentences)],
        columns=["id", "language", "text", "tags"],
    )
    n = 3 * len(frame)
    noun = np.array([tag == "N" for cell in frame["tags"] for tag in cell.split()])
    states = rng.normal(size=(1, n, 4))
    states[..., 0] += separation * noun
    reps = probes.from_arrays(
        np.zeros((1, len(frame), 4)), **{k: frame[k].to_numpy() for k in ("id", "language", "text")}
    )
    reps = reps.assign_coords(
        tags=("example", frame["tags"].to_numpy(object)), token_text=("vocabulary", ["a", "b", "c"])
    )
    return reps.assign(
        tokens=(("layer", "token", "feature"), states),
        token_start=("example", np.arange(0, n, 3)),
        token_count=("example", np.full(len(frame), 3)),
        token_place=("token", np.arange(n) % 3),
        token_code=("token", np.arange(n) % 3),
    ).assign_attrs(tokens="words")


def test_class_probes_of_words_find_tags_that_are_there_and_none_that_are_not(monkeypatch):
    monkeypatch.setattr("probes.measures.classes.linear_probe.SHUFFLES", 1)
    there, nothing = (probes.each_token(planted(separation)) for separation in (3.0, 0.0))
    assert there.sizes["example"] == 240
    assert there.label.values[:6].tolist() == ["V", "N", "N", "N", "V", "N"]
    share = [probes.class_separability(w).sel(language=["en", "de"]) for w in (there, nothing)]
    assert (share[0].low > share[1].high).all()
    few = planted(3.0, sentences=12)
    few = probes.each_token(few.isel(example=few.language.values == "en"))
    accuracy = probes.linear_probe(few, progress=False).sel(measure="linear_probe")
    assert (accuracy.value > 0.85).all()
    assert accuracy.units.values.tolist() == [12, 12]


def test_words_of_a_sentence_stay_together_in_folds_and_draws():
    words = probes.each_token(planted(1.0))
    assert words.group.values[:4].tolist() == ["0", "0", "0", "1"]
    out = probes.class_separability(words)
    assert out.units.sel(language="en") == 40
    assert out.n.sel(language="en") == 120
    from probes.measures.classes.folds import folds_of
    from probes.results.draws import sample

    drawn = sample(words, draws=5, seed=0)
    of_sentence = words.group.values
    weights = drawn.weights[:, drawn.ids]
    assert all(len(np.unique(weights[1, of_sentence == s])) == 1 for s in np.unique(of_sentence))
    for fold in folds_of(drawn, "en", 0, words):
        assert not set(of_sentence[fold.train]) & set(of_sentence[fold.test])


def test_words_of_two_languages_are_no_translations_of_each_other():
    with pytest.raises(probes.InputError, match="shares no ids with the pivot"):
        probes.retrieval(probes.each_token(planted(1.0)), pivot="en")


def test_words_of_a_store_are_read_when_they_are_needed(bert, tokenizer, many, tmp_path):
    tagged = many.add_column("tags", [" ".join("NV"[i % 2] for i, _ in enumerate(t.split())) for t in many["text"]])
    reps = capture(bert, tokenizer, tagged, store=tmp_path / "s.zarr", words=True)
    words = probes.each_token(reps)
    assert not isinstance(words.hidden.variable._data, np.ndarray)
    np.testing.assert_array_equal(words.hidden, reps.tokens)
    assert words.label.values[:3].tolist() == ["N", "N", "V"]


def test_what_is_no_states_of_words_is_refused(bert, tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"each_token: model .* has no states of tokens\. Capture them"):
        probes.each_token(capture(bert, tokenizer, corpus))
    tagged = make_corpus(["the dog", "a"], tags=["D N", "D"])
    with pytest.raises(probes.InputError, match=r"tags are of words, and model .* was captured with tokens"):
        probes.each_token(capture(bert, tokenizer, tagged, tokens=True))
    with pytest.raises(probes.InputError, match="not as many tags as words in row 1: found 1 words and 2 tags"):
        make_corpus(["the dog", "a"], tags=["D N", "D N"])
    wrong = planted(1.0)
    wrong["tags"].values[5] = "N V"
    with pytest.raises(
        probes.InputError, match=r"row 5 \(id '5', language 'en'\): expected as many tags as words, found 2"
    ):
        probes.each_token(wrong)
    with pytest.raises(probes.InputError, match=r"probes\.each_token\(reps\) makes an example of each word"):
        probes.snr(capture(bert, tokenizer, tagged))
