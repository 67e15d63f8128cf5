"""How alike texts are: vectors as they are captured, shaping and distances by their formulas, and degenerate text."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import tokenizers
import torch
import transformers

import probes
from compress.objectives.sentences import Sentences, likeness, movers_similarity, repetition, sliding_similarity

TEXTS = ["red dog ran", "small bird sang under tree", "", "unseen unheard", "red dog ran", "unseen cat"]


@pytest.fixture(scope="module")
def encoder(tiny_models, make_tokenizer):
    return tiny_models("BertModel"), make_tokenizer()


def test_vectors_are_those_that_capture_gives(encoder):
    some = [text for text in TEXTS if text]
    corpus = probes.load_corpus(pd.DataFrame({"id": range(len(some)), "language": "en", "text": some}))
    captured = probes.capture(*encoder, corpus, progress=False).hidden.values
    for layer in (0, 2, None):
        found = Sentences(*encoder, layer).vectors(TEXTS).numpy()
        assert np.isnan(found[[2, 3]]).all()  # nothing, and nothing known
        expected = captured[-1 if layer is None else layer]
        np.testing.assert_allclose(found[[0, 1, 4, 5]], expected[[0, 1, 3, 4]], atol=1e-5)
    assert np.isnan(Sentences(*encoder).vectors(["", " "]).numpy()).all()


def test_words_are_input_embeddings_of_known_tokens(encoder):
    model, tokenizer = encoder
    words = Sentences(*encoder).words(["red unseen dog", ""])
    at = tokenizer.convert_tokens_to_ids(["red", "dog"])
    np.testing.assert_allclose(words[0], model.get_input_embeddings().weight[at].detach().numpy(), atol=1e-7)
    assert words[1].shape == (0, 12)


@pytest.mark.parametrize("kind", ["byte level", "byte fallback", "word level"])
def test_a_script_that_falls_into_spaces_and_bytes_is_not_read(tiny_models, make_tokenizer, kind):
    latin = "the dog sang, and the cat ran under the tree"
    if kind == "byte level":
        model, tokenizer = probes.load_checkpoint("bundled")
        assert Sentences(model, tokenizer).reads("हम गाते हैं")  # trained on it
    elif kind == "byte fallback":
        pieces = [("<unk>", 0.0), ("▁", -9.0), *((f"▁{w}", -2.0) for w in latin.replace(",", "").split())]
        pieces += [(f"<0x{i:02X}>", -20.0) for i in range(256)] + [(f"▁more{i}", -20.0) for i in range(300)]
        backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0, byte_fallback=True))
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        backend.decoder = tokenizers.decoders.Sequence(
            [tokenizers.decoders.ByteFallback(), tokenizers.decoders.Metaspace()]
        )
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
        model = tiny_models("BertModel")
    else:
        tokenizer = make_tokenizer(words=[*latin.replace(",", "").split(), *(f"w{i}" for i in range(600)), ","])
        model = tiny_models("BertModel")
    model.resize_token_embeddings(len(tokenizer))
    encoder = Sentences(model, tokenizer)
    assert encoder.reads(latin)
    assert not encoder.reads("ሰላም ለዓለም")
    assert not encoder.reads("")
    if kind == "byte level":
        assert encoder.known("ሰላም ለዓለም")  # bytes, which are tokens as others are
        assert encoder.reads("42, 43")  # without letters any token will do
        assert not encoder.reads("ሰላም, ለዓለም")  # a comma is none


def test_shaping_is_as_the_figure_has_it():
    angles = np.array([0.5, 0.7, 0.8, 0.9])
    x = torch.tensor(np.stack([angles, np.sqrt(1 - angles**2)], 1))
    one = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(likeness(x, one).numpy(), [0.119, 0.5, 0.731, 0.881], atol=5e-4)
    np.testing.assert_allclose(likeness(x, one, steepness=2, middle=0.5)[0].item(), 0.5)
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    np.testing.assert_allclose(likeness(a, b, "manhattan").item(), np.exp(-3), rtol=1e-6)
    np.testing.assert_allclose(likeness(a, b, "euclidean", 0.5).item(), np.exp(-0.5 * 5**0.5), rtol=1e-6)
    missing = torch.tensor([[float("nan"), 1.0], [0.0, 0.0]])
    assert likeness(missing, a.expand(2, 2)).tolist() == pytest.approx([0, 1 / (1 + np.exp(7))])


def test_word_movers_similarity_is_that_of_a_linear_program():
    pytest.importorskip("ot")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(4, 4))
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y)]
    cost = np.linalg.norm(unit[0][:, None] - unit[1], axis=2)
    rows = [np.kron(np.eye(3)[i], np.ones(4)) for i in range(3)] + [np.tile(np.eye(4)[j], 3) for j in range(4)]
    solved = scipy.optimize.linprog(cost.ravel(), A_eq=rows, b_eq=[1 / 3] * 3 + [1 / 4] * 4)
    assert movers_similarity(x, y) == pytest.approx(1 / (1 + solved.fun), abs=1e-9)
    assert movers_similarity(x, 3 * x[::-1]) == pytest.approx(1, abs=1e-6)
    assert movers_similarity(x, y[:0]) == 0


def test_sliding_windows_are_compared_place_by_place():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(4, 3))

    def by_hand(x, y, n):
        a, b = ([z[i : i + n].mean(0) for i in range(max(1, len(z) - n + 1))] for z in (x, y))
        cosines = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(a, b, strict=False)]
        return sum(cosines) / max(len(a), len(b))

    for n in (1, 2, 3, 5, 9):
        assert sliding_similarity(x, y, n) == pytest.approx(by_hand(x, y, n))
    assert sliding_similarity(x, x[::-1], 1) < sliding_similarity(x, x, 1) == pytest.approx(1)  # order counts
    assert sliding_similarity(x, x[:0]) == sliding_similarity(np.zeros((2, 3)), y) == 0


def test_repetition_is_the_share_of_pairs_that_come_again():
    rng = np.random.default_rng(2)
    for length in range(12):
        text = rng.integers(3, size=length).tolist()
        pairs = list(itertools.pairwise(text))
        again = sum(pair in pairs[:i] for i, pair in enumerate(pairs))
        assert repetition(text) == pytest.approx(again / max(1, len(pairs)))


def test_a_layer_that_is_not_there_is_refused(encoder):
    with pytest.raises(probes.InputError, match=r"encoder: layer=4: expected 0, the embeddings of .*, to 3, its last"):
        Sentences(*encoder, 4)
