"""Docstrings as the reference reads them: what this project writes in a way of its own is put as griffe knows it."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, GriffeLoader, Object

_ENTRY = re.compile(r"^ {4}(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<text>.*(?:\n+ {5}.*)*)", re.MULTILINE)
_BARE = re.compile(r"`(?!(?:probes|compress)\.)([A-Za-z_][\w.]*)`")


class Docstrings(Extension):
    """Applied to every docstring before it is parsed."""

    def on_object(self, *, obj: Object, loader: GriffeLoader, **kwargs: Any) -> None:
        """Rewrite the docstring of an object; a class says itself how it is made."""
        if obj.name == "__init__":
            obj.docstring = None
        elif obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value, obj.path.partition(".")[0])


def rewritten(text: str, package: str) -> str:
    """Give each name of `draws, seed: of the bootstrap` the whole entry, and names after `See also` their package.

    `Example` is `Examples` in griffe's words.
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    sections = re.split(r"(?m)^(?=\S.*:$)", text)
    return "".join(_read(section, package) for section in sections)


def _read(section: str, package: str) -> str:
    if section.startswith(("Args:\n", "Attributes:\n")):
        return _split(section)
    if section.startswith("See also:\n"):
        return _BARE.sub(rf"`{package}.\1`", section)
    return section


def _split(section: str) -> str:
    return _ENTRY.sub(lambda found: "\n".join(f"    {n}: {found['text']}" for n in found["names"].split(", ")), section)
