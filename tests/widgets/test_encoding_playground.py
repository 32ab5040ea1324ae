"""EncodingPlayground: its checks in Python, and on a page the arithmetic, the drags, the keys and the border."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import decode, encode
from ssdlib.widgets import EncodingPlayground, encoding_playground
from ssdlib.widgets.base import read_static

SOURCE = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "encoding_playground"))
WITH_OFFSET = f"{SOURCE.replace('export default { render };', '')}; return withOffset"


def test_offsets_are_those_of_the_library_both_ways() -> None:
    playground = EncodingPlayground(prior=[100, 100, 200, 150], box=[100, 105, 220, 165])
    prior = torch.tensor([150.0, 125.0, 100.0, 50.0])
    assert playground.offsets == pytest.approx(encode(torch.tensor([160.0, 135.0, 120.0, 60.0]), prior).tolist())
    playground.offsets = torch.tensor([-1.0, 0.5, math.log(2) / 0.2, 0.0])
    assert playground.box == pytest.approx([40, 102.5, 240, 152.5])
    playground.variances = (1, 1)
    assert playground.offsets == pytest.approx([-0.1, 0.05, math.log(2), 0])


def test_doubling_the_width_adds_the_same_on_every_prior() -> None:
    for choice in EncodingPlayground().priors:
        playground = EncodingPlayground(prior=choice["prior"], box=[120, 80, 180, 120])
        before = playground.offsets
        playground.box = [90, 80, 210, 120]
        change = [after - start for after, start in zip(playground.offsets, before, strict=True)]
        assert change == pytest.approx([0, 0, math.log(2) / 0.2, 0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("box", [10, 10, 10, 20], "box must be at least 1 pixel wide and high"),
        ("prior", [10, 10, 20, 10.5], "prior must be at least 1 pixel wide and high"),
        ("box", [10, 10, 301, 20], "inside the picture of 300 x 200"),
        ("variances", (0.1, 0), "variances must be two finite numbers above 0"),
        ("variances", (0.1, float("nan")), "variances must be made of finite numbers"),
        ("variances", (0.1,), "variances"),
        ("offsets", [0, 0, 0], "offsets must be four finite numbers"),
        ("offsets", 5, "offsets must be four finite numbers; got 5"),
        ("offsets", [0, 0, 0, float("inf")], "offsets must be four finite numbers"),
        ("offsets", [100, 0, 0, 0], "inside the picture"),
    ],
)
def test_bad_values_are_refused_at_once(name: str, value: object, message: str) -> None:
    playground = EncodingPlayground()
    before = (playground.box, playground.prior, playground.variances)
    with pytest.raises(TraitError, match=message):
        setattr(playground, name, value)
    assert (playground.box, playground.prior, playground.variances) == before


def test_example_runs() -> None:
    assert doctest.testmod(encoding_playground).failed == 0


def test_picture_and_words() -> None:
    playground = EncodingPlayground(prior=[100, 100, 200, 150], box=[100, 105, 220, 165])
    assert "100 by 50 pixels and an object of 120 by 60" in playground.describe()
    assert "1.00 and 2.00 for the centre" in playground.describe()
    assert len(playground.to_html()) < 30_000


@pytest.mark.browser
def test_one_changed_offset_gives_the_box_of_the_library(open_page: OpenPage) -> None:
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([300.0, 200.0, 300.0, 200.0], dtype=torch.float64)
    corners = torch.rand(200, 2, 2, generator=generator, dtype=torch.float64).sort(dim=1).values.flatten(1)
    boxes = (0.4 + 0.2 * corners) * size  # in the middle, so that most changes fit
    boxes[:, 2:] += 2
    prior = torch.tensor([120.0, 70.0, 180.0, 130.0], dtype=torch.float64)
    which = torch.arange(200) % 4
    values = (torch.rand(200, generator=generator, dtype=torch.float64) - 0.5) * 24
    there = open_page("about:blank#//").evaluate(
        """([source, boxes, prior, which, values]) => {
            const withOffset = new Function(source)();
            return boxes.map((box, k) => withOffset(box, prior, [0.1, 0.2], [300, 200], which[k], values[k]));
        }""",
        [WITH_OFFSET, boxes.tolist(), prior.tolist(), which.tolist(), values.tolist()],
    )
    offsets = encode(xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(prior))
    offsets[torch.arange(200), which] = values
    here = cxcywh_to_xyxy(decode(offsets, xyxy_to_cxcywh(prior)))
    sides = xyxy_to_cxcywh(here)[:, 2:].amin(dim=1)
    fits = ((here >= 0) & (here <= size)).all(dim=1) & (sides >= 1)
    assert int(fits.sum()) > 60
    result = torch.tensor(there, dtype=torch.float64)
    torch.testing.assert_close(result[fits], here[fits], atol=6e-4, rtol=0)
    # The others stop at the border, or at 1 pixel, and leave the rest of the box alone.
    assert ((result >= 0) & (result <= size)).all()
    assert (xyxy_to_cxcywh(result)[:, 2:] > 1 - 2e-3).all()
    kept = torch.ones(200, 4, dtype=torch.bool)
    kept[torch.arange(200), which] = False
    torch.testing.assert_close(xyxy_to_cxcywh(result)[kept], xyxy_to_cxcywh(boxes)[kept], atol=2e-3, rtol=0)


def shown(page: Page) -> list[str]:
    return page.locator(".ssd-offsets .ssd-value").all_inner_texts()


def as_shown(playground: EncodingPlayground) -> list[str]:
    return [f"{offset:.2f}".replace("-0.00", "0.00").replace("-", "\u2212") for offset in playground.offsets]


@pytest.mark.browser
def test_offsets_follow_the_object_by_mouse_by_keys_and_from_python(show: OpenPage) -> None:
    page = show(EncodingPlayground(prior=[120, 70, 180, 130], box=[120, 70, 180, 130]))
    assert shown(page) == ["0.00"] * 4
    stage = page.locator(".ssd-stage").bounding_box()
    assert stage
    unit = stage["width"] / 300
    page.mouse.move(stage["x"] + 140 * unit, stage["y"] + 90 * unit)
    page.mouse.down()
    page.mouse.move(stage["x"] + 152 * unit, stage["y"] + 84 * unit, steps=4)
    page.mouse.up()
    assert state_of(page, "box") == [132, 64, 192, 124]
    assert shown(page) == ["2.00", "\u22121.00", "0.00", "0.00"]
    assert "(162 \u2212 150) / 60 = 0.200;  ÷ 0.1 = 2.00" in (page.locator(".ssd-sum").first.text_content() or "")
    page.locator(".ssd-movable-box").focus()
    page.keyboard.press("Control+Shift+ArrowRight")
    box = state_of(page, "box")
    assert box == [132, 64, 202, 124]
    assert shown(page) == as_shown(EncodingPlayground(box=box, prior=[120, 70, 180, 130]))
    set_state(page, "prior", [90, 40, 210, 160])
    assert shown(page) == as_shown(EncodingPlayground(box=box, prior=[90, 40, 210, 160]))
    assert page.get_by_role("radio", name="120 × 120").is_checked()
    set_state(page, "variances", [1, 1])
    assert shown(page) == as_shown(EncodingPlayground(box=box, prior=[90, 40, 210, 160], variances=(1, 1)))


@pytest.mark.browser
def test_object_follows_its_offsets_and_stops_at_the_border(show: OpenPage) -> None:
    page = show(EncodingPlayground(prior=[90, 40, 210, 160], box=[90, 40, 210, 160]))
    slider = page.get_by_role("slider", name="cx centre x")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert state_of(page, "box") == pytest.approx([96, 40, 216, 160])
    assert shown(page) == ["0.50", "0.00", "0.00", "0.00"]
    slider.press("End")  # 10 would be a prior's width to the right; the border comes first
    assert state_of(page, "box") == pytest.approx([180, 40, 300, 160])
    assert shown(page)[0] == "7.50"
    slider.press("End")
    assert float(slider.input_value()) == 7.5  # nothing has moved, and the slider says so
    page.get_by_role("slider", name="h height").press("Home")
    assert shown(page) == ["7.50", "0.00", "0.00", "\u221210.00"]


@pytest.mark.browser
def test_variances_are_switched_and_the_distance_is_drawn_over_the_width(show: OpenPage) -> None:
    playground = EncodingPlayground(prior=[120, 70, 180, 130], box=[132, 70, 192, 130])
    page = show(playground)
    words = page.locator(".ssd-stage text.ssd-small").all_text_contents()
    assert words == ["12", "12 of 60 px = 0.20"]
    switch = page.get_by_role("checkbox", name="divide by the variances 0.1 and 0.2")
    switch.uncheck()
    assert state_of(page, "variances") == [1, 1]
    assert shown(page) == ["0.20", "0.00", "0.00", "0.00"]
    slider = page.get_by_role("slider", name="cx centre x")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("-1", "1")
    slider.press("ArrowRight")
    assert shown(page)[0] == "0.21"
    switch.check()
    assert shown(page)[0] == "2.10"
    assert slider.get_attribute("max") == "10"
    left = page.get_by_role("spinbutton", name="left")
    left.fill("299")
    left.press("Enter")
    box = state_of(page, "box")
    assert box[0] == pytest.approx(box[2] - 1)  # no thinner than 1 px, which has a logarithm


@pytest.mark.browser
def test_buttons_show_what_to_notice(show: OpenPage) -> None:
    page = show(EncodingPlayground(box=[60, 70, 120, 130]))
    page.get_by_role("button", name="equal to the prior").click()
    assert shown(page) == ["0.00"] * 4
    page.get_by_role("button", name="10 px to the right").click()
    assert shown(page)[0] == "1.67"
    page.get_by_role("button", name="twice as wide").click()
    assert shown(page) == ["1.67", "0.00", "3.47", "0.00"]
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('width 3.47')")
    page.get_by_role("radio", name="30 × 30").check()
    assert state_of(page, "prior") == [135, 85, 165, 115]
    assert shown(page)[0] == "3.33"


@pytest.mark.browser
def test_a_button_that_can_do_nothing_is_off_and_says_so(show: OpenPage) -> None:
    page = show(EncodingPlayground(prior=[120, 70, 180, 130], box=[100, 70, 190, 130]))
    twice = page.get_by_role("button", name="twice as wide")
    why = page.locator(".ssd-two-lines")
    assert why.inner_text() == ""
    twice.click()
    assert state_of(page, "box") == [55, 70, 235, 130]
    twice.focus()  # 360 px would be wider than the grid
    assert twice.get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")
    assert state_of(page, "box") == [55, 70, 235, 130]
    assert twice.evaluate("button => button === document.activeElement")
    assert "Off now" in why.inner_text()
    assert "twice as wide" in why.inner_text()
    half = page.get_by_role("button", name="half as wide")
    for _ in range(7):
        half.click()
    assert half.get_attribute("aria-disabled") == "true"  # less than 1 px
    page.get_by_role("button", name="equal to the prior").click()
    assert why.inner_text().endswith("nothing: equal to the prior.")
    page.get_by_role("slider", name="w width").press("End")
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('stops the object')")
    assert "10 px to the right" in why.inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    widget = EncodingPlayground(priors=[{"name": "<img src=x onerror=alert(1)>", "prior": [10, 10, 40, 40]}])
    assert violations(show(widget, theme=theme)) == []
    page = show(widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    heights = page.eval_on_selector_all("button, input[type=range]", "all => all.map(e => e.offsetHeight)")
    assert len(heights) == 9
    assert min(heights) >= 44
