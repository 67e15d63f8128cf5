"""Do 95 % intervals hold what they are for 95 % of the time, no wider than they have to be? On planted data.

A sample of what `make calibration` counts; more of it, and real states, are on the reference pages.
"""

import pytest
import xarray as xr
from calibration.designs import PLAIN, designs
from calibration.sampled import counted, large_values, outcomes

QUICK = [d for d in designs() if d.words in (PLAIN, "translations share 0.5")]
# Where nearest neighbours and centroids are found anew.
TOO_WIDE_DIFFERENCES = 1.7


@pytest.mark.filterwarnings("ignore::probes.errors.LayerscopeWarning")
@pytest.mark.parametrize("design", QUICK, ids=lambda design: design.words)
def test_intervals_hold_what_they_are_for_and_are_as_wide_as_they_have_to_be(design):
    found = [outcomes(design, design.names, 150, 1, seed) for seed in range(10)]
    large = large_values(design, design.names)
    for name in design.names:
        whole = xr.concat([one[name] for one in found], "set")
        figures = counted(design, 150, whole, large.get(name))
        cells = f"{name}: {figures}"
        assert figures["holds"] >= 0.90, cells
        assert figures["difference_holds"] >= 0.90, cells
        assert figures["holds"] <= 0.99, cells
        assert figures["width"] >= 0.85, cells
        assert figures["width"] <= 1.3, cells
        assert figures["difference_width"] <= TOO_WIDE_DIFFERENCES, cells
        # The copies are equal but for independent noise.
        assert figures["rejects"] <= 0.09, cells
        assert figures["rejects_any"] <= 0.2, cells
