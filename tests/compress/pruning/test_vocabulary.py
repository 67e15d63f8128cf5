"""Vocabulary pruning: fewer tokens, and nothing changes for the texts of the corpus, in every kind of tokenizer."""

import copy
import json

import datasets
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import compress
import probes
from compress.pruning.vocabulary import prune_vocabulary
from probes.models.fingerprint import weights_fingerprint

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
NAMED = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def corpus_of(texts, **columns):
    rows = {"id": [str(i) for i in range(len(texts))], "language": ["en"] * len(texts), "text": list(texts)}
    return datasets.Dataset.from_dict(rows | columns)


@pytest.fixture(scope="module")
def texts():
    rows = probes.load_corpus("bundled", split="dev", languages=["en", "de", "zh"])
    found = {
        language: [t for t, k in zip(rows["text"], rows["language"], strict=True) if k == language]
        for language in ("en", "de", "zh")
    }
    return {language: found[language][:80] for language in found}


def trained(kind, texts):
    """A tokenizer of each kind, trained on all the texts, and one of XLM-RoBERTa's own class."""
    t = tokenizers
    lines = [line for part in texts.values() for line in part]
    if kind in ("unigram", "xlm-roberta"):
        backend = t.Tokenizer(t.models.Unigram())
        backend.pre_tokenizer = t.pre_tokenizers.Metaspace()
        backend.train_from_iterator(
            lines,
            t.trainers.UnigramTrainer(vocab_size=900, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
        )
        if kind == "xlm-roberta":
            pieces = [tuple(piece) for piece in json.loads(backend.to_str())["model"]["vocab"]]
            return transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=64)
        backend.decoder = t.decoders.Metaspace()
    elif kind == "bpe":  # of characters, with a prefix inside words
        backend = t.Tokenizer(t.models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
        backend.pre_tokenizer = t.pre_tokenizers.Whitespace()
        trainer = t.trainers.BpeTrainer(
            vocab_size=900, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False
        )
        backend.train_from_iterator(lines, trainer)
    elif kind == "byte-level":
        backend = t.Tokenizer(t.models.BPE())
        backend.pre_tokenizer = t.pre_tokenizers.ByteLevel()
        backend.decoder = t.decoders.ByteLevel()
        alphabet = t.pre_tokenizers.ByteLevel.alphabet()
        trainer = t.trainers.BpeTrainer(
            vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(lines, trainer)
    elif kind == "wordpiece":
        backend = t.Tokenizer(t.models.WordPiece(unk_token="<unk>"))
        backend.normalizer = t.normalizers.BertNormalizer()
        backend.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
        trainer = t.trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)
        backend.train_from_iterator(lines, trainer)
    else:
        backend = t.Tokenizer(t.models.WordLevel(unk_token="<unk>"))
        backend.pre_tokenizer = t.pre_tokenizers.Whitespace()
        trainer = t.trainers.WordLevelTrainer(vocab_size=900, special_tokens=SPECIAL, show_progress=False)
        backend.train_from_iterator(lines, trainer)
    if kind in ("byte-level", "wordpiece"):  # two kinds of processor that put special tokens around a text
        ends = [(token, backend.token_to_id(token)) for token in ("</s>", "<s>")]
        made = t.processors.RobertaProcessing if kind == "byte-level" else t.processors.BertProcessing
        backend.post_processor = made(*ends)
    else:
        backend.post_processor = t.processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    backend.add_tokens(["qqzz"])  # not special, and behind all others
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **NAMED)


KINDS = ["unigram", "xlm-roberta", "bpe", "byte-level", "wordpiece", "words"]


@pytest.fixture(scope="module")
def tokenizer_of(texts):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = trained(kind, texts)
        return copy.deepcopy(made[kind])

    return get


def roberta(tokenizer, kind=transformers.XLMRobertaForMaskedLM, **changes):
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    sizes |= {"max_position_embeddings": 66, "vocab_size": len(tokenizer)}
    sizes |= {
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "mask_token_id": tokenizer.mask_token_id,
    } | changes
    model = kind(kind.config_class(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def run(model, tokenizer, lines):
    batch = tokenizer(lines, return_tensors="pt", padding=True, truncation=True)
    batch = {k: v for k, v in batch.items() if k != "token_type_ids"}
    out = model(**batch, output_hidden_states=True)
    return batch, torch.stack(out.hidden_states), getattr(out, "logits", None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_become_the_same_tokens_and_states_and_logits(kind, tokenizer_of, texts, tmp_path):
    tokenizer = tokenizer_of(kind)
    model = roberta(tokenizer)
    before, state = weights_fingerprint(model), tokenizer.backend_tokenizer.to_str()
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["de"]))
    assert weights_fingerprint(model) == before
    assert tokenizer.backend_tokenizer.to_str() == state
    assert type(its) is type(tokenizer)
    assert type(smaller) is type(model)
    assert len(its) == smaller.config.vocab_size == len(smaller.get_input_embeddings().weight) < len(tokenizer)
    assert sorted(its.get_vocab().values()) == list(range(len(its)))
    compress.save(smaller, tmp_path / "saved", its)
    again = type(model).from_pretrained(tmp_path / "saved").eval()
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    old = np.array(sorted(tokenizer.get_vocab()[t] for t in its.get_vocab()))
    batch, states, logits = run(model, tokenizer, texts["de"][:20])
    for m, t in ((smaller, its), (again, loaded)):
        assert [t.tokenize(line) for line in texts["de"]] == [tokenizer.tokenize(line) for line in texts["de"]]
        own, own_states, own_logits = run(m, t, texts["de"][:20])
        assert torch.equal(torch.from_numpy(old[own["input_ids"]]), batch["input_ids"])
        assert torch.equal(own["attention_mask"], batch["attention_mask"])
        assert torch.allclose(own_states, states, rtol=0, atol=1e-6)
        assert torch.allclose(own_logits, logits[..., old], rtol=0, atol=1e-5)
        for name in ("pad", "bos", "eos", "mask", "unk"):
            assert getattr(t, f"{name}_token") == getattr(tokenizer, f"{name}_token")
        assert t(*texts["de"][:2]).tokens() == tokenizer(*texts["de"][:2]).tokens()
        assert m.config.pad_token_id == t.pad_token_id == 1
        assert m.config.mask_token_id == t.mask_token_id
        assert m.get_output_embeddings().weight is m.get_input_embeddings().weight
        assert len(m.lm_head.bias) == len(t) == m.get_output_embeddings().out_features
    checkpoint, tokens = probes.load_checkpoint(tmp_path / "saved")
    assert weights_fingerprint(checkpoint) == weights_fingerprint(smaller)
    assert len(tokens) == len(its)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_are_the_tokens_of_the_corpus_and_what_goes_is_used_nowhere(kind, tokenizer_of, texts):
    tokenizer = tokenizer_of(kind)
    smaller, its = prune_vocabulary(roberta(tokenizer), tokenizer, corpus_of(texts["en"]))
    used = {token for line in texts["en"] for token in tokenizer.tokenize(line)}
    assert used | set(tokenizer.all_special_tokens) <= set(its.get_vocab()) <= set(tokenizer.get_vocab())
    assert smaller.config.compression["tokens_of_corpus"] <= smaller.config.compression["tokens"] == len(its)
    gone = set(tokenizer.get_vocab()) - set(its.get_vocab())
    foreign = {token for line in texts["zh"] for token in tokenizer.tokenize(line)} - used
    assert foreign & gone
    if kind != "xlm-roberta":
        assert "qqzz" in its.get_vocab()
        assert its.tokenize("a qqzz")[-1] == tokenizer.tokenize("a qqzz")[-1] == "qqzz"


@pytest.mark.parametrize("kind", ["unigram", "xlm-roberta", "bpe", "byte-level", "wordpiece"])
def test_new_words_of_known_letters_are_spelled_and_not_unknown(kind, tokenizer_of, texts):
    tokenizer = tokenizer_of(kind)
    _, its = prune_vocabulary(roberta(tokenizer), tokenizer, corpus_of(texts["en"][:20]))
    letters = {letter for line in texts["en"][:20] for letter in line if letter.isalpha() and letter.islower()}
    word = "".join(sorted(letters)) + "".join(sorted(letters, reverse=True))
    assert its.unk_token_id not in its(word)["input_ids"]
    if kind == "byte-level":  # any text at all
        for line in [*texts["zh"], "naïve 🦜 \x00"]:
            ids = its(line, add_special_tokens=False)["input_ids"]
            assert its.decode(ids).strip() == line.strip()
    else:
        assert its.unk_token_id in its("🦜")["input_ids"]


def test_what_is_unknown_does_not_become_cheap():
    """It costs ten more than the lowest score: without "d", "u" as unknown and "vwxyz" would be best."""
    pieces = [("<unk>", 0.0), ("uv", -9.0), ("wx", -9.0), ("yz", -9.0), ("vwxyz", -1.0), ("d", -40.0), ("de", -39.0)]

    def made(pieces):
        backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
        return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")

    tokenizer, lines = made(pieces), ["uvwxyz", "vwxyz"]
    assert made(pieces[:5]).tokenize("uvwxyz") == ["u", "vwxyz"]
    _, its = prune_vocabulary(roberta(tokenizer, mask_token_id=None, pad_token_id=0), tokenizer, corpus_of(lines))
    assert its.tokenize("uvwxyz") == tokenizer.tokenize("uvwxyz") == ["uv", "wx", "yz"]
    assert set(its.get_vocab()) == {"<unk>", "uv", "wx", "yz", "vwxyz", "d"}


def test_merges_that_lead_to_one_token_in_two_ways_stay():
    vocabulary = {t: i for i, t in enumerate(["<unk>", "a", "b", "c", "d", "ab", "bc", "abc", "cd", "bcd"])}
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("c", "d"), ("b", "cd")]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    _, its = prune_vocabulary(roberta(tokenizer, mask_token_id=None, pad_token_id=0), tokenizer, corpus_of(["abc"]))
    assert its.tokenize("abc") == ["abc"]
    assert set(its.get_vocab()) == {"<unk>", "a", "b", "c", "ab", "bc", "abc"}
    edited = json.loads(its.backend_tokenizer.to_str())["model"]["merges"]
    assert edited == [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]


def test_further_tokens_are_kept_on_request(tokenizer_of, texts):
    tokenizer = tokenizer_of("words")
    model, word = roberta(tokenizer), texts["zh"][0].split()[0]
    pieces = tokenizer.tokenize(word)
    assert not set(pieces) <= set(prune_vocabulary(model, tokenizer, corpus_of(texts["en"]))[1].get_vocab())
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["en"]), keep=pieces)
    assert set(pieces) <= set(its.get_vocab())
    assert smaller.config.compression["keep"] == pieces


def test_both_texts_of_a_pair_count(tokenizer_of, texts):
    tokenizer = tokenizer_of("unigram")
    model, pairs = roberta(tokenizer), corpus_of(texts["en"], text_pair=texts["de"][: len(texts["en"])])
    _, its = prune_vocabulary(model, tokenizer, pairs)
    for line in (*texts["en"], *pairs["text_pair"]):
        assert its.tokenize(line) == tokenizer.tokenize(line)


MODELS = {
    "untied": (transformers.XLMRobertaForMaskedLM, {"tie_word_embeddings": False}),
    "bert": (transformers.BertForMaskedLM, {}),
    "distilbert": (
        transformers.DistilBertForMaskedLM,
        {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 20, "hidden_size": None},
    ),
    "electra": (transformers.ElectraForMaskedLM, {"embedding_size": 8}),
    "gpt2": (transformers.GPT2LMHeadModel, {"n_embd": 12, "n_layer": 2, "n_head": 2, "n_positions": 66}),
    "llama": (transformers.LlamaForCausalLM, {"num_key_value_heads": 1}),
    "no head": (transformers.BertModel, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_whatever_has_one_number_a_token_shrinks(name, tokenizer_of, texts, tmp_path):
    tokenizer = tokenizer_of("byte-level")
    kind, changes = MODELS[name]
    sizes = {"vocab_size": len(tokenizer), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if name not in ("distilbert", "gpt2"):
        sizes |= {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    torch.manual_seed(0)
    model = kind(kind.config_class(**sizes | {k: v for k, v in changes.items() if v is not None})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    rows = len(tokenizer)
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["de"]))
    old = np.array(sorted(tokenizer.get_vocab()[t] for t in its.get_vocab()))
    shapes = {k: v.shape for k, v in smaller.state_dict().items()}
    assert not any(rows in shape for shape in shapes.values())
    for key, value in model.state_dict().items():
        expected = value[old] if rows in value.shape else value
        assert torch.equal(smaller.state_dict()[key], expected), key
    smaller.save_pretrained(tmp_path)
    again, loaded = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["mismatched_keys"]
    _, states, logits = run(model, tokenizer, texts["de"][:8])
    for m in (smaller, again.eval()):
        _, own_states, own_logits = run(m, its, texts["de"][:8])
        assert torch.allclose(own_states, states, rtol=0, atol=1e-5)
        if logits is not None:
            assert torch.allclose(own_logits, logits[..., old], rtol=0, atol=1e-5)


def test_an_encoder_decoder_shrinks_on_both_sides(tokenizer_of, texts):
    tokenizer = tokenizer_of("byte-level")
    torch.manual_seed(0)
    sizes = {
        "d_model": 12,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    sizes |= {"encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "vocab_size": len(tokenizer)}
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes)).eval()
    model.final_logits_bias = torch.randn_like(model.final_logits_bias)
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["de"]))
    old = np.array(sorted(tokenizer.get_vocab()[t] for t in its.get_vocab()))
    with torch.no_grad():
        logits = [
            m(**t(texts["de"][:4], return_tensors="pt", padding=True)).logits
            for m, t in ((model, tokenizer), (smaller, its))
        ]
    assert torch.allclose(logits[1], logits[0][..., old], rtol=0, atol=1e-5)


def test_numbers_that_the_configuration_names_move_along(tokenizer_of, texts):
    tokenizer = tokenizer_of("unigram")
    model = roberta(tokenizer)
    token = next(
        t
        for t in tokenizer.tokenize(texts["zh"][0])
        if t not in {p for x in texts["en"] for p in tokenizer.tokenize(x)}
    )
    model.config.eos_token_id = [2, tokenizer.get_vocab()[token]]
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["en"]))
    assert smaller.config.eos_token_id == [2, its.get_vocab()[token]]
    assert model.config.eos_token_id == [2, tokenizer.get_vocab()[token]]


@pytest.mark.parametrize("processor", ["template", "bert", "roberta", "sequence"])
def test_special_tokens_behind_all_others_move_with_their_processor(processor):
    words = [*"abcdefgh", *SPECIAL]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    p, ends = tokenizers.processors, [("</s>", words.index("</s>")), ("<s>", words.index("<s>"))]
    template = p.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends)
    backend.post_processor = {
        "template": template,
        "bert": p.BertProcessing(*ends),
        "roberta": p.RobertaProcessing(*ends),
        "sequence": p.Sequence([p.ByteLevel(), template]),
    }[processor]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **NAMED)
    named = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("pad", "bos", "eos", "mask")}
    model = roberta(tokenizer, transformers.BertForMaskedLM, **named)
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(["a c", "h"]))
    assert its.get_vocab() == {t: i for i, t in enumerate(["a", "c", "h", *SPECIAL])}
    for pair in (("a c", "h"), ("b", "a")):
        expected = [{"b": "<unk>"}.get(t, t) for t in tokenizer(*pair).tokens()]
        assert its.convert_ids_to_tokens(its(*pair)["input_ids"]) == expected
        assert expected[0] == "<s>"
        assert expected[-1] == "</s>"
    assert smaller.config.pad_token_id == its.pad_token_id == smaller.get_input_embeddings().padding_idx == 4
    assert (smaller.config.bos_token_id, smaller.config.eos_token_id, smaller.config.mask_token_id) == (3, 5, 7)
    _, states, _ = run(model, tokenizer, ["a c", "h"])
    assert torch.allclose(run(smaller, its, ["a c", "h"])[1], states, rtol=0, atol=1e-6)


def test_the_padding_of_positions_keeps_its_number(texts, make_tokenizer):
    words = sorted({word for line in texts["en"] for word in line.split()})
    tokenizer = make_tokenizer(special=False, words=words, limit=64)  # rows 1 to 3 are no special tokens of it
    model = roberta(tokenizer, pad_token_id=3, mask_token_id=None, bos_token_id=None, eos_token_id=None)
    smaller, its = prune_vocabulary(model, tokenizer, corpus_of(texts["en"][:5]))
    assert smaller.config.pad_token_id == 3  # positions are counted from it
    with torch.no_grad():
        for line in texts["en"][:5]:
            states = [
                m(**t(line, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True).hidden_states[
                    -1
                ]
                for m, t in ((model, tokenizer), (smaller, its))
            ]
            assert torch.allclose(*states, rtol=0, atol=1e-6)


# --- real checkpoints ------------------------------------------------------------------------------------------------


def test_the_bundled_model_keeps_its_answers_on_one_language(tmp_path):
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", languages=["de"])
    smaller, its = prune_vocabulary(model, tokenizer, corpus)
    assert len(its) < 0.5 * len(tokenizer)
    some = corpus.select(range(0, len(corpus), max(1, len(corpus) // 150)))
    compress.save(smaller, tmp_path / "german", its)
    loaded = probes.load_checkpoint(tmp_path / "german")
    assert weights_fingerprint(loaded[0]) == weights_fingerprint(smaller)
    base = probes.capture(model, tokenizer, some, progress=False)
    for pair in ((smaller, its), loaded):
        reps = probes.capture(*pair, some, progress=False)
        for name in ("hidden", "logits"):
            np.testing.assert_allclose(reps[name].values, base[name].values, rtol=0, atol=1e-6)


@pytest.mark.pretrained
def test_a_pretrained_model_keeps_its_states(pretrained, tmp_path):
    model, tokenizer = probes.load_checkpoint(pretrained)
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
    smaller, its = prune_vocabulary(model, tokenizer, corpus)
    assert len(its) < 0.2 * len(tokenizer)
    some = corpus.select(range(0, len(corpus), max(1, len(corpus) // 24)))
    compress.save(smaller, tmp_path / "english", its)
    base = probes.capture(model, tokenizer, some, progress=False)["hidden"].values
    reps = probes.capture(*probes.load_checkpoint(tmp_path / "english"), some, progress=False)["hidden"].values
    np.testing.assert_allclose(reps, base, rtol=0, atol=1e-6)
    saved = json.loads((tmp_path / "english" / "tokenizer.json").read_text())
    assert saved["truncation"]["max_length"] == 128  # as the parent's file has it


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused(tokenizer_of, texts):
    tokenizer = tokenizer_of("words")
    model, corpus = roberta(tokenizer), corpus_of(texts["en"])
    slow = type("Slow", (), {})()
    wrapped = copy.deepcopy(model)
    wrapped.set_input_embeddings(torch.nn.Linear(2, 2))
    for given, message in (
        ((torch.nn.Linear(2, 2), tokenizer, corpus), "expected a model of transformers, found Linear"),
        ((wrapped, tokenizer, corpus), r"expected one plain torch.nn.Embedding of tokens, found Linear"),
        ((model, slow, corpus), "expected a fast tokenizer, found Slow"),
        (
            (roberta(tokenizer, vocab_size=10, mask_token_id=None), tokenizer, corpus),
            "tokenizer and model do not fit: .* but 10 embeddings",
        ),
        ((model, tokenizer, corpus.select([])), "expected at least one row, found none"),
        ((model, tokenizer, corpus.remove_columns("text")), "text"),
    ):
        with pytest.raises(probes.InputError, match=message):
            prune_vocabulary(*given)
    with pytest.raises(probes.InputError, match=r"keep: 'no such', 'nor this' are not in the vocabulary"):
        prune_vocabulary(model, tokenizer, corpus, keep=["no such", "nor this"])


def test_a_tokenizer_that_would_change_is_refused(tokenizer_of, texts, monkeypatch):
    tokenizer = tokenizer_of("bpe")
    monkeypatch.setattr(
        "compress.pruning.vocabulary._with_parts", lambda tokens, model: tokens
    )  # parts of merges go missing
    with pytest.raises(probes.InputError, match=r"text \d+ of the corpus would not be tokenised as before"):
        prune_vocabulary(roberta(tokenizer), tokenizer, corpus_of(texts["de"]))
