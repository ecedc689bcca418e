"""Finds a browser for the tests of pages, and drives it."""

import contextlib
import shutil

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def browser_path():
    """Returns the path of a browser, or skips the test."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser, none of {', '.join(BROWSERS)} is installed")
    return path


@contextlib.contextmanager
def driven_browser():
    """Starts a browser without a window, which has a camera that shows a test picture; yields playwright's `Browser`."""
    path = browser_path()
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, to drive a browser")
    options = ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()
