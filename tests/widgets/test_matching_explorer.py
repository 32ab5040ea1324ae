"""MatchingExplorer: the positives of the page are those of ssdlib.matching at every threshold; steps, objects, keys."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.matching import best_priors, match
from ssdlib.model import TINY
from ssdlib.priors import make_priors
from ssdlib.widgets import MatchingExplorer, matching_explorer
from ssdlib.widgets.base import read_static

SOURCE = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "matching_explorer"))
NAMES = "scenePriors, overlapsOf, matchedPriors"
FUNCTIONS = f"{SOURCE.replace('export default { render };', '')}; return {{ {NAMES} }}"
SHARED = "two objects, one best prior"
EVIL = "<img src=x onerror=alert(1)>"


def explorer(index: int = 31, **traits: Any) -> MatchingExplorer:
    dataset = VOCDataset(sample_root(), "test")
    target = dataset.target(index)
    names = [dataset.classes[label - 1] for label in target["labels"].tolist()]
    return MatchingExplorer(dataset.image_path(index), target["boxes"], names, **traits)


def page_matches(page: Page, widget: MatchingExplorer, boxes: list[Any], thresholds: list[float]) -> list[list[int]]:
    """What the page makes of these boxes of the objects, at each threshold: the object of each prior, or -1."""
    found = page.evaluate(
        """([source, scene, tries, thresholds]) => {
            const { scenePriors, overlapsOf, matchedPriors } = new Function(source)();
            const priors = scenePriors(scene);
            return tries.flatMap((boxes) => {
                const overlaps = overlapsOf(boxes, priors, scene.size);
                return thresholds.map((threshold) => {
                    const matched = new Array(priors.length).fill(-1);
                    for (const { prior, object } of matchedPriors(overlaps, threshold, boxes.length + 1))
                        matched[prior] = object;
                    return matched;
                });
            });
        }""",
        [FUNCTIONS, widget.state()["scenes"][0], boxes, thresholds],
    )
    assert len(found) == len(boxes) * len(thresholds)
    return found


@pytest.mark.browser
@pytest.mark.parametrize("index", [2, 9, 29, 31])
def test_positives_of_the_page_are_those_of_the_library(open_page: OpenPage, index: int) -> None:
    widget = explorer(index)
    dataset = VOCDataset(sample_root(), "test")
    width, height = dataset.size(index)
    objects = dataset.target(index)["boxes"].double() / torch.tensor([width, height, width, height])
    priors = make_priors(TINY, dtype=torch.float64)
    thresholds = [round(0.2 + 0.01 * k, 2) for k in range(81)]
    there = page_matches(open_page("about:blank#//"), widget, [widget.boxes], thresholds)
    for threshold, found in zip(thresholds, there, strict=True):
        assert found == match(objects, priors, threshold).tolist(), threshold


@pytest.mark.browser
def test_moved_objects_are_matched_as_by_the_library(open_page: OpenPage) -> None:
    widget = explorer()
    page = open_page("about:blank#//")
    width, height = widget.scenes[0]["size"]
    corners = (torch.rand(40, 4, 2, 2) * torch.tensor([width - 8, height - 8])).round().sort(dim=2).values
    corners[..., 1, :] += 8
    tries = corners.flatten(2).tolist()
    tries[0] = [tries[0][0]] * 4  # four objects in one place: all of them want the same prior
    there = page_matches(page, widget, tries, [0.5])
    for boxes, found in zip(tries, there, strict=True):
        widget.boxes = boxes
        assert found == widget.positives.tolist()


def test_two_objects_with_one_best_prior() -> None:
    widget = explorer(scene=SHARED)
    overlaps = iou(torch.tensor(widget.boxes).double() / 240, cxcywh_to_xyxy(widget._scene.priors))
    assert overlaps.argmax(dim=1).unique().numel() == 1
    assert overlaps[0].max() > overlaps[1].max()
    assert sorted(widget.positives[widget.positives >= 0].tolist()) == [0, 1]


def test_an_object_can_be_moved_and_another_scene_puts_it_back() -> None:
    widget = explorer()
    first = widget.boxes
    before = widget.positives
    widget.boxes = [[0, 0, 60.04, 60], *first[1:]]
    assert widget.boxes[0] == [0, 0, 60, 60]
    assert not torch.equal(widget.positives, before)
    assert (widget.positives == 0).any()
    width = widget.scenes[0]["size"][0]
    for wrong, message in [
        ([[0.0, 0, 5, 5]], "those of the 4 objects; got 1"),
        ([[0, 0, width + 1, 5], *first[1:]], "must lie in the picture"),
        ([[0, 0, 0, 5], *first[1:]], "x_min < x_max"),
        ([[0, 0, float("nan"), 5], *first[1:]], "finite"),
    ]:
        with pytest.raises(TraitError, match=message):
            widget.boxes = wrong
    widget.scene = SHARED
    assert len(widget.boxes) == 2
    widget.scene = "this image"
    assert widget.boxes == first
    widget.set_state({"scene": SHARED, "boxes": widget.scenes[1]["boxes"], "step": 0, "selected": -1})
    assert (widget.scene, len(widget.boxes)) == (SHARED, 2)


def test_traits_are_checked_at_once_and_a_new_scene_starts_anew() -> None:
    widget = explorer(selected=2, step=1)
    for name, value, message in [
        ("threshold", 0.1, "threshold"),
        ("threshold", 1.2, "threshold"),
        ("threshold", "high", "threshold"),
        ("step", 6, "step must be 0 to 5"),
        ("step", -1, "step must be 0 to 5"),
        ("selected", 4, "selected must be -1 to 3"),
        ("scene", "elsewhere", "scene"),
    ]:
        with pytest.raises(TraitError, match=message):
            setattr(widget, name, value)
    assert (widget.scene, widget.step, widget.selected, widget.threshold) == ("this image", 1, 2, 0.5)
    widget.threshold = 0.333
    assert widget.threshold == 0.33
    widget.scene = SHARED
    assert (widget.step, widget.selected) == (0, -1)
    with pytest.raises(TraitError, match="selected must be -1 to 1"):
        widget.selected = 2


def test_changes_from_a_page_arrive_together() -> None:
    widget = explorer(selected=3, step=4)
    widget.set_state({"step": 0, "selected": -1, "scene": SHARED})
    assert (widget.scene, widget.step, widget.selected) == (SHARED, 0, -1)
    widget.set_state({"step": 0, "selected": -1, "scene": "this image"})
    assert (widget.scene, widget.step, widget.selected) == ("this image", 0, -1)
    widget.set_state({"threshold": 0.37, "selected": 3})
    assert (widget.threshold, widget.selected) == (0.37, 3)


def test_example_runs() -> None:
    assert doctest.testmod(matching_explorer).failed == 0


def test_boxes_and_names_must_fit() -> None:
    image = torch.zeros(3, 40, 40)
    with pytest.raises(ValueError, match="1 boxes, but 2 names"):
        MatchingExplorer(image, torch.tensor([[1.0, 1, 9, 9]]), ["a", "b"])
    with pytest.raises(ValueError, match="object 0 has no valid box"):
        MatchingExplorer(image, torch.tensor([[9.0, 1, 1, 9]]), ["a"])


def test_an_image_without_objects_and_the_picture() -> None:
    widget = MatchingExplorer(torch.zeros(3, 40, 40), torch.empty(0, 4), [])
    assert (widget.positives == -1).all()
    assert "0 objects" in widget.describe()
    assert "0 of 5456 priors" in widget.describe()
    assert "0 of 5456" in widget.to_html()
    widget = explorer()
    assert f"{int((widget.positives >= 0).sum())} of 5456 priors. For each object: crate " in widget.describe()
    assert len(widget.to_html()) < 80_000


def counts(widget: MatchingExplorer) -> list[str]:
    found = widget.positives
    return [str(int((found == m).sum())) for m in range(4)]


def counts_shown(page: Page) -> list[str]:
    return page.locator(".ssd-matrix tfoot td").all_inner_texts()


@pytest.mark.browser
def test_threshold_steps_and_objects_by_keyboard(show: OpenPage) -> None:
    widget = explorer()
    page = show(widget)
    assert (widget.step, counts_shown(page)) == (0, ["0"] * 4)
    assert page.get_by_text("It counts in step two only").is_visible()
    page.get_by_role("slider", name="Threshold of step two").press("ArrowLeft")
    assert (state_of(page, "threshold"), state_of(page, "step")) == (0.49, 5)  # never without effect
    assert not page.get_by_text("It counts in step two only").is_visible()
    for _ in range(14):
        page.keyboard.press("ArrowLeft")
    widget.threshold = 0.35
    assert state_of(page, "threshold") == 0.35
    assert counts_shown(page) == counts(widget)
    total = int((widget.positives >= 0).sum())
    by_map = [int((widget.positives[part] >= 0).sum()) for part in TINY.map_slices()]
    assert page.locator(".ssd-maps strong").all_inner_texts() == [str(count) for count in by_map]
    assert page.locator(".ssd-line").count() == total
    page.get_by_role("button", name="1 donut", exact=True).press("Enter")
    assert state_of(page, "selected") == 1
    assert page.locator(".ssd-line").count() == int((widget.positives == 1).sum())
    page.get_by_role("button", name="to the start").press("Enter")
    assert page.locator(".ssd-line").count() == 0
    set_state(page, "selected", -1)
    forward = page.get_by_role("button", name="one step forward")
    for step in (1, 2, 3, 4):
        forward.click()
        assert page.locator(".ssd-line").count() == step
    forward.click()
    assert page.locator(".ssd-line").count() == total
    assert forward.is_disabled()
    page.wait_for_function(f"document.querySelector('[role=status]').textContent.includes(': {total} of 5,456 priors')")


@pytest.mark.browser
def test_the_matrix_shows_a_pair_by_mouse_and_by_keyboard(show: OpenPage) -> None:
    widget = explorer(step=5)
    page = show(widget)
    overlaps = iou(widget._fractions, cxcywh_to_xyxy(widget._scene.priors))
    cells = page.locator(".ssd-matrix tbody td")
    rows = [int(text) for text in page.locator(".ssd-matrix tbody th").all_inner_texts()]
    assert set(best_priors(overlaps).tolist()) <= set(rows)
    shown = [float(text.lstrip("●✓ ")) for text in cells.all_inner_texts()]
    assert shown == pytest.approx(overlaps[:, rows].T.flatten().tolist(), abs=0.00501)
    assert page.locator(".ssd-pointed").count() == 0
    cells.nth(4).hover()  # the second prior with the first object
    assert page.locator(".ssd-line.ssd-pointed").count() == 1
    bright = page.eval_on_selector_all("g.ssd-movable-box", "all => all.map(e => getComputedStyle(e).opacity)")
    assert bright == ["1", "0.3", "0.3", "0.3"]
    page.locator(".ssd-says").hover()
    assert page.locator(".ssd-pointed").count() == 0
    cells.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator(":focus").get_attribute("data-lights") == f"p{rows[1]} o1"
    assert page.locator(".ssd-line.ssd-pointed").count() == 1


@pytest.mark.browser
def test_a_dragged_object_takes_everything_along(show: OpenPage) -> None:
    widget = explorer(step=5)
    page = show(widget)
    width = widget.scenes[0]["size"][0]
    before, matrix = widget.boxes[1], page.locator(".ssd-matrix").inner_text()
    frame = page.locator(".ssd-stage").bounding_box()
    assert frame
    unit = frame["width"] / width
    x, y = (before[0] + before[2]) / 2, (before[1] + before[3]) / 2
    page.mouse.move(frame["x"] + x * unit, frame["y"] + y * unit)
    page.mouse.down()
    page.mouse.move(frame["x"] + (x + 20) * unit, frame["y"] + (y + 30) * unit, steps=5)
    page.mouse.up()
    after = state_of(page, "boxes")
    assert after[1] == pytest.approx([side + (20, 30)[i % 2] for i, side in enumerate(before)], abs=1.5)
    assert state_of(page, "selected") == -1  # it was moved, not chosen
    assert page.locator(".ssd-matrix").inner_text() != matrix
    widget.boxes = after
    assert counts_shown(page) == counts(widget)
    assert page.locator(".ssd-line").count() == int((widget.positives >= 0).sum())
    set_state(page, "selected", 2)
    left = page.get_by_role("group", name="2 star").get_by_label("left")
    left.fill("10")
    left.press("Enter")
    assert state_of(page, "boxes")[2][0] == 10
    page.get_by_role("button", name="Reset").click()
    assert state_of(page, "boxes")[1] == before


@pytest.mark.browser
def test_scene_of_one_best_prior_says_what_happens(show: OpenPage) -> None:
    page = show(explorer())
    page.get_by_role("radio", name=SHARED).check()
    assert (state_of(page, "step"), state_of(page, "selected"), len(state_of(page, "boxes"))) == (0, -1, 2)
    for _ in range(3):
        page.get_by_role("button", name="one step forward").click()
    assert page.locator(".ssd-line.ssd-own").count() == 2
    page.get_by_role("button", name="one step back").click()
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('is taken by an object')")
    set_state(page, "scene", "this image")  # before the boxes, as Python might
    assert page.get_by_role("button", name="0 crate", exact=True).count() == 1


@pytest.mark.browser
def test_an_object_is_chosen_by_mouse_and_from_python(show: OpenPage) -> None:
    widget = explorer(step=5)
    page = show(widget)
    donut = page.get_by_role("button", name="1 donut: left")
    donut.click()
    assert state_of(page, "selected") == 1
    assert page.locator(".ssd-line").count() == int((widget.positives == 1).sum())
    donut.click()
    assert state_of(page, "selected") == -1
    set_state(page, "selected", 0)
    pressed = page.get_by_role("button", name="0 crate", exact=True)
    assert pressed.get_attribute("aria-pressed") == "true"
    set_state(page, "threshold", 0.7)
    widget.threshold = 0.7
    assert counts_shown(page) == counts(widget)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    boxes = torch.tensor([[10.0, 10, 60, 60], [30, 30, 90, 95]])
    widget = MatchingExplorer(torch.rand(3, 100, 100), boxes, [EVIL, "star"], selected=0)
    assert violations(show(widget, theme=theme)) == []
    page = show(explorer(), widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    heights = page.eval_on_selector_all("button, input[type=range]", "all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 44
