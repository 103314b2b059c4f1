"""Chromium as the system has it, driven over WebDriver: what the console's tests look with."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.patience import PATIENCE

AXE = "AXE_CORE"  # the variable that names axe.min.js
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
    "--disable-dev-shm-usage",
)  # fmt: skip


def axe_source() -> str:
    """axe-core's code."""
    path = os.environ.get(AXE, "node_modules/axe-core/axe.min.js")
    if not Path(path).is_file():
        pytest.skip(f"no axe-core: npm install --no-save axe-core, or {AXE}=…/axe.min.js")
    return Path(path).read_text(encoding="utf-8")


class Browser:
    """A window; figures of what it asked and said are kept."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page, and wait for its models."""
        self.driver.get(url)

    def run(self, code: str, *given: Any) -> Any:
        """The value of a function's body; promises are waited for."""
        wrapped = (
            "const done = arguments[arguments.length - 1], given = [...arguments].slice(0, -1);"
            f"(async (...given) => {{ {code} }})(...given)"
            ".then(value => done([value]), error => done([null, String(error)]));"
        )
        value, *error = self.driver.execute_async_script(wrapped, *given)
        assert not error, error
        return value

    def text(self, selector: str) -> str:
        """What stands in an element; empty without it."""
        return str(self.run("return document.querySelector(given[0])?.innerText ?? ''", selector))

    def count(self, selector: str) -> int:
        """How many elements are shown."""
        code = "const all = [...document.querySelectorAll(given[0])];"
        shown = "return all.filter(one => one.checkVisibility()).length"
        return int(self.run(code + shown, selector))

    def click(self, selector: str, place: int = 0) -> None:
        """Click one of the elements."""
        self.driver.find_elements("css selector", selector)[place].click()

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait for what must happen."""
        give_up = time.monotonic() + PATIENCE
        while not (found := happened()):
            assert time.monotonic() < give_up, self.text("body")
            time.sleep(0.05)
        return found

    def colours(self, scheme: str) -> None:
        """What the system prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def size(self, width: int, height: int) -> None:
        """Of the page, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def said(self) -> list[str]:
        """What stands on the console since the last look.

        Calls that the server refuses are left out: the browser itself tells of each, and a page
        has no way to keep it from that.
        """
        messages = [one["message"] for one in self.driver.get_log("browser")]
        return [one for one in messages if not ("/v1/tasks/" in one and "(Bad Request)" in one)]

    def asked(self) -> set[str]:
        """Addresses that were asked since the last look."""
        events = [
            json.loads(one["message"])["message"] for one in self.driver.get_log("performance")
        ]
        return {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }


@contextmanager
def chromium(folder: Path, language: str = "en-US") -> Iterator[Browser]:
    """A browser with a profile of its own; skips where there is none.

    Args:
        folder: for the profile.
        language: that it prefers.
    """
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="no selenium: pip install selenium"
    )
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--lang={language}", f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = binary
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_script_timeout(PATIENCE)
    try:
        yield Browser(started)
    finally:
        started.quit()
