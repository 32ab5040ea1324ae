"""The analysis: recall by size and overlap, scores, examples and classes without an object, against slow counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.metric_cases import Case, cases
from torch import Tensor

from ssdlib.engine.analysis import AREAS, OVERLAPS, Analysis, analyse
from ssdlib.metrics import TRUE_POSITIVE, confusion_matrix, evaluate

CAT, DOG, COW = 1, 2, 3


def image(boxes: list[list[float]], labels: list[int], **more: list[Any]) -> dict[str, Tensor]:
    columns = {key: torch.tensor(values) for key, values in more.items()}
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64), **columns}


def square(x: float, side: float) -> list[float]:
    return [x, 0.0, x + side, side]


def pair() -> Analysis:
    """An image of 400 x 100 with cats of 20, 40 and 100 pixels and a dog; detections of all but the small cat."""
    objects = image([square(0, 20), square(50, 40), square(100, 100), square(300, 40)], [CAT, CAT, CAT, DOG])
    boxes = [square(50, 40), square(110, 100), square(300, 40), square(220, 20), square(250, 20), square(100, 50)]
    found = image(boxes, [CAT, CAT, CAT, DOG, COW, CAT], scores=[0.2, 0.9, 0.8, 0.7, 0.6, 0.1])
    return analyse([found], [objects], [(400, 100)], 4)


def test_by_hand() -> None:
    result = pair()
    assert (result.images, result.objects, result.score) == (1, 4, 0.3)
    assert [(row.objects, row.found, row.found_at_any_score) for row in result.by_area] == [
        (1, 0, 0),
        (2, 0, 1),
        (1, 1, 1),
    ]
    # 20 / 200, twice 40 / 200, 100 / 200
    assert [(row.low, row.objects) for row in result.by_size if row.objects] == [(0.1, 1), (0.2, 2), (0.4, 1)]
    assert result.without_object == {COW: 1}
    assert [(alarm.label, alarm.kind, alarm.object_label) for alarm in result.false_alarms] == [
        (CAT, "class", DOG),
        (DOG, "background", 0),
        (CAT, "localization", CAT),
    ]
    assert result.alarm_count == 3  # the cow is of a class that is nowhere
    assert [(miss.label, miss.why, miss.by_label, round(miss.score, 2)) for miss in result.misses] == [
        (CAT, "score", CAT, 0.2),
        (DOG, "class", CAT, 0.8),
        (CAT, "missed", 0, 0.0),
    ]
    assert result.miss_count == 3
    assert [miss.size for miss in result.misses] == pytest.approx([0.2, 0.2, 0.1])
    assert result.counts() == {"class": 1, "localization": 1, "both": 0, "duplicate": 0, "background": 1, "missed": 1}
    assert result.errors.counts()["background"] == 2
    assert result.counts(0.3)["localization"] == 0
    assert sum(group.count for group in result.groups) == 5


def test_what_each_object_weighs() -> None:
    """Of 3 cats and a dog: in the mAP the dog weighs as much as the cats, by objects a third."""
    result = pair()
    of_class = result.class_costs["class"]
    assert result.costs["class"] == pytest.approx((of_class[CAT] + of_class[DOG]) / 2)
    assert result.costs_by_object["class"] == pytest.approx((3 * of_class[CAT] + of_class[DOG]) / 4)
    assert of_class[DOG] > 0


def test_a_dog_that_is_taken_for_a_class_that_is_nowhere() -> None:
    """It is an error about an object that counts, and what mends it counts: it is not left out as other cows are."""
    found = image([square(0, 20), square(100, 20)], [COW, COW], scores=[0.9, 0.8])
    result = analyse([found], [image([square(0, 20)], [DOG])], [(400, 100)], 4)
    assert result.counts() == dict.fromkeys(result.costs, 0) | {"class": 1}
    assert [(alarm.label, alarm.object_label, alarm.score) for alarm in result.false_alarms] == [
        (COW, DOG, pytest.approx(0.9))
    ]
    assert result.costs["class"] == 1.0
    assert result.without_object == {COW: 2}
    assert sum(group.count for group in result.groups) == 1


def test_how_many_examples() -> None:
    objects = image([square(50 * k, 20 + k) for k in range(8)], [CAT] * 8)
    found = image([[0.0, 60, 20, 80]] * 8, [CAT] * 8, scores=[k / 10 for k in range(8)])
    result = analyse([found], [objects], [(500, 100)], 2, examples=3)
    assert [alarm.index for alarm in result.false_alarms] == [7, 6, 5]
    assert [miss.index for miss in result.misses] == [7, 6, 5]
    assert (result.alarm_count, result.miss_count) == (8, 8)
    assert analyse([found], [objects], [(500, 100)], 2, examples=0).misses == []


@given(cases(), st.sampled_from([0.0, 0.25, 0.5]))
def test_equals_slow_counts(case: Case, score: float) -> None:
    detections, targets = case
    result = analyse(detections, targets, [(32, 32)] * len(targets), 3, score=score)
    usual = evaluate(*case, 3)
    assert result.per_class == usual.per_class
    assert (result.confusion.counts == confusion_matrix(*case, 3, min_score=score).counts).all()
    # recall by size: the same objects and hits, shared out
    sure = sum(int(((c.outcome == TRUE_POSITIVE) & (c.scores >= score)).sum()) for c in usual.curves.values())
    any_score = sum(int((c.outcome == TRUE_POSITIVE).sum()) for c in usual.curves.values())
    for rows in (result.by_size, result.by_area):
        assert sum(row.objects for row in rows) == result.objects
        assert sum(row.found for row in rows) == sure
        assert sum(row.found_at_any_score for row in rows) == any_score
    sizes = [float(a) for t in targets for a in (t["boxes"][:, 2:] - t["boxes"][:, :2]).prod(dim=1)[~t["difficult"]]]
    for row in result.by_area:
        assert row.objects == sum(row.low <= size < row.high for size in sizes)
    assert [row.low for row in result.by_area] == list(AREAS[:-1])
    # by overlap
    for row, threshold in zip(result.by_overlap, OVERLAPS, strict=True):
        again = evaluate(*case, 3, iou_threshold=threshold)
        hits = sum(int((c.outcome == TRUE_POSITIVE).sum()) for c in again.curves.values())
        if result.objects:
            assert (row.mean, row.recall_at_any_score) == (again.mean, hits / result.objects)
        else:
            assert math.isnan(row.mean)
    # misses: all objects that count and are not found
    assert result.miss_count == result.objects - sure
    shares = [miss.size for miss in result.misses]
    assert shares == sorted(shares, reverse=True)
    for miss in result.misses:
        assert int(targets[miss.image]["labels"][miss.index]) == miss.label
        if miss.by >= 0:
            assert int(detections[miss.image]["labels"][miss.by]) == miss.by_label
            assert (miss.by_label == miss.label) == (miss.why != "class")
            assert miss.score < score or miss.why != "score"
    scores = [alarm.score for alarm in result.false_alarms]
    assert scores == sorted(scores, reverse=True)
    for alarm in result.false_alarms:
        assert float(detections[alarm.image]["scores"][alarm.index]) == alarm.score
        assert not result.objects or result.errors.num_objects[alarm.label] or alarm.kind == "class"


def test_no_object_and_no_detection() -> None:
    for detections, targets in (([], []), ([image([], [], scores=[])], [image([], [])])):
        result = analyse(detections, targets, [(10, 10)] * len(targets), 3)
        assert math.isnan(result.mean)
        assert math.isnan(result.calibration_error)
        assert (result.false_alarms, result.misses, result.objects) == ([], [], 0)
        assert all(math.isnan(cost) for cost in [*result.costs.values(), *result.costs_by_object.values()])


def test_without_objects_all_false_alarms_are_shown() -> None:
    result = analyse([image([square(0, 5)], [CAT], scores=[0.9])], [image([], [])], [(10, 10)], 3)
    assert [alarm.kind for alarm in result.false_alarms] == ["background"]
    assert result.without_object == {CAT: 1}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the score of use must be in 0\.\.1, got 1\.5"):
        analyse([], [], [], 3, score=1.5)
    with pytest.raises(ValueError, match="image_sizes has 1 images, but targets has 0"):
        analyse([], [], [(1, 1)], 3)
