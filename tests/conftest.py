"""What all tests need of the process that they run in, and a browser for those of pages."""

import os
import shutil
import signal

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_sessionstart():
    """Hear signals: a shell that runs tests in the background has some ignored, children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        if os.environ.get("DPFC_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{message}, and DPFC_REQUIRE_BROWSER=1")
        pytest.skip(message)
    # Chromium's sandbox does not run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=arguments)
        yield running
        running.close()
