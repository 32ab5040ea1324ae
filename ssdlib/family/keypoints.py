"""Keypoints of objects: places with a name, each read from a heatmap over the box of its object (Mask R-CNN)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.ops import roi_align

from ssdlib.backbones import Tiny
from ssdlib.model import SSD

CELLS = 28
"""Cells along a side of a heatmap, twice as many as RoIAlign reads."""
HIDDEN = -1
"""The target of a keypoint that teaches nothing: it is not seen, or lies outside of the box."""
WEIGHTS = Path(__file__).parent / "weights"


# ---- targets, loss, decoding --------------------------------------------------------------------------------------


def keypoint_targets(points: Tensor, visible: Tensor, boxes_xyxy: Tensor, cells: int = CELLS) -> Tensor:
    """The cell of its box in which each keypoint lies.

    Args:
        points: (R, K, 2) x and y, in the unit of the boxes.
        visible: (R, K) bool.
        boxes_xyxy: (R, 4); R = 0 is legal.
        cells: along each side of a box.

    Returns:
        (R, K) int64: row * cells + column, or `HIDDEN`. What lies on the right or lower edge is in the last cell.

    Raises:
        ValueError: if a box has no area or is not finite, or the shapes do not fit together.

    Source: He et al., Mask R-CNN (2017), section 5.
    """
    if points.shape[:2] != visible.shape or len(points) != len(boxes_xyxy) or points.shape[2:] != (2,):
        shapes = (*points.shape,), (*visible.shape,), (*boxes_xyxy.shape,)
        raise ValueError(f"need points (R, K, 2), visible (R, K), boxes (R, 4): {shapes}")
    size = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    wrong = ~(boxes_xyxy.isfinite().all(dim=1) & (size > 0).all(dim=1))
    if wrong.any():
        raise ValueError(f"box {int(wrong.nonzero()[0])} has no area or is not finite: {boxes_xyxy[wrong][0].tolist()}")
    share = (points - boxes_xyxy[:, None, :2]) / size[:, None]  # (R, K, 2) of the box
    inside = ((share >= 0) & (share <= 1)).all(dim=2)  # false for nan
    column, row = (share.nan_to_num() * cells).clamp(0, cells - 1).long().unbind(dim=2)
    return torch.where(inside & visible, row * cells + column, HIDDEN)


def keypoint_loss(heatmaps: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy of the keypoints that teach: of all cells of its heatmap one is the right one.

    Args:
        heatmaps: (R, K, cells, cells).
        targets: (R, K) int64, as of `keypoint_targets`.

    Returns:
        A scalar, float32; 0 if nothing teaches. An answer that is equal everywhere has log(cells ** 2).
    """
    scores = heatmaps.float().flatten(2).flatten(0, 1)  # (R * K, cells ** 2): one softmax for each keypoint
    total = F.cross_entropy(scores, targets.flatten(), ignore_index=HIDDEN, reduction="sum")
    return total / (targets != HIDDEN).sum().clamp(min=1)


def decode_keypoints(heatmaps: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """The centre of the cell with the highest score of each heatmap.

    Args:
        heatmaps: (R, K, cells, cells), before softmax; R = 0 is legal.
        boxes_xyxy: (R, 4), which the heatmaps cover.

    Returns:
        points (R, K, 2), in the unit of the boxes, and scores (R, K), the probability of the cell.
    """
    rows, columns = heatmaps.shape[2:]
    scores, cell = heatmaps.float().flatten(2).softmax(dim=2).max(dim=2)
    place = torch.stack((cell % columns, cell // columns), dim=2) + 0.5  # (R, K, 2)
    size = boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2]
    return boxes_xyxy[:, None, :2] + place / torch.tensor([columns, rows], device=place.device) * size, scores


# ---- network ------------------------------------------------------------------------------------------------------


class KeypointHead(nn.Sequential):
    """(R, channels, 14, 14) -> heatmaps (R, K, 28, 28).

    Args:
        channels: of the maps that are read.
        num_keypoints: K, of an object.
        width: of the hidden layers.

    Source: He et al. (2017), section 5, whose head has eight layers of 512 channels and ends at 56 x 56.
    """

    def __init__(self, channels: int, num_keypoints: int, width: int = 64) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, num_keypoints, 4, stride=2, padding=1),
        )


class KeypointReader(nn.Module):
    """A keypoint head on the two finest maps of a detector, which is not trained: boxes in, keypoints out.

    Args:
        detector: an `ssd_tiny`, whose first layers and normalisation are shared.
        num_keypoints: K, of an object.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: SSD, num_keypoints: int) -> None:
        super().__init__()
        assert isinstance(detector.backbone, Tiny)
        self.encoder = detector.backbone.stages[:2]
        self.register_buffer("mean", detector.mean)
        self.register_buffer("std", detector.std)
        self.head = KeypointHead(sum(detector.backbone.out_channels[:2]), num_keypoints)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """(N, 3, 256, 256) floats in 0..1 -> (N, 96, 32, 32) and (N, 128, 16, 16)."""
        maps = [(images - self.mean) / self.std]
        for stage in self.encoder:
            maps.append(stage(maps[-1]))
        return maps[1:]

    @staticmethod
    def regions(maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """What the boxes cover: maps, and for each image (R_i, 4) xyxy, fractional -> (R, channels, 14, 14)."""
        sides = [float(level.shape[-1]) for level in maps]
        seen = [roi_align(x, [*boxes], CELLS // 2, side, 2, aligned=True) for x, side in zip(maps, sides, strict=True)]
        return torch.cat(seen, dim=1)

    def forward(self, images: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """(N, 3, 256, 256) and N of (R_i, 4) xyxy, fractional -> heatmaps (R, K, 28, 28)."""
        heatmaps: Tensor = self.head(self.regions(self.maps(images), boxes))
        return heatmaps

    @torch.no_grad()
    def read(self, images: Tensor, boxes: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """The keypoints in boxes, found or true.

        Args:
            images: (N, 3, 256, 256) floats in 0..1.
            boxes: N of (R_i, 4) xyxy, fractional; R_i = 0 is legal.

        Returns:
            One dict an image: "points" (R_i, K, 2) fractional, and "scores" (R_i, K).
        """
        points, scores = decode_keypoints(self(images, boxes), torch.cat([*boxes]))
        counts = [len(own) for own in boxes]
        parts = zip(points.split(counts), scores.split(counts), strict=True)
        return [{"points": own, "scores": score} for own, score in parts]


# ---- weights ------------------------------------------------------------------------------------------------------


def head_bytes(model: KeypointReader) -> bytes:
    """What `load_keypoints` reads: the weights of the head, in half precision."""
    return save({name: value.half().contiguous() for name, value in model.head.state_dict().items()})


def load_keypoints(detector: SSD, num_keypoints: int, folder: str | Path = WEIGHTS) -> KeypointReader:
    """The trained head on the detector with whose maps it was trained, in evaluation mode.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if the file is damaged, or for another head.
    """
    path = Path(folder) / "keypoints.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights {path}")
    model = KeypointReader(detector, num_keypoints)
    try:
        model.head.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a head for {num_keypoints} keypoints: {error}") from error
    return model.eval()
