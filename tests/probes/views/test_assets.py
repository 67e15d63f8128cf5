"""The pieces of the explorer's script, joined."""

import re
import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

from probes.views.assets import PIECES, page_script, script, style

FRONT = {file.name: file.read_text(encoding="utf-8") for file in (files("probes.views") / "front").iterdir()}
BEFORE_ALL = re.compile(r"^(?:async )?(const|let|var|class|function) (\w+|[\[{].*)", re.M)  # outside any function


def test_every_file_is_used_and_every_piece_is_there():
    assert set(FRONT) == {*(f"{piece}.js" for piece in PIECES), "page.js", "explorer.css"}
    assert style() == FRONT["explorer.css"]


def test_the_pieces_join_to_one_module_that_exports_once():
    assert re.findall(r"^(?:export|import)\b.*", script(), re.M) == ["export default { render };"]
    assert script().endswith("\nexport default { render };\n")
    at = [script().index(FRONT[f"{piece}.js"]) for piece in PIECES]
    assert at == sorted(at)


def test_a_page_has_the_pieces_and_what_stands_for_the_notebook():
    shared = script().removesuffix("export default { render };\n")
    assert page_script() == shared + FRONT["page.js"]
    assert "</" not in re.sub(r"//.*", "", page_script())  # it lies in a <script> of the page


def test_no_name_is_given_twice_and_nothing_of_an_explorer_lies_outside_it():
    given = BEFORE_ALL.findall(script())
    names = [name for _, name in given]
    assert "render" in names
    assert sorted(set(names)) == sorted(names)
    assert {kind for kind, _ in given} == {"const", "function"}  # what can be set anew would be shared by all explorers


def test_it_asks_nobody_for_anything():
    # What VS Code, Colab and others need: no loader, no other module, nothing from a network.
    code = re.sub(r"^\s*//.*|/\*.*?\*/", "", script(), flags=re.M | re.S)
    assert not re.findall(
        r"\brequire\s*\(|\bdefine\s*\(|\bimport\s*[({]|\bfetch\s*\(|XMLHttpRequest|WebSocket|\beval\(", code
    )
    assert set(re.findall(r"https?://[^\"'` ]+", script() + style())) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"@import|url\(", style())


def test_an_installed_package_carries_them():
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["probes.views.front"]
    assert "probes.views.front" in settings["tool"]["setuptools"]["packages"]
    assert [name for name in FRONT if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_no_piece_is_too_long_to_read():
    assert {name: text.count("\n") for name, text in FRONT.items() if text.count("\n") > 450} == {}
