"""What a file of ours holds: values are held against a form, with one message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from probes.errors import InputError

# A type, one of several as a tuple, [form] for a list, {str: form} for any names, {"name": form} for these; a name
# that ends in "?" may be missing, and what is not named is let through.
Form = Any
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


def check_form(value: object, form: Form, where: str) -> None:
    """Raise `InputError` where a value is not of a form.

    Args:
        value: as JSON gives it.
        form: `int`, `float` (whole numbers too), `str`, `bool`, `None`, `dict`, `list`;
            `range(1, 9)` for whole numbers of that range; a tuple of forms, any of which will do;
            `[form]`, a list of such values; `{str: form}`, an object of any names;
            `{"name": form, "other?": form}`, an object of these names at least, `other` where it
            is there.
        where: what is read: the file and the key.

    Example:
        >>> check_form({"bits": 8}, {"bits": range(2, 9), "low?": float}, "config.json: quantized_inputs")
        >>> check_form([1, "2"], [int], "config.json: heads_kept")
        Traceback (most recent call last):
            ...
        probes.errors.InputError: config.json: heads_kept[1]: expected a whole number, found '2'. ...
    """
    found = _misfit(value, form, "")
    if found is not None:
        place, expected, what = found
        raise InputError(
            f"{where}{place}: expected {expected}, found {_short(what)}. The file was not written by layerscope, or "
            "was changed since: write it again, or take it from where it came from"
        )


def read_json(path: Path, form: Form) -> Any:
    """Return what a file of JSON holds, having held it against a form.

    Raises:
        InputError: it cannot be read, is no JSON, or not of the form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(str(path), error) from error
    return parse_json(text, form, str(path))


def parse_json(text: str, form: Form, where: str) -> Any:
    """Return what a text of JSON holds, having held it against a form.

    Raises:
        InputError: it is no JSON, or not of the form.

    Example:
        >>> parse_json('{"bits": 8}', {"bits": range(2, 9)}, "config.json")
        {'bits': 8}
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(where, error) from error
    check_form(value, form, where)
    return value


def _unreadable(where: str, error: Exception) -> InputError:
    said = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
    return InputError(f"{where}: not readable as JSON ({said}). Copy or write it again")


def _misfit(value: Any, form: Form, place: str) -> tuple[str, str, object] | None:
    """Where a value is not of a form, what was expected there, and what was found."""
    if isinstance(form, tuple):
        misfits = [_misfit(value, one, place) for one in form]
        if None in misfits:
            return None
        # What fits but for something inside is what was meant.
        deeper = [m for m in misfits if m is not None and m[0] != place]
        return deeper[0] if deeper else (place, _words(form), value)
    if isinstance(form, list):
        if not isinstance(value, list | tuple):
            return place, _words(form), value
        inside = (_misfit(v, form[0], f"{place}[{i}]") for i, v in enumerate(value))
        return next((m for m in inside if m is not None), None)
    if isinstance(form, Mapping):
        return _misfit_of_object(value, form, place)
    good = {
        float: isinstance(value, int | float) and not isinstance(value, bool),
        int: type(value) is int,
        None: value is None,
    }
    if isinstance(form, range):
        fits = type(value) is int and value in form
    else:
        fits = good[form] if form in good else isinstance(value, form)
    return None if fits else (place, _words(form), value)


def _misfit_of_object(value: Any, form: Mapping[Any, Form], place: str) -> tuple[str, str, object] | None:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return place, _words(form), value
    for name, inner in form.items():
        if name is str:
            named = dict.fromkeys(value, inner)
        else:
            named = {name.removesuffix("?"): inner}
            if not name.endswith("?") and name not in value:
                return place, f"the key {name!r}", sorted(value)
        for key, wanted in named.items():
            found = _misfit(value[key], wanted, f"{place}[{key!r}]") if key in value else None
            if found is not None:
                return found
    return None


def _words(form: Form) -> str:
    if isinstance(form, tuple):
        return " or ".join(map(_words, form))
    if isinstance(form, range):
        return f"a whole number of {form.start} to {form.stop - 1}"
    if isinstance(form, list) or form is list:
        return "a list"
    if isinstance(form, Mapping) or form is dict:
        return "an object"
    return _WORDS[NoneType if form is None else form]


def _short(value: object) -> str:
    shown = ascii(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
