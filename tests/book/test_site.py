"""The built site: every page works from a file and from a server, without a kernel and with the network blocked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest
from support.browser import OpenPage
from support.site import PLACE, pages, wait_until_live
from widget_pages import SCRIPT, STYLE

from ssdlib import widgets

pytestmark = [pytest.mark.browser, pytest.mark.slow]


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


def test_every_widget_has_its_place_in_the_book(chapters: dict[str, list[str]]) -> None:
    classes = [getattr(widgets, name) for name in widgets.__all__ if name != "BookWidget"]
    placed = {module for modules in chapters.values() for module in modules}
    assert placed == {cls._module for cls in classes}


def test_widgets_live_from_a_server(server: str, chapters: dict[str, list[str]], open_page: OpenPage) -> None:
    for name, modules in chapters.items():
        page = open_page(f"{server}/book/{name}")
        wait_until_live(page, len(modules))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
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
            if target.stem == "playground" and "=" in place:
                continue  # settings; tests/book/test_playground_page.py reads them
            if place and target in names:
                assert unquote(place) in names[target], f"{path.name} links to {link}: there is no such place"


def test_no_page_is_heavy(site: Path) -> None:
    """Without what the pages share: its own text, with the pictures that it shows."""
    for path in pages(site):
        text = path.read_text(encoding="utf-8")
        pictures = {(path.parent / src).resolve() for src in re.findall(r'<img\b[^>]*?src="([^":?]+)[?"]', text)}
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
    assert shared <= 300_000  # kept by the browser for all pages
    for name in chapters:
        text = (site / "book" / name).read_text(encoding="utf-8")
        sizes = [len(match[0].encode()) for match in PLACE.finditer(text)]
        assert sum(sizes) <= 300_000, (name, sizes)  # a page of 600 kB may hold a flipbook of photographs


def test_pages_without_widgets_load_nothing_for_them(site: Path, chapters: dict[str, list[str]]) -> None:
    for page in sorted(site.glob("book/*.html")):
        assert (SCRIPT in page.read_text(encoding="utf-8")) == (page.name in chapters), page.name


def test_the_detector_of_one_page_costs_no_other_page_a_byte(site: Path) -> None:
    asking = [page.name for page in sorted(site.glob("book/*.html")) if "ssd-photo" in page.read_text(encoding="utf-8")]
    assert asking in (["photograph.html"], [])  # none where its packages could not be had


def test_the_toys_of_the_first_page_cost_no_other_page_a_byte(site: Path) -> None:
    asking = [page.name for page in sorted(site.glob("book/*.html")) if "ssd-toys" in page.read_text(encoding="utf-8")]
    assert asking == ["index.html"]


def test_every_page_says_what_it_is_about(site: Path) -> None:
    """A description of its own, as text: no markup, no hole where a computed number would be."""
    found = {
        path.name: re.findall(r'<meta name="description" content="([^"]*)"', path.read_text()) for path in pages(site)
    }
    assert all(len(texts) == 1 and 40 < len(texts[0]) <= 260 and "<" not in texts[0] for texts in found.values()), found
    assert len({texts[0] for texts in found.values()}) == len(found)


def test_citations_say_which_paper_they_mean(site: Path) -> None:
    text = (site / "book" / "03_priors.html").read_text(encoding="utf-8")
    links = re.findall(r'<a [^>]*href="references\.html#[^>]*>', text)
    assert links
    assert [link for link in links if "meaning source" not in link] == []
    assert any('title="Wei Liu, Dragomir Anguelov' in link for link in links)


def test_no_table_or_formula_of_the_reference_pages_is_cut(site: Path, open_page: OpenPage) -> None:
    # A scrolling table is found by key and says so; a formula in a line is simply cut. Two pixels are rounding.
    for width in (390, 1280):
        for name in ("faq", "notation", "teaching", "teaching_answers", "testing"):
            page = open_page((site / "book" / f"{name}.html").as_uri(), width=width)
            cut = page.evaluate(
                "() => [...document.querySelectorAll('.bd-article .pst-scrollable-table-container, .bd-article .math')]"
                ".filter(e => e.scrollWidth > e.clientWidth + 40).map(e => e.textContent.slice(0, 80))"
            )
            assert cut == [], f"{name} at {width}"
            page.context.close()
