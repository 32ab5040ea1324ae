"""Matching: which object each prior has to predict, or none."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou

UNMATCHED = -1


def match(boxes_xyxy: Tensor, priors_cxcywh: Tensor, threshold: float = 0.5) -> Tensor:
    """Give each prior the object that it has to predict.

    Two steps. First every object receives a prior of its own (`best_priors`). Then every other prior takes the object
    that it overlaps most, if that overlap reaches the threshold; the rest is background.

    Args:
        boxes_xyxy: (M, 4), the objects; M = 0 is legal.
        priors_cxcywh: (P, 4), in the same unit.
        threshold: smallest overlap of the second step.

    Returns:
        (P,) int64: an object's index 0..M-1, or UNMATCHED (-1).

    Raises:
        ValueError: if a box is not finite, or its corners are swapped; or if either is not a list of boxes.

    Source: Liu et al. (2016), section 2.2, "Matching strategy".
    """
    _require_valid(boxes_xyxy, priors_cxcywh)
    if len(boxes_xyxy) == 0 or len(priors_cxcywh) == 0:
        return priors_cxcywh.new_full((len(priors_cxcywh),), UNMATCHED, dtype=torch.int64)
    overlaps = iou(boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh))  # (M, P)
    best_overlap, best_object = overlaps.max(dim=0)  # (P,) each
    matched = torch.where(best_overlap >= threshold, best_object, UNMATCHED)  # (P,)
    own = best_priors(overlaps)  # (M,)
    has_own = own != UNMATCHED
    matched[own[has_own]] = has_own.nonzero().squeeze(1)  # last, so that the first step has the last word
    return matched


def match_batch(
    boxes_xyxy: Tensor, image: Tensor, num_images: int, priors_cxcywh: Tensor, threshold: float = 0.5
) -> Tensor:
    """Match the priors with the objects of many images at once; the same as `match` for one image after the other.

    Args:
        boxes_xyxy: (T, 4), the objects of all images.
        image: (T,) int64, the image of each, 0..num_images-1, never falling.
        num_images: N.
        priors_cxcywh: (P, 4), in the same unit.
        threshold: as for `match`.

    Returns:
        (N, P) int64: a row of `boxes_xyxy`, or UNMATCHED (-1).

    Raises:
        ValueError: as `match`.
    """
    _require_valid(boxes_xyxy, priors_cxcywh)
    num_objects, num_priors = len(boxes_xyxy), len(priors_cxcywh)
    matched = image.new_full((num_images * num_priors,), num_objects)  # no object yet: larger than every row
    if num_objects == 0 or num_priors == 0:
        return torch.full_like(matched, UNMATCHED).reshape(num_images, num_priors)
    # In parts, as memory for intermediate results is slow to get where there are many objects.
    corners = cxcywh_to_xyxy(priors_cxcywh)
    overlaps = torch.cat([iou(part, corners) for part in boxes_xyxy.split(128)])  # (T, P)
    # Only few pairs reach the threshold, and only they are compared: for each prior of each image the largest overlap,
    # of equal ones the earlier object.
    row, prior = (overlaps >= threshold).nonzero(as_tuple=True)  # (K,) each
    place, overlap = image[row] * num_priors + prior, overlaps[row, prior]
    largest = torch.zeros_like(overlaps[:1]).expand(num_images, -1).flatten().scatter_reduce(0, place, overlap, "amax")
    best = overlap == largest[place]
    matched = matched.scatter_reduce(0, place[best], row[best], "amin")
    matched = torch.where(matched == num_objects, UNMATCHED, matched).reshape(num_images, num_priors)

    own = overlaps.argmax(dim=1)  # (T,)
    if (image * num_priors + own).unique().numel() < num_objects:  # somewhere two objects share their best prior
        counts = image.bincount(minlength=num_images).tolist()
        own = torch.cat([best_priors(of_image) for of_image in overlaps.split(counts)])
    has_own = own != UNMATCHED
    matched[image[has_own], own[has_own]] = has_own.nonzero().squeeze(1)  # last: the first step has the last word
    return matched


def best_priors(overlaps: Tensor) -> Tensor:
    """Give every object a prior of its own, the pair with the largest overlap first (greedy, one to one).

    Taking each object's best prior independently is not enough: two objects may share it, and the one that is written
    first would be left without any prior.

    Args:
        overlaps: (M, P), IoU of each object with each prior.

    Returns:
        (M,) int64: the index of the object's prior. With fewer priors than objects, the objects that come off worst
        get UNMATCHED (-1). Of equal overlaps the earlier object, then the earlier prior, is served first.

    Source: the bipartite step of the original implementation.
    """
    num_objects, num_priors = overlaps.shape
    if num_objects == 0 or num_priors == 0:
        return overlaps.new_full((num_objects,), UNMATCHED, dtype=torch.int64)
    own = overlaps.argmax(dim=1)  # (M,)
    if own.unique().numel() == num_objects:
        return own  # nobody shares: the greedy choice is each object's favourite
    own = torch.full_like(own, UNMATCHED)
    free = overlaps.clone()
    for _ in range(min(num_objects, num_priors)):
        best_object, best_prior = divmod(int(free.argmax()), num_priors)
        own[best_object] = best_prior
        free[best_object, :] = -1  # below every overlap: this object and this prior are taken
        free[:, best_prior] = -1
    return own


def _require_valid(boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> None:
    for name, boxes in (("boxes_xyxy", boxes_xyxy), ("priors_cxcywh", priors_cxcywh)):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    bad = ~(torch.isfinite(boxes_xyxy).all(dim=1) & (boxes_xyxy[:, 2:] >= boxes_xyxy[:, :2]).all(dim=1))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"object {row} has no valid box: {boxes_xyxy[row].tolist()} (xyxy)")
