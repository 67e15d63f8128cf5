"""The README says of architectures what is so."""

import pytest
from compatibility import table, written

import probes


@pytest.mark.filterwarnings("ignore::probes.LayerscopeWarning")
def test_the_readme_has_the_table_that_check_makes():
    assert written() == table(), "run python tests/compatibility.py"
    assert probes.check.__doc__
