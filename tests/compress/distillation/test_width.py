"""Narrower students: the part of the model along its largest weights, in every family; what is refused."""

import numpy as np
import pytest
import torch
from students import KINDS, blocks, build, logits
from trained import same, weights

import compress
import probes
from compress.distillation.distill import distill
from probes.models.formats.sparse_embeddings import apply_sparse_head
from probes.models.parts import FAMILIES


def kept_by_hand(model, heads, channels):
    """Heads and channels of each layer by the norm of what they write times what they read, in numpy."""
    family = FAMILIES[model.config.model_type]
    (inner_name,), outer_name = family.feed_forwards[0].inner, family.feed_forwards[0].outer
    out = []
    for block in blocks(model):
        w = {n: block.get_submodule(n) for n in (*family.attention.names, inner_name, outer_name)}

        def with_bias(linear):
            return torch.cat([linear.weight, linear.bias[:, None]], 1).detach().double().numpy()

        value, joined = (
            with_bias(w[family.attention.projections[2]]),
            w[family.attention.joined].weight.detach().double().numpy(),
        )
        inner, outer = with_bias(w[inner_name]), w[outer_name].weight.detach().double().numpy()
        size = 3
        of_heads = [
            np.linalg.norm(joined[:, h * size : (h + 1) * size] @ value[h * size : (h + 1) * size]) for h in range(4)
        ]
        of_channels = [np.linalg.norm(outer[:, c]) * np.linalg.norm(inner[c]) for c in range(20)]
        out.append([sorted(np.argsort(of_heads)[-heads:]), sorted(np.argsort(of_channels)[-channels:])])
    return out


def stream_rows(model, kept):
    """Every matrix with the stream as columns, of the heads and channels that are kept."""
    family = FAMILIES[model.config.model_type]
    rows = [p for n, p in model.base_model.named_parameters() if n.startswith("embeddings.") and p.ndim == 2]
    for block, (heads, channels) in zip(blocks(model), kept, strict=True):
        features = np.concatenate([np.arange(3 * h, 3 * h + 3) for h in heads])
        rows += [block.get_submodule(n).weight[features] for n in family.attention.projections]
        rows += [block.get_submodule(family.attention.joined).weight[:, features].T]
        rows += [block.get_submodule(family.feed_forwards[0].inner[0]).weight[channels]]
        rows += [block.get_submodule(family.feed_forwards[0].outer).weight[:, channels].T]
    for name, p in model.named_parameters():
        if name.endswith(("pooler.dense.weight", "pre_classifier.weight", "classifier.dense.weight")):
            rows.append(p)
    return [r.detach().double().numpy() / np.linalg.norm(r.detach().double().numpy()) for r in rows]


@pytest.mark.parametrize("initialise", ["truncate", "svd"])
@pytest.mark.parametrize("family", KINDS)
def test_a_narrow_student_is_the_part_of_the_model_along_its_largest_weights(family, initialise):
    model = build(family)
    before = weights(model)
    student = distill(model, hidden_size=9, initialise=initialise)
    assert same(before, weights(model))
    config = student.config
    channels = config.hidden_dim if family == "distilbert" else config.intermediate_size
    assert (config.hidden_size, config.num_attention_heads, channels) == (9, 3, 15)
    kept = kept_by_hand(model, 3, 15)
    rows = np.concatenate(stream_rows(model, kept))
    if initialise == "truncate":
        p = np.eye(12)[:, sorted(np.argsort((rows**2).sum(0))[-9:])]
    else:
        _, s, vt = np.linalg.svd(rows, full_matrices=False)
        p = vt[:9].T
        # What is lost is what was discarded; along features more is.
        assert np.linalg.norm(rows - rows @ p @ p.T) ** 2 == pytest.approx((s[9:] ** 2).sum())
        assert np.sort((rows**2).sum(0))[:3].sum() > 1.05 * (s[9:] ** 2).sum()
    found = dict(student.base_model.named_parameters())
    table = "embeddings.word_embeddings.weight"
    expected = dict(model.base_model.named_parameters())[table].detach().double().numpy() @ p
    signs = np.sign((expected * found[table].detach().numpy()).sum(0))
    p = p * signs
    if initialise == "truncate":
        assert (signs == 1).all()

    def check(name, expected):
        np.testing.assert_allclose(found[name].detach().numpy(), expected, atol=1e-5, err_msg=name)

    check(table, expected * signs)
    parts = FAMILIES[family].attention
    (inner,), outer = FAMILIES[family].feed_forwards[0].inner, FAMILIES[family].feed_forwards[0].outer
    names = {id(q): n for n, q in model.base_model.named_parameters()}
    for block, (heads, channels) in zip(blocks(model), kept, strict=True):
        features = np.concatenate([np.arange(3 * h, 3 * h + 3) for h in heads])

        def numbers(q):
            return names[id(q)], q.detach().double().numpy()

        for part in (*parts.projections, inner):
            at = channels if part == inner else features
            linear = block.get_submodule(part)
            name, w = numbers(linear.weight)
            check(name, w[at] @ p)
            name, b = numbers(linear.bias)
            check(name, b[at])
        for part in (parts.joined, outer):
            linear = block.get_submodule(part)
            name, w = numbers(linear.weight)
            check(name, p.T @ w[:, channels if part == outer else features])
            name, b = numbers(linear.bias)
            check(name, p.T @ b)
    norms = [m for m in model.base_model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 7
    for norm in norms:
        gain = norm.weight.detach().double().numpy()
        check(names[id(norm.weight)], gain @ p if initialise == "truncate" else np.sqrt((p**2).T @ gain**2))
        check(names[id(norm.bias)], p.T @ norm.bias.detach().double().numpy())
    # The head reads what is kept of the pooled features.
    every = dict(model.named_parameters())
    maker = next(
        n for n in every if n.endswith(("pooler.dense.weight", "pre_classifier.weight", "classifier.dense.weight"))
    )
    reader = next(n for n in every if n.endswith(("classifier.weight", "out_proj.weight")) and "pre_" not in n)
    w = every[maker].detach().double().numpy() @ p
    b, c = (every[n].detach().double().numpy() for n in (maker.replace("weight", "bias"), reader))
    pooled = sorted(np.argsort(((w**2).sum(1) + b**2) * (c**2).sum(0))[-9:])
    found = dict(student.named_parameters())
    check(maker, w[pooled])
    check(maker.replace("weight", "bias"), b[pooled])
    check(reader, c[:, pooled])
    check(reader.replace("weight", "bias"), every[reader.replace("weight", "bias")].detach().numpy())


@pytest.mark.parametrize("family", KINDS)
def test_a_student_of_the_models_width_is_the_model(family):
    model = build(family)
    np.testing.assert_allclose(logits(distill(model, hidden_size=12)), logits(model), atol=1e-6)


def test_features_of_small_weights_go_and_others_stay():
    model = build()
    small, table = [1, 5, 10], "embeddings.word_embeddings.weight"
    with torch.no_grad():
        for name, p in model.base_model.named_parameters():
            if p.ndim == 2 and name.endswith(("embeddings.weight", "query.weight", "key.weight", "value.weight")):
                p[:, small] *= 0.1
            if p.ndim == 2 and name.endswith(("intermediate.dense.weight", "pooler.dense.weight")):
                p[:, small] *= 0.1
            if p.ndim == 2 and name.endswith("output.dense.weight"):
                p[small] *= 0.1
    found = distill(model, hidden_size=9).base_model.state_dict()[table]
    stay = [i for i in range(12) if i not in small]
    assert torch.equal(found, model.base_model.state_dict()[table][:, stay])
    control = build()
    found = distill(control, hidden_size=9).base_model.state_dict()[table]
    assert not torch.equal(found, control.base_model.state_dict()[table][:, stay])


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bert", "BertModel"),
        ("roberta", "XLMRobertaModel"),
        ("bert", "BertForTokenClassification"),
        ("distilbert", "DistilBertForTokenClassification"),
        ("distilbert", "DistilBertModel"),
    ],
)
@pytest.mark.parametrize("initialise", ["truncate", "svd"])
def test_other_heads_and_none_become_narrower_too(family, kind, initialise):
    model = build(family, kind=kind)
    whole, narrow = distill(model, hidden_size=12), distill(model, layers=2, hidden_size=6, initialise=initialise)
    ids = torch.randint(4, 27, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(whole(ids)[0], model(ids)[0], atol=1e-6)
        assert torch.isfinite(narrow(ids)[0]).all()
    assert narrow.base_model.get_input_embeddings().weight.shape == (27, 6)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_narrower_student_of_rounded_inputs_is_the_one_that_is_saved(tokenizer, corpus, tmp_path, calibrated):
    text = {"calibrate": corpus, "tokenizer": tokenizer} if calibrated else {}
    rounded = compress.quantize(build(), bits=4, activation_bits=2, **text)
    for name, settings in (("narrow", {"hidden_size": 9}), ("shallow", {"layers": 2})):
        student = distill(rounded, **settings)
        loaded, _ = probes.load_checkpoint(compress.save(student, tmp_path / name, tokenizer))
        assert torch.equal(logits(loaded), logits(student))
        assert hasattr(student.config, "quantized_inputs") == (name == "shallow")


def test_architectures_that_cannot_be_made_narrower_are_refused(tiny_models):
    with pytest.raises(probes.InputError, match=r"made of bert, .*distilbert, and not of .* \(gpt2\): which of its"):
        distill(tiny_models("GPT2ForSequenceClassification"), hidden_size=6)
    with pytest.raises(probes.InputError, match=r"narrower students are made of .* Give one as student=..., or leave"):
        distill(compress.prune_heads(build(), 0.5), hidden_size=6)
    with pytest.raises(
        probes.InputError, match=r"how .*predictions.* of BertForMaskedLM is made narrower is not known"
    ):
        distill(build(kind="BertForMaskedLM"), hidden_size=9)


def test_models_whose_weights_cannot_be_weighed_are_not_made_narrower():
    model = build()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[2, 3:5] = float("nan")
    with pytest.raises(
        probes.InputError, match=r"layer.1.output.dense.weight: 2 of its 240 values are NaN or infinite"
    ):
        distill(model, hidden_size=9)
    model = build()
    model.config.sparse_embeddings = {"features": 4}
    apply_sparse_head(model)
    with pytest.raises(
        probes.InputError, match=r"hidden_size: the sparse head of .* reads states of the width .* or leave"
    ):
        distill(model, hidden_size=9)
