"""What the explorer runs in the browser: its script, joined from the pieces in front/, and its
style.
"""

from functools import cache
from importlib.resources import files

# All share the scope of one module and import nothing; the last names the regions of the others.
PIECES = (
    "helpers",
    "view",
    "steps",
    "parts",
    "controls",
    "curves",
    "maps",
    "palette",
    "points",
    "pointer",
    "sentences",
    "tokens",
    "search",
    "heats",
    "matrices",
    "whole",
)
_EXPORT = "export default { render };\n"


@cache
def script() -> str:
    """Return the explorer as one ES module whose default export is what anywidget renders.

    Example:
        >>> script().splitlines()[-1]
        'export default { render };'
    """
    return "\n".join((*_pieces(), _EXPORT))


@cache
def page_script() -> str:
    """Return the script of a saved page: the explorer, and a model that answers from the page.

    Example:
        >>> "export" in page_script()
        False
    """
    return "\n".join((*_pieces(), _read("page.js")))


@cache
def style() -> str:
    """Return the explorer's style sheet.

    Example:
        >>> ".lsc-page" in style()
        True
    """
    return _read("explorer.css")


def _pieces() -> list[str]:
    return [_read(f"{piece}.js") for piece in PIECES]


def _read(name: str) -> str:
    """A file of front/, wherever the package lies."""
    return (files("probes.views") / "front" / name).read_text(encoding="utf-8")
