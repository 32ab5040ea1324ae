"""What is wrong with a detector: its errors by kind, by size and by overlap, its scores, and the worst examples.

`analyse` works on what `ssdlib.engine.inference.detect_dataset` gives; nothing here reads an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ssdlib.data.prior_fit import SIZES
from ssdlib.engine.error_kinds import (
    KINDS,
    DetectionErrors,
    ap_at,
    costs,
    find_errors,
    mean_of,
    mended,
    one_sided_costs,
)
from ssdlib.engine.reliability import ScoreGroup, expected_calibration_error, reliability
from ssdlib.metrics import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    APRule,
    Bools,
    ConfusionMatrix,
    Floats,
    Images,
    Ints,
    confusion_matrix,
)

AREAS = (0.0, 32.0**2, 96.0**2, math.inf)
"""COCO's limits of small, medium and large objects, in pixels; here each belongs to the larger ones."""

OVERLAPS = tuple(k / 100 for k in range(50, 100, 5))
"""COCO's thresholds."""


@dataclass(frozen=True)
class RecallRow:
    """Objects with low <= size < high, and how many of them were found: from the score of use on, and at any score."""

    low: float
    high: float
    objects: int
    found: int
    found_at_any_score: int


@dataclass(frozen=True)
class OverlapRow:
    """What an overlap threshold leaves: mAP, and recall from the score of use on and at any; nan without objects."""

    iou_threshold: float
    mean: float
    recall: float
    recall_at_any_score: float


@dataclass(frozen=True)
class FalseAlarm:
    """A false detection: row `index` of the detections of an image, with its kind and the object that it is about.

    `object_index` is the object's row in the target of the image, -1 where the error is about none; `overlap` the IoU
    with it.
    """

    image: int
    index: int
    label: int
    score: float
    kind: str
    object_index: int
    object_label: int
    overlap: float


@dataclass(frozen=True)
class Miss:
    """An object that no detection found from the score of use on: row `index` of the target of an image.

    `why` is "score" if a detection with a lower score finds it; "localization" or "class" if the surest error about it
    is of that kind; "missed" if there is none. `by` is the row of that detection, -1 for none. `size` is the root of
    the object's area, as a share of the image's.
    """

    image: int
    index: int
    label: int
    size: float
    why: str
    by: int
    by_label: int
    score: float
    overlap: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """What `analyse` returns.

    Attributes:
        images, score, ap: how many images, the score of use, and the rule of AP.
        errors: of `find_errors`.
        mean, per_class: mAP and AP by label.
        class_costs: kind -> label -> AP gained if the errors of this kind alone were mended.
        sides: `one_sided_costs`.
        confusion: of the detections from the score of use on.
        by_size, by_area: recall by the root of the object's area as a share of the image's, and by its area in pixels.
        by_overlap: mAP and recall by overlap threshold.
        groups: reliability of the scores, of all detections that are right or wrong.
        calibration_error, calibration_error_in_use: expected calibration error over these groups, of all detections and
            of those from the score of use on.
        false_alarms, misses: from the highest score and the largest object down; `alarm_count` and `miss_count` of all.
        without_object: label -> detections from the score of use on, of the classes without an object that counts.

    Groups and false alarms hold the detections that `DetectionErrors.seen_by_ap` has: who finds a class that is nowhere
    labelled may be right.
    """

    images: int
    score: float
    ap: APRule
    errors: DetectionErrors
    mean: float
    per_class: dict[int, float]
    class_costs: dict[str, dict[int, float]]
    sides: dict[str, float]
    confusion: ConfusionMatrix
    by_size: list[RecallRow]
    by_area: list[RecallRow]
    by_overlap: list[OverlapRow]
    groups: list[ScoreGroup]
    calibration_error: float
    calibration_error_in_use: float
    false_alarms: list[FalseAlarm]
    alarm_count: int
    misses: list[Miss]
    miss_count: int
    without_object: dict[int, int]

    @property
    def costs(self) -> dict[str, float]:
        """Kind -> mAP gained if the errors of this kind alone were mended; nan without objects."""
        return {kind: mean_of(of_class) for kind, of_class in self.class_costs.items()}

    def counts(self, min_score: float = 0.0) -> dict[str, int]:
        """How many errors of each kind there are, with at least this score, of those that `seen_by_ap` has."""
        return self.errors.counts(min_score, every_class=False)

    @property
    def costs_by_object(self) -> dict[str, float]:
        """Kind -> the mean of its costs to the classes, each weighed by its objects; nan without objects."""
        weights = self.errors.num_objects
        return {
            kind: math.fsum(cost * int(weights[label]) for label, cost in of_class.items()) / max(self.objects, 1)
            if of_class
            else math.nan
            for kind, of_class in self.class_costs.items()
        }

    @property
    def objects(self) -> int:
        """How many objects count."""
        return int(self.errors.num_objects.sum())


def analyse(
    detections: Images,
    targets: Images,
    image_sizes: Sequence[tuple[int, int]],
    num_classes: int,
    *,
    score: float = 0.3,
    iou_threshold: float = 0.5,
    ap: APRule = "area",
    examples: int | None = None,
) -> Analysis:
    """Say what is wrong with detections.

    Args:
        detections, targets, num_classes: as for `ssdlib.metrics.evaluate`, boxes in pixels. AP and the costs need the
            uncertain detections too, as for any mAP.
        image_sizes: (width, height) of each image in pixels.
        score: the score of use: which detections count for the confusion matrix, for recall and as examples of misses.
        iou_threshold: the overlap that is enough.
        ap: the rule of AP.
        examples: how many false alarms and misses to give; all of them if None.

    Raises:
        ValueError: as `find_errors`; sizes that do not fit; a score outside 0..1.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"the score of use must be in 0..1, got {score}")
    if len(image_sizes) != len(targets):
        raise ValueError(f"image_sizes has {len(image_sizes)} images, but targets has {len(targets)}")
    least = min(0.1, iou_threshold / 2)  # below the threshold, whatever that is
    errors = find_errors(detections, targets, num_classes, iou_threshold, least)
    per_class = mended(errors, (), ap)
    confusion = confusion_matrix(detections, targets, num_classes, score, iou_threshold, least)

    boxes = errors.objects["boxes"]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    pixels = np.array([width * height for width, height in image_sizes], dtype=np.float64)
    share = np.sqrt(area / pixels[errors.objects["image"]]) if len(area) else area

    scores = errors.found["scores"]
    judged = (errors.outcome != IGNORED) & errors.seen_by_ap
    used = judged & (scores >= score)
    right = errors.outcome == TRUE_POSITIVE
    groups = reliability(np.clip(scores[judged], 0, 1), right[judged])
    sure = (errors.outcome != IGNORED) & (scores >= score)
    counts = np.bincount(errors.found["labels"][sure], minlength=num_classes)
    lost = np.flatnonzero(~errors.objects["difficult"] & ~_found_from(errors, score))
    wrong = np.flatnonzero((errors.outcome == FALSE_POSITIVE) & errors.seen_by_ap)
    return Analysis(
        images=len(targets),
        score=score,
        ap=ap,
        errors=errors,
        mean=mean_of(per_class),
        per_class=per_class,
        class_costs=costs(errors, ap),
        sides=one_sided_costs(errors, ap),
        confusion=confusion,
        by_size=_recall_by(share, SIZES, errors, score),
        by_area=_recall_by(area, AREAS, errors, score),
        by_overlap=[_at_overlap(errors, threshold, score, ap) for threshold in OVERLAPS],
        groups=groups,
        calibration_error=expected_calibration_error(groups),
        calibration_error_in_use=expected_calibration_error(reliability(np.clip(scores[used], 0, 1), right[used])),
        false_alarms=_false_alarms(errors, wrong[np.argsort(-scores[wrong], kind="stable")][:examples]),
        alarm_count=len(wrong),
        misses=_misses(errors, share, lost[np.argsort(-share[lost], kind="stable")][:examples]),
        miss_count=len(lost),
        without_object={
            label: int(counts[label]) for label in np.flatnonzero(counts).tolist() if not errors.num_objects[label]
        },
    )


def _found_from(errors: DetectionErrors, score: float) -> Bools:
    """(M,) which objects are found by a detection of at least this score."""
    by = errors.found_by
    return (by >= 0) & (np.append(errors.found["scores"], -1.0)[by] >= score)


def _recall_by(size: Floats, limits: Sequence[float], errors: DetectionErrors, score: float) -> list[RecallRow]:
    counted, found = ~errors.objects["difficult"], _found_from(errors, score)
    rows = []
    for low, high in pairwise(limits):
        inside = counted & (size >= low) & (size < high)
        hits = int((inside & found).sum()), int((inside & (errors.found_by >= 0)).sum())
        rows.append(RecallRow(low, high, int(inside.sum()), *hits))
    return rows


def _at_overlap(errors: DetectionErrors, threshold: float, score: float, ap: APRule) -> OverlapRow:
    per_class, outcome = ap_at(errors, threshold, ap)
    right, objects = outcome == TRUE_POSITIVE, int(errors.num_objects.sum())
    sure = int((right & (errors.found["scores"] >= score)).sum())
    recalls = (sure / objects, int(right.sum()) / objects) if objects else (math.nan, math.nan)
    return OverlapRow(threshold, mean_of(per_class), *recalls)


def _false_alarms(errors: DetectionErrors, rows: Ints) -> list[FalseAlarm]:
    found, objects = errors.found, errors.objects
    return [
        FalseAlarm(
            image=int(found["image"][row]),
            index=int(found["index"][row]),
            label=int(found["labels"][row]),
            score=float(found["scores"][row]),
            kind=KINDS[errors.kind[row]],
            object_index=int(objects["index"][place]) if place >= 0 else -1,
            object_label=int(objects["labels"][place]) if place >= 0 else 0,
            overlap=float(errors.overlap[row]),
        )
        for row, place in zip(rows.tolist(), errors.place[rows].tolist(), strict=True)
    ]


def _misses(errors: DetectionErrors, share: Floats, rows: Ints) -> list[Miss]:
    """Why: what finds it with a lower score goes before what is wrong about it."""
    found, objects = errors.found, errors.objects
    about = np.flatnonzero(errors.repairable)  # the surest error about an object that nobody finds
    surest = dict(zip(errors.place[about].tolist(), about.tolist(), strict=True))
    misses = []
    for row in rows.tolist():
        by = int(errors.found_by[row])
        why = "score"
        if by < 0:
            by = surest.get(row, -1)
            why = KINDS[errors.kind[by]] if by >= 0 else "missed"
        misses.append(
            Miss(
                image=int(objects["image"][row]),
                index=int(objects["index"][row]),
                label=int(objects["labels"][row]),
                size=float(share[row]),
                why=why,
                by=int(found["index"][by]) if by >= 0 else -1,
                by_label=int(found["labels"][by]) if by >= 0 else 0,
                score=float(found["scores"][by]) if by >= 0 else 0.0,
                overlap=float(errors.overlap[by]) if by >= 0 else 0.0,
            )
        )
    return misses
