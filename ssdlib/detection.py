"""Detection: from the network's raw predictions to a short list of boxes with labels and scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import VARIANCES, Variances, decode

Detection = dict[str, Tensor]


@torch.no_grad()
def detect(
    offsets: Tensor,
    logits: Tensor,
    priors_cxcywh: Tensor,
    min_score: float = 0.01,
    max_overlap: float = 0.45,
    top_k: int = 200,
    *,
    max_candidates: int = 400,
    variances: Variances = VARIANCES,
) -> list[Detection]:
    """Turn raw predictions into detections: softmax, threshold, decode, NMS for each class, the best of all classes.

    Args:
        offsets: (N, P, 4), predicted offsets.
        logits: (N, P, C), predicted class scores before the softmax; class 0 is background.
        priors_cxcywh: (P, 4), fractional.
        min_score: candidates have at least this score.
        max_overlap: two detections of one class overlap by at most this IoU.
        top_k: at most so many detections an image.
        max_candidates: at most so many candidates a class enter NMS, the best ones. Without this limit an untrained
            network, whose every box passes min_score, takes minutes.
        variances: those that the network was trained with.

    Returns:
        One dict an image: "boxes" (K, 4) xyxy fractional, clipped to the image; "labels" (K,) int64, 1..C-1; "scores"
        (K,) float32, best first. K = 0 is legal.

    Raises:
        ValueError: if the shapes do not fit together.

    Source: Liu et al. (2016), sections 2.2 and 3: threshold 0.01, NMS 0.45, top 200; 400 candidates a class in the
    original code.
    """
    num_priors = len(priors_cxcywh)
    expected = (len(offsets), num_priors)
    if offsets.shape != (*expected, 4) or logits.dim() != 3 or logits.shape[:2] != expected:
        raise ValueError(
            f"detect needs offsets (N, P, 4), logits (N, P, C) and priors (P, 4), got {tuple(offsets.shape)}, "
            f"{tuple(logits.shape)} and {tuple(priors_cxcywh.shape)}"
        )
    boxes = cxcywh_to_xyxy(decode(offsets.float(), priors_cxcywh.float(), variances)).clamp(0, 1)  # (N, P, 4)
    scores = logits.float().softmax(dim=-1)[..., 1:].transpose(1, 2)  # (N, C-1, P): background is no detection
    best, prior = scores.topk(min(max_candidates, num_priors), dim=2)  # (N, C-1, K) each
    return [
        _detect_one(boxes[i], best[i], prior[i], min_score=min_score, max_overlap=max_overlap, top_k=top_k)
        for i in range(len(boxes))
    ]


def _detect_one(
    boxes_xyxy: Tensor, scores: Tensor, priors: Tensor, *, min_score: float, max_overlap: float, top_k: int
) -> Detection:
    """One image: boxes (P, 4); each class's candidates as scores (C-1, K) and their priors' indices (C-1, K)."""
    row, column = (scores >= min_score).nonzero(as_tuple=True)  # (L,) each
    scores, boxes_xyxy, labels = scores[row, column], boxes_xyxy[priors[row, column]], row + 1
    # batched_nms keeps the classes apart by shifting their boxes by up to C image sides. Only float64 has digits left
    # for that: in float32, boxes of a few pixels in one of 90 classes are kept or dropped wrongly.
    device = torch.device("cpu") if boxes_xyxy.is_mps else boxes_xyxy.device  # Apple's GPUs have no float64
    kept = batched_nms(boxes_xyxy.to(device).double(), scores.to(device).double(), labels.to(device), max_overlap)
    kept = kept[:top_k]  # best score first
    return {"boxes": boxes_xyxy[kept], "labels": labels[kept], "scores": scores[kept]}
