"""What mkdocs does beside its plugins: gather the pages, link names to the reference, set formulas, check the result.

A page has the path of its file in the repository, so that one link is right there and in the site.
"""

from __future__ import annotations

import html
import logging
import posixpath
import re
import xml.etree.ElementTree as etree
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import latex2mathml.converter
import reference
from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

GATHERED = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "data/*.md",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "notebooks/assets/*",
    "notebooks/guide/**/*",
    "notebooks/images/*",
    "notebooks/reference/**/*.png",
    "notebooks/studies/*.md",
    "notebooks/studies/*.png",
    "notebooks/studies/*.csv",
)
_LOG = logging.getLogger("mkdocs.hooks")
_NAME = re.compile(rf"(?:{'|'.join(reference.PACKAGES)})(?:\.[A-Za-z_]\w*)+")
_FILE = re.compile(rf"(?:{'|'.join(reference.PACKAGES)}|tests|notebooks|data)(?:/[\w.-]+)+/?")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_FORMULA_IN_CELL = re.compile(r"(?<![\\$])(\$\$?)(?!\s)([^$]+?)(?<!\s)\1")
_LINK_IN_CELL = re.compile(r'href="([^":#]+\.(?:md|ipynb))(?=["#])')
_PROSE_OF_CELL = re.compile(r'(<div[^>]*data-mime-type="text/markdown"[^>]*>)(.*?)(</div>)', re.DOTALL)
_LOADER = re.compile(r"<script[^>]*(?:\bsrc=|type=\"(?:module|text/x-mathjax-config)\")[^>]*>.*?</script>", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the reference into the navigation, and links to them into the text."""
    for section in config.nav or []:
        if "Reference" in section:
            with _refusing():
                section["Reference"] = reference.nav()
    config.markdown_extensions.append(LinkedNames())
    return config


@event_priority(100)  # before plugins that look for their files
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Gather what the site is made of, each file at its path in the repository."""
    with _refusing():
        texts = reference.texts(import_module("probes.measures.catalogue").PROBES)
    paths = sorted({path for pattern in GATHERED for path in reference.ROOT.glob(pattern) if path.is_file()})
    for path in paths:
        place = path.relative_to(reference.ROOT).as_posix()
        files.append(File(place, str(reference.ROOT), config.site_dir, config.use_directory_urls))
    for place, text in texts.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set formulas as MathML, which browsers show without a script; make of a tutorial's cells what pages are."""
    if not page.file.src_uri.endswith(".ipynb"):
        return _FORMULA.sub(lambda found: _mathml(found[2], "$$" if found[1] == "div" else "$"), content)

    def linked(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), found[1]))
        file = files.get_file_from_path(place)
        return f'href="{file.url_relative_to(page.file) if file else found[1]}'

    def prose(cell: re.Match[str]) -> str:
        text = _FORMULA_IN_CELL.sub(lambda found: _mathml(found[2], found[1]), cell[2])
        return cell[1] + _LINK_IN_CELL.sub(linked, text) + cell[3]

    return _PROSE_OF_CELL.sub(prose, _LOADER.sub("", content))


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site with a dead link, or with a page that loads something from elsewhere."""
    site = Path(config.site_dir)
    pages = {file: _read(file) for file in sorted(site.rglob("*.html"))}
    wrong = []
    for file, page in pages.items():
        for target, loads in page.targets:
            wrong += [f"{file.relative_to(site)}: {why}: {target}" for why in _faults(target, loads, file, site, pages)]
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        found = re.findall(r"(?:url\(|@import )\s*[\"']?((?:https?:)?//[^\"')\s]+)", text)
        wrong += [f"{sheet.relative_to(site)}: loads from elsewhere: {target}" for target in found]
    if wrong:
        raise PluginError("\n".join(["The site is not whole:", *wrong]))


@contextmanager
def _refusing() -> Iterator[None]:
    """Say what is missing in the reference as mkdocs says it, without the way to where it was found out."""
    try:
        yield
    except LookupError as error:
        raise PluginError(str(error)) from error


class LinkedNames(Extension):
    """Names in backticks link to the reference; a name or file of ours that is not there fails a strict build."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Join the others after inline code is marked, and before what runs last."""
        md.treeprocessors.register(_LinkedNames(md), "linked_names", 1)


class _LinkedNames(Treeprocessor):
    def run(self, root: etree.Element) -> None:
        linked = {code for link in root.iter("a") for code in link.iter("code")}
        for parent in list(root.iter()):
            if parent.tag in ("pre", "a", "autoref"):
                continue
            for at, code in enumerate(parent):
                if code.tag != "code" or code in linked:
                    continue
                name = html.unescape(code.text or "")
                if _FILE.fullmatch(name) and not _is_there(name):
                    _LOG.warning("text names a file that is not there: %s", name)
                if not _NAME.fullmatch(name):
                    continue
                if (identifier := reference.identifier(name)) is not None:
                    link = etree.Element("autoref", identifier=identifier)
                    link.tail, code.tail = code.tail, None
                    link.append(code)
                    parent[at] = link


def _is_there(place: str) -> bool:
    return (reference.ROOT / place).exists() or any(page.startswith(place) for page in reference.texts())


class _Links(HTMLParser):
    """The anchors of a page, and what it links to or loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names, links to or loads."""
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        target = given.get("src") or given.get("href")
        if target and not (tag == "link" and given.get("rel") in ("canonical", "prev", "next")):
            self.targets.append((target, tag != "a"))


def _read(file: Path) -> _Links:
    page = _Links()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def _faults(target: str, loads: bool, file: Path, site: Path, pages: dict[Path, _Links]) -> list[str]:
    parts = urlsplit(target)
    if parts.scheme in ("http", "https") or parts.netloc:
        return ["loads from elsewhere"] if loads else []
    if parts.scheme:
        return []
    # The page for what is not found is shown at any address; its links start at the top.
    start = site if parts.path.startswith("/") else file.parent
    to = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
    if to.is_dir():
        to /= "index.html"
    if not to.exists():
        return ["dead link"]
    if parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors:
        return [] if parts.fragment.startswith("__") else ["no such anchor"]
    return []


def _mathml(formula: str, mark: str) -> str:
    return latex2mathml.converter.convert(html.unescape(formula), display="block" if mark == "$$" else "inline")
