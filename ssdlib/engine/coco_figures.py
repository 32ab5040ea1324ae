"""COCO's figures, by pycocotools."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssdlib.metrics import Images, Rows, gather_rows


@dataclass(frozen=True)
class CocoEvaluation:
    """What `evaluate_coco` returns."""

    figures: dict[str, float]
    per_class: dict[int, float]  # label -> AP, for the classes with an object that counts


def evaluate_coco(detections: Images, targets: Images, num_classes: int) -> CocoEvaluation:
    """COCO's figures, by pycocotools: AP (mean of the thresholds 0.5, 0.55, ..., 0.95), AP50, AP75 and so on.

    Difficult objects become COCO's crowds, the only objects that pycocotools ignores: any number of detections may
    lie on one, and their overlap with it is intersection / area of the detection.

    Args:
        detections: as for `ssdlib.metrics.evaluate`, in pixels, as the size of an object matters here.
        targets: the same.
        num_classes: number of classes with the background.

    Returns:
        AP of each class, and the figures "AP", "AP50", "AP75"; "APs", "APm", "APl": AP of objects of up to 32 * 32
        pixels, up to 96 * 96, and above (of the box; COCO itself measures the mask); "AR100": recall with up to 100
        detections an image and class, the mean of all thresholds and classes. nan where there is no object.

    Raises:
        ImportError: if pycocotools is not installed.
        ValueError: as `ssdlib.metrics.evaluate`, and if no object reaches beyond the first pixel (boxes are fractions).
    """
    try:
        coco_module = importlib.import_module("pycocotools.coco")
        cocoeval_module = importlib.import_module("pycocotools.cocoeval")
    except ImportError as error:
        raise ImportError("COCO's figures need pycocotools: pip install pycocotools") from error
    found, objects = gather_rows(detections, targets, num_classes)
    if len(objects["boxes"]) and (largest := objects["boxes"].max()) <= 1:
        raise ValueError(f"the largest coordinate in targets is {largest}: COCO's figures need boxes in pixels")

    def to_coco(rows: Rows) -> Any:
        sizes = rows["boxes"][:, 2:] - rows["boxes"][:, :2]
        columns = {
            "id": np.arange(len(sizes)) + 1,  # 0 would mean "no match" in COCOeval
            "image_id": rows["image"],
            "category_id": rows["labels"],
            "bbox": np.hstack((rows["boxes"][:, :2], sizes)),
            "area": sizes.prod(axis=1),
            "iscrowd": rows.get("difficult", np.zeros(len(sizes))).astype(int),
            "score": rows.get("scores", np.zeros(len(sizes))),
        }
        lines = zip(*(column.tolist() for column in columns.values()), strict=True)
        coco = coco_module.COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(targets))],
            "categories": [{"id": label} for label in range(1, num_classes)],
            "annotations": [dict(zip(columns, line, strict=True)) for line in lines],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and a table
        evaluation = cocoeval_module.COCOeval(to_coco(objects), to_coco(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    places = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5, "AR100": 8}
    figures = {name: float(evaluation.stats[place]) for name, place in places.items()}
    figures = {name: math.nan if figure < 0 else figure for name, figure in figures.items()}  # -1: no object
    # (thresholds, recalls, classes, sizes of objects, numbers of detections) -> all sizes, 100 detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (10, 101, C - 1), -1 for a class without objects
    per_class = {
        label: float(precision[:, :, label - 1].mean())
        for label in range(1, num_classes)
        if (precision[:, :, label - 1] >= 0).all()
    }
    return CocoEvaluation(figures, per_class)
