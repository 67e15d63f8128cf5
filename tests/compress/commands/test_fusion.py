"""fuse and hash-weights: what they write and print, and what they refuse."""

import pytest
import torch

import compress
import probes
from compress.__main__ import main


def test_fuse_writes_a_smaller_model(written_smaller):
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "2", "--batch-size", "4"]
    written_smaller("fuse", "--share", "0.5", *given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--similarity", "cka"], "takes text: give --corpus"),
        (["--share", "2"], "share=2.0: expected"),
        (["--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it or"),
    ],
)
def test_what_fuse_cannot_do_is_refused_in_one_line(refused, tiny_folder, options, message):
    refused(message, "fuse", tiny_folder, *options)


def test_hash_weights_writes_the_numbers_alone(tiny_folder, tmp_path, capsys):
    options = ["--share", "0.5", "--only", "output", "--out", str(tmp_path / "o")]
    assert main(["hash-weights", str(tiny_folder), *options]) == 0
    original, _ = probes.load_checkpoint(tiny_folder)
    expected = compress.hash_weights(original, share=0.5, only="output")
    model, _ = probes.load_checkpoint(tmp_path / "o")
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in model.state_dict().items())
    done = expected.config.compression
    assert f"{done['parameters_of_parent']:,} parameters -> {done['parameters']:,} par" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "2"], "--steps trains on text: give --corpus"),
        (["--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it"),
        (["--share", "0"], "share=0.0: expected above 0 and at most 1"),
    ],
)
def test_what_hash_weights_cannot_do_is_refused_in_one_line(refused, tiny_folder, options, message):
    refused(message, "hash-weights", tiny_folder, *options)
