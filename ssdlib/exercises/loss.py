"""Checkers for the chapter on the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check
from ssdlib.loss import mine_hard_negatives


def check_localization_loss(answer: Answer) -> None:
    """Check `localization_loss(predicted, true)`: smooth L1 of the positives' offsets, (N, 4) twice -> number."""
    check(answer, _localization_cases(), _LOCALIZATION_MISTAKES)


def _localization_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    pairs = [
        ("one positive, small errors", torch.tensor([[0.5, -0.2, 0.0, 0.1]])),
        ("one positive, a large error", torch.tensor([[3.0, 0.0, 0.0, 0.0]])),
        ("an error of just 1", torch.tensor([[0.0, -1.0, 0.0, 0.0]])),
        ("no error at all", torch.zeros(2, 4)),
        ("two positives", torch.tensor([[0.4, -0.2, 0.0, 1.0], [2.0, -0.6, 0.1, 0.0]])),
        ("twenty positives", 2 * torch.randn(20, 4, generator=generator)),
        ("no positive at all", torch.zeros(0, 4)),
    ]
    cases = []
    for what, error in pairs:
        true = torch.full_like(error, 0.25)
        cases.append(Case(what, (true + error, true), _summed(true + error, true)))
    return cases


def _summed(predicted: Tensor, true: Tensor) -> Tensor:
    return F.smooth_l1_loss(predicted, true, reduction="sum") / max(len(true), 1)


def _error(predicted: Tensor, true: Tensor) -> Tensor:
    return (predicted - true).abs()


_LOCALIZATION_MISTAKES = [
    Mistake(
        "4 times too small: divide by the number of positives, not by that of all numbers. A mean over everything does "
        "the latter.",
        lambda p, t: _summed(p, t) / 4,
    ),
    Mistake(
        "without positives this is 0 / 0. Divide by at least 1.",
        lambda p, t: F.smooth_l1_loss(p, t, reduction="sum") / len(t),
    ),
    Mistake(
        "4 times too small, and nan without positives: divide by the number of positives, and by at least 1.",
        lambda p, t: F.smooth_l1_loss(p, t, reduction="sum") / (4 * len(t)),
    ),
    Mistake(
        "this is the sum. It still has to be divided by the number of positives.",
        lambda p, t: F.smooth_l1_loss(p, t, reduction="sum"),
    ),
    Mistake(
        "this is L1. Smooth L1 is half the square where the error is below 1.",
        lambda p, t: _error(p, t).sum() / max(len(t), 1),
    ),
    Mistake(
        "this is L2. Smooth L1 is a straight line where the error is above 1.",
        lambda p, t: (0.5 * _error(p, t) ** 2).sum() / max(len(t), 1),
    ),
    Mistake(
        "this is the square without the half.",
        lambda p, t: torch.where((e := _error(p, t)) < 1, e**2, e - 0.5).sum() / max(len(t), 1),
    ),
    Mistake(
        "the two pieces do not meet at an error of 1: the straight one is |x| - 1/2.",
        lambda p, t: torch.where((e := _error(p, t)) < 1, 0.5 * e**2, e).sum() / max(len(t), 1),
    ),
    Mistake(
        "this is one number for each positive. Add them up.",
        lambda p, t: F.smooth_l1_loss(p, t, reduction="none").sum(dim=1) / max(len(t), 1),
    ),
]


def check_mine_by_rank(answer: Answer) -> None:
    """Check `mine_by_rank(hardness, positive, ratio)`: the mined negatives, (N, P) and (N, P) bool -> (N, P) bool.

    `ratio` is the number of negatives for each positive. Every image has a positive.
    """
    check(answer, _mining_cases(), _MINING_MISTAKES)


def _mining_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    one = torch.tensor([[0.1, 2.5, 0.7, 4.0, 0.2, 1.1, 0.3, 0.9]])
    many = torch.rand(3, 40, generator=generator)
    tried = [
        ("one positive that is easy as background", one, [[4]], 3),
        ("one positive that is hard as background", one, [[3]], 3),
        ("two positives", one, [[1, 3]], 2),
        ("two images", torch.cat((one, one.flip(1) / 10)), [[3], [0, 4]], 1),
        ("three images of forty priors", many, [[3, 17, 20], [5], [0, 39]], 3),
        ("fewer negatives than wanted", one, [[0, 3, 4]], 3),
    ]
    cases = []
    for what, hardness, places, ratio in tried:
        positive = torch.zeros_like(hardness, dtype=torch.bool)
        for i, row in enumerate(places):
            positive[i, row] = True
        cases.append(Case(what, (hardness, positive, ratio), mine_hard_negatives(hardness, positive, ratio)))
    return cases


def _ranked(
    hardness: Tensor,
    positive: Tensor,
    ratio: int,
    *,
    sorts: int = 2,
    enter: bool = False,
    drop: bool = True,
    more: int = 0,
    each: bool = True,
) -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    rank = hardness if enter else hardness.masked_fill(positive, -torch.inf)
    rank = rank.argsort(dim=1, descending=True)
    for _ in range(sorts - 1):
        rank = rank.argsort(dim=1)
    count = positive.sum(dim=1, keepdim=True) if each else 1
    mined = rank < ratio * count + more
    return mined & ~positive if drop else mined


def _together(hardness: Tensor, positive: Tensor, ratio: int) -> Tensor:
    """One ranking for all images."""
    return _ranked(hardness.reshape(1, -1), positive.reshape(1, -1), ratio).reshape(hardness.shape)


_MINING_MISTAKES = [
    Mistake(
        "sorted once, you have which prior stands at each place. The rank says at which place each prior stands: sort "
        "the result once more.",
        lambda h, p, r: _ranked(h, p, r, sorts=1),
    ),
    Mistake(
        "sorted once, you have which prior stands at each place. The rank says at which place each prior stands: sort "
        "the result once more.",
        lambda h, p, r: _ranked(h, p, r, sorts=1, drop=False),
    ),
    Mistake(
        "a positive is among the mined ones. Give the positives the lowest hardness before you sort.",
        lambda h, p, r: _ranked(h, p, r, enter=True, drop=False),
    ),
    Mistake(
        "too few: the positives have taken places among the hardest. Take them out before you sort, not after.",
        lambda h, p, r: _ranked(h, p, r, enter=True),
    ),
    Mistake(
        "where there are fewer negatives than wanted, the positives come next in the order. They must not be mined.",
        lambda h, p, r: _ranked(h, p, r, drop=False),
    ),
    Mistake(
        "the ratio holds for each positive: an image with two positives has twice as many negatives.",
        lambda h, p, r: _ranked(h, p, r, each=False),
    ),
    Mistake(
        "these are the easiest ones. Sort downwards.",
        lambda h, p, r: _ranked(-h, p, r),
    ),
    Mistake(
        "one too many: ranks count from 0.",
        lambda h, p, r: _ranked(h, p, r, more=1),
    ),
    Mistake(
        "each image mines for its own positives. Sort along the priors of one image.",
        _together,
    ),
    Mistake(
        "these are the mined negatives and the positives. Only the negatives are wanted.",
        lambda h, p, r: _ranked(h, p, r) | p,
    ),
]
