"""WindowExplorer: its counts against maps that are computed and cells that are marked, and the page for all readers."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torch import nn
from traitlets import TraitError

from ssdlib.family.overfeat import OverFeat, multiply_adds
from ssdlib.family.sliding_window import cut_windows
from ssdlib.family.window_classifier import WindowClassifier
from ssdlib.widgets import WindowExplorer, window_explorer
from ssdlib.widgets.base import read_module, read_static

SCRIPT = f"{read_static('maths.mjs')}; {read_module('window_explorer').replace('export default { render };', '')}"
FUNCTIONS = f"{SCRIPT}; return {{ mapsOf, newCells, computedCells, costsOf, newShare }}"
EVIL = "<img src=x onerror=alert(1)>"


def network(side: int = 27, pooled: bool = False) -> OverFeat:
    """Windows of 27 pixels, 27 -> 13 -> 11 -> 5 -> 1, or 27 -> 13 -> 6 -> 4 -> 1; stride 4."""
    torch.manual_seed(0)
    second = [nn.MaxPool2d(2), nn.Conv2d(4, 6, 3)] if pooled else [nn.Conv2d(4, 6, 3), nn.Conv2d(6, 6, 3, stride=2)]
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), *second)
    classifier = WindowClassifier(layers, 3, side, torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.3))
    return OverFeat(classifier.eval()).eval()


def picture(side: int = 60) -> torch.Tensor:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))


def explorer(pooled: bool = False, names: tuple[str, str] = ("cat", "dog"), **traits: Any) -> WindowExplorer:
    return WindowExplorer(network(pooled=pooled), picture(), names, **traits)


def all_places(widget: WindowExplorer) -> list[tuple[int, int]]:
    return [(row, column) for row in range(widget.count) for column in range(widget.count)]


def test_example_runs() -> None:
    assert doctest.testmod(window_explorer).failed == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_cells_of_a_window_are_cells_of_the_whole_image(pooled: bool) -> None:
    widget, net = explorer(pooled, side=43), network(pooled=pooled)
    image = picture()[:, :43, :43]
    whole, alone = ((x - net.mean) / net.std for x in (image[None], cut_windows(image, 27, 4)))
    seen = 0
    with torch.no_grad():
        for layer in [*net.features, net.class_head]:
            whole, alone = layer(whole), layer(alone)
            if isinstance(layer, nn.ReLU):
                continue
            cells, step = widget.maps[seen]
            assert alone.shape[2:] == (cells, cells)
            for window, (row, column) in zip(alone, all_places(widget), strict=True):
                part = whole[0, :, row * step : row * step + cells, column * step : column * step + cells]
                torch.testing.assert_close(part, window, atol=1e-5, rtol=0)
            seen += 1
    assert seen == len(widget.maps)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("side", [27, 31, 43, 59])
def test_counts_are_those_of_cells_that_are_marked_one_by_one(pooled: bool, side: int) -> None:
    widget = explorer(pooled, side=side)
    wholes = [cells + (widget.count - 1) * step for cells, step in widget.maps]
    marked = [torch.zeros(whole, whole, dtype=torch.bool) for whole in wholes]
    for row, column in all_places(widget):
        widget.place = (row, column)
        for known, (cells, step), (height, width) in zip(marked, widget.maps, widget.new_cells, strict=True):
            own = known[row * step : row * step + cells, column * step : column * step + cells]
            assert own.shape == (cells, cells)
            fresh = ~own
            assert fresh.sum() == height * width
            assert fresh[cells - height :, cells - width :].all()
            own[:] = True
        assert widget.computed == [int(known.sum()) for known in marked]
    assert all(known.all() for known in marked)


@pytest.mark.parametrize("pooled", [False, True])
def test_after_the_last_window_the_costs_are_those_of_one_pass(pooled: bool) -> None:
    net = network(pooled=pooled)
    layers = nn.Sequential(net.features, net.class_head)
    window = multiply_adds(layers, 27, 27)
    for side in (27, 31, 59):
        widget = explorer(pooled, side=side)
        assert widget.costs == (window, window)
        widget.place = (widget.count - 1, widget.count - 1)
        assert widget.costs == (widget.count**2 * window, multiply_adds(layers, side, side))


def test_answers_are_those_of_the_network_whatever_the_size() -> None:
    widget, net = explorer(), network()
    for side in widget.sides:
        with torch.no_grad():
            scores = net(picture()[None, :, :side, :side])[0][0].softmax(dim=0)
        for row in range(scores.shape[1]):
            for column in range(scores.shape[2]):
                label, score = widget.answers[row][column]
                assert scores[label, row, column] == scores[:, row, column].max()
                assert score == pytest.approx(scores[label, row, column].item(), abs=0.0051)


def test_a_smaller_image_keeps_the_window_inside() -> None:
    widget = explorer(side=59, place=(8, 1))
    widget.side = 35
    assert widget.place == (2, 1)
    widget.set_state({"side": 31, "place": [1, 0]})
    assert (widget.side, widget.place, widget.count) == (31, (1, 0), 2)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("side", 28, r"side must be one of \[27, 31, 35, 43, 59\]; got 28"),
        ("side", 63, "side must be one of"),
        ("place", (2, 0), r"each 0 to 1 on 31 pixels; got \(2, 0\)"),
        ("place", (0, -1), "each 0 to 1"),
        ("place", (0, 0.5), "place"),
        ("layers", [], "read-only"),
    ],
)
def test_bad_values_are_refused(name: str, value: Any, message: str) -> None:
    widget = explorer()
    before = widget.state()
    with pytest.raises(TraitError, match=message):
        setattr(widget, name, value)
    assert widget.state() == before


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match=r"27 pixels a side or more, got \(3, 60, 26\)"):
        WindowExplorer(network(), torch.rand(3, 60, 26), ["cat", "dog"])
    with pytest.raises(ValueError, match="2 classes besides background, but 1 names"):
        WindowExplorer(network(), picture(), ["cat"])
    layers = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4))  # side by side: nothing is shared, and nothing left out
    touching = WindowClassifier(layers, 3, 4, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert [layer["kernel"] for layer in window_explorer.chain(OverFeat(touching))] == [4, 1]
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, stride=8))
    apart = WindowClassifier(layers, 3, 2, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with pytest.raises(ValueError, match="windows 8 pixels apart, of 2 x 2 cells, leave cells between them"):
        window_explorer.chain(OverFeat(apart))
    padded = network()
    padded.features.insert(1, nn.Conv2d(4, 4, 3, padding=1))
    with pytest.raises(ValueError, match="a chain that leaves one cell of a window, not 0"):
        window_explorer.chain(padded)


def test_words_and_picture() -> None:
    widget = explorer(place=(0, 1))
    widget.answers[0][1] = [2, 0.5]
    words = widget.describe()
    assert words.startswith(
        "An image of 31 x 31 pixels, and on it window 2 of 4, in row 0, column 1, which is called dog"
    )
    assert "26 of 169, 22 of 121, 5 of 25, 1 of 1 are new" in words
    widget.answers[0][1] = [0, 0.5]
    assert "which is called background (0.50)" in widget.describe()
    assert [ax.get_title() for ax in widget.picture().axes] == ["31 x 31", "15 x 15", "13 x 13", "6 x 6", "2 x 2"]
    assert "data-from=network" in widget.to_html()
    assert len(widget.to_html()) < 30_000


@pytest.mark.browser
def test_the_page_counts_as_the_library_does(open_page: OpenPage) -> None:
    widgets = [explorer(pooled, side=side) for pooled in (False, True) for side in (27, 31, 59)]
    there = open_page("about:blank#//").evaluate(
        """([source, cases]) => {
            const { mapsOf, newCells, computedCells, costsOf, newShare } = new Function(source)();
            return cases.map(([layers, count, places]) => {
                const maps = mapsOf(layers, 27, 4);
                return [maps, places.map((place) => [maps.map((map) => newCells(map, place)),
                    maps.map((map) => computedCells(map, place, count)), costsOf(layers, maps, place, count),
                    newShare({ layers, maps, place })])];
            });
        }""",
        [FUNCTIONS, [[w.layers, w.count, all_places(w)] for w in widgets]],
    )
    for widget, (maps, found) in zip(widgets, there, strict=True):
        assert maps == [list(entry) for entry in widget.maps]
        before = 0
        for place, (new, computed, costs, share) in zip(all_places(widget), found, strict=True):
            widget.place = place
            assert new == [list(entry) for entry in widget.new_cells]
            assert (computed, costs) == (widget.computed, list(widget.costs))
            assert share == pytest.approx((costs[1] - before) / found[0][2][0])  # of a window's multiplications
            before = costs[1]


def table(page: Page) -> list[str]:
    return page.locator(".ssd-table tbody tr").all_inner_texts()


@pytest.mark.browser
def test_windows_by_key_by_mouse_and_by_the_player(show: OpenPage) -> None:
    page = show(explorer())
    assert table(page)[0].split("\t") == ["1", "13 × 13", "13 × 13"]
    picker = page.get_by_role("button", name="Window in row 0, column 0 of 2 × 2")
    picker.press("ArrowRight")
    assert state_of(page, "place") == [0, 1]
    assert table(page) == ["1\t13 × 13\t13 × 2", "2\t11 × 11\t11 × 2", "3\t5 × 5\t5 × 1", "answers\t1 × 1\t1 × 1"]
    picker = page.get_by_role("button", name="Window in row 0, column 1 of 2 × 2")
    picker.press("ArrowRight")  # the border stops it
    assert state_of(page, "place") == [0, 1]
    page.get_by_role("radio", name="59").check()
    assert state_of(page, "place") == [0, 1]
    frame = page.locator(".ssd-picker").first.bounding_box()
    assert frame

    def at(pixel: float) -> tuple[float, float]:
        return frame["x"] + frame["width"] * pixel / 59, frame["y"] + frame["height"] * pixel / 59  # type: ignore[index]

    page.mouse.move(*at(13.5 + 8.9))  # the middle of the window there would be 2.2 strides on
    page.mouse.down()
    assert state_of(page, "place") == [2, 2]
    page.mouse.move(*at(58), steps=3)
    page.mouse.up()
    assert state_of(page, "place") == [8, 8]
    answers = page.locator(".ssd-picker").last.bounding_box()
    assert answers
    page.mouse.click(answers["x"] + answers["width"] * 3.5 / 9, answers["y"] + answers["height"] * 5.5 / 9)
    assert state_of(page, "place") == [5, 3]
    page.keyboard.press("ArrowUp")  # the focus is on the window
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert state_of(page, "place") == [6, 3]
    page.keyboard.press("ArrowUp")
    page.get_by_role("button", name="one step forward").click()
    assert state_of(page, "place") == [5, 4]
    page.get_by_role("button", name="to the start").click()
    assert state_of(page, "place") == [0, 0]
    page.get_by_role("button", name="Reset").click()
    assert (state_of(page, "side"), state_of(page, "place")) == (31, [0, 0])


@pytest.mark.browser
def test_what_is_drawn_and_said(show: OpenPage) -> None:
    widget = explorer(side=43, place=(1, 2))
    page = show(widget)
    alone, once = widget.costs
    sums = page.locator(".ssd-readout dd").all_inner_texts()
    assert sums == [f"{alone / 1e6:.1f} million", f"{once / 1e6:.1f} million", f"{alone / once:.1f} times"]
    label, score = widget.answers[1][2]
    answer = f"{widget.names[label - 1] if label else 'background'}, {score:.2f}"
    assert page.locator(".ssd-window-words").inner_text() == f"Row 1, column 2: {answer}"
    widget.place = (1, 1)
    share = 100 * (once - widget.costs[1]) * 8 / alone
    said = f"Window 8 of 25: {answer}. New of its multiplications: {share:.0f} percent."
    page.wait_for_function("(said) => document.querySelector('[role=status]').textContent === said", arg=said)
    # A map of 21 x 21 cells, which has 4 more to a stride of 2 twice: the block of new cells in it.
    fresh = (
        page.locator(".ssd-window-new").nth(1).evaluate("e => [e.x, e.y, e.width, e.height].map(l => l.baseVal.value)")
    )
    ground = page.locator(".ssd-window-ground").nth(1).evaluate("e => [e.x, e.y, e.width].map(l => l.baseVal.value)")
    cell = ground[2] / 21
    assert fresh == pytest.approx([ground[0] + 15 * cell, ground[1] + 13 * cell, 2 * cell, 2 * cell], abs=1e-4)
    assert page.locator(".ssd-window-dot").count() == 8
    set_state(page, "side", 27)  # before the place, as Python might
    assert table(page)[0] == "1\t13 × 13\t13 × 13"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    widget = explorer(names=(EVIL, EVIL), side=59, place=(3, 3))
    assert violations(show(widget, theme=theme)) == []
    page = show(widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    heights = page.eval_on_selector_all("button, .ssd-options label", "all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 44
