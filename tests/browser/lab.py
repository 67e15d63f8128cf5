"""A JupyterLab and a browser that use nothing of the user's, and a notebook that is open in them.

Used by the tests in this folder, by screenshots.py and by tests/benchmarks/bench_explorer.py.
"""

import ast
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import BlockingKernelClient
from playwright.sync_api import Browser, ConsoleMessage, Playwright, Request, expect

# Seconds: a busy machine is slow, and nobody waits so long where it is not.
WAIT = int(os.environ.get("BROWSER_WAIT", "120"))
TESTS = Path(__file__).parents[1]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=WAIT * 1000)


def until(holds: Callable[[], Any], what: str) -> Any:
    """Ask again and again until it holds; return what was answered."""
    deadline = time.monotonic() + WAIT
    while True:
        if answer := holds():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {WAIT} s still not: {what}; {answer!r}")
        time.sleep(0.05)


def chromium(playwright: Playwright) -> Browser:
    """Start Debian's Chromium, or another that is in PATH, with a fresh profile."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("There is no chromium. Install it: apt-get install chromium")
    return playwright.chromium.launch(executable_path=path, args=FLAGS)


class Watched:
    """A page of which every request and every error in the console is noted."""

    def __init__(self, browser: Browser, **context: Any) -> None:
        """Open an empty page. Its context is its own: no cookies, no cache, no storage."""
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT * 1000)
        self.errors: list[str] = []
        self.forgives: Callable[[str], bool] = lambda error: False
        self.requests: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error.stack or error)))
        self.context.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.requests.append(request.url)

    def close(self) -> None:
        """Close the page; its errors and requests can still be read."""
        self.context.close()


class Server:
    """A JupyterLab on a free port, with its settings, kernels and notebooks in one folder."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it answers."""
        self.root, self.runtime = folder / "notebooks", folder / "runtime"
        config = folder / "config"
        (config / "labconfig").mkdir(parents=True)
        self.root.mkdir()
        # As by `jupyter labextension disable`: the news would be asked for over the network, and pop up.
        disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
        (config / "labconfig" / "page_config.json").write_text(json.dumps(disabled))
        places = {
            "JUPYTER_CONFIG_DIR": config,
            "JUPYTER_DATA_DIR": folder / "data",
            "JUPYTER_RUNTIME_DIR": self.runtime,
            "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
            "IPYTHONDIR": folder / "ipython",
            "JUPYTER_NO_CONFIG": "",
            "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "passive",
        }
        self.token = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={self.root}"]
        command += [f"--IdentityProvider.token={self.token}", "--LabApp.expose_app_in_browser=True"]
        command += ["--LabApp.extension_manager=readonly", "--LabServerApp.blacklist_uris="]
        self.log = folder / "jupyterlab.log"
        with self.log.open("w") as log:
            environment = os.environ | {k: str(v) for k, v in places.items() if v}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self.url = until(self._address, f"JupyterLab runs; see {self.log}")
        until(self._answers, f"JupyterLab answers; see {self.log}")

    def _address(self) -> str:
        """What the server wrote down itself: it takes another port where the one it was given is in use."""
        assert self.process.poll() is None, self.log.read_text()
        found = self.runtime / f"jpserver-{self.process.pid}.json"
        try:
            return f"http://127.0.0.1:{json.loads(found.read_text())['port']}" if found.exists() else ""
        except json.JSONDecodeError:
            return ""

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/api/sessions")
        except OSError:
            return False
        return True

    def ask(self, method: str, path: str) -> Any:
        """Return what the server's REST interface says."""
        headers = {"Authorization": f"token {self.token}"}
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, method=method, headers=headers), timeout=WAIT
        ) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def write(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells; return its path for the server."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / f"{name}.ipynb")
        return f"{name}.ipynb"

    def shut_down(self, path: str) -> None:
        """End the kernel of a notebook."""
        for session in self.ask("GET", "/api/sessions"):
            if session["path"] == path:
                self.ask("DELETE", f"/api/sessions/{session['id']}")

    def close(self) -> None:
        """End the server and its kernels."""
        for session in self.ask("GET", "/api/sessions"):
            self.ask("DELETE", f"/api/sessions/{session['id']}")
        self.process.terminate()
        self.process.wait(WAIT)


class Kernel:
    """The kernel behind a notebook, asked beside the page by a client of our own."""

    def __init__(self, server: Server, path: str) -> None:
        """Connect to it."""
        found = [s["kernel"]["id"] for s in server.ask("GET", "/api/sessions") if s["path"] == path]
        self.client = BlockingKernelClient(connection_file=str(server.runtime / f"kernel-{found[0]}.json"))
        self.client.load_connection_file()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT)

    def _execute(self, code: str, **wanted: str) -> dict[str, Any]:
        given = self.client.execute(
            code, silent=True, store_history=False, user_expressions=wanted, reply=True, timeout=WAIT
        )["content"]
        assert given["status"] == "ok", "\n".join(given.get("traceback", [str(given)]))
        return given.get("user_expressions", {})

    def run(self, code: str) -> None:
        """Run code; raise what it raises."""
        self._execute(code)

    def value(self, expression: str) -> Any:
        """Return the value of an expression that JSON can hold."""
        given = self._execute("import json as _json", value=f"_json.dumps({expression})")["value"]
        assert given["status"] == "ok", "\n".join(given["traceback"])
        return json.loads(ast.literal_eval(given["data"]["text/plain"]))

    def until(self, expression: str) -> None:
        """Wait until an expression is true: what the page says reaches the kernel in its own time."""
        until(lambda: self.value(f"bool({expression})"), expression)


class Notebook(Watched):
    """A notebook that is open in JupyterLab."""

    FIND = "path => [...jupyterapp.shell.widgets('main')].find(one => one.context?.path === path)"

    def __init__(self, browser: Browser, server: Server, path: str, **context: Any) -> None:
        """Open it, and wait until its kernel has nothing to do."""
        super().__init__(browser, **{"viewport": {"width": 1400, "height": 1100}} | context)
        self.server, self.path = server, path
        self.page.goto(f"{server.url}/lab/tree/{path}?token={server.token}&reset")
        self.page.wait_for_function(
            f"path => window.jupyterapp && ({self.FIND})(path)?.sessionContext.session?.kernel?.status === 'idle'",
            arg=path,
        )
        self._kernel: Kernel | None = None

    @property
    def kernel(self) -> Kernel:
        """The kernel, asked directly."""
        self._kernel = self._kernel or Kernel(self.server, self.path)
        return self._kernel

    def command(self, name: str, timeout: float = WAIT, **arguments: Any) -> None:
        """Run a command of JupyterLab, as its menus do, and wait until it is done."""
        self.page.evaluate(
            """([name, given]) => {
                window.lscDone = null;
                const said = (text) => { window.lscDone = text; };
                jupyterapp.commands.execute(name, given).then(() => said("done"), (error) => said(String(error)));
            }""",
            [name, arguments],
        )
        self.page.wait_for_function("window.lscDone !== null", timeout=timeout * 1000)
        assert self.page.evaluate("window.lscDone") == "done", self.page.evaluate("window.lscDone")

    def run_all(self, timeout: float = WAIT) -> None:
        """Run All Cells, wait until all are done, and see to it that none failed."""
        self.command("notebook:run-all-cells", timeout)
        cells = [cell for cell in self.cells() if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
        self._went_well(cells)

    def run(self, cell: int) -> None:
        """Run one cell again."""
        self.page.evaluate(f"([path, i]) => {{ ({self.FIND})(path).content.activeCellIndex = i; }}", [self.path, cell])
        self.command("notebook:run-cell")
        self._went_well([self.cells()[cell]])

    @staticmethod
    def _went_well(cells: Sequence[dict[str, Any]]) -> None:
        for cell in cells:
            for output in cell["outputs"]:
                assert output["output_type"] != "error", "\n".join(output["traceback"])
            assert cell["execution_count"], "".join(cell["source"])

    def cells(self) -> list[dict[str, Any]]:
        """Return the notebook's cells with their outputs, as they would be saved."""
        return self.page.evaluate(f"path => ({self.FIND})(path).content.model.toJSON().cells", self.path)

    def close(self) -> None:
        """Close the page and end the kernel."""
        if self._kernel is not None:
            self._kernel.client.stop_channels()
        super().close()
        self.server.shut_down(self.path)


@contextmanager
def opened(watched: Watched) -> Iterator[Any]:
    """Close a page in the end, and see to it that it had no errors and asked for nothing outside this machine."""
    try:
        yield watched
    finally:
        watched.close()
    assert [error for error in watched.errors if not watched.forgives(error)] == []
    home = ("file://", watched.server.url) if isinstance(watched, Notebook) else ("file://",)
    assert [url for url in watched.requests if not url.startswith(home)] == []
