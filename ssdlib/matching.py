"""Matching: which object each prior has to predict, or none."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou

UNMATCHED = -1


def match(boxes_xyxy: Tensor, priors_cxcywh: Tensor, threshold: float = 0.5) -> Tensor:
    """Give each prior the object that it has to predict.

    Two steps. First every object receives a prior of its own (as in `best_priors`). Then every other prior takes the
    object that it overlaps most, if that overlap reaches the threshold; the rest is background.

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
    overlaps = _overlaps(boxes_xyxy, priors_cxcywh)  # (M, P)
    best_overlap, best_object = overlaps.max(dim=0)  # (P,) each; of equal overlaps the earlier object
    matched = torch.where(best_overlap >= threshold, best_object, UNMATCHED)  # (P,)
    own = best_priors_fast(overlaps)  # (M,)
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
        num_images: N, of the batch.
        priors_cxcywh: (P, 4), in the same unit.
        threshold: as for `match`.

    Returns:
        (N, P) int64: a row of `boxes_xyxy`, or UNMATCHED (-1).

    Raises:
        ValueError: as `match`.
    """
    _require_valid(boxes_xyxy, priors_cxcywh)
    matched = image.new_full((num_images, len(priors_cxcywh)), UNMATCHED)
    if len(boxes_xyxy) == 0 or len(priors_cxcywh) == 0:
        return matched
    overlaps = _overlaps(boxes_xyxy, priors_cxcywh)  # (T, P)
    counts, first = image.bincount(minlength=num_images).tolist(), 0
    for i, count in enumerate(counts):
        if count > 0:
            of_image = overlaps[first : first + count]
            prior = (of_image.amax(dim=0) >= threshold).nonzero().squeeze(1)  # few: only they are asked which object
            matched[i, prior] = of_image[:, prior].max(dim=0).indices + first
        first += count

    own = overlaps.argmax(dim=1)  # (T,)
    if (image * len(priors_cxcywh) + own).unique().numel() < len(own):  # somewhere two objects share their best prior
        own = torch.cat([best_priors_fast(of_image) for of_image in overlaps.split(counts)])
    has_own = own != UNMATCHED
    matched[image[has_own], own[has_own]] = has_own.nonzero().squeeze(1)  # last: the first step has the last word
    return matched


def best_priors(overlaps: Tensor) -> Tensor:
    """Give every object a prior of its own, the pair with the largest overlap first (greedy, one to one).

    Taking each object's best prior independently is not enough: two objects may share it, and the one that is written
    first would be left without any prior. This is the rule as it is taught; `best_priors_fast` obeys it in less time.

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
    own = overlaps.new_full((num_objects,), UNMATCHED, dtype=torch.int64)
    free = overlaps.clone()
    for _ in range(min(num_objects, num_priors)):
        best_object, best_prior = divmod(int(free.argmax()), num_priors)
        own[best_object] = best_prior
        free[best_object, :] = -1  # below every overlap: this object and this prior are taken
        free[:, best_prior] = -1
    return own


def best_priors_fast(overlaps: Tensor) -> Tensor:
    """The same result as `best_priors` (tested), in a small part of its time where there are many objects.

    The rule takes the pairs from the largest overlap down. So the pairs are sorted, in portions: the largest overlaps
    of the objects and priors that are left, then the largest of those that are left after them.

    Args:
        overlaps: (M, P), IoU of each object with each prior.

    Returns:
        (M,) int64, as `best_priors`.
    """
    num_objects, num_priors = overlaps.shape
    if num_objects == 0 or num_priors == 0:
        return overlaps.new_full((num_objects,), UNMATCHED, dtype=torch.int64)
    own = overlaps.argmax(dim=1)  # (M,)
    if own.unique().numel() == num_objects:
        return own  # nobody shares: the greedy choice is each object's favourite
    owned, free = [UNMATCHED] * num_objects, [True] * num_priors
    objects, priors, rest = torch.arange(num_objects), torch.arange(num_priors), overlaps.cpu()
    while len(objects) > 0 and len(priors) > 0:
        # About one pair of 128, judged by a sample; and no pair of those that do not touch before the others are done.
        sample = rest.flatten()[:: rest.numel() >> 16 | 1]
        least = sample.topk(min(len(sample), max(256, len(sample) // 128))).values[-1]
        row, column = (rest >= least if least > 0 else rest > 0).nonzero(as_tuple=True)
        if len(row) == 0:  # nothing touches: the earlier object has the earlier prior
            row = column = torch.arange(min(rest.shape))
        order = rest[row, column].argsort(descending=True, stable=True)  # of equal overlaps, as they were: by object
        for i, j in zip(objects[row[order]].tolist(), priors[column[order]].tolist(), strict=True):
            if owned[i] == UNMATCHED and free[j]:
                owned[i], free[j] = j, False
        left = torch.tensor(owned)[objects] == UNMATCHED
        still_free = torch.tensor(free)[priors]
        objects, priors, rest = objects[left], priors[still_free], rest[left][:, still_free]
    return torch.tensor(owned, device=overlaps.device)


def _overlaps(boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
    """(M, P): in parts whose intermediate results stay in the processor's cache, where there are many objects."""
    corners = cxcywh_to_xyxy(priors_cxcywh)
    return torch.cat([iou(part, corners) for part in boxes_xyxy.split(32)])


def _require_valid(boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> None:
    for name, boxes in (("boxes_xyxy", boxes_xyxy), ("priors_cxcywh", priors_cxcywh)):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    bad = ~(torch.isfinite(boxes_xyxy).all(dim=1) & (boxes_xyxy[:, 2:] >= boxes_xyxy[:, :2]).all(dim=1))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"object {row} has no valid box: {boxes_xyxy[row].tolist()} (xyxy)")
