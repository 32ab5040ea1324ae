"""The MultiBox loss: offsets of the positives, classes of the positives and of the hardest negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.boxes import xyxy_to_cxcywh
from ssdlib.coding import VARIANCES, Activation, Variances, encode
from ssdlib.matching import UNMATCHED, match_batch


def multibox_loss(
    offsets: Tensor,
    logits: Tensor,
    targets: Sequence[Mapping[str, Any]],
    priors_cxcywh: Tensor,
    *,
    threshold: float = 0.5,
    negatives_per_positive: int = 3,
    variances: Variances = VARIANCES,
    activation: Activation = "softmax",
) -> dict[str, Tensor]:
    """Localization and confidence loss of a batch; their sum (alpha = 1) is what SSD is trained with.

    Both are sums divided by N, the number of positives (priors matched with an object) in the batch, or by 1 if there
    is none. An image without objects has its `negatives_per_positive` hardest negatives mined, as if it had one
    positive: the original rule, 3 negatives for each of its 0 positives, would let it teach nothing.

    Args:
        offsets: (N, P, 4), predicted offsets.
        logits: (N, P, C), predicted class scores before the softmax; class 0 is background.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.
        priors_cxcywh: (P, 4), fractional.
        threshold: smallest overlap of a prior with its object.
        negatives_per_positive: how many of the hardest negatives are kept for each positive of the same image.
        variances: of the offsets.
        activation: how scores are made of logits. With "sigmoid", each object class is a question of its own, answered
            by a binary cross entropy, and the logits of background are not used.

    Returns:
        {"localization": scalar, "confidence": scalar}, float32, whatever the precision of the predictions.

    Raises:
        ValueError: if shapes do not fit, a box is empty, swapped or not finite, or a label is out of range; the
            message names the image. Or if there is no such activation.

    Source: Liu et al. (2016), section 2.2, equations 1 to 3, and "Hard negative mining".
    """
    sums = multibox_sums(
        offsets,
        logits,
        targets,
        priors_cxcywh,
        threshold=threshold,
        negatives_per_positive=negatives_per_positive,
        variances=variances,
        activation=activation,
    )
    divisor = sums.num_positives.clamp(min=1)
    return {"localization": sums.localization / divisor, "confidence": sums.confidence / divisor}


class LossSums(NamedTuple):
    """The two losses of a batch before the division, and what they are divided by."""

    localization: Tensor  # scalar
    confidence: Tensor  # scalar
    num_positives: Tensor  # scalar int64


def multibox_sums(
    offsets: Tensor,
    logits: Tensor,
    targets: Sequence[Mapping[str, Any]],
    priors_cxcywh: Tensor,
    *,
    threshold: float = 0.5,
    negatives_per_positive: int = 3,
    variances: Variances = VARIANCES,
    activation: Activation = "softmax",
) -> LossSums:
    """The sums of `multibox_loss`, for those who divide by the positives of several batches; arguments as there."""
    _require_shapes(offsets, logits, targets, priors_cxcywh)
    # Half precision is for the network: sums over 8732 priors, and the logarithms of the encoding, need more digits.
    offsets, logits, priors_cxcywh = offsets.float(), logits.float(), priors_cxcywh.float()
    labels, matched_offsets = assign_targets(targets, priors_cxcywh, logits.shape[-1], threshold, variances)
    positive = labels > 0  # (N, P)
    with torch.no_grad():
        # A few images at a time, so that the logarithms of all classes stay in the processor's cache.
        hardness = torch.cat([background_loss(few, activation) for few in logits.split(4)])  # (N, P)
        negative = mine_hard_negatives(hardness, positive, negatives_per_positive)  # (N, P)
    chosen = (positive | negative).nonzero(as_tuple=True)  # (K,) twice: images and priors
    localization = F.smooth_l1_loss(offsets[positive], matched_offsets, reduction="sum")
    confidence = class_loss(logits[chosen], labels[chosen], activation)
    return LossSums(localization, confidence, positive.sum())


def assign_targets(
    targets: Sequence[Mapping[str, Any]],
    priors_cxcywh: Tensor,
    num_classes: int,
    threshold: float = 0.5,
    variances: Variances = VARIANCES,
) -> tuple[Tensor, Tensor]:
    """What every prior of a batch has to predict.

    Args:
        targets: as in `multibox_loss`.
        priors_cxcywh: (P, 4), fractional.
        num_classes: C, background included.
        threshold: smallest overlap of a prior with its object.
        variances: of the offsets.

    Returns:
        labels (N, P) int64, 0 where a prior is background; and the offsets (N_pos, 4) of the positives alone, in the
        order of `labels > 0`.

    Raises:
        ValueError: as `multibox_loss`.
    """
    boxes, classes, image = checked_targets(targets, num_classes, priors_cxcywh)
    matched = match_batch(boxes, image, len(targets), priors_cxcywh, threshold)  # (N, P), rows of `boxes`
    positive = matched != UNMATCHED
    own = matched[positive]  # (N_pos,)
    labels = torch.zeros_like(matched)  # (N, P), background
    labels[positive] = classes[own]
    priors = priors_cxcywh[positive.nonzero()[:, 1]]  # (N_pos, 4)
    return labels, encode(xyxy_to_cxcywh(boxes)[own], priors, variances)


def class_loss(logits: Tensor, labels: Tensor, activation: Activation = "softmax") -> Tensor:
    """Cross entropy of the right labels, summed over the priors.

    Args:
        logits: (K, C).
        labels: (K,) int64 in 0..C-1; 0 is background.
        activation: with "sigmoid", the sum of the binary cross entropies of the object classes: background is that no
            object class is right.

    Returns:
        A scalar.

    Raises:
        ValueError: if there is no such activation.
    """
    if activation == "softmax":
        return F.cross_entropy(logits, labels, reduction="sum")
    if activation == "sigmoid":
        right = F.one_hot(labels, logits.shape[-1])[:, 1:]  # (K, C-1)
        return F.binary_cross_entropy_with_logits(logits[:, 1:], right.to(logits.dtype), reduction="sum")
    raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")


def background_loss(logits: Tensor, activation: Activation = "softmax") -> Tensor:
    """Cross entropy of every prior if it is background: how hard it is as a negative.

    Args:
        logits: (..., C).
        activation: as in `class_loss`.

    Returns:
        (...): -log softmax(logits)[0]; with "sigmoid" the sum of -log(1 - sigmoid(logit)) over the object classes.
    """
    if activation == "sigmoid":
        return F.softplus(logits[..., 1:]).sum(dim=-1)
    return -logits.log_softmax(dim=-1)[..., 0]


def mine_hard_negatives(hardness: Tensor, positive: Tensor, negatives_per_positive: int = 3) -> Tensor:
    """Mark the hardest negatives of each image, a fixed number for each of its positives.

    Args:
        hardness: (N, P), the loss of each prior as background.
        positive: (N, P) bool; these are never chosen.
        negatives_per_positive: see `multibox_loss`. An image without positives counts as one with a single positive.

    Returns:
        (N, P) bool. If an image has fewer negatives than wanted, all of them are marked.

    Source: Liu et al. (2016), section 2.2, "Hard negative mining".
    """
    wanted = negatives_per_positive * positive.sum(dim=1).clamp(min=1)  # (N,)
    wanted = torch.minimum(wanted, (~positive).sum(dim=1))
    most = int(wanted.max()) if len(wanted) else 0
    # Only the top of the order matters: a top-k costs far less than ranking all 8732 priors with two sorts.
    _, hardest = hardness.masked_fill(positive, -torch.inf).topk(most, dim=1)  # (N, most)
    mined = torch.arange(most, device=hardness.device) < wanted[:, None]  # (N, most)
    return torch.zeros_like(positive).scatter_(1, hardest, mined)


def _require_shapes(offsets: Tensor, logits: Tensor, targets: Sequence[Any], priors_cxcywh: Tensor) -> None:
    if not targets:
        raise ValueError("a batch needs at least one image, got none")
    expected = (len(targets), len(priors_cxcywh))
    if offsets.shape != (*expected, 4) or logits.dim() != 3 or logits.shape[:2] != expected:
        raise ValueError(
            f"{expected[0]} targets and {expected[1]} priors need offsets {(*expected, 4)} and logits "
            f"{(*expected, 'C')}, got {tuple(offsets.shape)} and {tuple(logits.shape)}"
        )


def checked_targets(
    targets: Sequence[Mapping[str, Any]], num_classes: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The objects of a batch in one list.

    Args:
        targets: as in `multibox_loss`.
        num_classes: C, background included.
        like: their number format and device.

    Returns:
        All boxes (T, 4), their labels (T,) and their images (T,).

    Raises:
        ValueError: as `multibox_loss`.
    """
    for i, target in enumerate(targets):
        count, labels = target["boxes"].numel() // 4, target["labels"]
        if labels.shape != (count,):
            raise ValueError(f"image {i} of the batch: {count} boxes, but labels of shape {tuple(labels.shape)}")
        if labels.is_floating_point() and count:  # torch.tensor([]), the labels of no object, is a float tensor
            raise ValueError(f"image {i} of the batch: labels must be int64, got {labels.dtype}")
    # One tensor for the batch: to check and to match image by image would leave most of the time to the calls.
    boxes = torch.cat([target["boxes"].reshape(-1, 4).to(like.dtype) for target in targets]).to(like.device)
    labels = torch.cat([target["labels"].long() for target in targets]).to(like.device)
    counts = torch.tensor([target["labels"].numel() for target in targets])
    image = torch.arange(len(targets)).repeat_interleave(counts).to(like.device)
    empty = ~(torch.isfinite(boxes).all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1))
    unknown = (labels < 1) | (labels >= num_classes)
    if (empty | unknown).any():
        row = int((empty | unknown).nonzero()[0])
        wrong = (
            f"empty, swapped or not finite box {boxes[row].tolist()} (xyxy)"
            if empty[row]
            else f"label {int(labels[row])} is not one of 1..{num_classes - 1} (0 is background)"
        )
        raise ValueError(f"image {int(image[row])} of the batch: {wrong}")
    return boxes, labels, image
