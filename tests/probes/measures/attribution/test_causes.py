"""Causes: on made effects that are known, where there are none, and from a comparison to its words."""

import warnings

import numpy as np
import pandas as pd
import pytest
from caused import LAYERS, effects
from patched import hurt
from speaking import masking, of_masked_tokens

import probes
from probes.errors import InputError, LayerscopeWarning
from probes.measures.attribution.causes import causes, causes_of, pairs_of
from probes.measures.attribution.patching import patching

NONE = np.zeros(LAYERS)


def named(found):
    return sorted(set(found.loc[found["named"], "layer"]))


@pytest.mark.parametrize(
    ("back", "wanted"),
    [({3: 0.2}, [3]), ({2: -0.2, 4: -0.2}, []), ({2: -0.2, 3: 0.2, 4: -0.2}, [3]), ({}, [])],
    ids=["one layer hurt", "two that cancel", "one beside two that cancel", "none"],
)
def test_planted_causes_are_named_and_no_others(back, wanted):
    planted = NONE.copy()
    for layer, share in back.items():
        planted[layer - 1] = share
    found = causes(effects(1, planted, lost=0.2 if wanted else 0.0))
    assert named(found) == wanted
    assert (found["low"] <= found["gain"]).all()
    assert (found["gain"] <= found["high"]).all()


def test_the_module_that_was_hurt_is_named_by_intervals_that_hold_for_layers_too():
    planted = NONE.copy()
    planted[2] = 0.2
    both = effects(1, np.append(planted, [0.2, 0.0]))  # of one draw of sentences: layers, then two modules of layer 3
    weights, modules = both.isel(layer=slice(0, LAYERS)), both.isel(layer=slice(LAYERS, None))
    modules = modules.rename(layer="module").assign_coords(
        layer=("module", [3, 3]),
        kind=("module", ["attention", "feed-forward"]),
        module=["3.attention", "3.feed-forward"],
    )
    found, alone = causes(weights, modules=modules), causes(weights)
    of_layers = found[found["module"] == ""].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_layers, alone)
    inside = found[found["module"] != ""]
    assert set(inside.loc[inside["named"], "module"]) == {"attention"}
    assert set(inside["layer"]) == {3}
    # Of one place and eight at once the ends lie further out than of six.
    same = inside["module"] == "attention"
    wide = (inside.loc[same, "high"] - inside.loc[same, "low"]).mean()
    narrow = causes(effects(1, np.array([0.2])))
    assert wide > (narrow["high"] - narrow["low"]).mean()


def test_where_all_layers_are_hurt_all_are_named():
    assert named(causes(effects(2, NONE + 0.15))) == [1, 2, 3, 4, 5, 6]


def test_of_many_comparisons_without_damage_few_name_a_layer():
    # Of seeds 0 to 199 two name one: here as many as are quick.
    wrong = sum(bool(named(causes(effects(seed, NONE, lost=0.0)))) for seed in range(20))
    assert wrong <= 3  # of 20 at 5 % each, more in one of 60 such tests


def test_an_interval_that_no_draw_spreads_still_holds_two_sentences():
    still = effects(0, NONE, exchanged=0.0, lost=0.0)
    still["gain"][0, 1] = 1 / 300
    still["gain_draws"][0, :, 1] = 1 / 300
    assert not causes(still)["named"].any()


def corpus(count=60):
    rng = np.random.default_rng(0)
    words = ["the", "red", "big", "small", "dog", "cat", "bird", "sat", "ran", "sang", "on", "under", "mat", "tree"]
    rows = [
        {"id": i, "language": k, "text": " ".join(rng.choice(words, 6)), "label": str(i % 3)}
        for i in range(count)
        for k in ("en", "xx")
    ]
    return probes.load_corpus(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def compared(tiny_models, make_tokenizer):
    base = tiny_models("BertForSequenceClassification")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        patch.setattr("probes.comparing.ROUNDS", 1)
        models = {"base": base, "hurt": hurt(base, 2, by=0.8), "same": hurt(base)}
        return probes.compare(
            models,
            corpus(),
            tokenizer=make_tokenizer(),
            probes=["loyalty", "drift"],
            patching=True,
            timing=False,
            progress=False,
            draws=100,
        )


def test_a_comparison_names_the_layer_that_was_hurt_and_says_what_to_undo(compared, tmp_path):
    verdict = compared.verdict()
    assert (verdict.state("hurt"), verdict.state("same")) == ("lost", "kept")
    assert set(verdict.causes.loc[verdict.causes["named"].astype(bool), "layer"]) == {2}
    assert set(verdict.causes["model"]) == {"hurt"}
    said = str(verdict)
    assert "caused by layer 2 +" in said
    assert "of layer 2 its " in said
    assert "give layer 2 its original weights back, which takes no more bytes, for an expected +" in said
    assert set(verdict.causes["module"]) == {"", "attention", "feed-forward"}
    assert "the states move most at layer 2, which is one of them" in said
    opened = probes.Comparison.open(compared.save(tmp_path / "saved"))
    assert str(opened.verdict()) == said
    page = opened.report(tmp_path / "page.html").read_text()
    assert "What caused it" in page
    assert "hurt: label_loyalty" in page


def test_a_checkpoint_is_opened_once(tmp_path, monkeypatch):
    from probes.models import checkpoint

    opened = []
    for place in ("probes.comparing.load_checkpoint", "probes.measures.attribution.causes.load_checkpoint"):
        monkeypatch.setattr(place, lambda *a, **k: opened.append(a[0]) or checkpoint.load_checkpoint(*a, **k))
    few = probes.load_corpus("bundled", split="dev", languages=["en"]).select(range(8))
    settings = {"probes": ["loyalty"], "timing": False, "progress": False, "draws": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerscopeWarning)
        probes.compare({"one": "bundled", "two": "bundled"}, few, patching=True, **settings)
    assert opened == ["bundled", "bundled"]


def test_rows_are_those_of_patching(compared, tiny_models, make_tokenizer):
    base = tiny_models("BertForSequenceClassification")
    out = patching(base, hurt(base, 2, by=0.8), make_tokenizer(), corpus(), at="weights", draws=100, progress=False)
    rows = pd.DataFrame(compared.provenance["causes"]["hurt"]).set_index(["measure", "layer", "module", "language"])
    assert rows.loc[("label_loyalty", 2, "", "en"), "gain"] == pytest.approx(
        float(out.gain.sel(measure="label_loyalty", layer=2, language="en"))
    )
    assert rows["bytes"].unique().tolist() == [0]  # it is as large as the original
    assert set(rows.index.get_level_values("layer")[rows.index.get_level_values("module") != ""]) == {2}
    assert "restored" in rows


def test_what_cannot_be_run_is_said_before_a_model_runs(tiny_models, make_tokenizer):
    base = tiny_models("BertForSequenceClassification")
    shallow = tiny_models("BertForSequenceClassification", num_hidden_layers=2)
    about = {"tokenizer": make_tokenizer(), "pivot": None, "baseline": None}
    base.forward = base.bert.forward = lambda *_a, **_k: 1 / 0
    with pytest.raises(InputError, match=r"at='weights': .*'one' is bert of 3 layers and 'two' bert of 2"):
        pairs_of({"one": base, "two": shallow}, corpus(), **about)
    with pytest.raises(InputError, match=r"two: patching=True runs each model, and this is several\. Give one model"):
        pairs_of({"one": base, "two": [base, base]}, corpus(), **about)
    reps = probes.from_arrays(np.ones((4, 2)))
    with pytest.raises(InputError, match=r"one: patching=True runs each model, and this is Dataset\."):
        pairs_of({"one": reps, "two": reps}, corpus(), **about)
    with pytest.raises(InputError, match=r"patching=True runs the models: give a corpus"):
        probes.compare({"one": reps, "two": reps}, probes=["norm"], patching=True)


def test_of_a_model_of_the_next_token_causes_are_of_its_tokens(tiny_models, make_tokenizer):
    model = tiny_models("LlamaForCausalLM")
    about = {"tokenizer": make_tokenizer(special=False), "baseline": "two", "pivot": None}
    ((pair,), _) = pairs_of({"one": hurt(model, 2), "two": model}, corpus(4), **about)
    assert pair.base is model
    assert pair.names == ("two", "one")
    rows = pd.DataFrame(causes_of(pair, corpus(4), draws=10, progress=False))
    assert set(rows["measure"]) == {"kl", "same_top_token", "nats_per_token"}
    of_loss = rows[rows["measure"] == "nats_per_token"]
    there = of_loss["layer"] == 2  # it is the whole damage, and the others are none of it
    np.testing.assert_allclose(of_loss["gain"][there], of_loss["damage"][there], rtol=1e-5)
    np.testing.assert_allclose(of_loss["gain"][~there], 0, atol=1e-9)


def test_of_a_model_of_masked_tokens_the_head_is_left_out_as_a_comparison_judges_its_states(make_tokenizer):
    tokenizer = masking(make_tokenizer)
    model = of_masked_tokens(tokenizer)
    about = {"tokenizer": tokenizer, "baseline": "two"}
    ((pair,), _) = pairs_of({"one": model, "two": model}, corpus(4), pivot="en", **about)
    assert pair.base is pair.other is model.base_model
    with pytest.raises(InputError, match=r"give pivot="):
        pairs_of({"one": model, "two": model}, corpus(4), pivot=None, **about)
