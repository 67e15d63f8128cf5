"""The site of `make docs`, opened from disk: it is searched without a server, and asks nothing of anyone."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

SITE = Path(__file__).parents[2] / "build/site"


@pytest.fixture
def page(browser):
    if not SITE.exists():
        pytest.skip("make docs makes the site")
    page = browser.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith("http") and page.wrong.append(request.url))
    yield page
    page.close()


def test_is_searched_from_disk(page):
    page.goto((SITE / "index.html").as_uri())
    page.locator(".md-search__input").press_sequentially("best_layer")
    found = page.locator(".md-search-result__link").filter(has_text="best_layer").first
    expect(found).to_be_visible(timeout=20_000)
    found.click()
    expect(page.locator("h2", has_text="probes.best_layer")).to_be_visible()
    assert not page.wrong


@pytest.mark.parametrize("place", ["notebooks/3_representer_points.html", "notebooks/studies/pruning.html"])
def test_shows_formulas_and_pictures_without_a_network(page, place):
    page.goto((SITE / place).as_uri())
    expect(page.locator("article math, article img").first).to_be_visible()
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert not page.wrong
