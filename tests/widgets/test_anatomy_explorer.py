"""AnatomyExplorer: sizes and activations against the network, its checks, and the page by mouse, keyboard and touch."""

from __future__ import annotations

import base64
import io
import math

import pytest
import torch
from PIL import Image
from support.browser import OpenPage, set_state, state_of, violations
from torch import Tensor
from traitlets import TraitError

from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import SSD, prepare, ssd_tiny
from ssdlib.widgets import AnatomyExplorer
from ssdlib.widgets.anatomy import anatomy
from ssdlib.widgets.anatomy_explorer import CHANNELS, LARGEST, strip
from ssdlib.widgets.base import open_url
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
    assert "a prediction sees 71 × 71 px" in text
    assert "4 × 7 = 28 class scores" in text
    assert "numbers 0 to 4,095 of 5,456" in text
    assert page.locator(".ssd-tile").count() == CHANNELS + 1
    page.wait_for_function("document.querySelector('[role=status]').textContent.startsWith('conv1_6: 96 channels')")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # back
    assert state_of(page, "layer") == 5
    assert page.locator(".ssd-tile").count() == CHANNELS
    assert "No head reads this layer" in page.locator(".ssd-panel").inner_text()


@pytest.mark.browser
def test_pointing_at_a_bar_chooses_its_layer(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    drawing = page.locator(".ssd-diagram:visible").bounding_box()
    assert drawing
    bar = drawing["width"] / 15
    page.mouse.move(drawing["x"] + 8.5 * bar, drawing["y"] + drawing["height"] * 0.45)
    assert state_of(page, "layer") == 8
    page.mouse.move(drawing["x"] + 8.5 * bar, drawing["y"] + drawing["height"] * 0.99, steps=6)
    assert state_of(page, "layer") == 8  # on the way down to the buttons nothing changes
    page.mouse.click(drawing["x"] + 8.5 * bar, drawing["y"] + drawing["height"] * 0.87)
    assert state_of(page, "layer") == 15
    assert "4,096 + 1,024 + 256 + 64 + 16 = 5,456 rows" in page.locator(".ssd-panel").inner_text()
    assert page.locator(".ssd-tile").count() == 5


@pytest.mark.browser
def test_traits_set_in_python_move_the_page_and_networks_change(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model))
    set_state(page, "layer", 8)
    page.get_by_role("radio", name="SSD300").check()
    assert (state_of(page, "network"), state_of(page, "layer")) == ("ssd300_vgg16", 20)  # conv7, its second map too
    assert "no trained weights" in page.locator(".ssd-picture").inner_text()
    assert page.locator(".ssd-tile").count() == 0
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
    assert len(sizes) == 7
    assert all(math.ceil(side) >= 44 for size in sizes for side in size)
    drawing = page.locator(".ssd-diagram:visible").bounding_box()
    assert drawing
    page.touchscreen.tap(drawing["x"] + 20.5 * drawing["width"] / 29, drawing["y"] + drawing["height"] * 0.45)
    assert state_of(page, "layer") == 20


@pytest.mark.browser
def test_titles_stay_texts(show: OpenPage, model: SSD) -> None:
    page = show(AnatomyExplorer(model, title="<img src=x onerror=alert(1)>"))
    assert page.locator(".ssd-widget img").count() == 0
