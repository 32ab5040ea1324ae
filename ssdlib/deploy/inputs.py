"""What a detector may be given: files, folders, patterns, PIL images, arrays and tensors, each of any size."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdlib.data import load_image
from ssdlib.model import upright_rgb

PHOTOGRAPHS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
"""Endings of the files of a folder that are taken for photographs."""

VIDEOS = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"}
"""Endings of files that are taken for videos."""


def pixels_of(image: Any) -> Tensor:
    """The pixels of an image in any form: uint8 (3, H, W), RGB, upright.

    Args:
        image: a path; a PIL image of any mode; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (H, W),
            (1, H, W), (3, H, W) or (4, H, W). Arrays and tensors hold uint8, or floats in 0..1; their colours are RGB,
            and the fourth channel is transparency, which is dropped.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the file cannot be decoded, which the message names; or the values are no image.
    """
    if isinstance(image, (str, os.PathLike)):
        return load_image(image)
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, np.ndarray):
        if image.ndim == 3:
            image = image.transpose(2, 0, 1)
        image = torch.from_numpy(np.ascontiguousarray(image))
    if not isinstance(image, Tensor):
        raise ValueError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")
    if image.dim() == 2:
        image = image[None]
    if image.dim() != 3 or image.shape[0] not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(
            f"an image is an array (H, W, 3) or a tensor (3, H, W), gray or with transparency too; "
            f"got a tensor, or an array with its channels put first, of the shape {tuple(image.shape)}"
        )
    if image.is_floating_point():
        if not (image.isfinite().all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("floats in an image must be in 0..1")
        image = (image * 255).round()
    elif image.dtype != torch.uint8:
        raise ValueError(f"an image holds uint8 or floats in 0..1, not {image.dtype}")
    image = image[:3].to(torch.uint8)
    return image.expand(3, -1, -1).contiguous()


def images_in(batch: Any) -> list[Any] | None:
    """The images of a batch: of a list, or of an array or tensor of four dimensions; None if it is one image."""
    if isinstance(batch, (np.ndarray, Tensor)) and batch.ndim == 4:
        return list(batch)
    return list(batch) if isinstance(batch, (list, tuple)) else None


def files_in(places: Iterable[str | os.PathLike[str]], endings: set[str] = PHOTOGRAPHS) -> list[Path]:
    """The files that are meant by names of files, folders and patterns, each once, in order.

    Args:
        places: a name is a file; a folder, of which the photographs are taken, not those in folders below;
            or, where there is no such file, a pattern such as `photos/*.jpg` or `photos/**/*.jpg`.
        endings: of the files of a folder that are taken.

    Raises:
        ValueError: if a folder holds none, or nothing fits a pattern.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix.lower() in endings and path.is_file())
            if not inside:
                raise ValueError(f"{place} holds no photographs: {', '.join(sorted(endings))}")
        elif not place.exists() and glob.has_magic(str(place)):
            inside = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name))
            if not inside:
                raise ValueError(f"no file fits the pattern {place}")
        else:
            inside = [place]
        found |= dict.fromkeys(inside)
    return list(found)
