"""Properties of `ssdlib.metrics`, and the same numbers from pycocotools and torchmetrics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.metric_cases import Case, cases, scattered, torchmetrics_figures
from torch import Tensor

from ssdlib.metrics import TRUE_POSITIVE, evaluate

RULES = ("area", "11point")
FAR = [100, 100, 110, 110]  # away from every drawn box


def false_positives(score: float) -> Case:
    """An image without objects and a detection of each class."""
    boxes, labels = torch.tensor([FAR, FAR]), torch.tensor([1, 2])
    no_objects = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [{"boxes": boxes, "labels": labels, "scores": torch.full((2,), score)}], [no_objects]


def change_boxes(case: Case, change: Callable[[Tensor], Tensor]) -> Case:
    detections, targets = ([entry | {"boxes": change(entry["boxes"])} for entry in images] for images in case)
    return detections, targets


@given(cases(), st.sampled_from(RULES), st.booleans())
def test_ap_is_between_0_and_what_the_recall_allows(case: Case, ap: Any, inclusive: bool) -> None:
    result = evaluate(*case, 3, ap=ap, inclusive=inclusive)
    for label, value in result.per_class.items():
        curve = result.curves[label]
        recall = curve.recall.max(initial=0)
        assert 0 <= value <= (recall if ap == "area" else (10 * recall + 1) / 11) + 1e-12 <= 1 + 2e-12
        assert (curve.outcome == TRUE_POSITIVE).sum() <= curve.num_objects
        assert (np.diff(curve.scores) <= 0).all()


@given(cases(), st.sampled_from(RULES), st.randoms(use_true_random=False))
def test_the_order_of_images_and_detections_does_not_matter(case: Case, ap: Any, rng: Any) -> None:
    order = list(range(len(case[0])))
    rng.shuffle(order)
    detections, targets = ([images[k] for k in order] for images in case)
    detections = [{key: value.flip(0) for key, value in found.items()} for found in detections]
    assert evaluate(detections, targets, 3, ap=ap).per_class == evaluate(*case, 3, ap=ap).per_class


@given(cases(), st.sampled_from(RULES))
def test_a_last_false_positive_changes_nothing_and_a_first_one_harms(case: Case, ap: Any) -> None:
    before = evaluate(*case, 3, ap=ap).per_class
    last, first = false_positives(0.0), false_positives(9.0)
    assert evaluate(case[0] + last[0], case[1] + last[1], 3, ap=ap).per_class == before
    after = evaluate(case[0] + first[0], case[1] + first[1], 3, ap=ap).per_class
    assert after.keys() == before.keys()
    assert all(after[label] < before[label] or after[label] == before[label] == 0 for label in before)


@given(cases(difficult=False), st.sampled_from(RULES), st.booleans())
def test_perfect_detections_find_everything(case: Case, ap: Any, inclusive: bool) -> None:
    targets = []
    for objects in case[1]:  # a second object in exactly the same place cannot be found: drop it
        rows = torch.cat((objects["boxes"], objects["labels"][:, None]), dim=1).unique(dim=0)
        targets.append({"boxes": rows[:, :4], "labels": rows[:, 4].long()})
    detections = [objects | {"scores": torch.rand(len(objects["labels"]))} for objects in targets]
    result = evaluate(detections, targets, 3, ap=ap, inclusive=inclusive)
    assert result.per_class == {label: 1.0 for objects in targets for label in objects["labels"].tolist()}


@given(cases(), st.sampled_from(RULES), st.sampled_from([1 / 32, 4.0]), st.integers(-50, 50))
def test_scaling_and_shifting_all_boxes_changes_nothing(case: Case, ap: Any, scale: float, shift: int) -> None:
    moved = change_boxes(case, lambda boxes: boxes * scale + shift)
    assert evaluate(*moved, 3, ap=ap).per_class == evaluate(*case, 3, ap=ap).per_class


@given(cases(), st.sampled_from(RULES))
def test_whole_pixels_are_boxes_one_pixel_wider(case: Case, ap: Any) -> None:
    wider = change_boxes(case, lambda boxes: boxes + torch.tensor([0, 0, 1, 1]))
    assert evaluate(*case, 3, ap=ap, inclusive=True).per_class == evaluate(*wider, 3, ap=ap).per_class


@given(cases(), st.sampled_from(RULES))
def test_a_stricter_threshold_never_helps(case: Case, ap: Any) -> None:
    results = [evaluate(*case, 3, threshold, ap).per_class for threshold in (0.25, 0.5, 0.75, 1.0)]
    for loose, strict in itertools.pairwise(results):
        assert all(strict[label] <= loose[label] + 1e-12 for label in loose)


# --- Other libraries. Objects lie in cells of their own, so that the rules of COCO and VOC give the same outcomes. ----


def pycocotools_per_class(case: Case, threshold: float, recalls: Any) -> dict[int, float]:
    coco_module = pytest.importorskip("pycocotools.coco")
    eval_module = pytest.importorskip("pycocotools.cocoeval")
    both = []
    for images in case:
        annotations: list[dict[str, Any]] = []
        for image, entry in enumerate(images):
            for row, (x1, y1, x2, y2) in enumerate(entry["boxes"].tolist()):
                annotation = {"id": len(annotations) + 1, "image_id": image, "area": (x2 - x1) * (y2 - y1)}
                annotation |= {"category_id": int(entry["labels"][row]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                annotation["iscrowd"] = int(entry["difficult"][row]) if "difficult" in entry else 0
                annotation |= {"score": float(entry["scores"][row])} if "scores" in entry else {}
                annotations.append(annotation)
        coco = coco_module.COCO()
        coco.dataset = {"images": [{"id": k} for k in range(len(images))], "annotations": annotations}
        coco.dataset["categories"] = [{"id": 1}, {"id": 2}, {"id": 3}]
        coco.createIndex()
        both.append(coco)
    evaluation = eval_module.COCOeval(both[1], both[0], "bbox")
    evaluation.params.iouThrs = np.array([threshold])
    evaluation.params.recThrs = recalls
    evaluation.params.maxDets = [1000]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # recalls x classes, -1 for a class without objects
    return {k + 1: float(column.mean()) for k, column in enumerate(precision.T) if column[0] >= 0}


@pytest.mark.parametrize("difficult", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_equals_pycocotools(threshold: float, difficult: bool) -> None:
    for seed in range(25):
        case = scattered(seed, difficult)
        # k / 10 and not np.linspace, whose 0.30000000000000004 makes COCOeval overlook a recall of 3/10.
        expected = pycocotools_per_class(case, threshold, np.arange(11) / 10)
        assert len(expected) > 1
        result = evaluate(*case, 4, threshold, "11point")
        assert result.per_class == pytest.approx(expected, abs=1e-9)
    # Read at 100,000 recalls, in the middle of each interval, the mean of the precision is the area.
    expected = pycocotools_per_class(case, threshold, (np.arange(100_000) + 0.5) / 100_000)
    assert evaluate(*case, 4, threshold, "area").per_class == pytest.approx(expected, abs=1e-4)


def test_equals_torchmetrics() -> None:
    settings = {"iou_thresholds": [0.5], "rec_thresholds": (np.arange(11) / 10).tolist()}
    for seed in range(8):
        case = scattered(seed, difficult=seed % 2 == 0)
        figures = torchmetrics_figures(case, **settings)
        per_class = dict(zip(figures["classes"], figures["map_per_class"], strict=True))
        expected = {label: value for label, value in per_class.items() if value >= 0}
        result = evaluate(*case, 4, ap="11point")
        assert result.per_class == pytest.approx(expected, abs=1e-6)
        assert result.mean == pytest.approx(figures["map"], abs=1e-6)


# --- COCO's own figures -----------------------------------------------------------------------------------------------
