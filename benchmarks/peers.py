"""Matching, loss and detection as pairs: our code, and torchvision's, on the same tensors.

Each function makes the inputs from a seed and returns the `Pair`. What stands beside our code is the library's own:
for the loss `SSD.proposal_matcher` and `SSD.compute_loss`, for detection `SSD.postprocess_detections`. Whole networks
are in `peer_networks`, images and evaluation in `peer_data`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torchvision
from timing import Pair
from torch import Tensor
from torchvision.ops import box_iou

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.detection import detect
from ssdlib.loss import multibox_loss
from ssdlib.matching import match
from ssdlib.priors import SSD300_COCO, SSD512_VOC, PriorRecipe, make_priors

Target = dict[str, Tensor]
RECIPES = {"SSD300": SSD300_COCO, "SSD512": SSD512_VOC}


@cache
def bare_detector() -> Any:
    """Torchvision's SSD300 without its weights: for its loss and its postprocessing, which have none."""
    with torch.device("meta"):
        return torchvision.models.get_model("ssd300_vgg16", weights=None, weights_backbone=None)


def scene(images: int, objects: int, classes: int, priors: Tensor, seed: int = 0) -> list[Target]:
    """Random objects for which both libraries match the same.

    They differ where two objects have the same best prior (torchvision forgets one of them), and where rounding decides
    (theirs is that of pixels): an overlap is the threshold, or an object overlaps two priors best.
    """
    generator = torch.Generator().manual_seed(seed)
    corners, targets = cxcywh_to_xyxy(priors), []
    while len(targets) < images:
        size = 0.05 + 0.5 * torch.rand(4 * objects + 8, 2, generator=generator) ** 2
        corner = torch.rand(len(size), 2, generator=generator) * (1 - size)
        boxes = torch.cat((corner, corner + size), dim=1)
        overlaps = iou(boxes, corners)
        clear = ~torch.isclose(overlaps, torch.tensor(0.5), rtol=1e-5).any(dim=1)
        first, second = overlaps.topk(2, dim=1).values.unbind(1)
        clear &= first - second > 1e-5
        best, taken, chosen = overlaps.argmax(dim=1).tolist(), set(), []
        for row in clear.nonzero().flatten().tolist():
            if best[row] not in taken and len(chosen) < objects:
                taken.add(best[row])
                chosen.append(row)
        if len(chosen) == objects:
            labels = torch.randint(1, classes, (objects,), generator=generator)
            targets.append({"boxes": boxes[chosen], "labels": labels})
    return targets


def loss(images: int = 32, objects: int = 6, classes: int = 21, recipe: str = "SSD300", target: float = 0.35) -> Pair:
    """Matching and loss, forward."""
    size, priors = _priors(RECIPES[recipe])
    targets = scene(images, objects, classes, priors)
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randn(images, len(priors), 4, generator=generator)
    logits = torch.randn(images, len(priors), classes, generator=generator)
    in_pixels = [{**each, "boxes": each["boxes"] * size} for each in targets]
    anchors = [cxcywh_to_xyxy(priors) * size] * images
    ssd, outputs = bare_detector(), {"bbox_regression": offsets, "cls_logits": logits}

    def theirs() -> dict[str, Tensor]:
        matched = [ssd.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(in_pixels, anchors, strict=True)]
        return ssd.compute_loss(in_pixels, outputs, anchors, matched)

    work = f"matching + loss, batch {images}, {len(priors)} priors, {objects} objects an image, {classes} classes"
    return Pair(work, lambda: multibox_loss(offsets, logits, targets, priors), theirs, same_losses, target)


def detection(trained: bool, images: int = 8, classes: int = 21, recipe: str = "SSD300", target: float = 0.5) -> Pair:
    """From predictions to detections: a trained network's, or one's whose scores all are above the threshold."""
    size, priors = _priors(RECIPES[recipe])
    offsets, logits = (trained_like if trained else untrained)(images, classes, priors)
    anchors = [cxcywh_to_xyxy(priors) * size] * images
    ssd, outputs = bare_detector(), {"bbox_regression": offsets, "cls_logits": logits}
    passing = int((logits.softmax(dim=-1)[..., 1:] > 0.01).sum()) // images
    kind = "a trained net's scores" if trained else "an untrained net's scores"
    return Pair(
        f"detection, batch {images}, {len(priors)} priors, {classes} classes, {kind} ({passing} an image pass 0.01)",
        lambda: detect(offsets, logits, priors),
        torch.no_grad()(lambda: ssd.postprocess_detections(outputs, anchors, [(size, size)] * images)),
        lambda ours, theirs: same_detections(ours, theirs, size),
        target,
    )


def untrained(images: int, classes: int, priors: Tensor) -> tuple[Tensor, Tensor]:
    """What a network with small random weights says: offsets about 0, all classes about equal."""
    generator = torch.Generator().manual_seed(2)
    offsets = 0.1 * torch.randn(images, len(priors), 4, generator=generator)
    return offsets, 0.1 * torch.randn(images, len(priors), classes, generator=generator)


def trained_like(images: int, classes: int, priors: Tensor) -> tuple[Tensor, Tensor]:
    """Sure of the background, but near 6 objects an image the priors find the object, the surer the more they overlap.

    With noise in both, a third of the classes' best scores stay above 0.01, as is usual on photographs.
    """
    generator = torch.Generator().manual_seed(3)
    offsets = 0.5 * torch.randn(images, len(priors), 4, generator=generator)
    logits = torch.randn(images, len(priors), classes, generator=generator)
    logits[..., 0] += 7 + math.log(classes)
    for i, each in enumerate(scene(images, 6, classes, priors, seed=4)):
        overlap, of_prior = iou(each["boxes"], cxcywh_to_xyxy(priors)).max(dim=0)  # (P,) each
        rows = (overlap > 0.3).nonzero().squeeze(1)
        exact = encode(xyxy_to_cxcywh(each["boxes"])[of_prior[rows]], priors[rows])
        offsets[i, rows] = exact + 0.3 * torch.randn(len(rows), 4, generator=generator)
        logits[i, rows, each["labels"][of_prior[rows]]] += 20 * overlap[rows]
    return offsets, logits


def same_losses(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    torch.testing.assert_close(ours["localization"], theirs["bbox_regression"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours["confidence"], theirs["classification"], rtol=1e-4, atol=1e-5)
    return "both losses within 0.01%"


def same_detections(ours: list[Target], theirs: list[Target], size: int, differing_share: float = 0.02) -> str:
    """Each of our detections has one of theirs: same class, boxes within 0.05 pixels, scores within 1e-4.

    Of an image's last detections some may differ, where their scores are equal within rounding.
    """
    differing = total = 0
    for a, b in zip(ours, theirs, strict=True):
        # Torchvision keeps boxes that have no area inside the image, and ours go on with the next ones instead.
        b = {key: value[(b["boxes"][:, 2:] > b["boxes"][:, :2]).all(dim=1)] for key, value in b.items()}
        assert len(a["scores"]) >= len(b["scores"])
        a = {key: value[: len(b["scores"])] for key, value in a.items()}
        torch.testing.assert_close(a["scores"], b["scores"].float(), atol=1e-4, rtol=1e-3)
        if not len(a["scores"]):
            continue
        apart = (a["boxes"][:, None] * size - b["boxes"]).abs().amax(dim=2)  # (K, K)
        apart = apart + 1000 * (a["labels"][:, None] != b["labels"])
        differing += int((apart.amin(dim=1) > 0.05).sum())
        total += len(a["scores"])
    assert differing <= max(1, differing_share * total), f"{differing} of {total} detections differ"
    return f"{total - differing} of {total} detections the same, scores within 1e-4"


def _priors(recipe: PriorRecipe) -> tuple[int, Tensor]:
    return recipe.image_size, make_priors(recipe)


def matching(images: int, objects: int, recipe: str = "SSD300") -> Pair:
    """Matching alone: torchvision's `box_iou` and `SSDMatcher`."""
    priors = make_priors(RECIPES[recipe])
    targets = scene(images, objects, 21, priors)
    anchors = cxcywh_to_xyxy(priors)

    def theirs() -> list[Tensor]:
        return [bare_detector().proposal_matcher(box_iou(each["boxes"], anchors)) for each in targets]

    def same(ours: list[Tensor], theirs: list[Tensor]) -> str:
        assert all(bool((a == b.clamp(min=-1)).all()) for a, b in zip(ours, theirs, strict=True))
        return "the same object for every prior"

    work = f"matching, batch {images}, {len(priors)} priors, {objects} objects an image"
    return Pair(work, lambda: [match(each["boxes"], priors) for each in targets], theirs, same, 1.0)
