"""Evaluation: from detections and annotated objects to precision, recall, AP and mAP.

The steps: `best_objects` pairs each detection with the object that it overlaps most, `judge` makes it a true
positive, a false positive or ignored, `recall_precision` counts down the ranking, and `average_precision` turns
the curve into one number. `evaluate` runs them on all images and classes at once.

The rules are those of the PASCAL VOC development kit (VOCevaldet.m; Everingham et al., "The PASCAL Visual Object
Classes (VOC) Challenge", 2010). `confusion_matrix` says what was taken for what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Outcomes = npt.NDArray[np.int8]
Images = Sequence[Mapping[str, Tensor]]  # one dict an image
Rows = dict[str, npt.NDArray[Any]]
APRule = Literal["area", "11point"]

FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, -1  # what becomes of a detection


@dataclass(frozen=True, eq=False)
class ClassCurve:
    """The K detections of one class from the best score to the worst, with recall and precision after each.

    An ignored detection repeats the values before it, and precision is 0 until a detection has counted: draw the
    curve from the rows with `outcome != IGNORED`.
    """

    recall: Floats  # (K,)
    precision: Floats  # (K,)
    scores: Floats  # (K,)
    image: Ints  # (K,) which image the detection is in
    index: Ints  # (K,) its row in that image
    overlap: Floats  # (K,) largest IoU with an object of its class in its image, 0 without one
    outcome: Outcomes  # (K,) TRUE_POSITIVE, FALSE_POSITIVE or IGNORED
    num_objects: int  # objects that count: all but the difficult ones


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` returns. The dicts hold the classes with an object that counts, by label."""

    mean: float  # mAP: the mean of per_class, nan when that is empty
    per_class: dict[int, float]  # label -> AP
    iou_threshold: float
    ap: APRule
    inclusive: bool
    curves: dict[int, ClassCurve] = field(repr=False)


def evaluate(
    detections: Images,
    targets: Images,
    num_classes: int,
    iou_threshold: float = 0.5,
    ap: APRule = "area",
    inclusive: bool = False,
) -> Evaluation:
    """Average precision (AP) of each class, and their mean (mAP), by the rules of PASCAL VOC.

    For each class, its detections in all images are ranked by score, in the order given where scores are equal.
    Going down, each detection looks at the object of its class in its image that it overlaps most. If that overlap
    is below the threshold, it is a false positive. Else, if the object is difficult, the detection is ignored; if
    no detection found the object before, it is a true positive; if one did, it is a duplicate, a false positive.
    A class without an object that counts (none, or only difficult ones) has no AP: it is left out of the mean.

    COCO differs: a detection takes the best object that is still free, so that a duplicate may find a neighbour;
    objects that count go before ignored ones; only the best 100 detections of a class in an image count; precision
    is read at 101 recalls. Where the objects of a class do not overlap each other, the outcomes agree.

    Args:
        detections: for each image "boxes" (K, 4) xyxy, "labels" (K,) integers and "scores" (K,); K = 0 is legal.
        targets: for each image "boxes" (M, 4) xyxy, "labels" (M,) integers and, if there are any, "difficult"
            (M,) bool; M = 0 is legal. Boxes are in any unit that detections and targets share. All tensors may be
            on any device and of any float type: the work is done on the CPU in float64.
        num_classes: number of classes with the background; labels are 1..num_classes - 1.
        iou_threshold: the overlap that is enough to find an object, 0 < iou_threshold <= 1.
        ap: "area" under the precision envelope (VOC 2010 and later) or "11point" (VOC 2007). They differ by some
            hundredths on the same detections: always say which.
        inclusive: the kit's whole-pixel rule: x_max is the last pixel inside the box, which is then
            x_max - x_min + 1 wide. For boxes in pixels only: adding 1 to fractions of an image makes nonsense.

    Raises:
        ValueError: naming image and value, for lists of different length, a missing key, a wrong shape, a label
            outside 1..num_classes - 1, a number that is not finite, a box with swapped corners.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}: it must be above 0 and at most 1")
    _require_rule(ap)
    found, objects = gather_rows(detections, targets, num_classes)

    # Image and class in one number: a detection is only ever compared with the objects of its own group.
    found_groups = found["image"] * num_classes + found["labels"]
    object_groups = objects["image"] * num_classes + objects["labels"]
    best, overlap = best_objects(found["boxes"], found_groups, objects["boxes"], object_groups, inclusive)

    ranking = np.lexsort((-found["scores"], found["labels"]))  # class by class, best score first; stable
    outcome = judge(best[ranking], overlap[ranking], objects["difficult"], iou_threshold)

    num_objects = np.bincount(objects["labels"][~objects["difficult"]], minlength=num_classes)
    class_starts = np.searchsorted(found["labels"][ranking], np.arange(num_classes + 1))
    curves, per_class = {}, {}
    for label, count in enumerate(num_objects.tolist()):
        if count == 0:
            continue
        rows = slice(class_starts[label], class_starts[label + 1])
        ranked = ranking[rows]
        recall, precision = recall_precision(outcome[rows], count)
        scores, image, index = (found[key][ranked] for key in ("scores", "image", "index"))
        curves[label] = ClassCurve(recall, precision, scores, image, index, overlap[ranked], outcome[rows], count)
        per_class[label] = average_precision(recall, precision, ap)
    mean = math.fsum(per_class.values()) / len(per_class) if per_class else math.nan
    return Evaluation(mean, per_class, iou_threshold, ap, inclusive, curves)


def best_objects(
    boxes_xyxy: Floats, groups: Ints, objects_xyxy: Floats, object_groups: Ints, inclusive: bool = False
) -> tuple[Ints, Floats]:
    """For each box, the object of its own group that it overlaps most, and that overlap (IoU).

    Args:
        boxes_xyxy: (K, 4).
        groups: (K,), any integers, for instance the number of the image.
        objects_xyxy: (M, 4), in the same unit.
        object_groups: (M,).
        inclusive: whether boxes include the pixels x_max and y_max, as in `evaluate`.

    Returns:
        (K,) indices, the first of several that overlap equally, -1 where none does; (K,) overlaps, 0 there.
    """
    order = np.argsort(object_groups, kind="stable")
    first = np.searchsorted(object_groups[order], groups, side="left")
    count = np.searchsorted(object_groups[order], groups, side="right") - first

    index = np.full(len(boxes_xyxy), -1, dtype=np.int64)
    overlap = np.zeros(len(boxes_xyxy))
    # Round n compares each box with the n-th object of its group, as long as there is one: every pair is computed
    # once, but never are all pairs in memory.
    active = np.arange(len(boxes_xyxy))
    for nth in range(count.max(initial=0)):
        active = active[count[active] > nth]
        candidate = order[first[active] + nth]
        candidate_overlap = _paired_iou(boxes_xyxy[active], objects_xyxy[candidate], inclusive)
        better = candidate_overlap > overlap[active]
        index[active[better]] = candidate[better]
        overlap[active[better]] = candidate_overlap[better]
    return index, overlap


def judge(best: Ints, overlap: Floats, difficult: Bools, iou_threshold: float = 0.5) -> Outcomes:
    """Decide what becomes of each detection of a ranking.

    Args:
        best: (K,), from `best_objects`, best score first. Several classes may follow each other.
        overlap: (K,), the same.
        difficult: (M,), of the objects.
        iou_threshold: the overlap that is enough.

    Returns:
        (K,) int8: TRUE_POSITIVE, FALSE_POSITIVE or IGNORED.
    """
    outcome = np.full(len(best), FALSE_POSITIVE, dtype=np.int8)
    hits = np.flatnonzero(overlap >= iou_threshold)
    _, first = np.unique(best[hits], return_index=True)  # where each object is found for the first time
    outcome[hits[first]] = TRUE_POSITIVE
    outcome[hits[difficult[best[hits]]]] = IGNORED
    return outcome


def recall_precision(outcome: npt.ArrayLike, num_objects: int) -> tuple[Floats, Floats]:
    """Recall and precision after each detection of one class, best score first.

    Args:
        outcome: (K,), from `judge`.
        num_objects: how many objects there were to find, difficult ones left out.

    Returns:
        (K,) recall, the share of the objects found so far; (K,) precision, the share of true positives among the
        detections so far, ignored ones left out (0 before the first that counts).

    Raises:
        ValueError: if there was nothing to find, as recall would be 0/0.
    """
    if num_objects < 1:
        raise ValueError(f"num_objects is {num_objects}: recall needs at least one object that counts")
    true_positives = np.cumsum(np.equal(outcome, TRUE_POSITIVE))
    counted = np.cumsum(np.not_equal(outcome, IGNORED))
    return true_positives / num_objects, true_positives / np.maximum(counted, 1)


def average_precision(recall: npt.ArrayLike, precision: npt.ArrayLike, ap: APRule = "area") -> float:
    """Sum up a precision-recall curve in one number.

    The envelope of precision at some recall is the best precision there or further right; 0 beyond the last recall.

    Args:
        recall: (K,), never falling.
        precision: (K,).
        ap: "area" under the envelope (VOC 2010), "11point": its mean at the recalls 0, 0.1, ..., 1 (VOC 2007).

    Returns:
        AP in 0..1; 0 for K = 0.

    Raises:
        ValueError: for another rule, shapes that differ, a recall that falls.
    """
    _require_rule(ap)
    recall, precision = np.asarray(recall, dtype=np.float64), np.asarray(precision, dtype=np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise ValueError(f"recall {recall.shape} and precision {precision.shape} must both have the shape (K,)")
    if (falls := np.diff(recall) < 0).any():
        raise ValueError(f"recall falls after index {falls.argmax()}, where it is {recall[falls.argmax()]}")
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if ap == "11point":
        # 3 / 10 is the same float here and in recall. 0.1 * 3, adding 0.1 and np.linspace give a larger one, and
        # 3 objects found of 10 would miss it. The 1e-9 is for recalls that come from some other sum.
        return float(envelope[np.searchsorted(recall, np.arange(11) / 10 - 1e-9)].sum() / 11)
    # A rectangle for each step of recall. fsum rounds only once: perfect detections give exactly 1, nothing gives more.
    return math.fsum(np.diff(recall, prepend=0.0) * envelope[:-1])


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """What the detections above some score mistook for what.

    Attributes:
        counts: (C, C), a row for each true label, a column for each predicted one. Row 0, background, holds the
            detections of nothing; column 0 the objects that were missed.
        duplicates: (C,), of row 0: detections of an object of their class that a better one had found before.
        misplaced: (C,), of row 0: detections that overlap an object of their class, but not enough.
    """

    counts: Ints
    duplicates: Ints
    misplaced: Ints


def confusion_matrix(
    detections: Images,
    targets: Images,
    num_classes: int,
    min_score: float = 0.3,
    iou_threshold: float = 0.5,
    least_overlap: float = 0.1,
) -> ConfusionMatrix:
    """Count what each detection and each object was taken for.

    Within each class the outcomes are those of `evaluate`. Then the false positives, best score first, each take the
    object of another class that they overlap most, among those that nobody found, if that overlap is enough: these are
    the confusions of classes. Whatever is left is background. Difficult objects are left out, and so is a detection
    of one.

    Args:
        detections, targets, num_classes, iou_threshold: as for `evaluate`.
        min_score: detections below it are not looked at: choose the score at which the detector would be used.
        least_overlap: from here to `iou_threshold`, a detection counts as misplaced.

    Raises:
        ValueError: as `evaluate`, and for a `least_overlap` that is not below the threshold.

    Source: the kinds of errors of Hoiem et al., "Diagnosing Error in Object Detectors" (2012), and Bolya et al., "TIDE"
    (2020), of which the 0.1 is.
    """
    if not 0 <= least_overlap < iou_threshold <= 1:
        raise ValueError(f"0 <= {least_overlap} < {iou_threshold} <= 1 must hold for least_overlap and iou_threshold")
    found, objects = gather_rows(detections, targets, num_classes)
    ranking = np.lexsort((-found["scores"], found["labels"]))  # as `evaluate`
    ranking = ranking[found["scores"][ranking] >= min_score]
    found = {key: column[ranking] for key, column in found.items()}
    groups = found["image"] * num_classes + found["labels"]
    best, overlap = best_objects(
        found["boxes"], groups, objects["boxes"], objects["image"] * num_classes + objects["labels"]
    )
    outcome = judge(best, overlap, objects["difficult"], iou_threshold)

    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    right = outcome == TRUE_POSITIVE
    np.add.at(counts, (found["labels"][right], found["labels"][right]), 1)
    free = ~objects["difficult"]
    free[best[right]] = False

    taken_for = np.zeros(len(ranking), dtype=np.int64)  # background, unless an object of another class is found
    wrong = np.flatnonzero(outcome == FALSE_POSITIVE)
    starts = np.searchsorted(objects["image"], np.arange(len(targets) + 1))
    for row in wrong[np.argsort(-found["scores"][wrong], kind="stable")]:
        start, stop = starts[found["image"][row]], starts[found["image"][row] + 1]
        there = start + np.flatnonzero(free[start:stop])
        if len(there):
            box = np.broadcast_to(found["boxes"][row], (len(there), 4))
            overlaps = _paired_iou(box, objects["boxes"][there], inclusive=False)
            if overlaps.max() >= iou_threshold:
                taken = there[overlaps.argmax()]
                free[taken] = False
                taken_for[row] = objects["labels"][taken]
    np.add.at(counts, (taken_for[wrong], found["labels"][wrong]), 1)
    counts[:, 0] += np.bincount(objects["labels"][free], minlength=num_classes)

    nothing = (outcome == FALSE_POSITIVE) & (taken_for == 0)
    kinds = (overlap >= iou_threshold, (overlap >= least_overlap) & (overlap < iou_threshold))
    of_kind = [np.bincount(found["labels"][nothing & kind], minlength=num_classes) for kind in kinds]
    return ConfusionMatrix(counts, *of_kind)


def _paired_iou(a_xyxy: Floats, b_xyxy: Floats, inclusive: bool) -> Floats:
    """Overlap of row i of a with row i of b: (N, 4), (N, 4) -> (N,), 0 where they share no area."""
    pixel = 1.0 if inclusive else 0.0
    size_a = a_xyxy[:, 2:] - a_xyxy[:, :2] + pixel
    size_b = b_xyxy[:, 2:] - b_xyxy[:, :2] + pixel
    size = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2]) + pixel
    shared = np.maximum(size, 0).prod(axis=1)
    union = size_a.prod(axis=1) + size_b.prod(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _require_rule(ap: str) -> None:
    if ap not in ("area", "11point"):
        raise ValueError(f"ap is {ap!r}: it must be 'area' or '11point'")


def gather_rows(detections: Images, targets: Images, num_classes: int) -> tuple[Rows, Rows]:
    """Put the rows of all images one under the other, checked.

    Returns:
        Of the detections "boxes", "labels", "scores", of the objects "boxes", "labels", "difficult"; both with "image"
        and "index", the image of each row and its row there.

    Raises:
        ValueError: as `evaluate`.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}: it counts the background, so it is at least 2")
    if len(detections) != len(targets):
        raise ValueError(f"detections has {len(detections)} images, but targets has {len(targets)}")
    found = _stack_images("detections", detections, "scores", num_classes)
    return found, _stack_images("targets", targets, "difficult", num_classes)


def _stack_images(name: str, images: Images, extra: str, num_classes: int) -> Rows:
    """Check all dicts and put their rows one under the other, with the "image" and "index" that each came from."""
    keys, extra_dtype = ("boxes", "labels", extra), torch.float64 if extra == "scores" else torch.bool
    parts: list[list[Tensor]] = []
    for image, entry in enumerate(images):
        for key in ("boxes", "labels", "scores") if extra == "scores" else ("boxes", "labels"):
            if not isinstance(entry, Mapping) or key not in entry:
                raise ValueError(f"{name}[{image}] is not a dict with {key!r}")
        values = [torch.as_tensor(entry[key]).detach() for key in keys if key in entry]
        if len(values) == 2:  # nothing is difficult
            values.append(torch.zeros(values[0].shape[:1], dtype=torch.bool))
        shapes = [tuple(value.shape) for value in values]
        count = shapes[0][:1]
        if shapes != [(*count, 4), count, count]:
            raise ValueError(f"{name}[{image}]: {keys} have shapes {shapes}, they must be (N, 4), (N,), (N,)")
        if count != (0,) and (values[1].is_floating_point() or values[1].dtype == torch.bool):
            raise ValueError(f"{name}[{image}]['labels'] are {values[1].dtype}, they must be integers")
        parts.append(values)

    counts = np.array([len(values[0]) for values in parts], dtype=np.int64)
    rows: Rows = {
        "boxes": _concatenate([values[0] for values in parts], torch.float64).reshape(-1, 4),
        "labels": _concatenate([values[1] for values in parts], torch.int64),
        extra: _concatenate([values[2] for values in parts], extra_dtype),
        "image": np.repeat(np.arange(len(images)), counts),
        "index": np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts),
    }
    boxes, labels = rows["boxes"], rows["labels"]
    for key, bad, rule in (
        ("labels", (labels < 1) | (labels >= num_classes), f"labels are 1..{num_classes - 1}"),
        (extra, ~np.isfinite(rows[extra]), "it must be finite"),
        ("boxes", ~np.isfinite(boxes).all(axis=1), "it must be finite"),
        ("boxes", (boxes[:, 2:] < boxes[:, :2]).any(axis=1), "it must be (x_min, y_min, x_max, y_max)"),
    ):
        if bad.any():
            row = bad.argmax()
            place = f"{name}[{rows['image'][row]}][{key!r}][{rows['index'][row]}]"
            raise ValueError(f"{place} is {rows[key][row].tolist()}: {rule}")
    return rows


def _concatenate(parts: list[Tensor], dtype: torch.dtype) -> npt.NDArray[Any]:
    """All parts in one array; in one copy from the device where they are alike."""
    if len({(part.dtype, part.device) for part in parts}) > 1:
        parts = [part.cpu().to(dtype) for part in parts]
    return torch.cat(parts or [torch.empty(0)]).cpu().to(dtype).numpy()
