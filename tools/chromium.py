"""Chromium, by Playwright: for printing the book, and for the tests in a browser."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright, *more: str) -> Browser:
    """Start the system's Chromium, or else the one that Playwright installed, quiet towards the network.

    Args:
        more: further arguments of its command line.

    Raises:
        playwright.sync_api.Error: if there is neither.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return playwright.chromium.launch(executable_path=found, args=[*OFFLINE, *more])
