"""Bits from damage: the least of all choices, by brute force and another solver; planted layers; bad tables."""

import copy
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from rounded import LAYERS, capture
from scipy.optimize import Bounds, LinearConstraint, milp

import probes
from compress.matrices import block_matrices
from compress.pruning.drop_layers import drop_layers
from compress.quantization.allocate_bits import allocate_bits, least_damage
from compress.quantization.bit_damage import bit_damage, units_of
from compress.quantization.quantize import quantize
from compress.quantization.quantizers import packed_bytes

QUIET = {"progress": False}


def total(model, bits, **how):
    return sum(packed_bytes(tuple(w.shape), bits, **how) for w in block_matrices(model).values())


def planted(model, layer):
    """Let no layer but one do anything: what the others add to the states is nothing."""
    model = copy.deepcopy(model)
    for i, block in enumerate(model.bert.encoder.layer):
        if i != layer:
            for linear in (block.attention.output.dense, block.output.dense):
                torch.nn.init.zeros_(linear.weight)
                torch.nn.init.zeros_(linear.bias)
    return model


@pytest.mark.parametrize("seed", range(30))
def test_least_of_all_choices_and_of_equal_ones_the_smallest(seed):
    rng = np.random.default_rng(seed)
    # Few whole numbers, so that there are ties, or any.
    damage = rng.integers(0, 5, (4, 4)).astype(float) if seed % 2 else rng.random((4, 4))
    size = np.sort(rng.integers(1, 9, (4, 4)), axis=1)
    most = int(rng.integers(size[:, 0].sum(), size[:, -1].sum() + 1))
    every = [
        (sum(damage[i, c] for i, c in enumerate(columns)), sum(size[i, c] for i, c in enumerate(columns)))
        for columns in itertools.product(range(4), repeat=4)
    ]
    best = min(e for e in every if e[1] <= most)
    found = least_damage(damage, size, most)
    assert (sum(damage[i, c] for i, c in enumerate(found)), sum(size[i, c] for i, c in enumerate(found))) == best


@pytest.mark.parametrize("seed", range(3))
def test_least_as_another_solver_finds_it(seed):
    rng = np.random.default_rng(seed)
    rows, columns = 40, 6
    damage = -np.sort(-rng.random((rows, columns)), axis=1) * rng.lognormal(0, 2, (rows, 1))
    size = np.array([2, 3, 4, 5, 6, 8]) * rng.choice([7, 16, 33], (rows, 1))
    most = int(size[:, 2].sum())
    one_each = np.kron(np.eye(rows), np.ones(columns))
    solved = milp(
        damage.ravel(),
        integrality=np.ones(damage.size),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(size.ravel()[None], 0, most)],
        options={"mip_rel_gap": 0},
    )
    found = least_damage(damage, size, most)
    np.testing.assert_allclose(damage[np.arange(rows), found].sum(), solved.fun, rtol=1e-6)
    assert size[np.arange(rows), found].sum() <= most
    greedy_uniform = damage[:, 2].sum()
    assert solved.fun < 0.9 * greedy_uniform


@pytest.mark.parametrize("how", [{}, {"group": 4, "symmetric": False}])
@pytest.mark.parametrize("by", ["matrix", "layer"])
def test_never_more_bytes_than_uniform_bits_and_less_damage(model, table, how, by):
    table = bit_damage(model, damage="weights", by=by, **how, **QUIET)
    of = table.set_index(["unit", "bits"])
    last = np.inf
    for average in [2, 2.3, 2.5, 3, 3.5, 4, 4.9, 5, 6.6, 7, 8]:
        bits = allocate_bits(model, average_bits=average, damage=table, **how)
        assert list(bits) == list(block_matrices(model))
        assert {type(b) for b in bits.values()} == {int}
        found = quantize(model, bits=bits, **how).config.compression["bytes_of_quantized"]
        low, high = (total(model, int(f(average)), **how) for f in (np.floor, np.ceil))
        assert found <= low + (average - np.floor(average)) * (high - low)
        units = units_of(bits, by)
        damage = sum(of.loc[(u, bits[names[0]]), "damage"] for u, names in units.items())
        if average in (2, 3, 4, 5, 6, 8):
            assert damage <= table.query("bits == @average")["damage"].sum()
        assert damage <= last
        last = damage
    assert set(allocate_bits(model, average_bits=8, damage=table, **how).values()) == {8}
    assert set(allocate_bits(model, average_bits=2, damage=table, **how).values()) == {2}


def test_mixed_is_not_uniform_and_better_than_it(model, table):
    bits = allocate_bits(model, average_bits=4, damage=table)
    of = table.set_index(["unit", "bits"])["damage"]
    assert len(set(bits.values())) > 2
    assert sum(of[n, b] for n, b in bits.items()) < 0.8 * table.query("bits == 4")["damage"].sum()
    assert bits[next(iter(bits))] < bits[list(bits)[-1]]  # where weights are large


def test_in_one_call_and_by_a_table_the_same_in_any_order_and_from_a_file(model, table, tmp_path):
    settings = {"average_bits": 4.4}
    expected = allocate_bits(model, damage="weights", **settings, **QUIET)
    shuffled = table.sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "damage.csv", index=False)
    for given in (table, shuffled, pd.read_csv(tmp_path / "damage.csv")):
        assert allocate_bits(model, damage=given, **settings) == expected


def test_other_damages_other_bits(model, table):
    """The negative control: the numbers of the table are what decides."""
    mixed = table.copy()
    rng = np.random.default_rng(0)
    order = rng.permutation(table["unit"].nunique())
    mixed["damage"] = table["damage"].to_numpy().reshape(len(order), -1)[order].ravel()
    assert allocate_bits(model, damage=mixed) != allocate_bits(model, damage=table)


def test_without_damage_the_fewest_bits(model, table):
    assert set(allocate_bits(model, damage=table.assign(damage=0.0)).values()) == {2}
    assert set(allocate_bits(model, damage=table.assign(damage=0.3)).values()) == {2}


def test_more_bits_that_seem_to_do_more_damage_are_not_paid_for(model, table):
    unit = table["unit"].iloc[0]
    noisy = table.copy()
    noisy.loc[(noisy["unit"] == unit) & (noisy["bits"] > 3), "damage"] = [0.01, 0.03, 0.02, 0.04]
    noisy.loc[(noisy["unit"] == unit) & (noisy["bits"] <= 3), "damage"] = [2.0, 1.0]
    assert allocate_bits(model, damage=noisy, average_bits=8)[unit] == 4  # 4 to 8 bits do 0.025 each
    noisy.loc[(noisy["unit"] == unit) & (noisy["bits"] == 4), "damage"] = 0.9
    assert allocate_bits(model, damage=noisy, average_bits=8)[unit] == 5


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("damage", ["alignment", "drift", "loyalty"])
def test_the_layer_that_matters_gets_the_bits(model, tokenizer, sentences, damage, layer):
    model = planted(model, layer)
    bits = allocate_bits(
        model, sentences, tokenizer, average_bits=4, damage=damage, by="layer", pivot="en", choices=(2, 4, 8), **QUIET
    )
    assert {b for n, b in bits.items() if n.startswith(LAYERS[layer])} == {8}
    assert {b for n, b in bits.items() if not n.startswith(LAYERS[layer])} == {2}
    # Of weights alone nothing is to be seen of it: all matrices of the others but two are as large as those of this.
    table = bit_damage(model, damage="weights", **QUIET).query("bits == 2").set_index("unit")["damage"]
    queries = [table[f"{u}.attention.self.query.weight"] for u in LAYERS]
    assert max(queries) < 2 * min(queries)


@pytest.mark.parametrize("layer", [0, 2])
def test_the_layer_with_outliers_gets_the_bits(model, tokenizer, sentences, layer):
    with torch.no_grad():
        for linear in [m for m in model.bert.encoder.layer[layer].modules() if isinstance(m, torch.nn.Linear)]:
            linear.weight[:, 0] = 30 * linear.weight.abs().max()
            linear.bias.sub_(linear.weight[:, 0])
    for damage in ("weights", "drift"):
        bits = allocate_bits(
            model, sentences, tokenizer, average_bits=4, damage=damage, by="layer", choices=(2, 3, 4, 6, 8), **QUIET
        )
        mean = [np.mean([b for n, b in bits.items() if n.startswith(u)]) for u in LAYERS]
        assert mean[layer] > max(m for i, m in enumerate(mean) if i != layer)


def test_on_a_real_model_less_drift_than_uniform_on_other_text():
    model, tokenizer = probes.load_checkpoint("bundled")
    model = drop_layers(model, [2, 3, 4, 5])  # for time
    sentences = probes.load_corpus("bundled", languages=["en", "fr"])
    ids = sorted(set(sentences["id"]))
    seen, unseen = (
        sentences.select([i for i, x in enumerate(sentences["id"]) if x in part])
        for part in (set(ids[:12]), set(ids[40:80]))
    )
    bits = allocate_bits(model, seen, tokenizer, average_bits=4, damage="drift", choices=(3, 4, 5), **QUIET)
    mixed, uniform = (quantize(model, bits=b, activation_bits=None) for b in (bits, 4))
    sizes = [m.config.compression["bytes_of_quantized"] for m in (mixed, uniform)]
    assert sizes[0] <= sizes[1]
    base = capture(model, tokenizer, unseen)
    cosine = [
        float(probes.drift(base, capture(m, tokenizer, unseen), draws=2).value.sel(language="pooled")[0, -1])
        for m in (mixed, uniform)
    ]
    print(1 - cosine[0], 1 - cosine[1], bits)
    assert 1 - cosine[0] < 0.9 * (1 - cosine[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average_bits": 1.9}, "average_bits=1.9: expected 2 to 8"),
        ({"average_bits": 8.1}, "average_bits=8.1: expected 2 to 8"),
        ({"average_bits": 4, "choices": [5, 6]}, "average_bits=4: expected 5 to 6"),
        ({"average_bits": float("nan")}, "average_bits=nan: expected 2 to 8"),
        ({"average_bits": "4"}, "average_bits='4': expected a number"),
        ({"average_bits": True}, "average_bits=True: expected a number"),
        ({"damage": "retrieval"}, "damage='retrieval' is not known; choose one of 'alignment'"),
        ({"damage": None}, "damage: expected the name of a measure, or a table"),
        ({"by": "kind"}, "by='kind' is not known; choose one of 'matrix', 'layer'"),
        ({"choices": []}, "choices=[]: expected numbers of bits to choose from"),
        ({"choices": 4}, "choices=4: expected numbers of bits to choose from"),
        ({"choices": [4, 9]}, "choices=9: expected a whole number of 1 to 8"),
        ({"group": 7}, "group=7 does not divide its 12 inputs"),
        ({"ranges": "all"}, "ranges='all' is not known"),
        ({"pivot": "it"}, "pivot 'it': no such language"),
        ({"batch_size": 0}, "expected batch_size and batch_tokens of at least 1"),
    ],
)
def test_settings_that_cannot_be(model, tokenizer, sentences, settings, message):
    with pytest.raises(probes.InputError, match=re.escape(message)):
        allocate_bits(model, sentences, tokenizer, **settings, **QUIET)


def test_tables_that_are_not_of_this_model(model, table, tiny_models):
    def error(message, given, **settings):
        with pytest.raises(probes.InputError, match=message):
            allocate_bits(model, damage=given, **settings)

    error("expected the name of a measure, or a table", table.drop(columns="bytes"))
    error("expected the name of a measure, or a table", table[:0])
    error("some are missing", table[6:])
    error("some are missing, or come twice", table[1:])
    error("some are missing, or come twice", pd.concat([table, table[:1]]))
    error("NaN or infinite", table.assign(damage=np.nan))
    error("'bert.pooler' is neither a matrix nor a layer", table.assign(unit="bert.pooler"))
    error("bytes at 2 bits, and with group=4 and symmetric=True it takes", table, group=4)
    error("average_bits=6: expected 2 to 5", table[table["bits"] <= 5], average_bits=6)


def test_several_damages_count_alike(tiny_models):
    model = tiny_models("BertModel")
    table = bit_damage(model, damage="weights", choices=[2, 4, 8], by="layer", progress=False)
    units = table["unit"].unique()
    weight = {8: 0.0, 4: 0.1, 2: 1.0}
    # One damage asks for the first layer, a thousand times larger, the other for the last; both get theirs.
    first, last = (
        table.assign(damage=[scale * weight[b] * (u == units[i]) for u, b in zip(table.unit, table.bits, strict=True)])
        for scale, i in ((1000.0, 0), (1.0, -1))
    )
    middle = f"{units[1]}."
    both = allocate_bits(model, average_bits=4, damage=[first, last])
    assert {bits for name, bits in both.items() if not name.startswith(middle)} == {4}
    # Were they added up as they are, the last would come to nothing.
    added = allocate_bits(model, average_bits=4, damage=first.assign(damage=first["damage"] + last["damage"]))
    assert {bits for name, bits in added.items() if name.startswith(f"{units[0]}.")} == {8}
    alone = allocate_bits(model, average_bits=4, damage=first)
    assert allocate_bits(model, average_bits=4, damage=[first, first]) == alone
    with pytest.raises(probes.InputError, match="the damages are of other matrices or numbers of bits"):
        allocate_bits(model, damage=[first, last[last.bits > 2]])
    with pytest.raises(probes.InputError, match=r"damage=\[\]: expected at least one"):
        allocate_bits(model, damage=[])
