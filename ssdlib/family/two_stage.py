"""Two stages: a network that proposes regions (RPN), and a head that looks at each proposal again (Faster R-CNN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from ssdlib.backbones import Tiny
from ssdlib.boxes import xyxy_to_cxcywh
from ssdlib.detection import Detection
from ssdlib.detection import detect as detect_boxes
from ssdlib.family.sampling import Rule, stage_losses, teach
from ssdlib.loss import checked_targets
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD, PointPredictions
from ssdlib.priors import PriorRecipe, make_priors

RPN_256 = PriorRecipe(
    name="rpn-256",  # as in the paper one map, three areas and three ratios: nine priors a cell
    image_size=256,
    map_sizes=(16,),
    scales=(0.12, 0.5),
    ratios=(tuple((ratio, scale) for scale in (0.12, 0.25, 0.5) for ratio in (1.0, 2.0, 0.5)),),
)

# Ren et al. (2015), sections 3.1.2 and 3.1.3; Girshick (2015), section 2.3, who takes background from an overlap of 0.1
# on only. Here it begins at 0, as in torchvision.
FIRST_STAGE = Rule(high=0.7, low=0.3, number=256, positives=0.5)
SECOND_STAGE = Rule(high=0.5, low=0.5, number=64, positives=0.25)


class RPN(nn.Module):
    """Region proposal network: an SSD of one map and one class. A 3 x 3 convolution, then 2 + 4 numbers a prior.

    Source: Ren et al., Faster R-CNN (2015), section 3.1.
    """

    def __init__(self, channels: int, width: int, priors_per_cell: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, padding=1)
        self.offset_head = PointPredictions([width], [priors_per_cell], 4)
        self.class_head = PointPredictions([width], [priors_per_cell], 2)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """(N, channels, H, W) -> offsets (N, P, 4) and logits (N, P, 2), of background and of any object."""
        seen = self.convolution(feature_map).relu()
        return self.offset_head([seen]), self.class_head([seen])


class RoIHead(nn.Module):
    """The second stage: from the 7 x 7 numbers of each channel that a proposal covers to its box and its class.

    Source: Girshick, Fast R-CNN (2015), section 2.2; smaller, and with one box in place of one for each class.
    """

    def __init__(self, channels: int, num_classes: int, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),  # 7 x 7 -> 4 x 4
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * 16, hidden),
            nn.ReLU(),
        )
        self.offset_head = nn.Linear(hidden, 4)
        self.class_head = nn.Linear(hidden, num_classes)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """(R, channels, 7, 7) -> offsets (R, 4) from the proposals, and logits (R, num_classes)."""
        hidden = self.layers(regions)
        return self.offset_head(hidden), self.class_head(hidden)


class Outputs(NamedTuple):
    """What the two stages say of N images, with R proposals in all."""

    rpn_offsets: Tensor  # (N, P, 4)
    rpn_logits: Tensor  # (N, P, 2)
    proposals: list[Tensor]  # N of (R_i, 4) xyxy, fractional, best first
    offsets: Tensor  # (R, 4), from the proposals
    logits: Tensor  # (R, num_classes)


class TwoStage(nn.Module):
    """A small Faster R-CNN for images of 256 pixels, on the first two stages of `Tiny`, whose map has 16 x 16 cells.

    Args:
        num_classes: C, background included.
        num_proposals: at most so many of an image go to the second stage; the paper has 300, and 2000 in training.

    Raises:
        ValueError: if there is no class besides background.

    Source: Ren et al., Faster R-CNN (2015).
    """

    image_size = 256
    region_size = 7  # of the grid that RoIAlign makes of each proposal, as for VGG-16
    priors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, num_proposals: int = 100) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
        self.num_classes, self.num_proposals = num_classes, num_proposals
        self.backbone = Tiny()
        self.backbone.stages = self.backbone.stages[:2]  # the coarser maps are SSD's
        channels = self.backbone.out_channels[1]
        self.rpn = RPN(channels, 64, RPN_256.priors_per_cell[0])
        self.head = RoIHead(channels, num_classes)
        self.register_buffer("priors", make_priors(RPN_256), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        """Both stages: images (N, 3, 256, 256) with values in 0..1 -> what they say, before softmax and NMS."""
        feature_map = self.features(images)
        rpn_offsets, rpn_logits = self.rpn(feature_map)
        proposals = self.propose(rpn_offsets, rpn_logits)
        return Outputs(rpn_offsets, rpn_logits, proposals, *self.head(self.regions(feature_map, proposals)))

    def features(self, images: Tensor) -> Tensor:
        """The map that both stages share: (N, 3, 256, 256) -> (N, 128, 16, 16)."""
        return self.backbone((images - self.mean) / self.std)[-1]  # type: ignore[no-any-return]

    def propose(self, rpn_offsets: Tensor, rpn_logits: Tensor) -> list[Tensor]:
        """The best boxes of the first stage: for each image (R, 4) xyxy, fractional, best first, R = 0 is legal.

        This is SSD's detection with the priors of one map and one class. Two proposals overlap by at most 0.7. Nothing
        of it is learned from the second stage: proposals are constants to it.
        """
        found = detect_boxes(rpn_offsets, rpn_logits, self.priors, 0.0, 0.7, self.num_proposals)
        return [of_image["boxes"] for of_image in found]

    def regions(self, feature_map: Tensor, proposals: Sequence[Tensor]) -> Tensor:
        """What the proposals cover: map (N, D, H, W) and N of (R_i, 4) xyxy, fractional -> (R, D, 7, 7)."""
        numbers = feature_map.float()  # half precision has too few digits for places on the map
        side = float(numbers.shape[-1])
        return roi_align(numbers, [*proposals], self.region_size, side, sampling_ratio=2, aligned=True)

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in.

        Args:
            images: (N, 3, 256, 256) with values in 0..1.
            min_score, max_overlap, top_k: as for `ssdlib.detection.detect`, whose priors are the proposals here.

        Returns:
            One dict an image: "boxes" (K, 4) xyxy fractional, "labels" (K,) in 1..C-1, "scores" (K,), best first.
        """
        if len(images) == 0:
            return []
        found = self(images)
        counts = [len(boxes) for boxes in found.proposals]
        detections = []
        for boxes, offsets, logits in zip(
            found.proposals, found.offsets.split(counts), found.logits.split(counts), strict=True
        ):
            priors = xyxy_to_cxcywh(boxes)
            detections += detect_boxes(offsets[None], logits[None], priors, min_score, max_overlap, top_k)
        return detections


def two_stage_losses(
    model: TwoStage,
    images: Tensor,
    targets: Sequence[Mapping[str, Any]],
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The four losses of a batch: class and box of the first stage, class and box of the second.

    Both stages are trained at once ("approximate joint training"): the gradient does not go through the places of the
    proposals. The objects themselves are among the proposals, so that the second stage has positives from the first
    step on.

    Args:
        model: in training mode.
        images: (N, 3, 256, 256) with values in 0..1.
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.
        generator: of the samples, on the CPU; by default PyTorch's own, which `torch.manual_seed` sets.

    Returns:
        {"rpn_confidence", "rpn_localization", "confidence", "localization"}: scalars, float32; see `stage_losses`.

    Raises:
        ValueError: if a box is empty, swapped or not finite, or a label is out of range; the message names the image.

    Source: Ren et al. (2015), section 3.1.2; Girshick (2015), section 2.3.
    """
    boxes, labels, image = checked_targets(targets, model.num_classes, model.priors)  # (T, 4), (T,), (T,)
    objects = [(boxes[image == i], labels[image == i]) for i in range(len(targets))]
    feature_map = model.features(images)
    rpn_offsets, rpn_logits = model.rpn(feature_map)
    first = [
        teach(model.priors, own, torch.ones_like(classes), FIRST_STAGE, generator)  # one class: any object
        for own, classes in objects
    ]
    rpn_confidence, rpn_localization = stage_losses(
        torch.cat([said[lesson.chosen] for said, lesson in zip(rpn_offsets, first, strict=True)]),
        torch.cat([said[lesson.chosen] for said, lesson in zip(rpn_logits, first, strict=True)]),
        first,
    )

    proposals = [
        torch.cat((found, own)) for found, (own, _) in zip(model.propose(rpn_offsets, rpn_logits), objects, strict=True)
    ]
    second = [
        teach(xyxy_to_cxcywh(found), *wanted, SECOND_STAGE, generator)
        for found, wanted in zip(proposals, objects, strict=True)
    ]
    sample = [found[lesson.chosen] for found, lesson in zip(proposals, second, strict=True)]
    offsets, logits = model.head(model.regions(feature_map, sample))
    confidence, localization = stage_losses(offsets, logits, second)
    return {
        "rpn_confidence": rpn_confidence,
        "rpn_localization": rpn_localization,
        "confidence": confidence,
        "localization": localization,
    }
