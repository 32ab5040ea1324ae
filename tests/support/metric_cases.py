"""Detections and objects to be measured, and what torchmetrics makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from support import strategies
from torch import Tensor

Images = list[dict[str, Tensor]]
Case = tuple[Images, Images]  # detections, targets


@st.composite
def cases(draw: st.DrawFn, difficult: bool = True) -> Case:
    """Up to 4 images, 2 classes, whole-pixel boxes; many detections are on an object; no two scores are equal."""
    targets = draw(st.lists(strategies.targets(num_classes=3, difficult=difficult, side=32), max_size=4))
    detections = []
    for objects in targets:
        free = draw(strategies.detections(num_classes=3, max_size=3, side=32))
        rows = st.lists(st.integers(0, len(objects["labels"]) - 1), max_size=4)
        near = draw(rows if len(objects["labels"]) else st.just([]))
        grown = objects["boxes"][near] + torch.tensor([0, 0, 1, 0]) * draw(st.integers(0, 8))
        labels = torch.cat((free["labels"], objects["labels"][near]))
        detections.append({"boxes": torch.cat((free["boxes"], grown)), "labels": labels})
    scores = draw(st.permutations(range(1, 1 + sum(len(found["labels"]) for found in detections))))
    parts = torch.tensor(scores, dtype=torch.float32).split([len(found["labels"]) for found in detections])
    return [found | {"scores": part / 32} for found, part in zip(detections, parts, strict=True)], targets


def scattered(seed: int, difficult: bool) -> Case:
    """6 images, 3 classes; jittered detections, duplicates and false positives, some scores equal; pixels."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(6):
        cells = rng.permutation(16)[: rng.integers(0, 9)]
        corner = np.stack((cells % 4, cells // 4), axis=1) * 200 + rng.integers(0, 40, (len(cells), 2))
        boxes = np.hstack((corner, corner + rng.integers(8, 150, (len(cells), 2)))).astype(np.float64)
        labels = rng.integers(1, 4, len(cells))
        flags = rng.random(len(cells)) < 0.3 * difficult
        rows = np.repeat(np.arange(len(cells)), rng.integers(0, 3, len(cells)))
        # Exactly on a difficult object: the two definitions of overlap (with a crowd) agree there.
        jitter = rng.normal(0, 0.1, (len(rows), 4)) * (boxes[rows, 2:] - boxes[rows, :2]).repeat(2, axis=1)
        found = boxes[rows] + np.where(flags[rows, None], 0, jitter)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        wrong = np.where(flags[rows], 0, rng.random(len(rows)) < 0.2)
        targets.append({"boxes": boxes, "labels": labels, "difficult": flags})
        scores = rng.integers(1, 30, len(rows)) / 32
        detections.append({"boxes": found, "labels": (labels[rows] - 1 + wrong) % 3 + 1, "scores": scores})
    to_torch = [[{key: torch.as_tensor(v) for key, v in entry.items()} for entry in x] for x in (detections, targets)]
    return to_torch[0], to_torch[1]


def torchmetrics_figures(case: Case, **settings: Any) -> dict[str, Any]:
    detection = pytest.importorskip("torchmetrics.detection")
    metric = detection.MeanAveragePrecision(class_metrics=True, **settings)
    targets = [{key: entry[key] for key in ("boxes", "labels")} for entry in case[1]]
    metric.update(case[0], [t | {"iscrowd": entry["difficult"]} for t, entry in zip(targets, case[1], strict=True)])
    return {key: value.tolist() for key, value in metric.compute().items()}
