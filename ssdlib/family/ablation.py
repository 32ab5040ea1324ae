"""SSD with one ingredient taken away, or another one in its place, so that what each is worth can be measured.

A variant names the variant that it is compared with, and differs from that one in a single field. Nothing else may
change, or the difference says nothing about the ingredient. `benchmarks/ablation.py` trains them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdlib.backbones import Tiny
from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import Activation, decode, encode
from ssdlib.family.losses import ciou_loss, giou_loss, sigmoid_focal_loss
from ssdlib.loss import background_loss, class_loss, mine_hard_negatives
from ssdlib.matching import UNMATCHED, match
from ssdlib.model import SSD, TINY
from ssdlib.priors import PriorRecipe, Ratio
from ssdlib.training import Losses

FOCAL_START = 0.01
"""What a network with focal loss says of every class before it has learned: else the background drowns all at first."""

BoxLoss = Literal["smooth_l1", "l1", "giou", "ciou"]
Negatives = int | Literal["all", "focal"]


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        title: what the table calls it.
        group: the kind of ingredient.
        beside: the variant that it is compared with, and from which it differs in one of the following.
        maps: the first of the five maps that the heads read, and the one after the last, counted from the finest. The
            priors of the others are not lost: they go to the nearest map that is read, as in the paper.
        ratios: the priors of a cell, as `PriorRecipe` has them.
        augmentation: fields of `ssdlib.data.transforms.Augmentation`, and their values.
        images: the first so many of the training images; 0 is all.
        negatives: how many are mined for each positive; "all" takes every negative, and "focal" has focal loss.
        activation: how scores are made of the logits; focal loss needs "sigmoid".
        box_loss: on the four offsets, or on the decoded boxes.
        threshold: smallest overlap of a prior with its object.
        forced: whether every object gets a prior, however little they overlap.
    """

    title: str
    group: str
    beside: str = "ssd"
    maps: tuple[int, int] = (0, 5)
    ratios: tuple[Ratio, ...] = (1.0, 2.0, 1 / 2, "extra")
    augmentation: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    negatives: Negatives = 3
    activation: Activation = "softmax"
    box_loss: BoxLoss = "smooth_l1"
    threshold: float = 0.5
    forced: bool = True

    def __post_init__(self) -> None:
        first, stop = self.maps
        if not 0 <= first < stop <= 5:
            raise ValueError(f"{self.title}: maps {self.maps} are none of the five")
        if self.negatives not in ("all", "focal") and not (isinstance(self.negatives, int) and self.negatives >= 1):
            raise ValueError(f"{self.title}: negatives is 'all', 'focal' or 1 and more, got {self.negatives!r}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"{self.title}: threshold must be above 0 and at most 1, got {self.threshold}")
        if self.negatives == "focal" and self.activation != "sigmoid":
            raise ValueError(f"{self.title}: focal loss needs the activation 'sigmoid', got {self.activation!r}")
        if self.box_loss not in get_args(BoxLoss):
            raise ValueError(f"{self.title}: box_loss is one of {', '.join(get_args(BoxLoss))}, got {self.box_loss!r}")

    @property
    def losses(self) -> Losses:
        """What it is trained with, as `ssdlib.training.training_loop` takes it."""
        return partial(variant_losses, self)

    def build(self, num_classes: int) -> SSD:
        """The network with random weights; `num_classes` counts background."""
        backbone = ReadMaps(*self.maps)
        model = SSD(backbone, recipe_of(self), num_classes=num_classes, activation=self.activation)
        if self.negatives == "focal":
            for layer in model.class_head.convolutions:  # type: ignore[union-attr]
                nn.init.constant_(layer.bias, -math.log((1 - FOCAL_START) / FOCAL_START))
        return model


# In the order in which they are trained: what a table cannot do without comes first.
VARIANTS: dict[str, Variant] = {
    "ssd": Variant("SSD, as it is", "all", beside=""),
    "one_map": Variant("1 map, of 16 x 16 cells", "maps", maps=(1, 2)),
    "square": Variant("squares only", "ratios", ratios=(1.0, "extra")),
    "crops": Variant("with crops", "images", augmentation={"crop": 0.3}),
    "negatives_all": Variant("all negatives", "negatives", negatives="all"),
    "no_force": Variant("no prior by force", "matching", forced=False),
    "giou": Variant("GIoU", "box loss", box_loss="giou"),
    "few": Variant("100 images", "images", images=100),
    "few_crops": Variant("100 images, with crops", "images", beside="few", images=100, augmentation={"crop": 0.3}),
    "no_finest": Variant("4 maps, without the finest", "maps", maps=(1, 5)),
    "threshold_6": Variant("threshold 0.6", "matching", threshold=0.6),
    "threshold_6_no_force": Variant(
        "threshold 0.6, no prior by force", "matching", beside="threshold_6", threshold=0.6, forced=False
    ),
    "sigmoid": Variant("a sigmoid for each class", "negatives", activation="sigmoid"),
    "focal": Variant("focal loss", "negatives", beside="sigmoid", activation="sigmoid", negatives="focal"),
    "negatives_1": Variant("1 negative for each positive", "negatives", negatives=1),
    "maps_3": Variant("3 maps, without the two coarsest", "maps", maps=(0, 3)),
    "zoom_out": Variant("with zooming out", "images", augmentation={"zoom_out": 4.0}),
    "three": Variant("with 3 and 1/3", "ratios", ratios=(1.0, 2.0, 3.0, 1 / 2, 1 / 3, "extra")),
    "l1": Variant("L1", "box loss", box_loss="l1"),
    "no_flips": Variant("without flips", "images", augmentation={"horizontal_flip": 0.0}),
    "threshold_4": Variant("threshold 0.4", "matching", threshold=0.4),
    "ciou": Variant("CIoU", "box loss", box_loss="ciou"),
    "maps_4": Variant("4 maps, without the coarsest", "maps", maps=(0, 4)),
}
"""By the names in the record."""


class ReadMaps(nn.Module):
    """The backbone `Tiny` of which only some maps are read, and no layer is kept that only leads to others.

    Args:
        first, stop: the first map that is read, and the one after the last.
    """

    def __init__(self, first: int, stop: int) -> None:
        super().__init__()
        tiny = Tiny()
        self.first, self.stages = first, tiny.stages[:stop]
        self.out_channels = tiny.out_channels[first:stop]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, S, S) -> the maps that are read, finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[self.first :]


def recipe_of(variant: Variant) -> PriorRecipe:
    """The priors of a variant: those of `TINY`, but those of maps that are not read stand on the nearest other map.

    Moved priors keep their shape, and there are as many of them as the other map has cells.
    """
    first, stop = variant.maps
    cells = [list(variant.ratios) for _ in range(first, stop)]
    for k in (*range(first), *range(stop, 5)):
        nearest = 0 if k < first else -1
        extra = math.sqrt(TINY.scales[k] * TINY.scales[k + 1])
        for entry in variant.ratios:
            if isinstance(entry, tuple):
                raise ValueError(f"{variant.title}: ratio {entry} has a scale of its own and cannot be moved")
            cells[nearest].append((1.0, extra) if isinstance(entry, str) else (entry, TINY.scales[k]))
    return replace(
        TINY,
        map_sizes=TINY.map_sizes[first:stop],
        scales=TINY.scales[first : stop + 1],
        ratios=tuple(tuple(cell) for cell in cells),
    )


def variant_losses(
    variant: Variant, model: Any, images: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The two losses of a batch, with the ingredients of a variant; for "ssd" those of `multibox_loss`.

    Both are sums over the priors divided by the number of positives, whatever the variant: no weight was tuned for it.

    Args:
        variant: which ingredients.
        model: an SSD.
        images: (N, 3, S, S) in 0..1.
        targets: one dict an image, "boxes" (M, 4) xyxy fractional and "labels" (M,); M = 0 is legal.

    Returns:
        {"localization": scalar, "confidence": scalar}, float32 whatever the precision of the network.
    """
    offsets, logits = (predicted.float() for predicted in model(images))  # (N, P, 4), (N, P, C)
    labels, boxes = assign(targets, model.priors, variant.threshold, variant.forced)  # (N, P), (N_pos, 4)
    positive = labels > 0
    own = model.priors.expand(len(labels), -1, -1)[positive]  # (N_pos, 4)
    localization = box_loss(offsets[positive], boxes, own, variant.box_loss)
    if variant.negatives == "focal":
        right = F.one_hot(labels, logits.shape[-1])[..., 1:]  # (N, P, C - 1)
        confidence = sigmoid_focal_loss(logits[..., 1:], right).sum()
    elif variant.negatives == "all":
        confidence = class_loss(logits.flatten(0, 1), labels.flatten(), variant.activation)
    else:
        hardness = background_loss(logits.detach(), variant.activation)
        chosen = positive | mine_hard_negatives(hardness, positive, variant.negatives)
        confidence = class_loss(logits[chosen], labels[chosen], variant.activation)
    divisor = positive.sum().clamp(min=1)
    return {"localization": localization / divisor, "confidence": confidence / divisor}


def assign(
    targets: Sequence[Mapping[str, Tensor]], priors_cxcywh: Tensor, threshold: float, forced: bool
) -> tuple[Tensor, Tensor]:
    """What every prior of a batch has to predict, with or without a prior of its own for every object.

    Args:
        targets: as for `variant_losses`.
        priors_cxcywh: (P, 4), fractional.
        threshold: smallest overlap of a prior with its object.
        forced: whether objects get a prior that overlaps them less than that.

    Returns:
        labels (N, P) int64, 0 where a prior is background; and the objects (N_pos, 4) xyxy of the positives alone, in
        the order of `labels > 0`.
    """
    assigned = match if forced else match_by_overlap
    labels, boxes = [], []
    for target in targets:
        objects = target["boxes"].to(priors_cxcywh).reshape(-1, 4)
        matched = assigned(objects, priors_cxcywh, threshold)  # (P,)
        own = matched[matched != UNMATCHED]
        of_image = torch.zeros_like(matched)
        of_image[matched != UNMATCHED] = target["labels"].to(matched)[own]
        labels.append(of_image)
        boxes.append(objects[own])
    return torch.stack(labels), torch.cat(boxes)


def match_by_overlap(boxes_xyxy: Tensor, priors_cxcywh: Tensor, threshold: float = 0.5) -> Tensor:
    """The second step of `ssdlib.matching.match` alone: an object that no prior overlaps enough has none.

    Args:
        boxes_xyxy: (M, 4), the objects; M = 0 is legal.
        priors_cxcywh: (P, 4), in the same unit.
        threshold: smallest overlap.

    Returns:
        (P,) int64: an object's index 0..M-1, or UNMATCHED (-1).
    """
    if len(boxes_xyxy) == 0:
        return torch.full((len(priors_cxcywh),), UNMATCHED, device=priors_cxcywh.device)
    best_overlap, best_object = iou(boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh)).max(dim=0)  # (P,) each
    return torch.where(best_overlap >= threshold, best_object, UNMATCHED)


def box_loss(offsets: Tensor, boxes_xyxy: Tensor, priors_cxcywh: Tensor, kind: BoxLoss) -> Tensor:
    """Loss of predicted boxes, summed.

    Args:
        offsets: (K, 4), predicted.
        boxes_xyxy: (K, 4), the object of each.
        priors_cxcywh: (K, 4), the prior of each.
        kind: "smooth_l1" and "l1" compare offsets, and add up the four; "giou" and "ciou" compare decoded boxes.

    Returns:
        A scalar.
    """
    if kind == "giou" or kind == "ciou":
        decoded = cxcywh_to_xyxy(decode(offsets, priors_cxcywh))
        return (giou_loss if kind == "giou" else ciou_loss)(decoded, boxes_xyxy).sum()
    wanted = encode(xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh)
    return (F.smooth_l1_loss if kind == "smooth_l1" else F.l1_loss)(offsets, wanted, reduction="sum")
