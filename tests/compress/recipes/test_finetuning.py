"""Recipes that fine-tune by another objective: each is finetune with what its paper says."""

import datasets
import pandas as pd
import pytest
from speaking import masking, of_the_next_token, spoken
from stops import goes_on
from trained import QUIET, make_corpus, same, weights

import compress
from compress import recipes
from compress.objectives.labels import CrossEntropy


def candidates():
    corpus = make_corpus()
    return datasets.Dataset.from_pandas(corpus.to_pandas().assign(labels=["y x z"] * len(corpus)))


def translations():
    frame = make_corpus().to_pandas().drop(columns=["split", "label"])
    return datasets.Dataset.from_pandas(pd.concat([frame, frame.assign(language="zh")], ignore_index=True))


@pytest.mark.parametrize(
    ("recipe", "corpus", "said", "objective"),
    [
        ("p_dro", make_corpus, {"fitted": 2}, compress.Robust(CrossEntropy(), method="p-dro", fitted=2)),
        ("rp_dro", make_corpus, {"temperature": 0.5}, compress.Robust(CrossEntropy(), temperature=0.5)),
        ("plsp", candidates, {"top_k": 3}, compress.CandidateLabels(top_k=3)),
        ("pair_sup_con", translations, {}, compress.PairSupCon(learning_rate=0.1)),
    ],
)
def test_each_is_finetune_by_its_objective(classifier, tokenizer, recipe, corpus, said, objective):
    how = {"steps": 6, **QUIET}
    before = weights(classifier)
    made = getattr(recipes, recipe)(classifier, tokenizer, corpus(), **said, **how)
    tuned = compress.finetune(classifier, tokenizer, corpus(), objective=objective, **how)
    assert same(weights(made), weights(tuned))
    assert not same(weights(made), before)
    assert same(weights(classifier), before)
    assert made.config.compression == tuned.config.compression


def test_noise_contrast_is_finetune_of_a_decoder_by_it(make_tokenizer):
    tokenizer, how = masking(make_tokenizer), {"steps": 2, **QUIET}
    model = of_the_next_token(tokenizer)
    made = recipes.noise_contrast(model, tokenizer, spoken(), k=3, **how)
    tuned = compress.finetune(model, tokenizer, spoken(), objective=compress.NoiseContrast(k=3), **how)
    assert same(weights(made), weights(tuned))
    assert not same(weights(made), weights(model))


def test_the_rates_are_those_of_the_papers(classifier, tokenizer):
    for recipe in (recipes.rp_dro, recipes.pair_sup_con):
        corpus = translations() if recipe is recipes.pair_sup_con else make_corpus()
        made = recipe(classifier, tokenizer, corpus, steps=1, batch_size=8, progress=False)
        assert made.config.compression["training"]["learning_rate"] in (2e-5, 5e-6)


def test_after_the_views_the_head_learns_alone(classifier, tokenizer, tmp_path):
    looks = []
    how = {"steps": 3, "folder": tmp_path, "evaluate": lambda model: looks.append(weights(model)) or {}}
    how |= {"evaluate_at": [1], "head_steps": 2, "rates": (0.0,), **QUIET}
    made = recipes.supcl_seq(classifier, tokenizer, make_corpus(), **how)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head", "views"]
    assert len(looks) == 2  # before and after one step of the head; none of the views
    moved = {k for k, v in weights(made).items() if not v.equal(looks[0][k])}
    assert moved == {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
    seen = {k for k, v in looks[0].items() if not v.equal(weights(classifier)[k])}
    assert any(name.startswith("bert.encoder") for name in seen)
    done = made.config.compression
    assert [done["before"]["objective"], done["objective"]] == [["supcl_seq"], ["cross_entropy"]]
    assert done["training"]["learning_rate"] == 1e-3


def test_an_interrupted_head_goes_on_from_the_views(classifier, tokenizer, tmp_path):
    def run(folder, *callbacks):
        how = {"steps": 2, "head_steps": 4, "save_every": 2, "rates": (0.1,), "folder": folder, **QUIET}
        made = recipes.supcl_seq(classifier, tokenizer, make_corpus(), callbacks=callbacks, **how)
        return made.history, made

    (_, whole), (_, again) = goes_on(run, tmp_path, 3)
    assert again.config.compression == whole.config.compression
