"""Fusion: the layers that are most alike share one tensor, wherever the model goes."""

import copy
import json

import architectures
import numpy as np
import pytest
import torch
import transformers
from fused import PARTS, QUIET, batch, queries, storages, untied

import compress
import probes
from compress import save
from compress.fusion.fuse import fuse
from compress.fusion.layer_similarity import layer_similarity
from compress.fusion.pairs import groups_of
from compress.matrices import block_matrices
from compress.quantization.deploy import deploy
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.extensions import apply_formats, from_pretrained
from probes.models.formats.shared_layers import apply_sharing, unshare


def test_a_dropped_layer_is_taken_out(planted, make_tokenizer, corpus):
    fused = fuse(planted, share=0.5, merge="drop", unit="layer", similarity="cosine")
    done = fused.config.compression
    assert fused.config.num_hidden_layers == len(fused.bert.encoder.layer) == 2
    assert sorted(f["other_layer"] for f in done["fusions"]) == done["dropped"]
    expected = compress.drop_layers(planted, done["dropped"])
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in fused.state_dict().items())
    assert not hasattr(fused.config, "shared_layers")
    assert done["method"] == "fuse"
    assert done["parameters"] == sum(p.numel() for p in expected.parameters())
    reps = probes.capture(fused, make_tokenizer(), corpus, progress=False)
    assert reps.sizes["layer"] == 3


@pytest.mark.parametrize("merge", ["mean", "mix", "freeze"])
@pytest.mark.parametrize("unit", ["matrix", "layer"])
def test_as_many_layers_as_before_with_fewer_parameters(make, make_tokenizer, corpus, merge, unit):
    model = make()
    fused = fuse(model, share=0.5, merge=merge, unit=unit)
    reps = probes.capture(fused, make_tokenizer(), corpus, progress=False)
    assert reps.sizes["layer"] == 5
    # Of each part two of four are gone.
    one = model.bert.encoder.layer[0]
    every = sum(p.numel() for p in one.parameters())
    norms = 0 if unit == "layer" else sum(p.numel() for n, p in one.named_parameters() if "LayerNorm" in n)
    done = fused.config.compression
    assert done["parameters_of_parent"] - done["parameters"] == 2 * (every - norms)
    assert done["parameters"] == sum(p.numel() for p in set(fused.parameters()))
    assert done["parent"] == weights_fingerprint(model)
    numbers = done["groups"]
    assert set(numbers) == ({"encoder.layer.*"} if unit == "layer" else set(PARTS))
    assert all(sum(len(g) - 1 for g in groups) == 2 for groups in numbers.values())
    assert len(done["fusions"]) == 2 * len(numbers)
    assert json.loads(json.dumps(done)) == done


# --- one storage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["matrix", "layer"])
@pytest.mark.parametrize("packed", [False, True])
def test_one_tensor_after_a_copy_and_on_disk_and_loaded(make, make_tokenizer, corpus, tmp_path, unit, packed):
    model, tokenizer = make(), make_tokenizer()
    fused = fuse(model, share=0.5, unit=unit)
    shared = [names for names in storages(fused) if len(names) > 1]
    assert shared
    assert not [names for names in storages(model) if len(names) > 1]
    assert storages(copy.deepcopy(fused)) == storages(fused)
    folders = [save(m, tmp_path / n, tokenizer, packed=packed) for m, n in ((model, "whole"), (fused, "fused"))]
    sizes = [sum(f.stat().st_size for f in folder.glob("*.safetensors")) for folder in folders]
    done = fused.config.compression
    fewer = 4 * (done["parameters_of_parent"] - done["parameters"])
    # The names that are not in the file take room there too.
    assert fewer <= sizes[0] - sizes[1] < fewer * 1.1 + 200 * sum(len(n) - 1 for n in shared)
    loaded, _ = probes.load_checkpoint(folders[1])
    assert storages(loaded) == storages(fused)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in fused.state_dict().items())
    assert weights_fingerprint(loaded) == weights_fingerprint(fused)
    inputs = batch(fused, tokenizer, corpus)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, fused.eval()(**inputs).logits)
        apart = untied(fused).eval()
        assert torch.equal(apart(**inputs).logits, fused(**inputs).logits)
    assert loaded.config.compression["groups"] == done["groups"]
    # Once more, from what was loaded.
    again = save(loaded, tmp_path / "again", tokenizer, packed=packed)
    assert sum(f.stat().st_size for f in again.glob("*.safetensors")) == sizes[1]


def test_what_transformers_itself_loads_is_mended(make, make_tokenizer, tmp_path):
    fused = fuse(make(), share=0.5)
    folder = save(fused, tmp_path / "fused", make_tokenizer())
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    differ = [k for k, v in plain.state_dict().items() if not torch.equal(v, fused.state_dict()[k])]
    assert set(differ) == apply_sharing(plain)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in fused.state_dict().items())
    assert storages(plain) == storages(fused)
    bare = transformers.AutoModel.from_pretrained(folder)  # without the head, whose names have another prefix
    apply_sharing(bare)
    assert all(torch.equal(v, fused.state_dict()[f"bert.{k}"]) for k, v in bare.state_dict().items())
    bare.save_pretrained(tmp_path / "bare")
    make_tokenizer().save_pretrained(tmp_path / "bare")
    loaded, _ = probes.load_checkpoint(tmp_path / "bare")
    assert storages(loaded) == storages(bare)


@pytest.mark.parametrize(
    "architecture", ["GPT2LMHeadModel", "LlamaForCausalLM", "DistilBertModel", "T5ForConditionalGeneration"]
)
@pytest.mark.parametrize("unit", ["matrix", "layer"])
def test_other_architectures_save_and_load_tied(make, make_tokenizer, tmp_path, architecture, unit):
    model = make(3, architecture)
    tied = [names for names in storages(model) if len(names) > 1]  # embeddings, in some
    fused = fuse(model, share=0.4, unit=unit)
    groups = fused.config.compression["groups"]
    assert groups
    assert all(sum(len(g) - 1 for g in found) == 1 for found in groups.values())
    assert set(tied) < set(storages(fused))
    folder = save(fused, tmp_path / "out", make_tokenizer())
    loaded, _ = probes.load_checkpoint(folder)
    assert storages(loaded) == storages(fused)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in fused.state_dict().items())


# --- in training -----------------------------------------------------------------------------------------------------


def test_they_are_one_while_they_are_trained(make, make_tokenizer, corpus, tmp_path):
    model, tokenizer = make(), make_tokenizer()
    at_once = fuse(model, share=0.5)
    fused = fuse(model, share=0.5, train=corpus, tokenizer=tokenizer, steps=3, **QUIET)
    assert storages(fused) == storages(at_once)
    assert not torch.equal(queries(fused)[0].weight, queries(at_once)[0].weight)
    assert fused.config.compression["fusions"] == at_once.config.compression["fusions"]
    assert fused.config.compression["steps"] == 3
    assert fused.history["step"].tolist() == [1, 2, 3]
    loaded, _ = probes.load_checkpoint(save(fused, tmp_path / "out", tokenizer))
    assert storages(loaded) == storages(fused)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in fused.state_dict().items())
    frozen = fuse(model, share=0.5, merge="freeze", train=corpus, tokenizer=tokenizer, steps=3, **QUIET)
    kept = {id(p) for names in storages(frozen) if len(names) > 1 for p in [frozen.get_parameter(names[0])]}
    for parameter in frozen.parameters():
        assert parameter.requires_grad == (id(parameter) not in kept)
        if id(parameter) in kept:
            assert any(torch.equal(parameter, other) for other in model.parameters() if other.shape == parameter.shape)


@pytest.mark.parametrize("merge", ["mean", "freeze"])
def test_a_fused_model_is_pruned_and_quantised_and_stays_so(make, make_tokenizer, tmp_path, merge):
    fused = fuse(make(), share=0.5, merge=merge)
    pruned = compress.prune(fused, sparsity=0.6)
    assert storages(pruned) == storages(fused)
    for weight in block_matrices(pruned).values():
        assert int((weight == 0).sum()) == round(0.6 * weight.numel())
    quantized = compress.quantize(fused, bits=4)
    assert storages(quantized) == storages(fused)
    assert all(w.unique(dim=None).numel() <= 16 * len(w) for w in block_matrices(quantized).values())
    assert not torch.equal(queries(quantized)[0].weight, queries(fused)[0].weight)
    loaded, _ = probes.load_checkpoint(save(pruned, tmp_path / "pruned", make_tokenizer()))
    assert storages(loaded) == storages(fused)


def test_what_is_shared_is_counted_and_compressed_once(make, make_tokenizer, corpus):
    model = make()
    fused = fuse(model, share=0.5)
    every, distinct = (
        sum(w.numel() for w in {id(w): w for w in block_matrices(m).values()}.values()) for m in (model, fused)
    )
    assert distinct == every / 2
    cost = compress.footprint(model, fused)
    assert cost.loc["share", "encoder"] == 0.5
    assert cost["parameters"].to_dict() == pytest.approx(
        {
            "model": fused.config.compression["parameters_of_parent"],
            "smaller": fused.config.compression["parameters"],
            "share": fused.config.compression["parameters"] / fused.config.compression["parameters_of_parent"],
        }
    )
    for criterion in ("random", "lamp"):  # two draws, or two turns, would take more
        pruned = compress.prune(fused, sparsity=0.6, criterion=criterion)
        zeros = sum(int((w == 0).sum()) for w in {id(w): w for w in block_matrices(pruned).values()}.values())
        assert zeros == pytest.approx(0.6 * distinct, abs=12)
        assert pruned.config.compression["sparsity_of_pruned"] == zeros / distinct
    one, two = (compress.quantize(m, bits=4).config.compression["bytes_of_quantized"] for m in (fused, model))
    assert one == two / 2
    rounded = compress.quantize(fused, bits=4, activation_bits=8)
    assert len(rounded.config.quantized_inputs) == 4 * 6  # at all places
    assert set(compress.bit_damage(fused, damage="weights")["unit"]) == set(
        compress.quantize(fused, bits=4).config.compression["quantized"]
    ) & {name for names in storages(fused) for name in names[:1]}


@pytest.mark.parametrize("unit", ["matrix", "layer"])
def test_layers_are_dropped_from_a_fused_model(make, make_tokenizer, tmp_path, unit):
    fused = fuse(make(6), share=0.5, unit=unit)
    (group, *_) = next(iter(groups_of(fused).values()))
    smaller = compress.drop_layers(fused, [group[0]])
    assert groups_of(smaller) != groups_of(fused)
    loaded, _ = probes.load_checkpoint(save(smaller, tmp_path / "out", make_tokenizer()))
    assert storages(loaded) == storages(smaller)
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in smaller.state_dict().items())


def test_torchao_gets_what_is_shared(make, make_tokenizer, corpus):
    fused = fuse(make(), share=0.5)
    apart = copy.deepcopy(fused)
    unshare(apart)
    inputs = batch(fused, make_tokenizer(), corpus)
    with torch.no_grad():
        one, two = (deploy(m, "torchao", bits=8)(**inputs).logits for m in (fused, apart))
    assert torch.equal(one, two)
    assert groups_of(fused)  # which is as it was


@pytest.mark.parametrize("what", ["heads", "channels"])
def test_parts_of_shared_layers_are_not_pruned(make, what):
    prune = getattr(compress, f"prune_{what}")
    with pytest.raises(probes.InputError, match=rf"{what} are chosen in each layer, .* Prune its {what} first, then"):
        prune(fuse(make()), 0.5)
    assert groups_of(fuse(prune(make(), 0.5)))
    apart = fuse(make())
    unshare(apart)
    assert sum(p.numel() for p in prune(apart, 0.5).parameters()) < sum(p.numel() for p in apart.parameters())


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, r"share=0: expected above 0 and below 1"),
        ({"share": 1.0}, r"share=1.0: expected above 0 and below 1"),
        ({"share": float("nan")}, r"share=nan: expected above 0"),
        ({"share": 0.2}, r"nothing to fuse: share=0.2 of 4 layers is less than one. Ask for at least 0.25"),
        ({"similarity": "l2"}, r"similarity='l2' is not known; choose one of 'cka', 'euclidean'"),
        ({"similarity": "cka"}, r"similarity='cka' compares what layers make of texts: give corpus=... and tokenizer="),
        ({"merge": "sum"}, r"merge='sum' is not known; choose one of 'mean', 'mix', 'freeze', 'drop'"),
        ({"unit": "head"}, r"unit='head' is not known; choose one of 'matrix', 'layer'"),
        ({"schedule": "cubic"}, r"schedule='cubic' is not known"),
        ({"schedule": "uniform"}, r"schedule='uniform' fuses while it trains: give train=... and steps="),
        ({"steps": -1}, r"steps=-1: expected a whole number"),
        ({"steps": 5}, r"training needs text"),
    ],
)
def test_bad_settings_are_named(make, options, message):
    with pytest.raises(probes.InputError, match=message):
        fuse(make(), **options)


def test_text_that_nothing_reads_is_refused(make, make_tokenizer, corpus):
    text = {"corpus": corpus, "tokenizer": make_tokenizer()}
    message = r"corpus=... is given and nothing reads it: similarity='cosine' is of the weights alone"
    for call in (fuse, layer_similarity):
        with pytest.raises(probes.InputError, match=message):
            call(make(), similarity="cosine", **text)
    unread = {"train": corpus, "tokenizer": make_tokenizer()}
    for how in ({}, {"similarity": "cka", "corpus": corpus}):
        with pytest.raises(probes.InputError, match=r"train=... is given, and steps=0 trains nothing: give steps="):
            fuse(make(), **how, **unread)


def test_what_has_no_similarity_is_saved_as_none(make, make_tokenizer, tmp_path):
    model = make()
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.output.dense.weight.zero_()
    save(fuse(model, similarity="weight_cka"), tmp_path / "out", make_tokenizer())
    for file in ("config.json", "compression.json"):
        text = (tmp_path / "out" / file).read_text()
        assert "NaN" not in text
    found = {f["part"]: f["similarity"] for f in json.loads(text)["fusions"]}
    assert [part for part, value in found.items() if value is None] == ["encoder.layer.*.output.dense"]
    assert all(0 < abs(value) <= 1 for value in found.values() if value is not None)


def test_bad_schedules_are_named(make, make_tokenizer, corpus):
    options = {"train": corpus, "tokenizer": make_tokenizer(), "steps": 5, "schedule": "uniform"}
    with pytest.raises(probes.InputError, match=r"fusions=5: expected a whole number of at least 1 and below 5"):
        fuse(make(), fusions=5, **options)
    with pytest.raises(probes.InputError, match=r"fusions=True: expected a whole number of at least 1 and below 5"):
        fuse(make(), fusions=True, **options)
    few = fuse(make(), fusions=np.int64(2), **options, **QUIET)
    assert json.loads(json.dumps(few.config.compression))["fused_at"] == [2, 3]
    with pytest.raises(probes.InputError, match=r"merge='drop' takes whole layers out before any training"):
        fuse(make(), merge="drop", unit="layer", fusions=2, **options)


@pytest.mark.parametrize("kind", ["nomic_bert", "gte", "jina_embeddings_v3"])
def test_what_a_file_keeps_as_one_tensor_is_not_shared_apart(kind):
    model = architectures.make(kind)
    expected = rf"\({kind}\): its file keeps self_attn.q_proj, .*that layers.0.self_attn.* Fuse by unit='layer'"
    with pytest.raises(probes.InputError, match=expected):
        fuse(model)
    assert fuse(model, unit="layer").config.compression["coverage"] == 1


@pytest.mark.parametrize(("kind", "unit"), [("marian", "matrix"), ("marian", "layer"), ("qwen2_moe", "layer")])
def test_what_is_fused_in_other_families_is_saved_and_loaded(kind, unit, tmp_path):
    fused = fuse(architectures.make(kind), unit=unit)
    fused.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    given = {"config": config, "dtype": torch.float64, "output_loading_info": True}
    loaded, info = from_pretrained(type(fused), config, tmp_path, **given)
    assert set(info["missing_keys"]) <= apply_formats(loaded.eval(), info["missing_keys"])
    if kind == "qwen2_moe":
        loaded.set_experts_implementation("eager")
    assert torch.allclose(architectures.states(loaded), architectures.states(fused), rtol=0, atol=1e-10)
    unshare(fused)
    fused.save_pretrained(tmp_path / "plain")  # what is tied anyway still is


def test_models_of_one_shared_block_have_nothing_to_fuse():
    with pytest.raises(probes.InputError, match="nothing to fuse: AlbertModel has 1 layer with weight matrices"):
        fuse(architectures.make("albert"))
