"""Errors: one sentence for a setting that is not known; a package that is missing is named."""

import builtins
import sys
import warnings

import pytest

from probes.errors import DependencyError, InputError, LayerscopeWarning, check_choice, needed, warn_readably


def test_a_setting_that_is_known_passes():
    check_choice("scope", "unit", ("matrix", "unit"))
    check_choice("scope", "unit", dict.fromkeys(("matrix", "unit")))


@pytest.mark.parametrize(
    ("value", "otherwise", "message"),
    [
        ("x", "", "scope='x' is not known; choose one of 'matrix', 'unit'"),
        ("Matrix", "", "scope='Matrix' is not known; choose one of 'matrix', 'unit'. Did you mean 'matrix'?"),
        (3, "or give numbers", "scope=3 is not known; choose one of 'matrix', 'unit', or give numbers"),
        (["unit"], "", "scope=['unit'] is not known; choose one of 'matrix', 'unit'"),
    ],
)
def test_one_that_is_not_is_refused_with_all_that_there_are_and_the_nearest(value, otherwise, message):
    with pytest.raises(InputError) as error:
        check_choice("scope", value, ("matrix", "unit"), otherwise)
    assert str(error.value) == message


def test_a_package_that_is_missing_is_named_with_how_to_install_it():
    assert needed("json", "reading") is __import__("json")
    with pytest.raises(DependencyError, match=r"reading needs the package nothing_like_it, .* 'layerscope\[extra\]'"):
        needed("nothing_like_it", "reading", extra="extra")


def test_a_warning_of_ours_is_said_once_wherever_it_comes_from(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # as it was, afterwards
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        warn_readably()
        for _ in range(2):
            warnings.warn("ours, for a test", LayerscopeWarning, stacklevel=1)
        warnings.warn("ours, for a test", LayerscopeWarning, stacklevel=1)
    assert len(said) == 1


def test_in_a_notebook_a_warning_of_ours_has_no_path(monkeypatch):
    given = ("some text", LayerscopeWarning, "/tmp/ipykernel_1/2.py", 3)
    assert "/tmp/ipykernel_1/2.py:3: LayerscopeWarning: some text" in warnings.formatwarning(*given)
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setattr(builtins, "__IPYTHON__", True, raising=False)
    assert warnings.formatwarning(*given) == "LayerscopeWarning: some text\n"
    assert "2.py:3" in warnings.formatwarning("another's", UserWarning, *given[2:])
