"""AnatomyExplorer: sizes and activations against the network, its checks, and the page by mouse, keyboard and touch."""

from __future__ import annotations

import base64
import io
import math

import pytest
import torch
from PIL import Image
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torch import Tensor, nn
from traitlets import TraitError

from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import SSD, prepare, ssd_tiny
from ssdlib.widgets import AnatomyExplorer
from ssdlib.widgets.activations import CHANNELS, LARGEST, strip
from ssdlib.widgets.anatomy import anatomy
from ssdlib.widgets.base import open_url, read_static
from ssdlib.zoo.checkpoint import demo_model


@pytest.fixture(scope="module")
def model() -> SSD:
    return demo_model()


def greys(address: str) -> Tensor:
    """(H, W) 0..1 of a picture that `strip` made."""
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
        pixels = torch.tensor(list(picture.convert("L").tobytes()), dtype=torch.float32)
        return pixels.reshape(picture.height, picture.width) / 255


def test_activations_are_those_of_the_network(model: SSD) -> None:
    """The stages one by one, on the same image, against what the widget holds."""
    explorer = AnatomyExplorer(model)
    x = (prepare(open_url(explorer.image), 256)[None] - model.mean) / model.std
    drawn = {each["name"]: each for each in explorer.networks[0]["layers"]}
    with torch.no_grad():
        for number, stage in enumerate(model.backbone.stages, start=1):  # type: ignore[arg-type]
            for i, block in enumerate(stage, start=1):
                x = block(x)
                layer = drawn[f"conv{number}_{i}"]
                assert layer["shape"] == list(x.shape[1:])
                variances = x[0].var(dim=(1, 2), correction=0)
                chosen = layer["channels"]
                assert len(set(chosen)) == CHANNELS
                assert variances[chosen].tolist() == sorted(variances[chosen].tolist(), reverse=True)
                others = [channel for channel in range(x.shape[1]) if channel not in chosen]
                assert variances[chosen].min() >= variances[others].max()
                picture = greys(layer["picture"])
                side = min(LARGEST, x.shape[-1])
                assert picture.shape == (CHANNELS * side, side)
                for place, channel in enumerate(chosen):
                    assert layer["most"][place] == pytest.approx(x[0, channel].max().item(), abs=0.006)
                    if side == x.shape[-1]:
                        shown = picture[place * side : (place + 1) * side] * x[0, channel].max()
                        assert (shown - x[0, channel]).abs().max() <= x[0, channel].max() / 30 + 1e-4


def test_object_scores_of_each_map(model: SSD) -> None:
    explorer = AnatomyExplorer(model, VOCDataset(sample_root(), "test").image_path(19))
    with torch.no_grad():
        _, logits = model(prepare(open_url(explorer.image), 256)[None])
    scores = 1 - logits[0].softmax(dim=1)[:, 0]
    maps = [each for each in explorer.networks[0]["layers"] if "scores" in each]
    assert [each["shape"][1] for each in maps] == list(model.recipe.map_sizes)
    expected = [torch.zeros(side, side) for side in model.recipe.map_sizes]
    for index, score in enumerate(scores.tolist()):  # one by one
        k, row, column, _ = model.recipe.locate(index)
        expected[k][row, column] = max(expected[k][row, column].item(), score)
    for each, grid in zip(maps, expected, strict=True):
        assert (greys(each["scores"]) - grid).abs().max() <= 1 / 30 + 1e-4
    assert max(grid.max().item() for grid in expected) > 0.5  # there are objects


def test_the_image_is_shown_as_the_network_gets_it(model: SSD) -> None:
    explorer = AnatomyExplorer(model)
    seen = prepare(open_url(explorer.image), 256)
    colors = greys(explorer.networks[0]["colors"]).reshape(3, LARGEST, LARGEST)
    assert (nn.functional.adaptive_avg_pool2d(seen, LARGEST) - colors).abs().max() <= 1 / 30 + 1e-4
    assert explorer.networks[1]["colors"] == ""


def test_strips_average_what_is_large() -> None:
    tiles = torch.rand(2, 80, 80)
    picture = greys(strip(tiles))
    assert picture.shape == (80, 40)
    assert picture[40, 0].item() == pytest.approx(tiles[1, :2, :2].mean().item(), abs=1 / 30 + 1e-4)


def test_numbers_are_those_of_the_anatomy(model: SSD) -> None:
    explorer = AnatomyExplorer(model)
    found = anatomy(model)
    explorer.layer = found.maps[1] + 1
    assert explorer.current == found.layers[found.maps[1]]
    assert "conv2_2: 128 x 16 x 16" in explorer.describe()
    assert "5456 x (4 + 7)" in explorer.describe()
    for drawn in explorer.networks:
        maps = [each for each in drawn["layers"] if each["map"] >= 0]
        assert sum(each["shape"][1] ** 2 * each["per_cell"] for each in maps) == drawn["priors"]
        total = sum(each["parameters"] + each["head_parameters"] for each in drawn["layers"])
        assert total == drawn["parameters"]
    explorer.network = "ssd300_vgg16"
    explorer.layer = 19
    assert explorer.current is not None
    assert (explorer.current.name, explorer.current.field) == ("conv6", 420)
    assert not explorer.networks[1]["trained"]


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("layer", 16, r"layer must be 0 \(the image\) to 15 \(all predictions\) for 'ssd_tiny'; got 16"),
        ("layer", -1, "layer must be 0"),
        ("layer", 1.5, "int"),
        ("network", "vgg", r"network must be one of \['ssd_tiny', 'ssd300_vgg16'\]; got 'vgg'"),
        ("networks", [], "read-only"),
        ("point", (0.5, 1.01), r"point must be \(x, y\) in fractions of the image, 0 to 1; got \(0.5, 1.01\)"),
        ("point", (float("nan"), 0.5), "point must be made of finite numbers"),
        ("point", (0.5,), "2"),
        ("channel", 7, "7"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(model: SSD, trait: str, value: object, message: str) -> None:
    explorer = AnatomyExplorer(model, layer=3)
    before = explorer.state()
    with pytest.raises(TraitError, match=message):
        setattr(explorer, trait, value)
    assert explorer.state() == before
    with pytest.raises(TraitError, match="network must be one of"):
        AnatomyExplorer(model, layer=3, network="vgg")


def test_a_shorter_network_moves_the_layer_to_its_end(model: SSD) -> None:
    explorer = AnatomyExplorer(model, network="ssd300_vgg16", layer=29)
    assert explorer.current is None
    explorer.network = "ssd_tiny"
    assert explorer.layer == 15


def test_the_cell_is_the_one_at_the_point(model: SSD) -> None:
    explorer = AnatomyExplorer(model, point=(0.26, 1.0))
    assert explorer.cell == (255, 66)
    explorer.layer = 6
    assert explorer.cell == (31, 8)
    explorer.layer = 15
    assert explorer.cell == (31, 8)  # of the first map
    explorer.channel = 3
    assert explorer.cell == (3, 1)
    explorer.channel = 6  # there is no such map: the last one
    assert explorer.cell == (1, 0)
    explorer.network = "ssd300_vgg16"
    explorer.layer = 13
    assert explorer.cell == (37, 9)


def test_the_model_is_left_as_it_was() -> None:
    model = ssd_tiny(3).train()
    AnatomyExplorer(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_state_and_html_are_small(model: SSD) -> None:
    assert len(AnatomyExplorer(model).to_html()) < 70_000
    assert "data-from=network" in AnatomyExplorer(model).to_html()


@pytest.mark.browser
def test_stepping_through_by_keyboard(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    forward = page.get_by_role("button", name="one step forward")
    forward.focus()
    for _ in range(6):
        page.keyboard.press("Enter")
    assert state_of(page, "layer") == 6
    text = page.locator(".ssd-panel").inner_text()
    assert "96 × 32 × 32 (C × H × W)" in text
    assert "55 × 55 px" in text
    assert "Each sees 71 × 71 px" in text.replace("\xa0", " ")
    assert "4 × 7 = 28 class scores" in text.replace("\xa0", " ")
    assert "numbers 0 to 4,095 of 5,456" in text
    assert page.locator(".ssd-strip label:visible").count() == CHANNELS + 1
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('conv1_6: 96 channels')")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # back
    assert state_of(page, "layer") == 5
    assert page.locator(".ssd-strip label:visible").count() == CHANNELS
    assert "No head reads this layer" in page.locator(".ssd-panel").inner_text()


def on_flow(page: Page, layer: float, down: float, count: int = 15) -> tuple[float, float]:
    """Where a layer stands in the flow, or the bar below it, on the screen."""
    drawing = page.locator(".ssd-diagram:visible").bounding_box()
    assert drawing
    return drawing["x"] + (layer + 0.5) * drawing["width"] / count, drawing["y"] + drawing["height"] * down


@pytest.mark.browser
def test_a_click_chooses_a_layer_and_hovering_lights_it_up(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    page.locator(".ssd-more summary").click()
    page.mouse.move(*on_flow(page, 8, 0.5))
    assert state_of(page, "layer") == 0  # nothing is chosen by passing over it
    dim = "all => all.map(e => getComputedStyle(e).opacity)"
    partners = page.eval_on_selector_all(".ssd-diagram:not([hidden]) [data-link=l8], tr[data-link=l8]", dim)
    assert partners == ["1"] * 3  # the map, its part of the bar, its row
    others = page.eval_on_selector_all(".ssd-diagram:not([hidden]) [data-link=l6], tr[data-link=l6]", dim)
    assert others == ["0.3"] * 3
    assert page.locator(".ssd-diagram:visible .ssd-tag").text_content() == "conv2_2"
    page.locator("tr[data-link=l3]").hover()
    assert page.locator(".ssd-flow-layer.ssd-linked:visible").get_attribute("aria-label") == "conv1_3, 32 × 64 × 64"
    page.mouse.click(*on_flow(page, 8, 0.5))
    assert state_of(page, "layer") == 8
    page.mouse.click(*on_flow(page, 12, 0.9))  # the second map's part of the bar
    assert (state_of(page, "layer"), state_of(page, "channel")) == (15, 1)
    assert "4,096 + 1,024 + 256 + 64 + 16 = 5,456 rows" in page.locator(".ssd-panel").inner_text()
    assert page.locator(".ssd-strip label:visible").count() == 5
    assert "103" not in page.locator(".ssd-readout").inner_text()
    assert "135 × 135 px" in page.locator(".ssd-readout").inner_text()  # of a prediction


@pytest.mark.browser
def test_the_flow_is_walked_by_key(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    page.locator(".ssd-flow-layer[tabindex='0']:visible").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert state_of(page, "layer") == 0
    page.keyboard.press("Enter")
    assert state_of(page, "layer") == 3
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused) == "conv1_3, 32 × 64 × 64"
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    assert state_of(page, "layer") == 15
    assert page.evaluate(focused) == "all predictions"


@pytest.mark.browser
def test_cells_are_chosen_by_key_mouse_and_finger(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model, layer=8), has_touch=True)
    map_, picture = (page.locator(f".ssd-maps-pair .ssd-stage >> nth={i}") for i in (0, 1))
    map_.locator(".ssd-picker").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert state_of(page, "point") == [7.5 / 16, 7.5 / 16]
    page.keyboard.press("Control+ArrowUp")
    assert state_of(page, "point") == [7.5 / 16, 0.5 / 16]  # no further than the border
    assert "row 0, column 7 of 16 × 16" in page.locator(".ssd-readout").inner_text()
    frame = map_.bounding_box()
    assert frame
    page.mouse.click(frame["x"] + frame["width"] * 0.9, frame["y"] + frame["height"] * 0.4)
    assert state_of(page, "point") == [14.5 / 16, 6.5 / 16]
    frame = picture.bounding_box()
    assert frame
    page.touchscreen.tap(frame["x"] + frame["width"] / 4, frame["y"] + frame["height"] * 0.8)
    assert state_of(page, "point") == pytest.approx([0.25, 0.8], abs=0.01)
    assert "row 12, column 4 of 16 × 16" in page.locator(".ssd-readout").inner_text()


def thin(model: SSD) -> list[Tensor]:
    """Positive weights of one channel in every block, so that each path has a gradient; returns where outputs go."""
    outputs: list[Tensor] = []
    for stage in model.backbone.stages:  # type: ignore[union-attr]
        for block in stage:  # type: ignore[union-attr]
            block[1] = block[2] = nn.Identity()
            nn.init.constant_(block[0].weight, 1e-3)
            block.register_forward_hook(lambda _, __, out: (out.retain_grad(), outputs.append(out))[0])
    return outputs


@pytest.mark.browser
def test_framed_parts_are_those_with_a_gradient(open_page: OpenPage, model: SSD) -> None:
    """Of a cell of each layer, and of predictions: what the page frames in all layers before, against gradients."""
    network = AnatomyExplorer(model).networks[0]
    found = anatomy(model)
    plain = ssd_tiny(2).eval()
    outputs = thin(plain)
    for head in plain.offset_head.convolutions:  # type: ignore[union-attr]
        nn.init.constant_(head.weight, 1.0)
    pixels = torch.ones(1, 3, 256, 256, requires_grad=True)
    maps = plain.backbone(pixels)
    cells, expected = [], []
    draw = torch.Generator().manual_seed(0)
    for number, k in [*((n, None) for n in range(1, 15)), *((found.maps[k] + 1, k) for k in range(5))]:
        side = outputs[number - 1].shape[-1]
        for row, column in [(0, side - 1), torch.randint(side, (2,), generator=draw).tolist()]:
            target = outputs[number - 1] if k is None else plain.offset_head.convolutions[k](maps[k])  # type: ignore[union-attr, operator, index]
            for x in (pixels, *outputs):
                x.grad = None
            target[0, 0, row, column].backward(retain_graph=True)
            boxes = []
            for x in (pixels, *outputs[:number]):
                assert x.grad is not None
                rows, columns = (x.grad[0].sum(0).sum(dim).nonzero() for dim in (1, 0))
                edges = columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1
                boxes.append([edge / x.shape[-1] for edge in edges])
            cells.append({"number": number, "row": row, "column": column, "head": k is not None})
            expected.append(boxes)
    source = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "anatomy_explorer.flow"))
    there = open_page("about:blank#//").evaluate(
        "([source, network, cells]) => { const f = new Function(`${source}; return fieldsOf`)();"
        "return cells.map((cell) => f(network, cell)); }",
        [source, network, cells],
    )
    assert len(cells) == 38
    assert there == expected


@pytest.mark.browser
def test_what_is_framed_is_drawn(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model, layer=6))
    for layer, point in [(6, [0.3, 0.6]), (8, [0.99, 0.01]), (14, [0.7, 0.7]), (2, [0.5, 0.1])]:
        set_state(page, "layer", layer)
        set_state(page, "point", point)
        explorer = AnatomyExplorer(model, layer=layer, point=tuple(point))
        assert explorer.current is not None
        box = [min(256.0, max(0.0, side)) for side in explorer.current.receptive_field(*explorer.cell)]
        path = page.locator(".ssd-lit").get_attribute("d") or ""
        x0, y0, x1, y1 = (
            float(side) * 256 / 300
            for side in path.replace("M", "").replace("Z", "").replace("H", " ").replace("V", " ").split()[:4]
        )
        assert [x0, y0, x1, y1] == pytest.approx(box, abs=0.01)
        frames = page.locator(".ssd-diagram:not([hidden]) .ssd-depends").evaluate_all(
            "all => all.map(e => getComputedStyle(e).display !== 'none')"
        )
        assert frames == [i <= layer for i in range(15)]


@pytest.mark.browser
def test_traits_set_in_python_move_the_page_and_networks_change(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    set_state(page, "layer", 8)
    page.get_by_role("radio", name="SSD300").check()
    assert (state_of(page, "network"), state_of(page, "layer")) == ("ssd300_vgg16", 20)  # conv7, its second map too
    assert "no trained weights" in page.locator(".ssd-picture").inner_text()
    assert page.locator(".ssd-strip label:visible").count() == 0
    assert page.locator(".ssd-diagram:visible").count() == 1
    set_state(page, "layer", 29)
    assert "= 8,732 rows" in page.locator(".ssd-panel").inner_text()
    set_state(page, "network", "ssd_tiny")  # Python moves the layer after it
    assert "= 5,456 rows" in page.locator(".ssd-panel").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str, model: SSD) -> None:
    page = show(AnatomyExplorer(model, layer=8), theme=theme)
    assert violations(page) == []


@pytest.mark.browser
def test_fits_a_phone_and_targets_can_be_touched(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model, network="ssd300_vgg16"), width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(
        "button, .ssd-options label", "all => all.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len([size for size in sizes if size[0] > 0]) == 7
    assert all(math.ceil(side) >= 44 for size in sizes for side in size if size[0] > 0)
    page.touchscreen.tap(*on_flow(page, 20, 0.5, count=29))
    assert state_of(page, "layer") == 20


@pytest.mark.browser
def test_titles_stay_texts(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model, title="<img src=x onerror=alert(1)>"))
    assert page.locator(".ssd-widget img").count() == 0
