"""Non-maximum suppression (NMS): of the many boxes that found the same object, keep the best."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import iou


def nms(boxes_xyxy: Tensor, scores: Tensor, max_overlap: float) -> Tensor:
    """Keep the best box, drop all that overlap it too much, go on with the best of the rest.

    This is the readable version; `ssdlib.detection.detect` uses `torchvision.ops.batched_nms`, which gives the same
    result (tested) in compiled code.

    Args:
        boxes_xyxy: (K, 4), in any unit; K = 0 is legal.
        scores: (K,).
        max_overlap: boxes with an IoU above it are duplicates; exactly equal is still allowed.

    Returns:
        Indices (int64) of the kept boxes, best score first; of equal scores the earlier box comes first.

    Raises:
        ValueError: if the shapes do not fit together, or a score is NaN.

    Source: Liu et al. (2016), section 2.2, uses it with max_overlap = 0.45 for each class.
    """
    if boxes_xyxy.dim() != 2 or boxes_xyxy.shape[-1] != 4 or scores.shape != boxes_xyxy.shape[:1]:
        raise ValueError(
            f"nms needs boxes (K, 4) and scores (K,), got {tuple(boxes_xyxy.shape)} and {tuple(scores.shape)}"
        )
    if scores.isnan().any():
        raise ValueError(f"score {int(scores.isnan().nonzero()[0])} is NaN")
    candidates = scores.argsort(descending=True, stable=True)  # indices, best first
    kept = []
    while len(candidates) > 0:
        best, rest = candidates[:1], candidates[1:]
        kept.append(best)
        overlap = iou(boxes_xyxy[best], boxes_xyxy[rest])[0]  # (len(rest),)
        candidates = rest[overlap <= max_overlap]
    return torch.cat(kept) if kept else candidates


def nms_batch(boxes_xyxy: Tensor, groups: Tensor, max_overlap: float) -> Tensor:
    """NMS of many lists at once, without a step for each box: for a GPU, which waits for the slowest list only.

    A box is kept if no better box that is kept overlaps it too much. Begin with all kept, and judge all by that again
    and again: after n rounds it is true of the best n boxes of each list at least, and it is true of all when nothing
    changes any more, as a rule after a few rounds.

    Args:
        boxes_xyxy: (N, K, 4), the boxes of each list, best score first.
        groups: (N, K), for instance the class; only boxes of one group suppress each other.
        max_overlap: as for `nms`.

    Returns:
        (N, K) bool: the boxes that are kept.
    """
    rivals = (iou(boxes_xyxy, boxes_xyxy) > max_overlap) & (groups[:, :, None] == groups[:, None, :])  # (N, K, K)
    rivals = rivals.triu(1)  # [n, i, j]: box i, the better one, suppresses box j if it is kept itself
    kept = torch.ones_like(groups, dtype=torch.bool)
    while True:
        judged = ~(rivals & kept[:, :, None]).any(dim=1)
        if torch.equal(judged, kept):
            return kept
        kept = judged
