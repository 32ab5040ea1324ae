"""Checkers for the chapter on boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import area, cxcywh_to_xyxy, intersection, iou, xyxy_to_cxcywh
from ssdlib.exercises.checking import Answer, Case, Mistake, check

MANY = 500  # pairs, whose table would be told from all that is made for the pairs alone


def check_iou_of_partners(answer: Answer) -> None:
    """Check `iou_of_partners(a_xyxy, b_xyxy)`: the IoU of row i of one (N, 4) with row i of the other, (N,)."""
    check(answer, _partner_cases(), _PARTNER_MISTAKES)


def _partner_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 5, 4, generator=generator)
    many = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:]), dim=-1)
    pairs = [
        ("two boxes that share a part", [[0, 0, 4, 4]], [[2, 1, 6, 5]]),
        ("a box and itself", [[10, 20, 40, 60]], [[10, 20, 40, 60]]),
        ("boxes that lie apart in x, and share a part in y", [[0, 0, 2, 2]], [[5, 1, 8, 3]]),
        ("boxes that lie apart in x and in y", [[0, 0, 2, 2]], [[5, 6, 8, 9]]),
        ("one box inside the other", [[0, 0, 10, 10]], [[2, 2, 4, 7]]),
        ("boxes in fractions of the image, 3 of 300 pixels wide", [[0.5, 0.5, 0.51, 0.51]], [[0.5, 0.5, 0.51, 0.51]]),
        ("five pairs at once", many[0].tolist(), many[1].tolist()),
        ("two boxes without area, whose union is 0", [[1, 1, 1, 1]], [[1, 1, 1, 1]]),
    ]
    cases = []
    for what, a, b in pairs:
        a_xyxy, b_xyxy = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
        cases.append(Case(what, (a_xyxy, b_xyxy), iou(a_xyxy, b_xyxy).diagonal()))
    cases.append(Case("no pair at all", (torch.zeros(0, 4), torch.zeros(0, 4)), torch.zeros(0)))
    corner, size, shift = torch.rand(3, MANY, 2, generator=generator)
    a_xyxy = torch.cat((corner, corner + 0.5 + size), dim=-1)
    b_xyxy = a_xyxy + torch.cat((shift, size), dim=-1) / 4
    return [*cases, Case(f"{MANY} pairs at once", (a_xyxy, b_xyxy), _partners(a_xyxy, b_xyxy), most=MANY**2 - 1)]


def _partners(
    a_xyxy: Tensor, b_xyxy: Tensor, *, limit: str = "lengths", counted: float = 1.0, epsilon: float = 0.0
) -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    sides = torch.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - torch.maximum(a_xyxy[:, :2], b_xyxy[:, :2])  # (N, 2)
    shared = (sides.clamp(min=0) if limit == "lengths" else sides).prod(dim=1)
    if limit == "product":
        shared = shared.clamp(min=0)
    union = area(a_xyxy) + area(b_xyxy) - counted * shared + epsilon
    return torch.where(union > 0, shared / union, 0.0)


def _shared(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    return intersection(a_xyxy, b_xyxy).diagonal()


_PARTNER_MISTAKES = [
    Mistake(
        "this is the whole table, each row with each row. Only row i with row i is wanted.",
        iou,
    ),
    Mistake(
        "the result is right, but it is the diagonal of a table (N, N), of which all the rest is thrown away. Compare "
        "row i with row i from the start.",
        lambda a, b: iou(a, b).diagonal(),
    ),
    Mistake(
        "boxes that lie apart share nothing. Limit each of the two lengths to at least 0 before you multiply them.",
        lambda a, b: _partners(a, b, limit="nothing"),
    ),
    Mistake(
        "boxes that lie apart share nothing. Limit each of the two lengths to at least 0, not their product: minus "
        "times minus is plus.",
        lambda a, b: _partners(a, b, limit="product"),
    ),
    Mistake(
        "the sum of the two areas counts the shared part twice: subtract it once for the union.",
        lambda a, b: _partners(a, b, counted=0.0),
    ),
    Mistake(
        "this is the share of the first box. IoU divides by what both boxes cover together.",
        lambda a, b: torch.where(area(a) > 0, _shared(a, b) / area(a), 0.0),
    ),
    Mistake(
        "this is the shared area. It still has to be divided by the union.",
        _shared,
    ),
    Mistake(
        "a constant in the denominator is as large as the area of a small box in fractions. Treat a union of 0 as a "
        "case of its own.",
        lambda a, b: _partners(a, b, epsilon=1e-5),
    ),
    Mistake(
        "where the union is 0, the result should be 0: see torch.where.",
        lambda a, b: _shared(a, b) / (area(a) + area(b) - _shared(a, b)),
    ),
    Mistake(
        "the boxes come as corners (`_xyxy`), and your result is that for boxes as centre and size.",
        lambda a, b: _partners(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)),
    ),
    Mistake(
        "the boxes come as corners (`_xyxy`), and what they share is found from corners. Do not convert them.",
        lambda a, b: _partners(xyxy_to_cxcywh(a), xyxy_to_cxcywh(b)),
    ),
]
