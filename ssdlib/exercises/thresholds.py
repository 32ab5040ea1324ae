"""Checkers for the chapter on thresholds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_best_threshold(answer: Answer) -> None:
    """Check `best_threshold(scores, right, objects, miss, false)`: the score from which on reporting costs the least.

    `scores` (K,) are in any order, `right` (K,) bool, the rest numbers. Of equal costs the highest threshold counts; it
    is infinity where reporting nothing costs the least.
    """
    check(answer, _cases(), _MISTAKES)


def _cases() -> list[Case]:
    # Scores are sums of powers of two, so that any arithmetic compares them exactly.
    lists: list[tuple[str, list[float], list[int], int, float, float]] = [
        ("two right boxes, and then a wrong one", [0.875, 0.75, 0.5], [1, 1, 0], 2, 1, 1),
        ("a dear miss, worth some wrong boxes", [0.875, 0.75, 0.5, 0.25], [1, 0, 0, 1], 2, 4, 1),
        ("a dear false alarm", [0.875, 0.75, 0.5, 0.25], [1, 0, 0, 1], 2, 1, 4),
        ("a cheap point behind a rise", [0.875, 0.75, 0.625, 0.5, 0.25], [1, 1, 0, 1, 0], 4, 3, 1),
        ("scores in another order", [0.875, 0.25, 0.5], [1, 0, 1], 2, 1, 1),
        ("equal scores, which are reported together", [0.875, 0.5, 0.5, 0.5], [1, 1, 0, 0], 2, 1.5, 1),
        ("two thresholds of equal cost, the higher of which counts", [0.875, 0.5, 0.25], [1, 0, 1], 2, 1, 1),
        ("boxes of which none is right, where nothing is the best report", [0.875, 0.5], [0, 0], 3, 1, 1),
        ("no box at all", [], [], 3, 1, 1),
    ]
    cases = []
    for what, scores, right, objects, miss, false in lists:
        arguments = (torch.tensor(scores), torch.tensor(right, dtype=torch.bool), objects, miss, false)
        cases.append(Case(what, arguments, _best(*arguments)))
    return cases


def _best(
    scores: Tensor,
    right: Tensor,
    objects: int,
    miss: float,
    false: float,
    *,
    nothing: bool = True,
    last: bool = False,
    first_rise: bool = False,
    strict: bool = False,
    given_order: bool = False,
    one_by_one: bool = False,
) -> float:
    """The right answer, with a switch for each thing that goes wrong."""
    found: list[tuple[float, float]] = [(miss * objects, math.inf)] if nothing else []
    order = range(len(scores)) if given_order else scores.argsort(descending=True, stable=True).tolist()
    hits = reported = 0
    for position, row in enumerate(order):
        threshold = float(scores[row])
        if given_order or one_by_one:
            hits, reported = hits + bool(right[row]), position + 1
        else:
            mine = scores > threshold if strict else scores >= threshold
            hits, reported = int((mine & right).sum()), int(mine.sum())
        found.append((miss * (objects - hits) + false * (reported - hits), threshold))
    best = found[0]
    for cost, threshold in found[1:]:
        if cost < best[0] or (last and cost == best[0]):
            best = (cost, threshold)
        elif first_rise and cost > best[0]:
            break
    return best[1]


def _swapped(scores: Tensor, right: Tensor, objects: int, miss: float, false: float) -> Any:
    return _best(scores, right, objects, false, miss)


def _without_misses(scores: Tensor, right: Tensor, objects: int, miss: float, false: float) -> Any:
    return _best(scores, right, int(right.sum()) if len(right) else 0, 0.0, false)


def _formula(scores: Tensor, right: Tensor, objects: int, miss: float, false: float) -> Any:
    return false / (false + miss)


_MISTAKES = [
    Mistake("which price belongs to what is missed, and which to what is wrong?", _swapped),
    Mistake("the objects that are missed cost something, too.", _without_misses),
    Mistake("to report nothing is a choice as well, and costs all the misses.", lambda *a: _best(*a, nothing=False)),
    Mistake("of several thresholds that cost the same, the highest counts.", lambda *a: _best(*a, last=True)),
    Mistake("the cost may rise and then fall further. Look at all thresholds.", lambda *a: _best(*a, first_rise=True)),
    Mistake("a box whose score is the threshold is reported: >=, not >.", lambda *a: _best(*a, strict=True)),
    Mistake("the formula is for scores that are chances. Here, count what is right.", _formula),
    Mistake("the scores come in any order. Sort them first.", lambda *a: _best(*a, given_order=True)),
    Mistake(
        "boxes of equal score are reported together. A threshold cannot stand between them.",
        lambda *a: _best(*a, one_by_one=True),
    ),
]
