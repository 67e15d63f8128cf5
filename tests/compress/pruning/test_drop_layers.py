"""Layers taken out: what is left by hand, which go first, what follows them, and what is refused."""

import copy

import architectures
import pytest
import torch
import transformers
from structured import ARCHITECTURES, close, inputs, make

import compress
import probes
from compress.pruning.drop_layers import drop_layers
from compress.pruning.structure import prune_heads
from probes.measures.attribution.output_damage import OutputDamage
from probes.models.fingerprint import weights_fingerprint


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_dropped_layers_are_the_remaining_ones_run_by_hand(family, tmp_path):
    model = make(family, layers=4)
    before = weights_fingerprint(model)
    pruned = drop_layers(model, [2, 0])
    assert weights_fingerprint(model) == before
    by_hand = copy.deepcopy(model)
    blocks = by_hand.base_model.transformer if family == "distilbert" else by_hand.base_model.encoder
    blocks.layer = torch.nn.ModuleList([blocks.layer[1], blocks.layer[3]])
    assert close(pruned, by_hand, 0)
    assert not close(pruned, model, 1e-3)
    assert pruned.config.num_hidden_layers == 2
    assert pruned.config.compression["kept"] == [1, 3]
    assert pruned.config.compression["dropped"] == [0, 2]
    pruned.save_pretrained(tmp_path)
    assert close(type(model).from_pretrained(tmp_path).eval(), pruned, 1e-6)


def test_layers_that_no_configuration_can_say_are_said_by_a_warning():
    model = architectures.make("modernbert")
    with pytest.warns(probes.LayerscopeWarning, match=r"modernbert.*its layers \[1, 3\] are, .*load_checkpoint"):
        pruned = drop_layers(model, [0, 2])
    assert pruned.config.layers_kept["numbers"] == [1, 3]
    assert drop_layers(pruned, [0]).config.layers_kept["numbers"] == [3]
    assert not hasattr(drop_layers(model, [2]).config, "layers_kept")


@pytest.mark.parametrize("kind", ["llama", "gpt_neo", "gemma2", "bloom", "opt", "qwen2_moe"])
def test_a_decoder_without_layers_uses_its_cache(kind):
    pruned = drop_layers(architectures.make(kind, "AutoModelForCausalLM"), [0, 2])
    ids = architectures.inputs(pruned)["input_ids"]
    with torch.no_grad():
        whole = pruned(input_ids=ids).logits[:, -1]
        cache = pruned(input_ids=ids[:, :-1], use_cache=True).past_key_values
        assert torch.allclose(pruned(input_ids=ids[:, -1:], past_key_values=cache).logits[:, -1], whole, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*no configuration of transformers can say")
@pytest.mark.parametrize("kind", ["albert", "modernbert"])
@pytest.mark.parametrize("importance", ["removal", "effect", "similarity"])
def test_layers_are_ranked_in_any_family_and_the_model_stays_as_it_was(kind, importance, texts):
    model = architectures.make(kind, vocab_size=27).float()
    before = weights_fingerprint(model)
    done = drop_layers(model, 2, importance=importance, **texts).config
    assert weights_fingerprint(model) == before
    assert (done.num_hidden_layers, len(done.compression["dropped"])) == (2, 2)
    assert model.config.num_hidden_layers == 4


def test_a_decoder_still_uses_its_cache_without_a_layer():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=12, num_attention_heads=4, num_hidden_layers=3, intermediate_size=20, vocab_size=32, is_decoder=True
    )
    pruned = drop_layers(prune_heads(transformers.BertLMHeadModel(config).eval(), 0.5), [0])
    ids = inputs()["input_ids"]
    with torch.no_grad():
        whole = pruned(input_ids=ids).logits[:, -1]
        cache = pruned(input_ids=ids[:, :-1], use_cache=True).past_key_values
        assert torch.allclose(pruned(input_ids=ids[:, -1:], past_key_values=cache).logits[:, -1], whole, atol=1e-5)


@pytest.mark.parametrize("importance", ["removal", "effect", "similarity"])
def test_a_layer_that_does_nothing_goes_first(importance, texts):
    model = make("bert", layers=4)
    untouched = drop_layers(model, 1, importance=importance, **texts).config.compression["dropped"]
    useless = (untouched[0] + 2) % 4
    block = model.base_model.encoder.layer[useless]
    with torch.no_grad():  # the norm of a state that is normalised already changes nothing
        previous = model.base_model.encoder.layer[useless - 1].output if useless else model.base_model.embeddings
        for part in (block.attention.output, block.output):
            part.dense.weight.zero_()
            part.dense.bias.zero_()
            part.LayerNorm.weight.fill_(1)
            part.LayerNorm.bias.zero_()
        previous.LayerNorm.weight.fill_(1)
        previous.LayerNorm.bias.zero_()
    before = weights_fingerprint(model)
    pruned = drop_layers(model, 1, importance=importance, **texts)
    assert weights_fingerprint(model) == before
    assert pruned.config.compression["dropped"] == [useless]
    assert pruned.config.compression["scores"] == pytest.approx([0], abs=1e-5)
    assert close(pruned, model, 1e-4)


def test_removal_measures_anew_after_each_layer(texts):
    ascending = False
    for seed in (0, 5, 7):
        model = make("bert", layers=4, seed=seed)
        whole = probes.capture(model, **texts, progress=False)["hidden"].values[-1]
        gone, losses = [], []
        for _ in range(2):
            found = {}
            for layer in set(range(4)) - set(gone):
                smaller = drop_layers(model, [*gone, layer])
                last = probes.capture(smaller, **texts, progress=False)["hidden"].values[-1]
                found[layer] = 1 - probes.similarity(whole, last, measure="cka")
            gone.append(min(found, key=found.get))
            losses.append(found[gone[-1]])
        done = drop_layers(model, 2, **texts).config.compression
        assert done["dropped"] == gone
        assert done["scores"] == pytest.approx(losses, abs=1e-6)
        ascending |= gone[0] < gone[1]
    assert ascending  # where numbers in what is left and in the model differ


def test_by_effect_the_layer_goes_without_which_the_output_lacks_least(texts):
    model = make("bert", layers=4, seed=3)
    output = OutputDamage(model, **texts, pivot=texts["corpus"][0]["language"])
    gone = []
    for _ in range(2):
        lost = {n: float(output.of(drop_layers(model, [*gone, n]))[0].mean()) for n in set(range(4)) - set(gone)}
        gone.append(min(lost, key=lost.get))
    done = drop_layers(model, 2, importance="effect", **texts).config.compression
    assert done["dropped"] == gone
    assert done["scores"][-1] == pytest.approx(lost[gone[-1]], abs=1e-9)
    assert done["scores"][0] > 0


def test_layers_go_by_given_scores():
    done = drop_layers(make("bert", layers=4), 2, importance=[3, 1, 4, 2]).config.compression
    assert done["dropped"] == [1, 3]
    assert done["kept"] == [0, 2]
    assert drop_layers(make("bert"), 0, importance=[0, 0, 0]).config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("layers", "settings", "message"),
    [
        ([3], {}, r"layer 3 is not there: the model has the layers 0 to 2"),
        ([-1], {}, r"layer -1 is not there"),
        ([0.5], {}, r"layer 0.5 is not there"),
        ([0, 1, 2], {}, r"all 3 layers of the model. Leave at least one"),
        (3, {}, r"layers=3: expected a count from 0 to 2"),
        (-1, {}, r"layers=-1: expected a count"),
        ("1", {}, r"layers='1': expected how many layers go, or their numbers"),
        (True, {}, r"layers=True: expected how many"),
        (1, {}, r"importance='removal' is measured on texts: corpus and tokenizer missing"),
        (
            1,
            {"importance": "magnitude"},
            r"importance='magnitude' is not known; choose one of 'removal', 'effect', 'similarity', or give scores",
        ),
        (1, {"importance": [1, 2]}, r"expected scores of shape \(layer\) = \(3,\), found \(2,\)"),
    ],
)
def test_bad_layers_are_refused(layers, settings, message):
    with pytest.raises(probes.InputError, match=message):
        drop_layers(make("bert"), layers, **settings)


def test_a_quantised_model_that_loses_layers_rounds_the_inputs_of_those_it_keeps(tiny_models, tmp_path, make_tokenizer):
    model = compress.quantize(tiny_models("BertModel"), bits=8)
    settings = model.config.quantized_inputs
    smaller = drop_layers(model, [1])
    second = {k: v for k, v in settings.items() if ".2." in k}
    kept = {k: v for k, v in settings.items() if ".0." in k} | {k.replace(".2.", ".1."): v for k, v in second.items()}
    assert smaller.config.quantized_inputs == kept
    assert model.config.quantized_inputs == settings
    assert len(settings) == 18
    compress.save(smaller, tmp_path / "out", make_tokenizer())
    loaded, _ = probes.load_checkpoint(tmp_path / "out")
    ids = torch.tensor([[2, 5, 7, 3]])
    with torch.no_grad():
        states = [m(ids).last_hidden_state for m in (smaller, loaded)]
    assert torch.equal(*states)
