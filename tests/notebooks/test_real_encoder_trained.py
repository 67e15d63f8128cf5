"""Part 2 of the study of a real encoder, on the bundled model: what is trained, and that no run is made twice."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import compress
import probes

TOP = Path(__file__).parents[2]
# So few sentences have no separability.
pytestmark = pytest.mark.filterwarnings("ignore::probes.errors.LayerscopeWarning")
CODES = {"en": "eng_Latn", "hi": "hin_Deva"}
STEPS, RATE = 2, 1e-3


@pytest.fixture(scope="module")
def of():
    """The modules of the study, found as a script finds them."""
    sys.path.insert(0, str(TOP / "notebooks" / "studies"))
    names = ("methods", "runs", "tables", "warning", "trained", "kept", "trained_answers", "trained_page")
    yield {name: importlib.import_module(f"real_encoder_{name}") for name in names}
    sys.path.remove(str(TOP / "notebooks" / "studies"))


@pytest.fixture(scope="module")
def given(of, tmp_path_factory):
    """Two layers of the bundled model, a few sentences in the form of SIB-200, and what runs are of."""
    data, model = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("model")
    for split, most in {"train": 6, "dev": 1, "test": 2}.items():  # of each topic
        rows = probes.load_corpus("bundled", split=split, languages=list(CODES)).to_pandas()
        number = pd.factorize(rows["id"])[0]
        rows["id"] = (number // 2 * 20 + number % 2).astype(str)  # two of an article
        rows["language"] = rows["language"].map(CODES)
        rows = rows[rows["id"].isin(rows.drop_duplicates("id").groupby("label").head(most)["id"])]
        rows[["id", "language", "text", "label"]].to_parquet(data / f"sib200.{split}.parquet")
    of["runs"].FOLDER = tmp_path_factory.mktemp("runs")
    whole, tokenizer = probes.load_checkpoint("bundled")
    compress.save(compress.drop_layers(whole, [2, 3, 4, 5]), model, tokenizer)
    made_of = of["trained"].made_of(model, data, STEPS)
    return model, data, made_of


@pytest.fixture(scope="module")
def made(of, given):
    """The fine-tuned model of a seed, and a pruned one, as runs in the folder."""
    model, data, made_of = given
    settings = [
        {"trained": of["trained"].PLAIN, "strength": 0.0, "seed": 0},
        {"trained": "magnitude", "strength": 0.7, "seed": 0},
    ]
    run = of["trained"].making(model, data, made_of, of["trained"].Chosen(RATE, {}))
    assert of["runs"].made(run, settings, of["runs"].FOLDER / "trained", "test", 1) == []
    return settings


def test_what_decides_most_comes_first_and_a_claim_has_all_seeds_before_the_next(of):
    trained = of["trained"]
    settings = trained.settings()
    assert len({tuple(s.values()) for s in settings}) == len(settings)
    assert [(s["trained"], s["seed"]) for s in settings[:6]] == [("fine-tuned", i) for i in range(5)] + [
        ("magnitude", 0)
    ]
    assert {s["trained"] for s in settings} == {
        trained.PLAIN,
        *trained.UNIFORM,
        *trained.CUBIC,
        *trained.ROUNDED,
        *trained.STUDENTS,
        *trained.TUNED,
    }


def test_every_kind_trains_and_leaves_the_embeddings(of, given):
    model, data, _ = given
    trained = of["trained"]
    tuned, tokenizer = trained.tune(model, data, 0, RATE, STEPS)
    chosen = trained.Chosen(RATE, dict.fromkeys(trained.TRIALS_OF_WEIGHTS.values(), 1.0))
    before = trained.encoder(model)[0].embeddings.word_embeddings.weight
    for method, strength in {(s["trained"], s["strength"]) for s in trained.settings()} - {(trained.PLAIN, 0.0)}:
        if method in trained.STUDENTS:
            strength = 1.0
        elif strength in (0.5, 4.0):
            continue  # as the other strength
        steps = 4 if method in trained.TUNED else STEPS  # of two epochs
        made = trained.compressed(method, strength, 0, tuned, tokenizer, model, data, chosen, steps)
        after = made.get_input_embeddings().weight
        assert torch.equal(after, before), method
        layer = -1 if method in trained.TUNED else 0
        moved = made.base_model.encoder.layer[layer].attention.self.query
        assert not torch.equal(moved.weight, tuned.base_model.encoder.layer[layer].attention.self.query.weight), method


def test_a_run_says_what_it_is_of_and_what_each_language_has(of, made):
    found = of["kept"].kept(of["runs"].FOLDER)
    assert found.runs["trained"].tolist() == ["fine-tuned", "magnitude"]
    pruned = found.runs.iloc[1]
    assert pruned["original"] == found.runs["original"][0]
    assert 0 <= pruned["accuracy worst"] <= pruned["accuracy zero-shot"] <= 1
    assert np.isfinite(pruned["gap"])
    right = np.array([x.split("/") for x in pruned["right English"].split()], int)
    assert right[:, 0].sum() / right[:, 1].sum() == pytest.approx(pruned["accuracy English"])
    for value in (*of["trained"].DRAWN, of["trained"].WORST):
        assert len(pruned[f"drawn {value}"].split()) == of["trained"].DRAWS, value
    rows = found.rows.set_index(["trained", "language"])
    assert set(rows.loc["magnitude"].index) == {"eng_Latn", "hin_Deva", "pooled"}
    assert rows.loc[("magnitude", "hin_Deva"), ["cka, end", "cka, middle", "norm, middle", "retrieval"]].notna().all()
    assert np.isnan(rows.loc[("fine-tuned", "hin_Deva"), "cka, end"])  # it is held to itself


def test_what_the_repository_has_is_not_made_again(of, made, given, tmp_path, monkeypatch):
    kept = of["kept"]
    (tmp_path / "other").mkdir()
    first = kept.keep(tmp_path)
    monkeypatch.setattr(of["runs"], "FOLDER", tmp_path / "other")  # another machine
    again = kept.keep(tmp_path)
    assert again.runs[kept.KEYS].values.tolist() == first.runs[kept.KEYS].values.tolist()
    assert again.runs["original"].tolist() == first.runs["original"].tolist()
    assert again.missing(made) == []
    assert len(again.missing(of["trained"].settings())) == len(of["trained"].settings()) - 2
    assert again.without_draws(made) == []
    kept.check(again, given[2])
    with pytest.raises(SystemExit, match=r"real_encoder_trained.csv: its runs are of steps 2, and these would be of 4"):
        kept.check(again, given[2] | {"steps": 4})
    assert kept.kept(tmp_path / "other").missing(made) == made


def test_a_rate_is_chosen_by_accuracy_and_of_as_high_ones_by_nats(of):
    trained = of["trained"]
    rows = pd.DataFrame({"trained": trained.TRIAL, "strength": trained.RATES, "dev accuracy": [0.7, 0.8, 0.8]})
    rows = rows.assign(**{"dev nats": [0.1, 0.9, 0.8]})
    assert trained.Chosen.of(rows) == (trained.RATES[2], {})
    right = {"dev accuracy": [0.7, 0.8, 0.8, 0.6, 0.5], "dev nats": [0.1, 0.9, 0.8, 0.2, 0.1]}
    weights = pd.DataFrame({"trained": "trial of a weight, Frobenius", "strength": trained.WEIGHTS, **right})
    assert trained.Chosen.of(pd.concat([rows, weights])).weights == {"aligned, Frobenius": trained.WEIGHTS[2]}
    assert trained.Chosen.of(pd.concat([rows, weights[:4]])).weights == {}
    with pytest.raises(SystemExit, match=r"trial of a rate: 2 of 3 were tried"):
        trained.Chosen.of(rows[:2])


def test_weights_of_objectives_are_tried_where_a_method_has_one(of, given):
    trained = of["trained"]
    assert trained.trials_of_weights([{"trained": "magnitude"}]) == []
    tried = trained.trials_of_weights([{"trained": "aligned, cosine"}, {"trained": "magnitude"}])
    assert [t["strength"] for t in tried] == list(trained.WEIGHTS)
    model, data, made_of = given
    run = trained.making(model, data, made_of, trained.Chosen(RATE, {}))
    few, many = (run(**tried[0] | {"strength": weight}) for weight in (0.0, 1e4))
    assert few["rate"] == RATE
    assert 0 <= few["dev accuracy"] <= 1
    assert few["dev nats"] != many["dev nats"]  # the weight counts
    runs = pd.DataFrame([few, many]).assign(trained="trial of a weight, cosine")
    assert len(trained.measured(pd.concat([runs, runs.assign(trained="magnitude")]))) == 2


def planted(of, gain, spread):
    """Runs of magnitude and of SDP, which is above it by so much, and less surely so by sentences that differ."""
    rng, rows = np.random.default_rng(0), []
    for seed in of["trained"].SEEDS:
        for name, more in (("fine-tuned", 0.3), ("magnitude", 0.0), ("SDP cross-correlation", gain)):
            right = np.clip(np.round(100 * (0.5 + more + spread * rng.normal(size=30))), 0, 100).astype(int)
            cells = {f"right {n}": " ".join(f"{r}/100" for r in right) for n in ("English", "zero-shot")}
            accuracy = {f"accuracy {n}": right.mean() / 100 for n in ("English", "zero-shot")}
            rows.append({"trained": name, "strength": 0.7 * (name != "fine-tuned"), "seed": seed, **cells, **accuracy})
    runs = pd.DataFrame(rows)
    languages = pd.concat([runs[of["kept"].KEYS].assign(language=x, retrieval=0.9) for x in ("pooled", "eng_Latn")])
    return of["kept"].Trained(runs, languages)


def test_claims_have_intervals_of_seeds_and_sentences(of):
    answers = of["trained_answers"]
    claim = "SDP cross-correlation: zero-shot accuracy above magnitude's (arXiv 2109.15014)"
    said = answers.claims(answers.table_of(planted(of, 0.1, 0.02)), lambda *_: "small").set_index("claim")
    assert said.loc[claim, ["at", "of", "verdict"]].tolist() == ["0.7", "seeds, sentences", "confirmed"]
    assert float(said.loc[claim, "gain"]) == pytest.approx(0.1, abs=0.02)
    said = answers.claims(answers.table_of(planted(of, -0.1, 0.02)), lambda *_: "").set_index("claim")
    assert said.loc[claim, "verdict"] == "contradicted"
    said = answers.claims(answers.table_of(planted(of, 0.02, 0.3)), lambda *_: "").set_index("claim")
    assert said.loc[claim, "verdict"] == "not confirmed"
    few = planted(of, 0.1, 0.02)
    few = few._replace(runs=few.runs[few.runs["seed"] < 3])
    said = answers.claims(answers.table_of(few), lambda *_: "").set_index("claim")
    assert said.loc[claim, "verdict"] == "not run (3 of 5 seeds)"
    assert set(said["verdict"]) <= {"not run (3 of 5 seeds)", "not run (0 of 5 seeds)"}


def test_claims_in_words_say_each_that_is_decided_and_count_the_others(of):
    seeds = of["trained_answers"].FOR
    rows = {
        "claim": ["A: x above y", "B: x above y", "C: x", "C: y", "D: x", "E: x"],
        "gain": ["+0.1", "-0.2", "+0.0", "+0.0", "", "+0.3"],
        "95 %": ["+0.1 to +0.2", "-0.3 to -0.1", "-0.1 to +0.1", "-0.1 to +0.1", "", "+0.2 to +0.4"],
        "verdict": ["confirmed", "contradicted", "not confirmed", "not confirmed", "not run (0 of 5 seeds)", seeds],
    }
    said = of["trained_page"]._claims_in_words(pd.DataFrame(rows))
    assert (
        "Of 6 claims 5 have all their seeds: 1 are confirmed, 1 contradicted, 1 told by seeds alone, and of 2" in said
    )
    lines = [line for line in said.split("\n") if line.startswith("- ")]
    assert lines == [
        "- confirmed: A: x above y, +0.1 (+0.1 to +0.2)",
        "- contradicted: B: x above y, -0.2 (-0.3 to -0.1)",
        "- for it, by seeds alone: E: x, +0.3 (+0.2 to +0.4)",
    ]
    assert "C (2)" in said
    assert "D" not in said


def test_a_rate_that_was_tried_later_is_said_and_chooses_nothing(of):
    trained, page = of["trained"], of["trained_page"]
    tried = pd.DataFrame({"trained": trained.TRIAL, "strength": trained.RATES, "dev accuracy": [0.6, 0.7, 0.8]})
    tried = tried.assign(**{"dev nats": 0.5})
    later = pd.DataFrame({"trained": trained.LATER, "strength": [1e-3], "dev accuracy": [0.9], "dev nats": [0.1]})
    alone, both = (of["kept"].Trained(t, pd.DataFrame()) for t in (tried, pd.concat([tried, later])))
    assert page._rate(alone).endswith("; a higher one may be better")
    assert page._rate(both).endswith("0.0003: 0.800); 0.001, tried after runs had been made, has 0.900")
    assert trained.Chosen.of(both.runs) == (3e-4, {})
    assert trained.measured(both.runs).empty


def test_retrieval_is_told_by_seeds_alone_until_all_runs_have_draws_of_sentences(of):
    answers, kept = of["trained_answers"], of["kept"]
    claim = "SDP cross-correlation: class separability (English) above magnitude's (arXiv 2109.15014)"
    found = planted(of, 0.1, 0.02)
    above = found.runs["trained"].eq("SDP cross-correlation") * 0.1
    rows = found.rows.merge(found.runs[kept.KEYS].assign(class_separability=0.5 + above + found.runs["seed"] / 1e3))
    found = found._replace(rows=rows)
    settings = [dict(zip(kept.KEYS, k, strict=True)) for k in found.runs[kept.KEYS].itertuples(index=False, name=None)]
    assert found.without_draws(settings) == settings
    said = answers.claims(answers.table_of(found), lambda *_: "").set_index("claim")
    assert said.loc[claim, ["of", "verdict"]].tolist() == ["seeds", answers.FOR]
    rng = np.random.default_rng(0)
    for spread, verdict in ((0.01, "confirmed"), (0.2, "not confirmed")):
        drawn = [" ".join(f"{x:.4g}" for x in 0.5 + spread * rng.normal(size=100)) for _ in range(len(found.runs))]
        runs = found.runs.assign(**{"drawn retrieval": "0.1 0.2", "drawn class_separability English": drawn})
        every = found._replace(runs=runs)
        assert every.without_draws(settings) == []
        said = answers.claims(answers.table_of(every), lambda *_: "").set_index("claim")
        assert said.loc[claim, ["of", "verdict"]].tolist() == ["seeds, sentences", verdict]
    runs.loc[runs["trained"].eq("magnitude"), ["drawn retrieval", "drawn class_separability English"]] = np.nan
    part = found._replace(runs=runs)
    assert {s["trained"] for s in part.without_draws(settings)} == {"magnitude"}
    said = answers.claims(answers.table_of(part), lambda *_: "").set_index("claim")
    assert said.loc[claim, ["of", "verdict"]].tolist() == ["seeds", answers.FOR]


def test_models_of_both_parts_warn_together_each_held_to_its_own_original(of, made):
    found = of["kept"].kept(of["runs"].FOLDER)
    one = found.rows[found.rows["trained"] == "magnitude"].drop(columns=of["kept"].KEYS)
    rows = pd.concat([found.rows[found.rows["trained"] == "fine-tuned"].assign(run="original"), one.assign(run="a")])
    runs = pd.DataFrame({"run": ["a"], "family": ["pruning"], "stored_bytes": [1.0], "stored_bytes before": [2.0]})
    models = of["trained_answers"].both(rows, runs, found, "accuracy")
    assert models.families.tolist() == ["pruning", "pruning, trained"]
    assert np.allclose(models.lost[0], models.lost[1])  # the same model, once as one without training
    assert np.allclose(models.said["cka, end"][0][0], models.said["cka, end"][0][1])
    assert models.said["share of bytes saved"][0][0].tolist() == [0.5, 0.5]


def test_the_page_is_of_the_runs_beside_it(of, tmp_path, monkeypatch):
    monkeypatch.setattr(of["runs"], "FOLDER", tmp_path)
    page = TOP / "notebooks" / "studies" / "real_encoder_trained.md"
    text, found = " ".join(page.read_text(encoding="utf-8").split()), of["kept"].kept()
    measured = of["trained"].measured(found.runs)
    assert f"**{len(measured)} of {len(of['trained'].settings())} fine-tuned runs" in text
