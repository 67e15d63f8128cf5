"""fuse: what it writes and prints, and what it refuses."""

import pytest

import probes
from compress.__main__ import main


def test_fuse_writes_a_smaller_model(tmp_path, capsys):
    out = tmp_path / "out"
    given = ["--corpus", "bundled", "--split", "train", "--languages", "en", "--steps", "2", "--batch-size", "4"]
    assert main(["fuse", "bundled", "--share", "0.5", *given, "--out", str(out)]) == 0
    sizes = [sum(p.numel() for p in probes.load_checkpoint(m)[0].parameters()) for m in ("bundled", out)]
    assert sizes[1] < 0.8 * sizes[0]
    assert capsys.readouterr().out.endswith(f"{sizes[0]:,} parameters -> {sizes[1]:,} parameters; wrote {out}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--similarity", "cka"], "takes text: give --corpus"),
        (["--share", "2"], "share=2.0: expected"),
        (["--corpus", "bundled"], "--corpus is given and nothing reads it: give --steps to train on it or"),
    ],
)
def test_what_fuse_cannot_do_is_refused_in_one_line(tiny_folder, tmp_path, capsys, options, message):
    assert main(["fuse", str(tiny_folder), *options, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
