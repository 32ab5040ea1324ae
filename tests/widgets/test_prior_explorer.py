"""PriorExplorer: its numbers against make_priors, its checks, and the page by mouse, by keyboard and on a phone."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import TINY, ssd300_vgg16, ssd512_vgg16, ssd_tiny
from ssdlib.priors import SSD300_CAFFE, SSD300_COCO, SSD300_VOC, SSD512_VOC, PriorRecipe, make_priors
from ssdlib.widgets import PriorExplorer
from ssdlib.widgets.anatomy import anatomy
from ssdlib.widgets.base import image_url, read_module, read_static
from ssdlib.widgets.prior_explorer import ratio_name

ALL = [SSD300_VOC, SSD300_CAFFE, SSD512_VOC, TINY]  # one for each network, and one with steps
MODULE = read_module("prior_explorer").replace("export default { render };", "")
NAMES = "cellPriors, crosses, receptiveField, outline, toCorners"
SCRIPT = f"{read_static('maths.mjs')}; {MODULE}; return {{ {NAMES} }}"


def crossing_by_loop(recipe: PriorRecipe, k: int) -> int:
    """Priors of a map over the border, one after the other."""
    count = 0
    for x, y, w, h in make_priors(recipe, dtype=torch.float64)[recipe.map_slices()[k]].tolist():
        count += min(x - w / 2, y - h / 2) < -1e-9 or max(x + w / 2, y + h / 2) > 1 + 1e-9
    return count


def test_the_cell_and_its_numbers_are_those_of_the_library() -> None:
    explorer = PriorExplorer(map=3)
    explorer.cell = (2, 2)
    assert [SSD300_VOC.locate(i)[:3] for i in explorer.indices] == [(3, 2, 2)] * 6
    assert torch.equal(explorer.priors, make_priors(SSD300_VOC)[8614:8620])
    assert explorer.crossing == crossing_by_loop(SSD300_VOC, 3)
    assert str(explorer.crossing) in explorer.describe()
    assert "row 2, column 2" in explorer.describe()
    assert "233 x 117 pixels" in explorer.describe()
    with torch.device("meta"):
        head = anatomy(ssd300_vgg16(2)).heads[3][0]
    assert explorer.receptive_field == head.receptive_field(2, 2)


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_all_cells_on_the_page_are_the_priors_of_the_library(recipe: PriorRecipe, open_page: OpenPage) -> None:
    explorer = PriorExplorer(recipes=[recipe])
    page = open_page("about:blank#//")
    boxes, over, fields = page.evaluate(
        """([source, maps]) => {
            const f = new Function(source)();
            const cells = maps.flatMap((map) => map.centres.flatMap((_, row) => map.centres.map((_, column) =>
                ({ map, cell: [row, column] }))));
            const priors = cells.map(({ map, cell }) => f.cellPriors(map, cell));
            return [priors.flat(), maps.map((map) => cells.filter((each) => each.map === map)
                .flatMap(({ cell }) => f.cellPriors(map, cell)).map(f.toCorners).filter(f.crosses).length),
                cells.map(({ map, cell }) => f.receptiveField(map.field, cell))];
        }""",
        [SCRIPT, explorer.state()["recipes"][0]["maps"]],
    )
    torch.testing.assert_close(torch.tensor(boxes), make_priors(recipe), atol=2e-6, rtol=0)
    assert over == [crossing_by_loop(recipe, k) for k in range(len(recipe.map_sizes))]
    build = {300: ssd300_vgg16, 512: ssd512_vgg16, 256: ssd_tiny}[recipe.image_size]
    with torch.device("meta"):
        heads = anatomy(build(2)).heads
    assert fields == [
        list(heads[k][0].receptive_field(row, column))
        for k, side in enumerate(recipe.map_sizes)
        for row in range(side)
        for column in range(side)
    ]


def test_outlines_are_cut_where_the_image_ends(open_page: OpenPage) -> None:
    """The lengths of the two paths against a walk along the sides in small steps."""
    corners = (torch.rand(40, 2, 2) * 1.6 - 0.3).sort(dim=1).values.flatten(1).double()
    page = open_page("about:blank#//")
    paths = page.evaluate(
        "([source, boxes]) => boxes.map((box) => new Function(source)().outline(box, (v) => v))",
        [SCRIPT, corners.tolist()],
    )
    for (x0, y0, x1, y1), path in zip(corners.tolist(), paths, strict=True):
        lengths = {}
        for where, drawn in path.items():
            lines = re.findall(r"M(\S+) ([-\d.e]+)([HV])([-\d.e]+)", drawn)
            lengths[where] = sum(abs(float(to) - float(x if way == "H" else y)) for x, y, way, to in lines)
        inside = 0.0
        steps = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        for a, b, other in ((x0, x1, y0), (x0, x1, y1), (y0, y1, x0), (y0, y1, x1)):
            along = a + (b - a) * steps
            inside += (b - a) * float(((along > 0) & (along < 1)).double().mean()) * (0 <= other <= 1)
        assert lengths["inside"] == pytest.approx(inside, abs=2e-3)
        assert sum(lengths.values()) == pytest.approx(2 * (x1 - x0 + y1 - y0))


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("map", 6, r"map must be 0 to 5 for 'ssd300-voc'; got 6"),
        ("map", -1, "map must be 0 to 5"),
        ("cell", (5, 0), r"each 0 to 4 on this map of 5 x 5; got \(5, 0\)"),
        ("cell", (0, -1), "each 0 to 4"),
        ("cell", (0.5, 0), "int"),
        ("cell", (1, 2, 3), "2 elements"),
        ("recipe", "ssd", r"recipe must be one of \['ssd300-voc'.*; got 'ssd'"),
        ("compare", "ssd", "compare must be one of"),
        ("shown", ["1", "4"], "got '4'"),
        ("recipes", [], "read-only"),
        ("image", "https://example.org/a.jpg", "image must be made by image_url"),
        ("show_receptive_field", "yes", "boolean"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(trait: str, value: object, message: str) -> None:
    explorer = PriorExplorer(map=3)
    before = explorer.state()
    with pytest.raises(TraitError, match=message):
        setattr(explorer, trait, value)
    assert explorer.state() == before


def test_bad_values_are_refused_from_the_start() -> None:
    for wrong in ({"recipe": "ssd", "map": 2}, {"map": 3, "cell": (5, 0)}, {"map": 2, "recipe": "ssd"}):
        with pytest.raises(TraitError, match=r"recipe must be one of|each 0 to 4"):
            PriorExplorer(**wrong)


def test_messages_of_a_page_may_hold_several_traits() -> None:
    explorer = PriorExplorer(map=3)
    explorer.set_state({"cell": [0, 0], "map": 6, "recipe": "ssd512-voc"})  # as ipywidgets hands them over
    assert (explorer.recipe, explorer.map, explorer.cell) == ("ssd512-voc", 6, (0, 0))
    explorer.set_state({"map": 0, "cell": [20, 30]})
    assert (explorer.map, explorer.cell) == (0, (20, 30))


def test_a_smaller_map_or_recipe_moves_the_cell_inside() -> None:
    explorer = PriorExplorer(recipe="ssd512-voc", map=0, cell=(63, 2))
    explorer.recipe = "ssd300-coco"
    assert (explorer.map, explorer.cell) == (0, (37, 2))
    explorer.map = 5
    assert explorer.cell == (0, 0)
    explorer.recipe = "ssd512-voc"
    explorer.map = 6
    explorer.recipe = "ssd300-voc"
    assert explorer.map == 5


def test_own_recipes_and_images() -> None:
    tall = dataclasses.replace(SSD300_VOC, name="<b>tall</b>", ratios=((1 / 5, 1.7), *SSD300_VOC.ratios[1:]))
    image = VOCDataset(sample_root(), "test")[3][0]
    explorer = PriorExplorer(image, recipes=[tall], map=0, cell=(1, 1))
    assert [ratio_name(r) for r in (1 / 5, 1.7, 1 / 3, "extra", 1.7171)] == ["1/5", "17/10", "1/3", "extra", "1.72"]
    assert explorer.image == image_url(image)
    assert explorer.receptive_field is not None  # the feature maps are those of VGG-16
    other = dataclasses.replace(SSD300_VOC, name="other", map_sizes=(30, 19, 10, 5, 3, 1))
    assert PriorExplorer(recipes=[other]).receptive_field is None
    with pytest.raises(TraitError, match="at least one"):
        PriorExplorer(recipes=[])


def test_state_and_html_are_small() -> None:
    assert len(PriorExplorer(map=0).to_html()) < 60_000


pytest_browser = pytest.mark.browser


def readout(page: Page, number: int) -> str:
    return page.locator(".ssd-readout dd").nth(number).inner_text()


@pytest_browser
def test_count_so_far_for_each_map(show: OpenPage) -> None:
    page = show(PriorExplorer(map=0))
    seen = 0
    for k, count in enumerate(SSD300_VOC.priors_per_map):
        page.get_by_role("radio").nth(k).check()
        assert state_of(page, "map") == k
        seen += count
        assert readout(page, 2).endswith(f"{'= ' * (k > 0)}{seen:,} of 8,732")
        assert readout(page, 1) == f"{crossing_by_loop(SSD300_VOC, k):,} of {count:,}"
        assert page.locator(".ssd-priors tbody tr").count() == SSD300_VOC.priors_per_cell[k]


@pytest_browser
def test_rows_and_boxes_are_partners(show: OpenPage) -> None:
    page = show(PriorExplorer(map=3))
    lines = page.locator("svg g g[data-link]")
    rows = page.locator(".ssd-priors tbody tr")
    rows.nth(3).hover()
    bright = [lines.nth(i).evaluate("e => getComputedStyle(e).opacity") for i in range(6)]
    assert bright == ["0.3"] * 3 + ["1"] + ["0.3"] * 2
    image = page.locator(".ssd-picker").bounding_box()
    assert image
    x0, y0, _, _ = cxcywh_to_xyxy(PriorExplorer(map=3).priors)[4].tolist()  # 1/3, the tallest
    page.mouse.move(image["x"] + (x0 + 0.03) * image["width"], image["y"] + y0 * image["height"])
    assert [rows.nth(i).evaluate("e => e.matches('.ssd-linked')") for i in range(6)] == [False] * 4 + [True, False]
    page.mouse.down()  # a click there still chooses the cell below the outline
    assert state_of(page, "cell") == [0, 1]
    page.mouse.up()
    rows.nth(0).get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    assert rows.nth(0).evaluate("e => e.matches('.ssd-linked')")


@pytest_browser
def test_maps_are_pictures_and_fill_the_counter(show: OpenPage) -> None:
    page = show(PriorExplorer(map=0))
    page.locator(".ssd-thumbs label").nth(2).click()
    assert state_of(page, "map") == 2
    parts = page.eval_on_selector_all(".ssd-counter i", "all => all.map(e => [e.className, e.style.flexGrow])")
    counted = ["ssd-counted"] * 2 + ["ssd-counting"] + [""] * 3
    assert parts == [[name, str(n)] for name, n in zip(counted, SSD300_VOC.priors_per_map, strict=True)]


@pytest_browser
def test_mouse_chooses_a_cell_by_click_and_drag(show: OpenPage) -> None:
    page = show(PriorExplorer(map=3, cell=(0, 0)))
    image = page.locator(".ssd-picker").bounding_box()
    assert image
    cell = image["width"] / 5
    page.mouse.click(image["x"] + 3.5 * cell, image["y"] + 1.5 * cell)
    assert state_of(page, "cell") == [1, 3]
    page.mouse.move(image["x"] + 0.5 * cell, image["y"] + 4.5 * cell)
    assert state_of(page, "cell") == [1, 3]
    page.mouse.down()
    assert state_of(page, "cell") == [4, 0]
    page.mouse.move(image["x"] + 9 * cell, image["y"] + 2.5 * cell, steps=5)
    page.mouse.up()
    assert state_of(page, "cell") == [2, 4]
    assert readout(page, 3) == "8,626 to 8,631"


@pytest_browser
def test_keyboard_alone_is_enough(show: OpenPage) -> None:
    page = show(PriorExplorer(map=3, cell=(0, 0)))
    page.keyboard.press("Tab")  # the map
    page.keyboard.press("ArrowLeft")
    assert state_of(page, "map") == 2
    page.keyboard.press("Tab")
    assert "Row 1, column 1 of a map of 10 × 10" in (page.locator(":focus").get_attribute("aria-label") or "")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Control+ArrowRight")
    assert state_of(page, "cell") == [2, 9]
    page.keyboard.press("ArrowRight")
    assert state_of(page, "cell") == [2, 9]
    page.get_by_role("button", name="one step forward").focus()
    page.keyboard.press("Enter")
    assert state_of(page, "cell") == [3, 0]
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('Row 3, column 0 of 10')")
    page.get_by_role("checkbox").nth(1).focus()
    page.keyboard.press("Space")
    assert state_of(page, "shown") == [name for name in PriorExplorer().shown if name != "2"]
    assert page.locator(":focus").get_attribute("type") == "checkbox"  # the row was not made anew
    assert not page.locator(":focus").is_checked()


@pytest_browser
def test_traits_set_in_python_move_the_page(show: OpenPage) -> None:
    page = show(PriorExplorer(map=3))
    set_state(page, "cell", [2, 2])
    set_state(page, "shown", ["extra"])
    assert page.locator(".ssd-inside").count() == 1
    set_state(page, "cell", [0, 4])
    assert page.locator(".ssd-outside").count() == 1
    set_state(page, "compare", "ssd300-coco")
    assert page.locator(".ssd-dotted").count() == 1
    ours = cxcywh_to_xyxy(PriorExplorer(map=3, cell=(0, 4)).priors)
    theirs = cxcywh_to_xyxy(PriorExplorer(recipe="ssd300-coco", map=3, cell=(0, 4)).priors)
    expected = iou(ours[5:], theirs[1:2]).item()  # the extra square is the second of torchvision's
    assert f"IoU {expected:.2f}" in page.locator(".ssd-priors tbody tr").nth(5).inner_text()
    set_state(page, "show_receptive_field", True)
    assert page.locator(".ssd-shade").get_attribute("d")
    set_state(page, "recipe", "ssd512-voc")
    set_state(page, "map", 6)
    assert state_of(page, "cell") == [0, 4]
    assert "Row 0, column 0 of a map of 1 × 1" in (page.locator(".ssd-picker").get_attribute("aria-label") or "")
    assert "no such map" in (page.locator(".ssd-panel").text_content() or "")
    assert page.get_by_role("radio").count() == 7


@pytest_browser
def test_another_recipe_keeps_the_place_in_the_image(show: OpenPage) -> None:
    page = show(PriorExplorer(map=0, cell=(37, 19)))
    page.get_by_label("Recipe").select_option("SSD512, original code")
    assert (state_of(page, "recipe"), state_of(page, "cell")) == ("ssd512-voc", [63, 32])


@pytest_browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str) -> None:
    page = show(
        PriorExplorer(map=2, compare="ssd300-coco", show_receptive_field=True), PriorExplorer(map=0), theme=theme
    )
    assert violations(page) == []


@pytest_browser
def test_fits_a_phone_and_targets_can_be_touched(show: OpenPage) -> None:
    page = show(PriorExplorer(map=1, compare="ssd512-voc"), width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(
        "button, select, .ssd-options label:not([hidden] *), .ssd-priors label",
        "all => all.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])",
    )
    assert len(sizes) > 15
    assert all(math.ceil(side) >= 44 for size in sizes for side in size)
    image = page.locator(".ssd-picker").bounding_box()
    assert image
    page.touchscreen.tap(image["x"] + image["width"] * 0.99, image["y"] + image["height"] * 0.01)
    assert state_of(page, "cell") == [0, 18]


@pytest_browser
def test_names_of_recipes_stay_texts(show: OpenPage) -> None:
    evil = dataclasses.replace(SSD300_VOC, name="<img src=x onerror=alert(1)>")
    page = show(PriorExplorer(recipes=[SSD300_COCO, evil], recipe=evil.name, title="<img src=x onerror=alert(1)>"))
    assert page.locator(".ssd-widget img").count() == 0
    assert page.get_by_label("Recipe").evaluate("e => e.selectedOptions[0].text") == evil.name
