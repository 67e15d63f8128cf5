"""Values are held against a form: where, what was expected, what was found."""

import pytest

from probes.errors import InputError
from probes.forms import check_form, read_json

GOOD = [
    (3, int),
    (3, float),
    (0.5, float),
    (None, None),
    ("a", (str, None)),
    (None, (str, None)),
    ([1, 2], [int]),
    ([], [int]),
    ({}, {str: int}),
    ({"a": 1}, {"a": int, "b?": str}),
    ({"a": 1, "c": object()}, {"a": int}),
    ({"x": [{"a": None}]}, {str: [{"a": (int, None)}]}),
    (8, range(2, 9)),
    ({}, dict),
    (True, bool),
]
BAD = [
    (True, int, "expected a whole number, found True"),
    (True, float, "expected a number, found True"),
    (1.5, int, "expected a whole number, found 1.5"),
    (9, range(2, 9), "expected a whole number of 2 to 8, found 9"),
    (True, range(0, 9), "expected a whole number of 0 to 8, found True"),
    ([1, "\x1b"], [int], r"[1]: expected a whole number, found '\x1b'"),
    ({"a": "x"}, {"a": int}, "['a']: expected a whole number, found 'x'"),
    ({}, {"a": int}, "expected the key 'a', found []"),
    ({"b": 1}, {"a?": int, "b": str}, "['b']: expected a text, found 1"),
    ([], dict, "expected an object, found []"),
    (3, (str, None), "expected a text or null, found 3"),
    ({"a": 3}, ({"a": str}, None), "['a']: expected a text, found 3"),
    ("x" * 100, int, "expected a whole number, found 'xxx"),
    ({3: 1}, {str: int}, "expected an object, found {3: 1}"),
]


@pytest.mark.parametrize(("value", "form"), GOOD)
def test_what_is_of_a_form_passes(value, form):
    check_form(value, form, "f.json")


@pytest.mark.parametrize(("value", "form", "message"), BAD)
def test_what_is_not_is_said_with_its_place(value, form, message):
    with pytest.raises(InputError) as caught:
        check_form(value, form, "f.json")
    assert str(caught.value).startswith("f.json")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 260


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\ud800"])
def test_a_file_that_is_no_json_is_said(tmp_path, text):
    (tmp_path / "f.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=r"f\.json: not readable as JSON"):
        read_json(tmp_path / "f.json", dict)


def test_a_file_is_read_and_held_against_a_form(tmp_path):
    (tmp_path / "f.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "f.json", {"a": int}) == {"a": 1}
    with pytest.raises(InputError, match=r"f\.json\['a'\]: expected a text, found 1"):
        read_json(tmp_path / "f.json", {"a": str})
    with pytest.raises(InputError, match=r"gone\.json: not readable as JSON"):
        read_json(tmp_path / "gone.json", dict)
