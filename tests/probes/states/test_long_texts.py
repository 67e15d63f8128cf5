"""Texts longer than a model reads: windows held against plain transformers, and that shorter texts stay as they are."""

import numpy as np
import pytest
import tiny
import torch
import transformers
import xarray as xr
from capturing import LONG as SENTENCE
from capturing import assert_close, capture, make_corpus

import probes
from probes.models.facts import positions_of
from probes.states.long_texts import Windows, check_windows, read_texts
from probes.states.tokens import tokenise

WORDS = SENTENCE.split()


def words(count):
    return " ".join(np.random.default_rng(count).choice(WORDS, count))


LENGTHS = (3, 12, 70, 30, 31, 1, 200, 45)  # of 30 words fit with [CLS] and [SEP]
SHORT, LONG = [0, 1, 3, 5], [2, 4, 6, 7]


@pytest.fixture(scope="module")
def many():
    return make_corpus([words(n) for n in LENGTHS])


def read(model, ids, before, after, room, overlap):
    """By plain transformers: what stands before, all tokens, and what stands after (layer, token, feature), each token
    as the window has it in which most stands around it; and the logits of these windows.
    """
    begins = [*range(0, len(ids) - room, room - overlap), len(ids) - room] if len(ids) > room else [0]
    states, logits = [], []
    for begin in begins:
        with torch.no_grad():
            inside = torch.tensor([[*before, *ids[begin : begin + room], *after]])
            out = model(inside, output_hidden_states=True)
        states.append(torch.stack(out.hidden_states)[:, 0].double().numpy())
        logits.append(out.logits[0].double().numpy() if "logits" in out else None)

    def around(token, k):  # how far the nearer end is at which the text was cut
        at = token - begins[k] if k else np.inf
        return min(at, begins[k] + room - 1 - token if k + 1 < len(begins) else np.inf)

    inside = [[k for k, b in enumerate(begins) if b <= token < b + room] for token in range(len(ids))]
    best = [max(at, key=lambda k: (around(token, k), k)) for token, at in enumerate(inside)]
    own = np.stack([states[k][:, len(before) + token - begins[k]] for token, k in enumerate(best)], 1)
    ends = states[0][:, : len(before)], states[-1][:, states[-1].shape[1] - len(after) :]
    return ends[0], own, ends[1], [logits[k] for k in best]


def by_hand(model, tokenizer, text, pooling="mean", overlap=7):
    """The vector of a text and its logits."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    *parts, logits = read(model, ids, [tokenizer.cls_token_id], [tokenizer.sep_token_id], 30, overlap)
    weights = {
        "mean": [0, *np.ones(len(ids)), 0],
        "weighted": [0, *range(1, len(ids) + 1), 0],
        "mean_all": np.ones(len(ids) + 2),
        "first": np.eye(len(ids) + 2)[0],
        "last": np.eye(len(ids) + 2)[-1],
    }[pooling]
    return np.average(np.concatenate(parts, 1), axis=1, weights=weights), np.mean(logits, 0)


@pytest.mark.parametrize("pooling", ["mean", "mean_all", "weighted", "first", "last"])
def test_windows_are_those_of_plain_transformers(bert, tokenizer, many, pooling):
    reps = capture(bert, tokenizer, many, long_texts="windows", pooling=pooling)
    assert reps.attrs["overlap"] == 7
    found = [by_hand(bert, tokenizer, text, pooling) for text in many["text"]]
    assert_close(reps, np.stack([vector for vector, _ in found], 1))
    np.testing.assert_allclose(reps.logits, np.stack([logits for _, logits in found]), atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 1, 13, 29])
def test_any_overlap_counts_each_token_once(bert, tokenizer, many, overlap):
    many = many.select([2, 4, 7])
    reps = capture(bert, tokenizer, many, long_texts="windows", overlap=overlap)
    assert_close(reps, np.stack([by_hand(bert, tokenizer, t, overlap=overlap)[0] for t in many["text"]], 1))
    _, windows = read_texts(tokenizer, many, 32, bert, "", long_texts="windows", overlap=overlap, prompt="")
    windows.weigh("mean")
    for row, count in enumerate((70, 31, 45)):
        parts = np.concatenate([windows.of_first[row][None], windows.of_further[windows.owner == row]])
        assert np.count_nonzero(parts) == count
        assert parts.sum() == pytest.approx(1)


def test_shorter_texts_are_bit_for_bit_what_they_were(bert, tokenizer, many):
    with pytest.warns(probes.LayerscopeWarning, match="4 of 8 texts are longer than 32 tokens .* long_texts='windows'"):
        cut = capture(bert, tokenizer, many)
    whole = capture(bert, tokenizer, many, long_texts="windows")
    for name in ("hidden", "logits", "head_input"):
        np.testing.assert_array_equal(whole[name].sel(example=SHORT), cut[name].sel(example=SHORT))
        assert np.abs(whole[name].sel(example=LONG) - cut[name].sel(example=LONG)).max() > 1e-3
    assert "long_texts" not in cut.attrs
    assert (whole.attrs["texts_cut"], whole.attrs["texts_in_windows"], whole.attrs["max_length"]) == (0, 4, 32)
    assert "read in windows of 32, with the special tokens and a prompt in each" in whole.attrs["windows"]
    assert "that share 7 tokens" in whole.attrs["windows"]
    few = many.select(SHORT)
    np.testing.assert_array_equal(
        capture(bert, tokenizer, few, long_texts="windows").hidden, capture(bert, tokenizer, few).hidden
    )


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_tokens": 70}, {"batch_size": 3}], ids=str)
def test_they_depend_on_neither_batches_nor_order(bert, tokenizer, many, options):
    whole = capture(bert, tokenizer, many, long_texts="windows")
    order = [6, 0, 7, 5, 2, 1, 4, 3]
    other = capture(bert, tokenizer, many.select(order), long_texts="windows", **options)
    assert_close(other, whole.hidden.values[:, order])
    np.testing.assert_allclose(other.logits, whole.logits[order], atol=1e-5)


def test_vectors_are_cut_and_divided_by_their_length_when_they_are_whole(bert, tokenizer, many):
    how = {"long_texts": "windows", "normalize": True, "dimensions": 5}
    reps = capture(bert, tokenizer, many, **how)
    whole = np.stack([by_hand(bert, tokenizer, text)[0] for text in many["text"]], 1)[..., :5]
    assert_close(reps, whole / np.linalg.norm(whole, axis=-1, keepdims=True))


@pytest.mark.parametrize("counts", [True, False], ids=["counts", "left out"])
def test_a_prompt_stands_in_every_window_and_counts_once_or_not_at_all(bert, tokenizer, many, counts):
    bert.config.text_embedding = {"prompt": "she sang ", "pools_prompt": counts}
    try:
        reps = capture(bert, tokenizer, many.select(LONG), long_texts="windows", overlap=4)
    finally:
        del bert.config.text_embedding
    for row, text in enumerate(many.select(LONG)["text"]):
        ids, prompt = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer("she sang")["input_ids"]
        before, own, *_ = read(bert, ids, prompt[:3], prompt[3:], 28, 4)
        assert_close(reps.hidden.values[:, row], np.concatenate([before[:, 1:], own] if counts else [own], 1).mean(1))


def test_a_token_of_a_prompt_that_joins_a_text_is_no_part_of_a_window(bert, make_tokenizer):
    """As of SentencePiece, where the space that ends a prompt begins the text's first word."""
    tokenizer = make_tokenizer(words=["she", "sang:", "the", "cat", "sang:the"])
    both = make_corpus(["sang:the cat " * 20, "sang:the cat"])
    _, windows = read_texts(tokenizer, both, 20, bert, "", long_texts="windows", overlap=0, prompt="sang:")
    assert (windows.before, windows.after) == (1, 1)
    both = make_corpus(["she sang:the cat " * 20, "she sang: cat"])
    _, windows = read_texts(tokenizer, both, 20, bert, "", long_texts="windows", overlap=0, prompt="she sang:")
    assert (windows.before, windows.after) == (2, 1)


@pytest.mark.parametrize(("name", "after"), [("xlnet", 2), ("gpt2", 0)])
def test_special_tokens_stand_where_a_model_has_them(name, after):
    """XLNet has them at the end, and is padded on the left; GPT-2 has none."""
    model, tokenizer = tiny.make(name), tiny.tokenizer_of(name)
    texts = [" ".join(np.random.default_rng(0).choice(tiny.WORDS, n)) for n in (50, 9)]
    reps = capture(model, tokenizer, make_corpus(texts), max_length=20, long_texts="windows", overlap=5)
    for row, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"]
        count = len(ids) - after
        _, own, *_ = read(model, ids[:count], [], ids[count:], 20 - after, 5)
        assert_close(reps.hidden.values[:, row], own.mean(1), 1e-4)


def test_a_store_knows_the_setting_and_goes_on_where_it_stopped(bert, tokenizer, many, tmp_path, monkeypatch):
    monkeypatch.setattr("probes.states.store.BLOCK", 2)
    monkeypatch.setattr("probes.states.capture._WINDOW", 2)
    store, many, how = tmp_path / "s.zarr", many.select([0, 2, 7, 1]), {"long_texts": "windows"}
    expected = capture(bert, tokenizer, many, **how)
    ran, forward = [], bert.forward

    def stops(*args, **inputs):
        ran.append(len(inputs["input_ids"]))
        if len(ran) == 5:  # among the windows of the third text
            raise KeyboardInterrupt
        return forward(*args, **inputs)

    with monkeypatch.context() as patched:
        patched.setattr(bert, "forward", stops)
        with pytest.raises(KeyboardInterrupt):
            capture(bert, tokenizer, many, store=store, **how)
    assert ran == [1, 2, 2, 2, 1]  # the longest by itself, two texts, the windows of one, two texts, ...
    with monkeypatch.context() as patched:
        ran = [0] * 5
        patched.setattr(bert, "forward", stops)
        resumed = capture(bert, tokenizer, many, store=store, **how)
        assert ran[5:] == [1, 2, 1]
        xr.testing.assert_allclose(resumed.load(), expected, rtol=0, atol=1e-5)
        capture(bert, tokenizer, many, store=store, **how)
        assert len(ran) == 8  # it is opened
    others = [how | {"overlap": 3}, how | {"max_length": 20}, {"max_length": 20}]
    with pytest.warns(probes.LayerscopeWarning, match="longer than 20 tokens"):
        found = [capture(bert, tokenizer, many.select([0, 1]), **o).attrs["fingerprint"] for o in (how, *others)]
    assert len({*found}) == 4
    with pytest.warns(probes.LayerscopeWarning, match="made anew"):
        capture(bert, tokenizer, many, store=store, **others[0])


def test_a_comparison_passes_it_on_and_keeps_it(bert, tokenizer, many):
    how = {"long_texts": "windows", "overlap": 9}
    models = {"a": bert, "b": bert}
    measured = {"tokenizer": tokenizer, "probes": ["norm"], "draws": 2, "timing": False, "progress": False}
    made = probes.compare(models, many, **measured, **how)
    assert made.provenance["asked"]["settings"] == how
    np.testing.assert_array_equal(made.representations["b"].hidden, capture(bert, tokenizer, many, **how).hidden)
    # A model that is added is read likewise.
    more = made.add("c", bert, corpus=many, tokenizer=tokenizer, timing=False, progress=False)
    assert more.representations["c"].attrs["overlap"] == 9


# Longformer


def test_longformer_reads_4096_tokens_and_fills_them_up_to_its_window():
    tokenizer = tiny.tokenizer_of("longformer")
    tokenizer.model_max_length = 4096
    config = tiny.config_of("longformer")
    config.max_position_embeddings, config.num_hidden_layers, config.attention_window = 4098, 1, [256]
    config.hidden_size = config.intermediate_size = 8
    torch.manual_seed(0)
    model = transformers.LongformerForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    corpus = make_corpus([" ".join(rng.choice(tiny.WORDS, n)) for n in (3, 4094, 300)])
    reps = capture(model, tokenizer, corpus)
    assert (reps.attrs["max_length"], reps.attrs["texts_cut"], positions_of(model)) == (4096, 0, 4096)
    for row in range(3):
        inputs = tokenizer(corpus["text"][row], return_tensors="pt")
        first = torch.zeros_like(inputs["input_ids"])
        first[:, 0] = 1  # to which all attend, as the head has it
        with torch.no_grad():
            given = model.longformer(**inputs, global_attention_mask=first, output_hidden_states=True)
            logits = model.classifier(given.last_hidden_state)
        states = torch.stack(given.hidden_states)[:, 0, 1:-1]
        assert_close(reps.hidden.values[:, row], states.double().mean(1).numpy(), 1e-4)
        np.testing.assert_allclose(reps.logits[row], logits[0], atol=1e-4)
    few = corpus.select([0, 2])
    assert_close(capture(model, tokenizer, few, batch_size=1), reps.hidden.values[:, [0, 2]], 1e-4)
    # Without the head none attends to all; and modules give what was filled up too.
    local = capture(model.longformer, tokenizer, few)
    assert np.abs(local.hidden.values[1, 1] - reps.hidden.values[1, 2]).max() > 1e-4
    named = capture(model.longformer, tokenizer, few, modules=["encoder.layer.0"])
    assert_close(named, local.hidden.values[1:], 1e-6)
    with pytest.warns(probes.LayerscopeWarning, match="1 of 2 texts are longer than 200 tokens"):
        capture(model.longformer, tokenizer, few, max_length=200)


def test_the_encoder_of_led_is_as_long_as_its_positions():
    config = transformers.LEDConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8,
        decoder_attention_heads=2, decoder_ffn_dim=8, attention_window=[8], max_encoder_position_embeddings=48,
    )  # fmt: skip
    assert positions_of(transformers.LEDModel(config)) == 48


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"long_texts": "split"}, r"long_texts='split' is not known; choose one of 'cut', 'windows'"),
        ({"overlap": 3}, r"overlap=3 is of windows: give long_texts='windows', or leave it out"),
        ({"long_texts": "windows", "overlap": -1}, r"overlap=-1: expected a whole number of tokens, at least 0"),
        ({"long_texts": "windows", "overlap": 0.5}, r"overlap=0.5: expected a whole number of tokens, at least 0"),
        (
            {"long_texts": "windows", "overlap": 30},
            r"overlap=30: expected at most 29: a window of 32 tokens has room for 30 of a text, beside 2 special ones",
        ),
        ({"long_texts": "windows", "overlap": 600}, r"overlap=600: expected at most 29"),
        ({"long_texts": "windows", "max_length": 33}, r"max_length=33: expected 1 to 32, the most tokens the model"),
        ({"long_texts": "windows", "max_length": 2}, r"windows of 2 tokens have no room for a text beside 2 special"),
        (
            {"long_texts": "windows", "tokens": True},
            r"does not go with tokens=True, words=... or a pooling of all tokens, and windows share some. Leave them",
        ),
        ({"long_texts": "windows", "words": True}, r"does not go with tokens=True, words"),
    ],
)
def test_what_cannot_be_read_in_windows_is_refused_before_the_model_runs(
    bert, tokenizer, many, settings, message, monkeypatch
):
    monkeypatch.setattr(bert, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(probes.InputError, match=message):
        capture(bert, tokenizer, many, **settings)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"pairs": True}, "tiny: long_texts='windows' gives one vector a text, and does not go with a text_pair"),
        ({"decoder": True}, "does not go with part='decoder', whose input has another length. Leave part out"),
        ({"of_words": True}, "does not go with a head that labels words, which may lie in several windows"),
    ],
)
def test_pairs_decoders_and_labels_of_words_have_no_windows(what, message):
    none = {"pairs": False, "decoder": False, "tokens": False, "of_words": False}
    check_windows("cut", **none | what, name="tiny")
    check_windows("windows", **none, name="tiny")
    with pytest.raises(probes.InputError, match=message):
        check_windows("windows", **none | what, name="tiny")


def test_a_limit_that_is_not_there_needs_no_windows(tiny_models, make_tokenizer):
    model, tokenizer = tiny_models("T5Model"), make_tokenizer(limit=None)
    corpus = make_corpus([words(100), "a cat"])
    tokens, windows = read_texts(tokenizer, corpus, None, model, "", long_texts="windows", overlap=None, prompt="")
    assert (tokens.limit, windows) == (None, None)
    whole = tokenise(tokenizer, corpus, None, model, "")
    made = Windows(whole, 200, 1, 1, 5)
    assert (made.count, len(made.owner)) == (0, 0)
    assert made.firsts.lengths.tolist() == whole.lengths.tolist()
