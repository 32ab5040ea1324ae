"""Image files: size and orientation from the header, and decoding to an RGB tensor."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_ORIENTATION = 0x0112  # the EXIF tag
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class ImageHeader(NamedTuple):
    """`stored` is (width, height) of the pixels in the file, `upright` after the EXIF rotation."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    rotated: bool  # the file asks to be rotated or mirrored


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the size and orientation of an image file without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image.
    """
    try:
        with Image.open(path) as image:
            orientation = _orientation(image)
            width, height = image.size
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
    upright = (height, width) if orientation >= 5 else (width, height)
    return ImageHeader((width, height), upright, orientation != 1)


def load_image(path: str | os.PathLike[str], upright: bool = True) -> Tensor:
    """Decode an image file to an RGB uint8 tensor (3, H, W).

    Gray, palette and CMYK images are converted, transparency is dropped, and 16 bits are cut to the upper 8.
    `upright` applies the rotation that the EXIF data ask for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image) if upright and _orientation(image) != 1 else image
            # Copied to planes by NumPy: a strided copy of this size is several times slower in torch.
            pixels = np.asarray(_to_rgb(turned)).transpose(2, 0, 1).copy()
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be decoded: {error}") from error
    return torch.from_numpy(pixels)


def _orientation(image: Image.Image) -> int:
    # Asking a PNG without EXIF data in its head for them would decode it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow opens as "I;16" or "I"
        gray = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
