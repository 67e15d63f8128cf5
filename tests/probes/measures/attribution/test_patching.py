"""Patching against plain hooks, closed forms and what must hold whatever the model."""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from patched import corpus_of, hurt
from scipy.special import log_softmax

import compress
import probes
from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.attribution.patching import patched_together, patching
from probes.measures.attribution.places import inside_of
from probes.states.resumed import blocks_of

measured = partial(patching, draws=10, progress=False)
quiet = pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def base(tiny_models):
    return tiny_models("BertForSequenceClassification").double()


@quiet
def test_equals_plain_hooks_one_sentence_and_layer_at_a_time_in_float64():
    base, tokenizer = probes.load_checkpoint("bundled")
    base = base.double()
    other = compress.prune(base, sparsity=0.6)
    corpus = probes.load_corpus("bundled", split="dev", languages=["en", "fr"])
    ids = sorted(set(corpus["id"]))[:2]
    corpus = corpus.filter(lambda row: row["id"] in ids)
    out = {at: measured(base, other, tokenizer, corpus, at=at) for at in ("layers", "modules", "weights")}

    @torch.no_grad()
    def logits(model, text, put=None, at=None, swap=None):
        """Of one text alone; the output of one module is replaced, or one block of the model."""
        blocks = model.bert.encoder.layer
        given = tokenizer(text, return_tensors="pt")
        if swap is not None:
            own, blocks[swap] = blocks[swap], base.bert.encoder.layer[swap]
        hooks = (
            [at.register_forward_hook(lambda _m, _a, y: (put, *y[1:]) if isinstance(y, tuple) else put)] if at else []
        )
        try:
            return log_softmax(model(**given).logits[0].numpy())
        finally:
            for hook in hooks:
                hook.remove()
            if swap is not None:
                blocks[swap] = own

    @torch.no_grad()
    def output(model, text, module):
        seen = []
        hook = module.register_forward_hook(lambda _m, _a, y: seen.append(y[0] if isinstance(y, tuple) else y))
        model(**tokenizer(text, return_tensors="pt"))
        hook.remove()
        return seen[0]

    both = {t: (logits(base, t), logits(other, t)) for t in corpus["text"]}

    def share(patched):
        """Of the damage of all texts that goes away, where `patched` gives a text's log probabilities."""
        whole = left = 0.0
        for text, (p, q) in both.items():
            r = patched(text)
            whole += (np.exp(p) * (p - q)).sum()
            left += (np.exp(p) * (p - r)).sum()
        return 1 - left / whole

    def found(at, place):
        return float(out[at].value.sel(measure="kl", language="pooled").isel({out[at].value.dims[1]: place}))

    for layer in (1, 4):
        one, two = (m.bert.encoder.layer[layer - 1] for m in (base, other))
        by_states = share(lambda t, one=one, two=two: logits(other, t, output(base, t, one), two))
        assert found("layers", layer) == pytest.approx(by_states, abs=1e-6)
        by_weights = share(lambda t, layer=layer: logits(other, t, swap=layer - 1))
        assert found("weights", layer - 1) == pytest.approx(by_weights, abs=1e-6)
    for name in ("5.output.dense",):
        layer, _, inside = name.partition(".")
        one, two = (m.bert.encoder.layer[int(layer) - 1].get_submodule(inside) for m in (base, other))
        expected = share(lambda t, one=one, two=two: logits(other, t, output(base, t, one), two))
        assert found("modules", out["modules"].module.values.tolist().index(name)) == pytest.approx(expected, abs=1e-6)


@quiet
@pytest.mark.parametrize("into", ["other", "base"])
def test_the_layer_that_was_hurt_is_found_and_no_other(base, tokenizer, into):
    other = hurt(base, 2)
    states = measured(base, other, tokenizer, corpus_of(), into=into)
    weights = measured(base, other, tokenizer, corpus_of(), at="weights", into=into)
    kl = states.value.sel(measure="kl")
    # States before the hurt are the same, those after it hold all there is.
    np.testing.assert_array_equal(kl.sel(layer=[0, 1]), 0)
    np.testing.assert_allclose(kl.sel(layer=[2, 3]), 1, atol=1e-9)
    kl = weights.value.sel(measure="kl")
    np.testing.assert_array_equal(kl.sel(layer=[1, 3]), 0)
    np.testing.assert_allclose(kl.sel(layer=2), 1, atol=1e-9)
    gain, damage = weights.gain.sel(layer=2), weights.damage
    np.testing.assert_allclose(gain, damage, atol=1e-9)
    assert (weights.gain_low.sel(layer=2, measure="kl") > 0).all()
    assert weights.attrs["into"] == into
    assert weights.value.dims == ("measure", "layer", "language")
    assert weights.gain_draws.dims == ("measure", "draw", "layer", "language")


@quiet
def test_several_at_once_are_what_each_is_alone_and_take_one_pass_of_each_model(base, tokenizer):
    other, ran = hurt(base, 2, 3), []
    names = {"names": ("one", "two"), "draws": 10, "progress": False}
    attentions = [block.attention for model in (base, other) for block in blocks_of(model)]
    hooks = [module.register_forward_pre_hook(lambda *_: ran.append(1)) for module in attentions]
    both = patched_together(base, other, tokenizer, corpus_of(), at=("weights", "layers"), **names)
    # Two passes of 3 blocks. Blocks: nothing for the first, that the original has too; the second and what follows;
    # the third. States: what follows the first two, where these differ.
    assert len(ran) == 2 * 3 + (0 + 2 + 1) + (0 + 0 + 1 + 0)
    for hook in hooks:
        hook.remove()
    for found, at in zip(both, ("weights", "layers"), strict=True):
        xr.testing.assert_identical(found, measured(base, other, tokenizer, corpus_of(), at=at, names=("one", "two")))
    (one,) = patched_together(base, other, tokenizer, corpus_of(), at=["weights"], only={2}, **names)
    xr.testing.assert_identical(one, both[0].sel(layer=[2]))


@quiet
def test_the_attention_and_the_feed_forward_part_of_a_block_are_given_back_apart(base, tokenizer):
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.bert.encoder.layer[1].output.dense.weight.add_(torch.randn(12, 20, generator=torch.manual_seed(0)))
    out = measured(base, other, tokenizer, corpus_of(), at="module_weights").value.sel(measure="kl", language="pooled")
    assert out.module.values.tolist() == [f"{n}.{k}" for n in (1, 2, 3) for k in ("attention", "feed-forward")]
    np.testing.assert_allclose(out.values, [0, 0, 0, 1, 0, 0], atol=1e-9)
    # Both at once are given back by hand.
    noisy, mixed = hurt(base, 1, 2, 3, by=0.2), hurt(base, 1, 2, 3, by=0.2)
    for name in ("attention.self", "attention.output.dense"):
        mixed.bert.encoder.layer[1].set_submodule(name, base.bert.encoder.layer[1].get_submodule(name))
    out = measured(base, noisy, tokenizer, corpus_of(), at="module_weights").sel(measure="kl", language="pooled")
    left = float(OutputDamage(base, tokenizer, corpus_of()).of(mixed).sel(measure="kl").mean())
    assert float(out.damage - out.gain.sel(module="2.attention")) == pytest.approx(left, abs=1e-9)


def test_base_against_base_has_no_damage_and_says_so(base, tokenizer):
    with pytest.warns(
        LayerscopeWarning, match=r"lacks of .* is none by kl \(en\), kl \(xx\), kl \(pooled\)\. There are no shares"
    ):
        out = measured(base, copy.deepcopy(base), tokenizer, corpus_of())
    assert out.value.isnull().all()
    assert not out.gain.any()
    assert not out.damage.any()


@quiet
def test_at_the_last_layer_the_head_of_the_host_is_left(base, tokenizer):
    torch.manual_seed(0)
    other = hurt(base, 1)
    with torch.no_grad():
        other.classifier.weight.add_(torch.randn_like(other.classifier.weight))
    out = measured(base, other, tokenizer, corpus_of()).sel(measure="kl", language="pooled")
    assert float(out.value[-1]) < 0.99
    other.classifier = base.classifier
    out = measured(base, other, tokenizer, corpus_of()).sel(measure="kl", language="pooled")
    np.testing.assert_allclose(out.value[-1], 1, atol=1e-9)


class _Line(torch.nn.Module):
    """A linear block: x -> x W."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, hidden_states, *_args, **_kwargs):
        return hidden_states @ self.weight


def lines(base, weights):
    """A model of linear blocks in a row, whose output is the mean over tokens; without a head."""
    model = copy.deepcopy(base.bert)
    for number, weight in enumerate(weights):
        model.encoder.layer[number] = _Line(weight)
    return model


@quiet
def test_a_linear_network_equals_the_closed_form(base, tokenizer):
    torch.manual_seed(1)
    weights = [torch.eye(12).double() + 0.3 * torch.randn(12, 12).double() for _ in range(3)]
    planted = [weights[0], weights[1] + 0.5 * torch.randn(12, 12).double(), weights[2]]
    one, two = lines(base, weights), lines(base, planted)
    corpus = corpus_of()
    states = measured(one, two, tokenizer, corpus, pivot="en")
    blocks = measured(one, two, tokenizer, corpus, pivot="en", at="weights")
    np.testing.assert_array_equal(states.gain.sel(measure="cosine").sel(layer=[0, 1]), 0)
    np.testing.assert_array_equal(blocks.gain.sel(measure="cosine").sel(layer=[1, 3]), 0)
    # All blocks spoiled: with its own block back at k, x W1 .. Wk .. W3 is known.
    spoiled = [w + 0.2 * torch.randn(12, 12).double() for w in weights]
    three = lines(base, spoiled)
    found = measured(one, three, tokenizer, corpus, pivot="en", at="weights").gain.sel(measure="cosine")
    with torch.no_grad():
        tokens = [one.embeddings(tokenizer(t, return_tensors="pt")["input_ids"])[0, 1:-1] for t in corpus["text"]]
    reps = np.stack([x.mean(0).numpy() for x in tokens])

    def lost(chain):
        mapped, own = (reps @ torch.linalg.multi_dot(c).numpy() for c in (chain, weights))
        cosine = (mapped * own).sum(1) / np.linalg.norm(mapped, axis=1) / np.linalg.norm(own, axis=1)
        return (1 - cosine).mean()

    for k in range(3):
        chain = [weights[i] if i == k else spoiled[i] for i in range(3)]
        expected = lost(spoiled) - lost(chain)
        assert float(found.sel(language="pooled")[k]) == pytest.approx(expected, abs=1e-6)


@quiet
def test_what_a_norm_undoes_drifts_and_has_no_effect(base, tokenizer):
    one, two = copy.deepcopy(base), copy.deepcopy(base)
    for model in (one, two):
        model.bert.encoder.layer[0].output.LayerNorm.eps = 0.0
        model.bert.encoder.layer[1].attention.output.LayerNorm.eps = 0.0
        with torch.no_grad():  # nothing is added to what the first block gives before it is normed
            model.bert.encoder.layer[1].attention.output.dense.weight.zero_()
            model.bert.encoder.layer[1].attention.output.dense.bias.zero_()
    with torch.no_grad():
        two.bert.encoder.layer[0].output.LayerNorm.weight.mul_(3)
        two.bert.encoder.layer[0].output.LayerNorm.bias.mul_(3)
    drift = probes.drift(*(probes.capture(m, tokenizer, corpus_of(), progress=False) for m in (one, two)))
    moved = float(np.abs(drift.value.sel(language="pooled")[:, 1] - drift.value.sel(language="pooled")[:, 0]).max())
    assert moved > 0.5
    out = measured(one, two, tokenizer, corpus_of())
    assert np.abs(out.gain).max() < 1e-9
    assert np.abs(out.damage).max() < 1e-9


@quiet
def test_numbers_do_not_depend_on_batches_or_the_order_of_rows(base, tokenizer):
    other, corpus = hurt(base, 1, 3), corpus_of()
    one = measured(base, other, tokenizer, corpus)
    two = measured(base, other, tokenizer, corpus.select(range(len(corpus))[::-1]), batch_size=1)
    two = two.sel(language=one.language)
    np.testing.assert_allclose(one.gain, two.gain, atol=1e-9)
    np.testing.assert_allclose(one.gain_draws, two.gain_draws, atol=1e-9)


@quiet
@pytest.mark.parametrize("how", ["quantized", "torchao", "factorized", "fused", "heads", "causal"])
def test_kinds_of_compressed_models(how, tiny_models, tokenizer, make_tokenizer):
    base = tiny_models("LlamaForCausalLM" if how == "causal" else "BertForSequenceClassification", hidden_size=16)
    other = {
        "quantized": lambda: compress.quantize(base, bits=3),
        "torchao": lambda: compress.quantize(base, bits=8, backend="torchao"),
        "factorized": lambda: compress.factorize(base, rank=4),
        "fused": lambda: compress.fuse(base, share=0.5),
        "heads": lambda: compress.prune_channels(base, 0.5),
        "causal": lambda: compress.prune(base, sparsity=0.5),
    }[how]()
    used = make_tokenizer(special=False) if how == "causal" else tokenizer
    for at in ("layers", "modules", "weights", "module_weights"):
        out = measured(base, other, used, corpus_of(), at=at)
        assert np.isfinite(out.gain).all()
        if at == "weights" and how == "fused":  # a block has its own weights, the others those that they share
            mixed = copy.deepcopy(other)
            mixed.bert.encoder.layer[1] = copy.deepcopy(base.bert.encoder.layer[1])
            left = OutputDamage(base, used, corpus_of()).of(mixed).sel(measure="kl").mean()
            found = (out.damage - out.gain.sel(layer=2)).sel(measure="kl", language="pooled")
            assert float(found) == pytest.approx(float(left), abs=1e-6)
        if at == "layers" and how in ("heads", "causal"):  # heads and norms of the model are the original's
            np.testing.assert_allclose(out.value.sel(measure="kl", language="pooled")[-1], 1, atol=1e-4)


@quiet
def test_models_of_other_depth_by_a_map_and_by_what_was_dropped(base, tokenizer):
    other = compress.drop_layers(base, [1])
    out = measured(base, other, tokenizer, corpus_of())
    assert out.layer.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(out.value.sel(measure="kl", language="pooled", layer=2), 1, atol=1e-9)
    by_map = measured(base, other, tokenizer, corpus_of(), layers={2: 3})
    np.testing.assert_array_equal(by_map.gain.sel(layer=2), out.gain.sel(layer=2))
    del other.config.compression
    with pytest.raises(
        InputError, match=r"has 3 layers and 'two' 2: say which layer of 'one' stands for which of 'two'"
    ):
        measured(base, other, tokenizer, corpus_of(), names=("one", "two"))


def test_what_cannot_be_used_is_said_before_a_model_runs(tiny_models, tokenizer):
    base, corpus = tiny_models("BertForSequenceClassification"), corpus_of()
    run = partial(measured, tokenizer=tokenizer, corpus=corpus, names=("one", "two"))

    def never(*_args, **_kwargs):
        raise AssertionError("it ran")

    base.forward = base.bert.forward = never
    with pytest.raises(
        InputError, match=r"at='heads' is not known; choose one of 'layers', 'modules', 'weights', 'module_weights'"
    ):
        run(base, base, at="heads")
    with pytest.raises(InputError, match=r"into='both' is not known; choose one of 'other', 'base'"):
        run(base, base, into="both")
    wide = tiny_models("BertForSequenceClassification", hidden_size=16)
    with pytest.raises(InputError, match=r"states of 'one' have 12 features and those of 'two' 16, so that neither's"):
        run(base, wide)
    shallow = tiny_models("BertForSequenceClassification", num_hidden_layers=2)
    with pytest.raises(
        InputError, match=r"at='weights': .*'one' is bert of 3 layers and 'two' bert of 2\. Patch states"
    ):
        run(base, shallow, at="weights")
    with pytest.raises(InputError, match=r"layers=\{2: 9\}: expected layers 0 to 2 of 'two', each with one of 0 to 3"):
        run(base, shallow, layers={2: 9})
    other = tiny_models("BertForSequenceClassification", attn_implementation="eager")
    with pytest.raises(InputError, match=r"compute attention in two ways \(sdpa, eager\), so that their blocks read"):
        run(base, other, at="weights")
    other.config.model_type = "unheard"
    with pytest.raises(InputError, match=r'\'two\': at="modules" knows the architectures bert, .*and not \'unheard\''):
        inside_of(other, "two")


@quiet
def test_models_are_as_they_were_also_after_an_exception(base, tokenizer):
    other = hurt(base, 2).train()
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (base, other)]
    measured(base, other, tokenizer, corpus_of(), at="modules")
    broken = copy.deepcopy(base)
    broken.bert.encoder.layer[1].attention.forward = lambda *_a, **_k: 1 / 0
    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        measured(other, broken, tokenizer, corpus_of())
    for model, kept in zip((base, other), before, strict=True):
        assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
        assert not any("forward" in vars(b) or b._forward_hooks for m in blocks_of(model) for b in m.modules())
    assert other.training
    assert not base.training
