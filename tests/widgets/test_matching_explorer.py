"""MatchingExplorer: the positives of the page are those of ssdlib.matching at every threshold; steps, objects, keys."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torch import Tensor
from traitlets import TraitError

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.matching import best_priors, match
from ssdlib.model import TINY
from ssdlib.priors import make_priors
from ssdlib.widgets import MatchingExplorer, matching_explorer
from ssdlib.widgets.base import read_static

SOURCE = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "matching_explorer"))
MATCHED = f"{SOURCE.replace('export default { render };', '')}; return matchedPriors"
SHARED = "two objects, one best prior"
EVIL = "<img src=x onerror=alert(1)>"


def explorer(index: int = 31, **traits: Any) -> MatchingExplorer:
    dataset = VOCDataset(sample_root(), "test")
    target = dataset.target(index)
    names = [dataset.classes[label - 1] for label in target["labels"].tolist()]
    return MatchingExplorer(dataset.image_path(index), target["boxes"], names, **traits)


def as_pairs(found: Tensor, boxes: Tensor) -> list[list[int]]:
    """Positives as the page knows them, sorted: box in tenths of a pixel, and object."""
    where = (found >= 0).nonzero().squeeze(1)
    return sorted([*box, m] for box, m in zip(boxes[where].tolist(), found[where].tolist(), strict=True))


def tenths(size: tuple[int, int], priors: Tensor) -> Tensor:
    return (cxcywh_to_xyxy(priors) * torch.tensor([*size, *size]) * 10).round().int()


@pytest.mark.browser
@pytest.mark.parametrize("index", [2, 9, 29, 31])
def test_positives_of_the_page_are_those_of_the_library(open_page: OpenPage, index: int) -> None:
    widget = explorer(index)
    dataset = VOCDataset(sample_root(), "test")
    width, height = dataset.size(index)
    objects = dataset.target(index)["boxes"] / torch.tensor([width, height, width, height])
    priors = make_priors(TINY)
    boxes = tenths((width, height), priors)
    thresholds = [round(0.2 + 0.01 * k, 2) for k in range(81)]
    there = open_page("about:blank#//").evaluate(
        """([source, scene, thresholds]) => {
            const matchedPriors = new Function(source)();
            return thresholds.map((threshold) => matchedPriors(scene, threshold, scene.objects.length + 1));
        }""",
        [MATCHED, widget.state()["scenes"][0], thresholds],
    )
    rows = widget.scenes[0]["priors"]
    own = best_priors(iou(objects, cxcywh_to_xyxy(priors))).tolist()
    for threshold, found in zip(thresholds, there, strict=True):
        shown = sorted([*rows[one["row"]][1:5], one["object"]] for one in found)
        assert shown == as_pairs(match(objects, priors, threshold), boxes), threshold
        by_step_one = {one["object"]: rows[one["row"]][1:5] for one in found if one["own"]}
        assert by_step_one == {m: boxes[prior].tolist() for m, prior in enumerate(own)}


def test_objects_are_served_in_the_order_of_their_overlaps_and_maps_are_right() -> None:
    widget = explorer(9)
    scene = widget.scenes[0]
    levels = [level for _, _, level, _, _ in scene["own"]]
    assert levels == sorted(levels, reverse=True)
    assert sorted(m for m, *_ in scene["own"]) == list(range(7))
    priors = make_priors(TINY)
    boxes = tenths(tuple(scene["size"]), priors)
    for map_, *box, _, _ in scene["priors"]:
        assert box in boxes[TINY.map_slices()[map_]].tolist()


def test_two_objects_with_one_best_prior() -> None:
    widget = explorer(scene=SHARED)
    first, second = widget.scenes[1]["own"]
    assert first[1] == first[3] == second[3] != second[1]
    assert (first[0], second[0]) == (0, 1)
    assert sorted(widget.positives[widget.positives >= 0].tolist()) == [0, 1]


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


def cells(page: Page, by: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=f"Positives by {by}").locator("tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def counts(widget: MatchingExplorer) -> list[str]:
    found = widget.positives
    return [str(int((found == m).sum())) for m in range(4)]


@pytest.mark.browser
def test_threshold_steps_and_objects_by_keyboard(show: OpenPage) -> None:
    widget = explorer()
    page = show(widget)
    assert (widget.step, [row[2] for row in cells(page, "object")]) == (0, ["0"] * 4)
    assert "step two only" in page.locator(".ssd-two-lines").inner_text()
    page.get_by_role("slider", name="Threshold of step two").press("ArrowLeft")
    assert (state_of(page, "threshold"), state_of(page, "step")) == (0.49, 5)  # never without effect
    assert "step two only" not in page.locator(".ssd-two-lines").inner_text()
    for _ in range(14):
        page.keyboard.press("ArrowLeft")
    widget.threshold = 0.35
    assert state_of(page, "threshold") == 0.35
    assert [row[2] for row in cells(page, "object")] == counts(widget)
    total = int((widget.positives >= 0).sum())
    assert cells(page, "feature map")[-1] == ["all", "4", str(total - 4), str(total)]
    assert page.locator(".ssd-line").count() == total
    page.get_by_role("radio", name="all").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert state_of(page, "selected") == 1
    assert page.locator(".ssd-line").count() == int((widget.positives == 1).sum())
    page.get_by_role("button", name="to the start").press("Enter")
    assert page.locator(".ssd-line").count() == 0
    page.get_by_role("radio", name="all").check()
    forward = page.get_by_role("button", name="one step forward")
    for step in (1, 2, 3, 4):
        forward.click()
        assert page.locator(".ssd-line").count() == step
    forward.click()
    assert page.locator(".ssd-line").count() == total
    assert forward.is_disabled()
    page.wait_for_function(f"document.querySelector('[role=status]').textContent.includes(': {total} of 5,456 priors')")


@pytest.mark.browser
def test_scene_of_one_best_prior_says_what_happens(show: OpenPage) -> None:
    page = show(explorer())
    page.get_by_role("radio", name=SHARED).check()
    assert (state_of(page, "step"), state_of(page, "selected")) == (0, -1)
    for _ in range(3):
        page.get_by_role("button", name="one step forward").click()
    assert page.locator(".ssd-line.ssd-own").count() == 2
    page.get_by_role("button", name="one step back").click()
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('is taken by an object')")
    set_state(page, "scene", "this image")
    assert page.get_by_role("radio", name="0 crate").count() == 1


@pytest.mark.browser
def test_an_object_is_chosen_by_mouse_and_from_python(show: OpenPage) -> None:
    widget = explorer(step=5)
    page = show(widget)
    page.locator(".ssd-object-rim").nth(3).click()
    assert state_of(page, "selected") == 3
    assert page.locator(".ssd-line").count() == int((widget.positives == 3).sum())
    page.locator(".ssd-object-rim").nth(3).click()
    assert state_of(page, "selected") == -1
    set_state(page, "selected", 0)
    assert page.get_by_role("radio", name="0 crate").is_checked()
    set_state(page, "threshold", 0.7)
    widget.threshold = 0.7
    assert [row[2] for row in cells(page, "object")] == counts(widget)


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
