"""Checker for the chapter on your own data."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_yolo_to_pixels(answer: Answer) -> None:
    """Check `yolo_to_pixels(rows, width, height)`: (M, 5) lines of a label file -> (M, 4) xyxy in pixels."""
    check(answer, _cases(), _MISTAKES)


def _cases() -> list[Case]:
    lists = [
        ("a box around the middle of a wide image", [[0, 0.5, 0.5, 0.25, 0.5]], 200, 100),
        ("a box in the upper left corner, of class 3", [[3, 0.1, 0.125, 0.2, 0.25]], 640, 480),
        ("the whole image", [[1, 0.5, 0.5, 1, 1]], 60, 150),
        ("several boxes", [[2, 0.3, 0.4, 0.1, 0.2], [0, 0.75, 0.25, 0.5, 0.5], [0, 0.6, 0.9, 0.05, 0.1]], 333, 251),
    ]
    cases = []
    for what, numbers, width, height in lists:
        rows = torch.tensor(numbers, dtype=torch.float32)
        cases.append(Case(what, (rows, width, height), _boxes(rows, width, height)))
    return [*cases, Case("an image without objects", (torch.zeros(0, 5), 200, 100), torch.zeros(0, 4))]


def _boxes(rows: Tensor, width: float, height: float, *, first: int = 1, half: float = 0.5, size: float = 1) -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    cx, cy, w, h = rows[:, first : first + 4].unbind(dim=1)
    corners = (cx - half * w, cy - half * h, cx + (size - half) * w, cy + (size - half) * h)
    return torch.stack(corners, dim=1) * torch.tensor([width, height, width, height])


_MISTAKES = [
    Mistake("the first number of a line is the class; the box begins with the second.", lambda *a: _boxes(*a, first=0)),
    Mistake(
        "the two numbers after the class are the centre of the box, not its upper left corner.",
        lambda *a: _boxes(*a, half=0.0),
    ),
    Mistake(
        "your boxes are twice as large: half of the width lies on each side.", lambda *a: _boxes(*a, half=1, size=2)
    ),
    Mistake("x is a fraction of the width, and y of the height.", lambda rows, w, h: _boxes(rows, h, w)),
    Mistake("the edges of a box lie between pixels, too: do not round.", lambda *a: _boxes(*a).round()),
    Mistake("your boxes are still fractions of the image.", lambda rows, width, height: _boxes(rows, 1, 1)),
    Mistake(
        "these are centre, width and height; corners were asked for.",
        lambda rows, width, height: rows[:, 1:] * torch.tensor([width, height, width, height]),
    ),
]
