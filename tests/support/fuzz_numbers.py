"""Hostile states of widgets, and matching by the fast way against the plain rule."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
import traitlets
from support import fuzzing
from support.fuzzing import refused
from torch import Tensor, nn

from ssdlib.book import recorded
from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.family.overfeat import OverFeat
from ssdlib.family.window_classifier import WindowClassifier
from ssdlib.matching import UNMATCHED, match, match_batch
from ssdlib.widgets import (
    AnatomyExplorer,
    EncodingPlayground,
    Flipbook,
    GridExplorer,
    JaccardPlayground,
    NmsStepper,
    PriorExplorer,
    TrainingPlayer,
    WindowExplorer,
)
from ssdlib.widgets.base import BookWidget


@cache
def _widgets() -> list[tuple[BookWidget, dict[str, Any]]]:
    """One widget of each kind, and its state; those that are slow to make are made once."""
    boxes = {"boxes": torch.tensor([[2.0, 2, 20, 20], [4, 4, 22, 22], [30, 5, 40, 29]]), "labels": [1, 1, 2]}
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    made = [JaccardPlayground(), EncodingPlayground(), PriorExplorer(), AnatomyExplorer()]
    made.append(TrainingPlayer(recorded("checkpoints")))
    made.append(GridExplorer(image, boxes["boxes"], ["cat", "dog", "cow"]))
    made.append(NmsStepper(image, classes=["cat", "dog"], scores=[0.9, 0.8, 0.4], **boxes))
    made.append(Flipbook([(image, "black"), (image + 255, "white")]))
    classifier = WindowClassifier(nn.Conv2d(3, 4, 3, stride=2), 3, 7, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    made.append(WindowExplorer(OverFeat(classifier), torch.zeros(3, 30, 40), ["cat", "dog"]))
    writable = [[name for name in w.state() if name != "image" and not w.traits()[name].read_only] for w in made]
    return [(w, {name: w.state()[name] for name in names}) for w, names in zip(made, writable, strict=True)]


def widgets(rng: random.Random, _folder: Path) -> str:
    """Traits of a widget set to odd values, as a page could; its state stays one that can be shown."""
    widget, first = rng.choice(_widgets())
    outcome = "accepted"
    try:
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice(list(first))
            value: Any = fuzzing.mutated(rng, first[name]) if rng.random() < 0.7 else fuzzing.value(rng)
            try:
                setattr(widget, name, value)
            except (traitlets.TraitError, ValueError):  # traitlets words the message, for a notebook
                outcome = "refused"
        assert isinstance(widget.describe(), str)
        try:
            json.dumps(widget.state(), allow_nan=False)  # as it would be put on a page
        except ValueError:
            outcome = "refused"
    finally:
        with widget.hold_trait_notifications():
            for name, value in first.items():
                setattr(widget, name, value)
    return outcome


def matching(rng: random.Random, _folder: Path) -> str:
    """Objects and priors on a coarse grid, where many overlaps are equal; or boxes that are none."""
    side = rng.choice([3, 4, 8, 100])

    def corners() -> list[float]:
        (a, c), (b, d) = (sorted(rng.randint(0, side) / side for _ in range(2)) for _ in range(2))
        return [a, b, c, d]

    objects = torch.tensor([corners() for _ in range(rng.choice([0, 1, 2, 3, 8, 30]))]).reshape(-1, 4)
    priors = torch.rand(rng.choice([0, 1, 4, 40]), 4, generator=torch.Generator().manual_seed(rng.getrandbits(40)))
    priors = (priors * side).round() / side
    if len(objects) and rng.random() < 0.1:
        objects[rng.randrange(len(objects)), rng.randrange(4)] = rng.choice([float("nan"), float("inf"), -1.0, 2.0])
    threshold = rng.choice([0.5, 0.5, 0.3, 0.9, 1.0])
    valid = bool((torch.isfinite(objects).all(dim=1) & (objects[:, 2:] >= objects[:, :2]).all(dim=1)).all())

    def both() -> None:
        found = match(objects, priors, threshold)
        assert torch.equal(found, plain_match(objects, priors, threshold))
        image = torch.tensor(sorted(rng.randrange(3) for _ in range(len(objects))), dtype=torch.int64)
        together = match_batch(objects, image, 3, priors, threshold)
        for number in range(3):
            rows = (image == number).nonzero().squeeze(1)
            alone = match(objects[rows], priors, threshold)
            expected = torch.where(alone == UNMATCHED, UNMATCHED, alone + (rows[0] if len(rows) else 0))
            assert torch.equal(together[number], expected)

    was_refused = refused(both, errors=(ValueError,))
    assert was_refused != valid
    return "refused" if was_refused else "accepted"


def plain_match(boxes_xyxy: Tensor, priors_cxcywh: Tensor, threshold: float) -> Tensor:
    """The rule as it is written down: pairs in the order of their overlap give every object a prior of its own; every
    other prior takes the object that it overlaps most, the earlier one of two, if the overlap reaches the threshold.
    """
    overlaps = iou(boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh)).tolist()
    pairs = [(-overlaps[m][p], m, p) for m in range(len(boxes_xyxy)) for p in range(len(priors_cxcywh))]
    own: dict[int, int] = {}
    for _, m, p in sorted(pairs):
        if p not in own and m not in own.values():
            own[p] = m
    matched = []
    for p in range(len(priors_cxcywh)):
        best = max(range(len(boxes_xyxy)), key=lambda m: (overlaps[m][p], -m), default=UNMATCHED)
        reached = best != UNMATCHED and overlaps[best][p] >= torch.tensor(threshold).item()
        matched.append(own.get(p, best if reached else UNMATCHED))
    return torch.tensor(matched, dtype=torch.int64)


AREAS = [fuzzing.Area("widgets", widgets, few=100), fuzzing.Area("matching", matching)]
