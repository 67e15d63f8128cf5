"""Reader of the small lexicon tables that the language modules hold as text."""

import re

CONTINUED = re.compile(r"\n\s*\|")


def table(text: str, width: int) -> dict[str, tuple[str, ...]]:
    """Return key -> `width` cells; rows end at a newline or `;`, cells at `|`, missing last cells are empty.

    A line that begins with `|` continues the row above.

    Lexicons are kept as text because a speaker who checks them should read words, not brackets and quotes.
    """
    rows: dict[str, tuple[str, ...]] = {}
    for row in CONTINUED.sub(" |", text).replace("\n", ";").split(";"):
        if not row.strip():
            continue
        key, *cells = (cell.strip() for cell in row.split("|"))
        if key in rows or len(cells) > width or not cells[0]:
            raise ValueError(f"bad lexicon row: {row.strip()!r}")
        rows[key] = tuple(cells + [""] * (width - len(cells)))
    return rows


def words(text: str) -> dict[str, str]:
    """Return key -> word for a table with a single cell."""
    return {key: cells[0] for key, cells in table(text, 1).items()}


def sentence(text: str, end: str) -> str:
    """Capitalise the first letter, wherever opening punctuation leaves it, and close with `end`."""
    start = next(i for i, char in enumerate(text) if char.isalpha())
    return text[:start] + text[start].upper() + text[start + 1 :] + end
