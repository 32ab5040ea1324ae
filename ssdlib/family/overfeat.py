"""OverFeat: all windows of an image in one pass, since a fully connected layer is a convolution; and learned boxes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssdlib.backbones import fc_to_conv
from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import decode, encode
from ssdlib.detection import Detection
from ssdlib.family.sliding_window import FACTOR, places, pyramid, window_boxes
from ssdlib.family.window_classifier import WindowClassifier

MIN_OVERLAP = 0.5
"""The box of a window is learned where the window overlaps an object by at least this IoU."""


class OverFeat(nn.Module):
    """A window classifier for images of any size, which also says how to move each window onto its object.

    Args:
        classifier: its layers are taken over; its fully connected layer becomes a convolution of the size of its map.

    Attributes:
        side, stride: of the windows that a pass looks at, in pixels.

    Raises:
        ValueError: if the features do not have one cell more for each stride (average poolings are not counted).

    Source: Sermanet et al., OverFeat (2014), sections 3.5 and 4.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: WindowClassifier) -> None:
        super().__init__()
        self.side, self.stride = classifier.side, stride_of(classifier.features)
        self.cells, self.num_classes = classifier.cells, classifier.num_classes
        self.features = classifier.features
        self.register_buffer("mean", classifier.mean, persistent=False)
        self.register_buffer("std", classifier.std, persistent=False)
        with torch.no_grad():
            larger = self.features(torch.zeros(1, 3, *[self.side + 4 * self.stride] * 2))
        if larger.shape[2:] != (self.cells + 4, self.cells + 4):
            raise ValueError(
                f"4 strides of {self.stride} pixels more must be 4 cells more than {self.cells}: {tuple(larger.shape)}"
            )
        weight, bias = fc_to_conv(classifier.fc.weight.detach(), classifier.fc.bias.detach(), self.cells)
        self.class_head = nn.Conv2d(weight.shape[1], self.num_classes, self.cells)
        self.box_head = nn.Conv2d(weight.shape[1], 4, self.cells)
        with torch.no_grad():
            self.class_head.load_state_dict({"weight": weight, "bias": bias})
            for parameter in self.box_head.parameters():  # until it has learned more, a box is its window
                parameter.zero_()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One pass.

        Args:
            images: (N, 3, H, W) floats in 0..1, of any size from one window on.

        Returns:
            logits (N, num_classes, rows, columns) and offsets (N, 4, rows, columns), for each place of a window.

        Raises:
            ValueError: if an image is smaller than a window.
        """
        if min(images.shape[2:]) < self.side:
            raise ValueError(f"images must have {self.side} pixels a side or more, got {tuple(images.shape)}")
        maps = self.features((images - self.mean) / self.std)
        # Where a map has cells for one place more, a part of its window would lie outside the image.
        rows, columns = (places(length, self.side, self.stride) for length in images.shape[2:])
        return self.class_head(maps)[:, :, :rows, :columns], self.box_head(maps)[:, :, :rows, :columns]

    @torch.no_grad()
    def predict_windows(self, image: Tensor, factor: float = FACTOR) -> tuple[Tensor, Tensor]:
        """What is in each window of each level of the image pyramid, and where.

        Args:
            image: (3, H, W) floats in 0..1.
            factor: of the pyramid.

        Returns:
            boxes (K, 4) xyxy in pixels of the image, and logits (K, num_classes), in the order of `pyramid_boxes`.
        """
        boxes, logits = [torch.zeros(0, 4)], [torch.zeros(0, self.num_classes)]
        for level in pyramid(image, self.side, factor):
            said, offsets = self(level.image[None])
            windows = window_boxes(level.image.shape[1], level.image.shape[2], self.side, self.stride)
            moved = decode(offsets[0].flatten(1).T, xyxy_to_cxcywh(windows))
            boxes.append(cxcywh_to_xyxy(moved) * torch.tensor([*level.pixel, *level.pixel]))
            logits.append(said[0].flatten(1).T)
        return torch.cat(boxes), torch.cat(logits)

    @torch.no_grad()
    def fit_boxes(self, images: Sequence[Tensor], boxes: Sequence[Tensor], weight_decay: float = 1.0) -> int:
        """Learn the box head by least squares from all windows that overlap an object enough.

        OverFeat's loss is the squared error, too. Its regressor has two hidden layers and gives the edges of the box;
        this one is a single linear layer that gives offsets, so the minimum has a closed form.

        Args:
            images: (3, H, W) floats in 0..1.
            boxes: (M, 4) xyxy of the objects of each image, in pixels.
            weight_decay: as of `fit_linear`.

        Returns:
            How many windows it was learned from.

        Raises:
            ValueError: if no window overlaps an object.
        """
        described, offsets = [], []
        for image, true in zip(images, boxes, strict=True):
            for level in pyramid(image, self.side):
                windows = window_boxes(level.image.shape[1], level.image.shape[2], self.side, self.stride)
                objects = true / torch.tensor([*level.pixel, *level.pixel])
                near, target = targets_of_windows(windows, objects)
                described.append(self.describe(level.image)[near])
                offsets.append(target)
        if sum(map(len, offsets)) == 0:
            raise ValueError(f"no window overlaps an object by {MIN_OVERLAP} or more: there is nothing to learn from")
        inputs = torch.cat(described)
        weight, bias = fit_linear(inputs, torch.cat(offsets), weight_decay)
        kernel, shift = fc_to_conv(weight, bias, self.cells)
        self.box_head.load_state_dict({"weight": kernel, "bias": shift})
        return len(inputs)

    def describe(self, image: Tensor) -> Tensor:
        """(K, D * cells * cells): what the heads see of each window of an image (3, H, W), row by row."""
        maps = self.features((image[None] - self.mean) / self.std)
        rows, columns = (places(length, self.side, self.stride) for length in image.shape[1:])
        seen = maps[:, :, : rows + self.cells - 1, : columns + self.cells - 1]
        return F.unfold(seen, self.cells)[0].T


def stride_of(layers: nn.Module) -> int:
    """By how many pixels neighbouring cells of the output of convolutions and poolings lie apart."""
    strides = [layer.stride for layer in layers.modules() if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    return math.prod(stride if isinstance(stride, int) else stride[0] for stride in strides)


def targets_of_windows(windows_xyxy: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Which windows learn a box, and which: that of the object that they overlap most.

    Args:
        windows_xyxy: (K, 4).
        boxes_xyxy: (M, 4) of the objects, in the same unit; M = 0 is legal.

    Returns:
        near (K,) bool, the windows that overlap an object by at least `MIN_OVERLAP`, and their offsets (near.sum(), 4).
    """
    if len(boxes_xyxy) == 0:
        return torch.zeros(len(windows_xyxy), dtype=torch.bool), torch.zeros(0, 4)
    overlap, which = iou(windows_xyxy, boxes_xyxy).max(dim=1)
    near = overlap >= MIN_OVERLAP
    return near, encode(xyxy_to_cxcywh(boxes_xyxy[which[near]]), xyxy_to_cxcywh(windows_xyxy[near]))


def fit_linear(features: Tensor, targets: Tensor, weight_decay: float = 1.0) -> tuple[Tensor, Tensor]:
    """The linear layer with the least squared error, and weight decay ("ridge regression"), in closed form.

    Args:
        features: (N, D), N > 0; the weight decay applies to weights for features of mean 0 and variance 1.
        targets: (N, T).
        weight_decay: this times the sum of squared weights is added to the mean squared error.

    Returns:
        weight (T, D) and bias (T,), float32, for the features as they are.

    Raises:
        ValueError: if the shapes do not fit together or there is nothing to learn from.
    """
    if features.dim() != 2 or targets.dim() != 2 or len(features) != len(targets) or len(features) == 0:
        raise ValueError(f"need features (N, D), targets (N, T), N > 0: {(*features.shape,)}, {(*targets.shape,)}")
    x, y = features.double(), targets.double()
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0) + 1e-6
    x = (x - mean) / std
    normal = x.T @ x / len(x) + weight_decay * torch.eye(x.shape[1], dtype=x.dtype)
    solution = torch.linalg.solve(normal, x.T @ (y - y.mean(dim=0)) / len(x))  # (D, T)
    weight = (solution / std[:, None]).T
    return weight.float(), (y.mean(dim=0) - weight @ mean).float()


def multiply_adds(layers: nn.Module, height: int, width: int) -> int:
    """Multiplications (each with an addition) of a chain of convolutions on one image (channels, height, width).

    Counted by PyTorch on tensors of the "meta" device, which have shapes and no numbers: nothing is computed.
    """
    channels = next(layer.in_channels for layer in layers.modules() if isinstance(layer, nn.Conv2d))
    on_paper = copy.deepcopy(layers).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_paper(torch.empty(1, channels, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


def merge_boxes(boxes_xyxy: Tensor, logits: Tensor, min_score: float = 0.5, min_overlap: float = 0.3) -> Detection:
    """OverFeat's way with boxes that found the same object: the two that agree most become one, again and again.

    NMS takes the best box and drops the others. Here each has a say in the place: the box of a group is the mean of all
    its boxes, weighted by their scores, and its score is their highest. (OverFeat takes the plain average of the two,
    adds scores up, and measures agreement by the distance of centres and the intersection in place of IoU.)

    Args:
        boxes_xyxy: (K, 4); boxes that are not finite are left out.
        logits: (K, C), class 0 is background.
        min_score: of the softmax, for a box to take part.
        min_overlap: two boxes of a class that overlap by more than this IoU become one.

    Returns:
        A detection: "boxes", "labels" and "scores", best first.

    Source: Sermanet et al. (2014), section 4.3.
    """
    scores = logits.softmax(dim=1)
    merged, labels, values = [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)]
    for label in range(1, scores.shape[1]):
        sure = (scores[:, label] >= min_score) & boxes_xyxy.isfinite().all(dim=1)
        boxes, weight = boxes_xyxy[sure].double(), scores[sure, label].double()
        best = weight.clone()
        while len(boxes) > 1:
            overlaps = iou(boxes, boxes).fill_diagonal_(0)
            i, j = divmod(int(overlaps.argmax()), len(boxes))
            if overlaps[i, j] <= min_overlap:
                break
            boxes[i] = (weight[i] * boxes[i] + weight[j] * boxes[j]) / (weight[i] + weight[j])
            weight[i], best[i] = weight[i] + weight[j], max(best[i], best[j])
            rest = torch.arange(len(boxes)) != j
            boxes, weight, best = boxes[rest], weight[rest], best[rest]
        merged.append(boxes.float())
        labels.append(torch.full((len(boxes),), label))
        values.append(best.float())
    score = torch.cat(values)
    order = score.argsort(descending=True, stable=True)
    return {"boxes": torch.cat(merged)[order], "labels": torch.cat(labels)[order], "scores": score[order]}
