"""Which matrices are compressed: those of linear maps in the blocks of every family, each once, by name."""

import copy
import re

import pytest
import torch

from compress.matrices import block_matrices, block_of, check_plain, distinct, found_by, matrices_of, transposed
from probes.errors import InputError
from probes.models.formats.shared_layers import apply_sharing

# Matrices in a block, and the sum of their sizes, at a width of 12 (Llama: keys and values of 6).
BLOCKS = {
    "BertForSequenceClassification": (6, 4 * 144 + 2 * 240),
    "RobertaModel": (6, 4 * 144 + 2 * 240),
    "DistilBertModel": (6, 4 * 144 + 2 * 240),
    "GPT2LMHeadModel": (4, 4 * 144 + 2 * 12 * 48),
    "LlamaModel": (7, 2 * 144 + 2 * 72 + 3 * 240),
}


@pytest.mark.parametrize("family", BLOCKS)
def test_the_linear_maps_of_the_blocks_and_nothing_else(tiny_models, family):
    model = tiny_models(family)
    found = block_matrices(model)
    blocks = {block_of(name) for name in found}
    count, size = BLOCKS[family]
    assert len(found) == count * len(blocks)
    assert sum(w.numel() for w in found.values()) == size * len(blocks)
    assert all(model.get_parameter(name) is weight for name, weight in found.items())
    assert not any(word in name for name in found for word in ("embed", "norm", "Norm", "ln_", "pooler", "classifier"))
    assert set(transposed(model, found).values()) == {family == "GPT2LMHeadModel"}


def test_the_block_of_a_name_ends_with_its_first_number():
    assert block_of("bert.encoder.layer.11.output.dense.weight") == "bert.encoder.layer.11"
    assert block_of("h.0.mlp.experts.3.weight") == "h.0"
    assert block_of("embeddings.word_embeddings.weight") is None
    assert block_of("layer.3") is None  # a block itself, and no parameter of it


def test_embeddings_come_first_and_only_where_asked(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    words = "bert.embeddings.word_embeddings.weight"
    assert list(matrices_of(model, embeddings=True)) == [words, *matrices_of(model)]
    assert list(matrices_of(model, only="word_embeddings", embeddings=True)) == [words]


def test_a_matrix_that_several_modules_share_comes_once(tiny_models):
    model = copy.deepcopy(tiny_models("BertForSequenceClassification"))
    model.config.shared_layers = {f"encoder.layer.{i}.output.dense": "encoder.layer.0.output.dense" for i in (1, 2)}
    apply_sharing(model)
    assert len(block_matrices(model)) == 18
    found = distinct(block_matrices(model))
    assert list(matrices_of(model)) == list(found)
    assert sorted(set(block_matrices(model)) - set(found)) == [
        f"bert.encoder.layer.{i}.output.dense.weight" for i in (1, 2)
    ]


def test_an_expression_finds_some_in_their_order():
    matrices = {"a.query": 1, "b.key": 2, "c.query": 3}
    assert found_by("query$", matrices) == {"a.query": 1, "c.query": 3}
    assert found_by(None, matrices) == matrices
    with pytest.raises(InputError, match=re.escape("only='[' is no regular expression")):
        found_by("[", matrices)
    with pytest.raises(InputError, match=r"only='value' finds none of the matrices; they are a\.query, b\.key"):
        found_by("value", matrices)


def test_what_has_no_matrices_or_no_plain_ones_is_refused(tiny_models):
    with pytest.raises(InputError, match="expected a model of transformers, found Linear"):
        check_plain(torch.nn.Linear(2, 2))
    coded = copy.deepcopy(tiny_models("BertModel"))
    coded.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(
        InputError, match=r"BertModel: its weights are quantised already \(config.quantization_config\)"
    ):
        matrices_of(coded)
    bare = copy.deepcopy(tiny_models("BertModel"))
    bare.encoder.layer = torch.nn.ModuleList()
    with pytest.raises(InputError, match="BertModel has no weight matrices inside repeated blocks"):
        matrices_of(bare)
    untabled = copy.deepcopy(tiny_models("BertModel"))
    untabled.set_input_embeddings(torch.nn.Identity())
    with pytest.raises(InputError, match=r"its embeddings are no table of weights\. Leave embeddings=True out"):
        matrices_of(untabled, embeddings=True)
