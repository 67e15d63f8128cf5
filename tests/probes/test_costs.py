import numpy as np
import pandas as pd
import pytest
import torch

import compress
import probes
from compress import footprint
from compress.quantization.deploy import deploy
from probes.costs import COLUMNS, ROUNDS, as_table, counted, on_random_texts, on_texts, seconds_of, weight_files
from probes.models.weights import block_weights, hoyer_sparsity


def test_counts_are_those_of_the_weights(tiny_models, tmp_path):
    model = tiny_models("BertForSequenceClassification")
    pruned = compress.prune(model, sparsity=0.75)
    cost = footprint(model, pruned)
    assert list(cost.index) == ["model", "smaller", "share"]
    every = sum(p.numel() for p in model.parameters())
    assert cost.loc["model", "parameters"] == cost.loc["smaller", "parameters"] == every
    # Per layer four matrices of 12 x 12 and two of 12 x 20; three layers.
    assert cost.loc["smaller", "encoder"] == 3 * (4 * 144 + 2 * 240)
    assert cost.loc["smaller", "encoder_nonzero"] == 0.25 * 3 * (4 * 144 + 2 * 240)
    assert cost.loc["model", "nonzero"] - cost.loc["smaller", "nonzero"] == 0.75 * 3 * (4 * 144 + 2 * 240)
    pruned.save_pretrained(tmp_path)
    assert cost.loc["smaller", "bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert cost.loc["share", "bytes"] == pytest.approx(1)
    assert (cost[["seconds_1", "seconds_32"]] > 0).all(axis=None)
    tables = sum(p.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters())
    assert cost.loc["model", "embeddings"] == tables


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "GPT2LMHeadModel"])
def test_stored_bytes_are_those_of_a_packed_model(tiny_models, tmp_path, architecture):
    model = tiny_models(architecture)
    pruned = compress.prune(model, sparsity=0.9)
    cost = footprint(model, pruned)
    compress.save(pruned, tmp_path / "out", packed=True)
    written = (tmp_path / "out" / "packed.safetensors").stat().st_size
    names = 200 * len(pruned.state_dict())  # in the head of the file
    assert written - names < cost.loc["smaller", "stored_bytes"] < written
    assert cost.loc["share", "stored_bytes"] < 0.9
    assert cost["stored_as"].tolist() == ["as it is", "packed", ""]
    assert cost.loc["model", "stored_bytes"] == cost.loc["model", "bytes"]
    assert cost.loc["share", "bytes"] == pytest.approx(1)


def test_operations_by_hand_and_fewer_where_structure_is_removed(tiny_models):
    model = tiny_models("BertModel")
    texts, tokens, layers, d, f = 32, 32, 3, 12, 20
    linear = 2 * texts * tokens * (4 * d * d + 2 * d * f) * layers + 2 * texts * d * d  # with the pooler
    attention = 2 * 2 * texts * tokens * tokens * d * layers
    assert footprint(model).loc["model", "operations"] == linear + attention
    narrow = footprint(model, compress.prune_channels(model, 0.5))
    assert (
        narrow.loc["model", "operations"] - narrow.loc["smaller", "operations"] == 2 * texts * tokens * d * f * layers
    )
    assert narrow.loc["share", "bytes"] < 1


def test_models_are_left_as_they_were(tiny_models):
    model = tiny_models("BertModel").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    footprint(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(probes.InputError, match="smaller: expected a model of transformers, found Linear"):
        footprint(model, torch.nn.Linear(2, 2))


def test_counts_models_with_decoders_and_those_stored_by_codes(tiny_models):
    t5 = tiny_models("T5ForConditionalGeneration")
    assert footprint(t5).loc["model", "parameters"] == sum(p.numel() for p in t5.parameters())
    model, _ = probes.load_checkpoint("bundled")
    coded = compress.quantize(model, backend="torchao")
    cost = footprint(model, coded)
    assert cost.loc["share", "parameters"] == 1
    assert cost.loc["share", "bytes"] < 0.7
    assert 0.9 < cost.loc["share", "encoder_nonzero"] <= 1
    assert cost.loc["smaller", "stored_as"] == "as it is"
    assert cost.loc["smaller", "stored_bytes"] == cost.loc["smaller", "bytes"]
    with pytest.raises(probes.InputError, match=r"its weights are quantised already \(config.quantization_config\)"):
        compress.prune(coded, sparsity=0.5)
    with pytest.raises(probes.InputError, match="its weights are quantised already"):
        compress.prune_heads(coded, 0.5)


def test_a_model_of_onnxruntime_does_the_operations_of_the_one_it_was_exported_from(tiny_folder):
    model, _ = probes.load_checkpoint("bundled")
    exported = deploy(model, "onnxruntime")
    cost = footprint(model, exported)
    # Counted by the shapes that onnxruntime saw, and by those that torch did.
    assert cost.loc["share", "operations"] == 1
    assert cost.loc["smaller", "parameters"] == pytest.approx(cost.loc["model", "parameters"], rel=1e-3)
    assert cost.loc["smaller", "embeddings"] == pytest.approx(cost.loc["model", "embeddings"], rel=1e-3)
    assert cost.loc["smaller", "bytes"] == len(exported.onnx) == cost.loc["smaller", "stored_bytes"]
    assert 0.9 < cost.loc["share", "nonzero"] <= 1
    assert np.isnan(cost.loc["smaller", "encoder"])
    assert exported(**on_random_texts(exported, "x").batches[1][0]).logits is not None  # runs as before


def test_what_is_simulated_is_stored_as_integers_and_no_longer_so_once_it_is_changed(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    rounded = compress.quantize(model, bits=4)
    cost = footprint(rounded).loc["model"]
    assert (cost["stored_as"], cost["stored_bytes"]) == ("integers", rounded.config.compression["bytes_of_model"])
    books = compress.product_quantize(model, codes=4, block=4)
    assert footprint(books).loc["model", "stored_as"] == "codebooks"
    half = compress.drop_layers(rounded, [2])
    assert footprint(half).loc["model", "stored_as"] == "as it is"


def test_a_folder_is_as_large_as_its_weights(tiny_models, make_tokenizer, tmp_path):
    model, pruned = tiny_models("BertModel"), compress.prune(tiny_models("BertModel"), sparsity=0.9)
    plain, packed = compress.save(model, tmp_path / "plain"), compress.save(pruned, tmp_path / "packed", packed=True)
    assert [f.name for f in weight_files(plain)] == ["model.safetensors"]
    found = counted(on_random_texts(pruned, "x"), packed)
    assert found["bytes"] == found["stored_bytes"] == (packed / "packed.safetensors").stat().st_size
    assert found["stored_as"] == "as it is"  # the zeros are left out already
    (plain / "adapter_config.json").write_text("{}")
    assert weight_files(plain) is weight_files("a/name on the hub") is None
    assert weight_files(tmp_path) is None


def test_texts_are_drawn_from_the_corpus_and_are_the_same_for_every_model(tiny_models, make_tokenizer):
    words = list(make_tokenizer().get_vocab())[6:]
    rows = [{"id": str(i), "language": "en", "text": " ".join(words[: 1 + i % 20])} for i in range(60)]
    corpus = probes.load_corpus(pd.DataFrame(rows))
    subjects = [on_texts(tiny_models(n), make_tokenizer(), corpus, n, seed=3) for n in ("BertModel", "RobertaModel")]
    for one in subjects:
        (many,), (single,) = one.batches[32], one.batches[1]
        assert len(many["input_ids"]) == 32
        assert len(single["input_ids"]) == 1
        lengths = sorted(many["attention_mask"].sum(1).tolist())
        assert lengths[15] <= int(single["attention_mask"].sum()) <= lengths[16]
    one, other = (s.batches[32][0]["input_ids"] for s in subjects)
    assert one.equal(other)
    few = on_texts(tiny_models("BertModel"), make_tokenizer(), corpus.select(range(5)), "x")
    assert len(few.batches[32][0]["input_ids"]) == 32


def test_models_take_turns_and_the_first_round_does_not_count(tiny_models, monkeypatch):
    monkeypatch.setattr("probes.costs.ROUNDS", 3)
    ran = []
    subjects = [on_random_texts(tiny_models("BertModel"), name) for name in "ab"]
    for name, one in zip("ab", subjects, strict=True):
        one.model.register_forward_hook(lambda *_, name=name: ran.append(name))
    found = seconds_of(subjects)
    assert found.shape == (3, 2, 2)
    assert (found > 0).all()
    assert "".join(ran) == "aabb" * 4


def test_a_table_holds_each_beside_the_baseline(monkeypatch):
    assert ROUNDS == 7
    base = np.array([1.0, 1.0, 2.0])[:, None] * [1, 10]
    small = np.array([0.5, 0.4, 1.0])[:, None] * [1, 10]
    seconds = {"base": base[:, None], "small": np.stack([base, small], axis=1)}
    table = as_table({"base": {"bytes": 8, "stored_as": "as it is"}}, seconds, "base", ["base", "small", "stored"])
    assert table.columns.tolist() == ["model", *COLUMNS]
    table = table.set_index("model")
    assert table.loc["base", "bytes"] == 8
    assert table.loc["base", ["seconds_1", "seconds_32"]].tolist() == [1, 10]
    assert table.loc["small", ["seconds_1", "speed_1", "speed_1_low", "speed_1_high"]].tolist() == [0.5, 2, 2, 2.5]
    assert np.isnan(table.loc["base", "speed_32"])
    assert table.loc["stored"].drop("stored_as").isna().all()


def test_sparsity_by_hoyer_is_the_formula_and_rises_with_zeros(tiny_models):
    model = tiny_models("BertForSequenceClassification")
    cost = footprint(model, compress.prune(model, sparsity=0.8))
    each = [w.detach().double().numpy() for w in block_weights(model).values()]
    by_hand = [(w.size**0.5 - np.abs(w).sum() / np.linalg.norm(w)) / (w.size**0.5 - 1) for w in each]
    assert cost.loc["model", "hoyer"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert cost.loc["smaller", "hoyer"] > cost.loc["model", "hoyer"] + 0.2
    assert hoyer_sparsity([torch.full((3, 3), -2.0)]) == pytest.approx(0, abs=1e-12)
    assert hoyer_sparsity([torch.eye(3)[:1]]) == pytest.approx(1)
    assert all(np.isnan(hoyer_sparsity(w)) for w in ([], [torch.zeros(2, 2)], [torch.ones(1)]))
