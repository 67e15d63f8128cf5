import numpy as np

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
    figure = by_steps(made, "snr", None, None, None, None)
    dots = [(t.get_position()) for t in figure.axes[1].texts]
    assert (2.5, 0.5) in dots or (2.5, 1.5) in dots
    assert all(x > 2 for x, _ in dots)
    assert figure.axes[0].get_title().endswith("layer 1")
