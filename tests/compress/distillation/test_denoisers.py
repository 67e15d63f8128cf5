"""Denoisers on disk: the same outputs again, nothing run that lies there, and what is refused."""

import json

import pandas as pd
import pytest
import torch
from afresh import in_a_new_process
from denoised import Tiny, rows, tiny
from trained import same, weights

import compress
from compress.distillation.denoisers import check_denoiser, labels_of, rows_of
from probes.errors import InputError


class Other(Tiny):
    pass


@pytest.fixture
def saved(tmp_path):
    fast = compress.distill_diffusion(tiny(), rows(), steps=[2, 1], updates=1, progress=False)
    return fast, compress.save_denoiser(fast, tmp_path / "fast")


def test_what_is_saved_loads_again_with_equal_outputs_and_says_what_was_done(saved):
    fast, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == ["denoiser.json", "history.csv", "model.safetensors"]
    back = compress.load_denoiser(folder, Tiny)
    assert same(weights(fast), weights(back))
    noise, label = torch.randn(9, 2), torch.arange(9) % 3
    assert (compress.sample_diffusion(fast, noise, label) == compress.sample_diffusion(back, noise, label)).all()
    code = "import compress\nfrom denoised import Tiny\nfast = compress.load_denoiser(given[0], Tiny)\n"
    code += f"out = compress.sample_diffusion(fast, {noise.tolist()}, {label.tolist()})"
    assert (in_a_new_process(code, folder) == compress.sample_diffusion(fast, noise, label)).all()
    assert back.compression == fast.compression
    assert not back.training
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), fast.history, check_exact=False)
    with pytest.raises(InputError, match="Tiny was distilled to take 1 steps"):
        compress.sample_diffusion(back, noise, label, steps=2)


def test_a_module_that_nothing_was_done_to_is_saved_too(tmp_path):
    compress.save_denoiser(tiny(), tmp_path / "plain")
    assert compress.load_denoiser(tmp_path / "plain", Tiny).compression is None


def test_what_is_no_denoiser_or_another_one_is_not_loaded(saved, tmp_path):
    _, folder = saved
    with pytest.raises(InputError, match=r"nothing/denoiser.json: not readable"):
        compress.load_denoiser(tmp_path / "nothing", Tiny)
    with pytest.raises(InputError, match="is of a Tiny, and make= gives a Other: give the class that was saved"):
        compress.load_denoiser(folder, Other)
    with pytest.raises(InputError, match=r"Linear cannot be made by .* Give the class Tiny that was saved"):
        compress.load_denoiser(folder, torch.nn.Linear)
    said = json.loads((folder / "denoiser.json").read_text())
    (folder / "denoiser.json").write_text(json.dumps(said | {"settings": said["settings"] | {"width": 8}}))
    with pytest.raises(InputError, match=r"does not fit Tiny, .*: into.weight: expected \(8, 9\), found \(16, 9\)"):
        compress.load_denoiser(folder, Tiny)
    (folder / "denoiser.json").write_text(json.dumps(said | {"compression": {"method": 3}}))
    with pytest.raises(InputError, match="compression"):
        compress.load_denoiser(folder, Tiny)
    (folder / "denoiser.json").write_text(json.dumps(said))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"model\.safetensors: the weights cannot be read"):
        compress.load_denoiser(folder, Tiny)


def test_what_would_not_load_again_is_not_saved(saved, tmp_path):
    fast, folder = saved
    with pytest.raises(InputError, match="fast exists and is not an empty folder"):
        compress.save_denoiser(fast, folder)
    for settings, message in (
        (None, "expected an attribute settings, the keyword arguments that make such a module"),
        ({"width": torch.ones(1)}, r"as JSON can have them \(TypeError"),
        ({"size": 3}, r"Tiny: its settings make another module: into.weight: expected \(16, 10\), found \(16, 9\)"),
    ):
        model = tiny()
        model.settings = settings
        with pytest.raises(InputError, match=message):
            compress.save_denoiser(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_data_and_labels_come_as_they_are_meant():
    x, label = rows_of(([[1, 2], [3, 4]], [0, 1]), 2)
    assert (x.dtype, label.dtype) == (torch.float32, torch.int64)
    assert labels_of([2, 0], 2, 2, none=True).tolist() == [2, 0]
    with pytest.raises(InputError, match="label: row 0 has 2: expected 0 to 1, as"):
        labels_of([2, 0], 2, 2)
    with pytest.raises(InputError, match=r"data: x: expected finite numbers of shape \(row, \.\.\.\), none of"):
        rows_of(([1.0, 2.0], [0, 1]), 2)
    model = tiny()
    assert check_denoiser(model, x) == 3
    model.classes = 0
    with pytest.raises(InputError, match="expected an attribute classes, how many there are, found 0"):
        check_denoiser(model)
