"""Fixtures for tests in a browser: Chromium without a network, and pages that hold widgets.

What only they need is imported by them: the tests of the package go without a browser, Sphinx and the widgets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from ssdlib.widgets import BookWidget

PAPER = {"light": "background: white; color: black", "dark": "background: #121212; color: white"}

# A camera that shows a moving picture of its own, and that pages get without asking.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: the system's, or else the one that Playwright installed."""
    pytest.importorskip("playwright", reason="no Playwright for the tests in a browser")
    import chromium
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            started = chromium.launch(playwright, *CAMERA)
        except Error as error:
            pytest.skip(f"no Chromium for the tests in a browser: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens an address with all else blocked; an error on the page, or a request to elsewhere, fails the test."""
    problems: list[str] = []
    contexts = []

    def open_(address: str, *, width: int = 1280, height: int = 900, theme: str = "light", **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme, **options)
        contexts.append(context)
        page = context.new_page()
        own = address.split("/")[2]  # the host, which is empty for a file

        def route(request: Any) -> None:
            outside = request.request.url.split("/")[2:3] != [own] and not request.request.url.startswith("data:")
            if outside:
                problems.append(f"asked for {request.request.url}")
            request.abort() if outside else request.continue_()

        context.route("**/*", route)
        page.on("pageerror", lambda error: problems.append(f"error on the page: {error}"))
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def show(open_page: OpenPage, tmp_path: Path) -> OpenPage:
    """Puts widgets on a page of their own, as the book's builder does, and opens it from its file."""
    from widget_pages import SCRIPT, STYLE, bundle, style_sheet

    def show_(*widgets: BookWidget, theme: str = "light", **options: Any) -> Page:
        (tmp_path / SCRIPT).write_text(bundle(), encoding="utf-8")
        (tmp_path / STYLE).write_text(style_sheet(), encoding="utf-8")
        body = "\n<p>Some text between.</p>\n".join(widget.to_html() for widget in widgets)
        (tmp_path / "page.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Widgets</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="stylesheet" href="{STYLE}"><script src="{SCRIPT}" defer></script>'
            f"<style>body {{ max-width: 820px; margin: auto; {PAPER[theme]} }}</style></head>"
            f"<body><main><h1>Widgets</h1>{body}</main></body></html>",
            encoding="utf-8",
        )
        return open_page((tmp_path / "page.html").as_uri(), theme=theme, **options)

    return show_


def state_of(page: Page, key: str, number: int = 0) -> Any:
    """A trait of the widget with that number on the page, as the page has it now."""
    return page.evaluate("([n, k]) => document.querySelectorAll('.ssd-widget-place')[n].model.get(k)", [number, key])


def set_state(page: Page, key: str, value: Any, number: int = 0) -> None:
    """Set a trait on the page, as Python would."""
    page.evaluate(
        "([n, k, v]) => document.querySelectorAll('.ssd-widget-place')[n].model.set(k, v)", [number, key, value]
    )


def violations(page: Page, within: Any = None, options: dict[str, Any] | None = None) -> list[str]:
    """What axe-core finds wrong (on the page, or in a part of it) for readers who cannot see, point or tell colours."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"preload": False, "resultTypes": ["violations"], **(options or {})}
    found = Axe().run(page, context=within, options=options).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


# Marks the first two texts of each kind that can be seen, and the others. In pictures and widgets what is behind a text
# is not what it is a part of: there, all are looked at.
KINDS_OF_TEXT = """() => {
  const counts = {}, behind = new Map([[null, ""]])
  const backgrounds = element => {
    if (!behind.has(element)) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(element)
      behind.set(element, `${backgrounds(element.parentElement)} ${backgroundColor} ${backgroundImage} ${opacity}`)
    }
    return behind.get(element)
  }
  for (const element of document.body.querySelectorAll("*")) {
    if (element.closest(".ssd-widget, svg") || !element.checkVisibility({ visibilityProperty: true })) continue
    if (![...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue
    const { color, fontSize, fontWeight, position } = getComputedStyle(element)
    const kind = [color, fontSize, fontWeight, position, backgrounds(element)].join(" ")
    counts[kind] = (counts[kind] ?? 0) + 1
    element.dataset.kindOfText = counts[kind] <= 2 ? "new" : "known"
  }
}"""


def violations_of_contrast(page: Page) -> list[str]:
    """Texts that can hardly be told from what is behind them.

    A book repeats a few kinds of text thousands of times, and axe-core takes seconds for a thousand: it gets two of
    each kind.
    """
    page.evaluate(KINDS_OF_TEXT)
    parts = ["[data-kind-of-text=new]", ".ssd-widget", "svg"]
    include = [[part] for part in parts if page.query_selector(part)]
    within = {"include": include, "exclude": [["[data-kind-of-text=known]"]]}
    return violations(page, within, {"runOnly": ["color-contrast"]})
