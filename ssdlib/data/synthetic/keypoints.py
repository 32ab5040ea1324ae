"""Drawn scenes whose fish have keypoints: places with a name, known from how each fish was drawn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.data.synthetic.scenes import render_poses

FISH_KEYPOINTS = {
    "mouth": (0.95, 0.0),
    "eye": (0.7, -0.1275),
    "upper tail": (-0.92, -0.46),
    "lower tail": (-0.92, 0.46),
}
"""In the frame of the shape (`ssdlib.data.synthetic.shapes.fish`). They lie on every fish, however high its body is:
the eye's in the pupil, the others a little inside the tips, so that the pixel there says whether they are seen."""


def keypoint_scenes(count: int, side: int = 256, seed: int = 0) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Square scenes, and the keypoints of their fish.

    Args:
        count: number of scenes; scene i depends on the seed, the side and i only.
        side: of an image in pixels; the scenes are drawn at this size.
        seed: 0 or more; the scenes are those of `segmented_scenes` with the same seed and side.

    Returns:
        images (count, 3, side, side) uint8, and for each a dict of its M fish, often none: "boxes" (M, 4) xyxy in
        pixels, "points" (M, 4, 2) x and y in pixels, in the order of `FISH_KEYPOINTS`, and "visible" (M, 4) bool,
        whether the fish itself is seen there: nothing lies before it, and it is inside the image.

    Raises:
        ValueError: if the side is below 96 pixels, or count or seed is negative.
    """
    if side < 96 or count < 0 or seed < 0:
        raise ValueError(f"need a side of 96 or more, count and seed of 0 or more: got {side}, {count}, {seed}")
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    targets = []
    frame = np.array(list(FISH_KEYPOINTS.values()))
    for i in range(count):
        image, objects, owner, poses = render_poses(np.random.default_rng([seed, side, i]), (side, side))
        images[i] = TF.pil_to_tensor(image)
        fish = [k for k, item in enumerate(objects) if item.name == "fish"]
        points = np.array([poses[k].at(frame) for k in fish]).reshape(-1, len(frame), 2)
        column, row = np.floor(points).astype(np.int64).transpose(2, 0, 1)  # (M, 4) each
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        seen = owner[row.clip(0, side - 1), column.clip(0, side - 1)] == np.array(fish).reshape(-1, 1)
        targets.append(
            {
                "boxes": torch.tensor([objects[k].box for k in fish], dtype=torch.float32).reshape(-1, 4),
                "points": torch.from_numpy(points).float(),
                "visible": torch.from_numpy(inside & seen),
            }
        )
    return images, targets
