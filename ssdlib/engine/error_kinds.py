"""Kinds of errors, and the mAP that each costs, after TIDE.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors" (2020), and the order in which
its program asks where several kinds fit. The program differs from us in what is a true positive (COCO's rule; ours is
VOC's, that of `ssdlib.metrics.evaluate`), in AP (101 recalls; ours is the area or 11 points), and in the classes of the
mean. It counts a class that has detections and no object as 0; we leave it out. It leaves out a class with no detection
and, once mended, nothing to find; here that is 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from ssdlib.metrics import (
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    APRule,
    Bools,
    Floats,
    Images,
    Ints,
    Outcomes,
    Rows,
    average_precision,
    best_objects,
    gather_rows,
    judge,
    recall_precision,
)

KINDS = ("class", "localization", "both", "duplicate", "background", "missed")
"""In the order of TIDE's tables. The last one is of objects, the others are of false detections."""

CLASS, LOCALIZATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))
_NO_KIND = -1


@dataclass(frozen=True, eq=False)
class DetectionErrors:
    """What `find_errors` returns: K detections and M objects of all images, one under the other.

    Attributes:
        found: of the detections "boxes" (K, 4), "labels", "scores", "image" and "index" (its row there), (K,) each.
        objects: of the objects "boxes" (M, 4), "labels", "difficult", "image" and "index", (M,) each.
        outcome: (K,) TRUE_POSITIVE, FALSE_POSITIVE or IGNORED, as in `ssdlib.metrics.evaluate`.
        kind: (K,) number in KINDS of a false positive, -1 for any other detection.
        place: (K,) the object that a true positive found, a duplicate found again, or an error of class or localization
            is about; -1 for all others.
        overlap: (K,) IoU with that object, 0 without one.
        repairable: (K,) errors of class or localization that become a true positive when they are mended.
        found_by: (M,) the true positive that found the object, or -1.
        missed: (M,) objects that count, that nobody found and that no error of class or localization is about.
        best, best_overlap: (K,) object of its class that the detection overlaps most, difficult ones too; -1 and 0.
        num_objects: (C,) objects that count, of each label.
        iou_threshold, least_overlap: TIDE's t_f and t_b.
    """

    found: Rows = field(repr=False)
    objects: Rows = field(repr=False)
    outcome: Outcomes = field(repr=False)
    kind: Outcomes = field(repr=False)
    place: Ints = field(repr=False)
    overlap: Floats = field(repr=False)
    repairable: Bools = field(repr=False)
    found_by: Ints = field(repr=False)
    missed: Bools = field(repr=False)
    best: Ints = field(repr=False)
    best_overlap: Floats = field(repr=False)
    num_objects: Ints
    iou_threshold: float
    least_overlap: float

    @property
    def seen_by_ap(self) -> Bools:
        """(K,) which detections an AP or a cost depends on.

        Those of classes with an object that counts, and errors of class, which are about such an object. All of them
        where no object counts.
        """
        if not self.num_objects.any():
            return np.ones(len(self.kind), dtype=np.bool_)
        return (self.num_objects[self.found["labels"]] > 0) | (self.kind == CLASS)

    def counts(self, min_score: float = 0.0, every_class: bool = True) -> dict[str, int]:
        """How many errors of each kind there are.

        Args:
            min_score: of false detections, those with at least this score.
            every_class: also those that `seen_by_ap` leaves out.
        """
        counted = (self.found["scores"] >= min_score) & (self.kind >= 0)
        counted &= every_class | self.seen_by_ap
        of_kind = np.bincount(self.kind[counted], minlength=len(KINDS))
        of_kind[MISSED] = self.missed.sum()
        return dict(zip(KINDS, of_kind.tolist(), strict=True))


def find_errors(
    detections: Images,
    targets: Images,
    num_classes: int,
    iou_threshold: float = 0.5,
    least_overlap: float = 0.1,
) -> DetectionErrors:
    """Give each false detection, and each object that was missed, the kind of its error.

    True and false positives are those of `ssdlib.metrics.evaluate`; a detection that it ignores is no error. For a
    false positive, let `own` be its largest IoU with an object of its class, `other` that with an object of another
    class, t_f the `iou_threshold` and t_b the `least_overlap`. The first of these that holds is its kind:

    1. localization: t_b <= own < t_f. The right class, at a bad place.
    2. class: other >= t_f. The right place, the wrong class.
    3. duplicate: own >= t_f. A detection with a better score has found this object.
    4. background: own < t_b and other < t_b.
    5. both: what is left, t_b <= other < t_f. Neither class nor place is right.

    An object is *missed* if no detection found it and no error of class or localization is about it (that is: has it as
    the object of `own` or of `other`). Difficult objects are left out of all this, but for the detections of them that
    are ignored.

    Args:
        detections, targets, num_classes: as for `ssdlib.metrics.evaluate`.
        iou_threshold: TIDE's t_f, the overlap that is enough.
        least_overlap: TIDE's t_b, below which a box has nothing to do with an object.

    Raises:
        ValueError: as `ssdlib.metrics.evaluate`, and unless 0 < least_overlap < iou_threshold <= 1.
    """
    if not 0 < least_overlap < iou_threshold <= 1:
        raise ValueError(f"0 < {least_overlap} < {iou_threshold} <= 1 must hold for least_overlap and iou_threshold")
    found, objects = gather_rows(detections, targets, num_classes)
    groups = found["image"] * num_classes + found["labels"]
    object_groups = objects["image"] * num_classes + objects["labels"]
    best, best_overlap = best_objects(found["boxes"], groups, objects["boxes"], object_groups)
    ranking = np.lexsort((-found["scores"], found["labels"]))  # as `evaluate`
    outcome = np.empty(len(ranking), dtype=np.int8)
    outcome[ranking] = judge(best[ranking], best_overlap[ranking], objects["difficult"], iou_threshold)

    counted = np.flatnonzero(~objects["difficult"])
    own, own_overlap = _best_of(found["boxes"], groups, objects["boxes"], object_groups, counted)
    other, other_overlap = np.full(len(groups), -1, dtype=np.int64), np.zeros(len(groups))
    for label in np.unique(found["labels"]):
        rows = np.flatnonzero(found["labels"] == label)
        others = counted[objects["labels"][counted] != label]
        other[rows], other_overlap[rows] = _best_of(
            found["boxes"][rows], found["image"][rows], objects["boxes"], objects["image"], others
        )

    kind = np.select(
        [
            outcome != FALSE_POSITIVE,
            (own_overlap >= least_overlap) & (own_overlap < iou_threshold),
            other_overlap >= iou_threshold,
            own_overlap >= iou_threshold,
            other_overlap < least_overlap,
        ],
        [_NO_KIND, LOCALIZATION, CLASS, DUPLICATE, BACKGROUND],
        default=BOTH,
    ).astype(np.int8)
    of_own = (kind == LOCALIZATION) | (kind == DUPLICATE)
    right = outcome == TRUE_POSITIVE
    place = np.select([right, of_own, kind == CLASS], [best, own, other], default=-1)
    overlap = np.select([right, of_own, kind == CLASS], [best_overlap, own_overlap, other_overlap], default=0.0)

    found_by = np.full(len(objects["labels"]), -1, dtype=np.int64)
    found_by[place[right]] = np.flatnonzero(right)
    free = ~objects["difficult"] & (found_by < 0)
    about = np.flatnonzero((kind == CLASS) | (kind == LOCALIZATION))
    about = about[free[place[about]]]
    about = about[np.argsort(-found["scores"][about], kind="stable")]
    _, first = np.unique(place[about], return_index=True)  # the best score of those that are about the same object
    repairable = np.zeros(len(kind), dtype=np.bool_)
    repairable[about[first]] = True
    missed = free.copy()
    missed[place[about]] = False
    num_objects = np.bincount(objects["labels"][counted], minlength=num_classes)
    return DetectionErrors(
        found, objects, outcome, kind, place, overlap, repairable, found_by, missed, best, best_overlap, num_objects,
        iou_threshold, least_overlap,
    )  # fmt: skip


def mended(errors: DetectionErrors, kinds: Collection[str] = (), ap: APRule = "area") -> dict[int, float]:
    """AP of each class if the errors of some kinds were mended; with no kind, the AP as it is.

    How each is mended:

    - class, localization: of all errors of these two kinds that are about the same object, if nobody has found it, the
      one with the best score can be repaired (the first of equals). If its kind is among `kinds`, it becomes a true
      positive, with its score, of the class of the object. All other errors of these kinds are removed.
    - both, duplicate, background: removed.
    - missed: the object is removed from those that there are to find. Where a class then has nothing left to find, its
      AP is 0 with a false detection left, and else 1.

    So mending more kinds never lowers the AP of a class, and mending all makes it 1.

    Args:
        errors: of `find_errors`.
        kinds: names of KINDS.
        ap: "area" or "11point", as for `ssdlib.metrics.evaluate`.

    Returns:
        label -> AP, for the classes with an object that counts.

    Raises:
        ValueError: for a name that is no kind.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"{unknown[0]!r} is no kind of error: they are {', '.join(KINDS)}")
    mend = np.isin(errors.kind, [KINDS.index(name) for name in kinds])
    repaired = mend & errors.repairable
    labels, outcome = errors.found["labels"].copy(), errors.outcome.copy()
    labels[repaired] = errors.objects["labels"][errors.place[repaired]]
    outcome[repaired] = TRUE_POSITIVE
    kept = ~mend | repaired
    gone = np.bincount(errors.objects["labels"][errors.missed], minlength=len(errors.num_objects))
    left = errors.num_objects - gone * ("missed" in kinds)
    return _ap_by_class(labels[kept], errors.found["scores"][kept], outcome[kept], errors.num_objects, left, ap)


def costs(errors: DetectionErrors, ap: APRule = "area") -> dict[str, dict[int, float]]:
    """What each kind costs each class: AP with only this kind mended, less AP as it is (TIDE's dAP, 0..1, by class).

    The mean over the classes is the mAP that the kind costs. These do not add up to what is missing to 1: an error may
    hide another one.

    Returns:
        kind -> label -> AP gained, for the classes with an object that counts.
    """
    now = mended(errors, (), ap)
    return {kind: _less(mended(errors, (kind,), ap), now) for kind in KINDS}


def one_sided_costs(errors: DetectionErrors, ap: APRule = "area") -> dict[str, float]:
    """TIDE's two special costs: the mAP gained if no false detection were left, and if nothing were left unfound.

    Returns:
        "false_positives": all of them removed. "false_negatives": every object that no detection found removed from
        those that there are to find, as `mended` does with missed ones. nan without objects.
    """
    now = mended(errors, (), ap)
    kept = errors.outcome != FALSE_POSITIVE
    labels, scores, outcome = errors.found["labels"], errors.found["scores"], errors.outcome
    hits = np.bincount(errors.objects["labels"][errors.found_by >= 0], minlength=len(errors.num_objects))
    count = errors.num_objects
    precise = _ap_by_class(labels[kept], scores[kept], outcome[kept], count, count, ap)
    complete = _ap_by_class(labels, scores, outcome, count, hits, ap)
    return {
        "false_positives": mean_of(_less(precise, now)),
        "false_negatives": mean_of(_less(complete, now)),
    }


def ap_at(errors: DetectionErrors, iou_threshold: float, ap: APRule = "area") -> tuple[dict[int, float], Outcomes]:
    """AP of each class, and the (K,) outcomes, by another overlap threshold; as `ssdlib.metrics.evaluate` has them."""
    labels, scores = errors.found["labels"], errors.found["scores"]
    ranking = np.lexsort((-scores, labels))
    outcome = np.empty(len(ranking), dtype=np.int8)
    outcome[ranking] = judge(
        errors.best[ranking], errors.best_overlap[ranking], errors.objects["difficult"], iou_threshold
    )
    return _ap_by_class(labels, scores, outcome, errors.num_objects, errors.num_objects, ap), outcome


def mean_of(per_class: dict[int, float]) -> float:
    """The mean over the classes, nan if there is none: mAP, of AP by class."""
    return math.fsum(per_class.values()) / len(per_class) if per_class else math.nan


def _best_of(boxes: Floats, groups: Ints, objects: Floats, object_groups: Ints, among: Ints) -> tuple[Ints, Floats]:
    """`best_objects` among some of the objects, by their index; the result has indices among all."""
    index, overlap = best_objects(boxes, groups, objects[among], object_groups[among])
    return np.append(among, -1)[index], overlap


def _ap_by_class(
    labels: Ints, scores: Floats, outcome: Outcomes, num_objects: Ints, left: Ints, ap: APRule
) -> dict[int, float]:
    """AP of each class of `num_objects`, if there are so many `left` to find."""
    ranking = np.lexsort((-scores, labels))
    starts = np.searchsorted(labels[ranking], np.arange(len(num_objects) + 1))
    per_class = {}
    for label in np.flatnonzero(num_objects).tolist():
        ranked = outcome[ranking[starts[label] : starts[label + 1]]]
        if left[label]:
            per_class[label] = average_precision(*recall_precision(ranked, int(left[label])), ap)
        else:
            per_class[label] = float(not (ranked == FALSE_POSITIVE).any())
    return per_class


def _less(gained: dict[int, float], now: dict[int, float]) -> dict[int, float]:
    return {label: value - now[label] for label, value in gained.items()}
