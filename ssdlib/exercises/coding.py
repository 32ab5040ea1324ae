"""Checkers for the chapter on encoding."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.coding import VARIANCES, Variances, decode, encode
from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_change_variances(answer: Answer) -> None:
    """Check `change_variances(offsets, old, new)`: the offsets (N, 4) of the same boxes for other variances, (N, 4)."""
    check(answer, _variance_cases(), _VARIANCE_MISTAKES)


def _variance_cases() -> list[Case]:
    some = torch.tensor([[1.0, -2.0, 0.5, 0.0]])
    many = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    tried: list[tuple[str, Tensor, Variances, Variances]] = [
        ("the same variances", some, VARIANCES, VARIANCES),
        ("half as large, for the centre only", some, VARIANCES, (0.05, 0.2)),
        ("half as large, for the size only", some, VARIANCES, (0.1, 0.1)),
        ("no variances any more, that is 1 and 1", some, VARIANCES, (1.0, 1.0)),
        ("five boxes at once", many, (0.5, 0.3), (0.2, 0.4)),
        ("no box at all", torch.zeros(0, 4), VARIANCES, (1.0, 1.0)),
    ]
    return [Case(what, (offsets, old, new), _same_boxes(offsets, old, new)) for what, offsets, old, new in tried]


def _same_boxes(offsets: Tensor, old: Variances, new: Variances) -> Tensor:
    prior = torch.tensor([0.5, 0.5, 0.2, 0.3], dtype=torch.float64)
    return encode(decode(offsets.double(), prior, old), prior, new)


def _scaled(offsets: Tensor, centre: float, size: float) -> Tensor:
    return offsets * torch.tensor([centre, centre, size, size])


_VARIANCE_MISTAKES = [
    Mistake(
        "the other way round. With smaller variances the same move is a larger number.",
        lambda g, old, new: _scaled(g, new[0] / old[0], new[1] / old[1]),
    ),
    Mistake(
        "the first variance is for the centre, the second one for the size.",
        lambda g, old, new: _scaled(g, old[1] / new[1], old[0] / new[0]),
    ),
    Mistake(
        "the last two offsets, those of the size, have a variance of their own.",
        lambda g, old, new: g * (old[0] / new[0]),
    ),
    Mistake(
        "the first two offsets, those of the centre, have a variance of their own.",
        lambda g, old, new: g * (old[1] / new[1]),
    ),
    Mistake(
        "the old variances are taken out, and the new ones are still missing.",
        lambda g, old, new: _scaled(g, old[0], old[1]),
    ),
    Mistake(
        "the new variances are in, and the old ones are still there, too.",
        lambda g, old, new: _scaled(g, 1 / new[0], 1 / new[1]),
    ),
    Mistake(
        "this is the box itself for some prior, not offsets: no prior is needed here.",
        lambda g, old, new: decode(g, torch.tensor([0.0, 0.0, 1.0, 1.0]), old),
    ),
]
