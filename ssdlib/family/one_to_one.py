"""One prediction for each object: DETR's idea, on the backbone and the coding of SSD.

SSD lets many priors learn the same object and thins out afterwards. Here each object is given to one prediction alone,
to the one for which the whole image comes off cheapest, and all others learn that nothing is there, those beside it
included. A network that has learned this says each object once, and needs no NMS.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdlib.backbones import Tiny
from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import decode
from ssdlib.detection import Detection, by_image, has_area
from ssdlib.family.center_point import carry_down, way_down
from ssdlib.family.losses import giou, giou_loss, sigmoid_focal_loss
from ssdlib.loss import checked_targets
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD
from ssdlib.priors import PriorRecipe, make_priors

ONE_PER_CELL = PriorRecipe(name="one-to-one-256", image_size=256, map_sizes=(32,), scales=(0.3, 1.0), ratios=((1.0,),))
"""One square for each cell of the map, from which the box is told: 1024 predictions."""

CLASS, L1, GIOU = 2.0, 5.0, 2.0
"""What classes, sides and overlap weigh in the loss: as in DETR, classes as in Deformable DETR."""
CERTAIN, NEAR = 4.0, 4.0
"""What the probability of the class and the way to the object's centre weigh in the cost, beside sides and overlap."""
ALPHA = 0.75
"""Of the focal loss. RetinaNet's 0.25 is for dozens of positives an object; where there is one, it gets lost."""


class OneToOne(nn.Module):
    """A detector without NMS on `Tiny`: the map of `CenterPoint`, and from every cell a box and a sigmoid a class.

    Args:
        num_classes: C, background included, as for SSD, although there is no such class here.
        width: channels of the map that predicts.

    Attributes:
        priors: (P, 4) cxcywh, fractional: one in each cell. Boxes are told from them.

    Raises:
        ValueError: if there is no class of objects.

    Source: Carion et al., End-to-End Object Detection with Transformers (2020), sections 3.1 and 3.2, for the matching
    and the loss; Sun et al., What Makes for End-to-End Object Detection? (2021), for convolutions, and one map for
    objects of all sizes, in place of the transformer.
    """

    image_size = 256
    priors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background and must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self.backbone = Tiny()
        self.lateral, self.mix = way_down(width)
        self.head = nn.Conv2d(width, 4 + num_classes - 1, 1)
        with torch.no_grad():  # nothing is likely at first, as RetinaNet begins: objects are rare
            self.head.bias[:4], self.head.bias[4:] = 0.0, -math.log(99)  # type: ignore[index]
        self.register_buffer("priors", make_priors(ONE_PER_CELL), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 256, 256) in 0..1 -> offsets (N, P, 4) and logits (N, P, C-1), before the sigmoid.

        Raises:
            ValueError: if the images have another shape.
        """
        if images.dim() != 4 or images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"this network takes images (N, 3, 256, 256), got {tuple(images.shape)}")
        maps = self.backbone((images - self.mean) / self.std)
        said = self.head(self.mix(carry_down(self.lateral, maps)))  # (N, 4 + C-1, 32, 32)
        offsets, logits = said.flatten(2).transpose(1, 2).split([4, self.num_classes - 1], dim=2)
        return offsets, logits

    @torch.no_grad()
    def detect(
        self, images: Tensor, min_score: float = 0.01, max_overlap: float = 0.45, top_k: int = 200
    ) -> list[Detection]:
        """Objects of a batch of images, by the network in the mode that it is in; as `ssdlib.detection.detect`.

        `max_overlap` has no meaning here and changes nothing: there is no NMS. The best scores are the result.
        """
        offsets, logits = self(images)
        scores, classes = logits.float().sigmoid().flatten(1), logits.shape[2]
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]  # (N, K), of P * (C-1)
        scores, label, place = scores.take_along_dim(order, 1), order % classes + 1, order // classes
        chosen = offsets.float().take_along_dim(place[..., None], dim=1)  # (N, K, 4)
        boxes = cxcywh_to_xyxy(decode(chosen, self.priors[place])).clamp(0, 1)
        return by_image((scores >= min_score) & has_area(boxes), boxes, label, scores)


def matching_cost(
    boxes_cxcywh: Tensor, logits: Tensor, priors_cxcywh: Tensor, objects_cxcywh: Tensor, labels: Tensor
) -> Tensor:
    """What it costs to give each object to each prediction: a wrong box, little belief in the class, a place far off.

    What a network says changes from step to step; where its cells are does not. While boxes and classes are half
    learned, the last term keeps an object with the same few cells, so that what it taught one is not undone the next
    time.

    Args:
        boxes_cxcywh: (P, 4), predicted, fractional.
        logits: (P, C-1).
        priors_cxcywh: (P, 4), the places of the predictions.
        objects_cxcywh: (M, 4), fractional; M = 0 is legal.
        labels: (M,) int64 in 1..C-1.

    Returns:
        (M, P): -CERTAIN * P(class) + L1 * (sum of the four differences) - GIOU * GIoU + NEAR * (way from the object's
        centre to that of the prior, where the object is 1 wide and 1 high).

    Source: Carion et al. (2020), section 3.1, which says a probability in place of its logarithm so that all terms are
    of one size; Zhu et al., Deformable DETR (2021), for sigmoids; Wang et al., End-to-End Object Detection with Fully
    Convolutional Network (2021), for the place, which there has to be within the object.
    """
    chance = logits.sigmoid().T[labels - 1]  # (M, P)
    sides = torch.cdist(objects_cxcywh, boxes_cxcywh, p=1)
    overlap = giou(cxcywh_to_xyxy(objects_cxcywh)[:, None], cxcywh_to_xyxy(boxes_cxcywh)[None])
    way = (priors_cxcywh[None, :, :2] - objects_cxcywh[:, None, :2]) / objects_cxcywh[:, None, 2:]  # (M, P, 2)
    return -CERTAIN * chance + L1 * sides - GIOU * overlap + NEAR * way.norm(dim=2)


def assign(cost: Tensor) -> Tensor:
    """Give every object a prediction of its own, so that the sum of the costs is as small as can be.

    Args:
        cost: (M, P), M at most P; what is not finite counts as very dear.

    Returns:
        (M,) int64, the prediction of each object, all different.

    Raises:
        ValueError: if there are more objects than predictions, or the package scipy is not installed.

    Source: Kuhn, The Hungarian Method (1955); by scipy's `linear_sum_assignment`.
    """
    if cost.dim() != 2 or cost.shape[0] > cost.shape[1]:
        raise ValueError(f"cost must be (M, P) with M at most P, got {tuple(cost.shape)}")
    try:
        solve = importlib.import_module("scipy.optimize").linear_sum_assignment
    except ModuleNotFoundError as error:
        raise ValueError("matching one to one needs the package scipy: pip install 'ssdlib[family]'") from error
    rows, columns = solve(cost.detach().double().nan_to_num(1e9, 1e9, 1e9).cpu().numpy())
    assert (rows == range(len(cost))).all()
    return torch.as_tensor(columns, dtype=torch.int64, device=cost.device)


def assign_by_trying(cost: Tensor) -> Tensor:
    """The same by trying all ways: the version to read, and the reference of the test. It takes P! / (P - M)! trials.

    Args:
        cost: (M, P), M at most P, of a few rows and columns.

    Returns:
        (M,) int64, the first of the cheapest ways.
    """
    objects, predictions = cost.shape
    rows = cost.tolist()
    ways = itertools.permutations(range(predictions), objects)
    best = min(ways, key=lambda way: sum(rows[i][j] for i, j in enumerate(way)))
    return torch.tensor(best, dtype=torch.int64)


def one_to_one_loss(
    offsets: Tensor, logits: Tensor, targets: Sequence[Mapping[str, Tensor]], priors_cxcywh: Tensor
) -> dict[str, Tensor]:
    """Losses of a batch, each divided by the number of objects, or by 1 without any.

    Args:
        offsets: (N, P, 4), as `ssdlib.coding.decode` takes them.
        logits: (N, P, C-1).
        targets: one dict an image: "boxes" (M, 4) xyxy fractional and "labels" (M,) int64 in 1..C-1; M = 0 is legal.
        priors_cxcywh: (P, 4), fractional.

    Returns:
        {"class", "sides", "overlap"}: scalars, float32: focal loss of all predictions, and of those that have an
        object, the sum of the differences of the four numbers of its box, and 1 - GIoU.

    Raises:
        ValueError: if the shapes do not fit, a box is empty, swapped or not finite, or a label is out of range.

    Source: Carion et al. (2020), section 3.1, with the focal loss of Zhu et al. (2021).
    """
    offsets, logits = offsets.float(), logits.float()
    if not targets or offsets.shape != (len(targets), len(priors_cxcywh), 4) or logits.shape[:2] != offsets.shape[:2]:
        raise ValueError(
            f"{len(targets)} targets and {len(priors_cxcywh)} priors need offsets "
            f"({len(targets)}, {len(priors_cxcywh)}, 4) and logits of as many rows, at least one image, "
            f"got {tuple(offsets.shape)} and {tuple(logits.shape)}"
        )
    objects, labels, image = checked_targets(targets, logits.shape[2] + 1, priors_cxcywh)  # (T, 4), (T,), (T,)
    objects = xyxy_to_cxcywh(objects)
    boxes = decode(offsets, priors_cxcywh)  # (N, P, 4) cxcywh
    with torch.no_grad():
        own = [
            assign(matching_cost(boxes[i], logits[i], priors_cxcywh, objects[image == i], labels[image == i]))
            for i in range(len(targets))
        ]
    prediction = torch.cat(own)  # (T,), in the order of `objects`: image by image
    right = torch.zeros_like(logits)
    right[image, prediction, labels - 1] = 1
    matched = boxes[image, prediction]
    sums = {
        "class": CLASS * sigmoid_focal_loss(logits, right, ALPHA).sum(),
        "sides": L1 * F.l1_loss(matched, objects, reduction="sum"),
        "overlap": GIOU * giou_loss(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(objects)).sum(),
    }
    return {name: total / max(len(objects), 1) for name, total in sums.items()}


def one_to_one_losses(model: OneToOne, images: Tensor, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The losses of a network's predictions for a batch, as `ssdlib.training.training_loop` asks for them."""
    offsets, logits = model(images)
    return one_to_one_loss(offsets, logits, targets, model.priors)
