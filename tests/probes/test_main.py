import subprocess
import sys

import pandas as pd
import pytest
import torch
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem

import compress
import probes
from probes.__main__ import main
from probes.remote import read_at, sizes_at, within

SMALL = ["--corpus", "bundled", "--split", "dev", "--languages", "en,fr,zh", "--pivot", "en", "--draws", "20"]


@pytest.fixture
def without_figures(monkeypatch):
    """Reports whose figures are not drawn, which takes longer than all else."""
    monkeypatch.setattr("probes.views.report.image", lambda figure: "data:,")


def test_compare_writes_table_report_and_states_and_prints_a_summary(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["compare", "a=bundled", "b=bundled", *SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "retrieval" in printed
    assert "minus a [95 %]" in printed
    assert sorted(f.name for f in out.iterdir()) == [
        "comparison.csv",
        "draws.npy",
        "models.csv",
        "provenance.json",
        "report.html",
        "representations",
    ]
    table = pd.read_csv(out / "comparison.csv")
    assert set(table["language"]) == {"en", "fr", "zh", "pooled"}
    # The same weights twice: no difference anywhere, and nothing has moved.
    other = table[(table["model"] == "b") & (table["language"] == "pooled")]
    assert (other["difference"].dropna() == 0).all()
    assert len(other["difference"].dropna()) > 40
    assert (other.loc[other["probe"].isin(["label_loyalty", "norm_ratio"]), "value"] == 1).all()


@pytest.mark.usefixtures("without_figures")
def test_several_corpora_are_compared_on_each_and_judged_together(tmp_path, capsys, monkeypatch, tiny_folder):
    monkeypatch.setattr("probes.views.several.image", lambda figure: "data:,")
    monkeypatch.setattr("probes.views.several.page_of", lambda table: "")
    words = ["the red cat", "a big dog", "he ran", "she sat on it", "a bird", "the small house"]
    rows = [(i, x, f"{text} {x}") for x in ("en", "fr") for i, text in enumerate(words)]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_csv(tmp_path / "text.csv", index=False)
    small = ["--pivot", "en", "--draws", "10", "--no-timing"]
    models, out = [f"a={tiny_folder}", f"b={tiny_folder}", "--probes", "retrieval"], tmp_path / "run"
    two = ["--corpus", f"one={tmp_path / 'text.csv'}", "--corpus", f"two={tmp_path / 'text.csv'}"]
    # The same weights twice are equal, yet of six sentences nothing is shown.
    assert main(["compare", *models, *two, *small, "--out", str(out), "--fail-on", "lost"]) == 0
    printed = capsys.readouterr().out
    assert "on one, two:" in printed
    assert "on two alone:" in printed
    assert {"corpora.json", "one", "report.html", "representations", "two"} == {f.name for f in out.iterdir()}
    opened = probes.Comparisons.open(out, store=out / "representations")
    assert set(opened.table["corpus"]) == {"one", "two"}
    for corpora, message in (
        (two, "already holds a run"),
        ([*two[:2], "--corpus", "bundled"], "--corpus 'bundled', one of 2: expected NAME=CORPUS"),
        (two[:2] * 2, "--corpus: 'one' is given twice"),
        ([*two[:2], "--corpus", "two=./none.csv", "--overwrite"], "corpus 'two'"),
    ):
        assert main(["compare", *models, *corpora, *small, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_a_run_is_kept_where_nothing_is_renamed_as_on_a_disk(tmp_path, capsys, monkeypatch, tiny_folder):
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    words = ["the red cat", "a big dog", "he ran", "she sat on it", "a bird", "the small house"]
    rows = [(i, x, f"{text} {x}") for x in ("en", "fr") for i, text in enumerate(words)]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_csv(tmp_path / "text.csv", index=False)
    asked = ["compare", f"a={tiny_folder}", f"b={tiny_folder}", "--probes", "retrieval", "--pivot", "en"]
    asked += ["--draws", "10", "--no-timing", "--corpus"]
    url, disk = "memory://bucket/run", tmp_path / "run"
    for out in (disk, url):
        assert main([*asked, str(tmp_path / "text.csv"), "--out", str(out)]) == 0
    assert f"wrote {url}/comparison.csv and {url}/report.html" in capsys.readouterr().out
    opened, other = (probes.Comparison.open(out, store=within(out, "representations")) for out in (url, disk))
    pd.testing.assert_frame_equal(opened.table, other.table)
    for model in "ab":
        xr.testing.assert_identical(opened.representations[model].load(), other.representations[model].load())
    assert read_at(f"{url}/comparison.csv") == (disk / "comparison.csv").read_bytes()
    assert not [name for name in sizes_at("memory://bucket") if "layerscope-" in name]
    assert main([*asked, str(tmp_path / "text.csv"), "--out", url]) == 2
    assert f"{url} already holds a run" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_probes_that_are_neither_better_nor_worse_leave_the_summary_empty(tmp_path, capsys):
    arguments = [
        "compare",
        "a=bundled",
        "b=bundled",
        *SMALL,
        "--no-timing",
        "--probes",
        "norm_ratio",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    assert "none of these probes is better or worse" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("without_figures")
def test_a_run_is_not_overwritten_unasked(tmp_path, capsys):
    arguments = ["compare", "a=bundled", *SMALL, "--probes", "retrieval", "--no-timing", "--out", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "comparison.csv").stat().st_mtime_ns
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "comparison.csv").stat().st_mtime_ns == before
    assert main([*arguments, "--overwrite"]) == 0


HEADER = "id,language,text,label\n"
GOOD = "".join(f"{i},{k},word {i} {k},{'xy'[i % 2]}\n" for i in range(8) for k in ("en", "fr"))
TABLES = {
    "good": HEADER + GOOD,
    "no_text": "id,language,sentence\n1,en,hello\n",
    "no_rows": HEADER,
    "empty_text": HEADER + GOOD + "9,en, ,x\n",
    "null_id": HEADER + GOOD + ",en,word,x\n",
    "null_label": HEADER + GOOD + "9,en,word,\n",
    "twice": HEADER + GOOD + "1,en,word,x\n",
    "one_class": HEADER + GOOD.replace(",y\n", ",x\n"),
    "no_shared": HEADER + "".join(f"{k}{i},{k},word {i},{'xy'[i % 2]}\n" for i in range(8) for k in ("en", "fr")),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, text in TABLES.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "text.parquet").write_text(TABLES["good"])
    (folder / "blocked").write_text("a file")
    (folder / "empty_folder").mkdir()
    model, tokenizer = probes.load_checkpoint("bundled")
    tokenizer.add_tokens([f"new{i}" for i in range(9)])
    compress.save(model, folder / "too_many_tokens", tokenizer)
    (folder / "pickle").mkdir()
    (folder / "pickle" / "config.json").write_text("{}")
    (folder / "pickle" / "pytorch_model.bin").write_bytes(b"")
    return folder


CORPUS = "--corpus={}/"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundled"], "'bundled': expected NAME=CHECKPOINT"),
        (["a=bundled", "--languages", "en,xx"], "unknown language 'xx'"),
        (["a=bundled", "--pivot", "de"], "pivot 'de': no such language"),
        (["a=bundled", "--split", "none"], "split='none' was asked for, but there is no column 'split'"),
        (["a=bundled", "--probes", "snr,r2"], "unknown probe 'r2'"),
        (["a=bundled", "--baseline", "b"], "baseline 'b': no such model"),
        (["a=bundled", CORPUS + "missing.csv"], "no such file"),
        (["a=bundled", CORPUS + "no_text.csv"], "no column 'text' for 'text'"),
        (["a=bundled", "--text", "sentence"], "no column 'sentence' for 'text'"),
        (["a=bundled", CORPUS + "no_rows.csv"], "expected at least one row, found none"),
        (["a=bundled", CORPUS + "empty_text.csv"], "text is empty in row 16"),
        (["a=bundled", CORPUS + "null_id.csv"], "id is null in row 16"),
        (["a=bundled", CORPUS + "null_label.csv"], "label is null in row 16"),
        (["a=bundled", CORPUS + "twice.csv"], "id '1' occurs more than once in language 'en'"),
        (["a=bundled", CORPUS + "text.parquet"], "text.parquet is not a Parquet file, as its name says"),
        (["a=bundled", CORPUS + "one_class.csv"], "language 'en' has only one class, 'x'"),
        (["a=bundled", CORPUS + "no_shared.csv"], "language 'fr' shares no ids with the pivot 'en'"),
        (["a={}/empty_folder"], "a folder without a model"),
        (["a={}/missing"], "no such folder"),
        (["a={}/pickle"], "expected weights in safetensors, found pickles only (pytorch_model.bin)"),
        (["a={}/too_many_tokens"], "tokenizer and model do not fit: 4,009 tokens, but 4,000 embeddings"),
        (["a=bundled", "--out", "{}/blocked/run"], "cannot be written to"),
        (["a=bundled", "--max-length", "1000"], "max_length=1000: expected 1 to 64"),
        (
            ["a=bundled", "--long-texts", "windows", "--overlap", "90"],
            "overlap=90: expected at most 61: a window of 64",
        ),
        (["a=bundled", "--long-texts", "windows", "--probes", "words"], "cannot be measured with long_texts='windows'"),
        (["a=bundled", "--overlap", "9"], "overlap=9 is of windows: give long_texts='windows'"),
        (["a=bundled", "--draws", "1"], "draws=1: expected a whole number of at least 2"),
        (["a=bundled", "--device", "nowhere"], "device='nowhere' cannot be used here"),
        (["a=bundled", "--device", "meta"], "device='meta' holds no numbers"),
        (["a=bundled", "--seed", "-1"], "seed=-1: expected a whole number of at least 0"),
        (["a=bundled", "--probes", ""], "probes=[]: expected a list of names"),
        (["a=bundled", "--id", "text"], "column 'text' stands for more than one thing"),
        (["a=bundled", "--batch-size", "0"], "expected batch_size and batch_tokens of at least 1"),
    ],
)
def test_bad_input_ends_in_one_message_and_status_2_before_a_model_is_run(
    arguments, message, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("the model was run"))
    common = ["--pivot", "en", "--out", str(tmp_path / "out")]
    if not any(a.startswith("--corpus") for a in arguments):
        common += ["--corpus", f"{files}/good.csv"]
    filled = [a.replace("{}", str(files)) for a in arguments]
    assert main(["compare", filled[0], *common, *filled[1:]]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert printed.count("error:") == 1
    assert not (tmp_path / "out").exists()


def test_a_second_checkpoint_that_cannot_be_read_is_refused_before_the_first_is_run(
    files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("transformers.BertModel.forward", lambda *_, **__: pytest.fail("the model was run"))
    broken = tmp_path / "broken"
    compress.save(probes.load_checkpoint("bundled")[0], broken, probes.load_checkpoint("bundled")[1])
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    common = ["--corpus", f"{files}/good.csv", "--pivot", "en", "--out", str(tmp_path / "out")]
    assert main(["compare", "a=bundled", f"b={broken}", *common]) == 2
    assert "not readable as safetensors" in capsys.readouterr().err


def test_a_file_of_others_in_place_of_the_report_is_left_alone(files, tmp_path, capsys):
    (tmp_path / "report.html").write_text("my notes")
    common = ["--corpus", f"{files}/good.csv", "--pivot", "en", "--out", str(tmp_path)]
    assert main(["compare", "a=bundled", *common]) == 2
    assert "is no layerscope report" in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


def test_an_interruption_is_said_without_a_traceback(files, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.BertModel.forward", interrupt)
    common = ["--corpus", f"{files}/good.csv", "--pivot", "en", "--out", str(tmp_path)]
    assert main(["compare", "a=bundled", *common]) == 130
    assert "interrupted; what was captured is kept" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_several_checkpoints_of_one_name_are_replicates_and_one_twice_is_refused(tmp_path, capsys):
    assert main(["compare", "a=bundled", "a=bundled", *SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "model 'a': replicates 1 and 2 are the same" in capsys.readouterr().err
    model, tokenizer = probes.load_checkpoint("bundled")
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01 * torch.randn_like(p))
        for part in (model, tokenizer):
            part.save_pretrained(tmp_path / str(seed))
    given = ["--probes", "accuracy,retrieval", "--no-timing"]
    given += ["base=bundled", *(f"noisy={tmp_path / str(seed)}" for seed in (1, 2))]
    assert main(["compare", *given, *SMALL, "--out", str(tmp_path / "out")]) == 0
    table = probes.Comparison.open(tmp_path / "out").table
    assert (table[table["model"] == "noisy"]["replicates"] == 2).all()
    assert len(list((tmp_path / "out" / "representations").glob("*.zarr"))) == 3


@pytest.mark.usefixtures("without_figures")
def test_a_column_can_be_named_as_the_group(tmp_path, capsys):
    rows = "".join(f"{i},{k},word {i} {k},a{i // 4}\n" for i in range(24) for k in ("en", "fr"))
    (tmp_path / "plain.csv").write_text("id,language,text,article\n" + rows)
    corpus = ["--corpus", str(tmp_path / "plain.csv"), "--group", "article", "--draws", "20"]
    assert main(["compare", "a=bundled", *corpus, "--probes", "norm", "--out", str(tmp_path / "out")]) == 0
    table = probes.Comparison.open(tmp_path / "out").table
    assert (table["groups"] == 6).all()
    assert (table["design_effect"] > 0).all()
    assert main(["compare", "a=bundled", *corpus[:2], "--group", "book", "--out", str(tmp_path / "two")]) == 2
    assert "no column 'book' for 'group'" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_columns_can_be_mapped_and_missing_labels_are_said(tmp_path, capsys):
    rows = "".join(f"{i},{k},word {i} {k}\n" for i in range(8) for k in ("en", "fr"))
    (tmp_path / "plain.csv").write_text("key,language,sentence\n" + rows)
    corpus = ["--corpus", str(tmp_path / "plain.csv"), "--id", "key", "--text", "sentence", "--pivot", "en"]
    assert main(["compare", "a=bundled", *corpus, "--draws", "5", "--out", str(tmp_path / "out")]) == 0
    assert "warning: no labels: class_separability, variability, snr left out" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_a_row_that_quotation_marks_swallow_is_said_once(tmp_path, capsys):
    file = tmp_path / "c.csv"
    file.write_text('id,language,text,label\n1,en,"a dog,x\n2,en,a cat,y\n3,en,"a bird,x\n4,en,he sat,y\n')
    assert main(["describe", str(file)]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("did two quotation marks swallow") == 1
    given = ["--corpus", str(file), "--probes", "class_separability", "--out", str(tmp_path / "out")]
    main(["compare", "a=bundled", *given])
    assert capsys.readouterr().err.count("did two quotation marks swallow") == 1


def test_describe_counts(capsys):
    assert main(["describe", "bundled", "--split", "test"]) == 0
    assert "2,880 rows, 360 ids, 8 languages" in capsys.readouterr().out


def test_unknown_options_end_in_status_2_as_a_process_does():
    done = subprocess.run([sys.executable, "-m", "probes", "compare", "a=bundled"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--corpus" in done.stderr


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Folders of models by what is to be said of them."""
    folder = tmp_path_factory.mktemp("judged")
    model, tokenizer = probes.load_checkpoint("bundled")
    made = {"lost": compress.prune(model, sparsity=0.95), "open": compress.quantize(model, bits=3)}
    broken, _ = probes.load_checkpoint("bundled")
    next(broken.base_model.encoder.parameters()).data[:] = torch.nan
    made["broken"] = broken
    return {name: str(compress.save(one, folder / name, tokenizer)) for name, one in made.items()}


ACCURACY = [*SMALL, "--probes", "accuracy", "--no-timing"]


@pytest.mark.parametrize(
    ("model", "more", "status", "says"),
    [
        ("lost", [], 0, "  LOST  "),
        ("lost", ["--fail-on", "lost"], 1, "lost more than 1 point of accuracy: "),
        (
            "lost",
            ["--fail-on", "lost", "--languages", "fr"],
            1,
            "the language lost more than 1 point of accuracy: French",
        ),
        ("lost", ["--fail-on", "lost", "--tolerance", "accuracy=1"], 0, "  KEPT  "),
        ("open", ["--fail-on", "lost", "--tolerance", "accuracy=0.001"], 0, "  CANNOT TELL  "),
        ("open", ["--fail-on", "cannot-tell", "--tolerance", "accuracy=0.001"], 1, "  CANNOT TELL  "),
        ("broken", ["--fail-on", "cannot-tell"], 1, "accuracy has no value in any language"),
        ("bundled", ["--fail-on", "cannot-tell", "--tolerance", "accuracy=0.1"], 0, "  KEPT  "),
    ],
)
@pytest.mark.filterwarnings("ignore::probes.errors.LayerscopeWarning")
@pytest.mark.usefixtures("without_figures")
def test_the_verdict_is_printed_and_can_fail_a_run(judged, tmp_path, capsys, model, more, status, says):
    models = ["base=bundled", f"m={judged.get(model, model)}"]
    assert main(["compare", *models, *ACCURACY, *more, "--out", str(tmp_path)]) == status
    printed = capsys.readouterr().out
    assert says in printed
    assert printed.startswith("m  ")
    assert " MB (" in printed.splitlines()[0]
    assert (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("without_figures")
def test_where_nothing_can_be_judged_by_only_a_gate_fails(tmp_path, capsys):
    arguments = ["compare", "base=bundled", "m=bundled", *SMALL, "--no-timing", "--probes", "norm_ratio"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert "no verdict: there is nothing to judge by" in capsys.readouterr().out
    assert main([*arguments, "--fail-on", "lost", "--out", str(tmp_path / "b")]) == 2
    assert "there is nothing to judge by: expected accuracy" in capsys.readouterr().err
    assert main([*arguments, "--judge", "retreival", "--out", str(tmp_path / "c")]) == 2
    assert "Did you mean 'retrieval'?" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    with pytest.raises(SystemExit):
        main([*arguments, "--tolerance", "retrieval", "--out", str(tmp_path / "d")])
    assert "expected PROBE=LOSS, as in retrieval=0.02; found 'retrieval'" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [True, False])
def test_patching_is_asked_for_by_its_flag(asked, tmp_path, monkeypatch, capsys):
    seen = {}

    def compared(*_models, **settings):
        seen.update(settings)
        raise probes.InputError("seen")

    monkeypatch.setattr("probes.__main__.compare", compared)
    flags = ["--patching"] if asked else []
    assert main(["compare", "a=bundled", "b=bundled", *SMALL, *flags, "--out", str(tmp_path / "run")]) == 2
    assert "seen" in capsys.readouterr().err
    assert seen["patching"] is asked
