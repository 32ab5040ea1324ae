"""What a detector found in one image: boxes in pixels, with the names of their classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ssdlib.deploy.extras import require
from ssdlib.detection import Detection


@dataclass(frozen=True)
class Found:
    """The objects of one image, best score first.

    Attributes:
        boxes: (K, 4) xyxy in pixels of the image, upright.
        labels: (K,) int64, 1..C-1.
        scores: (K,).
        classes: names of the labels 1, 2, ...
        size: width and height of the image, upright, in pixels.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    classes: tuple[str, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """(K,): the class of each object."""
        return [self.classes[label - 1] for label in self.labels.tolist()]

    @property
    def detection(self) -> Detection:
        """The dict that `ssdlib.metrics.evaluate` and the functions that draw take."""
        return {"boxes": self.boxes, "labels": self.labels, "scores": self.scores}

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each object, of values that JSON and CSV can hold: "class", "score", "box" in pixels."""
        columns = zip(self.names, self.scores.tolist(), self.boxes.tolist(), strict=True)
        return [
            {"class": name, "score": round(score, 4), "box": [round(edge, 1) for edge in box]}
            for name, score, box in columns
        ]

    def keep(self, which: Tensor | slice) -> Found:
        """Some of the objects: a mask (K,), indices, or a slice."""
        return Found(self.boxes[which], self.labels[which], self.scores[which], self.classes, self.size)

    def to_supervision(self) -> Any:
        """The objects as `supervision.Detections`, whose `class_id` counts from 0, with "class_name" in its data.

        Raises:
            ValueError: if the package supervision is not installed.
        """
        supervision = require("supervision")
        return supervision.Detections(
            xyxy=self.boxes.numpy().astype(np.float32),
            confidence=self.scores.numpy().astype(np.float32),
            class_id=self.labels.numpy() - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def labels_of(names: Collection[str], classes: Sequence[str]) -> set[int]:
    """The labels of classes by name.

    Raises:
        ValueError: if there is no such class.
    """
    for name in names:
        if name not in classes:
            raise ValueError(f"no class {name!r}; there are {', '.join(classes)}")
    return {classes.index(name) + 1 for name in names}
