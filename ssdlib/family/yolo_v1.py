"""YOLO's first version: each cell of a grid answers for the object whose centre it holds; everything can be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.loss import checked_targets

COORDINATES = 5.0
"""Weight of the coordinates in the loss."""
NO_OBJECT = 0.5
"""Weight of the confidence where there is no object."""
NOBODY = -1
"""The owner of a cell that holds no centre."""


class GridPredictions(NamedTuple):
    """The numbers of the output tensor by what they mean; any dimensions may stand in front."""

    boxes: Tensor  # (..., S, S, B, 4) cxcywh, fractions of the image
    confidence: Tensor  # (..., S, S, B)
    classes: Tensor  # (..., S, S, C), P(class | object)

    @property
    def scores(self) -> Tensor:
        """(..., S, S, B, C): P(class | object) x confidence, which is to be P(class) x IoU."""
        return self.confidence[..., None] * self.classes[..., None, :]


def output_shape(cells: int = 7, boxes: int = 2, classes: int = 20) -> tuple[int, int, int]:
    """(S, S, B * 5 + C): rows, columns, and the numbers of a cell; 7 x 7 x 30 = 1470 for the 20 classes of VOC."""
    return cells, cells, boxes * 5 + classes


def responsible_cells(boxes_xyxy: Tensor, cells: int = 7) -> Tensor:
    """(M, 2) int64: row and column of the cell that holds the centre of each box (M, 4), fractional.

    A centre on the line between two cells belongs to the later one, but on the image's last line to the last cell.
    """
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return (centres * cells).floor().clamp(0, cells - 1).long().flip(1)  # x is the column, y the row


def cell_owners(boxes_xyxy: Tensor, cells: int = 7) -> Tensor:
    """(S, S) int64: which of the M objects each cell answers for, or `NOBODY`.

    A cell has one set of class probabilities, so of several centres in it the first object has the cell, and the others
    are lost.
    """
    owners = torch.full((cells, cells), NOBODY)
    for m, (row, column) in reversed([*enumerate(responsible_cells(boxes_xyxy, cells).tolist())]):
        owners[row, column] = m
    return owners.to(boxes_xyxy.device)


def encode_in_grid(boxes_xyxy: Tensor, cells: int = 7) -> Tensor:
    """(M, 4): x and y of the centre within its cell (0..1), and the square roots of width and height (of the image).

    Source: Redmon et al., You Only Look Once (2016), section 2.
    """
    centred = xyxy_to_cxcywh(boxes_xyxy)
    inside = centred[:, :2] * cells - responsible_cells(boxes_xyxy, cells).flip(1)
    return torch.cat((inside, centred[:, 2:].sqrt()), dim=1)


def read_grid(output: Tensor, boxes: int = 2) -> GridPredictions:
    """Take the output tensor apart; the inverse of `encode_in_grid` for its boxes.

    Args:
        output: (..., S, S, B * 5 + C): [row, column] first, as in an image; of each cell B times (x, y, root of the
            width, root of the height, confidence), then the C class probabilities.
        boxes: B, of each cell.

    Raises:
        ValueError: if the grid is not square, or there are fewer numbers than B boxes need.
    """
    if output.dim() < 3 or output.shape[-3] != output.shape[-2] or output.shape[-1] < 5 * boxes:
        raise ValueError(f"need (..., S, S, {boxes} * 5 + C), got {tuple(output.shape)}")
    side = output.shape[-2]
    numbers = output[..., : 5 * boxes].unflatten(-1, (boxes, 5))  # (..., S, S, B, 5)
    at = torch.arange(side, device=output.device, dtype=output.dtype)
    corner = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)[:, :, None]  # (S, S, 1, 2): column, row
    centred = torch.cat(((corner + numbers[..., :2]) / side, numbers[..., 2:4].square()), dim=-1)
    return GridPredictions(centred, numbers[..., 4], output[..., 5 * boxes :])


def responsible_boxes(predicted_cxcywh: Tensor, objects_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the B boxes that each of K cells predicts is responsible for its object: the one of the highest IoU.

    Args:
        predicted_cxcywh: (K, B, 4).
        objects_xyxy: (K, 4).

    Returns:
        (K,) int64, the first of equal ones; and (K,) its IoU.
    """
    pairs = zip(cxcywh_to_xyxy(predicted_cxcywh), objects_xyxy, strict=True)
    overlaps = [iou(boxes, true[None])[:, 0] for boxes, true in pairs]
    best = torch.stack(overlaps).max(dim=1) if overlaps else predicted_cxcywh.new_zeros(0, 1).max(dim=1)
    return best.indices, best.values


def yolo_v1_loss(output: Tensor, targets: Sequence[Mapping[str, Any]], boxes: int = 2) -> dict[str, Tensor]:
    """The five sums of squares that YOLO's first version is trained with, weights included.

    Args:
        output: (N, S, S, B * 5 + C), as `read_grid` takes it.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C; M = 0 is legal.
        boxes: B, of each cell.

    Returns:
        {"centre", "size", "object", "no_object", "class"}: scalars, sums over all cells divided by N. "object" asks the
        confidence of the responsible box to be its IoU, "no_object" that of every other box to be 0.

    Raises:
        ValueError: if the number of images is another one, the output no grid, a box empty, swapped or not finite, or a
            label out of range.

    Source: Redmon et al. (2016), equation 3.
    """
    if output.dim() != 4 or len(output) != len(targets) or not targets:
        raise ValueError(f"{len(targets)} targets need an output (N, S, S, B * 5 + C), got {tuple(output.shape)}")
    grid = read_grid(output.float(), boxes)
    numbers = output[..., : 5 * boxes].float().unflatten(-1, (boxes, 5))
    objects, labels, image = checked_targets(targets, grid.classes.shape[-1] + 1, grid.boxes)  # (T, 4), (T,), (T,)
    sums: dict[str, list[Tensor]] = {"centre": [], "size": [], "object": [], "no_object": [], "class": []}
    for i in range(len(targets)):
        true, names = objects[image == i], labels[image == i]
        owners = cell_owners(true, output.shape[1])
        rows, columns = (owners != NOBODY).nonzero(as_tuple=True)  # (K,) each
        own = owners[rows, columns]
        with torch.no_grad():
            best, overlap = responsible_boxes(grid.boxes[i, rows, columns], true[own])
        said, wanted = numbers[i, rows, columns, best], encode_in_grid(true, output.shape[1])[own]
        sums["centre"].append(COORDINATES * (said[:, :2] - wanted[:, :2]).square().sum())
        sums["size"].append(COORDINATES * (said[:, 2:4] - wanted[:, 2:]).square().sum())
        sums["object"].append((said[:, 4] - overlap).square().sum())
        others = torch.ones_like(grid.confidence[i], dtype=torch.bool)
        others[rows, columns, best] = False
        sums["no_object"].append(NO_OBJECT * grid.confidence[i][others].square().sum())
        right = F.one_hot(names[own] - 1, grid.classes.shape[-1])
        sums["class"].append((grid.classes[i, rows, columns] - right).square().sum())
    return {name: torch.stack(each).sum() / len(targets) for name, each in sums.items()}
