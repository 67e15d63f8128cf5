"""restore: what it writes and prints, and what it refuses."""

import pytest
from patched import corpus_of

import compress
import probes
from compress.__main__ import main


@pytest.fixture
def pruned(tiny_folder, tmp_path_factory):
    model, tokenizer = probes.load_checkpoint(tiny_folder)
    return compress.save(compress.prune(model, sparsity=0.9), tmp_path_factory.mktemp("pruned") / "it", tokenizer)


@pytest.fixture
def texts(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    corpus_of().to_csv(file)
    return str(file)


def test_restore_writes_a_model_and_prints_a_summary(tiny_folder, pruned, texts, tmp_path, capsys):
    out = tmp_path / "mended"
    given = ["--from", str(tiny_folder), "--corpus", texts, "--budget", "2", "--units", "blocks"]
    assert main(["restore", str(pruned), *given, "--out", str(out)]) == 0
    done = probes.load_checkpoint(out)[0].config.compression
    assert done["given"]
    assert done["before"]["method"] == "prune"
    printed = capsys.readouterr().out
    assert printed.startswith(f"gave back {len(done['given'])} parts, ")
    assert printed.endswith(f"of the damage on the texts of the choice is gone; wrote {out}\n")


def test_restore_refuses_what_cannot_be(tiny_folder, pruned, texts, refused):
    refused("give --corpus", "restore", pruned, "--from", str(tiny_folder))
    given = ["--from", str(tiny_folder), "--corpus", texts]
    refused("budget=0.0: expected a number above 0", "restore", pruned, *given, "--budget", "0")
