"""Damage of bits: each measure by hand with one unit alone quantised; bit for bit; what it needs."""

import copy
import re

import numpy as np
import pytest
import torch
from rounded import LAYERS, alone, capture
from scipy.spatial.distance import jensenshannon
from trained import weights

import probes
from compress.matrices import block_matrices
from compress.quantization.allocate_bits import allocate_bits
from compress.quantization.bit_damage import DAMAGES, bit_damage, units_of
from compress.quantization.quantize import quantize

QUIET = {"progress": False}


def by_hand(damage, model, rounded, base, other):
    """Each measure once more, sentence by sentence."""
    states = [
        {
            (r.language.values[i], r.id.values[i]): r.hidden.values[-1, i].astype(float)
            for i in range(r.sizes["example"])
        }
        for r in (base, other)
    ]

    def cosine(x, y):
        return x @ y / np.sqrt((x @ x) * (y @ y))

    if damage == "weights":
        pairs = zip(weights(model).values(), weights(rounded).values(), strict=True)
        return sum(float(((a - b).double() ** 2).sum()) for a, b in pairs)
    if damage == "drift":
        return np.mean([1 - cosine(states[0][k], states[1][k]) for k in states[0]])
    if damage == "loyalty":
        p, q = (torch.tensor(r.logits.values).double().softmax(1).numpy() for r in (base, other))
        return np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)])
    if damage == "effect":
        p, q = (torch.tensor(r.logits.values).double().log_softmax(1).numpy() for r in (base, other))
        return np.mean([(np.exp(a) * (a - b)).sum() for a, b in zip(p, q, strict=True)])
    languages = sorted(set(base.language.values))
    if damage == "separability":
        one, two = (probes.class_separability(r.isel(layer=[-1]), draws=2, fewest=2).value for r in (base, other))
        return float(abs(one - two).sel(language=languages).mean())
    found = []
    for language in languages:
        if language == "en":
            continue
        ids = [i for lang, i in states[0] if lang == language and ("en", i) in states[0]]
        for source, target in (("en", language), (language, "en")):
            divergences = []
            for i in ids:
                p, q = (np.exp([cosine(s[source, i], s[target, j]) / 0.05 for j in ids]) for s in states)
                p, q = p / p.sum(), q / q.sum()
                divergences.append((p * np.log(p / q)).sum())
            found.append(np.mean(divergences))
    return np.mean(found)


@pytest.mark.filterwarnings("ignore::probes.errors.LayerscopeWarning")  # of few examples a class
@pytest.mark.parametrize("by", ["matrix", "layer"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_that_of_the_model_with_this_unit_alone_quantised(model, tokenizer, sentences, damage, by):
    before = weights(model)
    how = {"group": 4, "symmetric": False, "ranges": "percentile", "percentile": 90}
    table = bit_damage(model, sentences, tokenizer, damage=damage, choices=[3, 2], by=by, pivot="en", **how, **QUIET)
    names = list(block_matrices(model))
    units = {n: [n] for n in names} if by == "matrix" else {u: [n for n in names if n.startswith(u)] for u in LAYERS}
    assert list(zip(table["unit"], table["bits"], strict=True)) == [(u, b) for u in units for b in (2, 3)]
    base = capture(model, tokenizer, sentences)
    for row in table.itertuples():
        if by == "matrix" and not re.search(r"query|2\.output", row.unit):  # the last after all have been swapped
            continue
        rounded = alone(model, units[row.unit], row.bits, **how)
        other = capture(rounded, tokenizer, sentences)
        assert row.damage > 0
        np.testing.assert_allclose(row.damage, by_hand(damage, model, rounded, base, other), rtol=1e-6, atol=1e-13)
        assert row.bytes == rounded.config.compression["bytes_of_quantized"]
    after = weights(model)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_bit_for_bit_whatever_was_measured_before(model, tokenizer, sentences):
    settings = {"damage": "drift", "by": "layer", **QUIET}
    few, many = (bit_damage(model, sentences, tokenizer, choices=c, **settings) for c in [(3,), (2, 3, 8)])
    assert few["damage"].tolist() == many.query("bits == 3")["damage"].tolist()


@pytest.mark.parametrize("damage", ["alignment", "drift", "loyalty", "weights"])
def test_what_is_quantised_already_takes_no_damage(model, tokenizer, sentences, damage):
    quantized = quantize(model, bits=4, activation_bits=None)
    table = bit_damage(quantized, sentences, tokenizer, damage=damage, choices=[3, 4], by="layer", **QUIET)
    assert (table.query("bits == 4")["damage"].abs() < 1e-14).all()
    assert (table.query("bits == 3")["damage"] > 1e-9).all()


def test_the_pivot_is_by_default_the_first_language(model, tokenizer, sentences):
    settings = {"choices": [2], "by": "layer", **QUIET}
    first = sentences[0]["language"]
    found = {
        p: bit_damage(model, sentences, tokenizer, pivot=p, **settings)["damage"].tolist() for p in ("en", "fr", "zh")
    }
    assert bit_damage(model, sentences, tokenizer, **settings)["damage"].tolist() == found.pop(first)
    assert all(f != bit_damage(model, sentences, tokenizer, **settings)["damage"].tolist() for f in found.values())


@pytest.mark.parametrize("family", ["GPT2LMHeadModel", "LlamaModel", "DistilBertModel"])
def test_families(tiny_models, make_tokenizer, sentences, family):
    model, tokenizer = tiny_models(family), make_tokenizer(special=family.startswith("Distil"))
    table = bit_damage(model, sentences, tokenizer, damage="drift", choices=[2, 4], pivot="en", **QUIET)
    assert table["unit"].unique().tolist() == list(block_matrices(model))
    assert (table["damage"] > 0).all()
    assert units_of(block_matrices(model), "layer").keys() == {
        n.split(".weight")[0][: re.search(r"\d", n).end()] for n in block_matrices(model)
    }
    last = table.iloc[-2]
    rounded = alone(model, [last["unit"]], 2)
    moved = probes.drift(capture(model, tokenizer, sentences), capture(rounded, tokenizer, sentences), draws=2)
    expected = 1 - float(moved.value.sel(measure="cosine_to_baseline", language="pooled")[-1])
    np.testing.assert_allclose(last["damage"], expected, rtol=1e-6)
    bits = allocate_bits(model, average_bits=3, damage=table)
    assert (
        quantize(model, bits=bits).config.compression["bytes_of_quantized"]
        <= quantize(model, bits=3).config.compression["bytes_of_quantized"]
    )


def test_what_a_measure_needs_and_is_not_there(model, tiny_models, tokenizer, sentences):
    def error(message, *given, **settings):
        with pytest.raises(probes.InputError, match=message):
            allocate_bits(*given, **settings, **QUIET)

    error("damage='alignment' looks at text: give a corpus and its tokenizer", model)
    error("damage='drift' looks at text", model, sentences, damage="drift")
    error("there is no other language", model, sentences.filter(lambda r: r["language"] == "en"), tokenizer)
    apart = sentences.map(lambda r: {"id": r["id"] + r["language"]})
    error("shares no ids with the pivot 'en'", model, apart, tokenizer, pivot="en")
    error("BertModel has no head that classifies", tiny_models("BertModel"), sentences, tokenizer, damage="loyalty")
    bare = sentences.remove_columns("label")
    error("damage='separability' needs labels", model, bare, tokenizer, damage="separability")
    single = sentences.map(lambda r: {"label": r["label"] if r["language"] == "en" else "x"})
    error("language 'fr' has only one", model, single, tokenizer, damage="separability")
    own = sentences.map(lambda r: {"label": r["id"]})
    error("classes of two sentences or more, and language '..' has none", model, own, tokenizer, damage="separability")
    error("expected a model of transformers, found Linear", torch.nn.Linear(2, 2), damage="weights")
    error("expected weights in float32, found torch.float64", copy.deepcopy(model).double(), damage="weights")
    t5 = tiny_models("T5Model")
    error(r"no text reaches 'decoder\S+' and \d+ more", t5, sentences, tokenizer, damage="drift")
    assert len(allocate_bits(t5, damage="weights", **QUIET)) == len(block_matrices(t5))
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.bert.encoder.layer[1].output.dense.weight[3, 2] = torch.nan
    error(r"layer\.1\.output\.dense\.weight: row 3 holds nan", broken, sentences, tokenizer)
    with torch.no_grad():
        broken.bert.encoder.layer[1].output.dense.weight[3, 2] = 0
        broken.bert.encoder.layer[2].output.LayerNorm.bias[0] = torch.inf
    before = weights(broken)
    error(r"damage \(drift\) at 2 bits is nan: the states of some texts", broken, sentences, tokenizer, damage="drift")
    assert all(torch.equal(before[k], v) for k, v in weights(broken).items())  # though it failed halfway


def test_long_texts_are_said_to_be_cut_once(model, tokenizer, sentences, recwarn):
    with pytest.warns(probes.LayerscopeWarning, match="longer than 4 tokens") as said:
        bit_damage(model, sentences, tokenizer, damage="drift", choices=[2], by="layer", max_length=4, **QUIET)
    assert len([w for w in said if issubclass(w.category, probes.LayerscopeWarning)]) == 1
