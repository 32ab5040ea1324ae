"""What a stage of a two-stage detector learns from: objects, background, what is ignored, and a balanced sample.

Where SSD mines the hardest negatives, Faster R-CNN draws a sample of fixed size and proportion from all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.matching import UNMATCHED, match

IGNORED = -1
"""A label: this box teaches neither an object nor background."""


class Rule(NamedTuple):
    """Which boxes of a stage are objects, which are background, and how many of them one image teaches with."""

    high: float  # an overlap from here on is an object
    low: float  # an overlap below is background; what lies between is ignored
    number: int  # the size of the sample
    positives: float  # at most this fraction of it


class Lesson(NamedTuple):
    """What one image teaches a stage: K boxes of its sample, the positives first."""

    chosen: Tensor  # (K,) int64, which of the boxes
    labels: Tensor  # (K,) int64, 0 is background
    offsets: Tensor  # (number of positives, 4), from the chosen boxes to their objects


def assign(boxes_cxcywh: Tensor, objects_xyxy: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """Which boxes are which object, background, or neither.

    Each object has the box that overlaps it most, however little that is, and all that overlap it by `high`: this is
    `ssdlib.matching.match`. Of the others, those below `low` are background.

    Args:
        boxes_cxcywh: (P, 4), priors or proposals.
        objects_xyxy: (M, 4), in the same unit; M = 0 is legal: all is background.
        high, low: the two limits of the overlap.

    Returns:
        matched (P,) int64, the object or UNMATCHED (-1); and ignored (P,) bool.

    Raises:
        ValueError: if low is above high, or as `match`.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.2.
    """
    if not 0 <= low <= high:
        raise ValueError(f"the limit of background, {low}, must be 0 or more and not above that of objects, {high}")
    matched = match(objects_xyxy, boxes_cxcywh, high)
    if len(objects_xyxy) == 0:
        return matched, torch.zeros_like(matched, dtype=torch.bool)
    overlap = iou(cxcywh_to_xyxy(boxes_cxcywh), objects_xyxy).amax(dim=1)  # (P,)
    return matched, (matched == UNMATCHED) & (overlap >= low)


def draw_sample(labels: Tensor, number: int, positives: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw boxes by chance, with at most a fraction of positives; where they are few, negatives take their places.

    Args:
        labels: (P,) int64: 0 is background, above is an object, `IGNORED` is never drawn.
        number: how many are drawn; fewer if there are not so many.
        positives: at most this fraction of the number are objects.
        generator: on the CPU; by default PyTorch's own.

    Returns:
        Their indices, the positives first.

    Raises:
        ValueError: if the number is negative or the fraction not in 0..1.

    Source: Ren et al. (2015), section 3.1.3.
    """
    if number < 0 or not 0 <= positives <= 1:
        raise ValueError(f"a sample needs a number of 0 or more and a fraction in 0..1, got {number}, {positives}")
    objects, background = (labels > 0).nonzero().squeeze(1), (labels == 0).nonzero().squeeze(1)
    objects = _shuffled(objects, generator)[: int(number * positives)]
    background = _shuffled(background, generator)[: number - len(objects)]
    return torch.cat((objects, background))


def _shuffled(indices: Tensor, generator: torch.Generator | None) -> Tensor:
    # On the CPU, so that the same seed draws the same sample on every device.
    return indices[torch.randperm(len(indices), generator=generator).to(indices.device)]


def teach(
    boxes_cxcywh: Tensor,
    objects_xyxy: Tensor,
    object_labels: Tensor,
    rule: Rule,
    generator: torch.Generator | None = None,
) -> Lesson:
    """What one image teaches a stage.

    Args:
        boxes_cxcywh: (P, 4), the stage's boxes: priors in the first stage, proposals in the second.
        objects_xyxy: (M, 4), in the same unit; M = 0 is legal.
        object_labels: (M,) int64, above 0.
        rule: of the stage.
        generator: of the sample.

    Raises:
        ValueError: if a box is empty or not finite.
    """
    matched, ignored = assign(boxes_cxcywh, objects_xyxy, rule.high, rule.low)
    labels = torch.zeros_like(matched).masked_fill_(ignored, IGNORED)
    positive = matched != UNMATCHED
    labels[positive] = object_labels[matched[positive]]
    chosen = draw_sample(labels, rule.number, rule.positives, generator)
    taught = chosen[labels[chosen] > 0]
    offsets = encode(xyxy_to_cxcywh(objects_xyxy)[matched[taught]], boxes_cxcywh[taught])
    return Lesson(chosen, labels[chosen], offsets)


def stage_losses(offsets: Tensor, logits: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
    """Class and box loss of a stage for a batch.

    Args:
        offsets: (K, 4), predicted for the chosen boxes of all images, image by image.
        logits: (K, C).
        lessons: one an image.

    Returns:
        The mean cross entropy of the sample, and smooth L1 summed over its positives and divided by its size: two
        scalars, float32, 0 where the sample is empty.

    Source: Ren et al. (2015), equation 1. The paper divides the second term by the number of cells and weighs it with
        10, which comes to about the same: 10 / 2400 is nearly 1 / 256.
    """
    labels = torch.cat([lesson.labels for lesson in lessons])
    wanted = torch.cat([lesson.offsets for lesson in lessons])
    size = max(len(labels), 1)
    confidence = F.cross_entropy(logits.float(), labels, reduction="sum") / size
    localization = F.smooth_l1_loss(offsets.float()[labels > 0], wanted, reduction="sum") / size
    return confidence, localization
