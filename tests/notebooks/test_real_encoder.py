"""The study of a real encoder, on the bundled model: runs that resume, a second computation, planted answers."""

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
CODES = {"en": "eng_Latn", "de": "deu_Latn", "hi": "hin_Deva", "zh": "zho_Hans"}
ONE = {"method": "magnitude", "strength": 0.5, "text": "no text"}


@pytest.fixture(scope="module")
def of():
    """The modules of the study, found as a script finds them."""
    sys.path.insert(0, str(TOP / "notebooks" / "studies"))
    names = ("methods", "runs", "answers", "warning", "check")
    found = {name: importlib.import_module(f"real_encoder_{name}") for name in names}
    found["main"] = importlib.import_module("real_encoder")
    found["answers"].RESAMPLES, found["warning"].RESAMPLES = 300, 40
    yield found
    sys.path.remove(str(TOP / "notebooks" / "studies"))


@pytest.fixture(scope="module")
def made(of, tmp_path_factory):
    """Two layers of the bundled model, the bundled corpus in the form of SIB-200, and a folder with a run of them."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("runs")
    for split, most in {"train": 36, "dev": 12, "test": 12}.items():
        rows = probes.load_corpus("bundled", split=split, languages=list(CODES)).to_pandas()
        number = pd.factorize(rows["id"])[0]
        rows["id"] = (number // 2 * 20 + number % 2).astype(str)  # two of an article
        rows["language"] = rows["language"].map(CODES)
        chosen = rows[number % (number.max() // most) == 0] if split == "train" else rows[number < most]
        chosen[["id", "language", "text", "label"]].to_parquet(data / f"sib200.{split}.parquet")
    of["runs"].FOLDER = folder
    of["runs"].DRAWS = 20
    whole, tokenizer = probes.load_checkpoint("bundled")
    model = tmp_path_factory.mktemp("model")
    compress.save(compress.drop_layers(whole, [2, 3, 4, 5]), model, tokenizer)
    of["runs"].prepared(model, data)
    said = of["runs"].made(of["runs"].making(model, data), [ONE], folder, "test", 1)
    assert said == []
    return model, data, folder


def test_sentences_whose_numbers_are_near_are_one_group(of, made):
    rows = of["methods"].rows_of_corpus(made[1], "test")
    assert rows.groupby("group")["id"].unique().map(sorted).tolist()[0] == ["0", "1"]
    assert rows["group"].nunique() == 6


def test_a_killed_run_is_made_again_with_the_same_result(of, made):
    model, data, folder = made
    file = of["main"].common.file_of(folder, ONE)
    before, said = pd.read_parquet(file.with_suffix(".parquet")), file.read_text()
    file.unlink()
    file.with_suffix(".parquet").write_bytes(b"half of it")  # as a kill leaves it
    assert of["runs"].made(of["runs"].making(model, data), [ONE], folder, "test", 1) == []
    pd.testing.assert_frame_equal(pd.read_parquet(file.with_suffix(".parquet")), before)
    assert pd.read_json(file, typ="series")["weights"] in said
    again = file.stat().st_mtime_ns
    assert of["runs"].made(of["runs"].making(model, data), [ONE], folder, "test", 1) == []
    assert file.stat().st_mtime_ns == again  # what is there is not made again


def test_a_run_that_fails_is_said_and_stops_no_other(of, made, tmp_path):
    def run(method):
        if method == "bad":
            raise ValueError("no such thing")
        return {"value": 1}

    said = of["runs"].made(run, [{"method": "bad"}, {"method": "good"}], tmp_path, "test", 1)
    assert len(said) == 1
    assert said[0].startswith("bad: ")
    assert "no such thing" in said[0]
    assert [f.name for f in tmp_path.glob("*.json")] == ["good.json"]


def test_numbers_of_a_run_are_those_that_numpy_gives_from_raw_states(of, made):
    model, data, folder = made
    check, rows = of["check"], of["methods"].rows_of_corpus(data, "test")
    source, tokenizer = probes.load_checkpoint(model)
    base = probes.capture(source, tokenizer, probes.load_corpus(rows), **of["runs"].HOW).hidden.values[-1].astype(float)
    encoder = source.base_model
    assert check.pruned(encoder, 0.5) == 6 * source.config.num_hidden_layers
    x = probes.capture(source, tokenizer, probes.load_corpus(rows), **of["runs"].HOW).hidden.values[-1].astype(float)
    check.FOLDER = folder
    kept = check.kept("-".join(str(v) for v in ONE.values()))
    with np.load(folder / "original" / "head.npz") as head:
        found = check.numbers(x, base, rows, head)
        original = check.numbers(base, base, rows, head)
    assert {k: kept[k] for k in found} == pytest.approx(found, abs=1e-6)
    there = check.kept("original")
    assert {k: there[k] for k in original if k in there} == pytest.approx(
        {k: v for k, v in original.items() if k in there}, abs=1e-6
    )


def planted(of, loss, families):
    """Runs (run, language) of which the loss is known, with a measure that says it and one that does not."""
    names = [f"run {i}" for i in range(len(loss))]
    languages = ["eng_Latn", "deu_Latn", "hin_Deva", "zho_Hans", "swh_Latn", "fra_Latn", "urd_Arab"][
        : loss.shape[1] + 1
    ]
    rng = np.random.default_rng(0)
    rows = []

    def add(run, probe, layer, language, value, spread):
        draws = (value + spread * rng.normal(size=50)).astype(np.float32)
        rows.append(
            {
                "run": run,
                "probe": probe,
                "layer": layer,
                "language": language,
                "value": value,
                "draws": draws,
                "end": True,
            }
        )

    noise = rng.normal(size=loss.shape)
    for i, run in enumerate(["original", *names]):
        for j, language in enumerate(languages[1:]):
            lost = 0.0 if i == 0 else loss[i - 1, j]
            add(run, "retrieval", 2, language, 0.95 - lost, 0.005)
            add(run, "alignment_gap", 2, language, 0.5, 0.005)
            add(run, "norm", 2, language, 1.0 + (0.0 if i == 0 else noise[i - 1, j]), 0.005)
            if i:
                add(run, "cka", 2, language, 1 - lost**2, 0.0)
    runs = pd.DataFrame({"run": names, "family": families, "stored_bytes": 1.0, "stored_bytes before": 2.0})
    about = {"tokens": dict.fromkeys(languages, 10) | {"hin_Deva": 30, "zho_Hans": 20, "swh_Latn": 15, "urd_Arab": 28}}
    kept = of["answers"].Kept(runs, pd.DataFrame(rows), about, Path())
    return kept, languages[1:]


def test_a_language_that_falls_first_is_named_and_none_where_all_fall_alike(of):
    loss = np.full((6, 4), 0.2)
    kept, _ = planted(of, loss, ["a", "a", "a", "a", "b", "b"])
    assert set(of["answers"].who_falls(kept, "retrieval")["verdict"]) == {"cannot tell"}
    loss[:, 1] += 0.1
    found = of["answers"].who_falls(planted(of, loss, ["a", "a", "a", "a", "b", "b"])[0], "retrieval")
    assert found["language"].tolist()[0] == "hin_Deva"
    assert found["lost"].tolist()[0] == pytest.approx(0.3)
    assert found["verdict"].tolist() == ["falls first", "falls last", "falls last", "falls last"]


def test_a_family_counts_as_much_with_many_runs_as_with_few(of):
    loss = np.array([[0.4, 0.0], [0.4, 0.0], [0.4, 0.0], [0.0, 0.4]])
    found = of["answers"].who_falls(planted(of, loss, ["a", "a", "a", "b"])[0], "retrieval")
    assert found["lost"].tolist() == pytest.approx([0.2, 0.2])


def test_what_a_loss_follows_is_found_and_the_other_way_round_it_is_said(of):
    tokens = np.array([10, 30, 20, 15, 10, 28]) / 100
    kept, _ = planted(of, np.tile(tokens, (4, 1)), ["a", "a", "b", "b"])
    found = of["answers"].follows(kept, "retrieval").set_index("languages lose more that have")
    row = found.loc["more tokens a sentence"]
    assert (row["correlation"], row["verdict"]) == (pytest.approx(1), "holds")
    kept, _ = planted(of, np.tile(0.4 - tokens, (4, 1)), ["a", "a", "b", "b"])
    found = of["answers"].follows(kept, "retrieval").set_index("languages lose more that have")
    assert found.loc["more tokens a sentence", "verdict"] == "the other way"
    # Over languages that all lie as far from English there is no correlation.
    assert np.isnan(found.loc["translations farther from English in the original", "correlation"])


def test_a_measure_that_knows_the_loss_warns_and_one_that_does_not_is_told_from_it(of):
    loss = np.random.default_rng(1).uniform(0.02, 0.4, (9, 6))
    loss[[0, 5]] /= 4
    kept, _ = planted(of, loss, ["a", "a", "a", "b", "b", "b", "c", "c", "c"])
    models = of["warning"].of_runs(kept, "retrieval")
    found = of["warning"].warned(models).set_index("measure")
    knows, guesses = found.loc["cka, end"], found.loc["norm, end"]
    assert knows[["over all", "within a model", "mild", "family left out"]].tolist() == pytest.approx([1, 1, 1, 1])
    assert knows["explained"] > 0.8
    assert knows["low"] > 0.9
    assert guesses["low"] < 0 < guesses["high"] or abs(guesses["over all"]) < 0.3
    assert guesses["explained"] < 0.2
    ahead = of["warning"].ahead(models, "cka, end", "norm, end")
    assert ahead[1] > 0


def test_every_language_has_a_family_and_a_count_of_text(of):
    sizes = probes.pretraining_sizes()
    assert all(code in sizes.index for _, code in of["answers"].LANGUAGES.values())


def test_verdicts_of_the_bundled_models_studies_are_read_from_their_pages(of):
    assert of["answers"].small_verdict("pruning", "Magnitude: zero-shot languages lose more accuracy than English") in (
        "confirmed", "contradicted", "not confirmed")  # fmt: skip
    with pytest.raises(SystemExit, match=r"pruning.md has no claim 'no such claim' any more"):
        of["answers"].small_verdict("pruning", "no such claim")


def test_what_is_missing_is_said_before_the_work(of, made, tmp_path):
    model, data, _ = made
    with pytest.raises(SystemExit, match=r"--model is not given, which is no folder.*real_encoder.md says where"):
        of["main"].folders(["--data", str(data)])
    with pytest.raises(SystemExit, match=r"sib200.test.parquet is not there"):
        of["methods"].rows_of_corpus(tmp_path, "test")
    with pytest.raises(
        SystemExit, match=r"no part or method is 'Wanda 2'; there are training-free, fine-tuned, magnitude, Wanda"
    ):
        of["main"].chosen("Wanda 2")
    assert {s["method"] for s in of["main"].chosen("Wanda")[0]} == {"Wanda"}
    with pytest.raises(SystemExit, match=r"holds runs of other corpus. Move them away"):
        of["runs"].prepared(model, data, 8)


def test_another_version_of_the_states_is_refused(of, made, monkeypatch):
    model, data, _ = made
    of["runs"].prepared(model, data)  # nothing changed
    monkeypatch.setitem(of["runs"].HOW, "prompt", None)
    with pytest.raises(SystemExit, match=r"states of the original are off by .* Move .* away, and all are made again"):
        of["runs"].prepared(model, data)


def test_an_encoder_that_was_rounded_is_known(of):
    source, _ = probes.load_checkpoint("bundled")
    assert not of["runs"].on_a_grid(source)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_((parameter * 4).round().clamp(-7, 7) / 4)
    assert of["runs"].on_a_grid(source)
    assert of["runs"].zeros(source) > 0.1


def test_the_page_is_of_the_runs_beside_it(of):
    page = TOP / "notebooks" / "studies" / "real_encoder.md"
    text = page.read_text(encoding="utf-8")
    runs = [run for run in pd.read_csv(page.with_suffix(".csv"))["run"].unique() if run != "original"]
    assert f"**{len(runs)} of {len(of['methods'].settings())} runs without training" in " ".join(text.split())
    assert all(f"| {run} |" in text for run in runs)
