"""What is drawn is tested beside the figures; here, that a comparison has it."""

import probes
from probes.views.plots import Plots


def test_a_comparison_draws_its_figures():
    assert issubclass(probes.Comparison, Plots)
    assert {"plot", "plot_change", "plot_languages"} <= set(vars(Plots))
