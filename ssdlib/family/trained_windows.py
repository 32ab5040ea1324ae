"""Sliding windows and OverFeat as the other relatives are: trained from random weights, with one interface.

Both classify windows of 64 pixels on all levels of an image pyramid, by the first five convolutions of `Tiny`, without
padding, and one layer over the 4 x 4 cells that they leave of a window. The one computes every window by itself. The
other takes a level in one pass, so that it can afford windows twice as dense in both directions, and moves each onto
its object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from ssdlib.backbones import Tiny
from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.detection import Detection
from ssdlib.detection import detect as detect_boxes
from ssdlib.family.overfeat import MIN_OVERLAP, OverFeat
from ssdlib.family.sliding_window import pyramid_boxes, pyramid_sizes, window_logits
from ssdlib.family.window_classifier import WindowClassifier, training_windows
from ssdlib.loss import background_loss, checked_targets, mine_hard_negatives
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD

IMAGE_SIZE = 256
"""Side of the images, in pixels."""
SIDE = 64
"""Side of a window, in pixels of its level of the pyramid."""
BACKGROUND = 0.3
"""OverFeat's window is background if its IoU with every object is at most this; up to `MIN_OVERLAP` it is ignored."""
IGNORED = -1
"""In the place of a label."""


class SlidingWindows(nn.Module):
    """Chapter 18's detector: a classifier is asked about each window by itself, and the windows are the boxes.

    Args:
        num_classes: C, background included.

    Attributes:
        priors: (K, 4) cxcywh, fractional: the windows of all levels, in the order of the logits.

    Raises:
        ValueError: if there is no class of objects.
    """

    image_size = IMAGE_SIZE
    stride = 16  # as in the chapter; half of it would be four times as many windows
    priors: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.classifier = _classifier(num_classes)
        self.num_classes = num_classes
        self.register_buffer("priors", _windows(self.stride), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 256, 256) in 0..1 -> logits (N, K, C), without gradients: it learns from windows that are cut for it.

        Raises:
            ValueError: if the images have another shape.
        """
        _require_shape(images)
        logits = [window_logits(self.classifier, image, self.stride) for image in images]
        return torch.stack(logits) if logits else images.new_zeros(0, len(self.priors), self.num_classes)

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in; as `ssdlib.detection.detect`."""
        logits = self(images)
        unmoved = logits.new_zeros(*logits.shape[:2], 4)
        return detect_boxes(unmoved, logits, self.priors, min_score, max_overlap, top_k)


class TrainedOverFeat(nn.Module):
    """OverFeat, names and boxes learned together: one pass over each level of the pyramid.

    Args:
        num_classes: C, background included.

    Attributes:
        priors: (K, 4) cxcywh, fractional: the windows of all levels, which the offsets move as SSD's move its priors.

    Raises:
        ValueError: if there is no class of objects.

    Source: Sermanet et al., OverFeat (2014), sections 3.5 to 5. There the features learn names first, and are frozen
    when the boxes are learned.
    """

    image_size = IMAGE_SIZE
    priors: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = OverFeat(_classifier(num_classes))
        self.num_classes = num_classes
        self.register_buffer("priors", _windows(self.network.stride), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 256, 256) in 0..1 -> offsets (N, K, 4) and logits (N, K, C) of the windows of all levels.

        While it learns, batch normalisation takes each level by itself; the averages that it keeps are of all levels.

        Raises:
            ValueError: if the images have another shape.
        """
        _require_shape(images)
        offsets, logits = [], []
        for size in pyramid_sizes(IMAGE_SIZE, IMAGE_SIZE, SIDE):
            level = images if size == (IMAGE_SIZE, IMAGE_SIZE) else TF.resize(images, [*size], antialias=True)
            said, moved = self.network(level)  # (N, C, rows, columns), (N, 4, rows, columns)
            offsets.append(moved.flatten(2))
            logits.append(said.flatten(2))
        return torch.cat(offsets, dim=2).transpose(1, 2), torch.cat(logits, dim=2).transpose(1, 2)

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in; as `ssdlib.detection.detect`."""
        if len(images) == 0:
            return []
        offsets, logits = self(images)
        return detect_boxes(offsets, logits, self.priors, min_score, max_overlap, top_k)


def _classifier(num_classes: int) -> WindowClassifier:
    if num_classes < 2:
        raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    layers = nn.Sequential(*Tiny().stages[0].children())[:5]
    return WindowClassifier(layers, num_classes, SIDE, mean, std).requires_grad_(True)  # it had frozen the layers


def _windows(stride: int) -> Tensor:
    return xyxy_to_cxcywh(pyramid_boxes(IMAGE_SIZE, IMAGE_SIZE, SIDE, stride) / IMAGE_SIZE)


def _require_shape(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"this network takes images (N, 3, 256, 256), got {tuple(images.shape)}")


def sliding_window_losses(
    model: SlidingWindows, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Cross entropy of windows that `training_windows` cuts out of a batch: around each object, and background.

    Args:
        model: in training mode.
        images: (N, 3, 256, 256) with values in 0..1, N > 0.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.

    Returns:
        {"class": scalar}, float32, the mean of all windows. Which windows, PyTorch's own generator draws.

    Raises:
        ValueError: if the images have another shape, a box is empty, swapped or not finite, or a label is out of range;
            of boxes and labels the message names the image.
    """
    _require_shape(images)
    boxes, labels, image = checked_targets(targets, model.num_classes, model.priors)
    in_pixels = []
    for i in range(len(targets)):
        own = image == i
        none = torch.zeros_like(labels[own], dtype=torch.bool)
        in_pixels.append({"boxes": boxes[own] * IMAGE_SIZE, "labels": labels[own], "difficult": none})
    windows, names = zip(*training_windows([*images], in_pixels, SIDE, torch.default_generator), strict=True)
    logits = model.classifier(torch.stack(windows)).float()
    return {"class": F.cross_entropy(logits, torch.tensor(names, device=logits.device))}


def overfeat_losses(
    model: TrainedOverFeat, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """`overfeat_loss` of a network's predictions for a batch, as `ssdlib.training.training_loop` asks for it."""
    offsets, logits = model(images)
    return overfeat_loss(offsets, logits, targets, model.priors)


def overfeat_loss(
    offsets: Tensor, logits: Tensor, targets: Sequence[Mapping[str, Tensor]], windows_cxcywh: Tensor
) -> dict[str, Tensor]:
    """Losses of a batch: squared errors of the boxes, cross entropy of objects and of the hardest background.

    As SSD's, but for the square, and that no window is forced upon an object: one that none overlaps by `MIN_OVERLAP`
    is not learned.

    Args:
        offsets: (N, K, 4).
        logits: (N, K, C).
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.
        windows_cxcywh: (K, 4), fractional.

    Returns:
        {"box", "class"}: scalars, float32, each divided by the number of windows with an object, or by 1 without any.

    Raises:
        ValueError: if a box is empty, swapped or not finite, or a label is out of range; the message names the image.

    Source: Sermanet et al. (2014), sections 4.2 and 5; three negatives for each positive, as in SSD.
    """
    offsets, logits = offsets.float(), logits.float()
    boxes, labels, image = checked_targets(targets, logits.shape[2], windows_cxcywh)  # (T, 4), (T,), (T,)
    windows = cxcywh_to_xyxy(windows_cxcywh)
    names = torch.zeros(logits.shape[:2], dtype=torch.int64, device=logits.device)  # (N, K)
    errors = [offsets.sum() * 0]
    for i in range(len(targets)):
        own = image == i
        if own.any():
            overlap, which = iou(windows, boxes[own]).max(dim=1)  # (K,) each
            near = overlap >= MIN_OVERLAP
            names[i] = torch.where(near, labels[own][which], torch.where(overlap > BACKGROUND, IGNORED, 0))
            wanted = encode(xyxy_to_cxcywh(boxes[own][which[near]]), windows_cxcywh[near])
            errors.append((offsets[i][near] - wanted).square().sum())
    positive = names > 0
    with torch.no_grad():
        hardness = background_loss(logits).masked_fill(names == IGNORED, -torch.inf)
        # Where little is background, mining has to take what is ignored, too; it is left out here.
        learned = positive | mine_hard_negatives(hardness, positive) & (names == 0)
    divisor = positive.sum().clamp(min=1)
    return {
        "box": torch.stack(errors).sum() / divisor,
        "class": F.cross_entropy(logits[learned], names[learned], reduction="sum") / divisor,
    }
