"""Boxes: the two coordinate formats, area, and the Jaccard overlap (IoU).

A box is four numbers in the last dimension of a float tensor. `_xyxy` means (x_min, y_min, x_max, y_max), `_cxcywh`
means (c_x, c_y, w, h). The unit is free (fractions of the image side inside the model, pixels at its edge) as long as
all boxes of one call share it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert boxes from centre and size to corners.

    Args:
        boxes: (..., 4) as (c_x, c_y, w, h).

    Returns:
        (..., 4) as (x_min, y_min, x_max, y_max), in the same unit.

    Raises:
        ValueError: if the last dimension is not 4.
    """
    require_boxes(boxes, "boxes")
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert boxes from corners to centre and size; the inverse of `cxcywh_to_xyxy`.

    Args:
        boxes: (..., 4) as (x_min, y_min, x_max, y_max).

    Returns:
        (..., 4) as (c_x, c_y, w, h), in the same unit.

    Raises:
        ValueError: if the last dimension is not 4.
    """
    require_boxes(boxes, "boxes")
    x_min, y_min, x_max, y_max = boxes.unbind(-1)
    return torch.stack(((x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min), dim=-1)


def area(boxes_xyxy: Tensor) -> Tensor:
    """Area of each box; a box whose corners are swapped covers nothing and has area 0.

    Args:
        boxes_xyxy: (..., 4).

    Returns:
        (...), in the square of the boxes' unit. Half-precision input gives float32: the area of a box of
        300 x 300 pixels (90,000) is beyond the largest float16 (65,504).

    Raises:
        ValueError: if the last dimension is not 4.
    """
    require_boxes(boxes_xyxy, "boxes_xyxy")
    x_min, y_min, x_max, y_max = _at_least_float32(boxes_xyxy).unbind(-1)
    return (x_max - x_min).clamp(min=0) * (y_max - y_min).clamp(min=0)


def intersection(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Area that each box of `a_xyxy` shares with each box of `b_xyxy`.

    Args:
        a_xyxy: (N, 4), or (..., N, 4) with leading dimensions that broadcast against those of `b_xyxy`.
        b_xyxy: (M, 4), or (..., M, 4).

    Returns:
        (..., N, M), 0 where the boxes do not touch.

    Raises:
        ValueError: if either is not a list of boxes.
    """
    require_boxes(a_xyxy, "a_xyxy", min_dim=2)
    require_boxes(b_xyxy, "b_xyxy", min_dim=2)
    # A side of all boxes in a row of its own: there are N * M pairs to compute, and strided memory is read slowly.
    a_left, a_top, a_right, a_bottom = _sides(a_xyxy[..., :, None, :])  # (..., N, 1) each
    b_left, b_top, b_right, b_bottom = _sides(b_xyxy[..., None, :, :])  # (..., 1, M) each
    width, height = torch.minimum(a_right, b_right), torch.minimum(a_bottom, b_bottom)  # (..., N, M) each
    width -= torch.maximum(a_left, b_left)  # in place: to get new memory for N * M numbers takes longer than to fill it
    height -= torch.maximum(a_top, b_top)
    return width.clamp_(min=0) * height.clamp_(min=0)


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Jaccard overlap (intersection over union) of each box of `a_xyxy` with each box of `b_xyxy`.

    There is no epsilon in the denominator: in fractional units an epsilon of 1e-5 is as large as a small box. Two boxes
    whose union is empty overlap by 0.

    Args:
        a_xyxy: (N, 4), or (..., N, 4) with leading dimensions that broadcast against those of `b_xyxy`.
        b_xyxy: (M, 4), or (..., M, 4).

    Returns:
        (..., N, M), each 0 <= IoU <= 1.

    Raises:
        ValueError: if either is not a list of boxes.

    Source: Jaccard (1912); Liu et al. (2016), section 2.2, uses it to match priors with objects.
    """
    shared = intersection(a_xyxy, b_xyxy)
    union = area(a_xyxy)[..., :, None] + area(b_xyxy)[..., None, :]
    union -= shared  # (..., N, M)
    return (shared / union).nan_to_num_(0)  # 0/0; `where` and a comparison would take half of the whole time


def require_boxes(boxes: Tensor, name: str, min_dim: int = 1) -> None:
    """Refuse what is no tensor of boxes.

    Args:
        boxes: (..., 4), with at least `min_dim` dimensions.
        name: what the message calls it.
        min_dim: 2 where a list of boxes is needed.

    Raises:
        ValueError: if the last dimension is not 4, or there are too few.
    """
    if boxes.dim() < min_dim or boxes.shape[-1] != 4:
        wanted = "(N, 4)" if min_dim == 2 else "(..., 4)"
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(boxes.shape)}")


def _at_least_float32(boxes: Tensor) -> Tensor:
    """Half precision overflows on areas of pixel boxes, and integers cannot hold a ratio."""
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def _sides(boxes: Tensor) -> list[Tensor]:
    return [side.contiguous() for side in _at_least_float32(boxes).unbind(-1)]
