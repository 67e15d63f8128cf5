"""Layers that were kept: their kinds go with them, in the configuration where it can say so."""

import copy

import pytest
import torch
from architectures import EVERY, make, states

import probes
from probes.models.blocks import depth_of, family_of, layers_of
from probes.models.formats.extensions import unlike
from probes.models.formats.layers_kept import apply_layers, keep_layers

FOUR = {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4}
PLAIN = [kind for kind in EVERY if kind != "albert"]


@pytest.mark.parametrize("kind", PLAIN)
def test_a_model_of_some_layers_skips_the_others(kind):
    model = make(kind)
    family = family_of(model)
    for kept in ([0, 2, 3], [1, 3]):
        smaller, skipping = copy.deepcopy(model), copy.deepcopy(model)
        before = keep_layers(smaller, kept)
        assert before[family.layers] == 4
        for number in set(range(4)) - set(kept):
            layers_of(skipping, family)[number].register_forward_hook(
                lambda _m, given, named, out: (
                    (x := given[0] if given else named["hidden_states"]),
                    (x, *out[1:]) if isinstance(out, tuple) else x,
                )[1],
                with_kwargs=True,
            )
        assert torch.allclose(states(smaller), states(skipping), rtol=0, atol=1e-10)
        assert not torch.allclose(states(smaller), states(model), atol=1e-3)
        assert depth_of(smaller, family) == len(kept)
        for place, layer in enumerate(layers_of(smaller, family)):
            said = {m.layer_idx for m in layer.modules() if getattr(m, "layer_idx", None) is not None}
            assert said <= {place}
        otherwise = unlike(smaller)
        by_place = kind in ("gpt2, scaled by place", "big_bird") or (kind == "modernbert" and kept[0] == 1)
        assert (otherwise is not None) == by_place
        if otherwise is not None:
            smaller.config.layers_kept = {"numbers": kept, "of": before}
            assert unlike(smaller) is None


def test_shared_layers_run_fewer_times():
    model = make("albert")
    smaller = copy.deepcopy(model)
    keep_layers(smaller, [0, 2])
    assert smaller.config.num_hidden_layers == 2
    assert torch.equal(states(smaller), states(make("albert", num_hidden_layers=2)))
    assert len(layers_of(smaller, family_of(smaller))) == 1
    with pytest.raises(probes.InputError, match=r"\(albert\): its 4 layers share 2 blocks by their places"):
        keep_layers(make("albert", num_hidden_groups=2), [0, 1])


@pytest.mark.parametrize(
    ("kind", "kept", "said"),
    [
        ("modernbert", [0, 1, 3], {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
        ("gemma2", [1, 2, 3], {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
        ("qwen2", [0, 3], {"layer_types": ["full_attention", "sliding_attention"], "max_window_layers": 1}),
        ("smollm3", [2, 3], {"no_rope_layers": [1, 0]}),
        ("gpt_neo", [1, 3], {"attention_layers": ["local", "local"], "attention_types": [[["local", "local"], 1]]}),
        ("qwen2_moe", [1, 2, 3], {"mlp_only_layers": [1], "decoder_sparse_step": 1}),
        ("deepseek_v3", [1, 2], {"first_k_dense_replace": 0}),
        ("deepseek_v3", [0, 2], {"first_k_dense_replace": 1}),
    ],
)
def test_kinds_of_layers_go_with_them(kind, kept, said):
    model = make(kind)
    keep_layers(model, kept)
    assert {key: getattr(model.config, key) for key in said} == said
    assert unlike(model) is None


def test_what_follows_the_first_layer_keeps_it():
    model = make("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    with pytest.raises(probes.InputError, match=r"\(deberta-v2\): encoder.conv follows its first layer, so layer 0"):
        keep_layers(model, [1, 2])
    keep_layers(model, [0, 2])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"numbers": [1, 9], "of": FOUR}, r"names the layers \[1, 9\] of a model of 4, and the configuration does not"),
        ({"numbers": [1], "of": FOUR}, r"names the layers \[1\] of a model of 4, and"),
        ({"numbers": [1, 3], "of": {"num_hidden_layers": 4}}, r"names the layers \[1, 3\] of a model of 4, and"),
        ({"numbers": [1, 2], "of": {"num_hidden_layers": "4"}}, r"names the layers \[1, 2\] of a model of 4, and"),
        ({"numbers": [3, 1], "of": FOUR}, r"names the layers \[3, 1\] of a model of 4, and"),
        ({"numbers": [1, 3], "of": {}}, r"names the layers \[1, 3\] of a model of None, and"),
        ({"numbers": [1, 3], "of": {"hidden_size": 64}}, r"says hidden_size of the model that the layers are from"),
        ({"numbers": "all"}, r"config.layers_kept"),
    ],
)
def test_layers_kept_of_another_model_are_refused(said, message, make_tokenizer, tmp_path):
    model = make("modernbert", num_hidden_layers=2)
    apply_layers(model)  # nothing is said
    model.config.layers_kept = said
    model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(probes.InputError, match=message):
        probes.load_checkpoint(tmp_path)
