"""What a site is refused for; needs what `make docs` installs."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mkdocs", reason="make docs installs mkdocs")
pytest.importorskip("latex2mathml", reason="make docs installs latex2mathml")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def hooks():
    sys.path.insert(0, str(NOTEBOOKS))
    try:
        spec = importlib.util.spec_from_file_location("mkdocs_hooks", NOTEBOOKS / "mkdocs_hooks.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(NOTEBOOKS))
    return module


@pytest.fixture
def built(hooks, tmp_path):
    def check(body, style=""):
        (tmp_path / "index.html").write_text(body, encoding="utf-8")
        (tmp_path / "guide").mkdir(exist_ok=True)
        (tmp_path / "guide/maps.html").write_text(
            '<h1 id="maps">Maps</h1><a href="../index.html">Home</a>', encoding="utf-8"
        )
        (tmp_path / "site.css").write_text(style, encoding="utf-8")
        hooks.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))

    return check


def test_a_whole_site_passes(built):
    built('<link href="site.css"><a href="guide/maps.html#maps">Maps</a><a href="https://example.org/">elsewhere</a>')


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('<a href="guide/map.html">Maps</a>', r"index\.html: dead link: guide/map\.html"),
        ('<img src="images/no.png">', r"index\.html: dead link: images/no\.png"),
        ('<a href="guide/maps.html#map">Maps</a>', r"index\.html: no such anchor: guide/maps\.html#map"),
        (
            '<script src="https://example.org/x.js"></script>',
            r"index\.html: loads from elsewhere: https://example\.org/x\.js",
        ),
        (
            '<link rel="stylesheet" href="//example.org/x.css">',
            r"index\.html: loads from elsewhere: //example\.org/x\.css",
        ),
    ],
)
def test_a_dead_link_and_a_page_that_loads_from_elsewhere_are_refused(hooks, built, body, message):
    with pytest.raises(hooks.PluginError, match=message):
        built(body)


def test_a_font_from_elsewhere_is_refused(hooks, built):
    with pytest.raises(hooks.PluginError, match=r"site\.css: loads from elsewhere: https://example\.org/a\.woff"):
        built("", style="@font-face { src: url('https://example.org/a.woff') }")


def test_formulas_are_set_without_a_script(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="notebooks/guide/maps.md"))
    content = hooks.on_page_content(r'<p><span class="arithmatex">\(a &lt; b\)</span></p>', page, None, None)
    assert content.startswith("<p><math ")
    assert content.endswith("</math></p>")
    page.file.src_uri = "notebooks/1.ipynb"
    cell = (
        '<script src="x.js"></script><div data-mime-type="text/markdown"><p>so $x_i$ is, <code>$PATH</code></p></div>'
    )
    content = hooks.on_page_content(cell, page, None, None)
    assert "<script" not in content
    assert "so <math " in content
    assert "$PATH" in content


def test_links_of_a_tutorial_lead_to_pages(hooks):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="notebooks/1.ipynb"))
    there = SimpleNamespace(url_relative_to=lambda file: "guide/maps.html")
    files = SimpleNamespace(get_file_from_path={"notebooks/guide/maps.md": there}.get)
    cell = (
        '<div data-mime-type="text/markdown"><a href="guide/maps.md#rows">Maps</a> <a href="guide/no.md">None</a></div>'
    )
    content = hooks.on_page_content(cell, page, None, files)
    assert '<a href="guide/maps.html#rows">' in content
    assert '<a href="guide/no.md">' in content  # a dead link, which the whole site is searched for
