"""Fusion: the layers that are most alike share one tensor, wherever the model goes."""

import copy
import json
from itertools import combinations, pairwise

import datasets
import numpy as np
import pandas as pd
import pytest
import scipy
import torch
import transformers
from stops import Stops

import compress
import probes
from compress import save
from compress.fusion.fuse import fuse
from compress.fusion.layer_similarity import layer_similarity
from compress.fusion.pairs import groups_of
from compress.matrices import block_matrices
from compress.quantization.deploy import deploy
from probes.models.fingerprint import weights_fingerprint
from probes.models.formats.shared_layers import apply_sharing, unshare

BY_WEIGHTS = ("euclidean", "cosine", "kl", "wasserstein", "emd", "covariance", "weight_cka", "moments")
SIMILARITIES = ("cosine", "weight_cka")
PARTS = [
    f"encoder.layer.*.{name}"
    for name in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
]
QUIET = {"batch_size": 8, "learning_rate": 1e-3, "progress": False}


@pytest.fixture
def corpus():
    words = ["red", "big", "small", "dog", "cat", "bird", "ran", "sang", "house", "tree"]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, draw.integers(2, 9))) for _ in range(40)]
    return datasets.Dataset.from_dict(
        {
            "id": [str(i) for i in range(40)],
            "language": ["en", "de"] * 20,
            "text": texts,
            "label": [f"LABEL_{i % 3}" for i in range(40)],
        }
    )


@pytest.fixture
def make(tiny_models):
    """A tiny classifier whose matrices are far enough from 0 for their similarities to differ."""

    def of(layers=4, architecture="BertForSequenceClassification", **changes):
        changes.setdefault("num_hidden_layers", layers)
        model = tiny_models(architecture, **changes)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in block_matrices(model).values():
                weight.add_(0.5 * torch.randn_like(weight))
        return model

    return of


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


# --- which layers are alike ------------------------------------------------------------------------------------------


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


# --- what they become ------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(make):
    """Of the query matrices 0, 1 and 3 are near each other, 0 and 1 most; biases apart."""
    model = make()
    layers = model.bert.encoder.layer
    with torch.no_grad():
        base = layers[0].attention.self.query.weight
        layers[1].attention.self.query.weight.copy_(base + 1e-3)
        layers[3].attention.self.query.weight.copy_(base + 3e-3)
        for i, layer in enumerate(layers):
            layer.attention.self.query.bias.fill_(float(i))
    return model


def queries(model):
    return [layer.attention.self.query for layer in model.bert.encoder.layer]


def test_the_mean_is_of_all_that_share_it(planted):
    before = copy.deepcopy(planted.state_dict())
    w = [q.weight.double() for q in queries(planted)]
    pair, group = (queries(fuse(planted, share=share)) for share in (0.25, 0.5))
    assert torch.allclose(pair[0].weight.double(), (w[0] + w[1]) / 2, rtol=0, atol=1e-7)
    assert pair[0].bias.tolist() == [0.5] * 12
    assert torch.equal(pair[3].weight, w[3].float())
    assert torch.allclose(group[0].weight.double(), (w[0] + w[1] + w[3]) / 3, rtol=0, atol=1e-7)
    assert torch.allclose(group[0].bias, torch.full((12,), 4 / 3))
    assert group[0].weight is group[1].weight is group[3].weight
    assert group[0].bias is group[3].bias
    assert group[2].weight is not group[0].weight
    assert torch.equal(group[2].weight, w[2].float())
    assert all(torch.equal(v, before[k]) for k, v in planted.state_dict().items())
    assert not hasattr(planted.config, "shared_layers")
    assert queries(planted)[0].weight is not queries(planted)[1].weight


def test_a_mix_takes_every_element_from_one_of_them_with_equal_chances(planted):
    with torch.no_grad():
        for q, value in zip(queries(planted), (1.0, 1.001, 100.0, 1.003), strict=True):
            q.weight.fill_(value)
    pair = queries(fuse(planted, share=0.25, merge="mix", seed=1))
    share = float((pair[0].weight == 1.001).float().mean())
    assert bool(((pair[0].weight == 1) | (pair[0].weight == 1.001)).all())
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / 144)
    group = queries(fuse(planted, share=0.5, merge="mix", seed=1))[3].weight
    assert abs(float((group == 1.003).float().mean()) - 1 / 3) < 4 * np.sqrt(2 / 9 / 144)
    assert set(group.flatten().tolist()) == {1.0, float(np.float32(1.001)), float(np.float32(1.003))}
    again, other = (queries(fuse(planted, share=0.25, merge="mix", seed=s))[0].weight for s in (1, 2))
    assert torch.equal(again, pair[0].weight)
    assert not torch.equal(other, again)


def test_frozen_is_one_of_them_by_chance_without_a_gradient(planted):
    w = [q.weight for q in queries(planted)]
    seen = []
    for seed in range(12):
        q = queries(fuse(planted, share=0.25, merge="freeze", seed=seed))
        which = [i for i in (0, 1) if torch.equal(q[0].weight, w[i]) and q[0].bias.tolist() == [float(i)] * 12]
        assert q[0].weight is q[1].weight
        assert not q[0].weight.requires_grad
        assert not q[0].bias.requires_grad
        assert q[2].weight.requires_grad
        seen += which
    assert len(seen) == 12
    assert 2 <= sum(seen) <= 10


def test_the_one_that_is_dropped_is_replaced_by_the_first(planted):
    q = queries(fuse(planted, share=0.5, merge="drop"))
    assert q[0].weight is q[1].weight is q[3].weight
    assert torch.equal(q[0].weight, queries(planted)[0].weight)
    assert q[0].bias.tolist() == [0.0] * 12
    assert q[0].weight.requires_grad


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


def storages(model):
    """Which names stand for one tensor."""
    places = {}
    for name, tensor in model.state_dict().items():
        places.setdefault(tensor.data_ptr(), []).append(name)
    return sorted(tuple(names) for names in places.values())


def untied(model):
    """The same numbers, each module with its own."""
    out = copy.deepcopy(model)
    for module in out.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, torch.nn.Parameter(parameter.detach().clone()))
    return out


def batch(model, tokenizer, corpus):
    tokens = tokenizer(list(corpus["text"])[:8], return_tensors="pt", padding=True)
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def test_the_gradient_is_the_sum_of_those_of_the_layers(planted, make_tokenizer, corpus):
    fused = fuse(planted, share=0.5)
    apart = untied(fused)
    inputs = batch(fused, make_tokenizer(), corpus) | {"labels": torch.arange(8) % 3}
    for model in (fused, apart):
        model(**inputs).loss.backward()
    own = [q.weight.grad for q in queries(apart)]
    assert torch.allclose(queries(fused)[0].weight.grad, own[0] + own[1] + own[3], rtol=1e-4, atol=1e-7)
    assert not torch.allclose(queries(fused)[0].weight.grad, own[0], rtol=1e-2, atol=1e-7)
    assert torch.allclose(queries(fused)[2].weight.grad, own[2], rtol=1e-4, atol=1e-7)
    # A step of plain descent moves all of them by the sum.
    before = queries(fused)[0].weight.detach().clone()
    torch.optim.SGD(fused.parameters(), lr=0.1).step()
    moved = before - 0.1 * (own[0] + own[1] + own[3])
    assert torch.allclose(queries(fused)[3].weight, moved, rtol=0, atol=1e-6)


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


def test_step_by_step_groups_only_grow_and_measure_anew(make, make_tokenizer, corpus):
    model = make()
    seen = []

    def evaluate(student):
        seen.append(storages(student))
        return {"shared": sum(len(names) - 1 for names in seen[-1])}

    options = {"train": corpus, "tokenizer": make_tokenizer(), "schedule": "uniform", **QUIET}
    fused = fuse(model, share=0.75, fusions=3, steps=8, evaluate=evaluate, **options)
    assert fused.history.attrs["fused_at"] == fused.config.compression["fused_at"] == [2, 4, 6]
    # Of 4 of each of 6 parts, matrix and bias: 1, 2, then 3 gone.
    after = fused.history.dropna(subset="when")
    assert after["shared"].tolist() == [0, 12, 12, 24, 24, 36]
    for earlier, later in pairwise(seen):
        assert all(any(set(names) <= set(more) for more in later) for names in earlier)
    assert groups_of(fused) == {part: [[0, 1, 2, 3]] for part in PARTS}
    steps = [f["step"] for f in fused.config.compression["fusions"]]
    assert steps == [2] * 6 + [4] * 6 + [6] * 6
    table = layer_similarity(model).set_index(["part", "layer", "other_layer"])["value"]
    first = fused.config.compression["fusions"][0]
    found = table[first["part"], first["layer"], first["other_layer"]]
    assert first["similarity"] == pytest.approx(found, rel=0.1)
    assert first["similarity"] != found  # two updates have moved them


@pytest.mark.parametrize(("merge", "unit"), [("mean", "matrix"), ("mix", "layer"), ("freeze", "matrix")])
def test_an_interrupted_fusion_ends_as_it_would_have(make, make_tokenizer, corpus, merge, unit, tmp_path):
    options = {
        "share": 0.75,
        "merge": merge,
        "unit": unit,
        "schedule": "uniform",
        "fusions": 3,
        "train": corpus,
        "tokenizer": make_tokenizer(),
        "steps": 12,
        "save_every": 4,
        **QUIET,
    }
    model = make()
    whole = fuse(model, folder=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        fuse(model, folder=tmp_path / "run", callbacks=[Stops(7)], **options)
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    again = fuse(model, folder=tmp_path / "run", **options)
    assert storages(again) == storages(whole)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert again.config.compression == whole.config.compression
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in whole.parameters()]
    pd.testing.assert_frame_equal(again.history, whole.history)


# --- with other compressions -----------------------------------------------------------------------------------------


def test_a_fused_model_is_fused_further(planted):
    one = fuse(planted, share=0.25)
    two = fuse(one, share=0.5)
    assert groups_of(two)[PARTS[0]] == [[0, 1, 3]]
    w = [q.weight.double() for q in queries(planted)]
    assert torch.allclose(queries(two)[0].weight.double(), (w[0] + w[1] + w[3]) / 3, rtol=0, atol=1e-6)
    assert two.config.compression["groups_of_parent"] == one.config.compression["groups"]
    table = layer_similarity(one)  # the first stands for all
    assert (table.groupby("part").size() == 3).all()
    with pytest.raises(probes.InputError, match=r"share=0.25, and so many layers of this model share their tensors"):
        fuse(one, share=0.25)
    with pytest.raises(probes.InputError, match=r"share their tensors by unit='matrix' already"):
        fuse(one, share=0.5, unit="layer")
    with pytest.raises(probes.InputError, match=r"share their tensors by unit='layer' already"):
        fuse(fuse(planted, unit="layer"), share=0.75)


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
    cost = compress.footprint(fused, model)
    assert cost.loc["share", "encoder"] == 0.5
    assert cost["parameters"].to_dict() == pytest.approx(
        {
            "model": fused.config.compression["parameters"],
            "parent": fused.config.compression["parameters_of_parent"],
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


def test_nothing_to_fuse(make):
    with pytest.raises(probes.InputError, match=r"nothing to fuse: BertForSequenceClassification has 1 layer with"):
        fuse(make(1))
    # Layers of different shapes: other channels in each, and then only their attention is alike.
    model = make(2)
    layer = model.bert.encoder.layer[1]
    layer.intermediate.dense, layer.output.dense = torch.nn.Linear(12, 7), torch.nn.Linear(7, 12)
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two have tensors of their own that are of"):
        fuse(model, unit="layer")
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two"):
        layer_similarity(model, unit="layer")
    assert set(groups_of(fuse(model))) == set(PARTS[:4])
    with pytest.raises(probes.InputError, match=r"has 2 layers, of which no two"):
        fuse(fuse(make(2)))
    with pytest.raises(probes.InputError, match=r"expected a model of transformers, found Linear"):
        fuse(torch.nn.Linear(2, 2))
    with pytest.raises(probes.InputError, match=r"has 0 layers"):
        fuse(make(0))


def test_pairs_are_all_there(make):
    table = layer_similarity(make())
    for _, rows in table.groupby("part"):
        assert sorted(zip(rows["layer"], rows["other_layer"], strict=True)) == list(combinations(range(4), 2))
