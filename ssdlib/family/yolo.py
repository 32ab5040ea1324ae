"""YOLO in the manner of versions 2 and 3: one prior answers for each object, and learns whether it is there.

The responsible prior stands in the cell of the object's centre and has the shape most like the object's; all others
learn that nothing is there, but for those whose predicted box lies well on an object, which are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdlib.backbones import Tiny
from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import MAX_LOG_SIZE
from ssdlib.detection import Detection, by_image, has_area, shortlists
from ssdlib.family.yolo_v1 import COORDINATES, NO_OBJECT
from ssdlib.loss import checked_targets
from ssdlib.matching import UNMATCHED
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD, PredictionConvolutions
from ssdlib.nms import nms_fast
from ssdlib.priors import PriorRecipe, make_priors

IGNORE = 0.5
"""Other priors are left alone if their predicted box (the paper: the prior) overlaps an object by more than this."""

YOLO_PRIORS = PriorRecipe(
    name="yolo-tiny-256",  # by `fit_by_clusters` (k-means under 1 - IoU) from the sample's training images
    image_size=256,
    map_sizes=(16, 8),
    scales=(0.2, 0.4, 1.0),
    ratios=(
        ((0.7889, 0.1938), (1.723, 0.2218), (0.8471, 0.2733)),
        ((1.5332, 0.3496), (0.7593, 0.3933), (1.0718, 0.5683)),
    ),
)


class YOLO(nn.Module):
    """A YOLO on two maps of `Tiny`: 16 x 16 and 8 x 8 cells, three priors each, 960 predictions.

    Args:
        num_classes: C, background included, as for SSD, although YOLO has no such class.
        recipe: the priors, of maps of 16 and 8 cells.

    Attributes:
        priors: (P, 4) cxcywh, fractional.
        cells: (P, 1), the side of the cell of each prior, as a fraction of the image.

    Raises:
        ValueError: if there is no class of objects, or the recipe is for other maps.

    Source: Redmon and Farhadi, YOLO9000 (2017) and YOLOv3 (2018); without the layers in which the latter carries the
    coarse map back to the finer one.
    """

    image_size = 256
    priors: Tensor
    cells: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, recipe: PriorRecipe = YOLO_PRIORS) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
        if recipe.map_sizes != (16, 8):
            raise ValueError(f"this YOLO has maps of 16 and 8 cells, recipe {recipe.name!r} is for {recipe.map_sizes}")
        self.num_classes, self.recipe = num_classes, recipe
        self.backbone = Tiny()
        del self.backbone.stages[3:]  # the maps of 4 and 2 cells
        self.head = PredictionConvolutions(Tiny.out_channels[1:3], recipe.priors_per_cell, 4 + num_classes)
        with torch.no_grad():
            for layer in self.head.convolutions:  # nothing is likely at first, as RetinaNet begins: objects are rare
                layer.bias.view(-1, 4 + num_classes)[:, 4] = -math.log(99)  # type: ignore[operator,union-attr]
        self.register_buffer("priors", make_priors(recipe), persistent=False)
        self.register_buffer("cells", cell_sides(recipe), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 256, 256) in 0..1 -> (N, P, 4 + 1 + C - 1): four of the box, objectness, classes; before any sigmoid.

        Raises:
            ValueError: if the images have another shape.
        """
        if images.dim() != 4 or images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"this YOLO takes images (N, 3, 256, 256), got {tuple(images.shape)}")
        raw: Tensor = self.head(self.backbone((images - self.mean) / self.std)[1:])
        return raw

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in; as `ssdlib.detection.detect`.

        The score of a class is objectness x P(class | object).
        """
        if len(images) == 0:
            return []
        raw = self(images).float()
        boxes = cxcywh_to_xyxy(decode_in_cell(raw[..., :4], self.priors, self.cells)).clamp(0, 1)  # (N, P, 4)
        scores = raw[..., 4:5].sigmoid() * raw[..., 5:].sigmoid()  # (N, P, C - 1)
        for found in shortlists(scores, min_score, max_candidates=400):  # the first is enough if it gives top_k
            own = boxes.take_along_dim(found.priors[..., None], dim=1)  # (N, K, 4)
            kept = nms_fast(own, found.labels, found.valid & has_area(own), max_overlap, top_k)
            if (kept.sum(dim=1) >= top_k).all():
                break
        return by_image(kept, own, found.labels, found.scores)


def cell_sides(recipe: PriorRecipe) -> Tensor:
    """(P, 1): the side of the cell in which each prior stands, as a fraction of the image."""
    sides = [torch.full((n, 1), 1 / s) for s, n in zip(recipe.map_sizes, recipe.priors_per_map, strict=True)]
    return torch.cat(sides)


def encode_in_cell(boxes_cxcywh: Tensor, priors_cxcywh: Tensor, cells: Tensor) -> Tensor:
    """What the network should say of boxes.

    Args:
        boxes_cxcywh: (..., 4), each with its centre in the cell of its prior.
        priors_cxcywh: (..., 4), in the middle of their cells, in the same unit.
        cells: (..., 1), sides of the cells.

    Returns:
        (..., 4): x and y in 0..1, which the sigmoid has to say, and log(w / p_w), log(h / p_h), as they are.

    Raises:
        ValueError: if a box is not finite, or has no width or no height.

    Source: Redmon and Farhadi (2017), section 2, "Direct location prediction".
    """
    bad = ~(boxes_cxcywh.isfinite().all(dim=-1) & (boxes_cxcywh[..., 2:] > 0).all(dim=-1))
    if bad.any():
        raise ValueError(f"an empty, swapped or not finite box (cxcywh): {boxes_cxcywh[bad][0].tolist()}")
    inside = (boxes_cxcywh[..., :2] - priors_cxcywh[..., :2]) / cells + 0.5
    return torch.cat((inside, (boxes_cxcywh[..., 2:] / priors_cxcywh[..., 2:]).log()), dim=-1)


def decode_in_cell(raw: Tensor, priors_cxcywh: Tensor, cells: Tensor) -> Tensor:
    """Boxes (..., 4) cxcywh of raw numbers (..., 4): the centre cannot leave the cell; sizes are limited as in SSD."""
    centres = priors_cxcywh[..., :2] + (raw[..., :2].sigmoid() - 0.5) * cells
    return torch.cat((centres, priors_cxcywh[..., 2:] * raw[..., 2:].clamp(max=MAX_LOG_SIZE).exp()), dim=-1)


def responsible_priors(boxes_xyxy: Tensor, recipe: PriorRecipe) -> tuple[Tensor, Tensor]:
    """The prior that answers for each object: of all shapes of all maps the most similar, in the cell of the centre.

    Args:
        boxes_xyxy: (M, 4), fractional.
        recipe: the priors.

    Returns:
        (M,) int64 rows of `make_priors`, and (M,) the IoU of object and prior as if they had one centre. Of equal
        shapes the first is taken.

    Source: Redmon and Farhadi, YOLOv3 (2018), section 2.1.
    """
    shapes = torch.tensor([shape for k in range(len(recipe.map_sizes)) for shape in recipe.shapes(k)])
    sizes = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    shapes = shapes.to(sizes)
    overlap, which = iou(F.pad(sizes, (2, 0)), F.pad(shapes, (2, 0))).max(dim=1)  # all corners laid upon each other
    starts, sides, per_cell, nth = torch.tensor(
        [
            (where.start, side, count, n)
            for where, side, count in zip(recipe.map_slices(), recipe.map_sizes, recipe.priors_per_cell, strict=True)
            for n in range(count)
        ],
        device=boxes_xyxy.device,
    )[which].unbind(1)  # (M,) each, of the map of the chosen shape
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    column, row = (centres * sides[:, None]).long().clamp(min=0).minimum(sides[:, None] - 1).unbind(1)
    return starts + (row * sides + column) * per_cell + nth, overlap


def match_responsible(boxes_xyxy: Tensor, recipe: PriorRecipe) -> Tensor:
    """(P,) int64: the object of each prior, or `UNMATCHED`. Each object has one prior.

    If two objects ask for the same one, the more similar has it, or else the first, and the other is not learned.
    """
    prior, overlap = responsible_priors(boxes_xyxy, recipe)
    rank = overlap.argsort(descending=True, stable=True).argsort()
    beaten = (prior[:, None] == prior) & (rank[:, None] > rank)  # [m, n]: n takes the prior that m asks for
    winners = (~beaten.any(dim=1)).nonzero()[:, 0]
    matched = torch.full((recipe.num_priors,), UNMATCHED, device=boxes_xyxy.device)
    matched[prior[winners]] = winners
    return matched


def yolo_loss(raw: Tensor, targets: Sequence[Mapping[str, Any]], recipe: PriorRecipe) -> dict[str, Tensor]:
    """Losses of a batch: squared errors of the boxes, binary cross entropies of objectness and of each class.

    Sums divided by the number of objects that have a prior, or by 1 without any; weighted as in the first YOLO.

    Args:
        raw: (N, P, 4 + 1 + C - 1), what the network says.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.
        recipe: the priors.

    Returns:
        {"localization", "objectness", "class"}: scalars, float32, whatever the precision of the predictions.

    Raises:
        ValueError: if shapes do not fit, a box is empty, swapped, not finite or has its centre outside the image, as
            one in pixels, or a label is out of range.

    Source: Redmon and Farhadi (2018), sections 2.1 and 2.2.
    """
    raw, num_objects = raw.float(), raw.shape[-1] - 5
    if raw.dim() != 3 or raw.shape[:2] != (len(targets), recipe.num_priors) or num_objects < 1 or not targets:
        shape = f"({len(targets)}, {recipe.num_priors}, 4 + C)"
        raise ValueError(f"{len(targets)} targets and these priors need {shape}, got {tuple(raw.shape)}")
    priors, cells = make_priors(recipe, device=raw.device), cell_sides(recipe).to(raw.device)
    predicted = cxcywh_to_xyxy(decode_in_cell(raw[..., :4].detach(), priors, cells))  # (N, P, 4)
    objects, labels, image_of = checked_targets(targets, num_objects + 1, raw)  # (T, 4), (T,), (T,)
    outside = ((xyxy_to_cxcywh(objects)[:, :2] - 0.5).abs() > 0.5).any(dim=1)
    if outside.any():  # no cell would answer for it
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"image {int(image_of[row])} of the batch: a box centred outside 0..1: {objects[row].tolist()}"
        )
    boxes = [objects[image_of == i] for i in range(len(targets))]
    matched = torch.stack([match_responsible(own, recipe) for own in boxes])  # (N, P)
    left_alone = torch.stack([(iou(p, own) > IGNORE).any(dim=1) for p, own in zip(predicted, boxes, strict=True)])
    image, prior = (matched != UNMATCHED).nonzero(as_tuple=True)  # (K,) each
    positive = torch.zeros_like(raw[..., 4]).index_put((image, prior), raw.new_ones(()))
    weight = torch.full_like(positive, NO_OBJECT).masked_fill(left_alone, 0).masked_fill(positive > 0, 1)
    first = torch.tensor([0, *map(len, boxes)], device=raw.device).cumsum(0)[image]  # of the boxes of each image
    own = first + matched[image, prior]
    said = raw[image, prior]  # (K, 4 + C)
    wanted = encode_in_cell(xyxy_to_cxcywh(objects[own]), priors[prior], cells[prior])
    right = F.one_hot(labels[own] - 1, num_objects).float()
    off = torch.cat((said[:, :2].sigmoid(), said[:, 2:4]), dim=1) - wanted
    sums = {
        "localization": COORDINATES * off.square().sum(),
        "objectness": F.binary_cross_entropy_with_logits(raw[..., 4], positive, weight, reduction="sum"),
        "class": F.binary_cross_entropy_with_logits(said[:, 5:], right, reduction="sum"),
    }
    return {name: total / max(len(said), 1) for name, total in sums.items()}


def yolo_losses(model: YOLO, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of a network's predictions for a batch, as `ssdlib.training.training_loop` asks for them."""
    return yolo_loss(model(images), targets, model.recipe)
