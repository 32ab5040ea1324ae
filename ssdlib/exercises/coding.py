"""Checkers for the chapter on encoding."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import VARIANCES, Variances, decode, encode
from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_encode_corners(answer: Answer) -> None:
    """Check `encode_corners(boxes_xyxy, priors_cxcywh)`: the offsets (N, 4) of boxes (N, 4) given as corners."""
    cases = [
        Case(what, (boxes, priors), encode(xyxy_to_cxcywh(boxes), priors)) for what, boxes, priors in _corner_boxes()
    ]
    check(answer, cases, _ENCODE_MISTAKES)


def check_decode_corners(answer: Answer) -> None:
    """Check `decode_corners(offsets, priors_cxcywh)`: the corners (N, 4) of the boxes that offsets (N, 4) mean."""
    cases = []
    for what, boxes, priors in _corner_boxes():
        offsets = encode(xyxy_to_cxcywh(boxes), priors)
        cases.append(Case(what, (offsets, priors), cxcywh_to_xyxy(decode(offsets, priors))))
    check(answer, cases, _DECODE_MISTAKES)


def _corner_boxes() -> list[tuple[str, Tensor, Tensor]]:
    """Boxes as corners and their priors, each with what is special about it."""
    prior = torch.tensor([[0.5, 0.5, 0.25, 0.5]])  # no digit is lost in its corners
    corners = cxcywh_to_xyxy(prior)
    moved = torch.tensor([0.125, 0.0, 0.125, 0.0])
    generator = torch.Generator().manual_seed(0)
    centres, sizes = torch.rand(2, 5, 2, generator=generator) * 0.5 + 0.2
    return [
        ("a box that is its prior", corners, prior),
        ("a box that lies to the right of its prior", corners + moved, prior),
        ("a box that lies below its prior", corners + moved.roll(1), prior),
        ("a box that is twice as wide and half as high", torch.tensor([[0.25, 0.375, 0.75, 0.625]]), prior),
        ("a box that reaches over the border", corners - 0.375, prior),
        (
            "five boxes and five priors",
            cxcywh_to_xyxy(torch.cat((centres, sizes), dim=1)),
            torch.cat((sizes, centres), dim=1),
        ),
        ("no box at all", torch.zeros(0, 4), torch.zeros(0, 4)),
    ]


_ENCODE_MISTAKES = [
    Mistake(
        "the boxes are corners: make centres and sizes of them first.",
        lambda boxes, priors: encode(boxes, priors),
    ),
    Mistake(
        "the variances are missing: divide the centres by 0.1 and the sizes by 0.2.",
        lambda boxes, priors: encode(xyxy_to_cxcywh(boxes), priors, (1.0, 1.0)),
    ),
    Mistake(
        "the variances are exchanged: 0.1 is for the centre, 0.2 for the size.",
        lambda boxes, priors: encode(xyxy_to_cxcywh(boxes), priors, (0.2, 0.1)),
    ),
    Mistake(
        "the move is measured in widths and heights of the prior, not of the box.",
        lambda boxes, priors: torch.cat(
            (
                -encode(priors, xyxy_to_cxcywh(boxes))[:, :2],
                encode(xyxy_to_cxcywh(boxes), priors)[:, 2:],
            ),
            dim=1,
        ),
    ),
    Mistake(
        "box and prior are exchanged: the offsets lead from the prior to the box.",
        lambda boxes, priors: encode(priors, xyxy_to_cxcywh(boxes)),
    ),
    Mistake(
        "the logarithm is missing: the size is the logarithm of the box's side over the prior's.",
        lambda boxes, priors: torch.cat(
            (
                encode(xyxy_to_cxcywh(boxes), priors)[:, :2],
                xyxy_to_cxcywh(boxes)[:, 2:] / priors[:, 2:] / 0.2,
            ),
            dim=1,
        ),
    ),
]

_DECODE_MISTAKES = [
    Mistake(
        "leave a box as it is where it reaches over the border of the image.",
        lambda offsets, priors: cxcywh_to_xyxy(decode(offsets, priors)).clamp(0, 1),
    ),
    Mistake(
        "this is centre and size; corners are wanted.",
        lambda offsets, priors: decode(offsets, priors),
    ),
    Mistake(
        "the variances are missing: multiply the centres by 0.1 and the sizes by 0.2.",
        lambda offsets, priors: cxcywh_to_xyxy(decode(offsets, priors, (1.0, 1.0))),
    ),
    Mistake(
        "the variances are exchanged: 0.1 is for the centre, 0.2 for the size.",
        lambda offsets, priors: cxcywh_to_xyxy(decode(offsets, priors, (0.2, 0.1))),
    ),
    Mistake(
        "the move is in prior sides: multiply it by the width and height of the prior.",
        lambda offsets, priors: cxcywh_to_xyxy(
            torch.cat((priors[:, :2] + 0.1 * offsets[:, :2], decode(offsets, priors)[:, 2:]), dim=1)
        ),
    ),
    Mistake(
        "the offset of the size is a logarithm: take exp of it.",
        lambda offsets, priors: cxcywh_to_xyxy(
            torch.cat((decode(offsets, priors)[:, :2], 0.2 * offsets[:, 2:] * priors[:, 2:]), dim=1)
        ),
    ),
    Mistake(
        "a corner is half of the size away from the centre.",
        lambda offsets, priors: torch.cat(
            (
                decode(offsets, priors)[:, :2] - decode(offsets, priors)[:, 2:],
                decode(offsets, priors)[:, :2] + decode(offsets, priors)[:, 2:],
            ),
            dim=1,
        ),
    ),
]


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
