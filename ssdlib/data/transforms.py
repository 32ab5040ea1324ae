"""Transforms: from an image with its target in pixels to the network's input, with or without augmentation.

Every step is torchvision's (`torchvision.transforms.v2`); this module chooses and orders them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdlib.boxes import iou

Target = dict[str, Tensor]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]

# What zoom-out fills the canvas with: the mean colour of ImageNet, as 0..255.
FILL = (123.0, 117.0, 104.0)
# No crop, or a crop in which some object keeps at least this overlap; 2.0 cannot be reached: no crop.
CROP_OVERLAPS = [0.1, 0.3, 0.5, 0.7, 0.9, 0.0, 2.0]


class RandomIoUCrop(v2.RandomIoUCrop):
    """torchvision's crop, with all trials drawn and judged at once instead of one after the other in Python.

    The distribution is the same (tested): the first valid of `trials` candidates, where a candidate is valid if its
    aspect ratio is allowed, the centre of some object lies inside, and some of those objects overlaps the crop by the
    drawn minimum. An image without objects is not cropped.

    Source: Liu et al. (2016), section 2.2, "Data augmentation".
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a crop: top, left, height and width in pixels, and which objects stay; empty for no crop."""
        boxes = next(x for x in flat_inputs if isinstance(x, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        boxes_xyxy = boxes.as_subclass(Tensor).float()
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2  # (M, 2)
        while len(boxes_xyxy):
            min_overlap = self.options[int(torch.randint(len(self.options), ()))]
            if min_overlap >= 1:
                break
            draws = torch.rand(self.trials, 4)
            full = torch.tensor([width, height])
            size = (full * (self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2])).int()  # (T, 2)
            corner = ((full - size) * draws[:, 2:]).int()  # (T, 2)
            ratio = size[:, 0] / size[:, 1]
            crops = torch.cat((corner, corner + size), dim=1)  # (T, 4) xyxy
            inside = ((crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])).all(dim=2)  # (T, M)
            overlap = (iou(crops, boxes_xyxy) * inside).amax(dim=1)  # (T,)
            valid = (ratio >= self.min_aspect_ratio) & (ratio <= self.max_aspect_ratio) & inside.any(dim=1)
            valid &= (overlap >= min_overlap) & (size > 0).all(dim=1)
            if valid.any():
                first = int(valid.int().argmax())
                left, top, right, bottom = crops[first].tolist()
                return {
                    "top": top,
                    "left": left,
                    "height": bottom - top,
                    "width": right - left,
                    "is_within_crop_area": inside[first],
                }
        return {}


@dataclass(frozen=True)
class Augmentation:
    """How strongly the training images are varied.

    Attributes:
        color: photometric distortion (brightness, contrast, saturation, hue, channel order), each half of the time.
        zoom_out: largest side of the canvas that the image is put on, in image sides; 1 switches it off.
        zoom_out_p: how often.
        crop: smallest side of a crop, in image sides; 1 switches cropping off. A crop keeps the objects whose centres
            stay inside, and has an aspect ratio of 0.5 to 2.
        crop_p: how often.
        horizontal_flip: probability.
        vertical_flip: probability; for views from above, such as through a microscope.

    Raises:
        ValueError: if a value is out of its range; the message names it.

    Source: Liu et al. (2016), sections 2.2 and 3.6, and the original program for the smallest side of a
    crop, where the paper says [0.1, 1] of the image.
    """

    color: bool = True
    zoom_out: float = 4.0
    zoom_out_p: float = 0.5
    crop: float = 0.3
    crop_p: float = 1.0
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0

    def __post_init__(self) -> None:
        for name in ("zoom_out_p", "crop_p", "horizontal_flip", "vertical_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation: {name} is a probability, from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"augmentation: crop must be above 0 and at most 1, got {self.crop}")
        if not 1 <= self.zoom_out <= 10:  # its canvas has the square of that many pixels
            raise ValueError(f"augmentation: zoom_out must be from 1 to 10, got {self.zoom_out}")

    def steps(self) -> list[v2.Transform]:
        """The geometric transforms in their order, for an image that is a uint8 tensor, before it is resized."""
        steps: list[v2.Transform] = []
        if self.zoom_out > 1:
            steps.append(v2.RandomZoomOut(fill=FILL, side_range=(1.0, self.zoom_out), p=self.zoom_out_p))
        if self.crop < 1:
            crop = RandomIoUCrop(min_scale=self.crop, sampler_options=CROP_OVERLAPS)
            steps.append(v2.RandomApply([crop], p=self.crop_p))
        if self.horizontal_flip > 0:
            steps.append(v2.RandomHorizontalFlip(self.horizontal_flip))
        if self.vertical_flip > 0:
            steps.append(v2.RandomVerticalFlip(self.vertical_flip))
        return steps


def model_input(size: int, augmentation: Augmentation | None = None) -> Transform:
    """Make the transform from the data set to the network.

    Args:
        size: side of the square input, in pixels; the aspect ratio is not kept, as in the paper.
        augmentation: None for evaluation.

    Returns:
        A function of an image (3, H, W) uint8 and its target in pixels; it gives the image (3, size, size) float32 in
        0..1 and the target with fractional boxes. Objects that a crop made smaller than a pixel are removed. Random
        choices come from torch's global generator. It can be pickled, and so be sent to processes that load images.
    """
    steps = v2.Compose(
        [
            *(augmentation.steps() if augmentation is not None else []),
            v2.Resize([size, size], antialias=True),
            # The paper distorts colours first. On the small image it is the same change of every pixel for less work.
            *([v2.RandomPhotometricDistort()] if augmentation is not None and augmentation.color else []),
            v2.SanitizeBoundingBoxes(min_size=1.0, labels_getter=_per_object),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return _ModelInput(size, steps)


@dataclass(frozen=True)
class _ModelInput:
    """What `model_input` makes; a function inside it could not be pickled."""

    size: int
    steps: v2.Compose

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        boxes = tv_tensors.BoundingBoxes(
            target["boxes"],
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=(image.shape[-2], image.shape[-1]),
        )
        varied, changed = self.steps(tv_tensors.Image(image), {**target, "boxes": boxes})
        changed["boxes"] = changed["boxes"].as_subclass(Tensor).reshape(-1, 4) / self.size
        return varied.as_subclass(Tensor), changed


def _per_object(inputs: Any) -> tuple[Tensor, ...]:
    """The tensors of a target that have a row for each object, which leave with their box."""
    target = inputs[1]
    return tuple(target[key] for key in ("labels", "difficult") if key in target)
