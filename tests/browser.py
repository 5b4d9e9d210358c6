"""Chromium without a window, driven over the pipe of its DevTools protocol; nothing has to be installed for that."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of a browser of its own.

    Parameters
    ----------
    path : Path
        The HTML file.
    profile : Path
        An empty folder.
    width, height : int
        Of the window, in CSS pixels.
    phone : bool
        Whether it is a phone: touched, and with three device pixels for one.
    """

    def __init__(self, path: Path, profile: Path, *, width: int = 1200, height: int = 900, phone: bool = False) -> None:
        program = chromium()
        assert program is not None
        there, ours = os.pipe()
        back, theirs = os.pipe()

        def descriptors() -> None:
            """Move our ends of the pipes to where the protocol has them."""
            for end, number in [
                (fcntl.fcntl(there, fcntl.F_DUPFD, 10), 3),
                (fcntl.fcntl(theirs, fcntl.F_DUPFD, 10), 4),
            ]:
                os.dup2(end, number)

        command = [program, "--headless=new", "--no-sandbox"]
        options = ["--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [*command, *options],
            preexec_fn=descriptors,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(theirs)
        self._write, self._read, self._left, self._number = ours, back, b"", 0
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=3 if phone else 1, mobile=phone,
        )  # fmt: skip
        if phone:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, patience: float = 60) -> dict[str, Any]:
        while b"\0" not in self._left:
            assert select.select([self._read], [], [], patience)[0], "the browser says nothing"
            read = os.read(self._read, 2**20)
            assert read, "the browser has ended"
            self._left += read
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, patience: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + patience
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} does not come true"
            time.sleep(0.05)

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, scrolled to the middle of the window."""
        self.value(f"document.querySelector('{selector}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
        shape = (
            f"(b => [b.left, b.top, b.width, b.height])(document.querySelector('{selector}').getBoundingClientRect())"
        )
        left, top, width, height = self.value(shape)
        return left, top, width, height

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at a place, move it to another, and let go."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            buttons = 0 if kind == "mouseReleased" else 1
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1)

    def click(self, selector: str) -> None:
        """Click into the middle of an element."""
        left, top, width, height = self.box(selector)
        middle = (left + width / 2, top + height / 2)
        self.drag(middle, middle)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture (PNG) of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(30)
