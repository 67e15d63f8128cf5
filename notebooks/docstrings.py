"""Docstrings as the reference reads them: what this project writes in a way of its own is put as griffe knows it."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, GriffeLoader, Object

_ENTRY = re.compile(r"^ {4}(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)+): (?P<text>.*(?:\n+ {5}.*)*)", re.MULTILINE)


class Docstrings(Extension):
    """Applied to every docstring before it is parsed."""

    def on_object(self, *, obj: Object, loader: GriffeLoader, **kwargs: Any) -> None:
        """Rewrite the docstring of an object; a class says itself how it is made."""
        if obj.name == "__init__":
            obj.docstring = None
        elif obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """Give each name of `draws, seed: of the bootstrap` the whole entry; griffe's word for `Example` is `Examples`."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    sections = re.split(r"(?m)^(?=\S.*:$)", text)
    return "".join(_split(part) if part.startswith(("Args:\n", "Attributes:\n")) else part for part in sections)


def _split(section: str) -> str:
    return _ENTRY.sub(lambda found: "\n".join(f"    {n}: {found['text']}" for n in found["names"].split(", ")), section)
