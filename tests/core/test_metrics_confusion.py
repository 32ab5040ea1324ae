"""The confusion matrix: a slow loop, small cases by hand, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.metric_cases import Case, cases
from torch import Tensor
from torchvision.ops import box_iou

from ssdlib.metrics import FALSE_POSITIVE, TRUE_POSITIVE, confusion_matrix, evaluate

CAT, DOG = 1, 2
A, B = [0.0, 0, 10, 10], [20.0, 0, 30, 10]


def image(*rows: tuple[list[float], int, float]) -> dict[str, Tensor]:
    """Detections (box, label, score), or objects with a score of 0, or of 1 for a difficult one."""
    boxes = torch.tensor([row[0] for row in rows]).reshape(-1, 4)
    scores = torch.tensor([row[2] for row in rows])
    labels = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, "scores": scores, "difficult": scores == 1}


def shifted(box: list[float], by: float) -> list[float]:
    return [box[0] + by, box[1], box[2] + by, box[3]]


@pytest.mark.parametrize(
    ("detections", "objects", "counts", "kinds"),
    [
        ([(A, CAT, 0.9)], [(A, CAT, 0)], {(CAT, CAT): 1}, (0, 0)),
        ([(A, DOG, 0.9)], [(A, CAT, 0)], {(CAT, DOG): 1}, (0, 0)),  # the wrong class
        ([], [(A, CAT, 0)], {(CAT, 0): 1}, (0, 0)),  # missed
        ([(A, CAT, 0.29)], [(A, CAT, 0)], {(CAT, 0): 1}, (0, 0)),  # below the score
        ([(B, CAT, 0.9)], [(A, CAT, 0)], {(CAT, 0): 1, (0, CAT): 1}, (0, 0)),  # a detection of nothing
        ([(A, CAT, 0.9), (A, CAT, 0.8)], [(A, CAT, 0)], {(CAT, CAT): 1, (0, CAT): 1}, (1, 0)),  # a duplicate
        ([(shifted(A, 5), CAT, 0.9)], [(A, CAT, 0)], {(CAT, 0): 1, (0, CAT): 1}, (0, 1)),  # IoU 1/3: misplaced
        ([(shifted(A, 9), CAT, 0.9)], [(A, CAT, 0)], {(CAT, 0): 1, (0, CAT): 1}, (0, 0)),  # IoU 1/19: nothing
        ([(A, CAT, 0.9)], [(A, CAT, 1)], {}, (0, 0)),  # difficult: as if neither were there
        ([(A, DOG, 0.9)], [(A, CAT, 1)], {(0, DOG): 1}, (0, 0)),
        ([(A, DOG, 0.9), (A, CAT, 0.4)], [(A, CAT, 0)], {(CAT, CAT): 1, (0, DOG): 1}, (0, 0)),  # the right class first
        ([(A, DOG, 0.9), (A, DOG, 0.4)], [(A, CAT, 0)], {(CAT, DOG): 1, (0, DOG): 1}, (0, 0)),  # one object, once
    ],
)
def test_by_hand(
    detections: list[tuple[list[float], int, float]],
    objects: list[tuple[list[float], int, float]],
    counts: dict[tuple[int, int], int],
    kinds: tuple[int, int],
) -> None:
    matrix = confusion_matrix([image(*detections)], [image(*objects)], 3)
    assert {(int(i), int(j)): int(matrix.counts[i, j]) for i, j in zip(*matrix.counts.nonzero(), strict=True)} == counts
    assert (matrix.duplicates.sum(), matrix.misplaced.sum()) == kinds


def slow_counts(case: Case, num_classes: int, min_score: float) -> np.ndarray:
    """Each false positive in turn looks at every object that nobody found."""
    counts = np.zeros((num_classes, num_classes), dtype=int)
    result = evaluate(*case, num_classes)
    for number, (found, objects) in enumerate(zip(*case, strict=True)):
        overlaps = box_iou(found["boxes"].double(), objects["boxes"].double())
        free = {m for m in range(len(objects["labels"])) if not objects["difficult"][m]}
        wrong = []
        for k in range(len(found["labels"])):
            label = int(found["labels"][k])
            if found["scores"][k] < min_score:
                continue
            curve = result.curves.get(label)
            if curve is None:  # a class without an object that counts: ignored on a difficult one, else wrong
                same = (objects["labels"] == label).nonzero().flatten()
                hit = len(same) > 0 and overlaps[k, same].max() >= 0.5
                wrong += [] if hit else [k]
                continue
            (row,) = ((curve.image == number) & (curve.index == k)).nonzero()[0]
            if curve.outcome[row] == TRUE_POSITIVE:
                counts[label, label] += 1
                same = [m for m in range(len(objects["labels"])) if objects["labels"][m] == label]
                free -= {max(same, key=lambda m: (float(overlaps[k, m]), -m))}
            elif curve.outcome[row] == FALSE_POSITIVE:
                wrong.append(k)
        for k in sorted(wrong, key=lambda k: -float(found["scores"][k])):
            best = max(sorted(free), key=lambda m: float(overlaps[k, m]), default=None)
            if best is not None and overlaps[k, best] >= 0.5:
                free -= {best}
                counts[int(objects["labels"][best]), int(found["labels"][k])] += 1
            else:
                counts[0, int(found["labels"][k])] += 1
        for m in free:
            counts[int(objects["labels"][m]), 0] += 1
    return counts


@given(cases(), st.sampled_from([0.0, 0.1, 0.3]))
def test_equals_the_slow_loop(case: Case, min_score: float) -> None:
    matrix = confusion_matrix(*case, 3, min_score=min_score)
    assert matrix.counts.tolist() == slow_counts(case, 3, min_score).tolist()


@given(cases())
def test_every_object_and_every_detection_is_counted_once(case: Case) -> None:
    detections, targets = case
    matrix = confusion_matrix(detections, targets, 3, min_score=0.0)
    for label in (CAT, DOG):
        objects = sum(int(((t["labels"] == label) & ~t["difficult"]).sum()) for t in targets)
        assert matrix.counts[label].sum() == objects
    found = sum(len(d["labels"]) for d in detections)
    on_difficult = found - matrix.counts[:, 1:].sum()
    assert 0 <= on_difficult <= found * any(bool(t["difficult"].any()) for t in targets)
    assert matrix.counts[0, 0] == 0
    assert (matrix.duplicates + matrix.misplaced <= matrix.counts[0]).all()
    right = {label: int((c.outcome == TRUE_POSITIVE).sum()) for label, c in evaluate(*case, 3).curves.items()}
    assert {label: matrix.counts[label, label] for label in right} == right


def test_nothing_at_all() -> None:
    matrix = confusion_matrix([], [], 3)
    assert matrix.counts.shape == (3, 3)
    assert not matrix.counts.any()


def test_overlaps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0 <= 0\.6 < 0\.5 <= 1"):
        confusion_matrix([], [], 3, least_overlap=0.6)
