"""Words replaced by near ones: schedules, neighbours by brute force, what is never replaced, seeds, and bad input."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tokenizers
import torch
from trained import QUIET, make_corpus, same, weights
from transformers import PreTrainedTokenizerFast

import compress
import probes
from compress import CrossEntropy, LanguageModel, NearestWords
from compress.rows import padding_for, training_rows
from compress.training import replaced_words, train
from compress.training.replaced_words import Replaced, near_words
from probes.states.batches import collate

WORDS = {"de": "red dog ran on mat", "en": "small bird sang under tree red"}


@pytest.fixture(scope="module")
def several():
    """Texts of two languages that share one word."""
    rows = [
        {"id": i, "language": language, "text": " ".join(np.roll(words.split(), i)[: 3 + i % 2])}
        for i in range(12)
        for language, words in WORDS.items()
    ]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def speaker(tiny_models):
    return tiny_models("LlamaForCausalLM", pad_token_id=0, num_hidden_layers=2)


def replacing(rule, model, tokenizer, corpus, objective=(), steps=10, seed=0, **how):
    rows, _ = training_rows(corpus, model, tokenizer, numbered_by=None, **how)
    made = Replaced(rule, model, tokenizer, corpus, rows, objective, seed, steps, how.get("prompt"))
    return made, collate(padding_for(rows, tokenizer, model), rows, indexed=True)


def nothing():
    raise AssertionError("the model was asked for its words")


def numbers(tokenizer, words):
    return set(tokenizer.convert_tokens_to_ids(words.split()))


def test_schedules_are_their_formulas():
    x = np.linspace(0, 1, 11)
    formulas = {
        "static": np.ones_like(x),
        "linear": x,
        "exponential": 1 - (1 - x) / np.exp(x),
        "sigmoid": np.sin(np.pi * x / 2) ** 2,
        "very slow": 1 - np.tanh(5 * (1 - x)),
        "very fast": np.tanh(5 * x),
        "near-linear": (x + np.exp(-x) - 1 + x) / (x + np.exp(-x)),
    }
    assert set(formulas) == set(replaced_words.SCHEDULES)
    for name, expected in formulas.items():
        whole, capped = NearestWords(name, 1.0), NearestWords(name, 0.3, own_words=0.6)
        np.testing.assert_allclose([whole.share(v) for v in x], expected, atol=1e-12, err_msg=name)
        np.testing.assert_allclose([capped.share(v) for v in x], np.minimum(expected, 0.3), atol=1e-12)
        np.testing.assert_allclose([capped.own_share(v) for v in x], np.minimum(expected, 0.6), atol=1e-12)


def test_near_words_are_those_of_brute_force_and_the_nearest_is_the_likeliest(monkeypatch):
    monkeypatch.setattr(replaced_words, "_BLOCK", 3)
    rng = np.random.default_rng(0)
    vectors, words, candidates = rng.normal(size=(20, 6)), np.arange(2, 13), np.arange(5, 20)
    found, chances = near_words(torch.tensor(vectors), words, candidates, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for word, near, chance in zip(words, found, chances, strict=True):
        cosines = {c: float(unit[word] @ unit[c]) for c in candidates if c != word}
        expected = sorted(cosines, key=cosines.get, reverse=True)[:4]
        assert near.tolist() == expected
        by_softmax = np.exp([cosines[c] for c in expected])
        np.testing.assert_allclose(chance, by_softmax / by_softmax.sum(), atol=1e-12)
        assert (np.diff(chance) < 0).all()  # by distances the last would be the first
    found, chances = near_words(torch.tensor(vectors), np.array([3, 4]), np.array([3]), 4)
    assert (found.tolist(), chances.tolist()) == ([[-1], [3]], [[0.0], [1.0]])


def test_words_become_near_ones_of_their_language_as_often_as_their_chances_say(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer()
    made, batch = replacing(NearestWords("static", 0.4, k=3), speaker, tokenizer, several)
    ids, there = batch["input_ids"].numpy(), batch["attention_mask"].numpy() > 0
    words = there & ~np.isin(ids, tokenizer.all_special_ids)
    languages = np.asarray(several["language"])
    counts = {language: np.zeros((len(tokenizer), len(tokenizer)), int) for language in WORDS}
    for step in range(300):
        out = made.apply(batch, step, nothing)["input_ids"].numpy()
        assert (out == ids)[~words].all()  # special tokens and padding
        for language, found in counts.items():
            at = words & (languages == language)[:, None]
            np.add.at(found, (ids[at], out[at]), 1)
    moved = sum(found.sum() - found.trace() for found in counts.values())
    total = 300 * words.sum()
    assert abs(moved / total - 0.4) < 4 * math.sqrt(0.24 / total)
    table = speaker.get_input_embeddings().weight.detach().double().numpy()
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    for language, found in counts.items():
        own = numbers(tokenizer, WORDS[language])
        for word in own:
            cosines = {c: float(unit[word] @ unit[c]) for c in own - {word}}
            near = sorted(cosines, key=cosines.get, reverse=True)[:3]
            became = found[word].copy()
            became[word] = 0
            assert became.sum() == became[near].sum()
            chances = np.exp([cosines[c] for c in near])
            expected = chances / chances.sum() * became.sum()
            assert scipy.stats.chisquare(became[near], expected).pvalue > 1e-3, (language, word)


def test_across_languages_words_become_those_that_their_own_language_has_not(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer()
    made, batch = replacing(NearestWords("static", 1.0, across=True), speaker, tokenizer, several)
    out = made.apply(batch, 0, nothing)["input_ids"]
    de, en = (numbers(tokenizer, WORDS[language]) for language in ("de", "en"))
    for row, language in zip(out, several["language"], strict=True):
        found = set(row.tolist()) - set(tokenizer.all_special_ids)
        assert found <= (en - de if language == "de" else de - en)


def test_words_without_a_vector_and_prompts_stay(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer()
    vectors = np.random.default_rng(0).normal(size=(len(tokenizer), 5))
    dog, bird = tokenizer.convert_tokens_to_ids(["dog", "bird"])
    vectors[dog], vectors[bird, 0] = 0, np.nan
    rule = NearestWords("static", 1.0, vectors=vectors)
    made, batch = replacing(rule, speaker, tokenizer, several, prompt="the cat ")
    ids, out = batch["input_ids"], made.apply(batch, 0, nothing)["input_ids"]
    there = (batch["attention_mask"] > 0) & ~torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    still = torch.isin(ids, torch.tensor([dog, bird]))
    still[:, :3] = True
    assert ((out == ids) == (still | ~there)).all()
    assert not torch.isin(out[~still & there], torch.tensor([dog, bird])).any()


def test_each_text_begins_after_those_tokens_of_a_prompt_that_are_before_it(speaker):
    pieces = [("[PAD]", 0), ("[UNK]", 0), *((piece, -2) for piece in ["▁", "▁query", ":", "▁a", "▁dog", "▁the"])]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=1))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=32, **named)
    model = copy.deepcopy(speaker)
    model.resize_token_embeddings(len(tokenizer))
    # A space at the end of a prompt is part of a word that is known, and a token before another.
    corpus = probes.load_corpus(pd.DataFrame({"id": [0, 1], "language": "en", "text": ["a dog a dog", "中 the a dog"]}))
    made, batch = replacing(NearestWords("static", 1.0), model, tokenizer, corpus, prompt="query: ")
    ids, out = batch["input_ids"], made.apply(batch, 0, nothing)["input_ids"]
    assert made.leading.tolist() == [2, 3]
    there = (batch["attention_mask"] > 0) & (ids != 1)
    begins = torch.arange(ids.shape[1]) >= torch.tensor(made.leading)[:, None]
    assert ((out != ids) == (there & begins)).all()


def test_own_words_are_drawn_by_what_the_model_says_after_the_words_before(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer()
    made, batch = replacing(NearestWords("static", 0.0, own_words=0.5), speaker, tokenizer, several)
    with torch.no_grad():
        logits = speaker(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    ids, out = (
        batch["input_ids"],
        torch.stack([made.apply(batch, step, lambda: logits)["input_ids"] for step in range(400)]),
    )
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids)) | (batch["attention_mask"] == 0)
    assert (out == ids)[:, special].all()
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    said = logits[:, :-1].double()[:, :, ordinary].softmax(2).numpy()
    place = 2  # the second word of each text
    for text in range(3):
        expected = 0.5 * said[text, place - 1] * 400
        expected[list(ordinary).index(int(ids[text, place]))] += 200
        found = np.bincount(out[:, text, place], minlength=len(tokenizer))[ordinary]
        assert found.sum() == 400
        assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_of_rows_of_several_texts_each_has_its_language_and_a_first_word(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer(special=False)
    both = NearestWords("static", 1.0)
    made, batch = replacing(both, speaker, tokenizer, several, packed=True, max_length=16)
    assert batch["segments"].max() > 1
    out = made.apply(batch, 0, nothing)["input_ids"]
    found, at = {"de": set(), "en": set()}, 0
    for row, segments in zip(out, batch["segments"], strict=True):
        for text in range(int(segments.max()) + 1):
            found[several["language"][at]].update(row[segments == text].tolist())
            at += 1
    assert at == len(several)
    assert all(found[language] <= numbers(tokenizer, WORDS[language]) for language in WORDS)
    asked = NearestWords("static", 0.0, own_words=1.0)
    made, batch = replacing(asked, speaker, tokenizer, several, packed=True, max_length=16)
    certain = torch.full((*batch["input_ids"].shape, 27), -math.inf)
    certain[:, :, 20] = 0.0
    out, segments = made.apply(batch, 0, lambda: certain)["input_ids"], batch["segments"]
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    there = batch["attention_mask"] > 0
    assert (out[first] == batch["input_ids"][first]).all()
    assert (out[there & ~first] == 20).all()


def test_targets_are_replaced_in_place_of_what_is_read(speaker, make_tokenizer, several):
    tokenizer = make_tokenizer()
    rule = NearestWords("static", 1.0, targets=True)
    made, batch = replacing(rule, speaker, tokenizer, several, objective=[LanguageModel()])
    targets = torch.where(batch["attention_mask"] > 0, batch["input_ids"], -100).roll(-1, 1)
    out = made.apply(batch | {"targets": targets}, 0, nothing)
    assert set(out) == {"targets"}
    words = (targets >= 0) & ~torch.isin(targets, torch.tensor(tokenizer.all_special_ids))
    assert ((out["targets"] != targets) == words).all()


@pytest.fixture
def spoken(speaker, make_tokenizer, several):
    """Returns a training of the speaker: its history and weights."""

    def run(rule, corpus=several, **settings):
        student = type(speaker)(speaker.config)
        student.load_state_dict(speaker.state_dict())
        given = {"objective": [LanguageModel()], "steps": 4, "replace_words": rule, **QUIET} | settings
        history = train(student, make_tokenizer(), corpus, **given)
        return history, weights(student)

    return run


def test_at_zero_the_training_is_the_same_bit_for_bit(spoken, monkeypatch):
    plain = spoken(None)
    assert same(spoken(None, steps=1)[1], spoken(NearestWords("linear", 0.5), steps=1)[1])  # its first share is 0
    monkeypatch.setattr(np.random, "default_rng", None)  # nothing is drawn
    assert same(plain[1], spoken(NearestWords("static", 0.0))[1])


def test_trainings_draw_by_seed_and_go_on_as_they_would_have(spoken, tmp_path):
    rule = NearestWords("static", 0.5, k=3, own_words=0.3)
    options = {"accumulate": 2, "batch_size": 5}
    history, whole = spoken(rule, **options)
    assert not same(whole, spoken(rule, **options, seed=1)[1], atol=1e-4)
    assert not same(whole, spoken(None, **options)[1], atol=1e-4)
    kept = {"folder": tmp_path, "save_every": 2, **options}
    assert same(whole, spoken(rule, **kept)[1])
    for file in (tmp_path / "checkpoint-4").iterdir():
        file.unlink()
    with pytest.warns(probes.LayerscopeWarning, match="checkpoint-4 is passed over"):
        again, after = spoken(rule, **kept)
    assert same(whole, after)
    pd.testing.assert_frame_equal(history, again)
    with pytest.raises(probes.InputError, match=r"replace_words is \{'rule': 'NearestWords'.*and was \{'rule'"):
        spoken(NearestWords("static", 0.4, k=3, own_words=0.3), **kept)


def test_verbs_take_it_labels_stay_and_the_record_says_it(classifier, tokenizer):
    corpus, rule = make_corpus(), NearestWords("static", 0.5, vectors=np.eye(27))

    class Sees:
        name, weight, needs = "sees", 1.0, frozenset({"labels"})
        seen = None

        def __call__(self, student, teacher, batch):
            self.seen = batch
            return student.logits.sum() * 0

    sees = Sees()
    how = {"train": corpus, "tokenizer": tokenizer, "steps": 1, "replace_words": rule, **QUIET}
    before = weights(classifier)
    made = compress.distill(classifier, layers=1, objective=[CrossEntropy(), sees], **how)
    rows, _ = training_rows(corpus, classifier, tokenizer)
    read, differ = ("index", "labels", "input_ids", "attention_mask"), 0
    for index, label, ids, mask in zip(*(sees.seen[k] for k in read), strict=True):
        assert rows[index]["labels"] == label
        differ += ids[mask == 1].tolist() != rows[index]["input_ids"]
    assert differ > 0
    assert same(before, weights(classifier))
    said = made.config.compression["replace_words"]
    assert (said["rule"], said["upto"], len(said["vectors"])) == ("NearestWords", 0.5, 64)
    for verb, options in (("prune", {"sparsity": 0.5}), ("quantize", {"bits": 8}), ("finetune", {})):
        done = getattr(compress, verb)(classifier, **options, **how).config.compression
        assert done["replace_words"] == said, verb


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "quick"}, r"schedule='quick' is not known; choose one of 'static', 'linear', 'exponential'"),
        ({"upto": 1.5}, r"upto=1.5: expected a share of the words that is replaced, 0 to 1"),
        ({"upto": float("nan")}, r"upto=nan: expected a share"),
        ({"own_words": -0.1}, r"own_words=-0.1: expected a share"),
        ({"k": 0}, r"k=0: expected how many near words there are to choose from, at least 1"),
        ({"vectors": [1.0, 2.0]}, r"vectors of shape \(2,\): expected \(token, feature\), one for each token"),
    ],
)
def test_rules_that_cannot_be(given, message):
    with pytest.raises(probes.InputError, match=message):
        NearestWords(**given)


def test_what_does_not_fit_is_refused_before_a_step(classifier, speaker, tokenizer):
    corpus = make_corpus()
    one_word = probes.load_corpus(pd.DataFrame({"id": [1, 2], "language": "en", "text": ["dog", "dog dog"]}))
    for rule, model, on, message in (
        (0.3, classifier, corpus, r"replace_words=0.3: expected compress.NearestWords\(...\)"),
        (NearestWords(own_words=0.2), classifier, corpus, r"own_words=0.2: BertForSequenceClassification predicts no"),
        (
            NearestWords(targets=True),
            classifier,
            corpus,
            r"targets=True replaces tokens .*\(cross_entropy\) predict none",
        ),
        (
            NearestWords(across=True),
            classifier,
            corpus,
            r"across=True takes near words of other .*all texts are of 'en'",
        ),
        (NearestWords(vectors=np.eye(5)), classifier, corpus, r"vectors has 5 rows: expected 27, one for each token"),
        (NearestWords(), speaker, one_word, r"no word has a near one: expected texts of at least two words"),
    ):
        objective = [CrossEntropy()] if model is classifier else [LanguageModel()]
        before = weights(model)
        with pytest.raises(probes.InputError, match=message):
            train(model, tokenizer, on, objective=objective, steps=1, replace_words=rule, **QUIET)
        assert same(before, weights(model))
