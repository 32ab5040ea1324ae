"""Drawn scenes with a class for every pixel, for semantic segmentation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.data.synthetic.scenes import render_masks
from ssdlib.data.synthetic.shapes import OBJECTS


def segmented_scenes(count: int, side: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Square scenes, and the class of every pixel.

    Args:
        count: number of scenes; scene i depends on the seed, the side and i only.
        side: of an image in pixels; the scenes are drawn at this size, so that nothing is resized.
        seed: 0 or more.

    Returns:
        images (count, 3, side, side) uint8, and labels (count, side, side) int64: 0 for background, else the index of
        the object's class in `TOY_CLASSES` + 1.

    Raises:
        ValueError: if the side is below 96 pixels, or count or seed is negative.
    """
    if side < 96 or count < 0 or seed < 0:
        raise ValueError(f"need a side of 96 or more, count and seed of 0 or more: got {side}, {count}, {seed}")
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    labels = torch.zeros(count, side, side, dtype=torch.int64)
    names = list(OBJECTS)
    for i in range(count):
        image, objects, owner = render_masks(np.random.default_rng([seed, side, i]), (side, side))
        of_object = [0, *(names.index(item.name) + 1 for item in objects)]  # the first is nobody's
        images[i] = TF.pil_to_tensor(image)
        labels[i] = torch.tensor(of_object)[torch.from_numpy(owner.astype(np.int64)) + 1]
    return images, labels
