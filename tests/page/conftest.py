"""A real Chromium for the tests of the page, driven by Selenium; one for all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from esper_exporter import Exporter
from page.browser import Tab

REBOUND = "rebound.example"
"""A name that the browser resolves to the loopback, as after DNS rebinding."""
MISSING = "{} is needed to look at the page: apt-get install chromium chromium-driver"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(MISSING.format(name))
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = _program("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1440,1000",
        "--enable-precise-memory-info",
        "--js-flags=--expose-gc",
        f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def show(chromium: webdriver.Chrome) -> Iterator[Callable[..., Tab]]:
    """Serves an exporter and opens its page; both end with the test."""
    with ExitStack() as stack:

        def opened(exporter: Exporter, path: str = "", **looks: object) -> Tab:
            exporter.start()
            stack.callback(exporter.close)
            tab = Tab(chromium, exporter)
            stack.callback(tab.leave)
            tab.look(**looks)
            tab.go(path)
            return tab

        yield opened
