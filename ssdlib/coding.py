"""Coding: boxes as offsets from their priors, which is what the network predicts, and back."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ssdlib.boxes import require_boxes

Variances = tuple[float, float]
VARIANCES: Variances = (0.1, 0.2)
# How scores are made of logits: all classes of a prior share a sum of 1, or each class is a question of its own.
Activation = Literal["softmax", "sigmoid"]
# A decoded box is at most 62.5 times as wide or as high as its prior: the limit of Detectron and of torchvision
# (`bbox_xform_clip`). No prior is that much smaller than its object, and exp of a large prediction is infinite.
MAX_LOG_SIZE = math.log(1000 / 16)


def encode(boxes_cxcywh: Tensor, priors_cxcywh: Tensor, variances: Variances = VARIANCES) -> Tensor:
    """Write each box as offsets from its prior.

    g_cx = (cx - p_cx) / p_w / variances[0], g_w = log(w / p_w) / variances[1]; likewise for y and h.

    Args:
        boxes_cxcywh: (..., 4), one box for each prior (or shapes that broadcast).
        priors_cxcywh: (..., 4), in the same unit.
        variances: what the centre offsets and the size offsets are divided by; they bring both to a spread of about 1.

    Returns:
        (..., 4) offsets (g_cx, g_cy, g_w, g_h), without unit.

    Raises:
        ValueError: if a box or a prior is not finite, or has no width or no height: an offset would be infinite or
            NaN; or if the last dimension is not 4.

    Source: Liu et al. (2016), equation 2, after Faster R-CNN; the variances are those of the original code.
    """
    for name, boxes in (("boxes_cxcywh", boxes_cxcywh), ("priors_cxcywh", priors_cxcywh)):
        require_boxes(boxes, name)
        bad = ~(torch.isfinite(boxes).all(dim=-1) & (boxes[..., 2:] > 0).all(dim=-1))
        if bad.any():
            raise ValueError(f"{name} has an empty or not finite box: {boxes[bad][0].tolist()}")
    centres = (boxes_cxcywh[..., :2] - priors_cxcywh[..., :2]) / priors_cxcywh[..., 2:] / variances[0]
    sizes = torch.log(boxes_cxcywh[..., 2:] / priors_cxcywh[..., 2:]) / variances[1]
    return torch.cat((centres, sizes), dim=-1)


def decode(offsets: Tensor, priors_cxcywh: Tensor, variances: Variances = VARIANCES) -> Tensor:
    """Read offsets back as boxes; the inverse of `encode` for boxes up to 62.5 times as large as their priors.

    The logarithms of the sizes are limited to `MAX_LOG_SIZE`. A NaN stays one: `detect` drops such boxes.

    Args:
        offsets: (..., 4) as (g_cx, g_cy, g_w, g_h).
        priors_cxcywh: (..., 4), shapes that broadcast.
        variances: those that the offsets were encoded with.

    Returns:
        (..., 4) cxcywh, in the unit of the priors.

    Raises:
        ValueError: if the last dimension is not 4.

    Source: Liu et al. (2016), equation 2, solved for the box; the limit is torchvision's.
    """
    require_boxes(offsets, "offsets")
    require_boxes(priors_cxcywh, "priors_cxcywh")
    centres = offsets[..., :2] * variances[0] * priors_cxcywh[..., 2:] + priors_cxcywh[..., :2]
    sizes = torch.exp((offsets[..., 2:] * variances[1]).clamp(max=MAX_LOG_SIZE)) * priors_cxcywh[..., 2:]
    return torch.cat((centres, sizes), dim=-1)
