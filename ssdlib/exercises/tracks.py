"""Checkers for the chapter on tracks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check

LINE, HALF = 100.0, 10.0


@dataclass(frozen=True)
class Boxes:
    """What the exercise needs of a `ssdlib.deploy.Found`: checkers do not import what comes after the chapters' code.

    Attributes:
        boxes: (K, 4) xyxy in pixels.
        labels: (K,) int64.
        scores: (K,).
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.labels)


Tracked = list[tuple[Boxes, Tensor]]


def check_crossings(answer: Answer) -> None:
    """Check `crossings(tracked, x)`: how many tracks go over a line to the right, and how many to the left.

    `tracked` has (boxes, numbers) for each frame, as a `Tracker` returns them, and `x` is in pixels. No centre lies on
    the line.
    """
    check(answer, _cases(), _MISTAKES)


def _frame(places: dict[int, float]) -> tuple[Boxes, Tensor]:
    """Boxes around these centres, of tracks with these numbers."""
    boxes = torch.tensor([[x - HALF, 20.0, x + HALF, 40.0] for x in places.values()]).reshape(-1, 4)
    ones = torch.ones(len(places))
    return Boxes(boxes, ones.long(), ones), torch.tensor(list(places), dtype=torch.int64)


def _cases() -> list[Case]:
    lists: list[tuple[str, list[dict[int, float]]]] = [
        ("one that goes to the right", [{1: 60}, {1: 80}, {1: 104}, {1: 130}]),
        ("one that goes to the left", [{1: 140}, {1: 96}, {1: 70}]),
        ("one that stops when its middle is just over the line", [{1: 60}, {1: 104}]),
        ("one that stays on its side", [{1: 60}, {1: 93}, {1: 70}]),
        ("two that cross, and change places in the list", [{1: 60, 2: 140}, {2: 92, 1: 108}, {1: 130, 2: 70}]),
        ("one that goes there and back", [{1: 60}, {1: 130}, {1: 60}]),
        ("one that is not seen while it goes over", [{4: 60}, {}, {4: 130}]),
        ("one that begins on the right, where another was on the left", [{1: 60}, {2: 130}, {2: 150}]),
        ("no frame at all", []),
    ]
    cases = []
    for what, frames in lists:
        tracked = [_frame(places) for places in frames]
        cases.append(Case(what, (tracked, LINE), _crossings(tracked, LINE)))
    return cases


def _crossings(
    tracked: Tracked,
    x: float,
    *,
    edge: int | None = None,
    by_place: bool = False,
    last: bool = False,
    ends: bool = False,
) -> list[int]:
    """The right answer, with a switch for each thing that goes wrong."""
    ways: dict[int, list[bool]] = {}
    for frame, (found, numbers) in enumerate(tracked):
        where = (found.boxes[:, 0] + found.boxes[:, 2]) / 2 if edge is None else found.boxes[:, edge]
        own = range(len(numbers)) if by_place else numbers.tolist()
        for number, right in zip(own, (where >= x).tolist(), strict=True):
            # With `last`, what was not seen in the frame before begins anew.
            gone = last and number in ways and (frame == 0 or number not in tracked[frame - 1][1].tolist())
            ways[number] = [right] if gone else [*ways.get(number, []), right]
    steps = [(way[0], way[-1]) for way in ways.values()] if ends else []
    if not ends:
        steps = [step for way in ways.values() for step in pairwise(way)]
    return [sum(after and not before for before, after in steps), sum(before and not after for before, after in steps)]


def _swapped(tracked: Tracked, x: float) -> Any:
    return _crossings(tracked, x)[::-1]


def _frames(tracked: Tracked, x: float) -> Any:
    """Counts all that is on a side, frame by frame."""
    right = sum(int(((f.boxes[:, 0] + f.boxes[:, 2]) / 2 >= x).sum()) for f, _ in tracked)
    return right, sum(len(numbers) for _, numbers in tracked) - right


_MISTAKES = [
    Mistake("first those to the right, then those to the left.", _swapped),
    Mistake("a track counts when it changes its side, not in each frame.", _frames),
    Mistake("take the middle of the box, not its left edge.", lambda *a: _crossings(*a, edge=0)),
    Mistake("take the middle of the box, not its right edge.", lambda *a: _crossings(*a, edge=2)),
    Mistake("boxes come in any order. Who is who is told by the numbers.", lambda *a: _crossings(*a, by_place=True)),
    Mistake("a track may be unseen for some frames. Remember its side.", lambda *a: _crossings(*a, last=True)),
    Mistake("there and back counts once for each way.", lambda *a: _crossings(*a, ends=True)),
]
