"""Checkers for the chapter on what object detection is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, Unreadable, as_tensor, check, shown

KEYS = ("boxes", "labels", "scores")


def check_keep_surest(answer: Answer) -> None:
    """Check `keep_surest(found, min_score)`: the part of a detection whose scores are at least `min_score`."""
    check(answer, _surest_cases(), _SUREST_MISTAKES, read=_rows)


def _surest_cases() -> list[Case]:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 90.0, 99.0], [5.0, 5.0, 25.0, 15.0]])
    found = {"boxes": boxes, "labels": torch.tensor([2, 1, 2]), "scores": torch.tensor([0.9, 0.75, 0.5])}
    tried = [
        ("two of three scores above the threshold", found, 0.625),
        ("one of three scores above the threshold", found, 0.8),
        ("a score that is just the threshold", found, 0.75),
        ("a threshold below all scores", found, 0.25),
        ("a threshold above all scores", found, 0.95),
        ("scores in another order", {key: value[[2, 0, 1]] for key, value in found.items()}, 0.625),
        ("an empty detection", {key: value[:0] for key, value in found.items()}, 0.5),
    ]
    return [
        Case(f"{what} (expected is a row for each box: the box, its label, its score)", (f, least), _kept(f, least))
        for what, f, least in tried
    ]


def _rows(result: Any) -> Tensor:
    """A detection as one table, (N, 6): box, label, score."""
    if not isinstance(result, dict):
        raise Unreadable(f"came back: {shown(result)}, which is no dictionary with boxes, labels and scores")
    if missing := [key for key in KEYS if key not in result]:
        raise Unreadable(f"came back: a dictionary without {missing[0]!r}")
    boxes, labels, scores = (as_tensor(result[key]) for key in KEYS)
    if not len(boxes) == labels.numel() == scores.numel():
        raise Unreadable(
            f"came back: {len(boxes)} boxes, {labels.numel()} labels and {scores.numel()} scores. Take the same rows "
            "of all three."
        )
    return torch.cat((boxes.reshape(-1, 4), labels.reshape(-1, 1), scores.reshape(-1, 1)), dim=1)


def _kept(found: dict[str, Tensor], min_score: float) -> Tensor:
    return _rows(found)[found["scores"] >= min_score]


def _chosen(found: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    return {key: found[key][chosen] for key in KEYS}


_SUREST_MISTAKES = [
    Mistake(
        "a score of just min_score is enough: >=, not >.",
        lambda found, least: _chosen(found, found["scores"] > least),
    ),
    Mistake(
        "these are the others, with the low scores.",
        lambda found, least: _chosen(found, found["scores"] < least),
    ),
    Mistake(
        "these are the others, with the low scores.",
        lambda found, least: _chosen(found, found["scores"] <= least),
    ),
    Mistake(
        "nothing has been taken away.",
        lambda found, least: found,
    ),
    Mistake(
        "these are as many rows as there are high scores, but the first ones and not those of the high scores.",
        lambda found, least: _chosen(found, torch.arange(int((found["scores"] >= least).sum()))),
    ),
    Mistake(
        "only the best one is left. All that are sure enough should stay.",
        lambda found, least: _chosen(found, found["scores"].argsort(descending=True)[:1]),
    ),
]
