"""The script of the pages in a browser without network: arithmetic, the shared controls, and the first widget."""

from __future__ import annotations

import math

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations

from ssdlib.boxes import area, cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import decode, encode
from ssdlib.widgets import JaccardPlayground
from ssdlib.widgets.base import read_static

pytestmark = pytest.mark.browser
NAMES = "area, iou, toCentre, toCorners, encode, decode, fixed, thousands, roundTo, clamp"
MATHS = f"{read_static('maths.mjs')}; return {{{NAMES}}}"


def test_arithmetic_is_that_of_the_library(open_page: OpenPage) -> None:
    page = open_page("about:blank#//")
    corners = torch.rand(200, 2, 2, dtype=torch.float64).sort(dim=1).values.flatten(1)
    corners[:3] = torch.tensor([[0, 0, 0, 1], [0.2, 0.2, 0.2, 0.2], [0, 0, 1, 1]])
    a, b = corners.roll(1, 0), corners
    centre = xyxy_to_cxcywh(a).clamp(min=1e-3)
    prior = xyxy_to_cxcywh(b).clamp(min=1e-3)
    there = page.evaluate(
        """([source, a, b, centre, prior]) => {
            const f = new Function(source)();
            return a.map((_, i) => ({
                area: f.area(a[i]), iou: f.iou(a[i], b[i]), centre: f.toCentre(a[i]), corners: f.toCorners(centre[i]),
                encoded: f.encode(centre[i], prior[i], [0.1, 0.2]),
                decoded: f.decode(f.encode(centre[i], prior[i], [0.1, 0.2]), prior[i], [0.1, 0.2]),
            }));
        }""",
        [MATHS, *(boxes.tolist() for boxes in (a, b, centre, prior))],
    )
    offsets = encode(centre, prior, (0.1, 0.2))
    here = {
        "area": area(a),
        "iou": iou(a, b).diagonal(),
        "centre": xyxy_to_cxcywh(a),
        "corners": cxcywh_to_xyxy(centre),
        "encoded": offsets,
        "decoded": decode(offsets, prior, (0.1, 0.2)),
    }
    for name, expected in here.items():
        torch.testing.assert_close(torch.tensor([row[name] for row in there], dtype=torch.float64), expected)


def test_numbers_are_written_as_in_the_book(open_page: OpenPage) -> None:
    page = open_page("about:blank#//")
    texts = page.evaluate(
        "(source) => { const f = new Function(source)();"
        "return [f.fixed(-0.001), f.fixed(-1.5, 1), f.fixed(2, 0), f.thousands(8732), f.thousands(24564), "
        "f.thousands(999), f.roundTo(0.30000000000000004, 0.1), f.clamp(5, 0, 3)] }",
        MATHS,
    )
    assert texts == ["0.00", "\u22121.5", "2", "8,732", "24,564", "999", 0.3, 3]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str) -> None:
    page = show(JaccardPlayground(), JaccardPlayground(box_b=[0, 0, 10, 10]), theme=theme)
    assert violations(page) == []


def iou_shown(page: Page, number: int = 0) -> str:
    return page.locator(".ssd-widget .ssd-big strong").nth(number).inner_text()


def test_a_box_moves_by_mouse_and_numbers_follow(show: OpenPage) -> None:
    page = show(JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[100, 0, 200, 100]))
    assert iou_shown(page) == "0.000"
    stage = page.locator(".ssd-stage").bounding_box()
    assert stage
    unit = stage["width"] / 300
    page.mouse.move(stage["x"] + 150 * unit, stage["y"] + 50 * unit)
    page.mouse.down()
    page.mouse.move(stage["x"] + 100 * unit, stage["y"] + 50 * unit, steps=4)
    page.mouse.up()
    assert state_of(page, "box_b") == [50, 0, 150, 100]
    assert iou_shown(page) == "0.333"
    page.mouse.move(stage["x"], stage["y"])  # released: nothing follows the pointer any more
    assert state_of(page, "box_b") == [50, 0, 150, 100]


def test_a_corner_resizes_and_stays_inside(show: OpenPage) -> None:
    page = show(JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[100, 100, 200, 150]))
    stage = page.locator(".ssd-stage").bounding_box()
    assert stage
    unit = stage["width"] / 300
    page.mouse.move(stage["x"] + 200 * unit, stage["y"] + 150 * unit)
    page.mouse.down()
    page.mouse.move(stage["x"] + 900 * unit, stage["y"] + 120 * unit, steps=4)
    page.mouse.up()
    assert state_of(page, "box_b") == [100, 100, 300, 120]


def test_keyboard_alone_is_enough(show: OpenPage) -> None:
    page = show(JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[100, 0, 200, 100]))
    page.keyboard.press("Tab")
    assert "Box A" in (page.locator(":focus").get_attribute("aria-label") or "")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+ArrowDown")
    assert state_of(page, "box_a") == [1, 10, 101, 110]
    page.keyboard.press("Shift+ArrowLeft")
    assert state_of(page, "box_a") == [1, 10, 100, 110]
    page.get_by_role("button", name="equal", exact=True).focus()
    page.keyboard.press("Enter")
    assert iou_shown(page) == "1.000"
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('IoU 1.000')")


def test_a_box_can_be_typed(show: OpenPage) -> None:
    page = show(JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[100, 0, 200, 100]))
    fields = page.get_by_role("group", name="B:")
    left = fields.get_by_label("left")
    left.fill("50")
    left.press("Enter")
    assert state_of(page, "box_b") == [50, 0, 200, 100]
    assert iou_shown(page) == "0.250"
    for typed, kept in [("900", 200), ("-3", 0), ("", 0)]:  # no further than the other side, and inside the grid
        left.fill(typed)
        left.press("Enter")
        assert state_of(page, "box_b")[0] == kept
    assert left.input_value() == "0"
    page.get_by_role("button", name="apart").click()
    assert left.input_value() == "160"


def test_the_challenge_tells_when_half_is_reached(show: OpenPage) -> None:
    page = show(JaccardPlayground())
    page.get_by_role("button", name="Challenge").click()
    assert iou_shown(page) == "1.000"
    words = page.locator(".ssd-panel .ssd-hint")
    assert "Guess first" in words.inner_text()
    page.get_by_role("group", name="B:").get_by_label("right").focus()
    set_state(page, "box_b", [100, 60, 220, 140])  # a third of its width
    assert iou_shown(page) == "0.500"
    assert "67 % of itself" in words.inner_text()


def test_partners_light_up_and_all_else_dims(show: OpenPage) -> None:
    page = show(JaccardPlayground())
    dim = "all => all.map(e => getComputedStyle(e).opacity)"
    box_a = page.locator("[data-link=A]")
    page.locator("[data-link=shared].ssd-linked, .ssd-fraction > [data-link=shared]").last.hover()
    assert page.eval_on_selector_all("[data-link=shared], [data-link=A], [data-link=B]", dim) == ["1"] * 4
    assert set(page.eval_on_selector_all("[data-link=union]", dim)) == {"0.3"}
    page.get_by_role("button", name="touching").hover()
    assert page.locator(".ssd-linking").count() == 0
    box_a.focus()
    page.keyboard.press("ArrowRight")
    assert box_a.get_attribute("class") == "ssd-movable-box ssd-linked"
    assert set(page.eval_on_selector_all("[data-link=B]", dim)) == {"0.3"}


def test_a_tap_lights_up_and_a_tap_elsewhere_ends_it(show: OpenPage) -> None:
    page = show(JaccardPlayground(), width=390, has_touch=True, is_mobile=True)
    page.locator(".ssd-fraction > [data-link=union]").tap()
    assert page.locator(".ssd-linking").count() == 1
    page.locator(".ssd-says").tap()
    assert page.locator(".ssd-linking").count() == 0


def test_widgets_of_one_page_do_not_hear_each_other(show: OpenPage) -> None:
    page = show(JaccardPlayground(), JaccardPlayground())
    before = iou_shown(page, 1)
    set_state(page, "box_b", [60, 60, 160, 140])
    assert iou_shown(page) == "1.000"
    assert iou_shown(page, 1) == before


def test_without_scripts_and_in_print_there_is_the_picture(show: OpenPage) -> None:
    page = show(JaccardPlayground(), java_script_enabled=False)
    assert page.locator("img").is_visible()
    assert page.locator(".ssd-widget").count() == 0
    page = show(JaccardPlayground())
    assert not page.locator("img").is_visible()
    page.emulate_media(media="print")
    assert page.locator("img").is_visible()
    assert not page.locator(".ssd-widget").is_visible()


def test_fits_a_phone_and_targets_can_be_touched(show: OpenPage) -> None:
    page = show(JaccardPlayground(), width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(
        "button, .ssd-target", "all => all.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(sizes) > 8
    assert all(math.ceil(side) >= 44 for size in sizes for side in size)
