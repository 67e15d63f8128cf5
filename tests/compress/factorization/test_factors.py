"""Factors in the place of matrices: at full rank the model of before, in every family; what is refused."""

import copy
import math
import re

import pytest
import torch
from factored import DENSE, FAMILIES, QUERY, module_of
from torch import nn
from trained import same, weights

from compress.factorization.factorize import factorize
from compress.factorization.factors import free_matrices, put_factors
from compress.factorization.low_rank import LowRank
from compress.factorization.tensor_train import TensorTrain
from compress.matrices import block_matrices
from probes.errors import InputError
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.factorized import LowRankEmbedding, LowRankLinear, TensorTrainEmbedding, TensorTrainLinear


@pytest.mark.parametrize("family", [*FAMILIES, "T5Model"])
@pytest.mark.parametrize("method", ["svd", "tensor_train"])
def test_at_full_rank_every_state_is_that_of_the_original(tiny_models, batch, family, method):
    model = tiny_models(family)
    embeddings = family not in ("GPT2LMHeadModel", "T5Model")  # tied
    batch = batch | ({"decoder_input_ids": batch["input_ids"]} if family == "T5Model" else {})
    whole = copy.deepcopy(model)
    matrices = free_matrices(whole, None, embeddings)
    parts = {n: TensorTrain(m) if method == "tensor_train" else LowRank(m, None) for n, m in matrices.items()}
    put_factors(whole, matrices, {name: part.cut(part.full()) for name, part in parts.items()})
    kinds = (TensorTrainLinear, TensorTrainEmbedding) if method == "tensor_train" else (LowRankLinear, LowRankEmbedding)
    assert sum(isinstance(m, kinds) for m in whole.modules()) == len(block_matrices(model)) + embeddings
    with torch.no_grad():
        before, after = (m(**batch, output_hidden_states=True, return_dict=True) for m in (model, whole))
    for key in ("last_hidden_state", "logits"):
        if key in before:
            torch.testing.assert_close(after[key], before[key], atol=1e-5, rtol=1e-5)
    for key in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states"):
        for one, other in zip(before.get(key) or (), after.get(key) or (), strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    # One component less is seen.
    fewer = copy.deepcopy(model)
    matrices = free_matrices(fewer, None, False)
    ranks = {name: [max(1, full - 3) for full in parts[name].full()] for name in matrices}
    put_factors(fewer, matrices, {name: parts[name].cut(ranks[name]) for name in matrices})
    with torch.no_grad():
        less = fewer(**batch, return_dict=True)[0]
    assert (less - before[0]).abs().max() > 1e-3


def test_only_some_matrices_and_one_after_another(classifier, batch):
    low = factorize(classifier, rank=3, only=r"layer\.1\..*query")
    assert list(low.config.compression["matrices"]) == [QUERY]
    after = weights(low)
    assert all(torch.equal(v, after[k]) for k, v in weights(classifier).items() if k in after)
    assert set(weights(classifier)) - set(after) == {QUERY, QUERY.replace("weight", "bias")}
    both = factorize(low, rank=2, method="tensor_train")
    assert len(both.config.factorized) == 18
    assert both.config.compression["before"] == low.config.compression
    assert both.config.compression["parent"] == weights_fingerprint(low)
    assert torch.equal(module_of(both, QUERY).weight, module_of(low, QUERY).weight)
    at_once = factorize(classifier, rank=2, method="tensor_train")
    assert torch.equal(module_of(both, DENSE).weight, module_of(at_once, DENSE).weight)
    with pytest.raises(InputError, match="all matrices inside its blocks are in factors already"):
        factorize(both, rank=2)


def test_what_is_frozen_stays_so_and_random_numbers_are_not_touched(classifier):
    for parameter in classifier.bert.parameters():
        parameter.requires_grad_(False)
    state = torch.get_rng_state()
    low = factorize(classifier, rank=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad for p in low.bert.parameters())
    assert same(weights(factorize(classifier, rank=3)), weights(low))
    half = factorize(classifier.to(torch.bfloat16), rank=3)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*touches 93% of the weights")
def test_bad_models(tiny_models, classifier, corpus, make_tokenizer):
    with pytest.raises(InputError, match="expected a model of transformers, found Linear"):
        factorize(nn.Linear(2, 2), rank=1)
    broken = copy.deepcopy(classifier)
    with torch.no_grad():
        broken.get_parameter(QUERY)[3, 4] = math.nan
    with pytest.raises(InputError, match=rf"{re.escape(QUERY)}: row 3 holds nan; 1 of its 144 values are NaN or"):
        factorize(broken, rank=2)
    factorize(broken, rank=2, only="key")  # the others may be
    for family in ("GPT2LMHeadModel", "T5Model"):
        with pytest.raises(InputError, match=r"is one with .* Leave out embeddings=True"):
            factorize(tiny_models(family), rank=2, embeddings=True)
    shared = copy.deepcopy(classifier)
    shared.bert.encoder.layer[1].output.dense.weight = shared.bert.encoder.layer[0].output.dense.weight
    with pytest.raises(InputError, match=r"is one with .*layer\.1\.output\.dense\.weight, which factors would part"):
        factorize(shared, rank=2)
    low = factorize(classifier, rank=2, embeddings=True)
    with pytest.raises(InputError, match=r"expected one plain torch.nn.Embedding of tokens, found LowRankEmbedding"):
        factorize(low, rank=2, embeddings=True)
    packed = copy.deepcopy(classifier)
    packed.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(InputError, match="weights are quantised already"):
        factorize(packed, rank=2)
    loud = copy.deepcopy(classifier)
    with torch.no_grad():
        loud.bert.embeddings.LayerNorm.weight.fill_(math.inf)
    with pytest.raises(InputError, match="its inputs are not finite"):
        factorize(loud, rank=2, method="activation", calibrate=corpus, tokenizer=make_tokenizer())
    with pytest.raises(InputError, match=r"expected a datasets.Dataset, found list"):
        factorize(classifier, rank=2, method="activation", calibrate=["a text"], tokenizer=make_tokenizer())
