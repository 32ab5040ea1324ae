"""Checkers for the chapter on masks and what else stands on a map of features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_mean_iou(answer: Answer) -> None:
    """Check `mean_iou(found, true, classes)`: the mean IoU of the classes that occur, without pixels of 255."""
    check(answer, _cases(), _MISTAKES)


def _cases() -> list[Case]:
    true = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1]])
    found = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]])
    beside = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 0]])
    void = torch.tensor([[0, 0, 1, 255], [0, 0, 1, 255]])
    other = torch.tensor([[0, 2, 2, 2], [0, 0, 0, 0]])
    cases = [
        ("two classes, of which one takes pixels from the other", (found, true, 2)),
        ("a class that is neither there nor found", (found, true, 4)),
        ("pixels of 255, which nobody could name", (beside, void, 2)),
        ("a class that is found and not there", (other, torch.zeros_like(other), 3)),
        ("all right, and one of three classes absent", (true, true, 3)),
    ]
    return [Case(what, arguments, _mean_iou(*arguments)) for what, arguments in cases]


def _mean_iou(
    found: Tensor, true: Tensor, classes: int, *, void: int = 255, absent: float | None = None, there: bool = False
) -> float:
    known = true != void
    ious = []
    for c in range(classes):
        both = ((found == c) & (true == c) & known).sum().item()
        either = (((found == c) | (true == c)) & known).sum().item()
        if there and not ((true == c) & known).any():
            continue
        if either:
            ious.append(both / either)
        elif absent is not None:
            ious.append(absent)
    return sum(ious) / len(ious) if ious else math.nan


def _accuracy(found: Tensor, true: Tensor, classes: int) -> float:
    known = true != 255
    return (found == true)[known].double().mean().item()


def _recall(found: Tensor, true: Tensor, classes: int) -> float:
    known = true != 255
    shares = [(found[known & (true == c)] == c).double().mean().item() for c in range(classes) if (true == c).any()]
    return sum(shares) / len(shares)


_MISTAKES = [
    Mistake(
        "a class with neither a pixel nor a claim has no IoU: leave it out.",
        lambda f, t, c: _mean_iou(f, t, c, absent=0.0),
    ),
    Mistake(
        "a class that is neither there nor found has no IoU, not a perfect one.",
        lambda f, t, c: _mean_iou(f, t, c, absent=1.0),
    ),
    Mistake(
        "pixels of 255 in `true` take no part, whatever was found there.", lambda f, t, c: _mean_iou(f, t, c, void=-1)
    ),
    Mistake("that is the share of right pixels. Take each class for itself.", _accuracy),
    Mistake("divide by the union: what is wrongly claimed counts, too.", _recall),
    Mistake(
        "a class that is found but not there has an IoU of 0, which counts.",
        lambda f, t, c: _mean_iou(f, t, c, there=True),
    ),
]
