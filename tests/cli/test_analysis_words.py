"""The sentences of `ssd analyse`: each is said where its numbers are, and not elsewhere."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.metric_cases import Case, cases
from torch import Tensor

from ssdlib.cli.analysis_words import advice, reading_of_scores, verdict
from ssdlib.engine.analysis import Analysis, analyse

CLASSES = ("cat", "dog", "cow")
CAT, DOG, COW = 1, 2, 3

Row = tuple[int, float, float, float]  # label, score (0 for an object), x, side


def image(rows: list[Row]) -> dict[str, Tensor]:
    """Squares in a row of places that are 100 pixels wide."""
    boxes = torch.tensor([[x, 0, x + side, side] for _, _, x, side in rows], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([label for label, *_ in rows], dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, "scores": torch.tensor([score for _, score, *_ in rows])}


def look(*scenes: tuple[list[Row], list[Row]], score: float = 0.3) -> Analysis:
    """The analysis of images, each with detections and objects, of 400 x 400 pixels."""
    return analyse(
        [image(found) for found, _ in scenes],
        [image(objects) for _, objects in scenes],
        [(400, 400)] * len(scenes),
        1 + len(CLASSES),
        score=score,
    )


def told(analysis: Analysis) -> tuple[str, str]:
    return verdict(analysis, CLASSES), "\n".join(advice(analysis, CLASSES, min_score=0.01, max_overlap=0.45))


CAT_THERE: Row = (CAT, 0.0, 0, 80)
CAT_FOUND: Row = (CAT, 0.9, 0, 80)
GOOD: tuple[list[Row], list[Row]] = ([CAT_FOUND], [CAT_THERE])


def test_a_perfect_detector() -> None:
    said, tried = told(look(*[GOOD] * 30))
    assert said == (
        "On 30 images with 30 objects, the mAP is 1.000 at an IoU of 0.5. No kind of error by itself costs as much as "
        "0.005 of it. With 30 objects, another set of images could move these figures by a tenth or more."
    )
    assert tried == ""


def test_more_objects_make_the_warning_smaller() -> None:
    assert "could move these figures by several hundredths" in told(look(*[GOOD] * 100))[0]


def test_many_objects_need_no_warning() -> None:
    said, tried = told(look(*[GOOD] * 500))
    assert said.endswith("costs as much as 0.005 of it.")
    assert tried.startswith("The scores: ")
    assert "another set" in told(look(*[GOOD] * 499))[0]


ONE_KIND = {
    "background": (
        [(CAT, 0.95, 200, 80), CAT_FOUND],
        "detections where nothing is labelled",
        "Background: of 20 errors",
    ),
    "class": ([(DOG, 0.9, 0, 80)], "detections with the wrong class", "Wrong class: of 20 errors"),
    "localization": ([(CAT, 0.9, 40, 80)], "boxes that fit badly", "Bad place: of 20 errors"),
    "duplicate": ([CAT_FOUND, (CAT, 0.91, 1, 80)], "duplicates", "Duplicates: of 20 errors"),
    "both": ([(DOG, 0.9, 40, 80)], "missed objects", "Missed objects: 20 objects in all"),  # the cat is missed
    "missed": ([], "missed objects", "Missed objects: 20 objects in all"),
}


@pytest.mark.parametrize("kind", ONE_KIND)
def test_the_kind_that_costs_most(kind: str) -> None:
    found, named, cure = ONE_KIND[kind]
    analysis = look(*[(found, [CAT_THERE])] * 20, *[GOOD] * 5)
    said, tried = told(analysis)
    assert f"What costs most are {named}: " in said
    mended, more = (float(number) for number in re.findall(r"would be (\d\.\d+), which is (\d\.\d+) more", said)[0])
    top = "missed" if kind == "both" else kind
    assert more == pytest.approx(analysis.costs[top], abs=6e-4) == max(analysis.costs.values())
    assert mended == pytest.approx(analysis.mean + analysis.costs[top], abs=6e-4)
    assert tried.startswith(cure)


def test_two_kinds_that_cost_the_same() -> None:
    said, tried = told(look(([], [CAT_THERE]), ([(DOG, 0.9, 0, 80)], [CAT_THERE]), *[GOOD] * 30))
    assert "No one kind of error stands out: " in said
    assert {line.partition(":")[0] for line in tried.splitlines()} >= {"Wrong class", "Missed objects"}


def test_the_next_kind_is_named_if_it_is_worth_it() -> None:
    few = look(*[([], [CAT_THERE])] * 10, ([(CAT, 0.9, 40, 80)], [CAT_THERE]), *[GOOD] * 10)
    assert "Next come boxes that fit badly, with 0." in told(few)[0]
    assert "Next come" not in told(look(*[([], [CAT_THERE])] * 10, *[GOOD] * 10))[0]


def test_a_cost_that_hangs_on_one_dog() -> None:
    """A class with one object weighs as much as a class with thirty: that is said."""
    dog = ([(COW, 0.9, 0, 80)], [(DOG, 0.0, 0, 80)])
    alarms = [([(CAT, 0.95, 200, 80), CAT_FOUND], [CAT_THERE])] * 10
    said, tried = told(look(dog, *alarms, *[GOOD] * 20))
    assert "What costs most are detections with the wrong class" in said
    assert (
        "Mind that more than half of the cost of detections with the wrong class comes from classes with fewer" in said
    )
    assert "most from dog, which has 1." in said
    assert (
        "If every object weighed the same, in place of every class, detections where nothing is labelled would" in said
    )
    assert [line.partition(":")[0] for line in tried.splitlines()][:2] == ["Background", "Wrong class"]
    dogs = [dog] * 30
    said, _ = told(look(*dogs, *alarms, *[GOOD] * 20))
    assert "Mind that" not in said
    assert "If every object" not in said


def test_the_pair_that_is_confused() -> None:
    _, tried = told(look(*[([(DOG, 0.9, 0, 80)], [CAT_THERE])] * 12, *[([(CAT, 0.9, 0, 80)], [(DOG, 0.0, 0, 80)])] * 3))
    assert "The most frequent: cat taken for dog, 12 times." in tried


def test_small_objects() -> None:
    small: Row = (CAT, 0.0, 300, 30)  # 30 / 400
    _, tried = told(look(*[([], [small])] * 15, *[([(CAT, 0.2, 300, 30)], [small])] * 5, *[GOOD] * 20))
    assert "Small objects are found less often: at any score, 25% are found of the 20 under a tenth" in tried
    assert "and 100% of the 20 over a fifth." in tried
    assert "Small objects" not in told(look(*[([], [small])] * 15, *[GOOD] * 20))[1]  # too few
    assert "Small objects" not in told(look(*[([], [CAT_THERE])] * 20, *[([(CAT, 0.2, 300, 30)], [small])] * 20))[1]


def test_a_lower_threshold() -> None:
    unsure = ([(CAT, 0.2, 0, 80), (CAT, 0.18, 200, 80)], [CAT_THERE])
    _, tried = told(look(*[unsure] * 10, *[GOOD] * 10))
    assert (
        "The threshold: at a score of 0.15, in place of 0.3, 10 more objects would be found, for 10 more false "
        "detections."
    ) in tried
    kept = advice(look(*[unsure] * 10, *[GOOD] * 10), CLASSES, min_score=0.19, max_overlap=0.45)
    assert any("at a score of 0.19, in place of 0.3, 10 more objects would be found, for 0 more" in one for one in kept)
    assert "The threshold" not in told(look(*[unsure] * 2, *[GOOD] * 30))[1]  # hardly more
    dear = ([(CAT, 0.2, 0, 80), *[(CAT, 0.18, x, 40.0) for x in (100, 200, 300, 350)]], [CAT_THERE])
    assert "The threshold" not in told(look(*[dear] * 10, *[GOOD] * 10))[1]  # four false ones for each


def test_the_weakest_class() -> None:
    dogs = [([], [(DOG, 0.0, 0, 80)])] * 25
    _, tried = told(look(*dogs, *[GOOD] * 25))
    assert "The weakest class: dog has an AP of 0.000, and missed objects cost it most (1.000)." in tried
    cow = ([], [(COW, 0.0, 0, 80)])
    _, tried = told(look(cow, *dogs, *[GOOD] * 25))
    assert "The weakest class, of those with 20 objects and more: dog has" in tried
    _, tried = told(look(cow, *[GOOD] * 5))
    assert "The weakest class: cow has" in tried
    assert "It has 1 object here: such an AP says little." in tried
    assert "The weakest class" not in told(look(*[GOOD] * 25))[1]


def test_scores_read_as_chances() -> None:
    wrong = ([(CAT, 0.9, 200, 80)], [CAT_THERE])
    analysis = look(*[wrong] * 15, *[GOOD] * 15)
    assert "The scores: where they are 0.3 or more, their mean is 0.90, and 0.50 of" in told(analysis)[1]
    assert "they are too high" in told(analysis)[1]
    assert reading_of_scores(analysis) == (
        "Where they are 0.3 or more, their mean is 0.90, and 0.50 of the detections are right."
    )
    low = look(*[([(CAT, 0.4, 0, 80)], [CAT_THERE])] * 20)
    assert "they are too low" in told(low)[1]
    assert "The scores" not in told(look(*[GOOD] * 30))[1]  # 0.9 and all right: it may be chance
    assert "too low" in told(look(*[GOOD] * 50))[1]  # no longer
    assert reading_of_scores(look(*[GOOD] * 19)).startswith("Fewer than 20 detections have a score of 0.3 or more")


def test_classes_that_are_nowhere() -> None:
    scene = ([CAT_FOUND, (COW, 0.8, 200, 80), (COW, 0.1, 300, 80)], [CAT_THERE])
    said, tried = told(look(*[scene] * 3))
    assert "Not in the mAP: 3 detections with a score of 0.3 or more, of classes without an object" in tried
    assert "here: cow (3)." in tried
    assert "the mAP is 1.000" in said


def test_no_objects() -> None:
    said, tried = told(look(([(CAT, 0.9, 0, 80), (DOG, 0.1, 0, 80)], [])))
    assert said == (
        "No object that counts is labelled in 1 image, so that there is no AP, and no cost of any error. 1 detection "
        "with a score of 0.3 or more found nothing that is labelled."
    )
    assert tried.startswith("Not in the mAP: 1 detection with")
    assert told(look())[0].startswith("No object that counts is labelled in 0 images")


@given(cases(), st.sampled_from([0.0, 0.3, 1.0]))
def test_something_is_said_of_everything(case: Case, score: float) -> None:
    detections, targets = case
    analysis = analyse(detections, targets, [(32, 32)] * len(targets), 3, score=score)
    said = [
        verdict(analysis, CLASSES),
        reading_of_scores(analysis),
        *advice(analysis, CLASSES, min_score=0.01, max_overlap=0.45),
    ]
    assert all(sentence.endswith(".") and "nan" not in sentence and "  " not in sentence for sentence in said)
    if analysis.objects:
        assert f"the mAP is {analysis.mean:.3f} at" in said[0]
    assert all(0 < line.find(": ") < 60 for line in said[2:])
