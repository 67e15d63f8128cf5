"""Experts: each one's matrices are matrices, fed what the router sends them, and all of it is covered."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from architectures import inputs, make

import compress
import probes
from compress.experts import expert_matrices, fed_to_experts
from compress.matrices import coverage, every_matrix, matrices_of, transposed
from compress.pruning.criteria import scores
from compress.saving import save
from probes.models.formats.extensions import from_pretrained
from probes.models.weights import block_weights

KINDS = ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v3"]


def single(kind, auto="AutoModel", **changes):
    return make(kind, auto, **changes).float()


def slices(model):
    """The matrices of all experts, by hand."""
    return {
        f"{name}.{i}": values[i]
        for name, values in model.named_parameters()
        if name.endswith(("experts.gate_up_proj", "experts.down_proj"))
        for i in range(4)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_each_expert_has_its_matrices_and_nothing_is_left_out(kind):
    model = single(kind)
    found = expert_matrices(model)
    by_hand = slices(model)
    assert set(found) == set(by_hand)
    assert all(torch.equal(m.detach(), by_hand[name]) for name, m in found.items())
    first = next(iter(found.values()))
    assert (first.numel(), first.element_size(), first.dtype, first.grad) == (
        first.shape.numel(),
        4,
        torch.float32,
        None,
    )
    assert set(transposed(model, found).values()) == {kind == "gpt_oss"}
    assert list(matrices_of(model)) == list(every_matrix(model))
    # All but what routes tokens; by the linear maps alone most of it was not.
    assert coverage(model, every_matrix(model)) > 0.98
    assert coverage(model, {n: w for n, w in every_matrix(model).items() if n not in found}) < 0.65
    first.detach().zero_()
    assert not by_hand[next(iter(found))].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_experts_are_fed_makes_what_they_give(kind):
    """The output of every expert, put together by hand from what its matrices are said to be fed."""
    model = make(kind)
    experts = next(m for n, m in model.named_modules() if n.endswith("layers.1.mlp.experts"))
    found = {n: m for n, m in expert_matrices(model).items() if m.experts is experts}
    given, seen, gave = [], {}, []
    experts.register_forward_pre_hook(lambda m, i: given.append(i))
    experts.register_forward_hook(lambda m, i, out: gave.append(out))
    with torch.no_grad(), fed_to_experts(found, lambda n, x: seen.setdefault(n, x), lambda: None):
        model(**inputs(model))
    (hidden, chosen, weights), out = given[0], torch.zeros_like(gave[0])
    for number in range(4):
        first, second = (next(n for n in found if n.endswith(f"{p}_proj.{number}")) for p in ("gate_up", "down"))
        tokens, place = (chosen == number).nonzero(as_tuple=True)
        order = tokens.argsort(stable=True)
        tokens, place = tokens[order], place[order]
        assert torch.equal(seen[first], hidden[tokens])
        weight = found[second].detach()
        made = seen[second] @ (weight if found[second].inputs_first else weight.T)
        if kind == "gpt_oss":
            made = made + experts.down_proj_bias[number]
        out.index_add_(0, tokens, made.detach() * weights[tokens, place, None])
    assert torch.allclose(out, gave[0], rtol=0, atol=1e-10)


@pytest.fixture(scope="module")
def text(make_tokenizer):
    words = ["a", "the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran"]
    draw = np.random.default_rng(0)
    rows = [(str(i), "en", " ".join(draw.choice(words, 3 + i % 5)), str(i % 3)) for i in range(24)]
    corpus = pd.DataFrame(rows, columns=["id", "language", "text", "label"])
    return {"corpus": probes.load_corpus(corpus), "tokenizer": make_tokenizer()}


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "gpt_oss"])
def test_wanda_counts_the_tokens_that_an_expert_gets_and_no_padding(kind, text):
    model = single(kind, "AutoModelForSequenceClassification", vocab_size=27, num_labels=3)
    found = scores(model, matrices_of(model), "wanda", **text)
    totals = {}

    def see(name, x):
        totals[name] = totals.get(name, 0) + x.double().square().sum(0)

    shared = {n: m for n, m in model.named_modules() if n.endswith("shared_expert.down_proj")}
    hooks = [m.register_forward_pre_hook(lambda m, i, n=n: see(f"{n}.weight", i[0])) for n, m in shared.items()]
    with torch.no_grad(), fed_to_experts(expert_matrices(model), see, lambda: None):
        for row in text["corpus"]:  # one text at a time, so without padding
            model(**text["tokenizer"](row["text"], return_tensors="pt"))
    assert len(hooks) == (2 if kind == "qwen2_moe" else 0)
    assert len(totals) == len(expert_matrices(model)) + len(hooks)
    for name, squares in totals.items():
        weight = every_matrix(model)[name].detach().abs()
        across = transposed(model, [name])[name]
        norms = squares.sqrt().float()
        expected = weight * (norms[:, None] if across else norms)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("criterion", ["wanda", "gradient", "fisher"])
def test_an_expert_that_no_text_reaches_is_named(criterion, text):
    model = single("gpt_oss", "AutoModelForSequenceClassification", vocab_size=27, num_labels=3)
    with torch.no_grad():
        model.model.layers[2].mlp.router.bias[3] = -1e9
    with pytest.warns(
        probes.LayerscopeWarning, match=r"no text reaches 1 of its experts, model.layers.2.mlp.experts.3: "
    ):
        pruned = compress.prune(
            model,
            sparsity=0.5,
            criterion=criterion,
            scope="unit" if criterion == "wanda" else "matrix",
            train=text["corpus"],
            tokenizer=text["tokenizer"],
        )
    weight = expert_matrices(pruned)["model.layers.2.mlp.experts.down_proj.3"].detach()
    assert int((weight == 0).sum()) == weight.numel() // 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("criterion", "scope"), [("magnitude", "matrix"), ("magnitude", "unit"), ("lamp", "global")])
def test_every_expert_is_pruned_as_a_matrix_of_its_own(kind, criterion, scope):
    model = single(kind)
    pruned = compress.prune(model, sparsity=0.5, criterion=criterion, scope=scope)
    done, zeros = pruned.config.compression, 0
    for name, after in slices(pruned).items():
        before = slices(model)[name].detach()
        kept = (after != 0).numpy()
        assert np.array_equal(after.detach().numpy()[kept], before.numpy()[kept])
        size = np.abs(before.numpy())
        if scope == "matrix":
            assert (kept == (size > np.median(size))).all()
        elif scope == "unit":
            units = 1 if kind != "gpt_oss" else 0
            assert (kept == (size > np.median(size, axis=units, keepdims=True))).all()
        zeros += int((~kept).sum())
    assert zeros > 0
    total = sum(w.numel() for w in every_matrix(pruned).values())
    assert done["sparsity_of_pruned"] == pytest.approx(0.5, abs=1 / total)
    assert done["coverage"] > 0.98
    assert set(slices(pruned)) < set(done["pruned"])


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_every_expert_is_quantised_as_a_matrix_of_its_own(kind):
    model = single(kind)
    with pytest.warns(
        probes.LayerscopeWarning, match=r"activation_bits=8: what its experts are fed \(layers.0.*31 more\)"
    ):
        compress.quantize(model, bits=3)
    quantized = compress.quantize(model, bits=3, activation_bits=None)
    for name, after in slices(quantized).items():
        values = slices(model)[name].detach().double()
        values = values.T if kind == "gpt_oss" else values
        steps = values.abs().amax(1, keepdim=True) / 3
        expected = (values / steps).round().clamp(-3, 3) * steps
        found = after.detach().T if kind == "gpt_oss" else after.detach()
        off = (found - expected).abs() > 1e-5  # a value halfway between two may go either way
        assert off.sum() <= 1
    whole = sum(p.numel() * 4 for p in model.parameters()) - sum(w.numel() * 4 for w in every_matrix(model).values())
    done = quantized.config.compression
    assert done["bytes_of_model"] == done["bytes_of_quantized"] + whole
    coded = compress.product_quantize(model, codes=4, block=4)
    for name, after in slices(coded).items():
        rows = after.detach().T if kind == "gpt_oss" else after.detach()
        assert len(rows.reshape(-1, 4).unique(dim=0)) <= 4, name
    assert coded.config.compression["coverage"] > 0.98


def test_training_keeps_zeros_and_codes_of_experts(text):
    model = single("mixtral", "AutoModelForSequenceClassification", vocab_size=27, num_labels=3)
    model.config.pad_token_id = text["tokenizer"].pad_token_id
    given = {"train": text["corpus"], "tokenizer": text["tokenizer"], "steps": 6, "progress": False}
    moved = compress.prune(model, sparsity=0.5, criterion="movement", batch_size=8, **given)
    assert all(int((w == 0).sum()) == w.numel() // 2 for w in slices(moved).values())
    assert any(not torch.equal(w, slices(model)[n]) for n, w in slices(moved).items())
    assert moved.history.attrs["coverage"] == moved.config.compression["coverage"] > 0.98
    coded = compress.product_quantize(model, codes=4, block=4, batch_size=8, **given)
    assert all(len(w.detach().reshape(-1, 4).unique(dim=0)) <= 4 for w in slices(coded).values())
    noisy = compress.quantize(model, bits=4, activation_bits=None, batch_size=8, noise=0.5, **given)
    assert all(len(w[0].unique()) <= 15 for w in slices(noisy).values())


def test_what_is_pruned_is_saved_and_loaded(tmp_path):
    pruned = compress.prune(single("mixtral"), sparsity=0.5)
    save(pruned, tmp_path / "out")
    again = transformers.MixtralModel.from_pretrained(tmp_path / "out")
    assert all(torch.equal(w, slices(pruned)[name]) for name, w in slices(again).items())
    fused = compress.fuse(single("mixtral"), unit="layer")
    save(fused, tmp_path / "fused")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "fused")
    loaded = from_pretrained(transformers.MixtralModel, config, tmp_path / "fused", config=config)
    assert fused.config.compression["coverage"] > 0.98
    assert loaded.config.shared_layers == fused.config.shared_layers


def test_bits_are_shared_out_among_experts_too():
    model = single("mixtral")
    table = compress.bit_damage(model, damage="weights", choices=[2, 8], progress=False)
    assert set(slices(model)) < set(table["unit"])
    bits = compress.allocate_bits(model, damage=table, average_bits=5)
    quantized = compress.quantize(model, bits=bits, activation_bits=None)
    assert set(quantized.config.compression["quantized"]) == set(every_matrix(model))


def test_what_is_left_out_is_said_unless_less_was_asked_for():
    model = single("mixtral")
    expected = r"MixtralModel \(mixtral\): fuse touches 14% of the .*gate_up_proj and 11 more .*unit='layer' shares"
    with pytest.warns(probes.LayerscopeWarning, match=expected):
        compress.fuse(model)
    with pytest.raises(
        probes.InputError, match=r"\(mixtral\): layers.0.mlp.experts.gate_up_proj.0 and 31 more .*only="
    ):
        compress.factorize(model, rank=4)
    assert compress.factorize(model, rank=4, only="attn").config.compression["coverage"] == pytest.approx(
        0.142, abs=1e-3
    )
    assert compress.prune(model, sparsity=0.5, only="attn").config.compression["coverage"] < 0.2
    assert compress.footprint(model).loc["model", "encoder"] == sum(w.numel() for w in block_weights(model).values())


def test_weights_of_experts_are_held_to_a_reference():
    from compress.objectives.base import Pass
    from compress.objectives.weights import AlignedWeights

    for kind in ("mixtral", "gpt_oss"):
        model, other = single(kind), single(kind)
        aligned = AlignedWeights(model, form="frobenius")
        assert aligned(Pass(model, None), None, {}).item() == 0
        with torch.no_grad():
            other.layers[0].mlp.experts.down_proj[2].mul_(1.5)
        loss = aligned(Pass(other, None), None, {})
        assert loss.item() == pytest.approx(0.5 / len(every_matrix(model)), rel=1e-4)
        loss.backward()
        gradient = other.layers[0].mlp.experts.down_proj.grad
        assert [bool(g.any()) for g in gradient] == [False, False, True, False]


def test_structural_operations_say_what_they_cover():
    model = single("qwen3_moe")
    heads, channels = (f(model, 0.5).config.compression for f in (compress.prune_heads, compress.prune_channels))
    assert heads["coverage"] + channels["coverage"] == pytest.approx(coverage(model, every_matrix(model)))
    assert heads["coverage"] == pytest.approx(0.247, abs=1e-3)
    assert compress.drop_layers(model, [0]).config.compression["coverage"] == pytest.approx(0.2474, abs=1e-3)
    assert compress.drop_layers(single("albert"), [0]).config.compression["coverage"] == 1
