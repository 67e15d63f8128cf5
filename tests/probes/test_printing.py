"""What would steer a terminal is shown; letters of all scripts stay."""

import pytest

from probes.printing import printable, two_digits


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("a\u202eb", r"a\u202eb"),
        ("half \ud83d", r"half \ud83d"),
        ("日本語 مرحبا שלום क्‍ष 👩‍🔬", "日本語 مرحبا שלום क्‍ष 👩‍🔬"),
        (3, "3"),
    ],
)
def test_what_steers_a_terminal_is_shown(text, shown):
    assert printable(text) == shown


def test_what_is_asked_for_stays():
    assert printable("a\n\x07", keep="\n") == "a\n\\x07"


@pytest.mark.parametrize(
    ("value", "shown"), [(100.4, "100"), (99.7, "100"), (2.0, "2"), (0.0234, "0.023"), (25.6, "26")]
)
def test_two_digits_are_no_power_of_ten(value, shown):
    assert two_digits(value) == shown
