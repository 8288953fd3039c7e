"""Debian's Chromium without a window, spoken to over its debugging pipe: real clicks and keys, and all that it says.

The protocol is Chromium's own (https://chromedevtools.github.io/devtools-protocol); nothing needs to be installed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SECONDS = 30
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TO_3_AND_4 = "import os, sys; [os.dup2(int(sys.argv[i]), i + 2) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
"""Chromium reads its orders from file descriptor 3 and answers on 4."""


class Browser:
    """A running Chromium; `page` opens a file in a fresh tab."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]  # never 3 or 4 itself
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        command = [sys.executable, "-c", TO_3_AND_4, *map(str, given), CHROMIUM, *flags, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=given, stderr=subprocess.DEVNULL)
        for fd in (theirs_in, theirs_out, *given):
            os.close(fd)
        self.into, self.out, self.rest, self.count = ours_out, ours_in, b"", 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of one order; events that come before it are kept."""
        self.count += 1
        order = {"id": self.count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.into, json.dumps(order).encode() + b"\0")
        while "id" not in (message := self.receive()):
            self.events.append(message)
        assert message["id"] == self.count and "error" not in message, message
        return message["result"]

    def receive(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.out], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"Chromium said nothing for {SECONDS} s"
            self.rest += os.read(self.out, 1 << 20)
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def page(self, path: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        return Page(self, path, width, height, dark)

    def close(self) -> None:
        self.send("Browser.close")
        self.process.wait(SECONDS)
        for fd in (self.into, self.out):
            os.close(fd)


class Page:
    """A tab that shows one file."""

    def __init__(self, browser: Browser, path: Path, width: int, height: int, dark: bool) -> None:
        self.browser = browser
        browser.events.clear()
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[theme])
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in browser.events):
            browser.events.append(browser.receive())
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # charts are drawn

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **params)

    def resize(self, width: int, height: int) -> None:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **screen)

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """The text of each element that can be seen."""
        shown = f"[...document.querySelectorAll({json.dumps(selector)})].filter((node) => node.checkVisibility())"
        return self.run(f"{shown}.map((node) => node.innerText ?? node.textContent)")

    def click(self, selector: str, text: str = "") -> None:
        """Press the mouse on the first visible element whose text begins with `text`."""
        x, y = self._point(selector, text)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str, text: str = "") -> None:
        x, y = self._point(selector, text)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press a named key (`ArrowDown`, `Tab`, `Escape`) or type one letter."""
        code = {"Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38}
        code |= {"ArrowRight": 39, "ArrowDown": 40}
        plain = {} if key in code else {"text": key}
        number = code.get(key, ord(key[0].upper()))
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=number, **plain)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=number)

    def screenshot(self) -> bytes:
        """The page as it is seen, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

    def complaints(self) -> list[str]:
        """Everything that went to the console or was thrown."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.browser.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """The address of everything that was asked for."""
        sent = (e for e in self.browser.events if e["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def _point(self, selector: str, text: str) -> tuple[float, float]:
        return tuple(
            self.run(f"""(() => {{
                const nodes = [...document.querySelectorAll({json.dumps(selector)})];
                const fits = (node) => node.checkVisibility() && node.textContent.trim().startsWith({json.dumps(text)});
                const node = nodes.find(fits);
                node.scrollIntoView({{ block: "center", behavior: "instant" }});
                const box = node.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()""")
        )
