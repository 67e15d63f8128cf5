"""Sparse vectors: those of the mean states, of length one, and heads that are dead."""

import copy

import numpy as np
import pytest
import scipy.sparse
import torch
from translated import a_corpus

import probes
from compress.retrieval.sparse_embeddings import sparse_embeddings
from compress.retrieval.sparsify_embeddings import sparsify_embeddings
from compress.saving import save
from probes.errors import InputError, LayerscopeWarning


def test_vectors_are_those_of_the_mean_states_of_capture_whatever_the_batch(trained):
    _, tokenizer, made = trained
    corpus, sparse = a_corpus(), made[20.0]
    vectors = sparse_embeddings(sparse, tokenizer, corpus, progress=False)
    assert isinstance(vectors, scipy.sparse.csr_array)
    assert vectors.dtype == np.float32
    states = probes.capture(sparse, tokenizer, corpus, pooling="mean_all", progress=False).hidden.values[-1]
    linear = sparse.sparse_head.linear
    weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
    z = np.maximum(states.astype(float) @ weight.T + bias, 0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.toarray(), z, atol=2e-5)
    for size in (1, 7):
        again = sparse_embeddings(sparse, tokenizer, corpus, batch_size=size, progress=False)
        np.testing.assert_allclose(again.toarray(), vectors.toarray(), atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_models_of_other_precision_give_vectors_of_length_one(dtype, tiny_models, make_tokenizer, tmp_path):
    model, tokenizer = tiny_models("BertModel").to(dtype), make_tokenizer()
    how = {"steps": np.int64(2), "features": np.int64(16), "ramp": np.int64(1), "batch_size": 8, "progress": False}
    sparse = sparsify_embeddings(model, train=a_corpus(), tokenizer=tokenizer, **how)
    assert sparse.sparse_head.linear.weight.dtype == dtype
    vectors = sparse_embeddings(sparse, tokenizer, a_corpus(), progress=False)
    assert np.sqrt((vectors.toarray() ** 2).sum(1)) == pytest.approx(1, abs=1e-6)
    loaded, _ = probes.load_checkpoint(save(sparse, tmp_path / "out", tokenizer))  # all of it is JSON
    assert loaded.config.sparse_embeddings == {"features": 16}
    assert torch.equal(loaded.sparse_head.linear.weight.float(), sparse.sparse_head.linear.weight.float())


def test_a_dead_head_is_named_and_zero_vectors_are_counted(trained):
    _, tokenizer, made = trained
    dead = copy.deepcopy(made[20.0])
    linear = dead.sparse_head.linear
    with torch.no_grad():
        linear.bias.fill_(-1e6)
    with pytest.raises(
        InputError, match=r"the vectors of all 72 texts are zero: the head is dead. Train it again with"
    ):
        sparse_embeddings(dead, tokenizer, a_corpus(), progress=False)
    states = probes.capture(dead, tokenizer, a_corpus(), pooling="mean_all", progress=False).hidden.values[-1]
    with torch.no_grad():  # only the text that is furthest along some direction is left
        linear.weight.copy_(torch.tensor(states[:1]).expand_as(linear.weight))
        best = np.sort(states @ states[0])
        linear.bias.fill_(-float(best[-1] + best[-2]) / 2)
    with pytest.warns(LayerscopeWarning, match="the vectors of 71 of 72 texts are zero"):
        vectors = sparse_embeddings(dead, tokenizer, a_corpus(), progress=False)
    assert (np.diff(vectors.indptr) > 0).sum() == 1
    with torch.no_grad():
        assert not torch.isnan(dead.sparse_head(torch.zeros(1, 12))).any()
