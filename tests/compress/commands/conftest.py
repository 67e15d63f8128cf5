"""What the tests of commands share: a command that writes a smaller model, and one that is refused."""

import pytest

import probes
from compress.__main__ import main


@pytest.fixture
def written_smaller(tmp_path, capsys):
    """Return a function that lets a command write a smaller model than the bundled one, and looks at what it says."""

    def check(command, *options):
        out = tmp_path / "out"
        assert main([command, "bundled", *options, "--out", str(out)]) == 0
        sizes = [sum(p.numel() for p in probes.load_checkpoint(m)[0].parameters()) for m in ("bundled", out)]
        assert sizes[1] < 0.8 * sizes[0]
        assert capsys.readouterr().out.endswith(f"{sizes[0]:,} parameters -> {sizes[1]:,} parameters; wrote {out}\n")

    return check


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that holds that a command ends in status 2 and one line, and leaves nothing."""

    def check(message, command, model, *options):
        assert main([command, str(model), *options, "--out", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert message in printed.err
        assert printed.err.count("\n") == 1
        assert not any(tmp_path.iterdir())

    return check
