"""How figures look on paper: the width of a column, and letters that stay letters."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar

from probes.errors import InputError

# Inches: of the columns of most journals and conferences with two, and of both together.
WIDTHS = {"single column": 3.3, "double column": 6.9}
_PAPER: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}
_before: dict[str, Any] = {}  # what the settings were before the first style


class Widths:
    """The width of figures that are not told one, in inches; None without a style."""

    default: ClassVar[float | None] = None


def style(*, width: str | float | None) -> AbstractContextManager[Any]:
    """Draw figures for paper from now on, or within a `with`: of the width of a column, with small
    letters, which stay editable text in PDF and SVG.

    Args:
        width: "single column" (3.3 inches), "double column" (6.9), or inches; None for figures as
            they are without a style. A figure with a `width=` of its own keeps that.

    Raises:
        InputError: the width is none of these.

    Notes:
        Texts of a figure of a given width are broken into lines by their measured widths, so that
        none is cut at an edge. Reports look as they do without a style.

    See also:
        `Comparison.plot`, `Comparison.to_latex`.

    Example:
        >>> import numpy as np, probes
        >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
        >>> comparison = probes.compare({"one": probes.from_arrays(x, label=y)}, probes=["snr"])
        >>> with probes.style(width="single column"):
        ...     figure = comparison.plot("snr")
        >>> float(figure.get_figwidth())
        3.3
    """
    if isinstance(width, str) and width not in WIDTHS:
        known = ", ".join(map(repr, WIDTHS))
        raise InputError(f"width={width!r}: expected {known}, inches from 1 to 100, or None")
    inches = WIDTHS[width] if isinstance(width, str) else None if width is None else checked_width(width)
    import matplotlib  # late: it takes a third of a second

    every: Any = matplotlib.rcParams
    now = {key: every[key] for key in _PAPER}
    back = ExitStack()
    back.callback(_set, now, Widths.default)
    if Widths.default is None:
        _before.update(now)
    _set(_before if inches is None else _PAPER, inches)
    return back


def _set(settings: dict[str, Any], width: float | None) -> None:
    import matplotlib

    every: Any = matplotlib.rcParams
    every.update(settings)
    Widths.default = width


def checked_width(width: object) -> float:
    """Return the width of a figure in inches; raise `InputError` where it is none."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not 1 <= width <= 100:
        raise InputError(f"width={width!r}: expected inches, from 1 to 100")
    return float(width)
