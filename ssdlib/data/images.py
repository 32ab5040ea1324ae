"""Image files: size and orientation from the header, and decoding to an RGB tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdlib.model import EXIF_TURNS, exif_orientation, to_rgb

_TIFF_SIZE = (0x0100, 0x0101)  # tags of the width and height
_BACK = {**EXIF_TURNS, 6: EXIF_TURNS[8], 8: EXIF_TURNS[6]}  # the other turns undo themselves
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")


class ImageHeader(NamedTuple):
    """`stored` is (width, height) of the pixels in the file, `upright` after the EXIF rotation."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    rotated: bool  # the file asks to be rotated or mirrored


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the size and orientation of an image file without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image; the message names it.
    """
    with _opened(path, "read as an image") as image:
        orientation = exif_orientation(image)
        width, height = image.size
        if image.format == "TIFF":  # of these, newer versions of Pillow give the size after turning
            width, height = (int(image.tag_v2[tag]) for tag in _TIFF_SIZE)  # type: ignore[attr-defined]
    upright = (height, width) if orientation >= 5 else (width, height)
    return ImageHeader((width, height), upright, orientation != 1)


def load_image(path: str | os.PathLike[str], upright: bool = True) -> Tensor:
    """Decode an image file to an RGB uint8 tensor (3, H, W).

    Gray, palette and CMYK images are converted, transparency is dropped, and 16 bits are cut to the upper 8. `upright`
    applies the rotation that the EXIF data ask for; data that cannot be read ask for none. The files are of the common
    formats for photographs. Others are not even tried: Pillow hands some of them to programs such as Ghostscript.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be decoded; or its pixels are floating point or 32-bit numbers, of which it does not say
            which are black and white. The message names the file.
    """
    with _opened(path, "decoded") as image:
        orientation = exif_orientation(image)
        rgb = to_rgb(image)
        if image.format == "TIFF":  # Pillow turns these itself
            rgb = rgb.transpose(_BACK[orientation]) if orientation != 1 and not upright else rgb
        elif orientation != 1 and upright:
            rgb = rgb.transpose(EXIF_TURNS[orientation])
        # Copied to planes by NumPy: a strided copy of this size is several times slower in torch.
        pixels = np.asarray(rgb).transpose(2, 0, 1).copy()
    return torch.from_numpy(pixels)


def load_thumbnail(path: str | os.PathLike[str], side: int, upright: bool = True) -> Image.Image:
    """An image file as a small RGB picture: neither side is longer than `side` pixels.

    A JPEG is decoded at a fraction of its size, which is many times faster. Raises as :func:`load_image` does.
    """
    with _opened(path, "decoded") as image:
        orientation = exif_orientation(image)
        if image.format == "JPEG":
            image.draft("RGB", (2 * side, 2 * side))
        tiff = image.format == "TIFF"  # Pillow turns these itself
        small = to_rgb(image)
        small.thumbnail((side, side))
        if orientation != 1 and upright != tiff:
            small = small.transpose((EXIF_TURNS if upright else _BACK)[orientation])
    return small


@contextmanager
def _opened(path: str | os.PathLike[str], purpose: str) -> Iterator[Image.Image]:
    """The image, its pixels not decoded yet; whatever goes wrong is a ValueError that names the file."""
    try:
        with Image.open(path, formats=_formats()) as image:
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders of damaged files raise errors of nearly every kind
        raise ValueError(f"{path}: cannot be {purpose}: {str(error) or type(error).__name__}") from error


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
