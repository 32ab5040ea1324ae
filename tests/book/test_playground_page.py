"""The playground on a page: from a file and from a server, by pointer, by keyboard, by link, in both themes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from playground_page import LINK, SCRIPT, STYLE, bundle, style
from support.browser import PAPER, OpenPage, violations

if TYPE_CHECKING:
    from playwright.sync_api import Page

BOOK = Path(__file__).resolve().parents[2] / "book"
PLACE = "document.querySelector('.ssd-playground-place').playground"
OpenPlayground = Callable[..., "Page"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page with the playground, as the book's builder makes it."""
    (tmp_path / SCRIPT).write_text(bundle(), encoding="utf-8")
    (tmp_path / STYLE).write_text(style(), encoding="utf-8")
    for theme, paper in PAPER.items():
        (tmp_path / f"{theme}.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Playground</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="stylesheet" href="{STYLE}"><script src="{SCRIPT}" defer></script>'
            f"<style>body {{ max-width: 820px; margin: auto; {paper} }}</style></head><body><main><h1>Playground</h1>"
            f'<div class="ssd-playground-place"><p>No script.</p></div></main></body></html>',
            encoding="utf-8",
        )
    return tmp_path


@pytest.fixture
def playground(open_page: OpenPage, folder: Path) -> OpenPlayground:
    def open_(link: str = "", theme: str = "light", **options: Any) -> Page:
        page = open_page((folder / f"{theme}.html").as_uri() + link, theme=theme, **options)
        page.wait_for_function(f"{PLACE}?.last")
        return page

    return open_


def report(page: Page, key: str) -> Any:
    return page.evaluate(f"{PLACE}.last.{key}")


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_it_trains_in_a_worker_and_stops_when_told(playground: OpenPlayground) -> None:
    page = playground()
    assert page.evaluate(f"{PLACE}.link.where") == "worker"
    assert report(page, "steps") == 0
    press(page, "Start")
    page.wait_for_function(f"{PLACE}.last.steps >= 50 && {PLACE}.last.scores.length === 2", timeout=60_000)
    assert page.get_by_role("status").inner_text().startswith("It learns")  # nothing that was true before
    press(page, "Pause")
    page.wait_for_function(f"!{PLACE}.last.running")
    steps = report(page, "steps")
    press(page, "One step")
    page.wait_for_function(f"{PLACE}.last.steps === {steps + 1}")
    assert page.evaluate(f"{PLACE}.losses.length") == steps + 1
    assert "mAP 0." in page.get_by_role("status").inner_text()
    press(page, "Start again")
    page.wait_for_function(f"{PLACE}.last.steps === 0 && {PLACE}.losses.length === 0")


def test_it_lives_on_a_server_that_allows_its_own_files_only(open_page: OpenPage, folder: Path) -> None:
    class Strict(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'")
            super().end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    (folder / "favicon.ico").write_bytes(b"")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Strict, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            page = open_page(f"http://127.0.0.1:{server.server_port}/light.html")
            # The policy forbids to evaluate what waits: asked from outside, again and again.
            for _ in range(100):
                if page.get_by_role("status").inner_text():
                    break
                page.wait_for_timeout(200)
            assert "0 steps" in page.get_by_role("status").inner_text()
            assert page.evaluate(f"{PLACE}.link.where") == "worker"
        finally:
            server.shutdown()
            thread.join()


def test_without_workers_it_trains_on_the_page(open_page: OpenPage, folder: Path) -> None:
    page_file = folder / "light.html"
    page_file.write_text(page_file.read_text().replace("<head>", "<head><script>delete window.Worker</script>"))
    page = open_page(page_file.as_uri())
    page.wait_for_function(f"{PLACE}?.last")
    assert page.evaluate(f"{PLACE}.link.where") == "page"
    press(page, "One step")
    page.wait_for_function(f"{PLACE}.last.steps === 1")


def test_a_link_sets_it_and_what_is_not_allowed_is_left_out(playground: OpenPlayground) -> None:
    page = playground("#negatives=all&threshold=0.7&mistake=nms&rate=1e9&seed=4&everyObject=perhaps&__proto__=1")
    page.wait_for_function(f"{PLACE}.last.settings.mistake === 'nms'")
    assert report(page, "settings.negatives") == float("inf")
    settings = report(page, "settings")
    assert [settings[key] for key in ("threshold", "rate", "seed", "everyObject")] == [0.7, 0.004, 1, True]
    link = page.get_by_role("link", name="Link to these settings").get_attribute("href")
    assert link == "#negatives=all&threshold=0.7&mistake=nms"
    page.evaluate("location.hash = '#maps=coarse'")
    page.wait_for_function(f"{PLACE}.last.priors.length === 27 && {PLACE}.last.settings.mistake === 'none'")


def test_a_link_from_a_chapter_says_what_it_has_set_and_leads_back(playground: OpenPlayground) -> None:
    page = playground("#threshold=0.7&everyObject=false&chapter=5", width=320, has_touch=True)
    note = page.locator(".ssd-play-note")
    said = note.inner_text()
    assert "Matching threshold: 0.7" in said
    assert "Every object keeps a prior: no" in said
    back = note.get_by_role("link", name="Back to chapter 5")
    assert back.get_attribute("href") == "05_matching.html"
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert violations(page) == []
    away = note.get_by_role("link", name="Take it back")
    away.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{PLACE}.last.settings.threshold === 0.5")
    assert note.count() == 0
    page.evaluate("location.hash = '#threshold=0.5&chapter=5'")  # as it is anyway
    assert note.count() == 0
    page.evaluate("location.hash = '#threshold=0.7&chapter=99'")
    note.wait_for()
    assert note.get_by_role("link", name="Back to").count() == 0


def test_a_link_in_the_text_sets_it_twice_and_shows_it_and_one_to_a_heading_sets_nothing(
    playground: OpenPlayground,
) -> None:
    page = playground(height=600)
    page.evaluate(
        """document.querySelector('main').insertAdjacentHTML('beforeend', '<p style="margin-top: 2000px">'
        + '<a href="#noise=0.2">Noise</a> <a href="#">Usual</a> <a href="#lab">Lab</a></p><h2 id="lab">Lab</h2>')"""
    )
    for _ in range(2):
        page.get_by_role("link", name="Noise").click()
        page.wait_for_function(f"{PLACE}.last.settings.noise === 0.2")
        assert page.locator(".ssd-play-note").is_visible()
        assert page.evaluate("scrollY") < 300  # the playground, where something has changed
        assert page.evaluate("document.activeElement.textContent") == "Start"
        page.evaluate(f"{PLACE}.post('settings', {{ noise: 0 }})")
        page.wait_for_function(f"{PLACE}.last.settings.noise === 0")
    page.get_by_role("link", name="Lab").click()
    page.wait_for_function("location.hash === '#lab'")
    press(page, "One step")
    page.wait_for_function(f"{PLACE}.last.steps === 1")
    assert report(page, "settings.noise") == 0
    page.get_by_role("link", name="Usual").press("Enter")
    page.wait_for_function(f"{PLACE}.last.settings.noise === 0.03")


def test_unseen_scenes_are_chosen_by_keyboard(playground: OpenPlayground) -> None:
    page = playground()
    picks = page.get_by_role("button", name="Unseen scene")
    assert picks.count() == 8
    picks.nth(4).press("Enter")
    page.wait_for_function("document.querySelectorAll('.ssd-play-pick')[4].getAttribute('aria-pressed') === 'true'")
    assert page.get_by_label("never seen").is_checked()
    page.wait_for_function(f"{PLACE}.last.scene.pixels.every((p, i) => p === {PLACE}.last.gallery[4].pixels[i])")
    page.get_by_label("of the last batch").check()
    assert picks.nth(4).get_attribute("aria-pressed") == "false"


def test_each_part_leads_to_the_chapter_that_explains_it(playground: OpenPlayground) -> None:
    page = playground()
    page.get_by_text("Settings and error lab").click()
    chapters = {f"{path.stem}.html" for path in BOOK.glob("[0-9]*.ipynb")}
    for near in ("What these are", "What the curves mean", "Explained in"):
        lines = page.get_by_text(near)
        assert lines.count() >= 1
        for line in lines.all():
            links = [link.get_attribute("href") for link in line.get_by_role("link").all()]
            assert links
            assert set(links) <= chapters
    wanted = page.evaluate(f"Object.keys({PLACE}.last.settings)")
    explained = set(re.findall(r"^  (\w+): \d+,$", (BOOK / "playground" / "chapters.mjs").read_text(), re.MULTILINE))
    assert set(wanted) - {"seed", "mistake"} == explained


def test_links_of_the_chapters_set_what_can_be_set(playground: OpenPlayground) -> None:
    page = playground()
    found = {}
    for path in sorted(BOOK.glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for text in re.findall(r"\{playground\}`([^`]+)`", cell.source) if cell.cell_type == "markdown" else []:
                link = LINK.fullmatch(" ".join(text.split()))
                assert link is not None, f"{path.name}: {text}"
                found[link["settings"]] = path.name[:2]
    assert set(found.values()) >= {"03", "04", "05", "06", "07", "11"}
    for settings, chapter in found.items():
        page.evaluate("hash => { location.hash = hash }", f"#{settings}&chapter={int(chapter)}")
        page.wait_for_function(
            "count => document.querySelectorAll('.ssd-play-note strong').length === count", arg=settings.count("=")
        )
        link = page.get_by_role("link", name="Link to these settings")
        page.wait_for_function(
            "text => document.querySelector('.ssd-play-buttons a').hash === text", arg=f"#{settings}"
        )
        assert link.count() == 1


def test_settings_while_it_runs_and_those_that_begin_anew(playground: OpenPlayground) -> None:
    page = playground()
    page.get_by_text("Settings and error lab").click()
    press(page, "One step")
    page.wait_for_function(f"{PLACE}.last.steps === 1")
    page.get_by_label("Negatives for each positive").select_option("0")
    page.wait_for_function(f"{PLACE}.last.settings.negatives === 0")
    assert report(page, "steps") == 1
    assert report(page, "mined") == []
    page.get_by_label("Priors of a cell").select_option("5")
    page.wait_for_function(f"{PLACE}.last.priors.length === 225")
    assert report(page, "steps") == 0
    assert report(page, "settings.negatives") == 0


def test_a_mistake_of_the_detections_shows_in_the_map_at_once(playground: OpenPlayground) -> None:
    page = playground()
    before = report(page, "scores.at(-1).value")
    page.get_by_text("Settings and error lab").click()
    page.get_by_label("Planted mistake").select_option("Variances forgotten in decoding")
    page.wait_for_function(f"{PLACE}.last.scores.length === 2")
    assert report(page, "scores.at(-1).value") != before
    assert report(page, "steps") == 0


def test_a_rate_that_is_far_too_high_is_said(playground: OpenPlayground) -> None:
    page = playground("#rate=0.1&batch=1")
    page.evaluate(f"{PLACE}.post('settings', {{ rate: 1e300 }})")
    for _ in range(3):
        press(page, "One step")
    page.get_by_text("The loss is no number any more").wait_for()


def test_own_scene_by_pointer_and_by_numbers(playground: OpenPlayground) -> None:
    page = playground()
    page.get_by_label("your own").check()
    page.wait_for_function(f"{PLACE}.last.scene.shapes.length === 2")
    frame = page.locator(".ssd-play-main").bounding_box()
    assert frame is not None
    at = [
        [frame["x"] + frame["width"] * x / 48, frame["y"] + frame["height"] * y / 48] for x, y in ((15, 17), (25, 12))
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()
    page.wait_for_function(f"Math.abs({PLACE}.last.scene.shapes[0].x - 25) < 0.6")
    assert report(page, "scene.shapes[0].y") == pytest.approx(12, abs=0.6)
    page.get_by_label("x of its centre").fill("40")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{PLACE}.last.scene.shapes[0].x === 40")
    page.get_by_label("Size").fill("1000")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{PLACE}.last.scene.shapes[0].size === 40")
    press(page, "Add a square")
    page.wait_for_function(f"{PLACE}.last.scene.labels.join() === '1,3,2'")
    for left in (2, 1, 0):
        press(page, "Remove it")
        page.wait_for_function(f"{PLACE}.last.scene.shapes.length === {left}")
    press(page, "One step")
    page.wait_for_function(f"{PLACE}.last.steps === 1")


def test_own_scene_by_finger(playground: OpenPlayground) -> None:
    page = playground(width=390, has_touch=True)
    page.get_by_label("your own").check()
    page.wait_for_function(f"{PLACE}.last.scene.shapes.length === 2")
    assert page.locator(".ssd-play-main").evaluate("node => getComputedStyle(node).touchAction") == "none"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits(playground: OpenPlayground, theme: str) -> None:
    page = playground(theme=theme, width=360)
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_label("your own").check()
    assert violations(page) == []
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_boxes_are_seen_on_the_picture(playground: OpenPlayground) -> None:
    page = playground()
    picture = "document.querySelector('.ssd-play-main').toDataURL()"
    seen = {page.evaluate(picture)}
    for name in ("Positives", "Negatives", "Offsets"):
        page.get_by_role("checkbox", name=name).check()
        seen.add(page.evaluate(picture))
    assert len(seen) == 4
