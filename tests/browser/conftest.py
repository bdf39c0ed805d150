"""A headless Chromium of the system; nothing is downloaded. $PARETRIM_SCREENSHOTS names a folder for screenshots."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs a browser and its driver: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = browser
    # Chromium's sandbox does not work for root; the pages here are our own.
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    profile = f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--window-size=1280,900", profile, *sandbox):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = Chrome(options=options, service=Service(driver))
    yield window
    window.quit()


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """The window, empty, in light colours, and with an empty console."""
    chromium.get("about:blank")
    _colour_scheme(chromium, "light")
    chromium.get_log("browser")
    yield chromium
    chromium.execute_cdp_cmd("Network.disable", {})


@pytest.fixture
def dark(browser: Chrome) -> None:
    _colour_scheme(browser, "dark")


@pytest.fixture
def screenshot(browser: Chrome, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Returns what keeps a picture of the window under a name; one more is kept of how the test ended."""
    folder = Path(os.environ.get("PARETRIM_SCREENSHOTS", tmp_path))
    test = re.sub(r"\W+", "-", request.node.name)

    def keep(name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(folder / f"{test}-{name}.png"))

    yield keep
    keep("end")


def _colour_scheme(window: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
