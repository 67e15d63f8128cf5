"""restore: what is chosen, what it takes, what comes out, and what is refused before anything runs."""

import numpy as np
import pytest
import torch
from patched import corpus_of, hurt
from trained import same, weights

import compress
import probes
from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.output_damage import OutputDamage

SIZE = {"hidden_size": 24, "intermediate_size": 48}


@pytest.fixture(scope="module")
def model(make_classifier):
    return make_classifier(**SIZE)


@pytest.fixture(scope="module")
def how(make_tokenizer):
    return {"tokenizer": make_tokenizer(), "corpus": corpus_of(labels="xyz"), "progress": False}


@pytest.fixture(scope="module")
def pruned(model):
    return compress.prune(model, sparsity=0.9)


@pytest.fixture(scope="module")
def rounded(model):
    return compress.quantize(model, bits=2)


def size_of(model):
    return compress.footprint(model).iloc[0]


def pruned_in(model, layer):
    """One layer of three is pruned, so that it alone is to blame."""
    return compress.prune(model, sparsity=0.9, only=rf"layer\.{layer}\.")


def test_the_block_that_was_hurt_is_chosen_and_all_damage_goes_away(model, how):
    for layer in (0, 2):
        other = pruned_in(model, layer)
        before = weights(other)
        mended = compress.restore(other, model, budget=2, units="blocks", **how)
        done = mended.config.compression
        assert [(g["part"], g["layer"]) for g in done["given"]] == [(f"bert.encoder.layer.{layer}", layer + 1)]
        assert (done["damage_after"], done["damage_before"] > 0) == (0.0, True)
        assert same(weights(mended), weights(model))
        assert same(weights(other), before)
        assert other.config.compression["method"] == "prune"
        assert done["before"] == other.config.compression


def test_of_two_blocks_the_one_that_does_more_a_byte_comes_first(model, how):
    """Against brute force: each block by itself, measured by a plain pass over the texts."""
    other = compress.prune(pruned_in(model, 0), sparsity=0.5, only=r"layer\.2\.")
    output = OutputDamage(model, how["tokenizer"], how["corpus"])
    gains = {}
    for layer in (0, 2):
        keys = [k for k in dict(model.named_parameters()) if f"layer.{layer}." in k]
        given = {k: model.get_parameter(k) for k in keys}
        gains[layer] = float((output.of(other) - output.of(other, given)).sel(measure="kl").mean())
    done = compress.restore(other, model, budget=2, units="blocks", **how).config.compression
    first, second = done["given"]
    a_byte = {g["layer"] - 1: gains[g["layer"] - 1] / g["bytes"] for g in (first, second)}
    assert first["layer"] - 1 == max(a_byte, key=a_byte.get)
    assert done["damage_after"] == 0.0


@pytest.mark.parametrize(
    ("units", "by", "budget"), [("blocks", "effect", 0.7), ("matrices", "effect", 0.1), ("rows", "weights", 0.05)]
)
def test_the_budget_is_kept_to_the_byte(model, pruned, how, units, by, budget):
    mended = compress.restore(pruned, model, budget=budget, units=units, by=by, **how)
    done = mended.config.compression
    was, is_now = size_of(pruned), size_of(mended)
    assert (was["stored_bytes"], was["stored_as"]) == (done["bytes_before"], "packed")
    assert is_now["stored_bytes"] == done["bytes"] == done["bytes_before"] + sum(g["bytes"] for g in done["given"])
    assert 0 < done["bytes"] - done["bytes_before"] <= done["budget_bytes"]
    assert is_now["nonzero"] > was["nonzero"]


def test_bits_are_given_back_and_what_is_left_is_told(model, rounded, how, tmp_path):
    mended = compress.restore(rounded, model, budget=0.03, **how)
    done = mended.config.compression
    assert done["units"] == "bits"
    assert size_of(mended)[["stored_bytes", "stored_as"]].tolist() == [done["bytes"], "integers"]
    assert done["bytes"] <= done["bytes_before"] + done["budget_bytes"]
    assert done["damage_after"] < done["damage_before"]
    assert sorted({bits for bits in done["bits"].values() if bits > 2}) != []
    again = compress.quantize(model, bits=done["bits"])  # what the same bits make of the original
    assert all(torch.equal(again.get_parameter(n), mended.get_parameter(n)) for n in done["bits"])
    assert again.config.compression["bytes_of_quantized"] == done["bytes_of_quantized"]
    assert again.config.compression["bytes_of_model"] == done["bytes_of_model"] == done["bytes"]
    back = probes.load_checkpoint(compress.save(mended, tmp_path / "mended", how["tokenizer"]))[0]
    assert same(weights(back), weights(mended))
    assert back.config.compression == done
    further = compress.restore(back, model, budget=0.1, by="order", **how).config.compression
    assert further["bytes_before"] == done["bytes"]


@pytest.mark.parametrize("units", ["bits", "matrices", "blocks"])
def test_with_a_budget_for_everything_it_is_the_original_inputs_too(model, rounded, how, units):
    mended = compress.restore(rounded, model, budget=50, by="order", units=units, **how)
    assert same(weights(mended), weights(model))
    assert not getattr(mended.config, "quantized_inputs", None)
    damage = OutputDamage(model, how["tokenizer"], how["corpus"])
    assert float(abs(damage.of(mended)).sum()) == 0.0
    assert "bytes_of_model" not in mended.config.compression
    assert mended.config.compression["bytes"] <= size_of(mended)["stored_bytes"]


@pytest.mark.parametrize(
    "smaller",
    [
        lambda m: compress.product_quantize(m, codes=4, block=4),
        lambda m: compress.factorize(m, rank=4),
        lambda m: compress.factorize(m, budget=0.5, method="tensor_train"),
    ],
)
def test_a_matrix_of_codewords_or_factors_becomes_whole(model, how, smaller, tmp_path):
    other = smaller(model)
    mended = compress.restore(other, model, budget=0.3, by="weights", **how)
    done = mended.config.compression
    assert done["given"]
    assert size_of(mended)["stored_as"] == size_of(other)["stored_as"] == done["stored_as"]
    # Names of modules in the header of a file take some bytes, too.
    assert abs(size_of(mended)["stored_bytes"] - done["bytes"]) <= 300 * len(done["given"])
    path = done["given"][0]["part"]
    assert torch.equal(mended.get_submodule(path).weight, model.get_submodule(path).weight)
    assert type(mended.get_submodule(path)) is torch.nn.Linear
    back = probes.load_checkpoint(compress.save(mended, tmp_path / "mended", how["tokenizer"]))[0]
    assert same(weights(back), weights(mended))
    whole = compress.restore(other, model, budget=50, by="order", **how)
    assert same(weights(whole), weights(model))
    assert not getattr(whole.config, "factorized", None)


def test_factors_get_more_of_their_rank_and_are_saved_as_factors(model, how, tmp_path):
    other = compress.factorize(model, rank=2)
    mended = compress.restore(other, model, budget=0.1, units="ranks", **how)
    done = mended.config.compression
    assert done["damage_after"] < done["damage_before"]
    assert size_of(mended)["stored_as"] == done["stored_as"] == "as it is"
    assert abs(size_of(mended)["stored_bytes"] - done["bytes"]) <= 300 * len(done["given"])
    ranks = {k: how["rank"] for k, how in mended.config.factorized.items()}
    assert set(ranks.values()) > {2}
    first = done["given"][0]
    assert first["bytes"] == 4 * 2 * sum(mended.get_submodule(first["part"]).weight.shape)  # a sixteenth of 24
    back = probes.load_checkpoint(compress.save(mended, tmp_path / "mended", how["tokenizer"]))[0]
    assert same(weights(back), weights(mended))
    assert OutputDamage(model, how["tokenizer"], how["corpus"]).of(back)[0].mean() == pytest.approx(
        done["damage_after"]
    )
    whole = compress.restore(other, model, budget=50, units="ranks", by="order", **how)
    assert same(weights(whole), weights(model))
    assert not getattr(whole.config, "factorized", None)


def test_a_pruned_one_is_saved_packed_and_loads_the_same(model, pruned, how, tmp_path):
    mended = compress.restore(pruned, model, budget=0.1, units="rows", by="random", **how)
    folder = compress.save(mended, tmp_path / "mended", how["tokenizer"], packed=True)
    assert same(weights(probes.load_checkpoint(folder)[0]), weights(mended))
    plain = compress.save(mended, tmp_path / "plain", how["tokenizer"])
    assert same(weights(type(model).from_pretrained(plain)), weights(mended))


def test_each_way_to_choose_keeps_its_order(model, how):
    other = hurt(model, 1, 3, by=0.1)
    with torch.no_grad():
        for parameter in other.bert.encoder.layer[2].parameters():
            parameter.mul_(3.0)
    found = {
        by: [g["layer"] for g in compress.restore(other, model, budget=9, units="blocks", by=by, **how)
             .config.compression["given"]]
        for by in ("order", "weights", "drift")
    }  # fmt: skip
    assert found == {"order": [1, 3], "weights": [3, 1], "drift": [3, 1]}
    drawn = {
        seed: [g["part"] for g in compress.restore(other, model, budget=9, by="random", seed=seed, **how)
               .config.compression["given"]]
        for seed in (0, 0, 1)
    }  # fmt: skip
    assert drawn[0] != drawn[1]
    assert sorted(drawn[0]) == sorted(drawn[1])


def test_texts_of_the_choice_are_whole_sentences_and_none_of_the_test_split(model, how):
    rows = how["corpus"].to_pandas()
    split = probes.load_corpus(rows.assign(split=np.where(rows["id"].astype(int) < 2, "test", "dev")))
    other = pruned_in(model, 0)
    done = [
        compress.restore(other, model, **(how | {"corpus": c}), texts=texts, budget=1, units="blocks", by="order")
        .config.compression["texts"]
        for c, texts in ((split, 256), (split, 5), (how["corpus"], 5), (how["corpus"], 1))
    ]  # fmt: skip
    assert done == [8, 4, 4, 2]


def test_no_damage_gives_nothing_and_says_so(model, how):
    other = hurt(model, 1, by=0.0)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[0].add_(1.0)  # of padding, which no text reads
    with pytest.warns(LayerscopeWarning, match="no damage on these texts"):
        done = compress.restore(other, model, **how).config.compression
    assert (done["given"], done["bytes"]) == ([], done["bytes_before"])


@pytest.fixture
def _nothing_runs(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a forward pass")

    monkeypatch.setattr("transformers.BertModel.forward", fail)


@pytest.mark.usefixtures("_nothing_runs")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget=0: expected a number above 0"),
        ({"budget": "much"}, "budget='much'"),
        ({"units": "heads"}, "units='heads'"),
        ({"by": "luck"}, "by='luck'"),
        ({"texts": 0}, "texts=0: expected a whole number"),
        ({"units": "bits"}, "units='bits': .* is stored packed"),
        ({"budget": 0.001}, r"budget=0.001: \d+ bytes of .* and the smallest choice, bert.*, takes [\d,]+: give a"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(model, pruned, how, change, message):
    with pytest.raises(InputError, match=message):
        compress.restore(pruned, model, **how, **change)


@pytest.mark.usefixtures("_nothing_runs")
def test_texts_of_the_proof_are_refused(model, pruned, how):
    with pytest.raises(InputError, match=r"2 of the 12 texts to choose on are in held_out too, as 'a big red dog ran'"):
        compress.restore(pruned, model, **how, held_out=corpus_of(labels="xyz").select([0, 1]))
    rows = how["corpus"].to_pandas().assign(split="test")
    with pytest.raises(InputError, match="all 12 rows of the corpus are of split 'test'"):
        compress.restore(pruned, model, **(how | {"corpus": probes.load_corpus(rows)}))


def test_a_number_for_each_layer_gives_the_order(pruned, model, how):
    given = {"budget": 0.7, "units": "blocks", **how}
    mended = compress.restore(pruned, model, by={1: 0.1, 3: 0.9, 2: 0.0}, **given)
    done = mended.config.compression
    assert done["given"][0]["layer"] == 3
    assert {g["layer"] for g in done["given"]} <= {1, 3}  # of layer 2 there is nothing to correct
    assert done["by"] == {"1": 0.1, "2": 0.0, "3": 0.9}
    for by, says in (({}, "by={}: expected the number of each layer"), ({1: np.nan}, "all of them finite")):
        with pytest.raises(InputError, match=says):
            compress.restore(pruned, model, by=by, **given)


def test_the_order_of_depth_control_names_the_block_that_was_hurt():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(60))
    base = probes.capture(model, tokenizer, corpus, progress=False)
    for block in (1, 4):
        other = compress.prune(model, sparsity=0.9, only=rf"layer\.{block}\.")
        found = probes.depth_control(base, probes.capture(other, tokenizer, corpus, progress=False))
        by = found.value.sel(language="en").to_series().to_dict()
        how = {"budget": 2, "units": "blocks", "texts": 16, "progress": False}
        mended = compress.restore(other, model, tokenizer, corpus, by=by, **how)
        assert mended.config.compression["given"][0]["layer"] == block + 1
        assert same(weights(mended), weights(model))
