"""Detection for GPUs: nothing is decided on the host, so that the program waits once, for what was found.

`ssdlib.detection.detect` picks candidates out, asks how many there are, and judges them until nothing changes any more.
On a GPU each of these questions makes the program wait. Here every list has a fixed length, what does not count is
masked, and the rounds of NMS are counted beforehand. The result is that of `detect` (tested), to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.coding import VARIANCES, Activation, Variances
from ssdlib.detection import Detection, candidate_boxes, has_area, object_scores, require_score
from ssdlib.engine.transfers import sent

SHORTLIST = 1024
"""Candidates of all classes together that are enough for nearly every image, of a trained or an untrained network."""
ROUNDS = 16
"""Rounds of NMS that are enough for nearly every shortlist."""
PAIRS = 2**26  # of boxes that are compared at a time, which bounds the memory


class PaddedDetections(NamedTuple):
    """Detections of N images with the same room K in each, on the device; zeros where there is none."""

    boxes: Tensor  # (N, K, 4) xyxy, fractional
    labels: Tensor  # (N, K) int64, 1..C-1
    scores: Tensor  # (N, K), best first
    counts: Tensor  # (N,) int64
    certain: Tensor  # (N,) bool: the shortlist was enough, and these are all


def detect_padded(
    offsets: Tensor,
    logits: Tensor,
    priors_cxcywh: Tensor,
    min_score: float = 0.01,
    max_overlap: float = 0.45,
    top_k: int = 200,
    *,
    max_candidates: int = 400,
    variances: Variances = VARIANCES,
    activation: Activation = "softmax",
    shortlist: int | None = SHORTLIST,
    rounds: int = ROUNDS,
) -> PaddedDetections:
    """As `ssdlib.detection.detect`, with the same arguments and detections, in tensors of fixed shapes.

    Args:
        offsets, logits, priors_cxcywh, min_score, max_overlap, top_k, max_candidates, variances, activation: as there.
        shortlist: so many of the best candidates of all classes are judged. Worse ones have no say in whether they
            stay, so that this is enough where they give `top_k` detections, or where there are no more; `certain` says
            whether it is. None takes all candidates, class by class, which is always certain, and many times the work.
        rounds: of NMS, with a shortlist. After n rounds the best n are judged rightly; where nothing changes in the
            last one, all are.

    Raises:
        ValueError: as `detect`.
    """
    require_score(min_score)
    with torch.no_grad():
        scores = object_scores(offsets, logits, priors_cxcywh, activation)
        ranked = torch.where(scores >= min_score, scores, -1.0).transpose(1, 2)  # (N, C-1, P); NaN is no candidate
        if shortlist is None:
            return _of_each_class(ranked, offsets, priors_cxcywh, variances, max_overlap, top_k, max_candidates)
        best, place, complete = _best_of_all(ranked.flatten(1), shortlist)  # (N, S), (N, S), (N,)
        labels, priors = place // max(1, len(priors_cxcywh)) + 1, place % max(1, len(priors_cxcywh))
        boxes = candidate_boxes(offsets, priors_cxcywh, priors, variances)  # (N, S, 4)
        possible = best >= 0
        length = best.shape[1]
        better = torch.ones(length, length, dtype=torch.bool, device=best.device).tril(-1)
        rivals = better & (labels[:, :, None] == labels[:, None, :])  # (N, S, S): in image i, k is better than j
        if length > max_candidates:
            possible = possible & ((rivals & possible[:, None, :]).sum(dim=2) < max_candidates)
        rivals = rivals & (iou(boxes, boxes) > max_overlap)
        kept, settled = _suppressed(rivals, possible & has_area(boxes), rounds)
        certain = settled & (complete | (kept.sum(dim=1) >= top_k))
        return _packed(kept, boxes, labels, best, top_k, certain)


def detect_later(
    offsets: Tensor, logits: Tensor, priors_cxcywh: Tensor, **options: Any
) -> Callable[[], list[Detection]]:
    """Begin to detect, and do not wait for the device.

    Args:
        offsets, logits, priors_cxcywh: as for `ssdlib.detection.detect`.
        options: those of `detect_padded`.

    Returns:
        A function that waits, and gives the detections of `detect`, on the CPU. Images that are not certain are done
        again then, class by class.

    Raises:
        ValueError: as `detect`.
    """
    begun = sent(*detect_padded(offsets, logits, priors_cxcywh, **options))

    def again(i: int) -> Detection:
        one = slice(i, i + 1)
        found = detect_padded(offsets[one], logits[one], priors_cxcywh, **{**options, "shortlist": None})
        return _of_image(PaddedDetections(*sent(*found)()), 0)

    def detections() -> list[Detection]:
        found = PaddedDetections(*begun())
        return [_of_image(found, i) if certain else again(i) for i, certain in enumerate(found.certain.tolist())]

    return detections


def _of_image(found: PaddedDetections, i: int) -> Detection:
    count = int(found.counts[i])
    columns = {"boxes": found.boxes, "labels": found.labels, "scores": found.scores}
    return {name: column[i, :count].clone() for name, column in columns.items()}


def _best_of_all(ranked: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of each image, of equal ones the earlier place first.

    Args:
        ranked: (N, L) scores, -1 where there is no candidate.
        length: S, at most so many.

    Returns:
        Their scores (N, S), their places (N, S), and whether that is all there are (N,).
    """
    if ranked.shape[1] <= length:
        best, place = ranked.sort(dim=1, descending=True, stable=True)
        return best, place, torch.ones(len(best), dtype=torch.bool, device=best.device)
    best, place = ranked.topk(length + 1, dim=1)
    # What equals the first that does not fit in is left out: which of equals come first, a top-k does not say.
    limit = best[:, -1:]
    best, place = torch.where(best > limit, best, -1.0)[:, :-1], place[:, :-1]
    place, order = place.sort(dim=1)
    best, order = best.take_along_dim(order, 1).sort(dim=1, descending=True, stable=True)
    return best, place.take_along_dim(order, 1), limit[:, 0] < 0


def _of_each_class(
    ranked: Tensor,
    offsets: Tensor,
    priors_cxcywh: Tensor,
    variances: Variances,
    max_overlap: float,
    top_k: int,
    max_candidates: int,
) -> PaddedDetections:
    """All candidates, class by class; `ranked` (N, C-1, P) is -1 where there is none."""
    best, priors = ranked.sort(dim=2, descending=True, stable=True)  # of equal ones the earlier prior first
    best, priors = best[..., :max_candidates], priors[..., :max_candidates]  # (N, C-1, M)
    boxes = candidate_boxes(offsets, priors_cxcywh, priors.flatten(1), variances)  # (N, (C-1) M, 4)
    possible = (best >= 0) & has_area(boxes).reshape(best.shape)
    rows, count = best.shape[0] * best.shape[1], best.shape[2]  # each class of each image is a list by itself
    better = torch.ones(count, count, dtype=torch.bool, device=best.device).tril(-1)
    portion = max(1, PAIRS // max(1, count * count))
    lists = zip(boxes.reshape(rows, count, 4).split(portion), possible.reshape(rows, count).split(portion), strict=True)
    kept = [_suppressed(better & (iou(some, some) > max_overlap), there, count)[0] for some, there in lists]
    labels = torch.arange(1, best.shape[1] + 1, device=best.device)[:, None].expand_as(best)
    certain = torch.ones(len(best), dtype=torch.bool, device=best.device)
    return _packed(
        torch.cat(kept).reshape(best.shape).flatten(1), boxes, labels.flatten(1), best.flatten(1), top_k, certain
    )


def _suppressed(rivals: Tensor, possible: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """NMS by a fixed number of rounds, as in `ssdlib.nms.nms_fast`.

    Args:
        rivals: (N, K, K) bool: in image i, box k, if it is kept, bars box j.
        possible: (N, K) bool.
        rounds: after n rounds the best n of each image are judged rightly.

    Returns:
        (N, K) bool, which are kept; and (N,) bool, whether the last round changed nothing, so that all is right.
    """
    before = kept = possible
    for _ in range(rounds):
        before, kept = kept, possible & ~(rivals & kept[:, None, :]).any(dim=2)
    return kept, (kept == before).all(dim=1)


def _packed(
    kept: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, top_k: int, certain: Tensor
) -> PaddedDetections:
    """The best of what is kept, first; of equal scores in the order in which they come."""
    ranked, order = scores.masked_fill(~kept, -1.0).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, :top_k], order[:, :top_k]
    there = ranked >= 0
    return PaddedDetections(
        torch.where(there[..., None], boxes.take_along_dim(order[..., None], 1), 0.0),
        torch.where(there, labels.take_along_dim(order, 1), 0),
        ranked.clamp(min=0),
        there.sum(dim=1),
        certain,
    )
