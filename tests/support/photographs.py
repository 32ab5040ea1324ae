"""Sample photographs that come with packages, and the input that a network gets of them, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image
from torch import Tensor

PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "portrait")
"""Of `skimage.data` the first three: a cat, a cup, a person; and matplotlib's sample image, a person."""


def photograph(name: str) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8, RGB; skips the test where the package is missing."""
    if name == "portrait":
        return np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"))
    data = pytest.importorskip("skimage.data", reason="scikit-image, which has the sample photographs, is missing")
    return np.asarray(getattr(data, name)())


def nearest_pixels(image: np.ndarray[Any, Any], side: int) -> Tensor:
    """(3, side, side) float32 in 0..1: for each place the nearest pixel, so that no library's rounding matters."""
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in image.shape[:2])
    return torch.from_numpy(image[rows][:, columns].copy()).permute(2, 0, 1).float() / 255
