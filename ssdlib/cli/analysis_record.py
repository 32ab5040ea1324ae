"""The figures of `ssd analyse`, as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ssdlib.engine.analysis import Analysis, RecallRow


def figures_of(analysis: Analysis, classes: Sequence[str]) -> dict[str, Any]:
    """The figures with the names of classes; what could not be measured is null.

    Args:
        analysis: of `analyse`.
        classes: names of the labels 1, 2, ...
    """
    names = ["background", *classes]
    errors, counts, sure = analysis.errors, analysis.counts(), analysis.counts(analysis.score)
    return {
        "images": analysis.images,
        "objects": analysis.objects,
        "difficult": int(errors.objects["difficult"].sum()),
        "detections": len(errors.outcome),
        "score_of_use": analysis.score,
        "iou_threshold": errors.iou_threshold,
        "least_overlap": errors.least_overlap,
        "ap": analysis.ap,
        "mAP": _number(analysis.mean),
        "AP": {names[label]: value for label, value in analysis.per_class.items()},
        "errors": {
            kind: {
                "cost": _number(cost),
                "cost_by_object": _number(analysis.costs_by_object[kind]),
                "count": counts[kind],
                "count_in_use": sure[kind] if kind != "missed" else None,
                "cost_by_class": {names[label]: value for label, value in analysis.class_costs[kind].items()},
            }
            for kind, cost in analysis.costs.items()
        },
        "cost_of_all_false_positives": _number(analysis.sides["false_positives"]),
        "cost_of_all_false_negatives": _number(analysis.sides["false_negatives"]),
        "confusion": {
            "labels": names,
            "counts": analysis.confusion.counts.tolist(),
            "duplicates": analysis.confusion.duplicates.tolist(),
            "misplaced": analysis.confusion.misplaced.tolist(),
        },
        "recall_by_size": [_recall_row(row) for row in analysis.by_size],
        "recall_by_area_in_pixels": [_recall_row(row) for row in analysis.by_area],
        "by_iou_threshold": [
            {
                "iou_threshold": row.iou_threshold,
                "mAP": _number(row.mean),
                "recall": _number(row.recall),
                "recall_at_any_score": _number(row.recall_at_any_score),
            }
            for row in analysis.by_overlap
        ],
        "reliability": {
            "bins": len(analysis.groups),
            "expected_calibration_error": _number(analysis.calibration_error),
            "expected_calibration_error_in_use": _number(analysis.calibration_error_in_use),
            "groups": [
                {
                    "from": group.low,
                    "to": group.high,
                    "detections": group.count,
                    "mean_score": _number(group.mean_score),
                    "right": _number(group.share_right),
                }
                for group in analysis.groups
            ],
        },
        "detections_of_classes_without_object": {names[label]: n for label, n in analysis.without_object.items()},
    }


def _recall_row(row: RecallRow) -> dict[str, Any]:
    return {
        "from": row.low,
        "to": _number(row.high),
        "objects": row.objects,
        "found": row.found,
        "found_at_any_score": row.found_at_any_score,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
