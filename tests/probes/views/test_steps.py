import numpy as np
import pytest

import probes
from probes.views.steps import by_steps


def test_the_map_marks_what_changed_and_what_has_no_layer_has_none():
    label = np.tile(np.arange(3), 30)
    rng = np.random.default_rng(0)
    run = {}
    for step, far in {0: 1.0, 5: 1.0, 10: 4.0}.items():
        layers = [rng.normal(size=(90, 6)), rng.normal(size=(90, 6)) + far * np.eye(6)[label]]
        run[step] = probes.from_arrays(np.stack(layers), label=label)
    made = probes.compare({"run": probes.series(run)}, probes=["snr"], draws=60, progress=False)
    figure = by_steps(made, "snr", None, None, None)
    dots = [(t.get_position()) for t in figure.axes[1].texts]
    assert (2.5, 0.5) in dots or (2.5, 1.5) in dots
    assert all(x > 2 for x, _ in dots)
    assert figure.axes[0].get_title().endswith("layer 1")


def test_dots_on_dark_cells_are_light_and_on_light_ones_dark():
    label = np.tile(np.arange(3), 30)
    rng = np.random.default_rng(0)
    run = {s: probes.from_arrays(rng.normal(size=(2, 90, 6)) + f * np.eye(6)[label], label=label) for s, f in FAR}
    made = probes.compare({"run": probes.series(run)}, probes=["snr"], draws=60, progress=False)
    axis = by_steps(made, "snr", None, None, None).axes[1]
    heat, seen = axis.collections[0], set()
    assert axis.texts
    for text in axis.texts:
        x, y = (int(at) for at in text.get_position())
        ground = heat.to_rgba(heat.get_array())[y, x, :3] @ [0.2126, 0.7152, 0.0722]
        ink = int(text.get_color()[1:3], 16) / 255
        assert abs(ink - ground) > 0.4
        seen.add(ink > 0.5)
    assert seen == {True, False}


FAR = [(0, 1.0), (10, 2.2), (20, 8.0)]


def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return np.sum((x.T @ y) ** 2) / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)


def test_similarity_between_steps_is_that_of_their_states():
    x = np.random.default_rng(0).normal(size=(3, 2, 40, 5))
    x[2, 1] = 3 * x[1, 0]  # of the last step the last layer is the first one of the step before
    run = probes.series([(step, probes.from_arrays(states)) for step, states in zip((0, 5, 10), x, strict=True)])
    made = probes.compare({"base": probes.from_arrays(x[0]), "run": run}, probes=["norm"], draws=2, progress=False)
    wanted = {"before": [(0, 1), (1, 2)], "first": [(0, 1), (0, 2)], "baseline": [(0, 0), (0, 1), (0, 2)]}
    for against, pairs in wanted.items():
        figure = made.plot_step_similarity(against=against)
        for axis, (other, own) in zip(figure.axes, pairs, strict=False):
            found = axis.collections[0].get_array()
            np.testing.assert_allclose(found, [[cka(a, b) for b in x[other]] for a in x[own]], atol=1e-10)
    assert made.plot_step_similarity().axes[1].collections[0].get_array()[1, 0] == pytest.approx(1)
    assert len(made.plot_step_similarity(steps=[10]).axes) == 2  # and the colour bar
    made.representations.pop("run 5")
    for how, message in (
        ({}, "the states of 'run 5' are not at hand, as after opening"),
        ({"against": "last"}, "against='last'"),
        ({"measure": "x"}, "measure='x'"),
        ({"steps": [3]}, "steps: 3 is compared with none; there are 5, 10"),
        ({"steps": [0]}, "steps: 0 is compared with none"),
    ):
        with pytest.raises(probes.InputError, match=message):
            made.plot_step_similarity(**how)
