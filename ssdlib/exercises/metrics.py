"""Checkers for the chapter on evaluation."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check
from ssdlib.metrics import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, judge


def check_outcomes(answer: Answer) -> None:
    """Check `outcomes(overlaps, difficult, threshold)`: TRUE_POSITIVE, FALSE_POSITIVE or IGNORED, K times.

    `overlaps` is (K, M), the IoU of the detections, best score first, with the objects of their class in one image;
    `difficult` is (M,) bool.
    """
    check(answer, _outcome_cases(), _OUTCOME_MISTAKES)


def _outcome_cases() -> list[Case]:
    lists = [
        ("two detections, each on an object of its own", [[0.75, 0.0], [0.0, 0.875]], [False, False], 0.5),
        ("an overlap below the threshold", [[0.375]], [False], 0.5),
        ("an object that is found twice", [[0.75], [0.875]], [False], 0.5),
        ("an overlap of exactly the threshold, which is enough", [[0.5]], [False], 0.5),
        ("another threshold", [[0.625], [0.875]], [False], 0.75),
        ("a difficult object that is found", [[0.75, 0.0], [0.0, 0.75]], [True, False], 0.5),
        ("a difficult object that is found twice", [[0.75], [0.625]], [True], 0.5),
        ("a detection near a difficult object, but below the threshold", [[0.25]], [True], 0.5),
        ("a difficult object that is overlapped more than another one", [[0.625, 0.75]], [False, True], 0.5),
        ("a taken object that is overlapped more than a free one", [[0.875, 0.5], [0.75, 0.625]], [False, False], 0.5),
    ]
    cases = []
    for what, overlaps, difficult, threshold in lists:
        arguments = (torch.tensor(overlaps), torch.tensor(difficult), threshold)
        cases.append(Case(what, arguments, _judged(*arguments)))
    none = torch.zeros(0, dtype=torch.bool)
    return [
        *cases,
        Case("two detections in an image without objects", (torch.zeros(2, 0), none, 0.5), [FALSE_POSITIVE] * 2),
        Case("an object and no detection", (torch.zeros(0, 1), none.new_zeros(1), 0.5), []),
    ]


def _judged(overlaps: Tensor, difficult: Tensor, threshold: float) -> list[int]:
    overlap, best = overlaps.max(dim=1)
    return list(map(int, judge(best.numpy(), overlap.double().numpy(), difficult.numpy(), threshold)))


def _outcomes(
    overlaps: Tensor,
    difficult: Tensor,
    threshold: float,
    *,
    strict: bool = False,
    known: bool = True,
    each_once: str = "objects",
    instead: bool = False,
    no_objects: bool = True,
) -> list[int]:
    """The right answer as a loop, with a switch for each thing that goes wrong."""
    taken: set[int] = set()
    results = []
    for row in overlaps:
        if no_objects and not len(row):
            results.append(FALSE_POSITIVE)
            continue
        if instead:
            row = torch.tensor([-1.0 if j in taken and not difficult[j] else float(v) for j, v in enumerate(row)])
        best = int(row.argmax())
        hit = row[best] > threshold if strict else row[best] >= threshold
        ignored = known and bool(difficult[best])
        again = best in taken and (each_once == "all" or (each_once == "objects" and not ignored))
        if not hit or again:
            results.append(FALSE_POSITIVE)
        else:
            taken.add(best)
            results.append(IGNORED if ignored else TRUE_POSITIVE)
    return results


def _swapped(overlaps: Tensor, difficult: Tensor, threshold: float) -> list[int]:
    wrong = {IGNORED: FALSE_POSITIVE}
    return [wrong.get(result, result) for result in _outcomes(overlaps, difficult, threshold)]


_OUTCOME_MISTAKES = [
    Mistake(
        "an overlap of exactly the threshold is enough.",
        lambda *a: _outcomes(*a, strict=True),
    ),
    Mistake(
        "each object counts once. Remember which ones are taken.",
        lambda *a: _outcomes(*a, each_once="nothing"),
    ),
    Mistake(
        "a detection that matches a difficult object is neither true nor false. It is ignored.",
        lambda *a: _outcomes(*a, known=False),
    ),
    Mistake(
        "a detection that matches a difficult object is no false positive. It is ignored.",
        _swapped,
    ),
    Mistake(
        "every detection that matches a difficult object is ignored, not only the first one.",
        lambda *a: _outcomes(*a, each_once="all"),
    ),
    Mistake(
        "a detection looks at the object that it overlaps most, difficult ones included. Do not take them out before.",
        lambda overlaps, difficult, t: _outcomes(overlaps[:, ~difficult], difficult[~difficult], t),
    ),
    Mistake(
        "a detection looks at the object that it overlaps most, and at no other, even if that one is taken.",
        lambda *a: _outcomes(*a, instead=True),
    ),
    Mistake(
        "an image may have no object of the class. Then there is no largest overlap, and every detection is wrong.",
        lambda *a: _outcomes(*a, no_objects=False),
    ),
]
