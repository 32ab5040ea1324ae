"""The tray of toys in a browser: detections as Python's, by pointer, key and finger, from a file and from a server."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import toys_files
import toys_page
from support.browser import PAPER, OpenPage, violations
from toys_files import FIRST

from ssdlib.data.synthetic import TOY_CLASSES
from ssdlib.widgets.base import style_sheet

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BOOK = Path(__file__).resolve().parents[2] / "book"
TOYS = "document.querySelector('.ssd-toys-place').toys"
SHIFTS = "new PerformanceObserver((list) => (window.shifts ??= []).push(...list.getEntries().filter((e) => !e.hadRecentInput).map((e) => e.value))).observe({ type: 'layout-shift', buffered: true })"  # noqa: E501


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages with the tray, as the book's builder makes them."""
    root = tmp_path_factory.mktemp("site")
    texts = {
        toys_page.SCRIPT: toys_page.bundle(),
        toys_page.STYLE: toys_page.style(),
        toys_page.DATA: toys_files.payload(),
        "ssd-widgets.css": style_sheet(),
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / toys_page.STILL).write_bytes(toys_files.still()[0])
    for theme, paper in PAPER.items():
        (root / f"{theme}.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Toys</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f'<link rel="stylesheet" href="{toys_page.STYLE}"><link rel="stylesheet" href="ssd-widgets.css">'
            f'<script src="{toys_page.SCRIPT}" defer></script>'
            f"<style>body {{ max-width: 900px; margin: auto; {paper} }}</style></head><body><main><h1>Toys</h1>"
            f"{toys_page.place('.')}<p>Text below.</p></main></body></html>",
            encoding="utf-8",
        )
    return root


@pytest.fixture(scope="module")
def live(browser: Browser, folder: Path) -> Iterator[Page]:
    """The tray from its file, begun once; what was wrong meanwhile is seen at the end."""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": 1000, "height": 1000})
    context.add_init_script(SHIFTS)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
    page.goto((folder / "light.html").as_uri())
    page.get_by_role("button", name="Play with the toys").press("Enter")
    answered(page)
    yield page
    assert page.evaluate("(window.shifts ?? []).reduce((a, b) => a + b, 0)") < 0.001
    context.close()
    assert not problems, "\n".join(problems)


def answered(page: Page) -> None:
    """Until the network has answered to what is on the board now."""
    page.wait_for_function(f"{TOYS}?.seen && {TOYS}.seen.id === {TOYS}.asked", timeout=60_000)


@pytest.fixture
def board(live: Page) -> Page:
    """The board of the beginning, with the answer over it."""
    live.get_by_role("button", name="Begin again").click()
    live.get_by_label("Answer").check()
    return live


def toys(page: Page) -> list[dict[str, Any]]:
    return page.evaluate(f"{TOYS}.toys")  # type: ignore[no-any-return]


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """A place of the board, in fractions, as the mouse goes there."""
    frame = page.locator(".ssd-toys-image").bounding_box()
    assert frame is not None
    return frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def finger(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A finger that goes down, walks, and is lifted."""
    touch = page.context.new_cdp_session(page)
    steps = [("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0)]
    for kind, way in steps:
        x, y = (a + way * (b - a) for a, b in zip(start, end, strict=True))
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def pixels_of(page: Page) -> toys_files.Pixels:
    """The board as the page's canvas has it."""
    text = page.evaluate(
        f"(() => {{ let text = ''; for (const one of {TOYS}.picture.rgba) text += String.fromCharCode(one);"
        " return btoa(text) })()"
    )
    pixels = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return pixels.reshape(toys_files.BOARD, toys_files.BOARD, 4)[..., :3].copy()


def same_as_python(page: Page) -> list[str]:
    """Compare what is found with what ssdlib finds on the same pixels, and name it."""
    answered(page)
    (wanted,) = toys_files.network().predict([toys_files.as_image(pixels_of(page))], min_score=0.3)
    found = page.evaluate(f"{TOYS}.seen.kept")
    boxes = torch.tensor([one["box"] for one in found]) * toys_files.BOARD
    assert [one["label"] for one in found] == wanted["labels"].tolist()
    torch.testing.assert_close(boxes, wanted["boxes"], rtol=0, atol=0.5)
    torch.testing.assert_close(torch.tensor([one["score"] for one in found]), wanted["scores"], rtol=0, atol=1e-3)
    return [TOY_CLASSES[label - 1] for label in wanted["labels"].tolist()]


def test_detections_are_those_of_python(board: Page) -> None:
    assert same_as_python(board) == ["donut", "crate", "ball", "fish", "star"]
    expected = toys_files.put_toys(toys_files.shown()[0], FIRST, toys_files.shown()[1])
    assert np.abs(pixels_of(board).astype(int) - expected).max() <= 3  # two programs unpack the JPEG files
    board.evaluate(f"{TOYS}.toys.forEach((toy, i) => {TOYS}.change(toy.id, {{ turn: 40 * i, x: 0.9 - toy.y }}))")
    assert len(same_as_python(board)) >= 2


def test_what_is_found_where_is_said(board: Page) -> None:
    answered(board)
    said = board.get_by_role("status").inner_text()
    assert said.startswith("5 of 5 found: ball 0.98 top left, crate 1.00 top right, ")
    assert board.get_by_role("img", name="The board. 5 of 5 found").count() == 1
    fish = f"{TOYS}.toys.find((toy) => toy.kind === 3).id"
    board.evaluate(f"{TOYS}.change({fish}, {{ x: 0, y: 0.98, size: 0.2, turn: 90 }})")
    answered(board)
    said = board.get_by_role("status").inner_text()
    assert said.startswith("4 of 5 found: ")
    assert "Missed: fish bottom left" in said
    board.evaluate(f"{TOYS}.choose({fish})")
    board.get_by_label("Priors", exact=True).check()
    assert board.locator(".ssd-toys-words").inner_text().startswith("The chosen fish was missed. The donut was found ")
    board.get_by_role("button", name="Put a ball").click()
    answered(board)
    assert re.match(r"5 of 6 found: ball 0\.\d\d, crate \d\.\d\d, ", board.get_by_role("status").inner_text())
    assert "Missed: fish bottom left" in str(board.locator(".ssd-toys-image").get_attribute("aria-label"))


def test_a_toy_that_another_finger_puts_below_does_not_follow_the_mouse_afterwards(board: Page) -> None:
    board.mouse.move(*on_screen(board, 0.27, 0.28))
    board.mouse.down()
    board.mouse.move(*on_screen(board, 0.28, 0.28), steps=2)
    board.evaluate(f"{TOYS}.lift({TOYS}.toys[0].id)")  # as a finger on another toy does
    board.mouse.move(*on_screen(board, 0.5, 0.95))
    board.mouse.up()
    left = toys(board)
    assert (left[3]["kind"], round(left[3]["x"], 2)) == (0, 0.28)
    board.mouse.move(*on_screen(board, 0.26, 0.28))
    board.mouse.move(*on_screen(board, 0.32, 0.33), steps=3)
    assert toys(board) == left


def test_toys_are_dragged_from_the_tray_and_on_the_board(board: Page) -> None:
    leaf = board.get_by_role("button", name="Put a leaf on the board")
    frame = leaf.bounding_box()
    assert frame is not None
    start = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    drag(board, start, on_screen(board, 0.5, 0.5))
    assert [round(toys(board)[-1][key], 2) for key in ("kind", "x", "y")] == [4, 0.5, 0.5]
    assert len(toys(board)) == 6  # the click after the dragging puts no second one
    drag(board, on_screen(board, 0.27, 0.28), on_screen(board, 0.2, 0.2))
    ball = toys(board)[-1]  # it lies above the others now
    assert [ball["kind"], round(ball["x"], 2), round(ball["y"], 2)] == [0, 0.2, 0.2]
    assert board.evaluate("document.querySelector('.ssd-toys-chosen').getAttribute('aria-label')").startswith(
        "ball, 20 %"
    )
    assert board.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none"  # the ring is enough
    drag(board, start, (start[0], start[1] + 2))  # hardly moved: pressed
    assert len(toys(board)) == 7
    board.mouse.move(*start)
    board.mouse.down()
    board.mouse.move(*on_screen(board, 0.5, 0.9), steps=3)
    assert len(toys(board)) == 8
    board.mouse.move(*start, steps=3)
    board.mouse.up()
    assert len(toys(board)) == 7  # taken back into the tray


def test_the_knob_turns_the_chosen_toy(board: Page) -> None:
    board.mouse.click(*on_screen(board, 0.7, 0.78))  # the donut, upright
    knob = board.locator(".ssd-toys-turn").bounding_box()
    assert knob is not None
    at = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    centre = on_screen(board, 0.7, 0.78)
    far = 0.7 * (centre[1] - at[1])
    drag(board, at, (centre[0] + far, centre[1] + far))  # from above to the lower right
    assert next(toy for toy in toys(board) if toy["kind"] == 2)["turn"] == pytest.approx(135, abs=1)


def test_a_press_on_an_empty_place_sends_the_chosen_toy_there(board: Page) -> None:
    board.mouse.click(*on_screen(board, 0.5, 0.95))
    assert [toy["kind"] for toy in toys(board)] == [toy.kind for toy in FIRST]
    assert [toy["x"] for toy in toys(board)] == [toy.x for toy in FIRST]
    board.mouse.click(*on_screen(board, 0.7, 0.78))
    board.mouse.click(*on_screen(board, 0.48, 0.52))
    donut = next(toy for toy in toys(board) if toy["kind"] == 2)
    assert [round(donut["x"], 2), round(donut["y"], 2)] == [0.48, 0.52]


def test_everything_goes_by_keys(board: Page) -> None:
    board.get_by_role("button", name="Put a star on the board").press("Enter")
    name = "document.activeElement.getAttribute('aria-label')"
    assert board.evaluate(name).startswith("star, ")
    star = toys(board)[-1]
    for keys in ("ArrowRight", "ArrowUp", "Control+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowUp"):
        board.keyboard.press(keys)
    moved = toys(board)[-1]
    assert moved["x"] - star["x"] == pytest.approx(-9 / 64)
    assert moved["y"] - star["y"] == pytest.approx(-1 / 64)
    assert [moved["turn"], round(moved["size"] - star["size"], 6)] == [10, 0.02]
    assert board.locator(".ssd-toys-chosen-words").inner_text() == "Chosen: star, turned by 10°, 32 % wide"
    board.get_by_role("button", name="Turn left").press("Enter")
    board.get_by_role("button", name="Smaller").press(" ")
    assert [toys(board)[-1]["turn"], round(toys(board)[-1]["size"], 2)] == [-5, 0.28]
    board.locator(".ssd-toys-chosen").focus()
    for left in (5, 4, 3, 2, 1, 0):
        board.keyboard.press("Delete")
        assert len(toys(board)) == left
    assert board.evaluate(name) == "Put a ball on the board"
    answered(board)
    assert board.get_by_role("status").inner_text() == "The board is empty, and nothing was found."
    for stop, words in {
        "Boxes": "None of the 5,456 boxes reaches 0.3.",
        "NMS": "0 boxes here. NMS removed none.",
    }.items():
        board.get_by_label(stop, exact=True).check()
        assert words in board.locator(".ssd-toys-words").inner_text()
    for _ in range(10):
        board.keyboard.press("Enter")
        board.get_by_role("button", name="Put a ball on the board").focus()
    assert len(toys(board)) == 8
    assert board.get_by_role("button", name="Put a ball").get_attribute("aria-disabled") == "true"


def test_four_stops_show_the_way_on_this_board_and_lead_to_chapters(board: Page) -> None:
    answered(board)
    seen = board.evaluate(
        f"(({{ candidates, kept, removed }}) => [candidates, kept, removed].map((l) => l.length))({TOYS}.seen)"
    )
    shapes = {
        "Priors": (".ssd-toys-prior", 4),
        "Boxes": (".ssd-toys-decoded", seen[0]),
        "NMS": (".ssd-toys-removed", seen[2]),
        "Answer": (".ssd-toys-kept", seen[1]),
        "Scores": (".ssd-toys-over:not([hidden])", 1),
    }
    assert seen[0] == seen[1] + seen[2] > 10
    chapters = {f"{path.stem}.html" for path in BOOK.glob("[0-9]*.ipynb")}
    links = set()
    for stop, (what, count) in shapes.items():
        board.get_by_label(stop, exact=True).check()
        assert board.locator(what).count() == count, stop
        (link,) = board.locator(".ssd-toys-words a").all()
        links.add(link.get_attribute("href"))
    assert len(links) == 5
    assert links < chapters
    light = board.evaluate(
        "Array.from(document.querySelector('.ssd-toys-over').getContext('2d').getImageData(0, 0, 95, 95).data)"
    )
    reds = np.array(light).reshape(95, 95, 4)[..., 0]
    assert reds[74, 66] > 230  # the donut
    assert reds[3, 3] < 60
    board.get_by_label("Boxes", exact=True).check()
    assert f"{seen[0]} boxes of 5,456 reach 0.3" in board.locator(".ssd-toys-words").inner_text()
    board.mouse.click(*on_screen(board, 0.27, 0.28))
    board.get_by_label("Priors", exact=True).check()
    found = board.evaluate(f"{TOYS}.priors[{TOYS}.seen.kept.find((one) => one.label === 1).prior].map")
    cells = (32, 16, 8, 4, 2)[found]
    assert (
        f"The ball was found by a prior of the {cells} × {cells} map" in board.locator(".ssd-toys-words").inner_text()
    )
    assert board.locator(".ssd-toys-line").count() == 2 * (cells - 1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits(open_page: OpenPage, folder: Path, theme: str) -> None:
    page = open_page((folder / f"{theme}.html").as_uri(), theme=theme, width=360, height=740, has_touch=True)
    assert violations(page) == []
    page.get_by_role("button", name="Play with the toys").tap()
    answered(page)
    page.locator(".ssd-toys-hit").nth(1).tap()
    page.get_by_role("button", name="Turn right").tap()
    assert toys(page)[1]["turn"] == 7
    page.locator(".ssd-toys-board").evaluate("node => node.scrollIntoView()")
    finger(page, on_screen(page, 0.27, 0.28), on_screen(page, 0.4, 0.5))
    ball = toys(page)[-1]
    assert [ball["kind"], round(ball["x"], 1), round(ball["y"], 1)] == [0, 0.4, 0.5]
    answered(page)
    for stop in ("NMS", "Priors"):
        page.get_by_label(stop, exact=True).check()
        assert violations(page) == []
    for width in (320, 390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            "Array.from(document.querySelectorAll('.ssd-toys button'), (b) => b.getBoundingClientRect())"
            ".filter((r) => r.width < 44 || r.height < 44).length"
        )
        assert small == 0
        wide = (
            "[...document.querySelectorAll('.ssd-toys-stops span')].filter((s) => s.scrollWidth > s.clientWidth).length"
        )
        assert page.evaluate(wide) == 0
    assert page.locator(".ssd-toys-hit").first.evaluate("node => getComputedStyle(node).touchAction") == "none"


def test_it_is_a_picture_until_it_is_asked_for_and_lives_under_a_strict_policy(
    open_page: OpenPage, folder: Path
) -> None:
    asked = []

    class Strict(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0][1:])
            super().do_GET()

        def end_headers(self) -> None:
            policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Strict, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        page = open_page(f"http://127.0.0.1:{server.server_port}/light.html")
        picture = page.get_by_role("img")
        assert "donut 1.00, crate 1.00" in str(picture.get_attribute("alt"))
        assert page.evaluate("document.querySelector('.ssd-toys-still').naturalWidth") == 512
        chapters = {f"{path.stem}.html" for path in BOOK.glob("[0-9]*.ipynb")}
        assert {link.get_attribute("href") for link in page.locator(".ssd-toys li a").all()} < chapters
        assert toys_page.DATA not in asked
        before = len(asked)
        page.get_by_role("button", name="Play with the toys (2.1 MB)").click()
        for _ in range(200):  # the policy forbids to evaluate what waits there: asked from outside
            if page.evaluate(f"Boolean({TOYS}?.seen)"):
                break
            page.wait_for_timeout(50)
        assert page.evaluate(f"{TOYS}.seen.kept.length") == 5
        assert page.evaluate(f"{TOYS}.detector.link.where") == "worker"
        assert set(asked[before:]) == {toys_page.DATA, toys_page.SCRIPT}
        server.shutdown()


def test_without_workers_it_answers_on_the_page(open_page: OpenPage, folder: Path) -> None:
    plain = (folder / "light.html").read_text()
    (folder / "none.html").write_text(plain.replace("<head>", "<head><script>delete window.Worker</script>"))
    page = open_page((folder / "none.html").as_uri())
    page.get_by_role("button", name="Play with the toys").click()
    answered(page)
    assert page.evaluate(f"{TOYS}.detector.link.where") == "page"
    assert page.evaluate(f"{TOYS}.seen.kept.length") == 5


@pytest.mark.parametrize(("data", "reason"), [("1;", "is damaged"), (None, "cannot be fetched")])
def test_what_cannot_be_fetched_is_said(browser: Browser, folder: Path, data: str | None, reason: str) -> None:
    page = browser.new_page()
    route = f"**/{toys_page.DATA}*"
    page.route(route, lambda one: one.fulfill(body=data) if data else one.abort())
    page.goto((folder / "light.html").as_uri())
    page.get_by_role("button", name="Play with the toys").click()
    page.get_by_text(f"It does not start: the file with its weights {reason}").wait_for()
    assert page.locator(".ssd-toys-still").is_visible()
    page.unroute(route)
    page.get_by_role("button", name="Begin again").click()
    answered(page)
    assert len(toys(page)) == len(FIRST)
    page.close()
