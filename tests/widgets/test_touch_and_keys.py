"""All widgets by finger, by key, at every width, with colours of the system, and for screen readers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page
from support.browser import OpenPage, set_state, state_of
from torch import nn

from ssdlib.book import recorded
from ssdlib.data import VOCDataset, sample_root
from ssdlib.family.overfeat import OverFeat
from ssdlib.family.window_classifier import WindowClassifier
from ssdlib.model import SSD
from ssdlib.widgets import (
    AnatomyExplorer,
    BookWidget,
    EncodingPlayground,
    Flipbook,
    GridExplorer,
    HardNegativeMiner,
    JaccardPlayground,
    MatchingExplorer,
    NmsStepper,
    PrecisionRecallExplorer,
    PriorExplorer,
    Quiz,
    RoiExplorer,
    TrainingPlayer,
    WindowExplorer,
)
from ssdlib.zoo.checkpoint import demo_model

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def model() -> SSD:
    return demo_model()


def matching(**traits: Any) -> MatchingExplorer:
    dataset = VOCDataset(sample_root(), "test")
    target = dataset.target(31)
    names = [dataset.classes[label - 1] for label in target["labels"].tolist()]
    return MatchingExplorer(dataset.image_path(31), target["boxes"], names, **traits)


def miner(**traits: Any) -> HardNegativeMiner:
    truth = {"boxes": torch.tensor([[0.1, 0.1, 0.6, 0.6]]), "labels": torch.tensor([1])}
    boxes = torch.cat([torch.rand(40, 2), 0.1 + 0.4 * torch.rand(40, 2)], dim=1)
    logits = 3 * torch.randn(1, 40, 3)
    return HardNegativeMiner(
        torch.rand(3, 60, 90), truth, torch.randn(1, 40, 4), logits, boxes, ["ball", "star"], **traits
    )


def grid(**traits: Any) -> GridExplorer:
    boxes = torch.tensor([[100.0, 50, 200, 150], [130, 80, 171, 122], [60, 70, 150, 160], [220, 10, 280, 50]])
    return GridExplorer(torch.rand(3, 200, 300), boxes, ["cup", "coffee", "spoon", "lamp"], **traits)


def windows(model: SSD, **traits: Any) -> WindowExplorer:
    first = model.backbone.stages[0]
    assert isinstance(first, nn.Sequential)
    classifier = WindowClassifier(first[:5], 7, 64, model.mean, model.std)
    return WindowExplorer(OverFeat(classifier), torch.rand(3, 128, 128), [*model.classes], **traits)


def precision_recall() -> PrecisionRecallExplorer:
    return PrecisionRecallExplorer()


def training(**traits: Any) -> TrainingPlayer:
    return TrainingPlayer(recorded("checkpoints"), **traits)


def flipbook(**traits: Any) -> Flipbook:
    return Flipbook(
        [(torch.full((3, 300, 400), k / 3), f"{k} thirds. " + 12 * "All words. ") for k in range(4)], **traits
    )


def quiz(**traits: Any) -> Quiz:
    answers = [{"text": text, "right": text == "0", "why": f"`{text}` " + 12 * "because "} for text in ("0", 30 * "no")]
    return Quiz([{"question": "Which label has the background?", "answers": answers}], **traits)


def drag_by_finger(page: Page, start: tuple[float, float], end: tuple[float, float], steps: int = 10) -> None:
    """A finger on the screen, walking: the browser may take the gesture for itself and scroll."""
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    send("touchStart", start)
    for k in range(1, steps + 1):
        send("touchMove", tuple(a + (b - a) * k / steps for a, b in zip(start, end, strict=True)))  # type: ignore[arg-type]
    send("touchEnd")


def on_stage(page: Page, x: float, y: float, width: float) -> tuple[float, float]:
    """Where a position of the picture lies on the screen."""
    frame = page.locator(".ssd-stage").first.bounding_box()
    assert frame
    return frame["x"] + x * frame["width"] / width, frame["y"] + y * frame["width"] / width


@pytest.mark.parametrize(
    ("widget", "key"),
    [
        (JaccardPlayground(box_a=[0, 0, 60, 60], box_b=[100, 60, 200, 120]), "box_b"),
        (EncodingPlayground(box=[100, 60, 200, 120]), "box"),
    ],
)
def test_boxes_and_corners_follow_a_finger(show: OpenPage, widget: BookWidget, key: str) -> None:
    page = show(widget, widget, width=390, height=500, has_touch=True, is_mobile=True)
    # Downwards and upwards, where the browser would rather scroll the page.
    drag_by_finger(page, on_stage(page, 130, 100, 300), on_stage(page, 150, 160, 300))
    assert state_of(page, key) == pytest.approx([120, 120, 220, 180], abs=2)
    set_state(page, key, [100, 60, 200, 120])
    for x, y, expected in [
        (100, 60, [110, 20, 200, 120]),
        (200, 60, [100, 20, 210, 120]),
        (100, 120, [110, 60, 200, 80]),
        (200, 120, [100, 60, 210, 80]),
    ]:
        drag_by_finger(page, on_stage(page, x, y, 300), on_stage(page, x + 10, y - 40, 300))
        assert state_of(page, key) == pytest.approx(expected, abs=2)
        set_state(page, key, [100, 60, 200, 120])
    assert page.evaluate("scrollY") == 0


def test_cells_follow_a_finger(show: OpenPage) -> None:
    page = show(
        PriorExplorer(torch.rand(3, 60, 60), map=1, cell=[0, 0]), width=390, height=500, has_touch=True, is_mobile=True
    )
    page.locator(".ssd-stage").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    drag_by_finger(page, on_stage(page, 100, 200, 300), on_stage(page, 100, 100, 300))
    above = state_of(page, "cell")
    drag_by_finger(page, on_stage(page, 100, 100, 300), on_stage(page, 160, 200, 300))
    below = state_of(page, "cell")
    assert below[0] > above[0] + 2
    assert below[1] > above[1] + 1
    assert page.evaluate("scrollY") == before


CUT = """() => [...document.querySelectorAll('.ssd-widget')].flatMap(widget => {
    const limit = widget.getBoundingClientRect();
    const tables = [...widget.querySelectorAll('.ssd-table')].filter(t => t.scrollWidth > t.clientWidth)
        .map(t => `${t.getAttribute('aria-label')}: ${t.scrollWidth} in ${t.clientWidth}`);
    const words = document.createTreeWalker(widget, NodeFilter.SHOW_TEXT);
    const out = [];
    while (words.nextNode()) {
        const range = document.createRange();
        range.selectNodeContents(words.currentNode);
        for (const r of range.getClientRects())
            if (r.width && (r.right > limit.right || r.left < limit.left)) out.push(words.currentNode.data);
    }
    return [...tables, ...out];
})"""


@pytest.mark.parametrize("width", [320, 390, 600, 757, 1024, 1280, 1366])
def test_nothing_is_cut_at_any_width(show: OpenPage, model: SSD, width: int) -> None:
    widgets = [
        JaccardPlayground(),
        EncodingPlayground(),
        PriorExplorer(torch.rand(3, 60, 60), compare="ssd512-voc"),
        matching(step=5),
        miner(shown=2),
        AnatomyExplorer(model, network="ssd300_vgg16", layer=5),
        NmsStepper(step=1),
        precision_recall(),
        quiz(chosen=[1]),
        RoiExplorer(bins=3),
        training(checkpoint=7),
        grid(),
        flipbook(step=2),
        windows(model, side=128, place=(8, 8)),
    ]
    page = show(*widgets, width=width, height=800)
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    columns = page.locator(".ssd-columns").first.evaluate(
        "c => getComputedStyle(c).gridTemplateColumns.split(' ').length"
    )
    assert columns == (2 if width > 740 else 1)


@pytest.mark.parametrize("number", range(13))
@pytest.mark.parametrize("width", [757, 820])  # the column of the built page at 1366 px, and of a wider screen
def test_one_screen_of_a_laptop_holds_a_widget(show: OpenPage, model: SSD, number: int, width: int) -> None:
    make = [
        JaccardPlayground,
        EncodingPlayground,
        PriorExplorer,
        lambda: matching(step=5),
        lambda: miner(shown=2),
        lambda: AnatomyExplorer(model, layer=5),
        lambda: NmsStepper(step=1, label=3),
        precision_recall,
        RoiExplorer,
        lambda: training(checkpoint=4),
        grid,
        flipbook,
        lambda: windows(model, side=128, place=(8, 8)),
    ][number]
    page = show(make(), width=width, height=657)
    frame = page.locator(".ssd-widget").bounding_box()
    assert frame
    assert frame["height"] <= 657


def heights(page: Page) -> set[float]:
    return set(page.eval_on_selector_all(".ssd-columns", "all => all.map(c => c.getBoundingClientRect().height)"))


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("network", ["ssd_tiny", "ssd300_vgg16"])
def test_anatomy_keeps_its_height_while_layers_go_by(show: OpenPage, model: SSD, width: int, network: str) -> None:
    page = show(AnatomyExplorer(model, network=network), width=width)
    page.wait_for_timeout(300)
    seen = set()
    for layer in range(40):
        set_state(page, "layer", layer)
        seen |= heights(page)
    assert len(seen) == 1
    whole = set()
    for layer in (0, 3, 6, 40):
        set_state(page, "layer", layer)
        page.wait_for_timeout(280)  # its sentence
        whole.add(page.locator(".ssd-widget").evaluate("w => w.getBoundingClientRect().height"))
    assert len(whole) == 1


def is_focused(locator: Locator) -> bool:
    return bool(locator.evaluate("element => element === document.activeElement"))


def test_focus_stays_on_a_button_that_goes_off(show: OpenPage) -> None:
    page = show(matching(step=4))
    forward = page.get_by_role("button", name="one step forward")
    forward.press("Enter")
    assert state_of(page, "step") == 5
    assert forward.get_attribute("aria-disabled") == "true"
    assert is_focused(forward)
    page.keyboard.press("Enter")
    assert state_of(page, "step") == 5
    page.get_by_role("button", name="to the start").press("Enter")
    assert is_focused(page.get_by_role("button", name="to the start"))


def test_ring_of_a_slider_strikes_no_words(show: OpenPage) -> None:
    page = show(EncodingPlayground())
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    gaps = page.evaluate(
        """() => {
            const input = document.activeElement, style = getComputedStyle(input);
            const frame = input.getBoundingClientRect();
            const reach = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth);
            const label = input.previousElementSibling.getBoundingClientRect();
            const below = input.closest('label').nextElementSibling.getBoundingClientRect();
            return [frame.top - reach - label.bottom, below.top - frame.bottom - reach, parseFloat(style.outlineWidth)];
        }"""
    )
    assert gaps[0] >= 0
    assert gaps[1] >= 0
    assert gaps[2] == 3


def test_a_choice_is_seen_in_the_colours_of_the_system(show: OpenPage) -> None:
    page = show(matching(), JaccardPlayground(), forced_colors="active")
    colour = "element => getComputedStyle(element).backgroundColor"
    chosen = page.locator(".ssd-options input:checked + span").first
    other = page.locator(".ssd-options input:not(:checked) + span").first
    assert chosen.evaluate(colour) != other.evaluate(colour)
    lines, paper = (page.locator(name).first for name in (".ssd-movable", ".ssd-stage"))
    assert lines.evaluate("e => getComputedStyle(e).stroke") != paper.evaluate(colour)


def test_an_object_without_area_is_drawn(show: OpenPage) -> None:
    page = show(JaccardPlayground())
    page.get_by_role("button", name="without area").click()
    assert state_of(page, "box_b") == [120, 40, 120, 160]
    x, y = on_stage(page, 120, 55, 300)  # between its ends, above the other box
    clip = {"x": x - 3, "y": y - 3, "width": 6, "height": 6}
    thin = page.screenshot(clip=clip)  # type: ignore[arg-type]
    set_state(page, "box_b", [20, 40, 20, 160])
    assert page.screenshot(clip=clip) != thin  # type: ignore[arg-type]


def test_every_widget_can_be_put_back(show: OpenPage, model: SSD) -> None:
    changes: list[tuple[BookWidget, str, Any]] = [
        (JaccardPlayground(), "box_a", [0, 0, 10, 10]),
        (EncodingPlayground(), "box", [0, 0, 10, 10]),
        (PriorExplorer(torch.rand(3, 60, 60)), "cell", [0, 0]),
        (matching(), "threshold", 0.3),
        (miner(), "ratio", 5),
        (AnatomyExplorer(model), "layer", 4),
        (NmsStepper(torch.rand(3, 20, 30), **candidates()), "max_overlap", 0.9),
        (precision_recall(), "min_score", 0.7),
        (quiz(), "chosen", [0]),
        (RoiExplorer(), "bin", 3),
        (training(), "checkpoint", 3),
        (grid(), "cells", 13),
        (flipbook(), "step", 2),
    ]
    page = show(*(widget for widget, _, _ in changes))
    for number, (widget, key, value) in enumerate(changes):
        reset = page.get_by_role("button", name=f"Reset: {widget.title}")
        before = state_of(page, key, number)
        assert (reset.get_attribute("aria-disabled"), before != value) == ("true", True)
        set_state(page, key, value, number)
        assert reset.get_attribute("aria-disabled") == "false"
        reset.press("Enter")
        assert state_of(page, key, number) == before
        assert reset.get_attribute("aria-disabled") == "true"


def candidates() -> dict[str, Any]:
    return {"boxes": [[1.0, 1, 9, 9], [2, 1, 10, 9]], "scores": [0.9, 0.8], "labels": [1, 1], "classes": ["ball"]}


def test_screen_readers_hear_nothing_while_a_player_plays(show: OpenPage) -> None:
    page = show(matching())
    page.wait_for_timeout(400)
    page.evaluate(
        """() => {
            const live = document.querySelector('[role=status]');
            window.spoken = [];
            new MutationObserver(() => {
                if (live.ariaLive !== 'off') window.spoken.push(live.textContent);
            }).observe(live, { childList: true, characterData: true, subtree: true });
        }"""
    )
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.ssd-widget-place').model.get('step') === 3", timeout=15_000)
    assert page.evaluate("spoken") == []
    assert "Step one" in page.locator("[role=status]").inner_text()  # it is shown
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("spoken.length > 0")
    assert "Step one, object" in page.evaluate("spoken.at(-1)")
    assert len(page.evaluate("spoken")) <= 2
