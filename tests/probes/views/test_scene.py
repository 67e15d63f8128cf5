import numpy as np
import pandas as pd
import pytest
from shown import LANGUAGES, N, cosines, every_answer

import probes
from probes.errors import InputError
from probes.views import maps
from probes.widgets import Explorer


def test_many_sentences_are_sampled_by_id_and_said():
    n = 300
    reps = probes.from_arrays(
        np.random.default_rng(0).normal(size=(1, 3 * n, 4)).astype(np.float32),
        id=np.tile(np.arange(n), 3),
        language=np.repeat(LANGUAGES, n),
    )
    widget = Explorer(reps, most=100)
    about = widget.about
    assert (about["n"], about["total"]) == (99, 900)
    assert any("99 of 900 sentences are shown" in note for note in about["notes"])
    counts = pd.Series(widget.texts["id"]).value_counts()
    assert (counts == 3).all()  # translations stay together
    rows = widget.scene.rows
    assert (np.diff(rows) > 0).all()
    # The same ids whatever the order of the rows; others by another seed.
    shuffled = reps.isel(example=np.random.default_rng(1).permutation(3 * n))
    assert set(Explorer(shuffled, most=100).texts["id"]) == set(counts.index)
    assert set(Explorer(reps, most=100, seed=1).texts["id"]) != set(counts.index)
    found = every_answer(widget)
    wanted = maps.layer_maps(reps.isel(example=rows), np.arange(99))
    np.testing.assert_array_equal(
        np.frombuffer(found["map"][0][1][0], "<u2").reshape(1, 99, 2),
        maps.to_uint16(wanted.points, maps.domain(wanted)),
    )
    x = reps["hidden"].values[0, rows]
    c = cosines(x)[0]
    c[0] = -2
    assert [f["row"] for f in widget.numbers.neighbours(0, 0)[0]["found"]] == np.argsort(-c)[:5].tolist()
    widget.selection = [counts.index[0]]
    assert reps["id"].values[widget.selection["row"]].tolist() == [counts.index[0]] * 3
    lost = next(str(i) for i in range(n) if str(i) not in counts)
    with pytest.raises(InputError, match="no sentence in the sample that is shown has the id"):
        widget.selection = [lost]


def test_models_of_other_sentences_are_refused(siblings):
    with pytest.raises(InputError, match="the two hold different sentences"):
        Explorer({"a": siblings["base"], "b": siblings["base"].isel(example=slice(10))})
    with pytest.raises(InputError, match="found an empty dict"):
        Explorer({})
    with pytest.raises(InputError, match="found int"):
        Explorer(3)


def test_sentences_in_another_order_are_put_in_one(siblings):
    mixed = siblings["near"].isel(example=np.random.default_rng(0).permutation(3 * N))
    one, other = (Explorer({"base": siblings["base"], "near": m}) for m in (siblings["near"], mixed))
    np.testing.assert_allclose(one.numbers.drift(1), other.numbers.drift(1))
    assert one.codes == other.codes
