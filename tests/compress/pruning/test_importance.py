"""Which heads and channels matter: planted useless ones, norms by hand, gradients by finite differences."""

import copy

import architectures
import numpy as np
import pytest
import torch
from structured import close, make, parts

import probes
from compress.pruning.importance import gate_scores, magnitude_scores
from compress.pruning.structure import prune_channels, prune_heads
from probes.models.blocks import family_of, sites_of
from probes.models.fingerprint import weights_fingerprint


def gone_of(pruned, what):
    kept = pruned.config.compression["kept"]
    if what == "heads":
        return [sorted(set(range(4)) - set(k)) for k in kept]
    ends = [[[int(n) for n in part.split("-")] for part in k.split(",")] for k in kept]
    return [sorted(set(range(20)) - {n for e in layer for n in range(e[0], e[-1] + 1)}) for layer in ends]


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "fisher"])
@pytest.mark.parametrize("end", ["read", "write"])
@pytest.mark.parametrize(
    ("prune", "what", "size", "share"), [(prune_heads, "heads", 3, 0.25), (prune_channels, "channels", 1, 0.05)]
)
def test_a_planted_useless_part_goes_first(prune, what, size, share, end, importance, texts):
    model = make("bert")
    given = {} if importance == "magnitude" else texts
    planted = {0: 2, 1: 0, 2: 3}
    untouched = gone_of(prune(model, share, importance=importance, **given), what)
    assert [[planted[i]] for i in range(3)] != untouched  # the control: they do not go first by themselves
    for layer, number in planted.items():
        reads, write = parts(model, layer)[what]
        at = slice(size * number, size * (number + 1))
        with torch.no_grad():
            if end == "write":
                write.weight[:, at] = 0
            else:  # what the value gives is zero; whatever query and key are
                reads[-1].weight[at] = 0
                reads[-1].bias[at] = 0
    pruned = prune(model, share, importance=importance, **given)
    assert gone_of(pruned, what) == [[planted[i]] for i in range(3)]
    assert close(pruned, model)


def test_magnitude_is_the_norm_of_the_map_by_hand():
    model = make("distilbert")
    (_, _, value), out = parts(model, 1)["heads"]
    (first,), second = parts(model, 1)["channels"]
    read = lambda m: torch.cat([m.weight, m.bias[:, None]], 1).detach().double()  # noqa: E731
    write = out.weight.detach().double()
    by_hand = [torch.linalg.norm(write[:, 3 * h : 3 * h + 3] @ read(value)[3 * h : 3 * h + 3]) for h in range(4)]
    heads = sites_of(model, family_of(model, "heads"), "heads")[1]
    assert np.allclose(magnitude_scores(heads), np.array(by_hand), rtol=1e-9)
    by_hand = read(first).norm(dim=1) * second.weight.detach().double().norm(dim=0)
    channels = sites_of(model, family_of(model, "channels"), "channels")[1]
    assert np.allclose(magnitude_scores(channels), by_hand.numpy(), rtol=1e-9)


def test_magnitude_of_groups_of_heads_and_of_gated_channels_by_hand():
    model = architectures.make("llama")
    block = model.layers[1]
    value, out = block.self_attn.v_proj.weight, block.self_attn.o_proj.weight
    maps = [torch.linalg.norm(out[:, 8 * h : 8 * h + 8] @ value[8 * (h // 2) : 8 * (h // 2) + 8]) for h in range(4)]
    by_hand = [float((maps[2 * g] ** 2 + maps[2 * g + 1] ** 2).sqrt()) for g in (0, 1)]
    assert np.allclose(magnitude_scores(sites_of(model, family_of(model), "heads")[1]), by_hand, rtol=1e-9)
    mlp = block.mlp
    product = mlp.gate_proj.weight.norm(dim=1) * mlp.up_proj.weight.norm(dim=1) * mlp.down_proj.weight.norm(dim=0)
    found = magnitude_scores(sites_of(model, family_of(model), "channels")[1])
    assert np.allclose(found, product.detach().numpy(), rtol=1e-9)


def test_taylor_is_refused_inside_experts(texts):
    model = architectures.make("mixtral", "AutoModelForSequenceClassification", num_labels=3)
    expected = (
        r"importance='taylor': MixtralForSequenceClassification \(mixtral\) has experts "
        r"\(layers.0.mlp.experts.down_proj\).*Choose 'magnitude'"
    )
    with pytest.raises(probes.InputError, match=expected):
        prune_channels(model, 0.5, importance="taylor", **texts)


@pytest.mark.parametrize(("what", "size"), [("heads", 3), ("channels", 1)])
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_taylor_and_fisher_are_finite_differences_text_by_text(family, what, size, texts):
    model = make(family).double().train()
    corpus, tokenizer = texts["corpus"].select(range(7)), texts["tokenizer"]
    states = {k: v.clone() for k, v in model.state_dict().items()}
    counts = [{"heads": 4, "channels": 20}[what]] * 3
    sites = sites_of(model, family_of(model), what)
    found, squared = (gate_scores(model, sites, corpus, tokenizer, i) for i in ("taylor", "fisher"))
    assert all(torch.equal(v, states[k]) for k, v in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()

    def losses():
        with torch.no_grad():
            return [
                float(
                    torch.nn.functional.cross_entropy(
                        model(
                            **{
                                k: v
                                for k, v in tokenizer(row["text"], return_tensors="pt").items()
                                if k != "token_type_ids"
                            }
                        ).logits,
                        torch.tensor([int(row["label"])]),
                    )
                )
                for row in corpus
            ]

    for layer in range(3):
        weight = parts(model, layer)[what][1].weight
        for number in range(0, counts[0], 3):
            at = slice(size * number, size * (number + 1))
            kept, step = weight[:, at].clone(), 1e-5
            ends = []
            for scale in (1 + step, 1 - step):
                with torch.no_grad():
                    weight[:, at] = kept * scale
                ends.append(np.array(losses()))
                with torch.no_grad():
                    weight[:, at] = kept
            slope = (ends[0] - ends[1]) / (2 * step)
            assert np.isclose(found[layer][number], np.abs(slope).mean(), rtol=1e-4, atol=1e-9)
            assert np.isclose(squared[layer][number], (slope**2).mean() / 2, rtol=1e-4, atol=1e-12)


def test_taylor_names_classes_as_the_head_does_and_ignores_the_order_of_the_corpus(texts):
    model = make("bert")
    model.config.id2label = {0: "zero", 1: "one", 2: "two"}
    names = [model.config.id2label[int(i)] for i in texts["corpus"]["label"]]
    named = texts["corpus"].remove_columns("label").add_column("label", names)
    state = copy.deepcopy(model.config.to_dict())
    by_number, by_name, shuffled, wrong = (
        prune_channels(model, 0.5, importance="taylor", corpus=corpus, tokenizer=texts["tokenizer"])
        for corpus in (
            texts["corpus"],
            named,
            named.select(range(23, -1, -1)),
            named.remove_columns("label").add_column("label", ["two"] * 24),
        )
    )
    assert model.config.to_dict() == state
    assert (
        by_number.config.compression["kept"]
        == by_name.config.compression["kept"]
        == shuffled.config.compression["kept"]
    )
    assert by_number.config.compression["kept"] != wrong.config.compression["kept"]


def test_random_is_reproducible_by_its_seed():
    model = make("bert")
    one, same, other = (prune_channels(model, 0.5, importance="random", seed=s) for s in (3, 3, 4))
    assert weights_fingerprint(one) == weights_fingerprint(same) != weights_fingerprint(other)
    assert one.config.compression["seed"] == 3


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(probes.InputError, match=r"score \[1, 2\] is not finite"):
        prune_heads(make("bert"), 0.5, importance=[[0] * 4, [0, 0, np.nan, 0], [0] * 4])


def test_taylor_needs_a_head_that_classifies_and_labels_it_knows(texts):
    corpus, tokenizer = texts["corpus"], texts["tokenizer"]
    for model, given, message in (
        (make("bert").base_model, corpus, "needs a head that gives each text one of several classes, found BertModel"),
        (
            make("bert", num_labels=1),
            corpus,
            "found BertForSequenceClassification with problem_type=None, num_labels=1",
        ),
        (
            make("bert", problem_type="multi_label_classification"),
            corpus,
            "found BertForSequenceClassification with problem_type='multi_label_classification'",
        ),
        (make("bert"), corpus.remove_columns("label"), "needs a corpus with labels"),
        (make("bert"), corpus.select([]), "expected at least one row, found none"),
        (
            make("bert", num_labels=2),
            corpus,
            "row 2: label '2' is no class of the model, which has 'LABEL_0', 'LABEL_1'",
        ),
        (make("bert", vocab_size=10), corpus, "tokenizer and model do not fit"),
    ):
        with pytest.raises(probes.InputError, match=message):
            prune_heads(model, 0.5, importance="taylor", corpus=given, tokenizer=tokenizer)
