"""Checker for the chapter on what came after SSD."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_cheapest_way(answer: Answer) -> None:
    """Check `cheapest_way(cost)`: for each row of (M, P) costs a column of its own, so that the sum is smallest."""
    check(answer, _cases(), _MISTAKES)


def _cheapest(cost: Tensor) -> Tensor:
    objects, predictions = cost.shape
    ways = list(itertools.permutations(range(predictions), objects))
    sums = torch.tensor([sum(float(cost[i, j]) for i, j in enumerate(way)) for way in ways])
    return torch.tensor(ways, dtype=torch.int64).reshape(len(ways), objects)[int(sums.argmin())]


def _cases() -> list[Case]:
    tables = [
        ("one object, three predictions", [[3.0, 1.0, 2.0]]),
        ("two objects with different favourites", [[1.0, 5.0, 4.0], [6.0, 7.0, 2.0]]),
        ("two objects with the same favourite", [[1.0, 2.0, 9.0], [1.5, 6.0, 9.0]]),
        ("the cheapest pair of all is not a part of the cheapest way", [[1.0, 2.0], [2.0, 9.0]]),
        # No exchange of two predictions makes first come, first served any better.
        ("three objects that all have to move on, at costs below zero", [[-8.0, -7, 0], [-1, -9, -8], [-9, -1, -1]]),
        ("more predictions than objects", [[9.0, 8.0, 7.5, 1.0, 2.0], [9.0, 8.0, 9.0, 1.25, 4.0]]),
    ]
    return [Case(what, (torch.tensor(rows),), _cheapest(torch.tensor(rows))) for what, rows in tables]


def _greedy(cost: Tensor) -> Tensor:
    free, own = cost.clone(), torch.full((len(cost),), -1)
    for _ in range(len(cost)):
        i, j = divmod(int(free.argmin()), cost.shape[1])
        own[i], free[i, :], free[:, j] = j, torch.inf, torch.inf
    return own


def _in_order(cost: Tensor) -> Tensor:
    own: list[int] = []
    for row in cost:
        own.append(min((j for j in range(len(row)) if j not in own), key=lambda j: float(row[j])))
    return torch.tensor(own)


_MISTAKES = [
    Mistake(
        "each object has its favourite, but two of them have the same one. No prediction may be given twice.",
        lambda cost: cost.argmin(dim=1),
    ),
    Mistake(
        "the cheapest pair first, then the cheapest of the rest: that is greedy, and can leave a dear rest.", _greedy
    ),
    Mistake("the first object took its favourite, and the others what was left. Compare whole ways.", _in_order),
    Mistake(
        "the sum has to be as small as can be, not as large.",
        lambda cost: _cheapest(-cost),
    ),
]
