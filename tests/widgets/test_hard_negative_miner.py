"""HardNegativeMiner: the losses and boxes of the page are those of ssdlib.loss at every ratio; steps, keys, names."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torch import Tensor
from traitlets import TraitError

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.data import VOCDataset, sample_root
from ssdlib.loss import assign_targets, background_loss, mine_hard_negatives, multibox_loss
from ssdlib.model import prepare
from ssdlib.widgets import HardNegativeMiner, hard_negative_miner
from ssdlib.widgets.base import read_static
from ssdlib.zoo.checkpoint import demo_model

SOURCE = "\n".join(read_static(f"{name}.mjs") for name in ("maths", "hard_negative_miner"))
LOSSES = f"{SOURCE.replace('export default { render };', '')}; return lossesAt"
EVIL = "<img src=x onerror=alert(1)>"

Inputs = tuple[Any, dict[str, Tensor], Tensor, Tensor, Tensor, tuple[str, ...]]


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """What a small trained network says about a scene of the sample, and what is true."""
    dataset, model = VOCDataset(sample_root(), "test"), demo_model()
    width, height = dataset.size(19)
    target = dataset.target(19)
    truth = {"boxes": target["boxes"] / torch.tensor([width, height, width, height]), "labels": target["labels"]}
    with torch.no_grad():
        offsets, logits = model(prepare(dataset[19][0], 256)[None])
    return dataset.image_path(19), truth, offsets, logits, model.priors, tuple(dataset.classes)


def random_inputs(objects: int, priors: int = 40) -> Inputs:
    """Predictions at random, for a scene with so many objects."""
    corners = torch.rand(objects, 2, 2).sort(dim=1).values.flatten(1)
    corners[:, 2:] = (corners[:, 2:] + 0.1).clamp(max=1.1)
    boxes = torch.cat([torch.rand(priors, 2), 0.1 + 0.4 * torch.rand(priors, 2)], dim=1)
    truth = {"boxes": corners.clamp(max=1), "labels": torch.randint(1, 3, (objects,))}
    logits = 3 * torch.randn(1, priors, 3)
    return torch.rand(3, 60, 90), truth, torch.randn(1, priors, 4), logits, boxes, (EVIL, "star")


def on_the_page(page: Page, widget: HardNegativeMiner, ratio: int) -> dict[str, float]:
    found: dict[str, float] = page.evaluate(
        "([source, scene, ratio]) => new Function(source)()(scene, ratio)", [LOSSES, widget.state()["scene"], ratio]
    )
    return found


@pytest.mark.browser
@pytest.mark.parametrize("case", ["network", 0, 1, 6])
def test_losses_of_the_page_are_those_of_the_library(open_page: OpenPage, inputs: Inputs, case: str | int) -> None:
    given = inputs if isinstance(case, str) else random_inputs(case)
    _, truth, offsets, logits, priors, _ = given
    widget, page = HardNegativeMiner(*given), open_page("about:blank#//")
    for ratio in range(11):
        here = multibox_loss(offsets, logits, [truth], priors, negatives_per_positive=ratio)
        there = on_the_page(page, widget, ratio)
        assert there["positives"] + there["negatives"] == pytest.approx(float(here["confidence"]), rel=1e-4, abs=1e-5)
        assert widget.scene["sums"]["localization"] == pytest.approx(float(here["localization"]), rel=1e-5)
        widget.ratio = ratio
        assert widget.losses["confidence"] == float(here["confidence"])
        assert there["mined"] == int(widget.mined.sum())
        assert widget.shown == 0  # it opens with none, and a ratio draws none
    every = multibox_loss(offsets, logits, [truth], priors, negatives_per_positive=len(priors))["confidence"]
    assert there["positives"] + there["all"] == pytest.approx(float(every), rel=1e-4)


@pytest.mark.parametrize("ratio", [1, 3, 10])
def test_negatives_are_the_mined_ones_hardest_first(inputs: Inputs, ratio: int) -> None:
    image, truth, offsets, logits, priors, classes = inputs
    widget = HardNegativeMiner(image, truth, offsets, logits, priors, classes, ratio=ratio)
    labels, _ = assign_targets([truth], priors, len(classes) + 1)
    hardness = background_loss(logits)
    mined = mine_hard_negatives(hardness, labels > 0, ratio)[0]
    assert torch.equal(widget.mined, mined)
    tenths = (cxcywh_to_xyxy(priors) * torch.tensor([*widget.size, *widget.size]) * 10).round().int()
    sent = widget.scene["negatives"][: int(mined.sum())]
    assert sorted(row[:4] for row in sent) == sorted(tenths[mined].tolist())
    assert sorted(row[:4] for row in widget.scene["positives"]) == sorted(tenths[labels[0] > 0].tolist())
    losses = [row[7] for row in sent]
    assert losses == sorted(losses, reverse=True)
    assert losses == [round(1000 * float(loss)) for loss in hardness[0][mined].sort(descending=True).values]
    first = int(hardness[0].masked_fill(labels[0] > 0, -torch.inf).argmax())
    probability = logits[0, first].softmax(dim=0)
    assert sent[0][4] == int(probability[1:].argmax()) + 1
    assert sent[0][5] / 1000 == pytest.approx(float(probability[1:].max()), abs=1e-3)
    assert sent[0][6] / 1000 == pytest.approx(float(probability[0]), abs=1e-3)


def test_traits_are_checked_at_once(inputs: Inputs) -> None:
    widget = HardNegativeMiner(*inputs, shown=4)
    for name, value, message in [
        ("ratio", 11, "ratio"),
        ("ratio", -1, "ratio"),
        ("ratio", 2.5, "ratio"),
        ("shown", 46, "shown must be 0 to 45 at this ratio"),
        ("shown", -1, "shown must be 0 to 45"),
        ("drawn", ["everything"], "drawn"),
    ]:
        with pytest.raises(TraitError, match=message):
            setattr(widget, name, value)
    assert (widget.ratio, widget.shown) == (3, 4)
    widget.ratio = 2
    assert widget.shown == 4
    widget.shown = 30
    widget.ratio = 1
    assert widget.shown == 15
    image, truth, offsets, logits, priors, classes = inputs
    with pytest.raises(ValueError, match="logits of 7 classes with background, but 1 names"):
        HardNegativeMiner(image, truth, offsets, logits, priors, classes[:1])
    with pytest.raises(ValueError, match="need offsets"):
        HardNegativeMiner(image, truth, offsets[:, 1:], logits, priors, classes)


def test_changes_from_a_page_arrive_together(inputs: Inputs) -> None:
    widget = HardNegativeMiner(*inputs)
    for ratio, shown in ((10, 150), (1, 15), (0, 0), (2, 30)):
        widget.set_state({"shown": shown, "ratio": ratio})
        assert (widget.ratio, widget.shown) == (ratio, shown)
    widget.set_state({"shown": 7})
    assert widget.shown == 7


def test_example_runs() -> None:
    assert doctest.testmod(hard_negative_miner).failed == 0


def test_picture_and_words(inputs: Inputs) -> None:
    widget = HardNegativeMiner(*inputs)
    assert "15 positive priors and the 45 negatives" in widget.describe()
    assert f"loss is {widget.losses['confidence']:.2f};" in widget.describe()
    text = widget.to_html()
    assert len(text) < 90_000
    assert "data-from=network" in text


def cells(page: Page, caption: str) -> list[list[str]]:
    rows = page.get_by_role("region", name=caption).locator("tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


@pytest.mark.browser
def test_ratio_and_steps_by_keyboard(show: OpenPage, inputs: Inputs) -> None:
    widget = HardNegativeMiner(*inputs)
    page = show(widget)
    slider = page.get_by_role("slider", name="Negatives for each positive")
    play = page.get_by_role("button", name="Play")
    for key, ratio in (("ArrowRight", 4), ("Home", 0), ("End", 10)):
        slider.press(key)
        widget.ratio = ratio
        assert (state_of(page, "ratio"), state_of(page, "shown")) == (ratio, 0)
        assert (play.get_attribute("aria-disabled") == "true") == (ratio == 0)
        set_state(page, "shown", 15 * ratio)
        before, after = cells(page, "Confidence loss")
        assert after[0] == f"{15 * ratio} mined"
        assert after[3] == f"{widget.losses['confidence']:.2f}"
        assert before[0] == "all 5,441"
        assert page.locator(".ssd-mined").count() == 15 * ratio
    set_state(page, "ratio", 1)
    assert page.locator(".ssd-mined").count() == 15
    page.get_by_role("button", name="to the start").press("Enter")
    assert page.locator(".ssd-mined").count() == 0
    assert not page.locator(".ssd-now").is_visible()
    forward = page.get_by_role("button", name="one step forward")
    forward.press("Enter")
    forward.press("Enter")
    assert state_of(page, "shown") == 2
    row = widget.scene["negatives"][1]
    name = widget.classes[row[4] - 1]
    assert page.locator(".ssd-now").get_attribute("x") == str(row[0] / 10).removesuffix(".0")
    shown = page.locator(".ssd-readout").first.locator("dd").all_inner_texts()
    likely, background, loss, overlap = (f"{value / 1000:.3f}" for value in row[5:])
    assert shown == [f"2, {loss}", background, f"{name}, {likely}", overlap]
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('Negative 2 of 15')")


@pytest.mark.browser
def test_playing_boxes_and_guesses(show: OpenPage, inputs: Inputs) -> None:
    widget = HardNegativeMiner(*inputs, ratio=1, shown=13)
    page = show(widget)
    guesses = [text.rsplit(" ", 1) for text in page.locator(".ssd-claims li").all_inner_texts()]
    assert sum(int(count) for _, count in guesses) == 15
    assert {name for name, _ in guesses} == {widget.classes[row[4] - 1] for row in widget.scene["negatives"][:15]}
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.ssd-widget-place').model.get('shown') === 15")
    assert page.locator(".ssd-positive").count() == 15
    page.get_by_role("checkbox", name="mined (dashed)").uncheck()
    assert state_of(page, "drawn") == ["objects", "positives"]
    assert page.locator(".ssd-mined").count() == 0
    set_state(page, "drawn", ["negatives"])
    assert page.locator(".ssd-mined").count() == 15
    assert not page.locator(".ssd-positive").first.is_visible()


@pytest.mark.browser
def test_losses_are_scrubbed_and_older_negatives_are_faint(show: OpenPage, inputs: Inputs) -> None:
    page = show(HardNegativeMiner(*inputs, ratio=2))
    assert page.locator(".ssd-mined").count() == 0  # it starts at none
    grip = page.get_by_role("slider", name="Mined negatives")
    frame = grip.bounding_box()
    assert frame
    unit = frame["width"] / 302  # of the picture: 282 for 150 negatives, and 10 on each side
    page.mouse.move(frame["x"] + unit * (10 + 282 * 8.5 / 150), frame["y"] + 20)
    page.mouse.down()
    assert state_of(page, "shown") == 9
    page.mouse.move(frame["x"] + unit * (10 + 282 * 120 / 150), frame["y"] + 20, steps=3)
    assert state_of(page, "shown") == 30  # no further than what is mined
    page.mouse.up()
    page.mouse.move(frame["x"], frame["y"] + 20)
    assert state_of(page, "shown") == 30
    assert page.locator(".ssd-mined").count() == 30
    assert page.locator("g.ssd-older").count() == 25
    grip.press("ArrowLeft")
    grip.press("Control+ArrowLeft")
    assert state_of(page, "shown") == 19
    assert (grip.get_attribute("aria-valuetext") or "").startswith("19, loss ")
    taken = page.locator(".ssd-claims li").first
    taken.hover()
    link = taken.get_attribute("data-link")
    bright = page.eval_on_selector_all(".ssd-stage .ssd-linked", "all => all.map(e => e.dataset.link)")
    assert set(bright) == {link}


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, inputs: Inputs, theme: str) -> None:
    widget = HardNegativeMiner(*random_inputs(4), shown=2)
    assert violations(show(widget, theme=theme)) == []
    page = show(HardNegativeMiner(*inputs), widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    losses = page.get_by_role("region", name="Confidence loss").first
    assert losses.evaluate("table => table.scrollWidth <= table.clientWidth")
    heights = page.eval_on_selector_all("button, input[type=range]", "all => all.map(e => e.offsetHeight)")
    assert min(heights) >= 44
