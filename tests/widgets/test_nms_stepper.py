"""NmsStepper: its rounds are those of ssdlib.nms, in Python and on the page, and it works by mouse and by keyboard."""

from __future__ import annotations

import doctest

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from torch import Tensor
from traitlets import TraitError

from ssdlib.boxes import iou
from ssdlib.data import VOCDataset, sample_root
from ssdlib.nms import nms
from ssdlib.widgets import NmsStepper, nms_stepper
from ssdlib.widgets.base import image_url, read_static
from ssdlib.widgets.nms_stepper import find_candidates
from ssdlib.zoo.checkpoint import demo_model

EVIL = "<img src=x onerror=alert(1)>"
CLASSES = ["ball", EVIL]
PLAIN = image_url(torch.full((3, 100, 100), 200, dtype=torch.uint8))
FUNCTIONS = f"{read_static('maths.mjs')}\n{read_static('nms_stepper.mjs').split('export default')[0]}"


def made_up(**traits: object) -> NmsStepper:
    """Five balls of which two pairs overlap (by 0.6 and by exactly 0.5), and one candidate of another class."""
    boxes = [[0, 0, 20, 20], [0, 0, 20, 12], [50, 50, 70, 70], [50, 50, 60, 70], [80, 80, 90, 90], [0, 0, 20, 20]]
    given_ = {"boxes": boxes, "labels": [1, 1, 1, 1, 1, 2], "scores": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]}
    return NmsStepper(PLAIN, **{"classes": CLASSES, **given_, **traits})


def random_candidates(count: int, classes: int, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on a coarse grid and scores of few values: many ties, overlaps of exactly a threshold, empty boxes."""
    corners = torch.randint(0, grid + 1, (count, 2, 2)).sort(dim=1).values.flatten(1)
    return corners.double() * 10, torch.randint(1, classes + 1, (count,)), torch.randint(5, 100, (count,)) / 100.0


def plain_rounds(stepper: NmsStepper, groups: list[list[int]]) -> list[tuple[int, dict[int, float]]]:
    """The rounds by a loop over pairs."""
    boxes = torch.tensor(stepper.boxes, dtype=torch.float64)
    rounds, overlaps = [], iou(boxes, boxes)
    for group in groups:
        waiting = [
            i
            for i, (label, score) in enumerate(zip(stepper.labels, stepper.scores, strict=True))
            if label in group and score >= stepper.min_score
        ]
        waiting.sort(key=lambda i: -stepper.scores[i])
        while waiting:
            best, *rest = waiting
            overlap = {i: float(overlaps[best, i]) for i in rest}
            rounds.append((best, {i: value for i, value in overlap.items() if value > stepper.max_overlap}))
            waiting = [i for i in rest if i not in rounds[-1][1]]
    return rounds


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.25, 0.45, 0.5, 1.0]), st.sampled_from([0.05, 0.3, 0.9]))
def test_rounds_are_those_of_nms(seed: int, max_overlap: float, min_score: float) -> None:
    torch.manual_seed(seed)
    boxes, labels, scores = random_candidates(24, 2, 4)
    stepper = made_up(boxes=boxes, labels=labels, scores=scores, max_overlap=max_overlap, min_score=min_score)
    assert stepper.rounds == plain_rounds(stepper, [[1], [2]])
    passed = scores >= min_score - 1e-6
    by_class = [(passed & (labels == label)).nonzero().squeeze(1) for label in (1, 2)]
    expected = torch.cat([rows[nms(boxes[rows], scores[rows], max_overlap)] for rows in by_class])
    assert stepper.kept == expected.tolist()
    stepper.together = True
    rows = passed.nonzero().squeeze(1)
    assert stepper.kept == rows[nms(boxes[rows], scores[rows], max_overlap)].tolist()
    assert stepper.rounds == plain_rounds(stepper, [[1, 2]])


def test_an_overlap_of_exactly_the_limit_is_allowed() -> None:
    stepper = made_up(label=1, max_overlap=0.5)
    assert stepper.kept == [0, 2, 3, 4]
    assert stepper.rounds[0] == (0, {1: pytest.approx(0.6)})
    stepper.max_overlap = 0.49
    assert stepper.kept == [0, 2, 4]


def test_the_default_holds_what_the_network_says() -> None:
    dataset = VOCDataset(sample_root(), "test")
    found = find_candidates(demo_model(), dataset[31][0])
    stepper = NmsStepper()
    torch.testing.assert_close(torch.tensor(stepper.boxes), found["boxes"], atol=0.06, rtol=0)
    torch.testing.assert_close(torch.tensor(stepper.scores), found["scores"], atol=6e-4, rtol=0)
    assert stepper.labels == found["labels"].tolist()
    assert stepper.scores == sorted(stepper.scores, reverse=True)
    assert stepper.classes == list(dataset.classes)
    again = NmsStepper.from_model(demo_model(), dataset[31][0])
    assert (again.boxes, again.kept) == (stepper.boxes, stepper.kept)
    # The same detections as the library's, which rounds nothing.
    detections = demo_model().predict([dataset[31][0]], min_score=0.05)[0]
    assert sorted(stepper.labels[i] for i in stepper.kept) == sorted(detections["labels"].tolist())


def test_candidates_are_limited_to_the_best() -> None:
    image = VOCDataset(sample_root(), "test")[31][0]
    assert len(find_candidates(demo_model(), image, least_score=0.0, most=7)["scores"]) == 7


def test_state_is_small_and_says_that_it_comes_from_a_network() -> None:
    text = NmsStepper().to_html()
    assert len(text) < 60_000
    assert "data-from=network" in text


def test_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(nms_stepper).failed == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min_score", 0.01, "min_score must be a number from 0.05 to 1; got 0.01"),
        ("min_score", float("nan"), "min_score must be made of finite numbers"),
        ("max_overlap", 1.5, "max_overlap must be a number from 0 to 1; got 1.5"),
        ("label", 3, "label must be 0 .* to 2; got 3"),
        ("step", 7, "step must be 0 to 5; got 7"),
        ("step", -1, "step must be 0 to 5; got -1"),
        ("candidate", 6, "candidate must be -1 .* to 5; got 6"),
        ("scores", [0.5], "equally many"),
        ("labels", [1, 1, 1, 1, 1, 3], "label 3 has no name"),
        ("boxes", [[0, 0, 1, float("inf")]] * 6, "finite"),
        ("boxes", [[0, 0, 1]] * 6, "boxes"),
    ],
)
def test_bad_values_are_refused_at_once(name: str, value: object, message: str) -> None:
    stepper = made_up()
    before = getattr(stepper, name)
    with pytest.raises(TraitError, match=message):
        setattr(stepper, name, value)
    assert getattr(stepper, name) == before


def test_fewer_rounds_take_the_step_along() -> None:
    stepper = made_up()
    stepper.step = stepper.last_step
    stepper.min_score = 0.85
    assert (stepper.kept, stepper.step) == ([0], 2)
    assert "of which NMS keeps 1" in stepper.describe()
    stepper.min_score = 1.0
    assert (stepper.kept, stepper.step) == ([], 1)
    assert "0 candidates" in stepper.describe()
    assert "<svg" not in stepper.to_html()  # and the picture of nothing can be drawn


@pytest.mark.browser
def test_the_page_computes_the_same_rounds(open_page: OpenPage) -> None:
    page = open_page("about:blank#//")
    tries, expected = [], []
    for number in range(48):
        boxes, labels, scores = random_candidates(5 + number, 3, 3 + number % 9)
        if number % 2:
            boxes = boxes + torch.rand(boxes.shape).double().sort(dim=1).values
        max_overlap = [0.0, 0.25, 0.5, 1 / 3, 0.45, 1.0][number % 6]
        stepper = made_up(
            classes=["a", "b", "c"],
            boxes=boxes,
            labels=labels,
            scores=scores,
            max_overlap=max_overlap,
            min_score=[0.05, 0.3, 0.77][number % 3],
            label=number % 4,
            together=number % 8 == 0,
        )
        tries.append(stepper.state())
        # The traits as they are: the state is rounded to six digits, which 1 / 3 does not survive.
        tries[-1]["max_overlap"] = stepper.max_overlap
        expected.append([[best, [[i, value] for i, value in lost.items()]] for best, lost in stepper.rounds])
    there = page.evaluate(
        """([source, tries]) => {
            const { nmsRounds, nmsGroups } = new Function(source + "; return { nmsRounds, nmsGroups }")();
            const pairs = (lost) => lost.map((one) => [one.index, one.overlap]).sort(([i], [j]) => i - j);
            return tries.map((t) =>
                nmsRounds(t, nmsGroups(t.labels, t.label, t.together), t.min_score, t.max_overlap)
                    .map(({ best, lost }) => [best, pairs(lost)]));
        }""",
        [FUNCTIONS, tries],
    )
    assert sum(map(len, expected)) > 300
    assert there == expected


def rows(page: Page) -> list[list[str]]:
    return page.eval_on_selector_all(
        ".ssd-nms-table tbody tr", "all => all.map(r => [...r.cells].map(c => c.textContent))"
    )


@pytest.mark.browser
def test_stepping_by_mouse_and_from_python(show: OpenPage) -> None:
    page = show(made_up(label=1))
    assert {row[4] for row in rows(page)} == {"waiting"}
    page.get_by_role("button", name="one step forward").click()
    assert state_of(page, "step") == 1
    assert [row[4] for row in rows(page)] == ["kept, round 1", "suppressed by 0", "waiting", "waiting", "waiting"]
    assert rows(page)[1][3] == "0.60"
    page.get_by_text("It suppresses 1, whose IoU with it (0.60) is above 0.45.").wait_for()
    set_state(page, "step", 4)
    assert [row[4] for row in rows(page)].count("suppressed by 2") == 1
    page.get_by_text("Done: NMS keeps 3 of 5 candidates.").wait_for()
    assert page.locator(".ssd-stage .ssd-tag").all_text_contents() == ["ball 0.90", "ball 0.70", "ball 0.50"]
    set_state(page, "max_overlap", 0.5)
    set_state(page, "step", 5)
    page.get_by_text("Done: NMS keeps 4 of 5 candidates.").wait_for()
    page.get_by_label("lowest score").fill("0.85")
    assert state_of(page, "step") == 2  # there is one round left
    page.get_by_text("Done: NMS keeps 1 of 1 candidates.").wait_for()
    page.get_by_label("lowest score").fill("0.95")
    page.get_by_text("No candidate has a score of at least 0.95.").wait_for()


@pytest.mark.browser
def test_classes_by_themselves_or_together(show: OpenPage) -> None:
    page = show(made_up())
    page.get_by_label("all classes in one NMS").check()
    assert state_of(page, "together") is True
    set_state(page, "step", 1)
    assert [row[4] for row in rows(page)].count("suppressed by 0") == 2  # the other class's box too
    page.get_by_label("Candidates of").select_option("ball")
    assert (state_of(page, "label"), state_of(page, "step")) == (1, 0)
    assert not page.get_by_label("all classes in one NMS").is_visible()
    assert len(rows(page)) == 5


@pytest.mark.browser
def test_keyboard_alone_is_enough(show: OpenPage) -> None:
    page = show(made_up(label=1))
    for _ in range(4):
        page.keyboard.press("Tab")
    assert "forward" in (page.locator(":focus").get_attribute("aria-label") or "")
    page.keyboard.press("Enter")
    assert state_of(page, "step") == 1
    page.get_by_label("lowest score").focus()
    page.keyboard.press("ArrowRight")
    assert state_of(page, "min_score") == 0.06
    limit = page.get_by_role("slider", name="allowed IoU")
    limit.press("ArrowRight")
    limit.press("Control+ArrowRight")
    assert state_of(page, "max_overlap") == 0.56
    assert limit.get_attribute("aria-valuetext") == "0.56"
    page.locator(".ssd-nms-table tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert state_of(page, "candidate") == 1
    assert page.locator(":focus").inner_text().startswith("1")  # the rows are new, and the focus is where it was
    assert page.locator(".ssd-stage .ssd-tag").all_text_contents().count("ball 0.80") == 1


@pytest.mark.browser
def test_the_line_of_the_plot_is_dragged(show: OpenPage) -> None:
    page = show(made_up(label=1, step=1))
    knob = page.locator(".ssd-nms-knob").bounding_box()
    zone = page.locator(".ssd-nms-zone").bounding_box()
    assert knob
    assert zone
    whole = zone["width"] / 0.55  # the zone begins at 0.45
    x, y = knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.2 * whole, y + 30, steps=4)
    page.mouse.up()
    assert state_of(page, "max_overlap") == pytest.approx(0.65, abs=0.011)
    assert "suppressed by 0" not in [row[4] for row in rows(page)]
    page.mouse.move(x, y)
    assert state_of(page, "max_overlap") == pytest.approx(0.65, abs=0.011)


@pytest.mark.browser
def test_row_box_and_dot_are_one_and_name_the_suppressor(show: OpenPage) -> None:
    page = show(made_up(label=1, step=1))
    mark = page.locator(".ssd-nms-by")
    assert not mark.is_visible()
    line = page.locator(".ssd-nms-table tbody tr").nth(1)  # suppressed by 0
    line.hover()
    linked = page.eval_on_selector_all(".ssd-linked", "all => all.map(e => e.tagName + e.dataset.link)")
    wanted = {f"{tag}{link}" for tag in ("TR", "g", "path", "rect") for link in ("c0", "c1")}
    assert set(linked) == wanted
    assert mark.is_visible()
    assert "0 suppresses 1, IoU 0.60" in page.locator(".ssd-stage .ssd-tag").all_text_contents()
    page.get_by_label("lowest score").hover()
    assert not mark.is_visible()
    page.locator(".ssd-nms-plot [data-link=c1]").hover()
    assert line.evaluate("e => e.matches('.ssd-linked')")
    page.locator(".ssd-nms-plot [data-link=c1]").click()
    assert state_of(page, "candidate") == 1


@pytest.mark.browser
def test_playing_walks_to_the_end_and_stops(show: OpenPage) -> None:
    page = show(made_up(label=1, min_score=0.65))
    page.clock.install()
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(6000)
    assert state_of(page, "step") == 3
    assert page.get_by_role("button", name="Play").is_visible()


@pytest.mark.browser
def test_names_stay_text(show: OpenPage) -> None:
    page = show(made_up(step=5), NmsStepper(PLAIN, classes=[EVIL]))
    assert page.locator(".ssd-widget img").count() == 0
    assert any(EVIL in row[1] for row in rows(page))


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str) -> None:
    assert violations(show(NmsStepper(step=2), theme=theme)) == []


@pytest.mark.browser
def test_fits_a_phone(show: OpenPage) -> None:
    page = show(NmsStepper(step=1), width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sizes = page.eval_on_selector_all(
        "button, select, input[type=range], .ssd-options input",
        "all => all.map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])",
    )
    assert len(sizes) == 8
    assert all(side >= 43.9 for size in sizes for side in size)
