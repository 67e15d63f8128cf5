"""Tokens and batches: texts are cut, counted and paired; values do not depend on what stands beside them."""

import numpy as np
import pytest
import tiny
from capturing import LONG, TEXTS, assert_close, capture, independent, make_corpus
from tokenizers.processors import TemplateProcessing

import probes
from probes.states.tokens import padding_of, reads_padding, tokenise


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 1}, {"batch_size": 4}, {"batch_tokens": 1}, {"batch_tokens": 12}, {"device": "cpu"}],
    ids=str,
)
def test_values_do_not_depend_on_the_batches(bert, tokenizer, corpus, options):
    assert_close(capture(bert, tokenizer, corpus, **options), capture(bert, tokenizer, corpus).hidden.values, 1e-5)


def test_rows_keep_their_order_and_values_whatever_stands_beside_them(bert, tokenizer, corpus):
    plain = capture(bert, tokenizer, corpus)
    assert list(plain.text.values) == TEXTS
    assert list(plain.id.values) == [str(i) for i in range(6)]
    order = [4, 0, 5, 2, 1, 3]
    shuffled = capture(bert, tokenizer, corpus.select(order))
    assert list(shuffled.text.values) == [TEXTS[i] for i in order]
    assert_close(shuffled, plain.hidden.values[:, order], 1e-5)
    padded = capture(bert, tokenizer, make_corpus([*TEXTS, LONG + " and then she sang"]))
    assert_close(padded.hidden.values[:, :6], plain.hidden.values, 1e-5)


def test_pairs_of_texts_are_one_sequence_of_two_segments(bert, tokenizer):
    pairs = make_corpus(TEXTS, text_pair=TEXTS[::-1])
    reps = capture(bert, tokenizer, pairs)
    assert_close(reps, independent(bert.bert, tokenizer, pairs))
    assert np.abs(reps.hidden.values - capture(bert, tokenizer, make_corpus(TEXTS)).hidden.values).max() > 0.05
    assert list(reps.text_pair.values) == TEXTS[::-1]


def test_long_texts_are_cut_counted_and_warned_about(bert, tokenizer, corpus):
    with pytest.warns(probes.LayerscopeWarning, match="3 of 6 texts are longer than 7 tokens and are cut there"):
        reps = capture(bert, tokenizer, corpus, max_length=7)
    assert reps.attrs["texts_cut"] == 3
    assert reps.attrs["max_length"] == 7
    assert_close(reps, independent(bert.bert, tokenizer, corpus, limit=7))
    whole = capture(bert, tokenizer, corpus)
    assert (whole.attrs["texts_cut"], whole.attrs["max_length"]) == (0, 32)
    assert np.abs(reps.hidden.values - whole.hidden.values).max() > 0.05


@pytest.mark.parametrize(
    ("architecture", "positions"),
    [("BertModel", 32), ("RobertaModel", 64), ("DistilBertModel", 32), ("GPT2LMHeadModel", 32)],
)
def test_texts_are_cut_at_the_positions_that_a_model_can_use(tiny_models, make_tokenizer, architecture, positions):
    model, tokenizer = tiny_models(architecture), make_tokenizer(limit=None)
    texts = make_corpus(["the " * n for n in (positions - 2, positions - 1, 300)])
    with pytest.warns(probes.LayerscopeWarning, match=f"2 of 3 texts are longer than {positions} tokens"):
        reps = capture(model, tokenizer, texts)
    assert reps.attrs["max_length"] == positions
    np.testing.assert_allclose(reps.hidden[:, 0], reps.hidden[:, 2], atol=1e-5)


def test_a_model_without_positions_takes_texts_of_any_length(tiny_models, make_tokenizer):
    texts = make_corpus(["the " * 300, "cat"])
    model, tokenizer = tiny_models("T5Model"), make_tokenizer(limit=None)
    reps = capture(model, tokenizer, texts)
    assert reps.attrs["max_length"] == -1
    assert_close(reps, independent(model.encoder, tokenizer, texts))


def test_a_length_that_is_bad_for_any_model_is_refused_without_a_limit(tiny_models, make_tokenizer, corpus):
    with pytest.raises(probes.InputError, match=r"max_length=0: expected at least 1$"):
        capture(tiny_models("T5Model"), make_tokenizer(limit=None), corpus, max_length=0)


def test_a_text_without_tokens_of_its_own_is_refused_with_its_row(bert, make_tokenizer):
    from tokenizers import normalizers

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("!", "")
    with pytest.raises(
        probes.InputError, match=r"row 1 \(id '1', language 'en'\) has no tokens of its own.*1 such in all"
    ):
        capture(bert, tokenizer, make_corpus(["the cat", "!!!"]))


def test_padding_is_on_the_right_but_where_relative_positions_end_at_the_last_token():
    bert, xlnet = tiny.make("bert"), tiny.make("xlnet")
    assert padding_of(tiny.tokenizer_of("bert"), bert) == (0, False)
    assert padding_of(tiny.tokenizer_of("roberta"), bert) == (1, False)
    assert padding_of(tiny.tokenizer_of("llama"), tiny.make("mistral")) == (5, False)  # of the configuration
    assert padding_of(tiny.tokenizer_of("llama"), tiny.make("llama")) == (0, False)
    assert padding_of(tiny.tokenizer_of("xlnet"), xlnet).left
    tokenizer = tiny.tokenizer_of("gpt2")
    tokenizer.padding_side = "left"  # as for writing text: positions would be counted from the padding
    assert not padding_of(tokenizer, tiny.make("gpt2")).left


@pytest.mark.parametrize("pooling", ["mean", "weighted", "mean_all", "first", "last"])
def test_padding_on_the_left_changes_no_state(pooling):
    model, tokenizer, corpus = tiny.make("xlnet"), tiny.tokenizer_of("xlnet"), make_corpus(TEXTS)
    one, many = (capture(model, tokenizer, corpus, batch_size=size, pooling=pooling) for size in (1, 6))
    assert_close(one, many.hidden.values)


def test_a_model_that_reads_padding_gets_none(corpus):
    model, tokenizer = tiny.make("fnet"), tiny.tokenizer_of("fnet")
    assert reads_padding(model)
    one, many = (capture(model, tokenizer, corpus, batch_size=size) for size in (1, 6))
    assert_close(one, many.hidden.values)


def test_token_types_that_a_model_does_not_know_are_refused_and_those_of_one_type_left_out():
    pairs = make_corpus(["a dog", "the cat"], text_pair=["sat", "ran"])
    model, tokenizer = tiny.make("bert"), tiny.tokenizer_of("bert")
    for name, types in (("roberta", 1), ("deberta-v2", 0)):
        one = tiny.make(name)
        one.config.type_vocab_size = types
        assert np.isfinite(capture(one, tokenizer, pairs).hidden.values).all()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls>:2 $A:2 <sep>:2 $B:1 <sep>:1",
        special_tokens=[("<cls>", tokenizer.cls_token_id), ("<sep>", tokenizer.sep_token_id)],
    )
    assert np.max(tokenizer(pairs["text"][:1], pairs["text_pair"][:1])["token_type_ids"]) == 2
    with pytest.raises(probes.InputError, match=r"BertModel: .* token type 2 occurs, but the model tells 2 .*0 to 1"):
        capture(model, tokenizer, pairs)


def test_tokens_take_few_bytes_each(bert, tokenizer):
    own, its_model = tiny.tokenizer_of("bert"), tiny.make("bert")
    for made_by, pairs in ((tokenizer, None), (own, None), (own, TEXTS)):
        corpus = make_corpus(TEXTS, **({} if pairs is None else {"text_pair": pairs}))
        tokens = tokenise(made_by, corpus, None, bert if made_by is tokenizer else its_model, "bert")
        every = {**tokens.inputs, "special": tokens.special}
        size = {name: values.itemsize if values.strides[0] else 0 for name, values in every.items()}
        types = {"token_type_ids": 2 if pairs else 0} if made_by is own else {}
        assert size == {"input_ids": 1, "special": 1} | types  # of a vocabulary of some dozens
        assert tokens.inputs["input_ids"].dtype == np.uint8


@pytest.mark.parametrize("pooling", ["mean", "weighted", "last"])
def test_many_tokens_lie_in_a_file_and_few_in_memory(monkeypatch, pooling):
    tokenizer, model = tiny.tokenizer_of("bert"), tiny.make("bert")
    corpus = make_corpus(TEXTS * 3, text_pair=TEXTS[::-1] * 3)
    monkeypatch.setattr("probes.states.tokens._TOKENISED", 5)  # in four parts
    few, values = tokenise(tokenizer, corpus, 9, model, "m"), capture(model, tokenizer, corpus, pooling=pooling)
    monkeypatch.setattr("probes.states.tokens._IN_MEMORY", 70)  # bytes: some parts come before the file
    many, again = tokenise(tokenizer, corpus, 9, model, "m"), capture(model, tokenizer, corpus, pooling=pooling)
    np.testing.assert_array_equal(again.hidden.values, values.hidden.values)
    one, other = ({**tokens.inputs, "special": tokens.special} for tokens in (few, many))
    assert list(one) == list(other) == ["input_ids", "token_type_ids", "special"]
    for name in one:
        np.testing.assert_array_equal(other[name], one[name])
        assert (isinstance(one[name], np.memmap), isinstance(other[name], np.memmap)) == (False, True), name
    np.testing.assert_array_equal(many.lengths, few.lengths)
    assert many.cut == few.cut > 0


def test_types_that_are_all_0_take_nothing_where_tokens_lie_in_a_file_either(monkeypatch, corpus):
    monkeypatch.setattr("probes.states.tokens._IN_MEMORY", 0)
    tokens = tokenise(tiny.tokenizer_of("bert"), corpus, None, tiny.make("bert"), "m")
    types = tokens.inputs["token_type_ids"]
    assert not isinstance(types, np.memmap)
    assert types.strides == (0,)
    assert types.shape == tokens.special.shape
    assert not types.any()
