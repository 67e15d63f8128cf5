import subprocess
import sys

import pandas as pd
import pytest

from probes.__main__ import main

SMALL = ["--corpus", "bundled", "--split", "dev", "--languages", "en,fr,zh", "--pivot", "en", "--draws", "20"]


def test_compare_writes_table_report_and_states_and_prints_a_summary(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["compare", "a=bundled", "b=bundled", *SMALL, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "retrieval" in printed
    assert "minus a [95 %]" in printed
    assert sorted(f.name for f in out.iterdir()) == [
        "comparison.csv",
        "provenance.json",
        "report.html",
        "representations",
    ]
    table = pd.read_csv(out / "comparison.csv")
    assert set(table["language"]) == {"en", "fr", "zh", "pooled"}
    # The same weights twice: no difference anywhere.
    assert (table.loc[table["model"] == "b", "difference"] == 0).all()


def test_a_run_is_not_overwritten_unasked(tmp_path, capsys):
    arguments = ["compare", "a=bundled", *SMALL, "--probes", "retrieval", "--out", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "comparison.csv").stat().st_mtime_ns
    assert main(arguments) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "comparison.csv").stat().st_mtime_ns == before
    assert main([*arguments, "--overwrite"]) == 0


@pytest.fixture
def files(tmp_path):
    (tmp_path / "no_label.csv").write_text("id,language,sentence\n1,en,hello\n1,fr,bonjour\n2,en,a\n2,fr,b\n")
    (tmp_path / "blocked").write_text("a file")
    (tmp_path / "empty_folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundled"], "'bundled': expected NAME=CHECKPOINT"),
        (["a=bundled", "--languages", "en,xx"], "unknown language 'xx'"),
        (["a=bundled", "--pivot", "de"], "pivot 'de': no such language"),
        (["a=bundled", "--split", "none"], "unknown split 'none'"),
        (["a=bundled", "--probes", "snr,r2"], "unknown probe 'r2'"),
        (["a=bundled", "--baseline", "b"], "baseline 'b': no such model"),
        (["a=bundled", "--corpus", "{}/missing.csv"], "no such file"),
        (["a=bundled", "--corpus", "{}/no_label.csv"], "no column 'text' for 'text'"),
        (["a=bundled", "--text", "sentence"], "no column 'sentence' for 'text'"),
        (["a={}/empty_folder"], "a folder without a model"),
        (["a={}/missing"], "no such folder"),
        (["a=bundled", "--out", "{}/blocked/run"], "cannot be written to"),
        (["a=bundled", "--max-length", "1000"], "max_length=1000: expected 1 to 64"),
        (["a=bundled", "--draws", "1"], "draws=1: expected at least 2"),
    ],
)
def test_bad_input_ends_in_one_message_and_status_2(arguments, message, files, capsys):
    filled = [a.replace("{}", str(files)) for a in arguments]
    command = ["compare", filled[0], *SMALL, "--out", str(files / "out"), *filled[1:]]
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert printed.count("error:") == 1


def test_two_models_of_one_name_are_refused(tmp_path, capsys):
    assert main(["compare", "a=bundled", "a=bundled", *SMALL, "--out", str(tmp_path / "out")]) == 2
    assert "two models are called 'a'" in capsys.readouterr().err


def test_columns_can_be_mapped_and_missing_labels_are_said(files, capsys):
    rows = "".join(f"{i},{k},word {i} {k}\n" for i in range(8) for k in ("en", "fr"))
    (files / "plain.csv").write_text("key,language,sentence\n" + rows)
    corpus = ["--corpus", str(files / "plain.csv"), "--id", "key", "--text", "sentence", "--pivot", "en"]
    assert main(["compare", "a=bundled", *corpus, "--draws", "5", "--out", str(files / "out")]) == 0
    assert "warning: no labels: class_separability, variability, snr left out" in capsys.readouterr().err


def test_describe_counts(capsys):
    assert main(["describe", "bundled", "--split", "test"]) == 0
    assert "2,880 rows, 360 ids, 8 languages" in capsys.readouterr().out


def test_unknown_options_end_in_status_2_as_a_process_does():
    done = subprocess.run([sys.executable, "-m", "probes", "compare", "a=bundled"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--corpus" in done.stderr
