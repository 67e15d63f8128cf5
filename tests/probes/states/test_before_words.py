"""States before words: those of the token that ends last before, whatever the batch, and what is refused."""

import datasets
import numpy as np
import pytest
import torch

import probes
from probes.states.before_words import states_before
from probes.states.graphs import words_of

TEXTS = ["The baker reads.", "नदी के पास", "去河边。", "One"]


def of(texts):
    return datasets.Dataset.from_dict(
        {"id": [str(k) for k in range(len(texts))], "language": ["x"] * len(texts), "text": texts}
    )


@pytest.fixture(scope="module")
def loaded():
    return probes.load_checkpoint("bundled-decoder")


def before(loaded, texts, **how):
    how = {"layers": [0, 3], "name": "a", "who": "a probe", **how}
    return states_before(*loaded, of(texts), [words_of(text) for text in texts], **how)[0]


def test_they_are_those_of_the_text_up_to_there_run_alone(loaded):
    model, tokenizer = loaded
    found = before(loaded, TEXTS)
    at = 0
    for text in TEXTS:
        for start, _ in words_of(text):
            ids = tokenizer(text[:start].rstrip(), add_special_tokens=False)["input_ids"] if start else []
            with torch.no_grad():
                states = model(torch.tensor([[tokenizer.bos_token_id, *ids]]), output_hidden_states=True).hidden_states
            np.testing.assert_allclose(found[1, at], states[3][0, -1].numpy(), atol=2e-4)
            at += 1
    assert at == found.shape[1]


def test_nothing_depends_on_the_batch(loaded):
    np.testing.assert_allclose(before(loaded, TEXTS), before(loaded, TEXTS, batch_size=1), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_read_is_refused(loaded):
    with pytest.raises(probes.InputError, match=r"expected some of 0 .the embeddings. to 6"):
        before(loaded, TEXTS, layers=[7])
    with pytest.raises(probes.InputError, match="row 0 of the sentences is cut at 4 tokens"):
        before(loaded, TEXTS, max_length=4)
    with pytest.raises(probes.InputError, match="predicts no tokens"):
        before(probes.load_checkpoint("bundled"), TEXTS)
