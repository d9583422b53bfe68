"""One tab on an exporter's page: what a person, a screen reader and the network see."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains

WAIT_SECONDS = 120.0
READY = "return Boolean(document.querySelector('[data-answered] #app .verdict ~ *'))"


def slack() -> float:
    """How much longer things may take on a machine that is busy with other work."""
    with open("/proc/loadavg") as reply:
        return max(1.0, float(reply.read().split()[0]) / 2)


class Tab:
    """Drives one tab. ``exporter`` (an Exporter, or what has its ``url``) serves what it shows."""

    def __init__(self, driver: webdriver.Chrome, exporter: Any) -> None:
        self.driver = driver
        self.exporter = exporter
        self._scripts: list[str] = []
        driver.get_log("browser")
        driver.get_log("performance")

    @property
    def url(self) -> str:
        assert self.exporter.url is not None
        return self.exporter.url

    def look(
        self,
        width: int = 1440,
        height: int = 1000,
        scheme: str = "dark",
        motion: str = "no-preference",
        clock: bool = False,
    ) -> None:
        """Set the size, the colour scheme and the motion that the reader prefers. With ``clock``
        the page's clock is `tick`'s."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self._cdp("Emulation.setEmulatedMedia", features=features)
        if clock:
            source = "window.__now = 1000; performance.now = () => window.__now * 1000;"
            added = self._cdp("Page.addScriptToEvaluateOnNewDocument", source=source)
            self._scripts.append(added["identifier"])

    def go(self, path: str = "") -> None:
        self.driver.get(f"{self.url}/{path}")
        self.until(READY)

    def leave(self) -> None:
        for identifier in self._scripts:
            self._cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)
        self.driver.execute_script("try { localStorage.clear() } catch {}")
        self.driver.get("about:blank")

    def _cdp(self, command: str, **options: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, options)

    # -- looking ---------------------------------------------------------------------------

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def call(self, script: str, *arguments: Any) -> Any:
        """The value of an async function's body, which may ``await import(…)``."""
        wrapped = (
            "const done = arguments[arguments.length - 1]; (async (...given) => {"
            + script
            + "})(...arguments).then((v) => done([true, v]), (e) => done([false, String(e)]))"
        )
        good, value = self.driver.execute_async_script(wrapped, *arguments)
        assert good, value
        return value

    def until(self, script: str, *arguments: Any, seconds: float = WAIT_SECONDS) -> Any:
        """What a script returns once that is true."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.run(script, *arguments)
            if found:
                return found
            assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
            time.sleep(0.05)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText.trim())",
            selector,
        )
        return found

    def text(self, selector: str) -> str:
        (found,) = self.texts(selector)[:1] or [""]
        return found

    def shows_update(self, number: int) -> None:
        """Wait until the page has what the exporter knew of an update."""
        self.until(
            "return document.querySelector('.p-heads .note')"
            ".innerText.includes('update ' + arguments[0])",
            number,
        )

    def press(self, keys: str) -> None:
        ActionChains(self.driver).send_keys(keys).perform()

    def tick(self, seconds: float) -> None:
        """Let the page's clock go on, and wait for a drawing after that."""
        self.run("window.__now += arguments[0]", seconds)
        self.until("return Number(document.documentElement.dataset.drawn) >= window.__now")

    def picture(self) -> bytes:
        found: bytes = self.driver.get_screenshot_as_png()
        return found

    # -- what went wrong -------------------------------------------------------------------

    def requests(self) -> list[dict[str, Any]]:
        """Every answer since the last call: URL, status, bytes on the wire."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            reply = message["params"]
            if message["method"] == "Network.requestWillBeSent":
                found[reply["requestId"]] = {"url": reply["request"]["url"], "bytes": 0}
            elif message["method"] == "Network.responseReceived" and reply["requestId"] in found:
                found[reply["requestId"]]["status"] = reply["response"]["status"]
            elif message["method"] == "Network.loadingFinished" and reply["requestId"] in found:
                found[reply["requestId"]]["bytes"] = reply["encodedDataLength"]
        return list(found.values())

    def foreign(self) -> list[str]:
        """Requested addresses outside the exporter."""
        own = urlsplit(self.url).netloc
        return [
            reply["url"]
            for reply in self.requests()
            if urlsplit(reply["url"]).scheme in ("http", "https")
            and urlsplit(reply["url"]).netloc != own
        ]

    def complaints(self, allowed: Callable[[str], bool] = lambda _text: False) -> list[str]:
        """The browser console's messages since the last call: errors, violations of
        the Content-Security-Policy, warnings."""
        reply = [entry["message"] for entry in self.driver.get_log("browser")]
        return [text for text in reply if not allowed(text)]
