"""Non-maximum suppression (NMS): of the many boxes that found the same object, keep the best."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import iou


def nms(boxes_xyxy: Tensor, scores: Tensor, max_overlap: float) -> Tensor:
    """Keep the best box, drop all that overlap it too much, go on with the best of the rest.

    This is the readable version; `ssdlib.detection.detect` uses `nms_fast`, which gives the same result (tested) for
    the classes of many images at once. Both compare the float32 overlaps that `iou` gives, so a box whose overlap is
    just the limit is kept on every device.

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


def nms_fast(
    boxes_xyxy: Tensor, labels: Tensor, candidates: Tensor, max_overlap: float, top_k: int, portion: int | None = None
) -> Tensor:
    """NMS of each class of many images at once, without a step for each box, until each image has its `top_k`.

    A box is kept if no better box that is kept overlaps it too much. Begin with all kept, and judge all by that again
    and again: after n rounds it is true of the best n boxes of each image at least, and it is true of all when nothing
    changes any more, as a rule after a few rounds. Worse boxes have no say in it, so the best come first, in portions.

    Args:
        boxes_xyxy: (N, K, 4), float32, the boxes of each image, best score first.
        labels: (N, K), the class of each; only boxes of one class suppress each other.
        candidates: (N, K) bool; the others are neither kept nor do they suppress.
        max_overlap: as for `nms`.
        top_k: at most so many are kept in each image, the best ones.
        portion: so many boxes of each image are judged together, which changes time and memory only; by default few
            on a CPU, which computes less then, and many on a GPU, which waits less.

    Returns:
        (N, K) bool: the boxes that are kept.
    """
    portion = portion or (512 if boxes_xyxy.is_cuda else 128)
    kept = torch.zeros_like(candidates)
    for start in range(0, candidates.shape[1], portion):
        here = slice(start, start + portion)
        boxes, classes, possible = boxes_xyxy[:, here], labels[:, here], candidates[:, here]
        if start > 0:
            counts = kept.sum(dim=1)  # (N,)
            if (counts >= top_k).all():
                break
            # Those that are kept so far stand in front, at most `top_k` of each image.
            before = kept.int().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]  # (N, L)
            rivals = iou(boxes, boxes_xyxy.take_along_dim(before[..., None], 1)) > max_overlap  # (N, n, L)
            rivals &= classes[:, :, None] == labels.take_along_dim(before, 1)[:, None, :]
            possible = possible & ~_barred(rivals, kept.take_along_dim(before, 1))
        rivals = (iou(boxes, boxes) > max_overlap).tril_(-1)  # (N, n, n)
        rivals &= classes[:, :, None] == classes[:, None, :]  # [i, j, k]: in image i, box k, if it is kept, bars box j
        stays = possible
        while True:
            judged = possible & ~_barred(rivals, stays)
            if torch.equal(judged, stays):
                break
            stays = judged
        kept[:, here] = stays
    return kept & (kept.cumsum(dim=1) <= top_k)


def _barred(rivals: Tensor, kept: Tensor) -> Tensor:
    """(N, n) bool: some box that is kept, of (N, L), is a rival, (N, n, L)."""
    if kept.shape[1] == 0:
        return rivals.new_zeros(rivals.shape[:2])
    return (rivals & kept[:, None, :]).view(torch.uint8).amax(dim=2).bool()  # of bytes: `any` is slow on a CPU
