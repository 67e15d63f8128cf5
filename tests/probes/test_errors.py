"""Errors: one sentence for a setting that is not known; a package that is missing is named."""

import pytest

from probes.errors import DependencyError, InputError, check_choice, needed


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
