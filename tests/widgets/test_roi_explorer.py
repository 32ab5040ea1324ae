"""RoiExplorer: its checks in Python, and on a page the arithmetic, the drags and the keys."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torchvision.ops import roi_align
from traitlets import TraitError

from ssdlib.family.roi import neighbours, pooling_bins, roi_align_plainly, roi_pool_plainly, sampling_points
from ssdlib.widgets import RoiExplorer, roi_explorer
from ssdlib.widgets.base import read_static

SOURCE = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "roi_explorer"))
NAMES = "neighboursOf, samplingPoints, alignedOf, pooledOf, poolingCells, halfCellOff"
MATHS = f"{SOURCE.replace('export default { render };', '')}; return {{{NAMES}}}"


def test_example_runs() -> None:
    assert doctest.testmod(roi_explorer).failed == 0


def test_results_are_those_of_the_library() -> None:
    explorer = RoiExplorer(box=[23, 20, 71, 77], bins=3)
    feature_map = torch.tensor([explorer.values], dtype=torch.float64)
    cells = torch.tensor([23, 20, 71, 77], dtype=torch.float64) / 16
    assert explorer.result == roi_align_plainly(feature_map, cells, (3, 3))[0].tolist()
    assert explorer.result_of("pool") == roi_pool_plainly(feature_map, cells, (3, 3))[0].tolist()
    explorer.method = "shifted"
    shifted = roi_align(feature_map[None], [cells[None]], 3, 1.0, sampling_ratio=2, aligned=False)[0, 0]
    assert explorer.result == shifted.tolist()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("values", [[1, 2], [3]], "rows of as many finite numbers"),
        ("values", [], "rows of as many finite numbers"),
        ("values", [[]], "rows of as many finite numbers"),
        ("values", [[1, "<b>"]], "rows of as many finite numbers"),
        ("values", [[1, float("nan")]], "finite numbers"),
        ("box", [0, 0, 129, 10], "inside the picture of 128 x 96"),
        ("method", "mean", "method"),
        ("bins", 0, "bins"),
        ("samples", 4, "samples"),
        ("bin", -1, "bin"),
        ("stride", 0, "stride"),
    ],
)
def test_bad_values_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(TraitError, match=message):
        RoiExplorer(**{name: value})
    explorer = RoiExplorer()
    before = getattr(explorer, name)
    with pytest.raises(TraitError, match=message):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_size_follows_the_map() -> None:
    assert RoiExplorer().size == (128, 96)
    assert RoiExplorer(values=torch.ones(2, 5), stride=8, box=[0, 0, 40, 16]).size == (40, 16)


def test_picture_and_words() -> None:
    explorer = RoiExplorer(box=[32, 16, 64, 80], bins=1)
    assert "from column 2.00 to 4.00 and from row 1.00 to 5.00" in explorer.describe()
    assert "RoIAlign makes 6.88 of it, RoI pooling 9.00." in explorer.describe()
    assert len(explorer.to_html()) < 30_000


@pytest.mark.browser
def test_arithmetic_is_that_of_the_library(open_page: OpenPage) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(5, 7, generator=generator, dtype=torch.float64)
    corners = 12 * torch.rand(150, 2, 2, generator=generator, dtype=torch.float64).sort(dim=1).values.flatten(1) - 2
    corners[:50] = (2 * corners[:50]).round() / 2  # halves, which are rounded, and borders of cells
    corners[0, 2:] = corners[0, :2]
    bins, samples = (torch.arange(150) % 3 + 1).tolist(), (torch.arange(150) % 2 + 1).tolist()
    there = open_page("about:blank#//").evaluate(
        """([source, values, boxes, bins, samples]) => {
            const f = new Function(source)();
            return boxes.map((box, i) => ({
                points: f.samplingPoints(box, bins[i], samples[i]),
                near: f.neighboursOf(box[0], box[1], 7, 5).map(({ row, column, weight }) => [row, column, weight]),
                aligned: f.alignedOf(values, box, bins[i], samples[i]),
                shifted: f.alignedOf(values, f.halfCellOff(box), bins[i], samples[i]),
                cells: f.poolingCells(box, bins[i], 7, 5),
                pooled: f.pooledOf(values, box, bins[i]),
            }));
        }""",
        [MATHS, values.tolist(), corners.tolist(), bins, samples],
    )
    for found, box, n, k in zip(there, corners, bins, samples, strict=True):
        shifted = roi_align(values[None, None], [box[None]], n, 1.0, sampling_ratio=k, aligned=False)
        here = {
            "points": sampling_points(box, (n, n), k).flatten(0, 1),
            "near": torch.tensor(neighbours(*box[:2].tolist(), 7, 5), dtype=torch.float64),
            "aligned": roi_align_plainly(values[None], box, (n, n), k).flatten(),
            "shifted": shifted.flatten(),
            "cells": torch.tensor(pooling_bins(box, (n, n), 7, 5), dtype=torch.float64).flatten(0, 1),
            "pooled": roi_pool_plainly(values[None], box, (n, n)).flatten(),
        }
        for name, expected in here.items():
            result = torch.tensor(found[name], dtype=torch.float64)
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-9, msg=lambda m: f"{name} of {box}: {m}")  # noqa: B023


def shown(page: Page, number: int) -> list[float]:
    return [float(text) for text in page.locator(".ssd-roi-grid").nth(number).locator("span").all_inner_texts()]


@pytest.mark.browser
def test_results_follow_the_box_by_mouse_by_keys_and_from_python(show: OpenPage) -> None:
    page = show(RoiExplorer(box=[32, 16, 64, 80]))
    stage = page.locator(".ssd-stage").bounding_box()
    assert stage
    unit = stage["width"] / 128
    page.mouse.move(stage["x"] + 40 * unit, stage["y"] + 30 * unit)
    page.mouse.down()
    page.mouse.move(stage["x"] + 45 * unit, stage["y"] + 33 * unit, steps=3)
    page.mouse.up()
    page.locator(".ssd-movable-box").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    box = state_of(page, "box")
    assert box == [38, 19, 70, 84]
    for bins in (1, 2, 3):
        set_state(page, "bins", bins)
        explorer = RoiExplorer(box=box, bins=bins)
        assert shown(page, 0) == pytest.approx([n for row in explorer.result_of("align") for n in row], abs=0.006)
        assert shown(page, 1) == [n for row in explorer.result_of("pool") for n in row]
    page.get_by_role("radio", name="shifted ½").check()
    explorer = RoiExplorer(box=box, bins=3)
    assert shown(page, 0) == pytest.approx([n for row in explorer.result_of("shifted") for n in row], abs=0.006)
    page.get_by_role("button", name="on the cells").click()
    assert state_of(page, "box") == [32, 16, 64, 80]


@pytest.mark.browser
def test_pooling_shows_numbers_that_are_not_whole(show: OpenPage) -> None:
    page = show(RoiExplorer(values=[[0.25, 0.5], [-3, 0.125]], box=[0, 0, 31, 31], bins=1, method="pool"))
    assert shown(page, 1) == [0.5]
    assert "largest 0.50." in page.locator(".ssd-roi-working").inner_text()
    page.wait_for_function("document.querySelector('[role=status]').textContent.endsWith('row by row: 0.50.')")


@pytest.mark.browser
def test_points_and_bins_are_looked_at_by_key(show: OpenPage) -> None:
    page = show(RoiExplorer(values=[[0, 4], [8, 12]], box=[8, 8, 24, 24], bins=1))
    slider = page.get_by_role("slider", name="Look at")
    assert slider.get_attribute("aria-valuetext") == "point 1 of 4"
    working = page.locator(".ssd-roi-working")
    assert working.inner_text() == (
        "The point at column 0.75, row 0.75: 0.56 · 0 + 0.19 · 4 + 0.19 · 8 + 0.06 · 12 = 3.00."
    )
    assert page.locator(".ssd-roi-weight").all_text_contents() == ["×0.56", "×0.19", "×0.19", "×0.06"]
    slider.press("ArrowRight")
    assert (state_of(page, "bin"), state_of(page, "point")) == (0, 1)
    assert "column 1.25, row 0.75" in working.inner_text()
    slider.press("End")
    assert state_of(page, "point") == 3
    page.get_by_role("radio", name="2 × 2").check()
    slider.press("End")
    assert (state_of(page, "bin"), state_of(page, "point")) == (3, 3)
    assert slider.get_attribute("aria-valuetext") == "point 16 of 16"
    page.get_by_role("radio", name="RoI pooling").check()
    assert slider.get_attribute("aria-valuetext") == "bin 4 of 4"
    assert "Columns 0.50 → 1, 1.50 → 2; rows 0.50 → 1, 1.50 → 2." in working.inner_text()
    assert "columns 1 to 1, rows 1 to 1" not in working.inner_text()  # the last bin lies beyond the border
    assert "no cell: 0" in working.inner_text()
    page.get_by_role("radio", name="1 × 1").check()
    assert slider.get_attribute("aria-valuetext") == "bin 1 of 1"
    page.wait_for_function(
        "document.querySelector('[role=status]').textContent === 'RoI pooling of 1 by 1 bins, row by row: 12.'"
    )


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    widget = RoiExplorer(presets=[{"name": "<img src=x onerror=alert(1)>", "box": [1, 1, 9, 9]}])
    assert violations(show(widget, theme=theme)) == []
    page = show(RoiExplorer(bins=3, method="pool"), theme=theme, width=390, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".ssd-widget img").count() == 0
    heights = page.eval_on_selector_all("button, input[type=range]", "all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 44
