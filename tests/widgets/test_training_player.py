"""TrainingPlayer: the record against the library, what the page draws against both, and the page by key and finger."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.book import recorded
from ssdlib.boxes import iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.metrics import FALSE_POSITIVE, TRUE_POSITIVE, evaluate
from ssdlib.model import build_model
from ssdlib.widgets import TrainingPlayer
from ssdlib.widgets.training_player import APART, FALSE, LOSSES, judged

RECORD = recorded("checkpoints")
DATASET = VOCDataset(sample_root(), "test", RECORD["classes"])


def test_first_checkpoint_is_that_of_random_weights() -> None:
    """The one checkpoint that can be had again in a moment: the network of the seed, before its first step."""
    torch.manual_seed(RECORD["training"]["seed"])
    model = build_model("ssd_tiny", RECORD["classes"])
    found = model.predict([DATASET[i][0] for i in RECORD["scenes"]], min_score=0.1, top_k=200)
    for rows, each in zip(RECORD["checkpoints"][0]["detections"], found, strict=True):
        assert len(rows) == RECORD["most"]
        for *box, score, label in rows:
            near = (each["boxes"] - torch.tensor(box)).abs().amax(dim=1) < 0.2
            near &= ((each["scores"] - score).abs() < 2e-3) & (each["labels"] == label)
            assert near.any()


def test_record_is_of_one_run_to_the_end() -> None:
    steps = [each["step"] for each in RECORD["checkpoints"]]
    assert (len(steps), steps[0], steps[-1]) == (12, 0, RECORD["training"]["iterations"])
    assert RECORD["curve"]["step"] == list(range(20, 2301, 20))
    assert "+changes" not in RECORD["commit"]
    for each in RECORD["checkpoints"]:
        assert each["mAP"] == pytest.approx(sum(each["AP"].values()) / 6, abs=1e-4)
    assert len(TrainingPlayer(RECORD).to_html()) < 80_000


def outcomes(rows: list[list[float]], number: int, outcome: int) -> int:
    """How many of recorded detections of a scene have this outcome, by the library."""
    table = torch.tensor(rows).reshape(-1, 6)
    found = {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].long()}
    target = DATASET.target(number)
    target["labels"] = torch.cat([target["labels"], torch.arange(1, 7)])  # classes that the scene lacks count, too
    target["boxes"] = torch.cat([target["boxes"], torch.full((6, 4), 9000.0) + torch.tensor([0, 0, 1, 1])])
    target["difficult"] = torch.cat([target["difficult"], torch.zeros(6, dtype=torch.bool)])
    curves = evaluate([found], [target], 7).curves.values()
    return sum(int((curve.outcome == outcome).sum()) for curve in curves)


@pytest.mark.parametrize("min_score", [0.1, 0.3, 0.5, 0.9])
def test_hits_are_those_of_the_library(min_score: float) -> None:
    player = TrainingPlayer(RECORD, min_score=min_score)
    hits = false = 0
    for checkpoint, each in enumerate(RECORD["checkpoints"]):
        player.checkpoint = checkpoint
        for scene, (number, rows) in enumerate(zip(RECORD["scenes"], each["detections"], strict=True)):
            above = [row for row in rows if row[4] >= min_score]
            shown = player.shown(scene)
            assert sorted(row[:6] for row in shown) == sorted(above)
            assert sum(row[6] >= 0 for row in shown) == outcomes(above, number, TRUE_POSITIVE)
            assert sum(row[6] == FALSE for row in shown) == outcomes(above, number, FALSE_POSITIVE)
            found = [row[6] for row in shown if row[6] >= 0]
            assert len(set(found)) == len(found)  # each object once
            assert all(DATASET.target(number)["labels"][int(row[6])] == row[5] for row in shown if row[6] >= 0)
            hits += len(found)
            false += sum(row[6] == FALSE for row in shown)
    assert hits > 10
    assert false > 0 or min_score > 0.4


def test_each_detection_gets_its_object() -> None:
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]),
        "labels": torch.tensor([1, 1, 2]),
        "difficult": torch.tensor([False, False, True]),
    }
    rows = [
        [20, 0, 30, 9, 0.4, 1],
        [0, 0, 10, 10, 0.9, 1],
        [0, 0, 10, 9, 0.8, 1],  # a second time
        [20, 0, 30, 10, 0.7, 2],  # of another class
        [40, 0, 50, 10, 0.6, 2],  # difficult
        [60, 0, 70, 10, 0.5, 3],  # of a class without an object
    ]
    assert [row[6] for row in judged(rows, target, 4)] == [0, FALSE, FALSE, APART, FALSE, 1]
    assert judged([], target, 4) == []


def broken(change: Any) -> dict[str, Any]:
    record = copy.deepcopy(RECORD)
    change(record)
    return record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r.pop("curve"), r.pop("scenes")), "no record of checkpoints: it lacks curve, scenes"),
        (lambda r: r["checkpoints"].reverse(), r"steps that rise; got \[2300, 2000"),
        (lambda r: r.update(checkpoints=[]), r"steps that rise; got \[\]"),
        (lambda r: r["curve"]["confidence"].pop(), "as many values of each loss as steps"),
        (lambda r: r.update(scenes=[28, 32]), "numbers of the sample's test images; got 32"),
        (lambda r: r.update(scenes=[28]), "step 0 has detections of 2 scenes, not of 1"),
        (lambda r: r["checkpoints"][1]["detections"][0].append([0, 0, 1, 1, 0.5, 7]), r"got \[0, 0, 1, 1, 0.5, 7\]"),
        (lambda r: r["checkpoints"][1]["detections"][0].append([0, 0, float("nan"), 1, 0.5, 1]), "got .*nan"),
    ],
)
def test_records_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingPlayer(broken(change))


@pytest.mark.parametrize(
    ("trait", "value", "message"),
    [
        ("checkpoint", 12, "checkpoint must be 0 to 11; got 12"),
        ("checkpoint", -1, "checkpoint must be 0 to 11"),
        ("min_score", 0.05, r"min_score must be 0.1 \(the record has no lower ones\) to 1"),
        ("min_score", float("nan"), "finite"),
        ("run", {}, "read-only"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(trait: str, value: object, message: str) -> None:
    player = TrainingPlayer(RECORD)
    before = player.state()
    with pytest.raises(TraitError, match=message):
        setattr(player, trait, value)
    assert player.state() == before


def test_words_for_those_who_do_not_see_it() -> None:
    text = TrainingPlayer(RECORD, checkpoint=11).describe()
    assert "localization from 3.6 to" in text
    assert "At step 2300 the mAP is 0.92" in text
    assert "the detector finds 9 of the 10 objects of 2 scenes, with 1 false detection." in text


def test_what_the_chapter_says_is_seen() -> None:
    """At the fourth checkpoint, down to a score of 0.2, the boxes are near objects and most are called donut."""
    player = TrainingPlayer(RECORD, checkpoint=3, min_score=0.2)
    rows = [(row, RECORD["scenes"][scene]) for scene in (0, 1) for row in player.shown(scene)]
    donuts = [row for row, _ in rows if RECORD["classes"][int(row[5]) - 1] == "donut"]
    assert len(donuts) > 0.7 * len(rows)
    near = [iou(torch.tensor([row[:4]]), DATASET.target(number)["boxes"]).max() for row, number in rows]
    assert sum(overlap > 0.5 for overlap in near) > 0.7 * len(rows)
    assert all(row[4] < 0.15 for scene in TrainingPlayer(RECORD).run["scenes"] for row in scene["found"][0])


BOXES = """() => [...document.querySelectorAll('.ssd-scenes .ssd-stage')].map(stage =>
    [...stage.querySelectorAll('.ssd-box:not(.ssd-nms-rim):not(.ssd-missed)')].map(box => [
        ...['x', 'y', 'width', 'height'].map(name => Number(box.getAttribute(name))),
        Number(box.parentNode.dataset.link.slice(1)), box.classList.contains('ssd-true-box'),
    ]))"""


@pytest.mark.browser
def test_the_page_draws_what_python_has(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD))
    drawn = 0
    for checkpoint, min_score in [(0, 0.3), (0, 0.1), (4, 0.3), (6, 0.5), (8, 0.1), (11, 0.3)]:
        player = TrainingPlayer(RECORD, checkpoint=checkpoint, min_score=min_score)
        set_state(page, "checkpoint", checkpoint)
        set_state(page, "min_score", min_score)
        for scene, boxes in enumerate(page.evaluate(BOXES)):
            rows = player.shown(scene)
            expected = [[x0, y0, x1 - x0, y1 - y0, label, object_ >= 0] for x0, y0, x1, y1, _, label, object_ in rows]
            assert len(boxes) == len(expected)
            for box, row in zip(boxes, reversed(expected), strict=True):
                assert box[:4] == pytest.approx(row[:4], abs=1e-6)
                assert box[4:] == row[4:]
            missed = page.locator(".ssd-scenes .ssd-stage").nth(scene).locator(".ssd-missed:not(.ssd-nms-rim)").count()
            hits = sum(row[6] >= 0 for row in rows)
            assert missed == sum(~DATASET.target(RECORD["scenes"][scene])["difficult"]).item() - hits
            drawn += len(boxes)
        end = player.describe().rpartition("the detector finds ")[2]
        hits, false = end.split()[0], end.rpartition("with ")[2].split()[0]
        page.wait_for_function(
            "(text) => document.querySelector('[role=status]').textContent.includes(text)",
            arg=f"Found in the scenes: {hits} of 10 objects, and {false} false detection",
        )
        mean = page.locator(".ssd-panel .ssd-big").inner_text()
        assert mean == f"{RECORD['checkpoints'][checkpoint]['mAP']:.2f}"
    assert drawn > 60


@pytest.mark.browser
def test_curves_are_those_of_the_record(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD, checkpoint=5))
    there = page.evaluate(
        """() => [...document.querySelectorAll('.ssd-curve, .ssd-map-line')].map(path =>
            path.getAttribute('d').slice(1).split('L').map(point => point.split(' ').map(Number)))"""
    )
    curve, checkpoints = RECORD["curve"], RECORD["checkpoints"]
    (x0, bottom), (x1, top) = there[4][0], there[4][-1]  # the mAP: from step 0 and mAP 0 to the last step
    top = bottom + (top - bottom) / checkpoints[-1]["mAP"]  # mAP 1, and the loss 20
    for number, loss in enumerate(LOSSES):
        whole, past = there[2 * number], there[2 * number + 1]
        for (x, y), step, value in zip(whole, curve["step"], curve[loss], strict=True):
            assert x == pytest.approx(x0 + (x1 - x0) * step / 2300, abs=0.01)
            assert y == pytest.approx(bottom + (top - bottom) * value / 20, abs=0.02)
        assert past == whole[: 540 // 20]  # up to step 550
    bars = page.eval_on_selector_all(".ssd-bar i", "all => all.map(i => parseFloat(i.style.width) / 100)")
    assert bars == pytest.approx([*checkpoints[5]["AP"].values()])


@pytest.mark.browser
def test_checkpoints_by_key(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD))
    assert state_of(page, "checkpoint") == 0
    assert "checkpoint 1 of 12" in page.locator(".ssd-player").inner_text()
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.focus()
    for key, expected in [("ArrowRight", 1), ("ArrowUp", 2), ("ArrowLeft", 1), ("End", 11), ("ArrowRight", 11)]:
        page.keyboard.press(key)
        assert state_of(page, "checkpoint") == expected
    assert slider.get_attribute("aria-valuetext") == "12, step 2,300, mAP 0.92"
    assert slider.get_attribute("aria-valuenow") == "12"
    page.keyboard.press("Home")
    forward = page.get_by_role("button", name="one step forward")
    for _ in range(14):
        forward.press("Enter")
    assert state_of(page, "checkpoint") == 11
    assert forward.evaluate("button => button === document.activeElement")
    page.get_by_role("slider", name="Lowest score shown").focus()
    page.keyboard.press("ArrowRight")
    assert state_of(page, "min_score") == 0.35


@pytest.mark.browser
def test_a_class_lights_up_its_boxes(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD, checkpoint=9))
    page.locator("tr[data-link=c3]").hover()
    dim = "all => all.map(e => getComputedStyle(e).opacity)"
    assert set(page.eval_on_selector_all(".ssd-scenes [data-link=c3]", dim)) == {"1"}
    assert set(page.eval_on_selector_all(".ssd-scenes [data-link=c5]", dim)) == {"0.3"}


def finger(page: Page, points: list[tuple[float, float]]) -> None:
    touch = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
    for kind, (x, y) in zip(kinds, points, strict=True):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.browser
def test_a_finger_scrubs_across_and_scrolls_down(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD), width=390, height=600, has_touch=True, is_mobile=True)
    frame = page.locator(".ssd-stage").first.bounding_box()
    assert frame
    across = [frame["x"] + frame["width"] * k / 20 for k in range(3, 19)]
    middle = frame["y"] + frame["height"] / 2
    finger(page, [(x, middle) for x in across])
    assert state_of(page, "checkpoint") == 11
    assert page.evaluate("scrollY") == 0
    page.touchscreen.tap(across[4], middle)
    assert 3 < state_of(page, "checkpoint") < 8
    finger(page, [(across[8], middle - 12 * k) for k in range(12)])
    page.wait_for_function("scrollY > 40")


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str) -> None:
    page = show(TrainingPlayer(RECORD, checkpoint=6), theme=theme)
    assert violations(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 688, 1366])
def test_the_height_stays_and_names_are_not_cut(show: OpenPage, width: int) -> None:
    page = show(TrainingPlayer(RECORD, min_score=0.2), width=width, height=657, has_touch=width < 500)
    heights = set()
    for checkpoint in (0, 3, 5, 7, 11):
        set_state(page, "checkpoint", checkpoint)
        page.wait_for_timeout(270)  # the sentence
        heights.add(page.locator(".ssd-widget").evaluate("w => w.getBoundingClientRect().height"))
        cut = page.evaluate(
            """() => [...document.querySelectorAll('.ssd-scenes .ssd-tag')].filter(tag => {
                const [inner, outer] = [tag, tag.closest('.ssd-stage')].map(e => e.getBoundingClientRect());
                return inner.right > outer.right + 4 || inner.left < outer.left - 4 || inner.top < outer.top - 1;
            }).map(tag => tag.textContent)"""
        )
        assert cut == []
    assert len(heights) == 1


@pytest.mark.browser
def test_nothing_is_spoken_while_it_plays(show: OpenPage) -> None:
    page = show(TrainingPlayer(RECORD, checkpoint=9))
    play = page.get_by_role("button", name="Play", exact=True)
    play.click()
    assert page.locator("[role=status]").get_attribute("aria-live") == "off"
    page.wait_for_function("document.querySelector('.ssd-widget-place').model.get('checkpoint') === 11", timeout=9000)
    page.wait_for_function("document.querySelector('[role=status]').ariaLive === 'polite'")


@pytest.mark.browser
def test_titles_stay_texts(show: OpenPage) -> None:
    record = broken(lambda r: r.update(classes=["<b>ball</b>", *r["classes"][1:]]))
    with pytest.raises(ValueError, match="ball"):  # the sample's classes have other names
        show(TrainingPlayer(record))
    page = show(TrainingPlayer(RECORD, title="<img src=x onerror=alert(1)>"))
    assert page.locator(".ssd-widget img").count() == 0
