"""One JupyterLab and one browser for all tests."""

import pytest
from browser.lab import Notebook, Server, chromium, opened
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("jupyterlab"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def open_notebook(browser, server):
    """Return a function that opens a notebook, to be used in a with statement."""
    return lambda path, **context: opened(Notebook(browser, server, path, **context))
