"""Losses that later detectors put in the place of SSD's: focal loss for classes, overlap as a loss for boxes.

Focal loss does without mining: it turns down the loss of all priors that are already right, so that a hundred thousand
easy ones do not drown the few that matter. GIoU and CIoU measure the box itself, where smooth L1 adds up four offsets
that each know nothing of the others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.boxes import area, iou, require_boxes, xyxy_to_cxcywh


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Binary cross entropy of each number, less the surer the network is of the right answer.

    Where p is the probability that the network gives to the right answer: -alpha_t (1 - p)^gamma log p.

    Args:
        logits: any shape.
        targets: of the same shape, 0 or 1.
        alpha: weight of the ones; the zeros weigh 1 - alpha. None weighs all alike.
        gamma: how fast the loss falls with p; 0 gives the cross entropy.

    Returns:
        The same shape, float32 or better, not summed: RetinaNet divides the sum by the number of positives.

    Raises:
        ValueError: if the shapes differ, or alpha or gamma is out of range.

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), equation 5.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same shape")
    if not (alpha is None or 0 <= alpha <= 1) or not gamma >= 0:
        raise ValueError(f"alpha must be in 0..1 or None and gamma at least 0, got {alpha} and {gamma}")
    logits = _precise(logits)
    targets = targets.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")  # -log p, without an overflow
    # (1 - p)^gamma by its logarithm: it has a gradient where 1 - p is 0 in this precision and gamma below 1.
    loss = cross_entropy * torch.exp(-gamma * F.softplus(torch.where(targets > 0, logits, -logits)))
    return loss if alpha is None else loss * torch.where(targets > 0, alpha, 1 - alpha)


def aligned_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of each box with the one in the same place; `ssdlib.boxes.iou` takes every box with every other.

    Args:
        a_xyxy, b_xyxy: (..., 4), shapes that broadcast.

    Returns:
        (...), in 0..1.
    """
    return iou(a_xyxy[..., None, :], b_xyxy[..., None, :])[..., 0, 0]


def giou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Generalised IoU of each box with the one in the same place: below 0 the farther the boxes are apart.

    IoU is 0 for all boxes that do not touch, whether near or far, so it cannot draw them together. GIoU takes off the
    share of the smallest box around both that neither of them fills.

    Args:
        a_xyxy, b_xyxy: (..., 4), shapes that broadcast: (N, 1, 4) with (M, 4) gives all pairs.

    Returns:
        (...), above -1, at most 1.

    Raises:
        ValueError: if either is no tensor of boxes.

    Source: Rezatofighi et al., Generalized Intersection over Union (2019), algorithm 1.
    """
    a, b = _both(a_xyxy, b_xyxy)
    overlap = aligned_iou(a, b)
    hull = area(_hull(a, b))
    # The union again, from the overlap: union * (1 + overlap) is the sum of the areas.
    union = (area(a) + area(b)) / (1 + overlap)
    return overlap - torch.where(hull > 0, (hull - union) / hull.clamp(min=torch.finfo(hull.dtype).tiny), 0.0)


def giou_loss(boxes_xyxy: Tensor, targets_xyxy: Tensor) -> Tensor:
    """(...), 1 - GIoU of each predicted box and its object; 0 where they are the same, nearly 2 where they are far."""
    return 1 - giou(boxes_xyxy, targets_xyxy)


def ciou_loss(boxes_xyxy: Tensor, targets_xyxy: Tensor) -> Tensor:
    """Complete IoU loss: 1 - IoU, and the distance of the centres, and the difference of the aspect ratios.

    Args:
        boxes_xyxy: (..., 4), predicted; each has a width and a height.
        targets_xyxy: (..., 4), the objects.

    Returns:
        (...): 1 - IoU + (distance of the centres / diagonal of the box around both)^2 + w v, where v compares the
        angles of the diagonals, and its weight w grows with IoU and is not learned from.

    Raises:
        ValueError: if either is no tensor of boxes.

    Source: Zheng et al., Distance-IoU Loss (2020), equations 8 to 11.
    """
    a, b = _both(boxes_xyxy, targets_xyxy)
    overlap = aligned_iou(a, b)
    hull = _hull(a, b)
    diagonal = (hull[..., 2:] - hull[..., :2]).square().sum(dim=-1)
    a_centre, b_centre = xyxy_to_cxcywh(a), xyxy_to_cxcywh(b)
    distance = (a_centre[..., :2] - b_centre[..., :2]).square().sum(dim=-1)
    angles = [torch.atan(box[..., 2] / box[..., 3]) for box in (a_centre, b_centre)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = torch.where(v > 0, v / (1 - overlap + v).clamp(min=torch.finfo(v.dtype).tiny), 0.0)
    return 1 - overlap + distance / diagonal + weight * v


def _hull(a: Tensor, b: Tensor) -> Tensor:
    """(..., 4): the smallest box around two."""
    return torch.cat((torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])), dim=-1)


def _both(a_xyxy: Tensor, b_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    require_boxes(a_xyxy, "a_xyxy")
    require_boxes(b_xyxy, "b_xyxy")
    a, b = torch.broadcast_tensors(_precise(a_xyxy), _precise(b_xyxy))
    return a, b


def _precise(numbers: Tensor) -> Tensor:
    """Half precision is for the network."""
    return numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()
