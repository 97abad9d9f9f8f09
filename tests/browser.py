"""A headless Chromium for tests, where there is one: it opens a page, runs expressions in it and takes pictures.

Which one: the program that ``HEAD_TRACK_BROWSER`` names, or the first that is on the path. WebGL runs on the CPU.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

VARIABLE = "HEAD_TRACK_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = (
    "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-first-run", "--lang=en-US", "--remote-debugging-port=0",
)  # fmt: skip


def browser() -> Path | None:
    """The browser's program."""
    named = os.environ.get(VARIABLE)
    found = named if named else next(filter(None, map(shutil.which, _NAMES)), None)
    return Path(found) if found else None


def why_not() -> str | None:
    """Why tests have to do without."""
    if browser() is None:
        return f"no Chromium: set {VARIABLE} to one to take pictures of pages"
    return None if find_spec("websockets") else "websockets is not installed (it comes with viser)"


class Page:
    """One open page. ``requests`` are the addresses it asked for, ``errors`` what went wrong in its scripts."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._last = socket, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str, width: int, height: int) -> None:
        """Go to an address, in a window of that size."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._call("Page.navigate", url=address)

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"{expression} is not true after {seconds} s; errors: {self.errors}"
            time.sleep(0.3)

    def picture(self, path: Path | None = None) -> bytes:
        """What the window shows, PNG."""
        data = base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def _call(self, method: str, **values: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": values}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("id") == self._last:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        event, values = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(values["exceptionDetails"].get("exception", {}).get("description", values)))
        elif event == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(values["entry"]["text"])


@contextmanager
def open_page() -> Iterator[Page]:
    """A browser with an empty page, gone afterwards."""
    from websockets.sync.client import connect

    with TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        # where no language is set, scripts get one that their own functions refuse
        environment = {**os.environ, "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8", "LANGUAGE": "en_US"}
        command = [str(browser()), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(process, Path(profile)), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen, profile: Path) -> str:
    """The page's socket."""
    from urllib.request import urlopen

    port = profile / "DevToolsActivePort"
    end = time.monotonic() + 60
    while not port.is_file() or len(port.read_text().splitlines()) < 2:
        assert process.poll() is None and time.monotonic() < end, "the browser does not start"
        time.sleep(0.2)
    number = port.read_text().splitlines()[0]
    while time.monotonic() < end:
        with urlopen(f"http://127.0.0.1:{number}/json/list", timeout=20) as answer:
            pages = [p for p in json.load(answer) if p["type"] == "page"]
        if pages:
            return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.2)
    raise AssertionError("the browser shows no page")
