"""The README's table of architectures: what `compress.check` says of a tiny model of each in the table of parts.

python tests/compatibility.py    # writes it into the README again
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- made by tests/compatibility.py -->\n", "<!-- until here -->\n"
COLUMNS = {
    "weights": ("prune", "quantize", "product_quantize"),
    "heads": ("prune_heads",),
    "channels": ("prune_channels",),
    "layers": ("drop_layers", "distill layers"),
    "narrower": ("distill hidden_size",),
    "factors": ("factorize",),
    "fused": ("fuse",),
    "torchao": ("quantize torchao",),
    "onnxruntime": ("quantize onnxruntime",),
}
_PARTS = ("heads", "channels")  # which are never all weights


def table() -> str:
    """A row for architectures of which the same is said."""
    from architectures import make

    from compress import check
    from probes.models.parts import FAMILIES

    alike: dict[tuple[str, ...], list[str]] = {}
    for kind in FAMILIES:
        found = check(make(kind, noise=0)).set_index("verb")
        cells = tuple(_cell(name, found.loc[list(verbs)]) for name, verbs in COLUMNS.items())
        alike.setdefault(cells, []).append(kind)
    lines = [["architectures", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    lines += [[", ".join(f"`{kind}`" for kind in kinds), *cells] for cells, kinds in alike.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(name, rows) -> str:
    if not rows["possible"].all():
        return "no"
    return "part" if name not in _PARTS and rows["covers"].min() < 0.95 else "yes"


def written() -> str:
    """The table as it stands in the README."""
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() + "\n"


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    text = README.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    README.write_text(f"{before}{BEGIN}\n{table()}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
