"""The house: rooms in ranks, arrows that run one way, files that can be read at a sitting, a test beside each."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the roof down: a room imports what stands below it, and nothing that stands beside it.
RANKS = """
compress compress.__main__ > compress.commands > compress.verbs > compress.recipes
> compress.distillation compress.fusion compress.tuning > compress.pruning compress.quantization compress.retrieval
> compress.training compress.factorization compress.outcomes compress.blocks > compress.objectives compress.inputs
> compress.rows compress.matrices compress.saving > compress.experts compress.kernels compress.kinds compress.packing
> compress.views compress.moments
> probes probes.__main__ > probes.watching > probes.comparison > probes.several probes.extending > probes.comparing >
probes.widgets > probes.views
> probes.measures.choice probes.measures.measuring probes.measures.own probes.measures.of_graph
probes.measures.of_names probes.measures.provenance
> probes.measures.catalogue probes.measures.workers > probes.measures.classes
probes.measures.languages probes.measures.fidelity probes.measures.space probes.measures.attribution >
probes.measures.probe probes.measures.threads > probes.results probes.costs > probes.states > probes.models
probes.corpus > probes.pitfalls > probes.streamed > probes.tables probes.alike probes.order probes.remote > probes.files
probes.command > probes.forms > probes.errors probes.silence probes.printing probes.installed
"""
RANK = {room: number for number, rooms in enumerate(RANKS.split(">")) for room in rooms.split()}
ROOF = {
    f"probes.{room}"
    for room in ("__main__", "watching", "comparison", "several", "extending", "comparing", "widgets", "views")
} | {"probes"}
PATHS = {p: p.relative_to(ROOT) for package in ("probes", "compress") for p in sorted((ROOT / package).rglob("*.py"))}
MODULES = {".".join(short.with_suffix("").parts).removesuffix(".__init__"): path for path, short in PATHS.items()}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}
PACKAGES = {module for module, path in MODULES.items() if path.name == "__init__.py"}


def imports_of(tree: ast.AST) -> set[str]:
    """The modules of the project that a file imports, at its top or later."""
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module):
        names |= {whole if (whole := f"{node.module}.{a.name}") in MODULES else str(node.module) for a in node.names}
    return names & MODULES.keys()


def room_of(module: str) -> str:
    return max((r for r in RANK if module == r or ("." in r and module.startswith(f"{r}."))), key=len)


def arrows() -> Iterator[str]:
    for module, there in ((m, t) for m, tree in TREES.items() for t in sorted(imports_of(tree))):
        one, other = room_of(module), room_of(there)
        inside = one.startswith("compress") and one != "compress.__main__"  # which has the commands of both
        if (one != other and RANK[one] >= RANK[other]) or (inside and other in ROOF):
            yield f"{module} imports {there}"


def circles() -> Iterator[str]:
    graph = {module: imports_of(tree) - {module} for module, tree in TREES.items()}
    while leaves := {module for module, below in graph.items() if not below & graph.keys()}:
        graph = {module: below for module, below in graph.items() if module not in leaves}
    yield from graph


def long_files() -> Iterator[str]:
    for path in [*PATHS, *(ROOT / "probes" / "views" / "front").glob("*.js")]:
        if len(path.read_text(encoding="utf-8").splitlines()) > 450:
            yield str(path.relative_to(ROOT))


def untested() -> Iterator[str]:
    for short in (s for s in PATHS.values() if not s.name.startswith("__")):
        if not (ROOT / "tests" / short.with_name(f"test_{short.name}")).is_file():
            yield str(short)


def not_installed() -> Iterator[str]:
    """Also packages that define something, or do not say what question they answer."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    yield from PACKAGES - set(settings["tool"]["setuptools"]["packages"])
    for module in PACKAGES:
        defined = {n.name for n in TREES[module].body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        if defined - {"__getattr__", "__dir__"} or not ast.get_docstring(TREES[module]):
            yield module


def hidden_modules() -> Iterator[str]:
    for module in PACKAGES:
        handed = [a for n in ast.walk(TREES[module]) if isinstance(n, ast.ImportFrom) for a in n.names]
        names = {f"{module}.{a.asname or a.name}" for a in handed}
        yield from names & MODULES.keys() - imports_of(TREES[module])


def private_names_elsewhere() -> Iterator[str]:
    for path in sorted({*PATHS, *ROOT.glob("tests/**/*.py"), *ROOT.glob("notebooks/**/*.py")}):
        for node in (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)):
            if (node.module or "").split(".")[0] in ("probes", "compress"):
                yield from (f"{path.name}: {a.name}" for a in node.names if a.name[0] == "_" and a.name[1] != "_")


CHECKS = [arrows, circles, long_files, untested, not_installed, hidden_modules, private_names_elsewhere]


@pytest.mark.parametrize("check", CHECKS)
def test_house(check: Callable[[], Iterator[str]]) -> None:
    assert list(check()) == []
