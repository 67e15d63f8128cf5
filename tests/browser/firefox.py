"""Firefox as Debian has it, driven by its own remote protocol (WebDriver BiDi): no driver of its own is needed."""

import base64
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from browser.lab import WAIT, until
from websocket import WebSocket, create_connection

# A fresh profile that asks nobody for anything.
PREFERENCES = {
    "app.update.auto": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage": "about:blank",
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.active-protocols": 1,
    "toolkit.telemetry.enabled": False,
}


def there() -> str | None:
    """Where Firefox is, if it is anywhere."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """A page in Firefox, of which every error and every request is noted."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 1000) -> None:
        """Start it with an empty page."""
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "user.js").write_text("\n".join(lines))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [str(there()), "--headless", "--no-remote", "--profile", str(folder), f"--width={width}"]
        command += [f"--height={height}", f"--remote-debugging-port={port}"]
        with (folder / "firefox.log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.sent = 0
        self.socket: WebSocket = until(lambda: self._connected(port), "Firefox answers")
        self.version = self.ask("session.new", capabilities={})["capabilities"]["browserVersion"]
        self.ask("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.page = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def _connected(self, port: int) -> WebSocket | None:
        assert self.process.poll() is None, "Firefox ended"
        try:
            return create_connection(f"ws://127.0.0.1:{port}/session", timeout=WAIT, suppress_origin=True)
        except OSError:
            return None

    def ask(self, method: str, **given: Any) -> Any:
        """Return what a command gives; note what is said meanwhile."""
        self.sent += 1
        self.socket.send(json.dumps({"id": self.sent, "method": method, "params": given}))
        while True:
            heard = json.loads(self.socket.recv())
            if heard.get("id") == self.sent:
                assert heard["type"] == "success", heard
                return heard["result"]
            self._note(heard.get("method"), heard.get("params", {}))

    def _note(self, method: str | None, said: dict[str, Any]) -> None:
        if method == "log.entryAdded" and said["level"] == "error":
            self.errors.append(said["text"])
        elif method == "network.beforeRequestSent" and not said["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(said["request"]["url"])

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self.ask("browsingContext.navigate", context=self.page, url=url, wait="complete")

    def value(self, expression: str) -> Any:
        """Return the value of an expression that JSON can hold."""
        code = f"JSON.stringify({expression})"
        found = self.ask("script.evaluate", expression=code, target={"context": self.page}, awaitPromise=True)
        assert found["type"] == "success", found
        text = found["result"].get("value")
        return None if text is None else json.loads(text)

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        until(lambda: self.value(f"Boolean({expression})"), expression)

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("input.performActions", context=self.page, actions=[{"type": "key", "id": "keys", "actions": actions}])

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, move it to all others, and let it go."""
        move = [{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in places]
        actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
        one = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.ask("input.performActions", context=self.page, actions=[one])

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.ask("browsingContext.captureScreenshot", context=self.page)["data"]))

    def close(self) -> None:
        """End it."""
        try:
            self.ask("session.end")
            self.socket.close()
        finally:
            self.process.terminate()
            self.process.wait(WAIT)
