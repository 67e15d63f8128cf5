"""The reference pages: one for each module that defines public names, at the module's own path; nothing is imported.

`mkdocs_hooks.py` builds them into the site, below notebooks/reference/. A file that is committed there at the path of a
page (derivations, simulation results) is shown below the names of that page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = "notebooks/reference"
PACKAGES = ("probes", "compress")
NAMESPACES = ("probes.widgets", "compress.objectives", "compress.training", "compress.recipes")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def public_names() -> dict[str, str]:
    """Give each public name and where it is defined: `probes.snr` and the dotted path of its definition.

    Raises:
        LookupError: a package promises a name that its files do not define.
    """
    return {
        f"{space}.{name}": where
        for space in (*PACKAGES, *NAMESPACES)
        for name in _promised(space)
        if (where := _definition(space, name)) not in NAMESPACES
    }


@cache
def pages() -> dict[str, list[str]]:
    """Give the dotted path of each module with a page and what the page shows of it, in the order of the file.

    Beside its public names a page shows the classes of its module that they give back. Folders and namespaces have a
    page too, which lists others.
    """
    shown: dict[str, list[str]] = {module: [] for module in (*PACKAGES, *NAMESPACES)}
    for where in dict.fromkeys(public_names().values()):
        module = where.rpartition(".")[0]
        for folder in _above(module):
            shown.setdefault(folder, [])
        shown.setdefault(module, []).append(where)
    for module, names in shown.items():
        names += [where for where in _given_back(module, names) if where not in names]
        order = [node.name for node in _tree(module).body if isinstance(node, _DEFINITIONS)]
        names.sort(key=lambda where: order.index(_last(where)))
    return dict(sorted(shown.items(), key=_order))


def path(module: str) -> str:
    """Give the path of a module's page from the top of the repository."""
    return f"{FOLDER}/{module.replace('.', '/')}{'/README' if _is_folder(module) else ''}.md"


def texts(declared: Iterable[Any] = ()) -> dict[str, str]:
    """Give the path of each page and its text, in Markdown.

    Args:
        declared: the declarations of all probes; each is shown on the page of the module that measures it.

    Raises:
        LookupError: a package promises a name that its files do not define, or a declaration or written part belongs to
            no page.
    """
    texts = {path(module): _text(module, names) for module, names in pages().items()}
    for probe in declared:
        module = getattr(probe.measure, "func", probe.measure).__module__  # what a `partial` is made of
        if module not in pages():
            raise LookupError(f"{probe.name} is measured in {module}, which has no page for want of a public name")
        texts[path(module)] += "\n" + _declaration(probe)
    for file in sorted((ROOT / FOLDER).rglob("*.md")):
        place = file.relative_to(ROOT).as_posix()
        if place not in texts:
            raise LookupError(f"{place} belongs to no page of the reference; its path is that of a module")
        texts[place] += "\n" + re.sub(r"\A# ", "## ", file.read_text(encoding="utf-8"))
    texts[f"{FOLDER}/README.md"] = _contents()
    return texts


def nav() -> list[str | dict[str, list]]:
    """Give the navigation of the reference as mkdocs has it: folders as the packages are, each headed by its page."""
    tree: list[str | dict[str, list]] = [f"{FOLDER}/README.md"]
    inside = {"": tree}
    for module in pages():
        above, _, name = module.rpartition(".")
        if _is_folder(module):
            inside[module] = [path(module)]
            inside[above].append({name: inside[module]})
        else:
            inside[above].append({name: path(module)})
    return tree


def identifier(name: str) -> str | None:
    """Give the anchor of a dotted name that text mentions, None for one that is there and has no page.

    A public name, or what it holds, is found where it is defined, and so is a module that has a page. A name that is
    not there at all comes back as it is, so that the site is refused for an anchor that nothing has.
    """
    public = public_names()
    for head, rest in _splits(name):
        if head in public and (not rest or _is_class(public[head])):
            return public[head] + rest
    if name in pages():
        return name
    for head, rest in _splits(name):
        if _source(head).exists():
            return None if not rest or rest.split(".")[1] in _bound(head) else name
    return name


def _text(module: str, names: list[str]) -> str:
    head = "" if names else "---\nsearch: { boost: 0.3 }\n---"  # what only lists others is found after them
    parts = [head, f"# {module} {{ #{module} }}", ast.get_docstring(_tree(module)) or ""]
    below = {_last(other): other for other in pages() if other.rpartition(".")[0] == module}
    if below:
        parts.append(_table("page", {f"[{name}]({_link(module, other)})": other for name, other in below.items()}))
    handed = {f"`{name}`": at for name, at in public_names().items() if name.rpartition(".")[0] == module}
    if handed and not names:
        parts += ["## Names", _table("name", handed)]
    parts += [_directive(where) for where in names]
    return "\n\n".join(part for part in parts if part) + "\n"


def _directive(where: str) -> str:
    """What mkdocstrings puts in place of a name, after anchors for the names that it has in public."""
    names = _names(where)
    anchors = [f"[](){{ #{name} }}" for name in names if name != where]
    options = [f"heading: {min(names, key=len, default=where)}", f"toc_label: {_last(where)}"]
    if _completes(where):
        options.append("inherited_members: true")
    directive = "\n".join([f"::: {where}", "    options:", *(f"      {option}" for option in options)])
    return "\n\n".join(["\n".join(anchors), directive] if anchors else [directive])


def _declaration(probe: Any) -> str:
    """What a probe says of itself, as a table below a heading of its own."""
    rows = {
        "estimator": probe.estimator,
        "range": probe.range,
        "better": f"{probe.better or 'neither'}; higher is {probe.higher_is}",
        "unchanged by": ", ".join(probe.unchanged_by),
        "compares with the baseline": f"yes; {probe.unchanged:g} where nothing has changed" if probe.compares else "",
        "needs": ", ".join(probe.needs),
        "interval": probe.interval,
        "measured": "by default" if probe.default else "where it is asked for",
        "paper": probe.paper,
    }
    lines = [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows.items() if text]
    return "\n".join([f"## Probe `{probe.name}`", "", f"| | {probe.title} |", "|---|---|", *lines, ""])


def _completes(where: str) -> bool:
    """Whether a class takes methods from one of ours that no page shows."""
    module, _, name = where.rpartition(".")
    node = _defined(module)[name]
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)] if isinstance(node, ast.ClassDef) else []
    shown = {at for names in pages().values() for at in names}
    for base in bases:
        with suppress(LookupError):  # one that is not ours
            if not base.startswith("_") and _definition(module, base) not in shown:
                return True
    return False


def _given_back(module: str, names: list[str]) -> list[str]:
    """The classes of a module that its public functions say they return."""
    defined = _defined(module)
    functions = (defined[_last(where)] for where in names)
    returned = {
        node.id
        for function in functions
        if isinstance(function, ast.FunctionDef) and function.returns is not None
        for node in ast.walk(function.returns)
        if isinstance(node, ast.Name)
    }
    return [f"{module}.{name}" for name in returned if isinstance(defined.get(name), ast.ClassDef) and name[0] != "_"]


def _contents() -> str:
    head = "---\nsearch: { exclude: true }\n---\n\n# Reference\n\nEvery public name, and what it does in a line.\n\n"
    shortest = {min(_names(where), key=len): where for where in public_names().values()}
    return head + _table("name", {f"`{name}`": where for name, where in sorted(shortest.items(), key=_order)}) + "\n"


def _names(where: str) -> list[str]:
    """The public names of one definition."""
    return [name for name, at in public_names().items() if at == where]


def _table(head: str, rows: dict[str, str]) -> str:
    lines = [f"| {cell} | {_summary(where)} |" for cell, where in rows.items()]
    return "\n".join([f"| {head} | |", "|---|---|", *lines])


def _summary(where: str) -> str:
    module, _, name = where.rpartition(".")
    node: ast.AST = _tree(where) if _source(where).exists() else _defined(module)[name]
    assert isinstance(node, (*_DEFINITIONS, ast.Module))
    return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _link(module: str, other: str) -> str:
    start = Path(path(module)).parent
    return Path(path(other)).relative_to(start).as_posix()


def _promised(space: str) -> list[str]:
    for node in _tree(space).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return ast.literal_eval(node.value)
    raise LookupError(f"{space} hands names on and has no __all__ that says which")


@cache
def _definition(module: str, name: str) -> str:
    """Follow imports from a module to where a name is defined."""
    if name in _defined(module):
        return f"{module}.{name}"
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and _source(node.module).exists():
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    where = f"{node.module}.{alias.name}"
                    return where if where in NAMESPACES else _definition(node.module, alias.name)
    raise LookupError(f"{module} promises {name}, and no file of this repository defines it")


def _defined(module: str) -> dict[str, ast.AST]:
    # Overloads come before the definition itself, which takes their place.
    return {node.name: node for node in _tree(module).body if isinstance(node, _DEFINITIONS)}


def _order(item: tuple[str, object]) -> tuple[int, str]:
    package, _, rest = item[0].partition(".")
    return PACKAGES.index(package), rest.lower()


def _is_class(where: str) -> bool:
    module, _, name = where.rpartition(".")
    return isinstance(_defined(module)[name], ast.ClassDef)


def _bound(module: str) -> set[str]:
    names = (
        node.id for node in ast.walk(_tree(module)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    return {*_defined(module), *names}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module).read_text(encoding="utf-8"))


def _source(module: str) -> Path:
    at = ROOT / module.replace(".", "/")
    return at / "__init__.py" if at.is_dir() else at.with_suffix(".py")


def _is_folder(module: str) -> bool:
    return _source(module).name == "__init__.py"


def _splits(name: str) -> Iterator[tuple[str, str]]:
    parts = name.split(".")
    return ((".".join(parts[:n]), "".join(f".{part}" for part in parts[n:])) for n in range(len(parts), 0, -1))


def _above(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))
