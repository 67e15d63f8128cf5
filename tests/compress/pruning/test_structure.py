"""Structured pruning: what is left computes what the whole model does with the removed parts silenced."""

import copy
import functools

import architectures
import numpy as np
import pytest
import torch
import transformers
from structured import ARCHITECTURES, close, inputs, make, parts

import compress
import probes
from compress.pruning.drop_layers import drop_layers
from compress.pruning.structure import prune_channels, prune_heads
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.extensions import from_pretrained, promised
from probes.models.formats.heads_kept import apply_shapes
from probes.models.parts import FAMILIES

# --- what is left computes the same ----------------------------------------------------------------------------------


def load_pruned(folder):
    """The model alone, as `probes.load_checkpoint` loads it with its tokenizer."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model = from_pretrained(kind, config, folder, config=config)
    return model.eval()


def test_a_checkpoint_without_some_heads_and_channels_is_loaded_and_captured_as_any(texts, tmp_path):
    corpus, tokenizer = texts["corpus"], texts["tokenizer"]
    pruned = drop_layers(prune_channels(prune_heads(make("bert"), 0.5), 0.5), [1])
    compress.save(pruned, tmp_path / "out", tokenizer)
    loaded, again = probes.load_checkpoint(tmp_path / "out")
    assert type(loaded) is type(pruned)
    assert weights_fingerprint(loaded) == weights_fingerprint(pruned)
    one, other = (probes.capture(m, t, corpus, progress=False) for m, t in ((pruned, tokenizer), (loaded, again)))
    np.testing.assert_array_equal(one.hidden, other.hidden)
    assert one.sizes["layer"] == 3


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize(
    ("prune", "what", "size", "left"), [(prune_heads, "heads", 3, 2), (prune_channels, "channels", 1, 10)]
)
def test_the_pruned_model_is_the_parent_with_the_removed_parts_silenced(family, prune, what, size, left, tmp_path):
    model = make(family)
    before, state = weights_fingerprint(model), copy.deepcopy(model.config.to_dict())
    scores = np.random.default_rng(0).random((3, {"heads": 4, "channels": 20}[what]))
    pruned = prune(model, 0.5, importance=scores)
    assert weights_fingerprint(model) == before
    assert model.config.to_dict() == state
    assert type(pruned) is type(model)
    silenced = copy.deepcopy(model)
    for layer in range(3):
        reads, write = parts(pruned, layer)[what]
        assert {r.weight.shape[0] for r in reads} == {left * size} == {r.bias.shape[0] for r in reads}
        assert write.weight.shape == (12, left * size)
        assert write.in_features == reads[0].out_features == left * size
        gone = np.argsort(scores[layer])[: len(scores[layer]) - left]
        with torch.no_grad():
            whole = parts(silenced, layer)[what][1].weight.view(12, -1, size)
            whole[:, torch.from_numpy(gone)] = 0
    assert close(pruned, silenced)
    assert not close(pruned, model, 1e-3)
    assert pruned.num_parameters() < model.num_parameters()
    done = pruned.config.compression
    assert done["parameters"] == pruned.num_parameters()
    assert done["parent"] == before
    # saved and loaded again, and in plain transformers where its configuration can say so
    compress.save(pruned, tmp_path / "saved")
    again = load_pruned(tmp_path / "saved")
    assert type(again) is type(model)
    assert close(again, pruned, 1e-6)
    assert again.config.compression == done
    if what == "channels":
        assert close(type(model).from_pretrained(tmp_path / "saved").eval(), pruned, 1e-6)
    else:
        with pytest.raises(RuntimeError, match="size"):  # never silently with other weights
            type(model).from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_all_three_follow_each_other_in_any_order_and_are_captured_and_saved(family, texts, tmp_path):
    model = make(family)
    probes.capture(model, **texts, progress=False)  # transformers hangs its hooks on the layers that it sees first
    one = prune_channels(drop_layers(prune_heads(model, 0.5), [1]), 0.75)
    other = prune_heads(prune_channels(drop_layers(model, [1]), 0.75), 0.5)
    # transformers leaves a rounding between them: fewer columns are added up in another order
    assert close(one, other)
    for number, pruned in enumerate((one, other)):
        reps = probes.capture(pruned, **texts, progress=False)
        assert reps.sizes["layer"] == 3
        with torch.no_grad():
            last = pruned.base_model(**inputs()).last_hidden_state
            states = pruned.base_model(**inputs(), output_hidden_states=True).hidden_states
        assert torch.equal(states[-1], last)
        compress.save(pruned, tmp_path / str(number))
        again = load_pruned(tmp_path / str(number))
        assert close(again, pruned, 1e-6)
        assert weights_fingerprint(again) == weights_fingerprint(pruned)
        assert again.config.compression["before"]["before"]["method"] in ("prune_heads", "drop_layers")


@pytest.mark.filterwarnings("ignore:.*no configuration of transformers can say")
@pytest.mark.parametrize("kind", architectures.EVERY)
def test_every_architecture_loses_heads_channels_and_layers_and_loads_again(kind, tmp_path):
    model = architectures.make(kind)
    state, scale = copy.deepcopy(model.config.to_dict()), weights_fingerprint(model)
    pruned = prune_channels(drop_layers(model, [0]), 0.4)  # of 48, 24 and 20
    if kind not in architectures.KEEP_HEADS:
        pruned = prune_heads(pruned, 0.5, importance="random")
    assert (model.config.to_dict(), weights_fingerprint(model)) == (state, scale)
    pruned.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    plain = not promised(config)
    loaded = (type(model).from_pretrained if plain else functools.partial(from_pretrained, type(model), config))(
        tmp_path, dtype=torch.float64
    )
    if hasattr(config, "num_experts_per_tok"):
        loaded.set_experts_implementation("eager")
    near = 1e-6 if kind == "gptj" else 1e-10  # positions that are loaded in float32
    assert torch.allclose(architectures.states(loaded.eval()), architectures.states(pruned), rtol=0, atol=near)
    row = FAMILIES[model.config.model_type]
    counted = row.attention.says[0] or "olmo" in kind
    assert plain == bool((counted or kind == "longformer") and kind not in ("gpt2, scaled by place", "bloom"))


def test_places_that_are_not_the_layers_one_by_one_are_named():
    done = prune_heads(architectures.make("t5"), 0.5).config.compression
    assert done["places"][0] == "encoder.block.0.layer.0.SelfAttention.o"
    assert done["places"][-1] == "decoder.block.3.layer.1.EncDecAttention.o"
    assert [k == done["kept"][0] for k in done["kept"][:4]] == [True] * 4  # of one table of positions
    done = prune_channels(architectures.make("qwen3_moe"), 0.5).config.compression
    assert done["places"][5] == "layers.1.mlp.experts.down_proj.1"
    assert "places" not in prune_heads(make("bert"), 0.5).config.compression


def test_encoder_and_decoder_say_what_they_have():
    small = drop_layers(prune_channels(prune_heads(architectures.make("t5"), 0.5), 0.5), [0, 2])
    said = [(m.config.num_layers, m.config.num_heads, m.config.d_ff) for m in (small, small.encoder, small.decoder)]
    assert said == [(2, 2, 24), (2, 2, 24), (4, 2, 24)]
    assert small.config.num_decoder_layers == 4


def test_what_a_configuration_counts_twice_stays_a_multiple():
    pruned = prune_channels(architectures.make("deepseek_v3", moe_intermediate_size=7), 0.5)
    assert pruned.config.moe_intermediate_size == 3
    assert pruned.layers[1].mlp.shared_experts.up_proj.out_features == 6
    assert promised(pruned.config) == []


def test_bloom_keeps_the_slopes_of_its_heads_also_twice(tmp_path):
    model = architectures.make("bloom")
    once = prune_heads(model, 0.5, importance=[[4, 1, 3, 2]] * 4)
    assert once.config.heads_kept == [[0, 2]] * 4
    twice = prune_heads(once, 0.5, importance=[[1, 2]] * 4)
    assert twice.config.heads_kept == [[2]] * 4
    assert torch.allclose(
        architectures.states(twice), architectures.states(prune_heads(model, 0.75, importance=[[1, 2, 4, 3]] * 4)),
        rtol=0, atol=1e-10,
    )  # fmt: skip


def test_heads_that_share_keys_go_in_groups_until_one_is_left():
    model = architectures.make("falcon")
    once = prune_heads(model, 0.5)
    assert once.config.heads_kept == [2] * 4
    twice = prune_heads(once, 0.5)
    assert twice.config.heads_kept == [1] * 4
    again = transformers.FalconModel(model.config).double()
    again.config.heads_kept = [1] * 4
    apply_shapes(again)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in twice.named_parameters()}


def test_a_model_that_could_not_be_loaded_again_is_refused():
    model = make("bert")
    layer = model.base_model.encoder.layer[0]
    layer.extra = torch.nn.Linear(2, 2)
    with pytest.raises(probes.InputError, match=r"\(bert\): saved .*extra.weight is 2 x 2, and would be not there"):
        prune_heads(model, 0.5)


def test_pruned_without_a_record_of_it_still_loads(tmp_path):
    pruned = compress.prune(prune_heads(make("bert"), 0.5), sparsity=0.5)
    assert pruned.config.compression["method"] == "prune"
    pruned.save_pretrained(tmp_path)
    assert close(load_pruned(tmp_path), pruned, 1e-6)


def test_a_pruned_model_trains_and_is_as_frozen_as_before():
    model = make("bert")
    model.base_model.encoder.layer[0].requires_grad_(False)
    pruned = prune_channels(prune_heads(model, 0.5), 0.5)
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    pruned.train()(**inputs(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert parts(pruned, 1)["heads"][1].weight.grad.shape == (12, 6)
    assert pruned.training
    assert not model.training


@pytest.mark.parametrize(("share", "left"), [(0, 4), (0.2, 3), (0.25, 3), (0.5, 2), (0.9, 1), (0.999, 1)])
def test_the_count_is_exact_and_one_head_always_stays(share, left):
    pruned = prune_heads(make("bert"), share)
    assert pruned.config.heads_kept == [left] * 3
    assert [parts(pruned, i)["heads"][0][0].out_features for i in range(3)] == [3 * left] * 3
    assert prune_channels(make("bert"), share).config.intermediate_size == max(1, 20 - round(share * 20))


def test_what_was_kept_is_recorded_short_and_right():
    scores = np.tile([1.0, 0, 1, 1, 0, 1], (3, 1))
    done = prune_channels(make("bert", channels=6), 1 / 3, importance=scores).config.compression
    assert done["kept"] == ["0,2-3,5"] * 3
    assert (
        prune_heads(make("bert"), 0.5, importance=np.tile([1, 0, 0, 1], (3, 1))).config.compression["kept"]
        == [[0, 3]] * 3
    )


# --- the bundled model -----------------------------------------------------------------------------------------------


def test_the_bundled_model_changes_less_than_by_chance():
    model, tokenizer = probes.load_checkpoint("bundled")
    corpus = probes.load_corpus("bundled", split="dev", languages=["en"])
    corpus = corpus.select(range(0, len(corpus), max(1, len(corpus) // 60)))
    base = probes.capture(model, tokenizer, corpus, progress=False)["logits"].values

    def change(**settings):
        pruned = prune_channels(model, 0.75, **settings)
        return np.abs(probes.capture(pruned, tokenizer, corpus, progress=False)["logits"].values - base).mean()

    chance = min(change(importance="random", seed=s) for s in range(3))
    assert change() < chance
    assert change(importance="taylor", corpus=corpus, tokenizer=tokenizer) < chance


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", [prune_heads, prune_channels])
@pytest.mark.parametrize(
    ("share", "settings", "message"),
    [
        (1, {}, r"share=1: expected at least 0 and below 1"),
        (-0.1, {}, r"share=-0.1: expected at least 0 and below 1"),
        (float("nan"), {}, r"share=nan: expected"),
        (
            0.5,
            {"importance": "loudest"},
            r"importance='loudest' is not known; choose one of 'magnitude', 'taylor', 'fisher', 'random', or give sc",
        ),
        (
            0.5,
            {"importance": np.ones((2, 4))},
            r"expected scores of shape \(layer, (head|channel)\) = \(3, \d+\), found \(2, 4\)",
        ),
        (0.5, {"importance": [["a"]]}, r"importance: expected numbers of shape"),
        (0.5, {"importance": "taylor"}, r"importance='taylor' is measured on texts: corpus and tokenizer missing"),
    ],
)
def test_bad_settings_are_refused(prune, share, settings, message):
    with pytest.raises(probes.InputError, match=message):
        prune(make("bert"), share, **settings)


@pytest.mark.parametrize("prune", [prune_heads, prune_channels, drop_layers])
def test_what_is_not_known_is_refused(prune):
    with pytest.raises(
        probes.InputError, match=r"knows the architectures bert, .*umt5, and not 'mamba'.*compress.prune"
    ):
        prune(transformers.MambaModel(transformers.MambaConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9)), 0)
    with pytest.raises(probes.InputError, match="expected a model of transformers, found Linear"):
        prune(torch.nn.Linear(2, 2), 0)


def test_a_linear_map_of_another_kind_is_refused():
    model = make("bert")
    model.base_model.encoder.layer[1].attention.output.dense = torch.nn.Identity()
    with pytest.raises(
        probes.InputError, match=r"encoder.layer.1.attention.output.dense: expected a plain linear map, found Identity"
    ):
        prune_heads(model, 0.5)
