"""How names and numbers are written for people: what would steer a terminal is shown and not obeyed."""

from __future__ import annotations

import unicodedata

# What turns the order of all that comes after it, in scripts of both directions.
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: object, keep: str = "") -> str:
    r"""Return a text with its control characters written as escapes.

    Args:
        text: anything, as `str` gives it.
        keep: control characters that stay as they are.

    Returns:
        The text: control characters, breaks of lines and paragraphs, lone surrogates and what turns
        the direction of writing as `\x1b` or `\u202e`; letters of all scripts as they are.

    Example:
        >>> print(printable("red \x1b[31m"), printable("日本語"))
        red \x1b[31m 日本語
    """
    return "".join(_escaped(c) if c not in keep and _steers(c) else c for c in str(text))


def two_digits(value: float) -> str:
    """Return a number to two digits, never as a power of ten below a million.

    Example:
        >>> two_digits(99.7), two_digits(0.1234)
        ('100', '0.12')
    """
    return f"{float(f'{value:.2g}'):g}"


def _steers(character: str) -> bool:
    return character in _TURNS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
