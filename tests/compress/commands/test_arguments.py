"""What all commands take: a model that is there, a folder that can be written, pickles only where asked for."""

import shutil

import faults
import pytest
import torch
from ranked import together

import compress
import probes
from compress.__main__ import main
from compress.commands.arguments import training, training_settings


@pytest.mark.parametrize(
    ("model", "sparsity", "out", "message"),
    [
        ("/no/such/model", "0.5", "out", "error: /no/such/model: no such folder. Check the path\n"),
        ("no-such-model", "0.5", "out", "error: no-such-model: the model could not be loaded"),
        ("no tokenizer", "0.5", "out", "tokenizer"),
        ("tiny", "1", "out", "error: --sparsity 1.0: expected at least 0 and below 1\n"),
        ("tiny", "nan", "out", "error: --sparsity nan: expected at least 0 and below 1\n"),
        ("tiny", "0.5", "full", "full exists and is not an empty folder; it is left as it is. Choose another one\n"),
        ("tiny", "0.5", "full/mine.txt/out", "cannot be written to"),
    ],
)
def test_bad_input_ends_in_status_2_and_one_line_and_leaves_nothing(
    tiny_folder, tmp_path, capsys, model, sparsity, out, message
):
    work = tmp_path / "work"
    (work / "full").mkdir(parents=True)
    (work / "full" / "mine.txt").write_text("mine")
    if model == "no tokenizer":
        model = shutil.copytree(tiny_folder, tmp_path / "bare")
        for path in model.glob("tokenizer*"):
            path.unlink()
    model = tiny_folder if model == "tiny" else model
    assert main(["prune", str(model), "--sparsity", sparsity, "--out", str(work / out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert [str(p.relative_to(work)) for p in sorted(work.rglob("*"))] == ["full", "full/mine.txt"]


def test_pickled_weights_need_to_be_asked_for(tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    torch.save(probes.load_checkpoint(folder)[0].state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    command = ["prune", str(folder), "--sparsity", "0.5", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert main([*command, "--allow-pickle"]) == 0


@pytest.mark.parametrize("out", [".", "../here"])
def test_the_folder_that_one_is_in_is_no_new_one(tmp_path, monkeypatch, capsys, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["prune", "bundled", "--sparsity", "0.5", "--out", out]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out {out}: expected a new folder, found the one that you are")
    assert list(tmp_path.iterdir()) == [tmp_path / "here"]


def test_an_empty_path_is_no_folder(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prune", "bundled", "--sparsity", "0.5", "--out", ""])
    assert stop.value.code == 2
    assert "argument --out: expected the path of a folder, found ''" in capsys.readouterr().err


def test_of_two_processes_one_writes_what_both_train(tiny_folder, tmp_path):
    rows = [f"{i},en,the {word} ran,{i % 3}" for i, word in enumerate(["dog", "cat", "bird"] * 4)]
    (tmp_path / "c.csv").write_text("\n".join(["id,language,text,label", *rows]))

    def asked(out):
        training = ["--corpus", str(tmp_path / "c.csv"), "--steps", "2", "--batch-size", "4"]
        return ["prune", str(tiny_folder), "--sparsity", "0.5", "--out", str(tmp_path / out), *training]

    assert together(lambda rank: main(asked("two")), 2) == [("done", 0)] * 2
    assert faults.run(lambda: main(asked("one"))) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.csv", "one", "two"]
    one, two = (probes.load_checkpoint(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-3, msg=name)
        assert torch.equal(two[name] == 0, weight == 0)


def test_how_words_are_replaced_is_what_the_options_say_zeros_too():
    given = ["--replace-words", "static", "--replace-upto", "0", "--replace-own-words", "0.1", "--replace-k", "3"]
    found = training_settings(training().parse_args([*given, "--replace-across", "--replace-targets"]))
    rule = compress.NearestWords("static", upto=0, k=3, across=True, own_words=0.1, targets=True)
    assert found["replace_words"] == rule
    assert "replace_words" not in training_settings(training().parse_args([]))
