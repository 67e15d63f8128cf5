"""Names and scripts of languages, from the codes that corpora have: "swh_Latn" is Swahili."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from babel import Locale
from babel.core import get_global

# A language as ISO 639 or BCP 47 write it, with a script and a territory where it has them.
_CODE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")


@cache
def language_name(code: str) -> str:
    """Return the English name of a language; the code itself where it is none that is known.

    Example:
        >>> language_name("swh_Latn"), language_name("zh-Hans"), language_name("dialect 7")
        ('Swahili', 'Chinese', 'dialect 7')
    """
    language, _ = _parts(code)
    return _english().languages.get(language, code)


def language_names(codes: Sequence[str]) -> list[str]:
    """Return the names of languages, each with its script or its code where two are called the
    same.

    Example:
        >>> language_names(["zho_Hans", "zho_Hant", "fra_Latn"])
        ['Chinese (Simplified Han)', 'Chinese (Traditional Han)', 'French']
    """
    names = [language_name(code) for code in codes]
    scripted = [
        f"{name} ({script_name(code)})" if names.count(name) > 1 and name != code else name
        for name, code in zip(names, codes, strict=True)
    ]
    return [
        f"{name} ({code})" if scripted.count(long) > 1 and name != code else long
        for name, long, code in zip(names, scripted, codes, strict=True)
    ]


@cache
def script_name(code: str) -> str:
    """Return the English name of the script that a language is written in; "" where it is not
    known.

    It is the one that the code names, or the one that is likely.

    Example:
        >>> script_name("ru"), script_name("arb_Arab"), script_name("dialect 7")
        ('Cyrillic', 'Arabic', '')
    """
    language, script = _parts(code)
    if not script and language:
        likely = get_global("likely_subtags").get(language, "")
        script = next((part for part in likely.split("_")[1:] if len(part) == 4), "")
    name = _english().scripts.get(script, "")
    return f"{name} Han" if script in ("Hans", "Hant") else name  # which are called by the adjective alone


def _parts(code: str) -> tuple[str, str]:
    """The language, by the shortest code that it has, and the script of a code."""
    found = _CODE.fullmatch(code)
    if not found:
        return "", ""
    language = found[1].lower()
    known = get_global("language_aliases").get(language, language)
    return str(known).split("_")[0], (found[2] or "").title()


@cache
def _english() -> Locale:
    return Locale("en")
