"""What a model writes, measured: each column by hand, a reward that is gamed, and bad input."""

import numpy as np
import pandas as pd
import pytest

import probes
from compress import SimilarityReward, continuations
from compress.objectives import continuations as measured
from compress.objectives.sentences import Sentences, movers_similarity, repetition, sliding_similarity

pytest.importorskip("ot")
WRITTEN = ["tree tree tree tree", "small bird sang", "", "tree tree tree"] * 3


@pytest.fixture(scope="module")
def encoder(tiny_models, make_tokenizer):
    return tiny_models("BertModel", num_hidden_layers=1), make_tokenizer()


@pytest.fixture(scope="module")
def speaker(tiny_models):
    return tiny_models("LlamaForCausalLM", pad_token_id=0, num_hidden_layers=1)


@pytest.fixture(scope="module")
def prompts():
    rows = pd.DataFrame({"id": range(12), "language": ["de", "en"] * 6, "text": "the red dog"})
    return probes.load_corpus(rows.assign(split="test")).add_column("goal", ["small tree and bird"] * 12)


def test_each_column_is_what_it_says(encoder, speaker, prompts, make_tokenizer, monkeypatch):
    tokenizer = make_tokenizer()
    end = tokenizer.sep_token_id

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    written = iter(WRITTEN)
    monkeypatch.setattr(measured, "continued", lambda model, asked, **how: [[*ids(next(written)), end] for _ in asked])
    reward = SimilarityReward(encoder, references="goal", length=5, middle=0.2)
    with pytest.warns(probes.LayerscopeWarning, match="gamed"):  # of texts of one word over and over
        found = continuations(speaker, tokenizer, prompts, reward, window=2, batch_size=5)
    assert found["id"].tolist() == prompts["id"]
    assert found["language"].tolist() == prompts["language"]
    assert found["text"].tolist() == WRITTEN
    assert set(found["reference"]) == {"small tree and bird"}
    both = Sentences(*encoder)
    vectors = both.vectors([*WRITTEN, "small tree and bird"]).numpy()
    goal = both.words(["small tree and bird"])[0]
    for i, (text, words) in enumerate(zip(WRITTEN, both.words(WRITTEN), strict=True)):
        cosine = vectors[i] @ vectors[-1] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[-1])
        row = found.iloc[i]
        assert row["reward"] == pytest.approx(1 / (1 + np.exp(-10 * (cosine - 0.2))) if text else 0)
        assert row["word_movers"] == pytest.approx(movers_similarity(words, goal))
        assert row["sliding_windows"] == pytest.approx(sliding_similarity(words, goal, 2))
        assert (row["length"], row["reference_length"]) == (len(text.split()), 4)
        assert (row["repetition"], row["reference_repetition"]) == (repetition(ids(text)), 0)


def test_a_reward_that_grows_with_repetition_is_said_to_be_gamed(
    encoder, speaker, prompts, make_tokenizer, monkeypatch
):
    tokenizer = make_tokenizer()
    reward = SimilarityReward(encoder, references="goal", length=5)
    texts = [[20] * n + [4 + n, 9, 12][: 5 - n] for n in (5, 4, 3, 1) * 3]
    monkeypatch.setattr(measured, "continued", lambda model, asked, **how: texts)
    by_repetition = [[*[0.0] * (len(text) - 1), repetition(text)] for text in texts]
    monkeypatch.setattr(SimilarityReward, "rewards", lambda *_: by_repetition)
    with pytest.warns(
        probes.LayerscopeWarning, match=r"the reward is gamed: the more a text repeats itself.*1\.00 over"
    ):
        found = continuations(speaker, tokenizer, prompts, reward)
    assert found.attrs["reward_by_repetition"] == pytest.approx(1)
    against = [[1 - sum(row)] for row in by_repetition]  # the control: the less a text repeats, the better
    monkeypatch.setattr(SimilarityReward, "rewards", lambda *_: against)
    assert continuations(speaker, tokenizer, prompts, reward).attrs["reward_by_repetition"] == pytest.approx(-1)


def test_what_is_drawn_depends_on_the_seed(encoder, speaker, prompts, make_tokenizer):
    given = speaker, make_tokenizer(), prompts, SimilarityReward(encoder, length=4)
    first, again, other = (continuations(*given, teacher=speaker, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["text"].tolist() != other["text"].tolist()
    likeliest = continuations(*given, teacher=speaker, seed=None)
    assert likeliest["text"].tolist() == likeliest["reference"].tolist()  # which the teacher, here the same, writes
    assert likeliest["word_movers"].to_numpy() == pytest.approx(1, abs=1e-6)
    assert likeliest["sliding_windows"].to_numpy() == pytest.approx(1)
    assert np.isnan(likeliest.attrs["reward_by_length"])  # all texts are one


def test_bad_input_is_refused(encoder, speaker, prompts, make_tokenizer):
    tokenizer = make_tokenizer()
    reward = SimilarityReward(encoder, references="goal", length=4)
    with pytest.raises(probes.InputError, match="window=0: expected a whole number of at least 1"):
        continuations(speaker, tokenizer, prompts, reward, window=0)
    with pytest.raises(probes.InputError, match="the corpus has no column 'goal'"):
        continuations(speaker, tokenizer, prompts.remove_columns("goal"), reward)
    with pytest.raises(probes.InputError, match="needs a teacher, found none"):
        continuations(speaker, tokenizer, prompts, SimilarityReward(encoder))
