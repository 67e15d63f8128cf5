"""The estimate to first order: against finite differences, and against the exact effect where that is a line."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from patched import TEXTS, corpus_of, hurt

import compress
from probes.errors import InputError
from probes.measures.attribution.output_damage import OutputDamage
from probes.measures.attribution.patching import patching
from probes.measures.attribution.screening import screened

pytestmark = pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
measured = partial(patching, draws=10, progress=False, at="modules")


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


@pytest.fixture(scope="module")
def base(tiny_models):
    return tiny_models("BertForSequenceClassification").double()


def test_equals_finite_differences_along_each_modules_difference(base, tokenizer):
    other, corpus = hurt(base, 1, 3, by=0.2), corpus_of()
    found = measured(base, other, tokenizer, corpus, exact=False).gain.sel(measure="kl")
    output = OutputDamage(base, tokenizer, corpus)
    whole = float(output.of(other).sel(measure="kl").mean())
    step = 1e-6
    for name in found.module.values[[0, 3, 5]]:
        output = OutputDamage(base, tokenizer, corpus)
        layer, _, inside = name.partition(".")
        modules = [m.bert.encoder.layer[int(layer) - 1].get_submodule(inside) for m in (base, other)]
        seen = []
        hook = modules[0].register_forward_hook(lambda _m, _a, y, seen=seen: seen.append(y))
        output.of(other)  # runs the original too, whose outputs come in the same batches
        hook.remove()
        moved = modules[1].register_forward_hook(lambda _m, _a, y, seen=seen: y + step * (seen[-1] - y))
        lower = float(output.of(other).sel(measure="kl").mean())
        moved.remove()
        assert float(found.sel(module=name, language="pooled")) == pytest.approx((whole - lower) / step, rel=1e-3)


def test_small_damage_is_ranked_as_the_exact_effect_ranks_it_and_that_is_said(base, tokenizer):
    other, corpus = hurt(base, 1, 2, 3, by=0.05), corpus_of(texts=TEXTS[:4])
    estimate = measured(base, other, tokenizer, corpus, exact=False)
    exact = measured(base, other, tokenizer, corpus)
    one, two = (x.gain.sel(measure="kl", language="pooled").values for x in (estimate, exact))
    assert np.corrcoef(one, two)[0, 1] > 0.9
    assert estimate.attrs["correlation"] == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-6)  # all were checked
    assert (estimate.attrs["checked"], estimate.attrs["checked_texts"]) == (6, 8)
    assert estimate.measure.values.tolist() == ["kl"]


@pytest.mark.parametrize("kind", ["T5Model", "LlamaForCausalLM"])
def test_what_is_checked_are_texts_from_all_batches_as_they_are_by_themselves(tiny_models, make_tokenizer, kind):
    base = tiny_models(kind).double()
    how = {"pivot": "en"} if kind == "T5Model" else {}
    run = partial(measured, base, hurt(base, 1, 2, by=0.3), make_tokenizer(special=bool(how)), **how)
    estimate = run(corpus_of(), exact=False, batch_size=3)
    few = corpus_of().select(np.linspace(0, 11, 8).round().astype(int))
    found = [run(few, exact=e).gain.isel(measure=0).sel(language="pooled").values for e in (False, True)]
    some = np.unique(np.linspace(0, len(found[0]) - 1, min(8, len(found[0]))).round().astype(int))
    assert estimate.attrs["correlation"] == pytest.approx(np.corrcoef(found[0][some], found[1][some])[0, 1], abs=1e-9)


def test_a_model_that_is_the_original_and_one_without_weights_to_train(base, tokenizer):
    same = measured(base, copy.deepcopy(base), tokenizer, corpus_of(), exact=False)
    assert np.isnan(same.attrs["correlation"])
    np.testing.assert_allclose(same.gain, 0, atol=1e-12)
    frozen = compress.quantize(copy.deepcopy(base).float(), bits=4).requires_grad_(False)
    kept = {k: v.clone() for k, v in frozen.state_dict().items()}
    assert np.isfinite(measured(copy.deepcopy(base).float(), frozen, tokenizer, corpus_of(), exact=False).gain).all()
    assert all(torch.equal(v, kept[k]) and v.grad is None for k, v in frozen.state_dict().items())


def test_what_cannot_be_estimated_is_said(base, tokenizer):
    with pytest.raises(
        InputError, match=r"exact=False estimates .*found at=\'layers\' and into=\'other\'\. Leave exact="
    ):
        patching(base, base, tokenizer, corpus_of(), exact=False)
    cut = copy.deepcopy(base)
    block = cut.bert.encoder.layer[1]
    block.output.register_forward_hook(lambda _m, _a, y: y.detach())
    with pytest.raises(InputError, match=r"what a module gives has no gradient .*Patch with exact=True"):
        screened(*screening_of(base, cut, tokenizer), progress=False)


def screening_of(base, other, tokenizer):
    from probes.measures.attribution.patching import check_patching

    output, places = check_patching(base, other, tokenizer, corpus_of(), names=("one", "two"), at="modules")
    return output, other, places
