"""What is said of a verb is what the verb does: on a tiny model of each architecture, and of each format."""

import architectures
import numpy as np
import pytest

import compress
import probes
from compress.verbs import check
from probes.errors import InputError
from probes.models.parts import FAMILIES
from probes.models.weights import block_weights

DO = {
    "prune": lambda m: compress.prune(m, sparsity=0.5),
    "prune_heads": lambda m: compress.prune_heads(m, 0.5),
    "prune_channels": lambda m: compress.prune_channels(m, 0.5),
    "drop_layers": lambda m: compress.drop_layers(m, [1]),
    "quantize": lambda m: compress.quantize(m, bits=8),
    "factorize": lambda m: compress.factorize(m, rank=2),
    "fuse": lambda m: compress.fuse(m, share=0.5, similarity="cosine"),
    "hash_weights": lambda m: compress.hash_weights(m, share=0.5),
}
# One of each kind of row: shared layers, one map for all projections, gates, experts, two stacks, heads that stay.
SOME = ["bert", "albert", "modernbert", "nomic_bert", "qwen2", "olmo2", "mixtral", "gpt2", "bloom", "t5"]

MIXED = ["qwen2_moe", "deepseek_v3"]  # whose layers are not all of one size


def said(model, verb):
    return check(model).set_index("verb").loc[verb]


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in SOME else pytest.mark.faults) for k in FAMILIES])
def test_what_is_said_is_what_is_done(kind):
    model = architectures.make(kind).float()
    table = check(model).set_index("verb")
    for verb, do in DO.items():
        covers, possible, note = table.loc[verb]
        if not possible:
            with pytest.raises(InputError) as error:
                do(model)
            assert str(error.value) == note
            continue
        done = do(model).config.compression["coverage"]
        if verb == "drop_layers":
            done /= second_layer(model) if kind in MIXED else 1 if FAMILIES[kind].shared else 1 / 4
        assert done == pytest.approx(covers, abs=0.02 if kind in MIXED else 1e-9), verb


def second_layer(model):
    """Of the weights of the blocks, the share of the second."""
    sizes = {name: weight.numel() for name, weight in block_weights(model).items()}
    return sum(size for name, size in sizes.items() if ".1." in name.partition("experts")[0]) / sum(sizes.values())


def test_a_checkpoint_is_looked_at_without_its_weights(tmp_path, tiny_models, make_tokenizer, monkeypatch):
    model = tiny_models("BertForSequenceClassification")
    compress.save(model, tmp_path / "m", make_tokenizer())
    expected = check(model, make_tokenizer())

    def loads(*_, **__):
        pytest.fail("weights are loaded")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", loads)
    found = check(tmp_path / "m")
    assert found.equals(expected)
    assert list(found["verb"][-2:]) == ["sparsify_embeddings", "prune_vocabulary"]
    assert found["possible"].all()


def test_what_a_format_forbids_is_said_with_its_reason(tiny_models, make_tokenizer, tmp_path):
    whole = tiny_models("BertForSequenceClassification")
    factorized = compress.factorize(whole, rank=2)
    compress.save(factorized, tmp_path / "factors", make_tokenizer())
    found = check(tmp_path / "factors").set_index("verb")
    for verb in ("prune_heads", "factorize", "distill layers"):
        with pytest.raises(InputError) as error:
            {"distill layers": lambda m: compress.distill(m, layers=1, steps=0), **DO}[verb](factorized)
        assert not found.loc[verb, "possible"]
        assert np.isnan(found.loc[verb, "covers"])
        # Of several matrices any one is named.
        assert str(error.value).partition(": ")[2][:60] == found.loc[verb, "note"].partition(": ")[2][:60]


def test_fused_weights_count_once_and_a_checkpoint_that_cannot_be_read_is_refused(
    tiny_models, make_tokenizer, tmp_path
):
    fused = compress.fuse(tiny_models("BertForSequenceClassification"), share=0.5)
    compress.save(fused, tmp_path / "fused", make_tokenizer())
    assert check(tmp_path / "fused").set_index("verb").loc["prune", "covers"] == 1
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json in it"):
        check(tmp_path / "empty")


def test_an_exported_model_is_said_to_have_no_weights(tiny_models):
    exported = compress.quantize(tiny_models("BertModel"), bits=8, backend="onnxruntime")
    found = check(exported)
    assert not found["possible"].any()
    assert found["note"].str.contains("OnnxModel|exported").all()
    assert not probes.check(exported).empty
