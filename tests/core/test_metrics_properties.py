"""Properties of `ssdlib.metrics`, and the same numbers from pycocotools and torchmetrics."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import strategies
from torch import Tensor

from ssdlib.metrics import TRUE_POSITIVE, coco_average_precision, evaluate, evaluate_coco

Images = list[dict[str, Tensor]]
Case = tuple[Images, Images]  # detections, targets
RULES = ("area", "11point")
FAR = [100, 100, 110, 110]  # away from every drawn box


@st.composite
def cases(draw: st.DrawFn, difficult: bool = True) -> Case:
    """Up to 4 images, 2 classes, whole-pixel boxes; many detections are on an object; no two scores are equal."""
    targets = draw(st.lists(strategies.targets(num_classes=3, difficult=difficult, side=32), max_size=4))
    detections = []
    for objects in targets:
        free = draw(strategies.detections(num_classes=3, max_size=3, side=32))
        rows = st.lists(st.integers(0, len(objects["labels"]) - 1), max_size=4)
        near = draw(rows if len(objects["labels"]) else st.just([]))
        grown = objects["boxes"][near] + torch.tensor([0, 0, 1, 0]) * draw(st.integers(0, 8))
        labels = torch.cat((free["labels"], objects["labels"][near]))
        detections.append({"boxes": torch.cat((free["boxes"], grown)), "labels": labels})
    scores = draw(st.permutations(range(1, 1 + sum(len(found["labels"]) for found in detections))))
    parts = torch.tensor(scores, dtype=torch.float32).split([len(found["labels"]) for found in detections])
    return [found | {"scores": part / 32} for found, part in zip(detections, parts, strict=True)], targets


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


def scattered(seed: int, difficult: bool) -> Case:
    """6 images, 3 classes; jittered detections, duplicates and false positives, some scores equal; pixels."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(6):
        cells = rng.permutation(16)[: rng.integers(0, 9)]
        corner = np.stack((cells % 4, cells // 4), axis=1) * 200 + rng.integers(0, 40, (len(cells), 2))
        boxes = np.hstack((corner, corner + rng.integers(8, 150, (len(cells), 2)))).astype(np.float64)
        labels = rng.integers(1, 4, len(cells))
        flags = rng.random(len(cells)) < 0.3 * difficult
        rows = np.repeat(np.arange(len(cells)), rng.integers(0, 3, len(cells)))
        # Exactly on a difficult object: the two definitions of overlap (with a crowd) agree there.
        jitter = rng.normal(0, 0.1, (len(rows), 4)) * (boxes[rows, 2:] - boxes[rows, :2]).repeat(2, axis=1)
        found = boxes[rows] + np.where(flags[rows, None], 0, jitter)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        wrong = np.where(flags[rows], 0, rng.random(len(rows)) < 0.2)
        targets.append({"boxes": boxes, "labels": labels, "difficult": flags})
        scores = rng.integers(1, 30, len(rows)) / 32
        detections.append({"boxes": found, "labels": (labels[rows] - 1 + wrong) % 3 + 1, "scores": scores})
    to_torch = [[{key: torch.as_tensor(v) for key, v in entry.items()} for entry in x] for x in (detections, targets)]
    return to_torch[0], to_torch[1]


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


def torchmetrics_figures(case: Case, **settings: Any) -> dict[str, Any]:
    detection = pytest.importorskip("torchmetrics.detection")
    metric = detection.MeanAveragePrecision(class_metrics=True, **settings)
    targets = [{key: entry[key] for key in ("boxes", "labels")} for entry in case[1]]
    metric.update(case[0], [t | {"iscrowd": entry["difficult"]} for t, entry in zip(targets, case[1], strict=True)])
    return {key: value.tolist() for key, value in metric.compute().items()}


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


def test_coco_figures_equal_torchmetrics_and_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    names = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "APs": "map_small", "APm": "map_medium"}
    names |= {"APl": "map_large", "AR100": "mar_100"}
    # Its own thresholds are float32 numbers: some are above the recall that they stand for. These are COCO's.
    settings = {
        "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
        "rec_thresholds": np.linspace(0, 1, 101).tolist(),
    }
    pytest.importorskip("pycocotools")
    for seed in range(6):
        case = scattered(seed, difficult=seed % 2 == 0)
        result = evaluate_coco(*case, 4)
        figures = result.figures
        assert capfd.readouterr().out == ""
        theirs = torchmetrics_figures(case, **settings)
        capfd.readouterr()
        expected = {name: math.nan if theirs[key] < 0 else theirs[key] for name, key in names.items()}
        assert figures == pytest.approx(expected, abs=1e-6, nan_ok=True)
        per_class = dict(zip(theirs["classes"], theirs["map_per_class"], strict=True))
        assert result.per_class == pytest.approx({k: v for k, v in per_class.items() if v >= 0}, abs=1e-6)
        assert figures["AP"] == pytest.approx(np.mean(list(result.per_class.values())), abs=1e-9)


def test_coco_figures_by_hand() -> None:
    pytest.importorskip("pycocotools")
    boxes = torch.tensor([[0.0, 0, 20, 20], [100, 100, 150, 150], [200, 200, 300, 260]])
    objects = {"boxes": boxes, "labels": torch.tensor([1, 1, 1]), "difficult": torch.tensor([False, False, True])}
    found = {"boxes": boxes[[0, 2]], "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.5, 0.9])}
    figures = coco_average_precision([found], [objects], 3)
    # One of two objects found: precision is 1 at the recalls 0, .01, ..., .5; the difficult one is ignored.
    half = pytest.approx(51 / 101, abs=1e-9)
    assert (figures["AP"], figures["AP50"], figures["AP75"], figures["AR100"]) == (half, half, half, 0.5)
    assert (figures["APs"], figures["APm"]) == (pytest.approx(1.0), 0.0)
    assert math.isnan(figures["APl"])
    many = torch.arange(12)[:, None] * 50 + torch.tensor([0, 0, 40, 40])  # more than the 10 of COCO's AR10
    objects = {"boxes": many, "labels": torch.ones(12, dtype=torch.int64)}
    figures = coco_average_precision([objects | {"scores": torch.rand(12)}], [objects], 2)
    assert (figures["AR100"], figures["APm"]) == (1.0, pytest.approx(1.0))
    empty = evaluate_coco([], [], 3)
    assert all(math.isnan(figure) for figure in empty.figures.values())
    assert empty.per_class == {}


def test_coco_refuses_fractions_of_an_image() -> None:
    pytest.importorskip("pycocotools")
    objects = {"boxes": torch.tensor([[0.1, 0.1, 0.5, 0.75]]), "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match=r"largest coordinate in targets is 0\.75"):
        coco_average_precision([objects | {"scores": torch.ones(1)}], [objects], 2)


def test_coco_without_pycocotools_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match="pip install pycocotools"):
        coco_average_precision([], [], 2)
