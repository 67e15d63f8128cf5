"""What matters least goes first: each criterion against a computation by hand, and exact counts."""

import numpy as np
import pandas as pd
import pytest
import torch

import probes
from compress.matrices import block_matrices
from compress.pruning.criteria import SCOPES, check_criterion, scores, smallest, smallest_by_lamp, sparsity_at

TEXTS = ["red dog ran", "small bird sang under tree", "cat", "big cat sat over house and mat"]


@pytest.fixture
def corpus():
    rows = [{"id": i, "language": "en", "text": t, "label": "xyz"[i % 3]} for i, t in enumerate(TEXTS)]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture
def model(make_classifier):
    return make_classifier()


def parameter(values):
    return torch.nn.Parameter(torch.tensor(values))


def keep_all(found):
    return {n: torch.ones_like(s, dtype=torch.bool) for n, s in found.items()}


def test_magnitude_is_the_absolute_value(model):
    found = scores(model, {"w": parameter([[3.0, -1.0], [0.5, -2.0]])}, "magnitude")["w"]
    assert found.tolist() == [[3, 1], [0.5, 2]]


def test_lamp_by_hand(model):
    found = scores(model, {"w": parameter([[3.0, -1.0], [0.5, -2.0]])}, "lamp")["w"]
    expected = [[9 / 9, 1 / (9 + 4 + 1)], [0.25 / (9 + 4 + 1 + 0.25), 4 / (9 + 4)]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_lamp_takes_more_from_the_matrix_that_can_spare_more(model):
    # One matrix has a single weight that carries it, the other carries evenly and would lose all by magnitude.
    matrices = {"spread": parameter([[1.0, 1.0, 1.0, 1.0]]), "peaked": parameter([[9.0, 2.0, 2.0, 2.0]])}
    by_lamp = smallest(scores(model, matrices, "lamp"), keep_all(matrices), 0.5, "global", {})
    by_size = smallest(scores(model, matrices, "magnitude"), keep_all(matrices), 0.5, "global", {})
    assert int(by_size["spread"].sum()) == 0
    assert int(by_lamp["spread"].sum()) == 3
    assert by_lamp["peaked"].tolist() == [[True, False, False, False]]


def test_random_depends_on_the_seed_and_the_names_alone(model):
    matrices = block_matrices(model)
    one, same = (scores(model, m, "random", seed=3) for m in (matrices, dict(reversed(matrices.items()))))
    assert all(torch.equal(one[n], same[n]) for n in matrices)
    other = scores(model, matrices, "random", seed=4)
    assert not any(torch.equal(one[n], other[n]) for n in matrices)


def test_gradient_is_the_change_of_the_loss_to_first_order(model, corpus, tokenizer):
    matrices = block_matrices(model)
    found = scores(model, matrices, "gradient", corpus=corpus, tokenizer=tokenizer)

    def loss():
        total = 0.0
        for row in corpus:
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits.double()
            total -= float(torch.log_softmax(logits, -1)[0, "xyz".index(row["label"])])
        return total / len(corpus)

    model.double()
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    weight = model.get_parameter(name)
    with torch.no_grad():
        for at in [(0, 0), (3, 7), (19, 11)]:
            value = weight[at].item()
            up, down = value * (1 + 1e-3), value * (1 - 1e-3)
            weight[at] = up
            high = loss()
            weight[at] = down
            low = loss()
            weight[at] = value
            # The change of the loss were the weight taken away, along the tangent.
            assert float(found[name][at]) == pytest.approx(abs(high - low) / 2e-3, rel=1e-3, abs=1e-7)
    assert all(p.grad is None for p in model.parameters())


def test_wanda_by_hand_without_padding_and_whatever_the_batch(model, corpus, tokenizer, monkeypatch):
    matrices = block_matrices(model)
    found = scores(model, matrices, "wanda", corpus=corpus, tokenizer=tokenizer)
    name = "bert.encoder.layer.0.output.dense.weight"
    seen = []
    module = model.bert.encoder.layer[0].output.dense
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].double()))
    with torch.inference_mode():
        for text in TEXTS:
            model(**tokenizer(text, return_tensors="pt"))
    handle.remove()
    expected = matrices[name].detach().abs() * torch.cat(seen).norm(dim=0)
    np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    monkeypatch.setattr("compress.inputs._BATCH", 1)
    again = scores(model, matrices, "wanda", corpus=corpus, tokenizer=tokenizer)
    assert all(torch.allclose(found[n], again[n], rtol=1e-4) for n in matrices)
    assert not module._forward_pre_hooks


def test_lookahead_by_hand(model):
    found = scores(model, block_matrices(model), "lookahead")
    layer, prefix = model.bert.encoder.layer[2], "bert.encoder.layer.2."
    inside, out = layer.intermediate.dense.weight.detach(), layer.output.dense.weight.detach()
    value, after = layer.attention.self.value.weight.detach(), layer.attention.output.dense.weight.detach()
    for i, j in [(0, 0), (5, 3), (19, 11)]:
        one = abs(inside[i, j]) * out[:, i].norm()
        assert float(found[prefix + "intermediate.dense.weight"][i, j]) == pytest.approx(float(one), rel=1e-5)
        two = abs(out[j, i]) * inside[i, :].norm()
        assert float(found[prefix + "output.dense.weight"][j, i]) == pytest.approx(float(two), rel=1e-5)
    three = abs(value[4, 1]) * after[:, 4].norm()
    assert float(found[prefix + "attention.self.value.weight"][4, 1]) == pytest.approx(float(three), rel=1e-5)
    query = layer.attention.self.query.weight.detach()
    assert torch.equal(found[prefix + "attention.self.query.weight"], query.abs())


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("scope", ["matrix", "global", "unit"])
def test_counts_are_exact_also_where_all_scores_are_equal(scope, sparsity):
    found = {"a": torch.ones(5, 7), "b": torch.ones(6, 3)}
    kept = smallest(found, keep_all(found), sparsity, scope, {"a": False, "b": True})
    gone = {n: int((~k).sum()) for n, k in kept.items()}
    if scope == "global":
        assert sum(gone.values()) == round(sparsity * 53)
    else:
        assert gone == {"a": round(sparsity * 35), "b": round(sparsity * 18)}
    if scope == "unit":  # as even as the count allows, along the units: the columns of what is transposed
        assert np.ptp(kept["a"].sum(1).numpy()) <= 1
        assert np.ptp(kept["b"].sum(0).numpy()) <= 1


@pytest.mark.parametrize("scope", ["matrix", "global", "unit"])
def test_what_is_gone_stays_gone(scope):
    rng = torch.Generator().manual_seed(0)
    kept = keep_all({"a": torch.ones(8, 9), "b": torch.ones(4, 5)})
    for sparsity in (0.2, 0.4, 0.41, 0.8):
        found = {n: torch.rand(k.shape, generator=rng) for n, k in kept.items()}  # other scores every time
        grown = smallest(found, kept, sparsity, scope, {"a": False, "b": False})
        assert all(bool((grown[n] <= kept[n]).all()) for n in kept)
        gone = sum(int((~k).sum()) for k in grown.values())
        assert gone == (round(sparsity * 92) if scope == "global" else round(sparsity * 72) + round(sparsity * 20))
        kept = grown


def by_brute_force(score, kept, sparsity, scope, transposed):
    """The same selection weight by weight: those that are left before those that are gone, then by size, then place."""

    def mark(out, weights, keep):  # of (is gone, minus its score, place)
        for gone, _, (name, place) in sorted(weights, key=lambda w: w[:2])[:keep]:
            out[name][place] = not gone

    out = {n: np.zeros(s.shape, dtype=bool) for n, s in score.items()}
    listed = {n: [(not kept[n][p], -float(s[p]), (n, p)) for p in np.ndindex(*s.shape)] for n, s in score.items()}
    if scope == "global":
        weights = [w for part in listed.values() for w in part]
        mark(out, weights, len(weights) - round(sparsity * len(weights)))
        return out
    for name, weights in listed.items():
        keep = len(weights) - round(sparsity * len(weights))
        if scope == "matrix":
            mark(out, weights, keep)
            continue
        axis = int(transposed[name])
        units = [[w for w in weights if w[2][1][axis] == unit] for unit in range(score[name].shape[axis])]
        left, counts = [sum(not w[0] for w in own) for own in units], [0] * len(units)
        for _ in range(min(keep, sum(left))):  # one more to the unit that has fewest and could have more
            counts[min((c, u) for u, c in enumerate(counts) if c < left[u])[1]] += 1
        for own, count in zip(units, counts, strict=True):
            mark(out, own, count)
    return out


def drawn(rng, shape, kind):
    values = rng.normal(size=shape)
    if kind == "sizes":  # those that are gone score least, as zeros do
        return np.abs(values) * (rng.random(shape) < 0.6)
    if kind == "few values":
        return np.round(values)
    if kind == "equal rows":
        return np.repeat(np.round(values[:, :1], 1), shape[1], axis=1)
    if kind == "signed zeros":
        return np.copysign(0.0, values)
    if kind == "infinite":
        return np.where(np.abs(values) > 1, np.inf * np.sign(values), values)
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ["any", "sizes", "few values", "equal rows", "signed zeros", "infinite"])
def test_what_stays_is_what_brute_force_finds(kind, dtype):
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (7, 1), (4, 6), (5, 13), (16, 8)]
    for trial in range(10):
        chosen = [shapes[i] for i in rng.choice(len(shapes), 1 + trial % 3)]
        found = {str(i): torch.tensor(drawn(rng, s, kind)).to(dtype) for i, s in enumerate(chosen)}
        turned = {n: bool(rng.random() < 0.5) for n in found}
        if kind == "sizes":
            kept = {n: s != 0 for n, s in found.items()}
        else:
            kept = {n: torch.tensor(rng.random(s.shape) < (1, 0.7)[trial % 2]) for n, s in found.items()}
        for scope in ("matrix", "global", "unit"):
            for sparsity in (0.0, 0.3, float(rng.random()), 0.8, 0.999):
                stays = smallest(found, kept, sparsity, scope, turned)
                expected = by_brute_force(found, kept, sparsity, scope, turned)
                for name in found:
                    np.testing.assert_array_equal(stays[name].numpy(), expected[name], f"{scope} {sparsity}")


@pytest.mark.parametrize("digits", [6, 1])  # without equal scores at the edge, and with many
def test_of_many_weights_the_largest_stay(digits):
    rng = np.random.default_rng(2)
    for sparsity in rng.random(20):
        sizes = np.abs(rng.normal(size=(2, 3000))).round(digits).astype(np.float32)
        found = {"a": torch.tensor(sizes[0].reshape(60, 50)), "b": torch.tensor(sizes[1].reshape(50, 60))}
        for scope, rows in (("matrix", sizes), ("global", sizes.reshape(1, -1))):
            stays = smallest(found, keep_all(found), sparsity, scope, {})
            expected = np.zeros(rows.shape, dtype=bool)
            order = (-rows).argsort(axis=1, kind="stable")
            np.put_along_axis(expected, order[:, : rows.shape[1] - round(sparsity * rows.shape[1])], True, axis=1)
            got = torch.cat([s.flatten() for s in stays.values()]).numpy()
            np.testing.assert_array_equal(got, expected.flatten())


@pytest.mark.parametrize("scope", ["matrix", "global", "unit"])
def test_what_is_not_a_number_goes_first_and_counts_stay_exact(scope):
    for lost in (torch.nan, -torch.nan):
        values = torch.tensor([[3.0, lost, 1.0, torch.inf], [lost, -5.0, 2.0, 4.0]])
        for sparsity, expected in [
            (0.25, [[1, 0, 1, 1], [0, 1, 1, 1]]),
            (0.5, [[1, 0, 0, 1], [0, 0, 1, 1]]),
            (0.0, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ]:
            kept = smallest({"w": values}, keep_all({"w": values}), sparsity, scope, {"w": False})
            assert kept["w"].int().tolist() == expected


def test_scores_that_carry_gradients_are_ranked(model):
    weight = parameter([[3.0, 1.0, 2.0]])
    assert smallest({"w": weight}, keep_all({"w": weight}), 0.4, "matrix", {})["w"].tolist() == [[True, False, True]]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
def test_lamp_of_many_weights_by_its_definition(model, scale):
    rng = np.random.default_rng(1)
    weight = (scale * rng.normal(size=(17, 23)) * (rng.random((17, 23)) < 0.7)).astype(np.float32)
    found = scores(model, {"w": torch.nn.Parameter(torch.tensor(weight))}, "lamp")["w"].numpy()
    size = np.abs(weight.astype(np.float64))
    assert len(np.unique(size[size > 0])) == (size > 0).sum()  # no ties, so the definition says it all
    expected = [[s**2 / (size[size >= s] ** 2).sum() for s in row] for row in size]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_lamp_without_the_score_of_every_weight_prunes_the_same(model):
    rng = np.random.default_rng(3)
    shapes = [(64, 64), (64, 256), (1, 5), (100, 34)]
    spread = [rng.gamma(2, size=(shape[0], 1)) * rng.gamma(2, size=shape[1]) for shape in shapes]
    weights = {str(i): torch.tensor(rng.normal(size=s.shape) * s).float() for i, s in enumerate(spread)}
    kept, done = keep_all(weights), 0
    for sparsity in (0.0, 0.1, 0.1, 0.4, 0.6, 0.85, 0.99, 0.9999):
        weights = {n: (w + 0.01 * torch.randn_like(w)) * kept[n] for n, w in weights.items()}
        expected = smallest(scores(model, weights, "lamp"), kept, sparsity, "global", {})
        found = smallest_by_lamp({n: w.abs() for n, w in weights.items()}, kept, sparsity)
        done += found is not None
        kept = expected
        assert found is None or all(torch.equal(found[n], expected[n]) for n in weights)
    assert done >= 6
    equal = {"w": torch.ones(40, 50), "v": torch.full((3, 4), 2.0)}
    assert smallest_by_lamp(equal, keep_all(equal), 0.5) is None
    equal["w"][0, 0] = torch.nan
    assert smallest_by_lamp(equal, keep_all(equal), 0.5) is None
    assert smallest_by_lamp({"w": torch.ones(4, 5).double()}, keep_all(equal), 0.5) is None


def test_lamp_of_equal_weights_grows_with_their_place(model):
    found = scores(model, {"w": parameter([[2.0, -2.0], [0.0, 2.0]]), "zero": parameter([[0.0, -0.0]])}, "lamp")
    assert found["w"].tolist() == [[pytest.approx(1 / 3), 0.5], [0, 1]]
    assert found["zero"].tolist() == [[0, 0]]


def test_schedules_by_hand():
    assert [sparsity_at(k, 4, "uniform") for k in range(1, 5)] == pytest.approx([0.25, 0.5, 0.75, 1])
    cubic = [1 - (1 - k / 4) ** 3 for k in range(1, 5)]
    assert [sparsity_at(k, 4, "cubic") for k in range(1, 5)] == pytest.approx(cubic)
    assert cubic[-1] == 1


def test_unknown_names_and_missing_text_are_refused(model, corpus):
    assert [check_criterion(c, None) for c in SCOPES] == list(SCOPES.values())
    with pytest.raises(probes.InputError, match=r"criterion='size' is not known; choose one of 'random', 'magnitude'"):
        check_criterion("size", None)
    with pytest.raises(
        probes.InputError, match=r"scope='layer' is not known; choose one of 'matrix', 'global', 'unit'"
    ):
        check_criterion("magnitude", "layer")
    for criterion in ("gradient", "wanda"):
        with pytest.raises(probes.InputError, match=rf"criterion='{criterion}' looks at text: give corpus=... and tok"):
            scores(model, block_matrices(model), criterion, corpus=corpus)


def test_a_gradient_needs_labels(model, corpus, tokenizer):
    with pytest.raises(probes.InputError, match="criterion='gradient' needs labels, and the corpus has none"):
        scores(model, block_matrices(model), "gradient", corpus=corpus.remove_columns("label"), tokenizer=tokenizer)


def test_wanda_does_not_mind_labels_that_are_no_classes_of_the_model(model, corpus, tokenizer):
    strange = corpus.map(lambda row: {"label": f"not a class {row['id']}"})
    with_labels, without = (
        scores(model, block_matrices(model), "wanda", corpus=c, tokenizer=tokenizer)
        for c in (strange, corpus.remove_columns("label"))
    )
    assert all(torch.equal(with_labels[name], without[name]) for name in without)


def test_units_order_what_is_equal_only_at_their_threshold():
    units = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 2.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0], [4.0, 3.0, 2.0, 1.0]])
    stays = smallest({"w": units}, {"w": torch.ones(4, 4).bool()}, 0.5, "unit", {"w": False})["w"]
    assert stays.int().tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
