"""What the tests of this folder share."""

import copy

import pytest
import torch
from translated import a_corpus

from compress.retrieval.sparsify_embeddings import sparsify_embeddings


@pytest.fixture(scope="module")
def trained(tiny_models, make_tokenizer):
    """Models with and without a regulariser, of one seed."""
    model, tokenizer = tiny_models("BertForSequenceClassification"), make_tokenizer()
    how = {"train": a_corpus(label="x"), "tokenizer": tokenizer, "steps": 30, "features": 64, "progress": False}
    how |= {"learning_rate": 5e-3, "batch_size": 16}
    before = copy.deepcopy(model.state_dict())
    made = {weight: sparsify_embeddings(model, flops=weight, **how) for weight in (0.0, 20.0)}
    assert not hasattr(model, "sparse_head")
    assert not hasattr(model.config, "sparse_embeddings")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return model, tokenizer, made
