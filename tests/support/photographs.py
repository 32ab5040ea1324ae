"""The sample photographs for tests, and an input of a network made of them that is the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdlib.zoo.photographs import PHOTOGRAPHS, photograph_pixels


def photograph(name: str) -> Tensor:
    """(3, H, W) uint8, RGB; skips the test where the package that has it is missing."""
    if PHOTOGRAPHS[name][2] == "scikit-image":
        pytest.importorskip("skimage.data", reason="scikit-image, which has the sample photographs, is missing")
    return photograph_pixels(name)


def nearest_pixels(image: Tensor, side: int) -> Tensor:
    """(3, side, side) float32 in 0..1: for each place the nearest pixel, so that no library's rounding matters."""
    rows, columns = (
        torch.from_numpy(((np.arange(side) + 0.5) * length / side).astype(int)) for length in image.shape[1:]
    )
    return image[:, rows][:, :, columns].float() / 255
