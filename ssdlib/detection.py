"""Detection: from the network's raw predictions to a short list of boxes with labels and scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import VARIANCES, Variances, decode
from ssdlib.nms import nms_batch

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
    scores = logits.float().softmax(dim=-1)[..., 1:]  # (N, P, C-1): background is no detection
    num_labels, wanted = scores.shape[2], min(max_candidates, scores[:1].numel())
    # First the best candidates of all classes together: so few that no class has more than its share.
    best, place = scores.flatten(1).topk(wanted, dim=1)  # (N, K) each
    prior, labels = place // max(num_labels, 1), place % max(num_labels, 1) + 1

    def found_among(i: slice, best: Tensor, prior: Tensor, labels: Tensor) -> list[Detection]:
        of_prior = offsets[i].float().take_along_dim(prior[..., None], dim=1)  # (n, K, 4)
        boxes = cxcywh_to_xyxy(decode(of_prior, priors_cxcywh.float()[prior], variances)).clamp(0, 1)
        return _without_duplicates(boxes, best, labels, min_score, max_overlap, top_k)

    results = found_among(slice(None), best, prior, labels)
    if wanted == num_priors * num_labels or wanted == 0:
        return results
    # Whether a box stays, NMS asks only better ones. So these are the detections, if they are enough, or if no other
    # candidate passes. Else the image is done again, with the candidates of each class.
    for i, others_pass in enumerate((best[:, -1] >= min_score).tolist()):
        if others_pass and len(results[i]["scores"]) < top_k:
            passing = (scores[i] >= min_score).sum(dim=0)  # (C-1,)
            if passing.max() <= max_candidates:  # no class has more than its share: all that pass
                best, place = scores[i].flatten().topk(int(passing.sum()))
                prior, labels = place // num_labels, place % num_labels + 1
            else:
                best_of_class, prior = scores[i].t().topk(min(max_candidates, num_priors), dim=1)  # (C-1, K) each
                best, order = best_of_class.flatten().sort(descending=True, stable=True)
                prior, labels = prior.flatten()[order], order // prior.shape[1] + 1
            (results[i],) = found_among(slice(i, i + 1), best[None], prior[None], labels[None])
    return results


def _without_duplicates(
    boxes: Tensor, scores: Tensor, labels: Tensor, min_score: float, max_overlap: float, top_k: int
) -> list[Detection]:
    """Of N images: boxes (N, K, 4), scores (N, K), best first, and labels (N, K)."""
    # A GPU is idle while it is asked, image by image, how many candidates there are: there all are done at once.
    together = boxes.is_cuda and boxes.shape[1] <= 1000  # all pairs of more would take much memory
    passing = scores >= min_score
    kept = nms_batch(boxes, labels, max_overlap) if together else _nms_one_by_one(boxes, labels, passing, max_overlap)
    kept &= passing
    kept &= kept.cumsum(dim=1) <= top_k  # (N, K)
    counts = kept.sum(dim=1).tolist()
    columns = zip(*(column[kept].split(counts) for column in (boxes, labels, scores)), strict=True)
    return [{"boxes": boxes, "labels": labels, "scores": scores} for boxes, labels, scores in columns]


def _nms_one_by_one(boxes: Tensor, labels: Tensor, passing: Tensor, max_overlap: float) -> Tensor:
    """The same as `nms_batch` for the candidates that pass (tested), by compiled code for each image."""
    kept = torch.zeros_like(passing)
    device = torch.device("cpu") if boxes.is_mps else boxes.device  # Apple's GPUs have no float64
    for i, those in enumerate(passing):
        candidates, label = boxes[i, those].to(device).double(), labels[i, those].to(device)
        # batched_nms keeps the classes apart by shifting their boxes by up to C image sides. Only float64 has digits
        # left for that: in float32, boxes of a few pixels in one of 90 classes are kept or dropped wrongly.
        ranking = torch.arange(len(label), 0, -1, device=device).double()
        kept[i, those.nonzero().squeeze(1)[batched_nms(candidates, ranking, label, max_overlap).to(those.device)]] = (
            True
        )
    return kept
