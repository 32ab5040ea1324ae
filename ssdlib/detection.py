"""Detection: from the network's raw predictions to a short list of boxes with labels and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import VARIANCES, Activation, Variances, decode
from ssdlib.nms import nms, nms_fast

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
    activation: Activation = "softmax",
) -> list[Detection]:
    """Turn raw predictions into detections: scores, threshold, decode, NMS for each class, the best of all classes.

    All images are done at once, and only priors that may hold an object get scores at all (see `find_candidates`);
    `detect_plainly` does the same image by image and class by class.

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
        activation: "softmax", or "sigmoid" for a network that was trained to judge each class by itself.

    Returns:
        One dict an image: "boxes" (K, 4) xyxy fractional, clipped to the image; "labels" (K,) int64, 1..C-1; "scores"
        (K,) float32, best first, of equal scores the lower label, then the earlier prior. K = 0 is legal. Boxes that
        are not finite, or of which nothing lies inside the image, are no detections.

    Raises:
        ValueError: if the shapes do not fit together, there is no such activation, or min_score is above 1, as no score
            is, or nan.

    Source: Liu et al. (2016), sections 2.2 and 3: threshold 0.01, NMS 0.45, top 200; 400 candidates a class in the
    original code.
    """
    _require_shapes(offsets, logits, priors_cxcywh)
    require_score(min_score)
    for found in find_candidates(logits, min_score, max_candidates, activation):  # usually the first one is enough
        boxes = candidate_boxes(offsets, priors_cxcywh, found.priors, variances)  # (N, K, 4)
        kept = nms_fast(boxes, found.labels, found.valid & has_area(boxes), max_overlap, top_k)  # (N, K)
        if (kept.sum(dim=1) >= top_k).all():
            break
    return by_image(kept, boxes, found.labels, found.scores)


@torch.no_grad()
def detect_plainly(
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
) -> list[Detection]:
    """What `detect` does, step by step as the paper has it: the version to read, and the reference of its tests."""
    require_score(min_score)
    detections = []
    all_scores = object_scores(offsets, logits, priors_cxcywh, activation)  # (N, P, C-1)
    for image_offsets, image_scores in zip(offsets, all_scores, strict=True):
        boxes = cxcywh_to_xyxy(decode(image_offsets.float(), priors_cxcywh.float(), variances)).clamp(0, 1)  # (P, 4)
        kept = torch.zeros_like(image_scores, dtype=torch.bool)  # (P, C-1)
        for column, scores in enumerate(image_scores.unbind(dim=1)):  # (P,), of one class
            passing = (scores >= min_score).nonzero().squeeze(1)
            best = passing[scores[passing].argsort(descending=True, stable=True)][:max_candidates]
            best = best[has_area(boxes[best])]
            kept[best[nms(boxes[best], scores[best], max_overlap)], column] = True
        columns, rows = kept.t().nonzero(as_tuple=True)
        best = image_scores[rows, columns].argsort(descending=True, stable=True)[:top_k]
        columns, rows = columns[best], rows[best]
        detections.append({"boxes": boxes[rows], "labels": columns + 1, "scores": image_scores[rows, columns]})
    return detections


def require_score(min_score: float) -> None:
    """Refuse a least score above 1, such as a percentage, or nan: nothing would ever be found.

    Raises:
        ValueError: in that case.
    """
    if not min_score <= 1:
        raise ValueError(f"min_score is a score, at most 1, got {min_score}")


def class_scores(logits: Tensor, activation: Activation = "softmax") -> Tensor:
    """(..., C) float32 in 0..1: what the network says for each class; with "sigmoid" the first column says nothing.

    Raises:
        ValueError: if there is no such activation.
    """
    if activation == "softmax":
        return logits.float().softmax(dim=-1)
    if activation == "sigmoid":
        return logits.float().sigmoid()
    raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")


def object_scores(offsets: Tensor, logits: Tensor, priors_cxcywh: Tensor, activation: Activation = "softmax") -> Tensor:
    """(N, P, C-1) float32: the scores without their first column, as background is no detection."""
    _require_shapes(offsets, logits, priors_cxcywh)
    return class_scores(logits, activation)[..., 1:]


def _require_shapes(offsets: Tensor, logits: Tensor, priors_cxcywh: Tensor) -> None:
    expected = (len(offsets), len(priors_cxcywh))
    if offsets.shape != (*expected, 4) or logits.dim() != 3 or logits.shape[:2] != expected:
        raise ValueError(
            f"detect needs offsets (N, P, 4), logits (N, P, C) and priors (P, 4), got {tuple(offsets.shape)}, "
            f"{tuple(logits.shape)} and {tuple(priors_cxcywh.shape)}"
        )


class Candidates(NamedTuple):
    """Candidates of N images, best first, all (N, K): an image with fewer has a rest that is not valid."""

    scores: Tensor
    labels: Tensor  # int64, 1..C-1
    priors: Tensor  # int64
    valid: Tensor  # bool


def find_candidates(
    logits: Tensor, min_score: float, max_candidates: int, activation: Activation = "softmax"
) -> Iterator[Candidates]:
    """The candidates of each class, as `shortlists` finds them among the scores, of which most are never computed.

    A trained network is sure of the background nearly everywhere. There even the best object class of a prior falls too
    far behind the background to reach `min_score`, which is seen by one subtraction. Only the other priors get scores.

    Args:
        logits: (N, P, C).
        min_score: candidates have at least this score.
        max_candidates: at most so many of each class.
        activation: how scores are made of logits.

    Yields:
        One or more `Candidates`, as `shortlists`.

    Raises:
        ValueError: if there is no such activation.
    """
    hopeful = may_pass(logits, min_score, activation)  # (N, P)
    image, prior = hopeful.nonzero(as_tuple=True)  # (R,) each
    if 8 * len(image) > hopeful.numel():  # to pick so many out would cost more than it saves
        yield from shortlists(class_scores(logits, activation)[..., 1:], min_score, max_candidates)
        return
    scores = class_scores(logits[image, prior], activation)[:, 1:]  # (R, C-1)
    row, column = (scores >= min_score).nonzero(as_tuple=True)  # (L,) each
    counts = image[row].bincount(minlength=len(logits)).tolist()
    found = _by_image(image[row], prior[row], column, scores[row, column], counts)
    yield found._replace(valid=found.valid & _among_best_of_class(found.labels, max_candidates))


def may_pass(logits: Tensor, min_score: float, activation: Activation = "softmax") -> Tensor:
    """(N, P) bool: false where surely no object class reaches `min_score`.

    With "sigmoid" the best logit of a prior decides. With "softmax" a score is at most sigmoid(logit - that of the
    background), which it would be if there were no other class.
    """
    if logits.shape[-1] < 2:
        return logits.new_zeros(logits.shape[:2], dtype=torch.bool)
    best = logits[..., 1:].amax(dim=-1).float()  # (N, P), NaN where one is
    if activation == "softmax":
        best = best - logits[..., 0].float()
    least = min(0.9999 * min_score, 0.9999)  # a little less: scores are rounded
    return best >= (math.log(least / (1 - least)) if least > 0 else -math.inf)


def _among_best_of_class(labels: Tensor, max_candidates: int) -> Tensor:
    """(N, K) bool: at most so many of each label in a row, the first ones."""
    if labels.shape[1] <= max_candidates:
        return torch.ones_like(labels, dtype=torch.bool)
    grouped, order = labels.sort(dim=1, stable=True)  # the candidates of a class stand together, still best first
    rank = torch.arange(labels.shape[1], device=labels.device) - torch.searchsorted(grouped, grouped)  # (N, K)
    return torch.zeros_like(labels, dtype=torch.bool).scatter_(1, order, rank < max_candidates)


def shortlists(scores: Tensor, min_score: float, max_candidates: int) -> Iterator[Candidates]:
    """The candidates of each class; before them, where a class has too many, the best of all classes together.

    This is the shortcut of `detect`. Whether a box stays, NMS asks only better ones. So if the best `max_candidates` of
    all classes, or of four times as many those that are within the share of their class, give `top_k` detections, then
    the others give none, and need not be sorted out class by class, which takes most of the time where a network is not
    trained.

    Args:
        scores: (N, P, C-1).
        min_score: candidates have at least this score. NaN is no candidate.
        max_candidates: at most so many of each class, the best ones, of equal ones the earlier prior.

    Yields:
        Up to three `Candidates`; each is the beginning of the next, and the last has all.
    """
    passing = scores >= min_score  # (N, P, C-1)
    counts = [int(of_image.count_nonzero()) for of_image in passing]  # count_nonzero(dim=...) is many times slower
    for length in (max_candidates, 4 * max_candidates):
        if max(counts, default=0) > length:
            # What equals the first that does not fit in is left out: which of equals come first, a top-k does not say.
            best, place = scores.flatten(1).topk(length + 1, dim=1)  # (N, length + 1) each
            limit, best, place = best[:, -1:], best[:, :-1], place[:, :-1]
            valid = (best > limit) & (best >= min_score)
            best = torch.where(valid, best, -1.0)  # a NaN would be the first
            found = _best_first(best, place % scores.shape[2] + 1, place // scores.shape[2], valid)
            yield found._replace(valid=found.valid & _among_best_of_class(found.labels, max_candidates))
    if max(counts, default=0) > max_candidates and int(passing.sum(dim=1).max()) > max_candidates:  # of one class
        ranked = scores.masked_fill(~passing, -1)
        limit = ranked.topk(max_candidates + 1, dim=1).values[:, -1:]  # (N, 1, C-1), the first that does not fit in
        above, equal = ranked > limit, passing & (ranked == limit)
        passing = above | equal & (equal.cumsum(dim=1) <= max_candidates - above.sum(dim=1, keepdim=True))
        counts = passing.sum(dim=(1, 2)).tolist()
    image, prior, column = passing.nonzero(as_tuple=True)  # (L,) each, image by image
    yield _by_image(image, prior, column, scores[image, prior, column], counts)


def _by_image(image: Tensor, prior: Tensor, column: Tensor, scores: Tensor, counts: list[int]) -> Candidates:
    """Of a list (L,), image by image, with `counts` in each; `column` is that of the scores, without background."""
    first = torch.tensor([0, *counts], device=image.device).cumsum(0)  # where each image begins
    place = torch.arange(len(image), device=image.device) - first[image]  # in its image's row
    shape = (len(counts), max(counts, default=0))
    best, labels, priors = scores.new_full(shape, -1), image.new_zeros(shape), image.new_zeros(shape)
    best[image, place], labels[image, place], priors[image, place] = scores, column + 1, prior
    return _best_first(best, labels, priors, best >= 0)


def _best_first(scores: Tensor, labels: Tensor, priors: Tensor, valid: Tensor) -> Candidates:
    """Of equal scores first the lower label, then the earlier prior."""
    order = (labels * 2**32 + priors).argsort(dim=1)
    order = order.take_along_dim(scores.take_along_dim(order, 1).argsort(dim=1, descending=True, stable=True), 1)
    return Candidates(*(column.take_along_dim(order, 1) for column in (scores, labels, priors, valid)))


def candidate_boxes(offsets: Tensor, priors_cxcywh: Tensor, priors: Tensor, variances: Variances) -> Tensor:
    """(N, K, 4) xyxy: the boxes of the candidates' priors (N, K), clipped to the image."""
    chosen = offsets.take_along_dim(priors[..., None], dim=1).float()  # (N, K, 4)
    return cxcywh_to_xyxy(decode(chosen, priors_cxcywh.float()[priors], variances)).clamp(0, 1)


_NOTHING = 1e-6  # of the image's side: below, a width is rounding, as float32 numbers near 1 are 6e-8 apart


def has_area(boxes_xyxy: Tensor) -> Tensor:
    """(...) bool: the box, fractional, is wider and higher than nothing, which a NaN is not."""
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2] > _NOTHING).all(dim=-1)


def by_image(kept: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor) -> list[Detection]:
    """One dict an image, of what is kept (N, K)."""
    counts = kept.sum(dim=1).tolist()
    columns = zip(*(column[kept].split(counts) for column in (boxes, labels, scores)), strict=True)
    return [{"boxes": boxes, "labels": labels, "scores": scores} for boxes, labels, scores in columns]
