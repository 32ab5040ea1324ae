"""A classifier of square windows, learned from crops: it names what a small picture shows, and not where it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from ssdlib.boxes import iou


class WindowClassifier(nn.Module):
    """Names what is in a square window: convolutions without padding, then one fully connected layer.

    Args:
        features: convolutions (N, 3, side, side) -> (N, D, m, m). They are taken as a copy, without their padding, as
            they are in evaluation mode, and are not trained.
        num_classes: of the output.
        side: of the window, in pixels.
        mean, std: (3, 1, 1), by which the images were normalised when the features were trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Module, num_classes: int, side: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.features = without_padding(features)
        self.side, self.num_classes = side, num_classes
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        with torch.no_grad():
            cells = self.features(torch.zeros(1, 3, side, side))
        if cells.shape[2] != cells.shape[3]:
            raise ValueError(f"features of a square window must be square, got {tuple(cells.shape)}")
        self.cells = int(cells.shape[2])
        self.fc = nn.Linear(cells.shape[1] * self.cells**2, num_classes)

    def describe(self, windows: Tensor) -> Tensor:
        """(N, 3, side, side) floats in 0..1 -> (N, D * m * m), what the fully connected layer sees."""
        return self.features((windows - self.mean) / self.std).flatten(1)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, 3, side, side) floats in 0..1 -> logits (N, num_classes)."""
        logits: Tensor = self.fc(self.describe(windows))
        return logits

    @torch.no_grad()
    def fit(self, windows: Tensor, labels: Tensor, weight_decay: float = 0.1) -> None:
        """Learn the fully connected layer from labelled windows; see `fit_softmax`.

        Args:
            windows: (N, 3, side, side) floats in 0..1.
            labels: (N,) int64 below num_classes.
            weight_decay: as of `fit_softmax`.
        """
        described = torch.cat([self.describe(part) for part in windows.split(256)])
        weight, bias = fit_softmax(described, labels, self.num_classes, weight_decay)
        self.fc.weight.copy_(weight)
        self.fc.bias.copy_(bias)


def without_padding(layers: nn.Module) -> nn.Module:
    """A copy of convolutions that adds nothing around its input, in evaluation mode and without gradients.

    Then what a window is like does not depend on where its border was drawn, and all that it says is about the window.
    """
    layers = copy.deepcopy(layers).eval().requires_grad_(False)
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            layer.padding = (0, 0)
    return layers


@torch.enable_grad()
def fit_softmax(features: Tensor, labels: Tensor, classes: int, weight_decay: float = 0.1) -> tuple[Tensor, Tensor]:
    """A linear layer with softmax: the weights that make the cross entropy, with weight decay, as small as can be.

    There is one minimum only, and it is reached in float64: every machine arrives at the same layer.

    Args:
        features: (N, D); the weight decay applies to weights for features of mean 0 and variance 1.
        labels: (N,) int64 in 0..classes - 1.
        classes: number of outputs.
        weight_decay: half of it times the sum of squared weights is added to the mean cross entropy.

    Returns:
        weight (classes, D) and bias (classes,), float32, for the features as they are.

    Raises:
        ValueError: if the shapes do not fit together, a label is out of range, or there is nothing to learn from.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise ValueError(f"need features (N, D), labels (N,), N > 0: {tuple(features.shape)}, {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    x = features.detach().double()
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0) + 1e-6
    x = (x - mean) / std
    weight = x.new_zeros(classes, x.shape[1]).requires_grad_()
    bias = x.new_zeros(classes).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, labels) + 0.5 * weight_decay * (weight**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight, bias = weight.detach(), bias.detach()
    weight = weight / std  # the normalisation becomes part of the layer
    return weight.float(), (bias - weight @ mean).float()


def square_around(box: Tensor, margin: float = 1.1) -> Tensor:
    """(4,) xyxy: the square around a box (4,), `margin` times as wide as its longer side."""
    half = (box[2:] - box[:2]).max() * margin / 2
    centre = (box[:2] + box[2:]) / 2
    return torch.cat((centre - half, centre + half))


def crop_window(image: Tensor, box: Tensor, side: int) -> Tensor:
    """(3, side, side) floats in 0..1: a part of an image (3, H, W), uint8 or floats, black where it lies outside."""
    left, top, right, bottom = box.round().int().tolist()
    part = TF.crop(image, top, left, max(1, bottom - top), max(1, right - left))
    # As floats: resizing whole numbers rounds differently on different processors.
    return TF.resize(TF.to_dtype(part, torch.float32, scale=True), [side, side], antialias=True).clamp(0, 1)


def training_windows(
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    side: int,
    generator: torch.Generator,
    *,
    copies: int = 2,
    background: int = 10,
) -> Iterator[tuple[Tensor, int]]:
    """Windows (3, side, side) with their labels: around each object, a little off, and mirrored; and background.

    Args:
        images: (3, H, W) uint8, or floats in 0..1.
        targets: "boxes" in pixels, "labels", "difficult"; difficult objects are left out.
        side: of the windows.
        generator: the only source of randomness.
        copies: windows for each object, each also mirrored.
        background: windows tried at random places of each image; those that overlap an object by more than 0.3 IoU
            are left out.
    """

    def random(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    for image, target in zip(images, targets, strict=True):
        height, width = image.shape[1:]
        for box, label in zip(
            target["boxes"][~target["difficult"]], target["labels"][~target["difficult"]], strict=True
        ):
            for _ in range(copies):
                square = square_around(box, margin=random(0.95, 1.3))
                shift = (square[2] - square[0]) * torch.tensor([random(-0.08, 0.08), random(-0.08, 0.08)]).repeat(2)
                window = crop_window(image, square + shift, side)
                yield window, int(label)
                yield window.flip(2), int(label)
        for _ in range(background):
            size = random(side * 0.75, min(height, width))
            left, top = random(0, width - size), random(0, height - size)
            square = torch.tensor([left, top, left + size, top + size])
            if not (iou(square[None], target["boxes"]) > 0.3).any():
                yield crop_window(image, square, side), 0
