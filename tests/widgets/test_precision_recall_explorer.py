"""PrecisionRecallExplorer: its numbers are those of ssdlib.metrics at every threshold, in Python and on the page."""

from __future__ import annotations

import doctest
import math
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from support.voc_folder import object_xml, write_image, write_voc
from traitlets import TraitError

from ssdlib.data import VOCDataset, sample_root
from ssdlib.metrics import average_precision, evaluate, recall_precision
from ssdlib.widgets import PrecisionRecallExplorer, precision_recall_explorer
from ssdlib.widgets.base import open_url, read_static
from ssdlib.widgets.precision_recall_explorer import COLUMNS, PICTURES, TILE, why_false
from ssdlib.zoo.checkpoint import demo_model

EVIL = "<img src=x onerror=alert(1)>"
FUNCTIONS = f"{read_static('maths.mjs')}\n{read_static('precision_recall_explorer.mjs').split('export default')[0]}"
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


def made_up(folder: Path, **traits: object) -> PrecisionRecallExplorer:
    """Six detections of one class, with every outcome and every reason; another class that is never detected."""
    objects = {
        "a": [object_xml(escape(EVIL), 1, 1, 20, 20), object_xml("leaf", 21, 11, 40, 30)],
        "b": [object_xml(escape(EVIL), 1, 1, 20, 20, difficult=1)],
    }
    if not (folder / "Annotations").exists():
        write_voc(folder, {"test": ["a", "b", "c"]}, objects)
        picture = Image.new("RGB", (40, 30))
        picture.paste((255, 255, 255), (30, 0, 40, 8))
        write_image(folder, "a.png", image=picture)
    boxes = [[0, 0, 20, 20], [0, 0, 20, 18], [20, 10, 40, 30], [0, 0, 20, 6], [30, 0, 40, 8]]
    found = {
        "boxes": torch.tensor(boxes).float(),
        "labels": torch.ones(5, dtype=torch.int64),
        "scores": torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
    }
    ignored = {"boxes": found["boxes"][:1], "labels": torch.tensor([1]), "scores": torch.tensor([0.75])}
    return PrecisionRecallExplorer(VOCDataset(folder, "test"), [found, ignored, NOTHING], **traits)


@pytest.fixture(scope="module")
def explorer() -> PrecisionRecallExplorer:
    return PrecisionRecallExplorer()


def test_numbers_are_those_of_evaluate_at_every_threshold(explorer: PrecisionRecallExplorer) -> None:
    dataset = VOCDataset(sample_root(), "test")
    targets = [dataset.target(i) for i in range(len(dataset))]
    detections = demo_model().predict([dataset[i][0] for i in range(len(dataset))])
    for iou_threshold in (0.5, 0.75):
        for min_score in (0.0, *(k / 100 for k in range(1, 100, 7)), 0.123, 0.99, 1.0):
            cut = [{key: value[one["scores"] >= min_score] for key, value in one.items()} for one in detections]
            result = evaluate(cut, targets, 7, iou_threshold)
            for label, curve in result.curves.items():
                with explorer.hold_trait_notifications():
                    explorer.label, explorer.iou_threshold, explorer.min_score = label, iou_threshold, min_score
                assert explorer.recall == (curve.recall[-1] if len(curve.recall) else 0)
                if len(curve.recall):
                    assert explorer.precision == curve.precision[-1]
                else:
                    assert math.isnan(explorer.precision)
                for ap in ("area", "11point"):
                    explorer.ap = ap
                    assert explorer.average_precision_above == average_precision(curve.recall, curve.precision, ap)
    for ap in ("area", "11point"):
        for iou_threshold in (0.5, 0.75):
            result = evaluate(detections, targets, 7, iou_threshold, ap)
            shown = explorer.averages[str(iou_threshold)][ap]
            assert shown == pytest.approx({**{str(k): v for k, v in result.per_class.items()}, "mean": result.mean})


def test_every_outcome_and_every_reason(tmp_path: Path) -> None:
    explorer = made_up(tmp_path, min_score=0.0)
    assert explorer.curves["1"] == {
        "scores": [900, 800, 750, 700, 600, 500],
        "objects": 1,
        "outcomes": {"0.5": "+-o---", "0.75": "+-o---"},
    }
    assert explorer.curves["2"] == {"scores": [], "objects": 1, "outcomes": {"0.5": "", "0.75": ""}}
    found = explorer.false_positives
    assert [one["why"] for one in found] == ["duplicate", "wrong class", "badly placed", "background"]
    assert {one["image"] for one in found} == {"a.png"}
    explorer.min_score = 0.65
    assert [one["score"] for one in explorer.false_positives] == [0.8, 0.7]
    assert (explorer.recall, explorer.precision) == (1.0, 1 / 3)
    assert "recall is 1.00 and precision 0.33" in explorer.describe()
    explorer.min_score = 0.95
    assert "precision undefined" in explorer.describe()
    explorer.label = 2
    assert (explorer.recall, explorer.average_precision) == (0.0, 0.0)
    explorer.to_html()  # the picture of an empty curve can be drawn


@pytest.mark.parametrize(
    ("overlap", "threshold", "objects", "why"),
    [
        (0.5, 0.5, [[0, 0, 10, 10]], "duplicate"),
        (0.5, 0.75, [[0, 0, 10, 10]], "badly placed"),
        (0.1, 0.5, [[0, 0, 10, 10]], "badly placed"),
        (0.09, 0.5, [[0, 0, 10, 5]], "wrong class"),
        (0.0, 0.5, [[0, 0, 10, 4.9]], "background"),
        (0.0, 0.5, [], "background"),
    ],
)
def test_reasons_change_at_their_limits(overlap: float, threshold: float, objects: list[list[float]], why: str) -> None:
    target = {"boxes": torch.tensor(objects).reshape(-1, 4)}
    assert why_false(torch.tensor([0.0, 0.0, 10.0, 10.0]), overlap, target, threshold) == why


def test_pictures_show_the_place_of_the_box(tmp_path: Path) -> None:
    explorer = made_up(tmp_path)
    entry = next(one for one in explorer.errors if one["why"]["0.5"] == "background")
    left, top = entry["tile"] % COLUMNS * TILE, entry["tile"] // COLUMNS * TILE
    pixels = np.asarray(open_url(explorer.sheet).convert("L"))[top : top + TILE, left : left + TILE].astype(float)
    x_min, y_min, x_max, y_max = (round(value) for value in entry["box"])
    inside = np.zeros((TILE, TILE), dtype=bool)
    inside[y_min:y_max, x_min:x_max] = True
    assert pixels[inside].mean() > 225
    assert pixels[~inside].mean() < 20
    assert entry["nearest"][0] == 2 if "nearest" in entry else entry["overlap"] == 0


def test_each_class_and_threshold_has_its_best_false_positives(explorer: PrecisionRecallExplorer) -> None:
    explorer.error, explorer.min_score = 0, 0.01
    for label in range(1, 7):
        for iou_threshold in (0.5, 0.75):
            with explorer.hold_trait_notifications():
                explorer.label, explorer.iou_threshold = label, iou_threshold
            outcomes = explorer.curves[str(label)]["outcomes"][str(iou_threshold)]
            ranks = [rank for rank, sign in enumerate(outcomes) if sign == "-"][:PICTURES]
            scores = [explorer.curves[str(label)]["scores"][rank] / 1000 for rank in ranks]
            assert [one["score"] for one in explorer.false_positives] == scores


def test_state_is_small_and_says_that_it_comes_from_a_network(explorer: PrecisionRecallExplorer) -> None:
    text = explorer.to_html()
    assert len(text) < 90_000
    assert "data-from=network" in text


def test_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(precision_recall_explorer).failed == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", 0, r"label must be one of those with objects, \[1, 2\]; got 0"),
        ("min_score", 1.1, "min_score must be a number from 0 to 1; got 1.1"),
        ("min_score", float("nan"), "min_score must be made of finite numbers"),
        ("iou_threshold", 0.6, "0.6"),
        ("ap", "mean", "mean"),
        ("error", 4, "error must be 0 to 3; got 4"),
        ("error", -1, "error must be 0 to 3; got -1"),
    ],
)
def test_bad_values_are_refused_at_once(tmp_path: Path, name: str, value: object, message: str) -> None:
    explorer = made_up(tmp_path, min_score=0.1)
    before = getattr(explorer, name)
    with pytest.raises(TraitError, match=message):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_fewer_false_positives_take_the_number_along(tmp_path: Path) -> None:
    explorer = made_up(tmp_path, min_score=0.1, error=3)
    explorer.min_score = 0.65
    assert explorer.error == 1
    explorer.label = 2
    assert explorer.error == 0


def test_a_set_without_objects_is_refused(tmp_path: Path) -> None:
    dataset = VOCDataset(write_voc(tmp_path, {"test": ["a"]}), "test", classes=["leaf"])
    with pytest.raises(ValueError, match="no class has an object"):
        PrecisionRecallExplorer(dataset, [NOTHING])


@pytest.mark.browser
def test_arithmetic_of_the_page_is_that_of_metrics(open_page: OpenPage) -> None:
    page = open_page("about:blank#//")
    tries, expected = [], []
    for number in range(200):
        outcome = torch.randint(-1, 2, (number % 30,)).numpy()
        objects = max(1, int((outcome == 1).sum()) + number % 7)
        recall, precision = recall_precision(outcome, objects)
        tries.append(["".join("o-+"[one + 1] for one in outcome), objects])
        expected.append(
            [
                *recall.tolist(),
                *precision.tolist(),
                average_precision(recall, precision, "area"),
                average_precision(recall, precision, "11point"),
            ]
        )
    there = page.evaluate(
        """([source, tries]) => {
            const { curveOf, averagePrecision } =
                new Function(source + "; return { curveOf, averagePrecision }")();
            return tries.map(([signs, objects]) => {
                const curve = curveOf(signs, objects);
                const columns = ["recall", "precision"].map((name) => curve.map((row) => row[name]));
                return [...columns.flat(), averagePrecision(curve, "area"), averagePrecision(curve, "11point")];
            });
        }""",
        [FUNCTIONS, tries],
    )
    for one, other in zip(there, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def numbers(page: Page) -> list[str]:
    return page.locator(".ssd-readout dd").all_text_contents()


@pytest.mark.browser
def test_the_page_shows_the_numbers_of_python(show: OpenPage, explorer: PrecisionRecallExplorer) -> None:
    page = show(explorer)
    for label in (1, 4, 6):
        for iou_threshold in (0.5, 0.75):
            for min_score in (0.01, 0.07, 0.29, 0.5, 0.58, 0.97, 0.99):
                ap = "11point" if label == 4 else "area"
                values = {"label": label, "iou_threshold": iou_threshold, "min_score": min_score, "ap": ap}
                with explorer.hold_trait_notifications():
                    for key, value in values.items():
                        setattr(explorer, key, value)
                for key, value in values.items():
                    set_state(page, key, value)
                recall, precision, whole, cut, mean = numbers(page)
                assert recall.endswith(f"= {explorer.recall:.2f}")
                if math.isnan(explorer.precision):
                    assert precision == "no detection"
                else:
                    assert float(precision.split("= ")[1]) == pytest.approx(explorer.precision, abs=0.00501)
                assert float(whole) == pytest.approx(explorer.average_precision, abs=0.000501)
                assert float(cut) == pytest.approx(explorer.average_precision_above, abs=0.000501)
                assert float(mean) == pytest.approx(explorer.averages[str(iou_threshold)][ap]["mean"], abs=0.000501)
                assert page.locator(".ssd-pr-choose").count() == len(explorer.false_positives)


@pytest.mark.browser
def test_slider_choices_and_pictures_by_mouse_and_keyboard(show: OpenPage, tmp_path: Path) -> None:
    page = show(made_up(tmp_path / "set", min_score=0.1))
    assert numbers(page)[:2] == ["1 of 1 objects = 1.00", "1 of 5 detections = 0.20"]
    names = [one.get_attribute("aria-label") or "" for one in page.locator(".ssd-pr-choose").all()]
    assert [name.split(": ")[1].split(",")[0] for name in names] == [
        "second box",
        "wrong class",
        "wrong place",
        "background",
    ]
    page.locator(".ssd-pr-choose").nth(1).click()
    assert state_of(page, "error") == 1
    assert "of the class leaf" in page.locator(".ssd-pr-large").inner_text()
    page.keyboard.press("Tab")  # from the chosen picture, which is a new element, to the next
    page.keyboard.press("Enter")
    assert state_of(page, "error") == 2
    assert "overlaps it by 0.30 only" in page.locator(".ssd-pr-large").inner_text()
    page.get_by_label("score threshold").fill("0.85")
    assert (state_of(page, "min_score"), state_of(page, "error")) == (0.85, 0)
    page.get_by_text("At a score of 0.85 the detector finds 1 of 1 objects").wait_for()
    assert page.locator(".ssd-pr-choose").count() == 0
    page.get_by_label("score threshold").press("ArrowLeft")
    assert state_of(page, "min_score") == 0.84
    page.get_by_label("0.75", exact=True).check()
    assert state_of(page, "iou_threshold") == 0.75
    page.get_by_label("11 points").check()
    assert page.locator(".ssd-pr-bar").count() == 11
    page.locator("select").select_option("leaf")
    assert numbers(page)[:2] == ["0 of 1 objects = 0.00", "no detection"]
    page.get_by_label("area (VOC").check()
    page.get_by_text("No detection has a score of 0.84").wait_for()


@pytest.mark.browser
def test_the_point_is_dragged_and_a_cross_opens_its_picture(show: OpenPage, explorer: PrecisionRecallExplorer) -> None:
    page = show(explorer)
    label = explorer.errors[0]["label"]
    for key, value in {"label": label, "iou_threshold": 0.5, "min_score": 0.1, "error": 0}.items():
        set_state(page, key, value)
    scores = explorer.curves[str(label)]["scores"]
    grip = page.get_by_role("slider", name="Point on the curve")
    count = int(grip.get_attribute("aria-valuenow") or 0)
    assert count == sum(score >= 100 for score in scores)
    grip.press("ArrowLeft")
    assert state_of(page, "min_score") == scores[count - 2] / 1000
    assert is_at(page, count - 1)
    knob, stage = page.locator(".ssd-pr-here").bounding_box(), page.locator(".ssd-stage").first.bounding_box()
    assert knob
    assert stage
    page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
    page.mouse.down()
    page.mouse.move(stage["x"] + 50, stage["y"] + 30, steps=6)  # upper left: few detections, and right ones
    page.mouse.up()
    few = state_of(page, "min_score")
    assert few * 1000 == pytest.approx(scores[0], abs=60)
    page.mouse.move(knob["x"], knob["y"])
    assert state_of(page, "min_score") == few
    set_state(page, "min_score", 0.05)
    crosses = page.locator(".ssd-pr-cross")
    last = crosses.count() - 1
    assert last >= 1
    crosses.nth(last).hover()
    assert page.locator(".ssd-pr-choose.ssd-linked").count() == 1
    crosses.nth(last).click()
    assert state_of(page, "error") == last


def is_at(page: Page, count: int) -> bool:
    return page.locator(".ssd-pr-grip").get_attribute("aria-valuenow") == str(count)


@pytest.mark.browser
def test_names_stay_text(show: OpenPage, tmp_path: Path) -> None:
    page = show(made_up(tmp_path / "set", min_score=0.1))
    assert page.locator(".ssd-widget img").count() == 0
    assert EVIL in page.locator(".ssd-pr-large").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(
    show: OpenPage, explorer: PrecisionRecallExplorer, theme: str
) -> None:
    page = show(explorer, theme=theme)
    set_state(page, "min_score", 0.1)
    assert page.locator(".ssd-pr-choose").count() > 0
    assert violations(page) == []


@pytest.mark.browser
def test_fits_a_phone(show: OpenPage, explorer: PrecisionRecallExplorer) -> None:
    page = show(explorer, width=360, height=740, has_touch=True)
    set_state(page, "min_score", 0.1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(
        "button, select, input[type=range], .ssd-options input",
        "all => all.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])",
    )
    assert len(sizes) > 8
    assert all(side >= 43.9 for size in sizes for side in size)
