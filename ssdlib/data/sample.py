"""The small committed sample of the synthetic set, wherever the package is installed."""

from __future__ import annotations

import os
from pathlib import Path

from ssdlib.data.files import cache_folder
from ssdlib.data.synthetic import make_toy_voc


def sample_root() -> Path:
    """Folder of the sample: 48 training, 16 validation and 32 test images in the VOC layout.

    In a clone of the repository this is `data/sample`. Elsewhere the same sample is drawn once, in a second or
    two, into the folder of the environment variable `SSDLIB_CACHE`, or else into `~/.cache/ssdlib`.
    """
    committed = Path(__file__).resolve().parents[2] / "data" / "sample"
    if (committed / "toy.json").is_file():
        return committed
    cache_folder().mkdir(parents=True, exist_ok=True)
    return make_sample(cache_folder() / "sample", overwrite=True)


def make_sample(root: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Draw the sample into a folder; errors as in :func:`ssdlib.data.make_toy_voc`."""
    return make_toy_voc(root, train=48, val=16, test=32, seed=7, sides=(160, 288), progress=False, overwrite=overwrite)
