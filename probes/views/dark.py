"""Figures on a dark page: what is black, white or grey turns, and every colour stays what its legend says."""

from __future__ import annotations

import re

PAPER, INK = 0x12, 0xE8  # what white and black become
_GREY = re.compile(r"(fill|stroke): (#([0-9a-f]{2})\3\3)(?![0-9a-f])")


def on_dark_pages_too(svg: str) -> str:
    """Return a picture of matplotlib's that turns its greys where the page is dark.

    Args:
        svg: the picture, which a page shows as an image of its own.

    Notes:
        Black is what matplotlib leaves out, so it is inherited. What has to stay black or white, as
        a number on a coloured cell, is drawn in a shade that is not quite grey.

    Example:
        >>> picture = on_dark_pages_too('<svg><path style="stroke: #ffffff"/></svg>')
        >>> picture[:48]
        '<svg><style>@media (prefers-color-scheme: dark) '
    """
    rules = [f"svg {{ fill: {_turned(0)} }}"]
    for kind, grey, shade in sorted(set(_GREY.findall(svg))):
        rules.append(f'[style*="{kind}: {grey}"] {{ {kind}: {_turned(int(shade, 16))} !important }}')
    style = f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"
    return re.sub(r"<svg\b[^>]*>", lambda opening: opening[0] + style, svg, count=1)


def _turned(shade: int) -> str:
    return "#" + f"{round(INK + (PAPER - INK) * shade / 255):02x}" * 3
