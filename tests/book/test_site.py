"""The built site: every page works from a file and from a server, without a kernel and with the network blocked.

The site is built first, as `make book` does it; where the last build is still true that takes seconds. To test a site
that was built elsewhere, name its folder in BUILT_SITE.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import print_book
import pypdf
import pytest
from playwright.sync_api import Browser, Page
from support.browser import OpenPage, violations
from widget_pages import SCRIPT, STYLE

from ssdlib import widgets

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r'<div class="ssd-widget-place" data-module="(\w+)">.*?</script>', re.DOTALL)
pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def site() -> Path:
    """Folder of the built site."""
    if "BUILT_SITE" in os.environ:
        return Path(os.environ["BUILT_SITE"])
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def chapters(site: Path) -> dict[str, list[str]]:
    """Pages that hold widgets, with the modules of these."""
    pages = {page.name: PLACE.findall(page.read_text(encoding="utf-8")) for page in sorted(site.glob("book/*.html"))}
    return {name: modules for name, modules in pages.items() if modules}


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    """Address of the site on a server of this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def pages(site: Path) -> list[Path]:
    return sorted(path.resolve() for path in site.glob("book/*.html"))


def wait_until_live(page: Page, count: int) -> None:
    page.wait_for_function(
        "n => document.querySelectorAll('.ssd-widget-place[data-live] .ssd-widget').length === n", arg=count
    )


def test_every_widget_has_its_place_in_the_book(chapters: dict[str, list[str]]) -> None:
    classes = [getattr(widgets, name) for name in widgets.__all__ if name != "BookWidget"]
    placed = {module for modules in chapters.values() for module in modules}
    assert placed == {cls._module for cls in classes}


def test_widgets_live_from_files_and_from_a_server(
    site: Path, server: str, chapters: dict[str, list[str]], open_page: OpenPage
) -> None:
    for name, modules in chapters.items():
        for address in ((site / "book" / name).as_uri(), f"{server}/book/{name}"):
            page = open_page(address)
            wait_until_live(page, len(modules))
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            page.close()


def test_every_page_is_accessible(site: Path, chapters: dict[str, list[str]], open_page: OpenPage) -> None:
    """In dark mode only the colours are others."""
    for path in pages(site):
        for theme, rules in (("light", None), ("dark", ["color-contrast"])):
            page = open_page(path.as_uri(), theme=theme)
            wait_until_live(page, len(chapters.get(path.name, [])))
            assert page.evaluate("document.documentElement.dataset.theme") == theme
            found = violations(page, rules=rules)
            assert not found, "\n".join([f"{path.name}, {theme}:", *found])
            page.close()


def test_links_inside_the_book_hold(site: Path) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in pages(site)}
    names = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in texts.items()}
    for path, text in texts.items():
        for link in re.findall(r'<a\b[^>]*?href="([^"]+)"', text):
            address, _, place = unescape(link).partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            assert target.is_file(), f"{path.name} links to {link}"
            if place and target in names:
                assert unquote(place) in names[target], f"{path.name} links to {link}: there is no such place"


def test_no_page_is_heavy(site: Path) -> None:
    """Without what the pages share: its own text, with the pictures that it shows."""
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        pictures = {(path.parent / src).resolve() for src in re.findall(r'<img\b[^>]*?src="([^":]+)"', text)}
        size = len(text.encode()) + sum(picture.stat().st_size for picture in pictures)
        assert size <= 1_500_000, f"{path.name}: {size} bytes"


def test_widgets_fit_a_phone(site: Path, chapters: dict[str, list[str]], open_page: OpenPage) -> None:
    for name, modules in chapters.items():
        page = open_page((site / "book" / name).as_uri(), width=360, height=740)
        wait_until_live(page, len(modules))
        wide = page.eval_on_selector_all(".ssd-widget", "all => all.map(e => [e.scrollWidth, e.clientWidth])")
        assert all(inside <= outside + 1 for inside, outside in wide), (name, wide)
        page.close()


def test_widgets_weigh_little(site: Path, chapters: dict[str, list[str]]) -> None:
    shared = sum((site / "_static" / name).stat().st_size for name in (SCRIPT, STYLE))
    for name in chapters:
        text = (site / "book" / name).read_text(encoding="utf-8")
        sizes = [len(match[0].encode()) for match in PLACE.finditer(text)]
        assert shared + 3 * max(sizes) <= 400_000, (name, sizes)


def test_pages_without_widgets_load_nothing_for_them(site: Path, chapters: dict[str, list[str]]) -> None:
    for page in sorted(site.glob("book/*.html")):
        assert (SCRIPT in page.read_text(encoding="utf-8")) == (page.name in chapters), page.name


def test_the_book_prints_to_one_file(site: Path, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "book.pdf"
    sheets = print_book.print_book(browser, site, path)
    printed = pypdf.PdfReader(path)
    assert len(printed.pages) == sheets
    titles = [entry.title for entry in printed.outline]
    assert titles[:3] == ["SSD from scratch", *titles[1:3]]
    assert "Boxes and the Jaccard overlap" in titles[2]
    assert len(titles) == len(print_book.pages(site))
    text = "".join(page.extract_text() for page in printed.pages[:40])
    assert "Who it is for" in text  # the first page of the book
    assert "Solution to" not in text


def test_every_page_says_what_it_is_about(site: Path) -> None:
    """A description of its own, as text: no markup, no hole where a computed number would be."""
    found = {
        path.name: re.findall(r'<meta name="description" content="([^"]*)"', path.read_text()) for path in pages(site)
    }
    assert all(len(texts) == 1 and 40 < len(texts[0]) <= 260 and "<" not in texts[0] for texts in found.values()), found
    assert len({texts[0] for texts in found.values()}) == len(found)
