"""The MultiBox loss for GPUs: nothing is decided on the host, so that a step never waits for the device.

`ssdlib.loss` takes objects as lists of any length, picks the positives out, and asks how many there are. On a GPU each
of these questions makes the program wait until all that was asked before has been computed. Here every image has room
for the same number of objects, and what does not count is masked: the shapes are known beforehand, and the loss has the
value that `ssdlib.loss` gives it (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import VARIANCES, Activation, Variances
from ssdlib.loss import LossSums, background_loss, checked_targets
from ssdlib.matching import UNMATCHED

ROOM = 8
"""There is room for a multiple of so many objects: a compiled step is made for few shapes."""
PRIOR_BITS, OBJECT_BITS = 20, 13  # of the keys by which pairs are sorted; an overlap, at most 1, has 30 of the 63


class PaddedTargets(NamedTuple):
    """The objects of a batch, with the same room in each image."""

    boxes: Tensor  # (N, M, 4) xyxy, fractional; zeros where there is no object
    labels: Tensor  # (N, M) int64 in 1..C-1; 0 where there is none


def pad_targets(
    targets: Sequence[Mapping[str, Tensor]], num_classes: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> PaddedTargets:
    """Check the targets of a batch where they are, on the host, and bring them to the device, without waiting for it.

    Args:
        targets: as in `ssdlib.loss.multibox_loss`.
        num_classes: C, background included.
        device: of the network.
        dtype: of the boxes.

    Raises:
        ValueError: as `multibox_loss`; or if an image has more than 8192 objects.
    """
    boxes, labels, image = checked_targets(targets, num_classes, torch.empty(0, dtype=dtype))
    counts = image.bincount(minlength=len(targets))
    room = ROOM * max(1, -(-int(counts.max()) // ROOM))
    if room > 2**OBJECT_BITS:
        worst = int(counts.argmax())
        raise ValueError(f"image {worst} of the batch has {counts[worst]} objects; there is room for {2**OBJECT_BITS}")
    place = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]  # of each object in its image
    padded = PaddedTargets(
        torch.zeros(len(targets), room, 4, dtype=dtype), torch.zeros(len(targets), room, dtype=torch.int64)
    )
    padded.boxes[image, place], padded.labels[image, place] = boxes, labels
    if device.type == "cuda":
        padded = PaddedTargets(*(part.pin_memory() for part in padded))
    return PaddedTargets(*(part.to(device, non_blocking=True) for part in padded))


def match_padded(targets: PaddedTargets, priors_cxcywh: Tensor, threshold: float = 0.5) -> Tensor:
    """As `ssdlib.matching.match` for each image: every object has a prior of its own, the largest overlap first.

    Args:
        targets: of N images.
        priors_cxcywh: (P, 4), fractional; P < 2**20.
        threshold: as for `match`.

    Returns:
        (N, P) int64: which object of the image, 0..M-1, or UNMATCHED.
    """
    room, count = targets.labels.shape[1], len(priors_cxcywh)
    there = targets.labels > 0  # (N, M)
    overlaps = iou(targets.boxes, cxcywh_to_xyxy(priors_cxcywh)).float()  # (N, M, P)
    overlaps = torch.where(there[..., None], overlaps, -1.0)
    best_overlap, best_object = overlaps.max(dim=1)  # (N, P) each
    matched = torch.where(best_overlap >= threshold, best_object, UNMATCHED)

    # One number for each pair, by which pairs are sorted as in `match`: the overlap (floats that are not negative are
    # in the order of their bits), then the earlier object, then the earlier prior. No two are equal.
    objects = (room - 1 - torch.arange(room, device=overlaps.device))[:, None] << PRIOR_BITS  # (M, 1)
    priors = count - 1 - torch.arange(count, device=overlaps.device)  # (P,)
    keys = (overlaps.view(torch.int32).long() << (PRIOR_BITS + OBJECT_BITS)) + objects + priors
    keys = torch.where(there[..., None], keys, -1)
    # The others take no more than M - 1 priors from an object: of its M best ones one is left.
    keys = keys.topk(min(room, count), dim=2).values  # (N, M, K)
    prior_of = count - 1 - (keys & (2**PRIOR_BITS - 1))
    row = torch.arange(room, device=keys.device)[:, None]
    own = torch.full_like(targets.labels, count)  # (N, M); `count` is a place that nobody reads
    for _ in range(min(room, count)):
        best, where = keys.flatten(1).max(dim=1)  # (N,) each
        taken = (best >= 0)[:, None]
        prior = torch.where(best >= 0, count - 1 - (best & (2**PRIOR_BITS - 1)), count)[:, None]
        chosen = (where // keys.shape[2])[:, None]
        own = own.scatter(1, chosen, torch.where(taken, prior, own.gather(1, chosen)))
        keys = torch.where((row == chosen[..., None]) | (prior_of == prior[..., None]), -1, keys)
    with_spare = F.pad(matched, (0, 1), value=UNMATCHED)
    return with_spare.scatter(1, own, row[:, 0].expand_as(own))[:, :count]  # last: the first step has the last word


def device_sums(
    offsets: Tensor,
    logits: Tensor,
    targets: PaddedTargets,
    priors_cxcywh: Tensor,
    *,
    threshold: float = 0.5,
    negatives_per_positive: int = 3,
    variances: Variances = VARIANCES,
    activation: Activation = "softmax",
    of_matched: Callable[..., LossSums] | None = None,
) -> LossSums:
    """As `ssdlib.loss.multibox_sums`, with the same arguments but for the targets, which were checked before.

    `of_matched` is `matched_sums`, compiled.
    """
    priors_cxcywh = priors_cxcywh.float()
    matched = match_padded(targets, priors_cxcywh, threshold)  # (N, P)
    which = matched.clamp(min=0)
    labels = targets.labels.gather(1, which) * (matched != UNMATCHED)  # (N, P)
    boxes = targets.boxes.float().gather(1, which[..., None].expand(-1, -1, 4))  # (N, P, 4)
    return (of_matched or matched_sums)(
        offsets, logits, labels, boxes, priors_cxcywh, negatives_per_positive, variances, activation
    )


def matched_sums(
    offsets: Tensor,
    logits: Tensor,
    labels: Tensor,
    boxes_xyxy: Tensor,
    priors_cxcywh: Tensor,
    negatives_per_positive: int = 3,
    variances: Variances = VARIANCES,
    activation: Activation = "softmax",
) -> LossSums:
    """The losses when each prior has its object: the part of `device_sums` whose shapes are always the same.

    Args:
        offsets, logits, priors_cxcywh, negatives_per_positive, variances, activation: as for `multibox_sums`.
        labels: (N, P) int64, 0 where a prior is background.
        boxes_xyxy: (N, P, 4) of their objects; of background, anything that is finite.
    """
    offsets, logits = offsets.float(), logits.float()
    positive = labels > 0
    # Of no object, the prior: its logarithm is 0.
    boxes = torch.where(positive[..., None], xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh)
    # As `encode`, which would ask whether a box is empty.
    centres = (boxes[..., :2] - priors_cxcywh[:, :2]) / priors_cxcywh[:, 2:] / variances[0]
    wanted_offsets = torch.cat((centres, torch.log(boxes[..., 2:] / priors_cxcywh[:, 2:]) / variances[1]), dim=-1)

    with torch.no_grad():
        hardness = background_loss(logits, activation).masked_fill(positive, -torch.inf)  # (N, P)
        wanted = negatives_per_positive * positive.sum(dim=1).clamp(min=1)
        wanted = torch.minimum(wanted, (~positive).sum(dim=1))
        order = hardness.argsort(dim=1, descending=True, stable=True)
        mined = torch.arange(hardness.shape[1], device=order.device) < wanted[:, None]
        negative = torch.zeros_like(positive).scatter(1, order, mined)
    distance = F.smooth_l1_loss(offsets, wanted_offsets, reduction="none").sum(dim=-1)  # (N, P)
    if activation == "softmax":
        entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")  # (N, P)
    else:
        right = F.one_hot(labels, logits.shape[-1])[..., 1:].to(logits.dtype)
        entropy = F.binary_cross_entropy_with_logits(logits[..., 1:], right, reduction="none").sum(dim=-1)
    localization = torch.where(positive, distance, 0.0).sum()
    confidence = torch.where(positive | negative, entropy, 0.0).sum()
    return LossSums(localization, confidence, positive.sum())
