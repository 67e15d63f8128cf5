"""Representations made of bare arrays, and what is refused as such."""

import ml_dtypes
import numpy as np
import pytest
import torch
import xarray as xr
import zarr

import probes
from probes.states.representations import as_numbers, as_strings, check_representations, directions, rows_of, states

HIDDEN = np.arange(24.0).reshape(2, 4, 3)


def test_arrays_become_representations_with_every_value_in_its_place():
    reps = probes.from_arrays(
        HIDDEN, id=[1, 2, 1, 2], language=["en", "en", "fr", "fr"], label=list("abab"), text=list("wxyz"), name="m"
    )
    assert reps.hidden.dims == ("layer", "example", "feature")
    np.testing.assert_array_equal(reps.hidden, HIDDEN)
    assert reps.attrs["model"] == "m"
    assert {c: list(reps[c].values) for c in ("id", "language", "label", "text")} == {
        "id": ["1", "2", "1", "2"],
        "language": ["en", "en", "fr", "fr"],
        "label": list("abab"),
        "text": list("wxyz"),
    }
    assert check_representations(reps) is reps


def test_one_layer_may_come_without_its_axis_and_defaults_are_sentences_of_their_own():
    reps = probes.from_arrays(HIDDEN[0])
    np.testing.assert_array_equal(reps.hidden, HIDDEN[:1])
    assert list(reps.id.values) == ["0", "1", "2", "3"]
    assert set(reps.language.values) == {"und"}
    assert "label" not in reps.coords


@pytest.mark.parametrize(
    ("hidden", "options", "message"),
    [
        (np.zeros(3), {}, r"expected hidden states of shape \(layer, example, feature\).*found \(3,\)"),
        (np.zeros((1, 1, 1, 1)), {}, r"found \(1, 1, 1, 1\)"),
        (np.zeros((0, 3)), {}, r"none of them 0; found \(0, 3\)"),
        ([[1.0, 2.0], [3.0]], {}, r"expected hidden states of shape \(layer, example, feature\)"),
        ([["a", "b"]], {}, "numbers"),
        (HIDDEN, {"label": ["a"]}, "label: expected 4 values, one a row of the hidden states; found 1"),
        (HIDDEN, {"id": [1, 2]}, "id: expected 4 values"),
        (HIDDEN, {"language": ["en"] * 5}, "language: expected 4 values.*found 5"),
        (HIDDEN, {"label": ["a", "b", None, "d"]}, "label is null in row 2"),
        (HIDDEN, {"label": [0, 1, float("nan"), 1]}, "label is null in row 2"),
        (HIDDEN, {"group": ["a", "b", None, "d"]}, "group is null in row 2"),
        (HIDDEN, {"group": ["a"]}, "group: expected 4 values, one a row of the hidden states; found 1"),
        (
            HIDDEN,
            {"id": list("abab"), "language": list("xxyy"), "group": [1, 2, 1, 3]},
            "group: id 'b' lies in group '2' and in group '3'",
        ),
        (HIDDEN, {"id": [1, 2, 3, 1]}, "row 3: id '1' comes twice in language 'und'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(hidden, options, message):
    with pytest.raises(probes.InputError, match=message):
        probes.from_arrays(hidden, **options)


TENSOR = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
KINDS = {
    "numpy": TENSOR.numpy(),
    "float16": TENSOR.half(),
    "bfloat16": TENSOR.bfloat16(),
    "float8": TENSOR.to(torch.float8_e4m3fn),
    "bfloat16 of numpy": TENSOR.numpy().astype(ml_dtypes.bfloat16),
    "with a gradient": TENSOR.clone().requires_grad_() * 1,
}


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_arrays_of_every_type_are_measured_as_the_same_numbers_in_float32(given):
    plain = np.array(given.detach().float() if isinstance(given, torch.Tensor) else given, dtype=np.float32)
    label = torch.arange(30) % 3
    for probe in (
        lambda x: probes.similarity(x, x[:, :4]),
        lambda x: probes.retrieval(x, x),
        lambda x: probes.snr(x, label),
        lambda x: probes.geometry(x)["norm"],
        lambda x: probes.from_arrays(x).hidden.values.sum(),
    ):
        assert float(probe(given)) == pytest.approx(float(probe(plain)), rel=1e-3 if "float16" in str(given) else 1e-6)


def test_states_of_transformers_become_representations_as_they_come():
    reps = probes.from_arrays((TENSOR, TENSOR.clone().requires_grad_()))
    np.testing.assert_array_equal(reps.hidden, np.stack([TENSOR, TENSOR]))
    with pytest.raises(probes.InputError, match=r"expected hidden states of shape \(layer, example, feature\)"):
        probes.from_arrays((TENSOR, TENSOR[:, :3]))
    assert as_numbers([[1, 2]]).dtype.kind == "i"
    with pytest.raises(probes.InputError, match="real numbers"):
        probes.from_arrays(np.zeros((3, 2), dtype=[("a", float), ("b", float)]))


def test_representations_survive_a_zarr_store(tmp_path):
    reps = probes.from_arrays(HIDDEN, label=list("abab"), text=["ø", "中文", "عربي", "e\u0301"])
    reps.to_zarr(tmp_path / "r.zarr", consolidated=False)
    back = probes.open_representations(tmp_path / "r.zarr")
    xr.testing.assert_identical(back.load(), reps)


def test_a_path_without_representations_is_refused(tmp_path):
    with pytest.raises(probes.InputError, match=r"none.zarr: expected a zarr store that probes.capture"):
        probes.open_representations(tmp_path / "none.zarr")
    xr.Dataset({"other": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(probes.InputError, match="not complete or not one of Representations"):
        probes.open_representations(tmp_path / "other.zarr")
    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="f4")
    with pytest.raises(probes.InputError, match=r"array\.zarr: the store cannot be opened"):
        probes.open_representations(tmp_path / "array.zarr")


REPS = probes.from_arrays(HIDDEN)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (HIDDEN, r"expected Representations: an xarray.Dataset with hidden \(layer, example, feature\); found ndarray"),
        (REPS.hidden, "found DataArray"),
        (REPS.drop_vars("hidden"), "found {'example': 4, 'layer': 2}|found {'layer': 2, 'example': 4}"),
        (REPS.transpose("example", ...), "expected Representations"),
        (REPS.isel(layer=0), "expected Representations"),
        (REPS.drop_vars("id"), "without the coordinate 'id' on example"),
        (REPS.drop_vars("language"), "without the coordinate 'language' on example"),
    ],
)
def test_what_has_another_form_is_refused(given, message):
    with pytest.raises(probes.InputError, match=message):
        check_representations(given)


def test_states_and_directions_are_float64_rows_of_one_layer():
    reps = probes.from_arrays(HIDDEN.astype(np.float32))
    np.testing.assert_array_equal(states(reps, 1, slice(1, 3)), HIDDEN[1, 1:3])
    np.testing.assert_array_equal(states(reps, 0, np.array([3, 0])), HIDDEN[0, [3, 0]])
    assert states(reps, 0, slice(None)).dtype == np.float64
    np.testing.assert_allclose(directions(reps, 0, slice(None)), HIDDEN[0] / np.linalg.norm(HIDDEN[0], axis=1)[:, None])
    assert np.isnan(directions(probes.from_arrays(np.zeros((2, 3))), 0, slice(None))).all()


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("read", [states, directions])
def test_rows_of_a_layer_are_the_same_at_once_and_in_pieces(monkeypatch, small, read):
    reps = probes.from_arrays(np.random.default_rng(0).normal(size=(2, 9, 4)))
    monkeypatch.setattr("probes.states.representations._SMALL", 9 * 4 if small else 9 * 4 - 1)
    found = rows_of(reps, 1, read)
    for rows in (slice(2, 5), np.array([7, 0, 3])):
        np.testing.assert_array_equal(found(rows), read(reps, 1, rows))
    assert np.shares_memory(found(slice(0, 2)), found(slice(0, 2))) == small  # read once


def test_texts_of_few_kinds_are_in_memory_once_each():
    languages = as_strings([f"language {i % 2}" for i in range(100)])
    assert len({id(text) for text in languages}) == 2
    many = as_strings([f"id {i % 5000}" for i in range(10_000)])
    assert many.tolist() == [f"id {i % 5000}" for i in range(10_000)]
