"""`ssdlib.metrics` against the rules of the VOC devkit in exact arithmetic, and by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from support.gpus import Gpu
from torch import Tensor

from ssdlib.metrics import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    average_precision,
    best_objects,
    evaluate,
    judge,
    recall_precision,
)

Images = list[dict[str, Tensor]]
RULES = ("area", "11point")


def detection(*rows: tuple[Sequence[float], int, float]) -> dict[str, Tensor]:
    """An image's detections from (box, label, score)."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, "scores": torch.tensor([float(row[2]) for row in rows])}


def target(*rows: tuple[Sequence[float], int] | tuple[Sequence[float], int, bool]) -> dict[str, Tensor]:
    """An image's objects from (box, label) or (box, label, difficult)."""
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float64).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "difficult": torch.tensor([len(row) == 3 and row[2] for row in rows], dtype=torch.bool),
    }


# --- The devkit's rules in plain loops. Fractions leave no rounding to argue about. ---------------------------------


def slow_evaluate(
    detections: Images, targets: Images, num_classes: int, iou_threshold: str, ap: str, inclusive: bool
) -> dict[int, float]:
    per_class = {}
    for label in range(1, num_classes):
        num_objects = sum(
            int(la) == label and not bool(d) for t in targets for la, d in zip(t["labels"], t["difficult"], strict=True)
        )
        if num_objects == 0:
            continue
        ranked = [
            (float(score), image, box.tolist())
            for image, found in enumerate(detections)
            for box, la, score in zip(found["boxes"], found["labels"], found["scores"], strict=True)
            if int(la) == label
        ]
        ranked.sort(key=lambda row: -row[0])  # a stable sort
        taken: set[tuple[int, int]] = set()
        curve = []
        tp = fp = 0
        for _, image, box in ranked:
            largest, which = Fraction(0), -1
            for m, (object_box, la) in enumerate(zip(targets[image]["boxes"], targets[image]["labels"], strict=True)):
                overlap = slow_iou(box, object_box.tolist(), inclusive)
                if int(la) == label and overlap > largest:
                    largest, which = overlap, m
            if which >= 0 and largest >= Fraction(iou_threshold):
                if bool(targets[image]["difficult"][which]):
                    continue
                tp, fp = (tp, fp + 1) if (image, which) in taken else (tp + 1, fp)
                taken.add((image, which))
            else:
                fp += 1
            curve.append((Fraction(tp, num_objects), Fraction(tp, tp + fp)))
        per_class[label] = float(slow_average_precision(curve, ap))
    return per_class


def slow_iou(a: list[float], b: list[float], inclusive: bool) -> Fraction:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = map(Fraction, a), map(Fraction, b)
    one = 1 if inclusive else 0
    width, height = min(ax2, bx2) - max(ax1, bx1) + one, min(ay2, by2) - max(ay1, by1) + one
    if width <= 0 or height <= 0:
        return Fraction(0)
    areas = (ax2 - ax1 + one) * (ay2 - ay1 + one) + (bx2 - bx1 + one) * (by2 - by1 + one)
    return width * height / (areas - width * height)


def slow_average_precision(curve: list[tuple[Fraction, Fraction]], ap: str) -> Fraction:
    if ap == "11point":
        best = [max((p for r, p in curve if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)]
        return sum(best, Fraction(0)) / 11
    area, last = Fraction(0), Fraction(0)
    for k, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[k:])
        last = recall
    return area


def random_case(rng: random.Random) -> tuple[Images, Images, int]:
    """Few images; ties of score, duplicates and absent classes are common, and on a grid also equal overlaps."""
    num_classes, side = rng.randint(2, 5), rng.choice((4, 8, 30))
    number = rng.choice((rng.randint, rng.randint, rng.uniform))

    def box() -> list[float]:
        x, y = number(0, side), number(0, side)
        return [x, y, x + number(0 if rng.random() < 0.1 else 1, side), y + number(1, side)]

    detections, targets = [], []
    for _ in range(rng.randint(0, 4)):
        objects = [(box(), rng.randint(1, num_classes - 1), rng.random() < 0.3) for _ in range(rng.randint(0, 5))]
        rows = [(box(), rng.randint(1, num_classes - 1), rng.randint(0, 4) / 4) for _ in range(rng.randint(0, 4))]
        for object_box, label, _ in objects * rng.randint(0, 2):  # most detections are near an object
            near = [c + rng.choice((0, 0, 0, 1, 2)) * (k >= 2) for k, c in enumerate(object_box)]
            rows.append((near, label, rng.randint(0, 4) / 4))
        rng.shuffle(rows)
        detections.append(detection(*rows))
        targets.append(target(*objects))
    return detections, targets, num_classes


@pytest.mark.parametrize("block", range(6))
def test_equals_the_devkit_on_thousands_of_random_cases(block: int) -> None:
    for seed in range(500):
        rng = random.Random(1000 * block + seed)
        detections, targets, num_classes = random_case(rng)
        threshold = rng.choice(("0.3", "0.5", "0.5", "0.75", "1"))
        ap, inclusive = rng.choice(RULES), rng.random() < 0.5
        expected = slow_evaluate(detections, targets, num_classes, threshold, ap, inclusive)
        result = evaluate(detections, targets, num_classes, float(threshold), ap, inclusive)
        assert result.per_class == pytest.approx(expected, abs=1e-12), (block, seed)
        if expected:
            assert result.mean == pytest.approx(sum(expected.values()) / len(expected), abs=1e-12)
        else:
            assert math.isnan(result.mean)


# --- By hand ---------------------------------------------------------------------------------------------------------

A, B, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [500.0, 500, 510, 510]


def test_hand_computed_curve() -> None:
    targets = [target((A, 1), (B, 1)), target((A, 1), (B, 1))]
    detections = [detection((A, 1, 0.9), (FAR, 1, 0.8)), detection((B, 1, 0.6), (A, 1, 0.7))]
    result = evaluate(detections, targets, num_classes=2)
    curve = result.curves[1]
    np.testing.assert_array_equal(curve.outcome, [TRUE_POSITIVE, FALSE_POSITIVE, TRUE_POSITIVE, TRUE_POSITIVE])
    np.testing.assert_array_equal(curve.image, [0, 0, 1, 1])
    np.testing.assert_array_equal(curve.index, [0, 1, 1, 0])
    np.testing.assert_array_equal(curve.overlap, [1, 0, 1, 1])
    np.testing.assert_array_equal(curve.recall, [1 / 4, 1 / 4, 2 / 4, 3 / 4])
    np.testing.assert_array_equal(curve.precision, [1, 1 / 2, 2 / 3, 3 / 4])
    np.testing.assert_allclose(curve.scores, [0.9, 0.8, 0.7, 0.6], rtol=1e-7)
    assert curve.num_objects == 4
    assert result.per_class == {1: 0.625}  # 1/4 * 1 + 1/2 * 3/4
    assert (result.ap, result.iou_threshold, result.inclusive) == ("area", 0.5, False)
    # At 0, .1 and .2 the envelope is 1, from .3 to .7 it is 3/4.
    assert evaluate(detections, targets, 2, ap="11point").mean == pytest.approx(6.75 / 11, abs=1e-15)


def test_a_duplicate_is_a_false_positive_and_equal_scores_keep_the_order_of_the_input() -> None:
    detections = [detection((A, 1, 0.5), (A, 1, 0.5), (FAR, 1, 0.5)), detection((A, 1, 0.5))]
    curve = evaluate(detections, [target((A, 1)), target((A, 1))], 2).curves[1]
    np.testing.assert_array_equal(curve.image, [0, 0, 0, 1])
    np.testing.assert_array_equal(curve.index, [0, 1, 2, 0])
    np.testing.assert_array_equal(curve.outcome, [1, 0, 0, 1])


def test_a_detection_does_not_turn_to_its_second_best_object() -> None:
    wide = [0, 0, 12, 10]  # overlaps A by 10/12, and [4, 0, 14, 10] by 8/14: enough for COCO, but not here
    targets = [target((A, 1), ([4, 0, 14, 10], 1))]
    curve = evaluate([detection((A, 1, 0.9), (wide, 1, 0.8))], targets, 2).curves[1]
    np.testing.assert_array_equal(curve.outcome, [TRUE_POSITIVE, FALSE_POSITIVE])


def test_difficult_objects_are_neither_found_nor_missed() -> None:
    targets = [target((A, 1, True), (B, 1))]
    found = detection((A, 1, 0.9), (A, 1, 0.8), (B, 1, 0.7), (FAR, 1, 0.6))
    result = evaluate([found], targets, 2)
    curve = result.curves[1]
    np.testing.assert_array_equal(curve.outcome, [IGNORED, IGNORED, TRUE_POSITIVE, FALSE_POSITIVE])
    np.testing.assert_array_equal(curve.recall, [0, 0, 1, 1])
    np.testing.assert_array_equal(curve.precision, [0, 0, 1, 0.5])
    assert (result.mean, curve.num_objects) == (1.0, 1)


def test_a_difficult_object_takes_the_detection_that_overlaps_it_most() -> None:
    near = [2, 0, 12, 10]  # overlaps A by 8/12
    curve = evaluate([detection((A, 1, 0.9))], [target((near, 1), (A, 1, True))], 2).curves[1]
    np.testing.assert_array_equal(curve.outcome, [IGNORED])


def test_whole_pixel_rule() -> None:
    # Whole pixels: 4 x 4 and 4 x 2, overlap 1/2. As plain numbers: 3 x 3 and 3 x 1, overlap 1/3.
    case = [detection(([0, 0, 3, 1], 1, 0.9))], [target(([0, 0, 3, 3], 1))]
    assert evaluate(*case, 2, inclusive=True).curves[1].overlap.tolist() == [0.5]
    assert evaluate(*case, 2, inclusive=True).mean == 1.0
    assert evaluate(*case, 2).curves[1].overlap.tolist() == [1 / 3]
    assert evaluate(*case, 2).mean == 0.0
    one_pixel = [detection(([7, 7, 7, 7], 1, 0.9))], [target(([7, 7, 7, 7], 1))]
    assert (evaluate(*one_pixel, 2, inclusive=True).mean, evaluate(*one_pixel, 2).mean) == (1.0, 0.0)


# --- The mistakes of others (each of these fails on the mistaken version) --------------------------------------------


def test_absent_classes_do_not_count_as_zero() -> None:
    result = evaluate([detection((A, 1, 0.9), (B, 3, 0.8))], [target((A, 1))], num_classes=21)
    assert result.per_class == {1: 1.0}
    assert result.mean == 1.0
    assert list(result.curves) == [1]


def test_a_class_with_only_difficult_objects_is_left_out() -> None:
    result = evaluate([detection((A, 1, 0.9), (B, 2, 0.9))], [target((A, 1), (B, 2, True))], 3)
    assert result.per_class == {1: 1.0}
    assert result.mean == 1.0


def test_no_class_that_counts_gives_nan() -> None:
    for case in (([], []), ([detection()], [target()]), ([detection((A, 1, 1))], [target((A, 1, True))])):
        result = evaluate(*case, num_classes=2)
        assert math.isnan(result.mean)
        assert result.per_class == result.curves == {}


def test_a_class_that_is_never_detected_counts_as_zero() -> None:
    result = evaluate([detection((A, 1, 0.9))], [target((A, 1), (B, 2))], 3)
    assert result.per_class == {1: 1.0, 2: 0.0}
    assert result.mean == 0.5
    assert len(result.curves[2].recall) == 0


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_an_overlap_of_exactly_the_threshold_is_enough(threshold: float) -> None:
    case = [detection(([0, 0, 10, 10 * threshold], 1, 0.9))], [target((A, 1))]
    assert evaluate(*case, 2, iou_threshold=threshold).mean == 1.0
    assert evaluate([detection(([0, 0, 10, 4.99], 1, 0.9))], [target((A, 1))], 2).mean == 0.0


@pytest.mark.parametrize("found", range(11))
def test_eleven_points_are_eleven_and_none_is_lost_to_rounding(found: int) -> None:
    # n of 10 objects found, nothing else: precision is 1 at the recalls 0, .1, ..., n/10, and 0 beyond.
    objects = [([20 * k, 0, 20 * k + 10, 10], 1) for k in range(10)]
    detections = [detection(*[(box, label, 0.5) for box, label in objects[:found]])]
    expected = (found + 1) / 11 if found else 0.0
    assert evaluate(detections, [target(*objects)], 2, ap="11point").mean == pytest.approx(expected, abs=1e-15)
    assert evaluate(detections, [target(*objects)], 2, ap="area").mean == pytest.approx(found / 10, abs=1e-15)
    summed = np.cumsum(np.full(found, 0.1))  # other people's recall: 0.1 + 0.1 + ..., with its rounding
    assert average_precision(summed, np.ones(found), "11point") == pytest.approx(expected, abs=1e-15)


def test_perfect_detections_are_exactly_1() -> None:
    for count in range(1, 200):  # a rounded sum of the steps of recall misses 1 for some of these
        for outcome in ([TRUE_POSITIVE] * count, [TRUE_POSITIVE] * count + [FALSE_POSITIVE] * 9):
            curve = recall_precision(outcome, count)
            assert [average_precision(*curve, ap) for ap in RULES] == [1.0, 1.0]


# --- The steps one by one ---------------------------------------------------------------------------------------------


def test_best_objects_looks_only_at_its_group_and_takes_the_first_of_equals() -> None:
    objects = np.array([B, A, A, [0, 0, 10, 5]], dtype=np.float64)
    boxes = np.array([A, A, B, FAR], dtype=np.float64)
    index, overlap = best_objects(boxes, np.array([7, 3, 7, 7]), objects, np.array([7, 7, 7, 3]))
    assert index.tolist() == [1, 3, 0, -1]
    assert overlap.tolist() == [1.0, 0.5, 1.0, 0.0]


def test_judge() -> None:
    outcome = judge(np.array([0, 1, 0, -1, 2]), np.array([0.6, 0.9, 0.8, 0, 0.49]), np.array([False, True, False]))
    assert outcome.tolist() == [TRUE_POSITIVE, IGNORED, FALSE_POSITIVE, FALSE_POSITIVE, FALSE_POSITIVE]


def test_the_steps_refuse_what_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="num_objects is 0"):
        recall_precision(np.array([0]), 0)
    with pytest.raises(ValueError, match="'voc'"):
        average_precision([1.0], [1.0], "voc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"recall \(2,\) and precision \(1,\)"):
        average_precision([0.5, 1.0], [1.0])
    with pytest.raises(ValueError, match=r"after index 1, where it is 0\.5"):
        average_precision([0.1, 0.5, 0.4], [1.0, 1.0, 1.0])
    assert average_precision([], []) == 0.0


# --- What comes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_number_formats_gradients_and_missing_difficult(dtype: torch.dtype) -> None:
    found, objects = detection((A, 1, 0.75), ([*FAR[:2], 512, 512], 2, 0.5)), target((A, 1), (B, 2))
    found = found | {"boxes": found["boxes"].to(dtype), "labels": found["labels"].to(torch.int32)}
    found["scores"] = found["scores"].to(dtype).requires_grad_()
    del objects["difficult"]
    before = {key: value.clone() for key, value in found.items()}
    other = detection((B, 2, 0.9)), target((B, 2))  # of another number format, in the same call
    result = evaluate([found, other[0]], [objects, other[1]], 3)
    assert result.per_class == {1: 1.0, 2: 0.5}
    assert all(torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in before.items())


def test_images_of_different_number_formats_lose_no_digit() -> None:
    far = 2**24  # float32 has no 2**24 + 1: in it, this box would have no area
    big = {"boxes": torch.tensor([[far, 0, far + 1, 1]]), "labels": torch.tensor([1]), "scores": torch.ones(1)}
    small = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1]), "scores": torch.ones(1)}
    assert evaluate([big, small], [big, small], 2).mean == 1.0


def test_tensors_on_a_gpu(gpu: Gpu) -> None:
    detections, targets, num_classes = random_case(random.Random(4))
    on_gpu = [
        [{key: value.to(gpu.device) for key, value in entry.items()} for entry in x] for x in (detections, targets)
    ]
    expected = evaluate(detections, targets, num_classes).per_class
    assert expected
    assert evaluate(*on_gpu, num_classes).per_class == expected
    assert evaluate(on_gpu[0], targets, num_classes).per_class == expected


GOOD = detection((A, 1, 0.5)), target((A, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.ones(4)}, r"detections\[1\].*\(4,\)"),
        ({"boxes": torch.ones(1, 5)}, r"detections\[1\].*\(1, 5\)"),
        ({"labels": torch.tensor([[1]])}, r"detections\[1\].*\(1, 1\)"),
        ({"scores": torch.rand(3)}, r"detections\[1\].*\(3,\)"),
        ({"scores": torch.tensor(0.5)}, r"detections\[1\].*\(\)"),
        ({"labels": torch.tensor([1.0])}, r"detections\[1\]\['labels'\] are torch.float32"),
        ({"labels": torch.tensor([True])}, r"detections\[1\]\['labels'\] are torch.bool"),
        ({"labels": torch.tensor([0])}, r"detections\[1\]\['labels'\]\[0\] is 0: labels are 1\.\.2"),
        ({"labels": torch.tensor([3])}, r"detections\[1\]\['labels'\]\[0\] is 3: labels are 1\.\.2"),
        ({"labels": torch.tensor([-1])}, r"detections\[1\]\['labels'\]\[0\] is -1"),
        ({"scores": torch.tensor([math.nan])}, r"detections\[1\]\['scores'\]\[0\] is nan"),
        ({"scores": torch.tensor([math.inf])}, r"detections\[1\]\['scores'\]\[0\] is inf"),
        (
            {"boxes": torch.tensor([[0, 0, math.nan, 1]])},
            r"detections\[1\]\['boxes'\]\[0\] is \[0\.0, 0\.0, nan",
        ),
        ({"boxes": torch.tensor([[5, 5, 2, 9.0]])}, r"detections\[1\]\['boxes'\]\[0\] is \[5\.0, 5\.0, 2\.0, 9\.0\]"),
    ],
)
def test_bad_detections_are_refused_with_image_and_value(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate([GOOD[0], GOOD[0] | change], [GOOD[1]] * 2, 3)


def test_other_bad_input_is_refused() -> None:
    found, objects = GOOD
    for key in found:
        with pytest.raises(ValueError, match=rf"detections\[1\] is not a dict with '{key}'"):
            evaluate([found, {k: v for k, v in found.items() if k != key}], [objects] * 2, 2)
    with pytest.raises(ValueError, match=r"targets\[0\] is not a dict with 'labels'"):
        evaluate([found], [{"boxes": objects["boxes"]}], 2)
    with pytest.raises(ValueError, match=r"targets\[0\] is not a dict"):
        evaluate([found], [objects["boxes"]], 2)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="num_classes is 1: it counts the background"):
        evaluate([found], [objects], 1)
    with pytest.raises(ValueError, match=r"targets\[0\].*\(2,\)"):
        evaluate([found], [objects | {"difficult": torch.zeros(2, dtype=torch.bool)}], 2)
    with pytest.raises(ValueError, match="detections has 2 images, but targets has 1"):
        evaluate([found] * 2, [objects], 2)
    for threshold in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="iou_threshold is"):
            evaluate([found], [objects], 2, threshold)
    with pytest.raises(ValueError, match="'11-point'"):
        evaluate([], [], 2, ap="11-point")  # type: ignore[arg-type]
