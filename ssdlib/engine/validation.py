"""Validation: how a network does, in the course of its training, on images that it does not learn from."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssdlib.data import AnnotatedDataset, DataWarning
from ssdlib.data.images import file_length, read_file
from ssdlib.data.transforms import Target
from ssdlib.engine import processes
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.loading import DetectionDataset
from ssdlib.metrics import evaluate
from ssdlib.model import SSD


class OverlapWarning(DataWarning):
    """Validation images are training images, too, or may be."""


@dataclass(frozen=True)
class Validation:
    """Images on which a network is measured, and when.

    Attributes:
        dataset: the images, with the classes of the training images in the same order.
        every: epochs between two measurements. The end of the run is one, too.
        batch_size: images at a time.

    Raises:
        ValueError: if there is no image, or no object that counts: then every mAP would be nan.
    """

    dataset: DetectionDataset
    every: int = 1
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if len(self.dataset) == 0:
            raise ValueError("no images to validate on")
        if isinstance(self.dataset, AnnotatedDataset) and self.dataset._images.difficult.all():
            raise ValueError("the validation images hold no object that counts: no mAP can be measured on them")

    def measure(self, model: SSD, workers: int = 0) -> dict[str, float]:
        """Losses and mAP (area, IoU 0.5) of a model; several processes share the images, and the first one counts.

        Args:
            model: on any device; it is put into evaluation mode.
            workers: processes that load images.

        Returns:
            "val_localization" and "val_confidence", the sums over all images divided by all positive priors, so that
            they do not depend on the batches; and "mAP". What is not finite is left out.

        Raises:
            FloatingPointError: if the network's predictions are not finite.
        """
        parts: list[Tensor] = []

        def add(offsets: Tensor, logits: Tensor, targets: list[Target]) -> None:
            parts.append(torch.stack([part.float() for part in processes.batch_sums(model, offsets, logits, targets)]))

        found, truth = detect_dataset(
            model, self.dataset, batch_size=self.batch_size, workers=workers, progress=False, each_batch=add
        )
        device = model.priors.device
        sums = torch.stack(parts).cpu().double().sum(dim=0) if parts else torch.zeros(3)
        localization, confidence, positives = processes.all_reduce_sum(sums.float().to(device)).tolist()
        measured = {
            "val_localization": localization / max(1.0, positives),
            "val_confidence": confidence / max(1.0, positives),
        }
        if processes.rank() == 0:
            measured["mAP"] = evaluate(found, truth, model.num_classes).mean
        return processes.from_first({name: value for name, value in measured.items() if math.isfinite(value)})


def require_apart(training: AnnotatedDataset, validation: AnnotatedDataset) -> None:
    """Make sure that a network is not validated on what it learns from.

    Two images are the same if their files have the same bytes, wherever they lie. (The sizes are compared first, and
    SHA-256 only where they agree, so that few files are read.) A copy that was stored anew is not found by that; but if
    it kept its name, that is told.

    Raises:
        ValueError: if more than one in a hundred validation images is a training image, too.

    Warns:
        OverlapWarning: if fewer are; or if validation images have the name of a training image, and other bytes.
    """
    ours = [training.image_path(i) for i in range(len(training))]
    by_size, names = defaultdict(list), {path.stem for path in ours}
    for path in ours:
        by_size[file_length(path)].append(path)
    digests: dict[Path, bytes] = {}

    def digest(path: Path) -> bytes:
        if path not in digests:
            digests[path] = hashlib.sha256(read_file(path)).digest()
        return digests[path]

    same, namesakes = [], []
    for path in (validation.image_path(i) for i in range(len(validation))):
        candidates = by_size.get(file_length(path), ())
        if path in candidates or any(digest(path) == digest(other) for other in candidates):
            same.append(path)
        elif path.stem in names:
            namesakes.append(path)
    if same:
        message = (
            f"{len(same)} of the {len(validation)} validation images are training images, too (files with the same "
            f"bytes), the first of them {same[0]}"
        )
        if len(same) > len(validation) / 100:
            raise ValueError(f"{message}: what is measured on them is how well the network remembers")
        warnings.warn(message, OverlapWarning, stacklevel=2)
    if namesakes:
        warnings.warn(
            f"{len(namesakes)} of the {len(validation)} validation images have the name of a training image and other "
            f"bytes, the first of them {namesakes[0]}: make sure that they are no copies that were stored anew",
            OverlapWarning,
            stacklevel=2,
        )
