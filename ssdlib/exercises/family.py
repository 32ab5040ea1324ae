"""Checkers for the chapters on the family of SSD."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_window_sums(answer: Answer) -> None:
    """Check `window_sums(image, h, w)`: (H - h + 1, W - w + 1) sums of the windows of an image (H, W)."""
    check(answer, _sum_cases(), _SUM_MISTAKES)


def _sums(image: Tensor, h: int, w: int) -> Tensor:
    return image.unfold(0, h, 1).unfold(1, w, 1).sum(dim=(2, 3))


def _sum_cases() -> list[Case]:
    image = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 13]])
    cases = [
        ("windows of 2 x 2", (2, 2)),
        ("windows that are wider than high", (1, 3)),
        ("windows that are higher than wide", (3, 2)),
        ("windows of a single pixel, whose sums are the pixels", (1, 1)),
        ("the whole image as the only window", (3, 4)),
    ]
    return [Case(what, (image, h, w), _sums(image, h, w)) for what, (h, w) in cases]


def _from_running_sums(image: Tensor, h: int, w: int, *, corner: int = 1) -> Tensor:
    s = torch.nn.functional.pad(image.cumsum(dim=0).cumsum(dim=1), (1, 0, 1, 0))
    return s[h:, w:] - s[:-h, w:] - s[h:, :-w] + corner * s[:-h, :-w]


def _without_border(image: Tensor, h: int, w: int) -> Tensor:
    s = image.cumsum(dim=0).cumsum(dim=1)
    return s[h:, w:] - s[:-h, w:] - s[h:, :-w] + s[:-h, :-w]


_SUM_MISTAKES = [
    Mistake(
        "what lies above and left of the window was taken away twice. It has to come back once.",
        lambda image, h, w: _from_running_sums(image, h, w, corner=0),
    ),
    Mistake(
        "the first row and the first column of windows are missing. S needs a row and a column of zeros in front.",
        _without_border,
    ),
    Mistake("the sum is wanted, not the mean.", lambda image, h, w: _sums(image, h, w) / (h * w)),
    Mistake("h is the height: rows come first.", lambda image, h, w: _sums(image, w, h)),
    Mistake(
        "each window begins one pixel further, not where the last one ended.",
        lambda image, h, w: _sums(image, h, w)[::h, ::w],
    ),
]
