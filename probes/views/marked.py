"""Facts in the sentences that state them: marked spans, coloured by what the state before each gives its fact."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import xarray as xr

from probes.errors import InputError

MOST = 50  # sentences that are shown


class MarkedFacts:
    """Sentences with their statements marked, as a page shows them.

    The deeper the colour, the more of its probability the state before a name gives the fact that it
    states; a line below says subject, relation and object.

    Args:
        found: of `probes.facts`.
        layer: whose states; by default the last one that was measured.
        language: by default all.
        most: sentences that are shown at most.

    Raises:
        InputError: this is no such result, or it has no such layer or language.

    Example:
        >>> found = xr.Dataset(
        ...     {"chosen": (("layer", "statement"), [[0.75]])},
        ...     coords={"layer": [0], "start": ("statement", [3]), "end": ("statement", [6])}
        ...     | {k: ("statement", [k]) for k in ("subject", "relation", "object", "id", "of_language")}
        ...     | {"text": ("statement", ["On <b>"])},
        ... )
        >>> "On <mark" in MarkedFacts(found).html, "&lt;b&gt;</mark>" in MarkedFacts(found).html
        (True, True)
    """

    def __init__(
        self, found: xr.Dataset, *, layer: int | None = None, language: str | None = None, most: int = MOST
    ) -> None:
        """Make the page."""
        if not isinstance(found, xr.Dataset) or "chosen" not in found:
            raise InputError(f"expected a result of probes.facts; found {type(found).__name__}")
        layers = found["layer"].values.tolist()
        layer = layers[-1] if layer is None else layer
        if layer not in layers:
            raise InputError(f"layer={layer!r} was not measured; there are {', '.join(map(str, layers))}")
        languages = list(dict.fromkeys(found["of_language"].values))
        if language is not None and language not in languages:
            raise InputError(f"language={language!r}: there are statements in {', '.join(map(repr, languages))}")
        rows: dict[tuple[str, str], list[int]] = {}
        for number, key in enumerate(zip(found["of_language"].values, found["id"].values, strict=True)):
            if language in (None, key[0]):
                rows.setdefault(key, []).append(number)
        given = found["chosen"].sel(layer=layer).values
        shown = [_sentence(found, numbers, given) for numbers in list(rows.values())[:most]]
        more = f"<p>{len(rows) - most} more sentences are not shown.</p>" if len(rows) > most else ""
        title = f"<p>{escape(str(found.attrs.get('model', 'a model')))}, layer {layer}</p>"
        self.html = f'<div style="max-width:60em">{title}{"".join(shown)}{more}</div>'

    def _repr_html_(self) -> str:
        return self.html


def _sentence(found: xr.Dataset, numbers: list[int], given: np.ndarray) -> str:
    """A sentence: spans from left to right, of those that overlap the first."""
    values: dict[str, list[Any]] = {
        k: found[k].values[numbers].tolist() for k in ("start", "end", "subject", "relation")
    }
    objects, shares = found["object"].values[numbers], given[numbers]
    text, at, out = str(found["text"].values[numbers[0]]), 0, []
    said = []
    for k in sorted(range(len(numbers)), key=lambda k: (values["start"][k], -shares[k])):
        start, end, share = values["start"][k], values["end"][k], float(shares[k])
        told = "not known" if share != share else f"{share:.2f}"
        line = f"{values['subject'][k]}, {values['relation'][k]}, {objects[k]}: {told}"
        said.append(line)
        if start < at:
            continue
        deep = 0.0 if share != share else share
        out.append(escape(text[at:start]))
        out.append(
            f'<mark style="background:rgba(0,114,178,{0.1 + 0.6 * deep:.2f});color:inherit" title="{escape(line)}">'
            f"{escape(text[start:end])}</mark>"
        )
        at = end
    out.append(escape(text[at:]))
    below = "; ".join(map(escape, said))
    return f'<p dir="auto">{"".join(out)}<br><small dir="ltr">{below}</small></p>'
