"""Flipbook: its checks, the sheet for print, and on a page turning by slider, button, key, finger and player."""

from __future__ import annotations

import doctest
import io
import re
import warnings
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.data import VOCDataset, sample_root
from ssdlib.widgets import Flipbook, flipbook
from ssdlib.widgets.base import open_url

COLORS = ((200, 0, 0), (0, 160, 0), (0, 0, 200), (120, 120, 0))
WORDS = (
    "All is red.",
    "Now it is green, " + 12 * "and this is a long sentence, " + "at last.",
    "Blue.",
    "Olive, at $_$ each.",
)


def flat(color: tuple[int, int, int], size: tuple[int, int] = (80, 60)) -> Image.Image:
    return Image.new("RGB", size, color)


def colors(**traits: Any) -> Flipbook:
    return Flipbook([(flat(color), words) for color, words in zip(COLORS, WORDS, strict=True)], **traits)


def test_example_runs() -> None:
    assert doctest.testmod(flipbook).failed == 0


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    figure = Figure(figsize=(4, 3), dpi=160)
    figure.add_subplot().plot([0, 1])
    flat((9, 9, 9), (640, 480)).save(tmp_path / "page.png")
    kinds = [figure, torch.zeros(3, 480, 640), flat((0, 0, 0), (640, 480)), tmp_path / "page.png"]
    book = Flipbook([(kind, "words") for kind in kinds])
    assert book.size == (640, 480)
    assert [page["picture"].partition(";")[0] for page in book.steps] == [
        f"data:image/{kind}" for kind in ("png", "jpeg", "jpeg", "png")
    ]
    drawn = open_url(book.steps[0]["picture"]).convert("RGB").getcolors(1 << 20)
    assert drawn is not None
    assert len(drawn) > 5  # the line and the letters


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "at least two steps; got 0"),
        ([(flat(COLORS[0]), "alone")], "at least two steps; got 1"),
        ([(flat(COLORS[0]), "a"), (flat(COLORS[0], (80, 61)), "b")], "80 x 60 as the first; step 2 has 80 x 61"),
        ([(flat(COLORS[0]), "a"), (flat(COLORS[0]), " ")], "step 2 needs words"),
        ([(flat(COLORS[0]), 7)], "step 1 needs words that say what is seen; got 7"),
        ([flat(COLORS[0])], r"step 1 must be \(picture, words\)"),
    ],
)
def test_steps_that_do_not_fit_are_refused(steps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Flipbook(steps)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the picture of step 2 must be a figure.*int"):
        Flipbook([(flat(COLORS[0]), "a"), (5, "b")])  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        Flipbook([("no.png", "a"), ("no.png", "b")])


@pytest.mark.parametrize(
    ("trait", "value"), [("step", 4), ("step", -1), ("step", "1"), ("steps", []), ("size", (1, 1))]
)
def test_bad_values_are_refused_and_change_nothing(trait: str, value: object) -> None:
    book = colors(step=2)
    before = book.state()
    with pytest.raises(TraitError, match=trait):
        setattr(book, trait, value)
    assert book.state() == before


def test_print_has_first_and_last_and_words_have_every_step() -> None:
    book = colors(title="Four colours")
    sheet = re.search(r'src="data:image/png;base64,([^"]+)"', book.to_html())
    assert sheet
    with Image.open(io.BytesIO(b64decode(sheet[1]))) as opened:
        seen = opened.convert("RGB").getcolors(1 << 20)
    assert seen
    for color in COLORS:
        near = [count for count, other in seen if max(abs(a - b) for a, b in zip(color, other, strict=True)) < 16]
        assert sum(near) > 10_000
    assert book.describe().startswith("Four colours, in 4 pictures. 1. All is red. 2. Now it is green")
    assert book.describe().endswith("3. Blue. 4. Olive, at $_$ each.")
    assert book.to_html() == colors(title="Four colours").to_html()
    many = Flipbook([(flat((20 * k, 0, 0)), f"shade {k}") for k in range(11)])
    assert [ax.get_title(loc="left") for ax in many.picture().axes] == [f"{k + 1}. shade {k}" for k in (0, 3, 7, 10)]


def test_a_photograph_in_a_figure_is_no_drawing() -> None:
    figure = Figure(figsize=(4, 3), dpi=70)
    figure.subplots().imshow(VOCDataset(sample_root(), "test")[0][0].permute(1, 2, 0).numpy())
    book = Flipbook([(figure, "scene"), (figure, "scene")])
    assert book.size == (280, 210)
    assert book.steps[0]["picture"].startswith("data:image/jpeg")


def test_a_figure_keeps_its_axes_and_its_resolution() -> None:
    figure = Figure(figsize=(4, 3), dpi=70, layout="none")
    ax = figure.add_axes((0.25, 0.25, 0.5, 0.5), xticks=[], yticks=[], facecolor="red")
    ax.spines[:].set_visible(False)
    with rc_context({"figure.constrained_layout.use": True}), warnings.catch_warnings():
        warnings.simplefilter("error")
        book = Flipbook([(figure, "red"), (figure, "red")])
    assert book.size == (280, 210)
    for page in book.steps:
        drawn = open_url(page["picture"]).convert("RGB")
        red = drawn.point(lambda value: 255 - value).getbbox()
        assert red == pytest.approx((70, 52, 210, 158), abs=1)


def seen_picture(page: Page) -> list[int]:
    """The numbers of the pictures that can be seen, and nothing else."""
    found: list[int] = page.eval_on_selector_all(
        ".ssd-flipbook img", "all => all.flatMap((e, i) => e.checkVisibility({visibilityProperty: true}) ? [i] : [])"
    )
    return found


def wait_for_words(page: Page, words: str) -> None:
    page.wait_for_function("(words) => document.querySelector('[role=status]').textContent === words", arg=words)


@pytest.mark.browser
def test_slider_buttons_and_keys_turn_the_pages(show: OpenPage) -> None:
    page = show(colors(step=1))
    assert seen_picture(page) == [1]
    wait_for_words(page, WORDS[1])
    assert page.locator(".ssd-flipbook img").nth(1).get_attribute("alt") == WORDS[1]
    slider = page.get_by_role("slider", name="Step")
    assert slider.get_attribute("aria-valuetext") == "2 of 4"
    for key, expected in [("ArrowRight", 2), ("End", 3), ("ArrowRight", 3), ("ArrowLeft", 2), ("Home", 0)]:
        slider.press(key)
        assert (state_of(page, "step"), seen_picture(page)) == (expected, [expected])
    forward = page.get_by_role("button", name="one step forward")
    forward.press("Enter")
    assert state_of(page, "step") == 1
    for key, expected in [("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 3), ("ArrowLeft", 2)]:
        page.keyboard.press(key)  # with the focus on a button
        assert state_of(page, "step") == expected
    wait_for_words(page, WORDS[2])
    set_state(page, "step", 99)  # as a page could
    assert seen_picture(page) == [3]
    page.get_by_role("button", name="Reset").click()
    assert seen_picture(page) == [1]


@pytest.mark.browser
def test_it_plays_to_the_end_and_stops_for_a_hand(show: OpenPage) -> None:
    page = show(Flipbook([(flat(color), f"colour {color[0]}") for color in COLORS]))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.ssd-widget-place').model.get('step') === 1")
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("button", name="Play").count() == 1  # not Pause
    page.wait_for_timeout(1500)
    assert state_of(page, "step") == 0


@pytest.mark.browser
def test_nothing_moves_by_itself_for_whoever_asks_for_less_motion(show: OpenPage) -> None:
    page = show(colors(), reduced_motion="reduce")
    assert page.get_by_role("button", name="Play").count() == 0
    page.get_by_role("button", name="one step forward").click()
    assert seen_picture(page) == [1]


def swipe(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    touch = page.context.new_cdp_session(page)
    for k in range(9):
        x, y = (a + (b - a) * k / 8 for a, b in zip(start, end, strict=True))
        touch.send(
            "Input.dispatchTouchEvent",
            {"type": "touchMove" if k else "touchStart", "touchPoints": [{"x": x, "y": y}]},
        )
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.browser
def test_a_finger_turns_pages_across_and_scrolls_down(show: OpenPage) -> None:
    page = show(colors(), width=390, height=500, has_touch=True, is_mobile=True)
    frame = page.locator(".ssd-flipbook").bounding_box()
    assert frame
    left, right, middle = frame["x"] + 40, frame["x"] + frame["width"] - 40, frame["y"] + frame["height"] / 2
    swipe(page, (right, middle), (left, middle + 10))
    assert state_of(page, "step") == 1
    swipe(page, (left, middle), (right, middle))
    assert state_of(page, "step") == 0
    swipe(page, (right, middle), (right - 15, middle))  # a tap that trembles
    assert state_of(page, "step") == 0
    swipe(page, (right, middle), (right - 20, middle - 120))
    assert state_of(page, "step") == 0
    page.wait_for_function("scrollY > 40")


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_below_moves_when_a_page_is_turned(show: OpenPage, width: int) -> None:
    page = show(colors(), width=width)
    tops = set()
    for step, words in enumerate(WORDS):
        set_state(page, "step", step)
        wait_for_words(page, words)
        tops.add(page.get_by_role("button", name="Reset").bounding_box()["y"])  # type: ignore[index]
        room, said = (page.locator(name).bounding_box() for name in (".ssd-flipbook-words", "[role=status]"))
        assert room
        assert said
        assert said["height"] <= room["height"]
    assert len(tops) == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers(show: OpenPage, theme: str) -> None:
    evil = "<img src=x onerror=alert(1)>"
    page = show(Flipbook([(flat(color), evil) for color in COLORS], title=evil), theme=theme)
    wait_for_words(page, evil)
    assert page.locator(".ssd-widget img").count() == 4
    assert violations(page) == []
    page.emulate_media(media="print")
    assert page.locator(".ssd-widget-place > img").is_visible()
    assert not page.locator(".ssd-widget").is_visible()
