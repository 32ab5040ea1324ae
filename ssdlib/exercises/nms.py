"""Checkers for the chapter on the way from predictions to detections."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.exercises.checking import Answer, Case, Mistake, check
from ssdlib.nms import nms

Taken = list[tuple[int, float]]


def check_soft_nms(answer: Answer) -> None:
    """Check `soft_nms(boxes_xyxy, scores, max_overlap)`: N pairs (index, score), in the order of taking."""
    check(answer, _soft_cases(), _SOFT_MISTAKES)


def _soft_cases() -> list[Case]:
    whole, most, half = [0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5]  # IoU with the first: 0.8 and 0.5
    part, beside, apart = [0, 0, 10, 6], [7, 0, 17, 10], [50, 50, 60, 60]  # 0.6, 3/17 and 0
    lists = [
        ("two candidates that lie apart", [whole, apart], [0.75, 0.5], 0.45),
        ("a duplicate", [whole, part], [0.9, 0.8], 0.45),
        ("a neighbour that overlaps by less than max_overlap", [whole, beside], [0.9, 0.8], 0.45),
        ("an overlap of exactly max_overlap, which is not more than it", [whole, half], [0.9, 0.8], 0.5),
        ("a lowered candidate that comes after one with a lower score", [whole, part, apart], [0.9, 0.8, 0.5], 0.45),
        ("candidates that do not come in the order of their scores", [apart, part, whole], [0.5, 0.8, 0.9], 0.45),
        ("a candidate that is lowered twice", [whole, most, part], [0.9, 0.85, 0.8], 0.45),
        ("a single candidate", [whole], [0.25], 0.45),
    ]
    cases = []
    for what, boxes, scores, max_overlap in lists:
        arguments = (torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), max_overlap)
        cases.append(Case(what, arguments, _soft(*arguments)))
    return [*cases, Case("no candidate at all", (torch.zeros(0, 4), torch.zeros(0), 0.45), [])]


def _soft(
    boxes_xyxy: Tensor,
    scores: Tensor,
    max_overlap: float,
    *,
    lowered: str = "more",
    by: str = "rest",
    order: str = "lowered",
    rounds: int = 1000,
) -> Taken:
    """The right answer, with a switch for each thing that goes wrong."""
    overlaps, scores, at_first = iou(boxes_xyxy, boxes_xyxy), scores.clone(), scores
    rest, taken = list(range(len(scores))), []
    while rest:
        ranking = scores if order == "lowered" else at_first
        best = max(rest, key=lambda k: float(ranking[k]))
        rest.remove(best)
        taken.append((best, float(scores[best])))
        for k in rest if len(taken) <= rounds else []:
            overlap = overlaps[best, k]
            limit = {"more": overlap > max_overlap, "equal": overlap >= max_overlap, "all": True}[lowered]
            if limit:
                scores[k] *= 1 - overlap if by == "rest" else overlap
    return taken


def _ranks(boxes_xyxy: Tensor, scores: Tensor, max_overlap: float) -> Taken:
    order = scores.argsort(descending=True)
    return _soft(boxes_xyxy[order], scores[order], max_overlap)


_SOFT_MISTAKES = [
    Mistake(
        "a large overlap has to cost much, and a small one little. Multiply by 1 - IoU.",
        lambda *a: _soft(*a, by="overlap"),
    ),
    Mistake(
        "lowering changes the order. Look for the best score of those that are left anew in each round.",
        lambda *a: _soft(*a, order="at first"),
    ),
    Mistake(
        "candidates that overlap the best one by max_overlap or less keep their scores.",
        lambda *a: _soft(*a, lowered="all"),
    ),
    Mistake(
        "only candidates that overlap the best one by more than max_overlap are lowered. Equal is not more.",
        lambda *a: _soft(*a, lowered="equal"),
    ),
    Mistake(
        "every candidate that is taken lowers those that are left, not only the first one.",
        lambda *a: _soft(*a, rounds=1),
    ),
    Mistake(
        "the scores are those from before. Return each candidate with its lowered score.",
        lambda boxes, scores, limit: [(k, float(scores[k])) for k, _ in _soft(boxes, scores, limit)],
    ),
    Mistake(
        "nobody is dropped: each candidate appears once in the result, some with a low score.",
        lambda boxes, scores, limit: [(k, float(scores[k])) for k in nms(boxes, scores, limit).tolist()],
    ),
    Mistake(
        "the indices are places in a sorted list. The rows of the list that was given are wanted.",
        _ranks,
    ),
]
