"""How alike layers are: every similarity against its formula, what is planted, and what has no value."""

import numpy as np
import pytest
import scipy
import torch
from fused import PARTS

import probes
from compress.fusion.fuse import fuse
from compress.fusion.layer_similarity import layer_similarity

BY_WEIGHTS = ("euclidean", "cosine", "kl", "wasserstein", "emd", "covariance", "weight_cka", "moments")
SIMILARITIES = ("cosine", "weight_cka")


def matrix(model, part, number):
    return model.base_model.get_submodule(part.replace("*", str(number)))


def by_hand(a, b, similarity):
    """The formulas once more, on float64 arrays (output, input), by numpy and scipy."""
    if similarity == "euclidean":
        return np.sqrt(sum((x - y) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)))
    if similarity == "cosine":
        return np.mean([1 - scipy.spatial.distance.cosine(x, y) for x, y in zip(a, b, strict=True)])
    p, q = (scipy.special.softmax(w.ravel()) for w in (a, b))
    if similarity == "kl":
        return abs(scipy.stats.entropy(p, q))
    if similarity == "wasserstein":
        return scipy.stats.wasserstein_distance(p, q)
    if similarity == "emd":
        costs = []
        for places in torch.randint(a.size, (10, 100), generator=torch.Generator().manual_seed(5)).numpy():
            cost = np.abs(a.ravel()[places][:, None] - b.ravel()[places])
            costs.append(cost[scipy.optimize.linear_sum_assignment(cost)].mean())
        return np.mean(costs)
    if similarity == "covariance":
        sizes = [np.linalg.norm(np.cov((w - w.mean(0)) / w.std(0))) for w in (a, b)]
        return abs(sizes[0] - sizes[1])
    if similarity == "weight_cka":
        a, b = (w - w.mean(0) for w in (a, b))
        return np.trace(a @ b.T) / np.sqrt(np.trace(a @ a.T) * np.trace(b @ b.T))
    assert similarity == "moments"
    return np.sqrt(abs(a.mean() - b.mean()) + abs(a.std() - b.std()))


@pytest.mark.parametrize("similarity", BY_WEIGHTS)
def test_every_similarity_is_that_of_the_formula(make, similarity):
    model = make(3)
    table = layer_similarity(model, similarity=similarity, seed=5)
    assert table.groupby("part", sort=False).size().to_dict() == dict.fromkeys(PARTS, 3)
    for part, i, j, value in table.itertuples(index=False):
        a, b = (matrix(model, part, n).weight.detach().double().numpy() for n in (i, j))
        assert i < j
        assert value == pytest.approx(by_hand(a, b, similarity), rel=1e-9, abs=1e-12), (part, i, j)
    kind = "similarity" if similarity in SIMILARITIES else "distance"
    assert table.attrs == {"similarity": similarity, "kind": kind, "unit": "matrix"}
    for _, rows in table.groupby("part"):  # the most similar first
        assert rows["value"].is_monotonic_decreasing if kind == "similarity" else rows["value"].is_monotonic_increasing
        assert rows["value"].nunique() == 3
    whole = layer_similarity(model, similarity=similarity, seed=5, unit="layer")
    means = table.groupby(["layer", "other_layer"])["value"].mean()
    assert set(whole["part"]) == {"encoder.layer.*"}
    for _, i, j, value in whole.itertuples(index=False):
        assert value == pytest.approx(means[i, j], rel=1e-12)


@pytest.mark.parametrize("similarity", ["cosine", "covariance", "weight_cka"])
def test_rows_are_output_units_however_a_matrix_is_stored(make, similarity):
    model = make(architecture="GPT2LMHeadModel", n_layer=2, num_hidden_layers=2)
    table = layer_similarity(model, similarity=similarity).set_index("part")
    a, b = (block.mlp.c_fc.weight.detach().double().numpy().T for block in model.transformer.h)
    assert a.shape == (48, 12)
    assert table.loc["h.*.mlp.c_fc", "value"] == pytest.approx(by_hand(a, b, similarity), rel=1e-9)
    assert table.loc["h.*.mlp.c_fc", "value"] != pytest.approx(by_hand(a.T, b.T, similarity), rel=1e-3)


@pytest.mark.parametrize("similarity", BY_WEIGHTS)
def test_equal_layers_come_first_and_the_opposite_last(make, similarity):
    model = make()
    first, other = (model.bert.encoder.layer[i].intermediate.dense.weight for i in (1, 3))
    far = model.bert.encoder.layer[2].intermediate.dense.weight
    with torch.no_grad():
        other.copy_(first)
        # What each of them must find far away: in another direction, or of another spread.
        far.copy_(-5 * first if similarity != "covariance" else far.round())
        if similarity == "covariance":
            far.copy_(torch.randn(len(far), 1) * torch.ones_like(far))  # columns all alike: their rows do not vary
    rows = layer_similarity(model, similarity=similarity).query("part == 'encoder.layer.*.intermediate.dense'")
    assert rows.iloc[0][["layer", "other_layer"]].tolist() == [1, 3]
    assert rows.iloc[0]["value"] == pytest.approx(1 if similarity in SIMILARITIES else 0, abs=1e-12)
    assert 2 in rows.iloc[-1][["layer", "other_layer"]].tolist()
    fused = fuse(model, share=0.25, similarity=similarity)
    assert fused.config.compression["groups"]["encoder.layer.*.intermediate.dense"] == [[1, 3]]
    assert torch.equal(fused.bert.encoder.layer[3].intermediate.dense.weight, first)
    # Without the plant another pair comes first: the test above can fail.
    with torch.no_grad():
        other.copy_(-5 * far.flip(0) + 1)
    rows = layer_similarity(model, similarity=similarity).query("part == 'encoder.layer.*.intermediate.dense'")
    assert rows.iloc[0][["layer", "other_layer"]].tolist() != [1, 3]


def cka(x, y):
    x, y = (v - v.mean(0) for v in (x, y))
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def test_cka_is_that_of_what_the_matrices_and_layers_give(make, make_tokenizer, corpus):
    model, tokenizer = make(3).eval(), make_tokenizer()
    states = {}

    def watch(key):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            states.setdefault(key, []).append(output[0, 1:-1].double().mean(0).numpy())  # without [CLS] and [SEP]

        return hook

    for i, layer in enumerate(model.bert.encoder.layer):
        layer.register_forward_hook(watch(("encoder.layer.*", i)))
        for part in PARTS:
            matrix(model, part, i).register_forward_hook(watch((part, i)))
    with torch.no_grad():
        for text in corpus["text"]:
            model(**tokenizer(text, return_tensors="pt"))
    states = {k: np.array(v) for k, v in states.items()}
    for unit, parts in (("matrix", PARTS), ("layer", ["encoder.layer.*"])):
        table = layer_similarity(make(3), similarity="cka", unit=unit, corpus=corpus, tokenizer=tokenizer)
        assert list(dict.fromkeys(table["part"])) == parts
        for part, i, j, value in table.itertuples(index=False):
            assert value == pytest.approx(cka(states[part, i], states[part, j]), abs=1e-5)
        assert all(rows["value"].is_monotonic_decreasing for _, rows in table.groupby("part"))
        assert table.attrs["kind"] == "similarity"


def test_a_layer_that_changes_little_is_found_by_cka(make, make_tokenizer, corpus):
    model = make()
    with torch.no_grad():
        layer = model.bert.encoder.layer[2]
        for output in (layer.attention.output, layer.output):
            output.dense.weight.zero_()
            output.dense.bias.zero_()
    options = {"similarity": "cka", "unit": "layer", "tokenizer": make_tokenizer()}
    table = layer_similarity(model, corpus=corpus, **options)
    assert table.iloc[0][["layer", "other_layer"]].tolist() == [1, 2]
    fused = fuse(model, share=0.25, corpus=corpus, **options)
    assert fused.config.compression["groups"] == {"encoder.layer.*": [[1, 2]]}
    assert fused.config.compression["fusions"][0]["similarity"] == pytest.approx(table.iloc[0]["value"])
    # The rows that are trained on stand in for a corpus.
    half = [i < 20 for i in range(40)]
    split = corpus.add_column("split", ["train" if h else "test" for h in half])
    trained = fuse(model, share=0.25, train=split, **options)
    only = fuse(model, share=0.25, corpus=corpus.select(range(20)), **options)
    found, expected, whole = (f.config.compression["fusions"][0]["similarity"] for f in (trained, only, fused))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found != pytest.approx(whole, rel=1e-6)


def test_what_has_no_value_comes_last(make):
    model = make()
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.fill_(1)  # less its mean, nothing is left of it
    rows = layer_similarity(model, similarity="weight_cka").query("part == 'encoder.layer.*.output.dense'")
    assert rows["value"].isna().tolist() == [False] * 3 + [True] * 3
    assert (rows["layer"].iloc[3:] == 0).all()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(probes.InputError, match=r"encoder.layer.1.output.dense: its weights are not all finite"):
        fuse(model)
