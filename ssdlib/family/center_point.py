"""Objects as points: each object is a peak of its class's heatmap; no priors, no overlaps, and no NMS.

One map of 32 x 32 cells says for each cell how likely it holds the centre of an object of each class, how large that
object is, and where in the cell its centre lies. A peak is a cell that no neighbour exceeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdlib.backbones import Tiny
from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import MAX_LOG_SIZE
from ssdlib.detection import Detection, by_image, has_area
from ssdlib.loss import checked_targets
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD

CELLS = 32
"""Cells of a side of the heatmap: each is 8 pixels of the image wide, where CenterNet's are 4."""
RARE = 0.01
"""How likely an untrained network finds a centre anywhere: as rare as centres are (Lin et al. 2017, section 4.1)."""


class Points(NamedTuple):
    """What the network says of N images, for each cell."""

    heat: Tensor  # (N, C-1, 32, 32), before the sigmoid
    log_sizes: Tensor  # (N, 2, 32, 32): log of width and height in cells
    offsets: Tensor  # (N, 2, 32, 32): x and y of the centre in its cell, 0..1


class CenterPoint(nn.Module):
    """A centre-point detector on `Tiny`: the coarser maps are carried down to the finest one, and it alone predicts.

    Args:
        num_classes: C, background included, as for SSD, although there is no such class here.
        width: channels of the map that predicts.

    Raises:
        ValueError: if there is no class of objects.

    Source: Zhou et al., Objects as Points (2019); with the paths from coarse to fine of a feature pyramid (Lin et al.,
    2017) in place of its deconvolutions.
    """

    image_size = 256
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self.backbone = Tiny()
        self.lateral, self.mix = way_down(width)
        self.head = nn.Conv2d(width, num_classes - 1 + 4, 1)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.head.bias[: num_classes - 1] = -math.log(1 / RARE - 1)  # type: ignore[index]
            self.head.bias[-2:] = 0.5  # type: ignore[index]  # in the middle of the cell
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Points:
        """(N, 3, 256, 256) in 0..1 -> what is said of each cell.

        Raises:
            ValueError: if the images have another shape.
        """
        if images.dim() != 4 or images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"this network takes images (N, 3, 256, 256), got {tuple(images.shape)}")
        maps = self.backbone((images - self.mean) / self.std)
        said = self.head(self.mix(carry_down(self.lateral, maps)))
        return Points(*said.split([self.num_classes - 1, 2, 2], dim=1))

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in; as `ssdlib.detection.detect`.

        `max_overlap` has no meaning here and changes nothing: there is no NMS.
        """
        return read_points(self(images), min_score, top_k) if len(images) else []


def way_down(width: int) -> tuple[nn.ModuleList, nn.Sequential]:
    """The layers of a way from the coarsest map of `Tiny` to the finest: one for each map, and one for their sum."""
    lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in Tiny.out_channels)
    layers = (nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    return lateral, nn.Sequential(*layers)


def carry_down(lateral: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """Maps, each half as large as the one before -> one as large as the first, (N, width, H, W): Lin et al. (2017)."""
    x: Tensor = lateral[-1](maps[-1])
    for layer, finer in zip(reversed(lateral[:-1]), reversed(maps[:-1]), strict=True):
        x = layer(finer) + F.interpolate(x, scale_factor=2.0)  # each cell is repeated 2 x 2
    return x


def peaks(heat: Tensor) -> Tensor:
    """(..., H, W) bool: the cells that none of their eight neighbours exceeds.

    Source: Zhou et al. (2019), section 4, "From points to bounding boxes": a 3 x 3 max pooling in place of NMS.
    """
    return heat == F.max_pool2d(heat, 3, stride=1, padding=1)


@torch.no_grad()
def read_points(said: Points, min_score: float = 0.01, top_k: int = 200) -> list[Detection]:
    """Detections of a batch, best first; of equal scores the lower label, then the earlier cell.

    Args:
        said: of N images.
        min_score: detections have at least this score.
        top_k: at most so many peaks of each image are looked at, the best ones.
    """
    heat, log_sizes, offsets = (part.float() for part in said)
    cells = heat.shape[-1]
    score = torch.where(peaks(heat), heat.sigmoid(), -1.0).flatten(1)  # (N, (C-1) * cells * cells)
    order = score.argsort(dim=1, descending=True, stable=True)[:, :top_k]  # (N, K)
    score, label, cell = score.take_along_dim(order, 1), order // cells**2 + 1, order % cells**2
    size = log_sizes.flatten(2).take_along_dim(cell[:, None], 2).clamp(max=MAX_LOG_SIZE).exp()  # (N, 2, K)
    centre = offsets.flatten(2).take_along_dim(cell[:, None], 2) + torch.stack((cell % cells, cell // cells), dim=1)
    boxes = cxcywh_to_xyxy(torch.cat((centre, size), dim=1).transpose(1, 2) / cells).clamp(0, 1)  # (N, K, 4)
    return by_image((score >= min_score) & has_area(boxes), boxes, label, score)


def gaussian_radius(width: Tensor, height: Tensor, overlap: float = 0.7) -> Tensor:
    """How far a box may be moved, across and down alike, and still overlap itself by so much IoU.

    Moved by r both ways, a box shares (w - r)(h - r) with itself. Their IoU is the given one where that is
    2 * overlap / (1 + overlap) of its area: a quadratic equation, whose smaller root is the answer.

    Args:
        width, height: (...), above 0, in any unit.
        overlap: IoU, above 0, at most 1.

    Returns:
        (...), in that unit.

    Source: Law and Deng, CornerNet (2018), section 3.2; of the three cases of its program the one in which a box moves
    and keeps its size, which is what happens to centres.
    """
    shared = 2 * overlap / (1 + overlap)
    half = (width + height) / 2
    return half - (half.square() - (1 - shared) * width * height).sqrt()


def draw_heat(centres: Tensor, sigma: Tensor, labels: Tensor, num_classes: int, cells: int = CELLS) -> Tensor:
    """The heatmap that is to be learned: 1 at each object's cell, and a Gaussian around it.

    Where Gaussians of one class meet, the larger value counts.

    Args:
        centres: (M, 2) column and row of the cells, whole numbers; M = 0 is legal.
        sigma: (M,), widths of the Gaussians in cells.
        labels: (M,) int64 in 1..C-1.
        num_classes: C, background included.
        cells: of a side.

    Returns:
        (C-1, cells, cells) in 0..1.

    Source: Zhou et al. (2019), section 3.
    """
    heat = centres.new_zeros(num_classes - 1, cells, cells)
    line = torch.arange(cells, device=centres.device, dtype=centres.dtype)
    across, down = torch.exp(-((line - centres[..., None]) ** 2) / (2 * sigma[:, None, None] ** 2)).unbind(1)  # (M, S)
    for label, bump in zip(labels.tolist(), down[:, :, None] * across[:, None, :], strict=True):
        heat[label - 1] = torch.maximum(heat[label - 1], bump)
    return heat


def heat_loss(logits: Tensor, heat: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Focal loss of a heatmap, summed: cells near a centre are no positives, but cost less when they are taken for one.

    With p = sigmoid(logit): -(1 - p)^alpha log p where the heat is 1, else -(1 - heat)^beta p^alpha log(1 - p).

    Args:
        logits: any shape.
        heat: the same shape, in 0..1.
        alpha: as gamma of the focal loss.
        beta: how much the neighbours are spared; 0 makes them like any other cell.

    Source: Law and Deng (2018), equation 1; Zhou et al. (2019), equation 1.
    """
    centre = heat >= 1
    positive = torch.sigmoid(-logits) ** alpha * F.softplus(-logits)
    negative = (1 - heat) ** beta * torch.sigmoid(logits) ** alpha * F.softplus(logits)
    return torch.where(centre, positive, negative).sum()


def center_point_loss(said: Points, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Losses of a batch, each divided by the number of objects, or by 1 without any.

    The size is learned as a logarithm, as SSD's, so that an error counts by its share of the object (CenterNet takes
    pixels, and a tenth of that loss).

    Args:
        said: of N images.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.

    Returns:
        {"heat", "size", "offset"}: scalars, float32, whatever the precision of the predictions.

    Raises:
        ValueError: if there are not as many targets as images, a box is empty, swapped or not finite, or a label is
            out of range.
    """
    heat, log_sizes, offsets = (part.float() for part in said)
    if len(targets) != len(heat) or not targets:
        raise ValueError(f"{len(heat)} images need as many targets, at least one, got {len(targets)}")
    num_classes, cells = heat.shape[1] + 1, heat.shape[-1]
    boxes, labels, image = checked_targets(targets, num_classes, heat)  # (T, 4), (T,), (T,)
    centre, size = (xyxy_to_cxcywh(boxes) * cells).split(2, dim=1)  # (T, 2) each, in cells
    cell = centre.floor().clamp(0, cells - 1)
    # As CornerNet's program: three standard deviations reach half a cell further than the radius.
    sigma = (2 * gaussian_radius(size[:, 0], size[:, 1]) + 1) / 6
    wanted = torch.stack(
        [
            draw_heat(cell[image == i], sigma[image == i], labels[image == i], num_classes, cells)
            for i in range(len(heat))
        ]
    )
    column, row = cell.long().unbind(1)
    said_size, said_offset = log_sizes[image, :, row, column], offsets[image, :, row, column]  # (T, 2) each
    sums = {
        "heat": heat_loss(heat, wanted),
        "size": F.l1_loss(said_size, size.log(), reduction="sum"),
        "offset": F.l1_loss(said_offset, centre - cell, reduction="sum"),
    }
    return {name: total / max(len(boxes), 1) for name, total in sums.items()}


def center_point_losses(
    model: CenterPoint, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The losses of a network's predictions for a batch, as `ssdlib.training.training_loop` asks for them."""
    return center_point_loss(model(images), targets)
