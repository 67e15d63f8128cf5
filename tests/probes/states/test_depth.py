"""Which layer stands beside which: by number, by what was kept, or by share of the depth."""

import numpy as np
import xarray as xr

import probes
from probes.states.depth import baseline_layers, beside


def of_depth(layers: int, made_of: list[int] | None = None) -> xr.Dataset:
    states = np.arange(layers)[:, None, None] * np.ones((layers, 4, 2))
    return probes.from_arrays(states).assign_attrs({} if made_of is None else {"made_of": made_of})


def test_equally_deep_models_go_by_number() -> None:
    assert baseline_layers(of_depth(5), of_depth(5)) == {i: i for i in range(5)}
    assert baseline_layers(of_depth(5), of_depth(5).sel(layer=[0, 3])) == {0: 0, 3: 3}


def test_a_shallow_one_goes_by_share_of_the_depth_the_last_with_the_last() -> None:
    assert baseline_layers(of_depth(13), of_depth(7)) == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 12}
    assert baseline_layers(of_depth(13), of_depth(5)) == {0: 0, 1: 3, 2: 6, 3: 9, 4: 12}


def test_a_deeper_one_too() -> None:
    assert baseline_layers(of_depth(3), of_depth(5)) == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2}


def test_what_a_compression_kept_goes_with_what_it_was_made_of() -> None:
    assert baseline_layers(of_depth(13), of_depth(4, [0, 1, 11])) == {0: 0, 1: 1, 2: 2, 3: 12}


def test_two_that_were_made_of_one_meet_where_they_are_made_of_the_same() -> None:
    assert baseline_layers(of_depth(5, [0, 2, 3, 7]), of_depth(4, [2, 3, 5])) == {0: 0, 1: 2, 2: 3}


def test_a_record_that_does_not_fit_the_baseline_is_not_followed() -> None:
    assert baseline_layers(of_depth(4), of_depth(3, [0, 11])) == {0: 0, 1: 2, 2: 3}


def test_layers_that_were_not_captured_have_no_partner() -> None:
    assert baseline_layers(of_depth(13).sel(layer=[0, 12]), of_depth(7)) == {0: 0, 6: 12}


def test_a_model_of_embeddings_alone() -> None:
    assert baseline_layers(of_depth(4), of_depth(1)) == {0: 0}


def test_beside_are_the_same_numbers_and_the_states_of_each() -> None:
    base, other = beside(of_depth(13), of_depth(7))
    assert base["layer"].values.tolist() == other["layer"].values.tolist() == list(range(7))
    assert base["hidden"].values[:, 0, 0].tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert other["hidden"].values[:, 0, 0].tolist() == list(range(7))
