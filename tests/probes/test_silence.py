"""Silence: other packages say nothing while they load or save, and afterwards speak as they did before."""

import logging
import subprocess
import sys

import pytest
import torch
import transformers

from probes import silence
from probes.silence import no_graphs_printed, quiet


def spoken():
    return transformers.logging.get_verbosity(), transformers.utils.logging.is_progress_bar_enabled()


@pytest.fixture(params=[True, False], ids=["bars", "no bars"])
def before(request):
    """How loud transformers is, with and without its bars; put back in the end."""
    level, bars = spoken()
    turn = {
        True: transformers.utils.logging.enable_progress_bar,
        False: transformers.utils.logging.disable_progress_bar,
    }
    transformers.logging.set_verbosity_info()
    turn[request.param]()
    yield logging.INFO, request.param
    transformers.logging.set_verbosity(level)
    turn[bars]()


def test_bars_and_warnings_are_off_within_and_as_they_were_afterwards(before):
    assert spoken() == before
    with quiet():
        assert spoken() == (logging.ERROR, False)
        with quiet():
            assert spoken() == (logging.ERROR, False)
        assert spoken() == (logging.ERROR, False)
    assert spoken() == before


def test_an_error_within_passes_and_leaves_everything_as_it_was(before):
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert spoken() == before


def test_packages_that_chatter_when_imported_are_silenced_without_importing_them():
    code = (
        f"import logging, runpy, sys; runpy.run_path({silence.__file__!r})\n"
        "quieted = ('bitsandbytes', 'torchao', 'torch.utils._pytree')\n"
        "assert all(logging.getLogger(n).level == logging.ERROR for n in quieted)\n"
        "assert 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_graphs_are_not_printed_within_and_are_afterwards(capfd):
    enabled = torch._C._jit_is_onnx_log_enabled()
    torch._C._jit_set_onnx_log_enabled(True)
    with no_graphs_printed():
        torch._C._jit_onnx_log("within")
    torch._C._jit_onnx_log("afterwards")
    torch._C._jit_set_onnx_log_enabled(enabled)
    said = "".join(capfd.readouterr())
    assert "within" not in said
    assert "afterwards" in said
