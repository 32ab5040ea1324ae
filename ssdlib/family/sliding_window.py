"""Sliding windows: a classifier of small pictures becomes a detector by being asked about every part of the image.

The classifier looks at square windows of one size. Larger objects are found in smaller copies of the image, the levels
of an image pyramid; what is found more than once is thinned out by NMS.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.detection import Detection
from ssdlib.family.window_classifier import WindowClassifier
from ssdlib.nms import nms

FACTOR = 2**-0.5
"""Each level of the pyramid is so many times as wide as the one before: two levels to half the size."""


class Level(NamedTuple):
    """One level of an image pyramid: the image (3, H, W), and how many pixels of the original one of its pixels is."""

    image: Tensor
    pixel: tuple[float, float]  # across, down


def pyramid(image: Tensor, smallest: int, factor: float = FACTOR) -> list[Level]:
    """The image in smaller and smaller copies, as long as a window of `smallest` pixels fits.

    Args:
        image: (3, H, W) floats.
        smallest: the shortest side that a level may have, in pixels.
        factor: of the size from level to level, between 0 and 1.

    Raises:
        ValueError: if the factor is not between 0 and 1, or `smallest` is not at least 1.
    """
    levels: list[Level] = []
    for height, width in pyramid_sizes(image.shape[1], image.shape[2], smallest, factor):
        level = image if not levels else TF.resize(image, [height, width], antialias=True)
        levels.append(Level(level, (image.shape[2] / width, image.shape[1] / height)))
    return levels


def pyramid_sizes(height: int, width: int, smallest: int, factor: float = FACTOR) -> list[tuple[int, int]]:
    """(height, width) of each level of `pyramid`; arguments and errors as there."""
    if not 0 < factor < 1:
        raise ValueError(f"each level must be smaller than the one before: the factor must be in 0..1, got {factor}")
    if smallest < 1:  # there would be no end
        raise ValueError(f"the shortest side of a level must be at least 1 pixel, got {smallest}")
    sizes: list[tuple[int, int]] = []
    while True:
        scale = factor ** len(sizes)
        size = round(height * scale), round(width * scale)
        if min(size) < smallest:
            return sizes
        sizes.append(size)


def places(length: int, side: int, stride: int) -> int:
    """In how many places a window of `side` fits along a `length`, moved by `stride` pixels at a time.

    Raises:
        ValueError: if the side or the stride is not at least 1.
    """
    if side < 1 or stride < 1:
        raise ValueError(f"a window and its stride must have at least 1 pixel, got side {side}, stride {stride}")
    return max(0, (length - side) // stride + 1)


def count_windows(height: int, width: int, side: int, stride: int, factor: float = FACTOR) -> list[int]:
    """How many windows each level of the pyramid of an image has."""
    return [places(h, side, stride) * places(w, side, stride) for h, w in pyramid_sizes(height, width, side, factor)]


def window_boxes(height: int, width: int, side: int, stride: int) -> Tensor:
    """(K, 4) xyxy in pixels: the windows of an image, row by row."""
    top = torch.arange(places(height, side, stride)) * stride
    left = torch.arange(places(width, side, stride)) * stride
    y, x = torch.meshgrid(top, left, indexing="ij")
    corner = torch.stack((x, y), dim=-1).reshape(-1, 2)
    return torch.cat((corner, corner + side), dim=1).float()


def pyramid_boxes(height: int, width: int, side: int, stride: int, factor: float = FACTOR) -> Tensor:
    """(K, 4) xyxy in pixels of the original: the windows of all levels, in the order of `count_windows`."""
    boxes = [
        window_boxes(h, w, side, stride) * torch.tensor([width / w, height / h] * 2)
        for h, w in pyramid_sizes(height, width, side, factor)
    ]
    return torch.cat([torch.zeros(0, 4), *boxes])


def cut_windows(image: Tensor, side: int, stride: int) -> Tensor:
    """(K, 3, side, side): the windows of an image (3, H, W), in the order of `window_boxes`."""
    if not all(places(length, side, stride) for length in image.shape[1:]):
        return image.new_zeros(0, image.shape[0], side, side)
    windows = image.unfold(1, side, stride).unfold(2, side, stride)  # (3, rows, columns, side, side)
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, image.shape[0], side, side)


@torch.no_grad()
def window_logits(classifier: WindowClassifier, image: Tensor, stride: int, factor: float = FACTOR) -> Tensor:
    """(K, num_classes): what the classifier says of each window of each level, one window after the other.

    Args:
        classifier: of windows.
        image: (3, H, W) floats in 0..1.
        stride: of the windows, in pixels of each level.
        factor: of the pyramid.
    """
    logits = [torch.zeros(0, classifier.num_classes)]
    for level in pyramid(image, classifier.side, factor):
        for part in cut_windows(level.image, classifier.side, stride).split(256):
            logits.append(classifier(part))
    return torch.cat(logits)


def best_windows(boxes: Tensor, logits: Tensor, min_score: float = 0.5, max_overlap: float = 0.3) -> Detection:
    """The windows that are something, thinned out by NMS, class by class.

    Args:
        boxes: (K, 4) xyxy, in any unit.
        logits: (K, C), class 0 is background.
        min_score: of the softmax.
        max_overlap: between two boxes of a class.

    Returns:
        A detection: "boxes", "labels" and "scores", best first.

    Raises:
        ValueError: if there are not as many boxes as rows of logits, or a logit is not a number.
    """
    if logits.dim() != 2 or boxes.shape != (len(logits), 4):
        raise ValueError(f"need boxes (K, 4) and logits (K, C), got {tuple(boxes.shape)} and {tuple(logits.shape)}")
    if logits.isnan().any():
        raise ValueError("logits must be numbers, got nan")
    scores = logits.softmax(dim=1)
    kept, labels = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
    for label in range(1, scores.shape[1]):
        sure = (scores[:, label] >= min_score).nonzero().flatten()
        kept.append(sure[nms(boxes[sure], scores[sure, label], max_overlap)])
        labels.append(torch.full_like(kept[-1], label))
    rows, names = torch.cat(kept), torch.cat(labels)
    values = scores[rows, names]
    order = values.argsort(descending=True, stable=True)
    return {"boxes": boxes[rows][order], "labels": names[order], "scores": values[order]}
