"""GridExplorer: its numbers against ssdlib.family, its checks, and the page by mouse, by key, by finger and for all."""

from __future__ import annotations

import doctest
import re
from typing import Any

import pytest
import torch
from matplotlib.patches import Rectangle
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.family.yolo_v1 import NOBODY, cell_owners, encode_in_grid, responsible_cells
from ssdlib.widgets import GridExplorer, grid_explorer
from ssdlib.widgets.base import read_module, read_static

SCRIPT = f"{read_static('maths.mjs')}; {read_module('grid_explorer').replace('export default { render };', '')}"
FUNCTIONS = f"{SCRIPT}; return {{ placesOf, gridTargets }}"
EVIL = "<img src=x onerror=alert(1)>"


def explorer(**traits: Any) -> GridExplorer:
    """Four objects in 300 x 200: the first two share the middle of 7 x 7; of 3 x 3, all but the last."""
    boxes = torch.tensor([[100.0, 50, 200, 150], [130, 80, 171, 122], [60, 70, 150, 160], [220, 10, 280, 50]])
    return GridExplorer(torch.full((3, 200, 300), 0.6), boxes, ["cup", "coffee", "spoon", "lamp"], **traits)


def test_owners_targets_and_lost_objects() -> None:
    widget = explorer()
    assert widget.owners[3, 3] == 0
    assert (widget.owners != NOBODY).sum() == 3
    assert (widget.centred, widget.lost) == ([0, 1], ["coffee"])
    assert widget.targets() == pytest.approx([0.5, 0.5, (1 / 3) ** 0.5, 0.5**0.5])
    widget.cell = (0, 0)
    assert (widget.centred, widget.targets()) == ([], [])
    widget.cells = 3
    assert widget.lost == ["coffee", "spoon"]


def test_of_two_of_one_name_only_the_lost_one_is_dashed() -> None:
    boxes = torch.tensor([[10.0, 10, 90, 90], [20, 20, 80, 80], [0, 0, 20, 20]])
    widget = GridExplorer(torch.zeros(3, 100, 100), boxes, ["cup"] * 3)
    assert widget.lost == ["cup"]
    drawn = [patch for patch in widget.picture().axes[0].patches if isinstance(patch, Rectangle)]
    styles = [frame.get_linestyle() for frame in drawn if frame.get_width() in (80, 60, 20)]
    assert styles == ["-", "--", "-"]


def test_a_coarser_grid_keeps_the_cell_inside() -> None:
    widget = explorer(cells=13, cell=(12, 4))
    assert widget.cell == (12, 4)
    widget.cells = 5
    assert widget.cell == (4, 4)
    widget.set_state({"cells": 3, "cell": [2, 0]})
    assert (widget.cells, widget.cell) == (3, (2, 0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cells", 8, "cells"),
        ("cell", (7, 0), r"each 0 to 6 on this grid; got \(7, 0\)"),
        ("cell", (0, -1), "each 0 to 6"),
        ("cell", (0.5, 1), "int"),
        ("predictors", 0, "predictors"),
        ("classes", 0, "classes"),
        ("boxes", [], "read-only"),
        ("names", ["a"], "read-only"),
        ("image", "data:image/png;base64,", "read-only"),
    ],
)
def test_bad_values_are_refused_at_once(name: str, value: object, message: str) -> None:
    widget = explorer()
    before = widget.state()
    with pytest.raises(TraitError, match=message):
        setattr(widget, name, value)
    assert widget.state() == before


@pytest.mark.parametrize(
    ("boxes", "names", "message"),
    [
        ([[1, 1, 9, 9]], ["a", "b"], "1 boxes, but 2 names"),
        ([[9, 1, 1, 9]], ["a"], "object 0 has no valid box"),
        ([[1, 1, 9, 9], [0, 0, 41, 5]], ["a", "b"], "object 1 has no valid box in 40 x 40"),
        ([[float("nan"), 0, 4, 5]], ["a"], "object 0 has no valid box"),
    ],
)
def test_boxes_and_names_must_fit(boxes: Any, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridExplorer(torch.zeros(3, 40, 40), torch.tensor(boxes, dtype=torch.float32), names)


def test_words_picture_and_example() -> None:
    words = explorer().describe()
    assert "grid of 7 x 7 cells, whose output has 1,470 numbers" in words
    assert "row 3, column 3 holds the centre of cup and coffee" in words
    assert "have their cell" not in words
    assert words.endswith("has their cell: coffee.")
    empty = GridExplorer(torch.zeros(3, 40, 40), torch.zeros(0, 4), [])
    assert "0 objects" in empty.describe()
    assert "holds no centre" in empty.describe()
    assert len(explorer().to_html()) < 40_000
    assert "no centre" in empty.to_html()
    assert doctest.testmod(grid_explorer).failed == 0


@pytest.mark.browser
def test_cells_of_the_page_are_those_of_the_library(open_page: OpenPage) -> None:
    size = torch.tensor([300.0, 200.0, 300.0, 200.0], dtype=torch.float64)
    corners = torch.rand(60, 5, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    boxes = ((corners * size[:2]).round().sort(dim=2).values + torch.tensor([[0.0, 0], [1, 1]])).flatten(2)
    boxes = boxes.minimum(size)
    boxes[..., :2] = boxes[..., :2].minimum(boxes[..., 2:] - 1)
    boxes[0] = torch.tensor([[0.0, 0, 300, 200]] * 5)  # in the middle, on a line of every even grid
    there = open_page("about:blank#//").evaluate(
        """([source, tries, sides]) => {
            const { placesOf, gridTargets } = new Function(source)();
            return tries.map((boxes) => sides.map((cells) => [placesOf(boxes, [300, 200], cells),
                boxes.map((box) => gridTargets(box, [300, 200], cells))]));
        }""",
        [FUNCTIONS, boxes.tolist(), [*range(1, 15)]],
    )
    for image, found in zip(boxes / size, there, strict=True):
        for cells, (places, targets) in zip(range(1, 15), found, strict=True):
            assert [[p["row"], p["column"]] for p in places] == responsible_cells(image, cells).tolist()
            owners = cell_owners(image, cells)
            kept = sorted(owners[owners != NOBODY].tolist())
            assert [m for m, place in enumerate(places) if place["kept"]] == kept
            torch.testing.assert_close(torch.tensor(targets, dtype=torch.float64), encode_in_grid(image, cells))


def says(page: Page) -> str:
    return page.locator(".ssd-grid-words").inner_text()


@pytest.mark.browser
def test_cells_by_key_by_mouse_and_by_the_table(show: OpenPage) -> None:
    page = show(explorer())
    assert "Row 3, column 3: the centres of cup and coffee. The cell answers for cup." in says(page)
    assert "Lost: coffee." in says(page)
    assert "x 0.50, y 0.50 in the cell; √w 0.58, √h 0.71" in says(page)
    picker = page.get_by_role("button", name=re.compile("^Row 3, column 3 of a grid of 7"))
    picker.press("ArrowRight")
    assert state_of(page, "cell") == [3, 4]
    assert page.locator(":focus").get_attribute("aria-label").startswith("Row 3, column 4 of a grid of 7")  # type: ignore[union-attr]
    assert "nobody's cell. The confidence of its 2 boxes should be 0. It lies on cup, but" in says(page)
    for _ in range(5):
        page.keyboard.press("ArrowUp")
    assert state_of(page, "cell") == [0, 4]  # the border stops it
    frame = page.locator(".ssd-stage").bounding_box()
    assert frame
    page.mouse.click(frame["x"] + frame["width"] * 105 / 300, frame["y"] + frame["height"] * 115 / 200)
    assert state_of(page, "cell") == [4, 2]
    assert "the centre of spoon" in says(page)
    page.get_by_role("row", name="lamp").click()
    assert state_of(page, "cell") == responsible_cells(explorer().fractions, 7)[3].tolist()
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('answers for lamp')")


@pytest.mark.browser
def test_a_coarser_grid_loses_more(show: OpenPage) -> None:
    page = show(explorer())
    learned = page.locator(".ssd-readout dd")
    assert learned.all_inner_texts() == ["7 × 7 × (2 × 5 + 20) = 1,470", "3 of 4"]
    assert page.locator(".ssd-box.ssd-dashed").count() == 1
    assert page.locator(".ssd-grid-tint").count() == 3
    page.get_by_role("radio", name="3", exact=True).check()
    assert (state_of(page, "cells"), state_of(page, "cell")) == (3, [1, 1])
    assert learned.all_inner_texts() == ["3 × 3 × (2 × 5 + 20) = 270", "2 of 4"]
    assert "Lost: coffee and spoon." in says(page)
    page.get_by_role("radio", name="13").check()
    assert learned.nth(1).inner_text() == f"{4 - len(explorer(cells=13).lost)} of 4"
    set_state(page, "cells", 3)  # before the cell, as Python might
    assert page.locator(".ssd-cell").count() == 1
    set_state(page, "predictors", 1)
    assert learned.first.inner_text() == "3 × 3 × (1 × 5 + 20) = 225"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    boxes = torch.tensor([[10.0, 10, 60, 60], [30, 30, 90, 95]])
    widget = GridExplorer(torch.rand(3, 100, 100), boxes, [EVIL, "star"])
    assert violations(show(widget, theme=theme)) == []
    page = show(explorer(), widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    heights = page.eval_on_selector_all("button, .ssd-options label", "all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 44
