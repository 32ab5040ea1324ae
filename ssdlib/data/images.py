"""Image files: size and orientation from the header, and decoding to an RGB tensor."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdlib.model import EXIF_TURNS, exif_orientation, to_rgb

_TIFF_SIZE = (0x0100, 0x0101)  # tags of the width and height
_BACK = {**EXIF_TURNS, 6: EXIF_TURNS[8], 8: EXIF_TURNS[6]}  # the other turns undo themselves
_HEAD = 2**13  # bytes of a file in which a plain JPEG says its size
_LARGE = 50_000_000  # pixels, from which on Pillow is asked, which knows what is too many
_IN_SHARD = re.compile(r"(.*\.tar)[/\\](\d{1,15})\+(\d{1,9})[/\\][^/\\]+")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")


class ImageHeader(NamedTuple):
    """`stored` is (width, height) of the pixels in the file, `upright` after the EXIF rotation."""

    stored: tuple[int, int]
    upright: tuple[int, int]
    rotated: bool  # the file asks to be rotated or mirrored


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the size and orientation of an image file without decoding it.

    Pillow reads them, but of a plain JPEG :func:`jpeg_size` does, ten times faster: a data set may have a hundred
    thousand.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an image; the message names it.
    """
    with suppress(OSError):
        size = jpeg_size(read_file(path, _HEAD))
        if size is not None:
            return ImageHeader(size, size, False)
    with _opened(path, "read as an image") as image:
        orientation = exif_orientation(image)
        width, height = image.size
        if image.format == "TIFF":  # of these, newer versions of Pillow give the size after turning
            width, height = (int(image.tag_v2[tag]) for tag in _TIFF_SIZE)  # type: ignore[attr-defined]
    upright = (height, width) if orientation >= 5 else (width, height)
    return ImageHeader((width, height), upright, orientation != 1)


def jpeg_size(head: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG, from the first bytes of its file, if they say it plainly.

    None leaves the file to Pillow: it is no JPEG, has a rotation or other data from a camera (APP1), is of a kind that
    is not for photographs, has tens of millions of pixels, is damaged, or its first scan does not begin in `head`.

    Source: ITU-T T.81 (1992), annex B.
    """
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at, size = 2, None
    while at + 10 <= len(head):
        kind, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if head[at] != 0xFF or length < 2:
            return None
        if kind == 0xDA:  # a scan: what comes now are pixels
            return size
        if kind in (0xC0, 0xC1, 0xC2) and size is None:  # a frame: baseline, extended, progressive
            bits, channels = head[at + 4], head[at + 9]
            height, width = (int.from_bytes(head[k : k + 2], "big") for k in (at + 5, at + 7))
            if bits != 8 or channels not in (1, 3, 4) or not 0 < width * height <= _LARGE:
                return None
            size = (width, height)
        elif kind not in (0xC4, 0xDB, 0xDD, 0xFE) and not (0xE0 <= kind <= 0xEF and kind != 0xE1):
            return None  # not tables, comments or the data of applications, or a second frame
        at += 2 + length
    return None


class _Place(NamedTuple):
    """Where an image lies in a shard: the tar file, the bytes before it, and its own."""

    shard: str
    start: int
    length: int


def _place(path: str | os.PathLike[str]) -> _Place | None:
    found = _IN_SHARD.fullmatch(os.fspath(path)) if ".tar" in os.fspath(path) else None
    return _Place(found[1], int(found[2]), int(found[3])) if found and os.path.isfile(found[1]) else None


def file_of(path: str) -> str:
    """The file in which an image lies: itself, or the shard of a place in one, as :func:`read_file` takes it."""
    place = _place(path)
    return path if place is None else place.shard


def file_length(path: str | os.PathLike[str]) -> int:
    """How many bytes :func:`read_file` gives."""
    place = _place(path)
    return os.stat(path).st_size if place is None else place.length


def read_file(path: str | os.PathLike[str], most: int = -1) -> bytes:
    """The bytes of an image file, or of one in a shard, such as FOLDER/train-000000.tar/1536+20480/000000012.jpg.

    The numbers are the bytes before it in the tar file, and its own. Every function that takes the path of an image
    takes such a place, too.

    Args:
        path: the file or the place.
        most: how many bytes are enough; -1 for all.

    Raises:
        OSError: the file cannot be read.
        ValueError: the shard ends before; the message names the image.
    """
    place = _place(path)
    with open(path if place is None else place.shard, "rb", buffering=0) as file:
        if place is None:
            return file.read(most)
        file.seek(place.start)
        wanted = place.length if most < 0 else min(most, place.length)
        content = file.read(wanted)
    if len(content) != wanted:
        raise ValueError(f"{path}: the shard ends before it")
    return content


def copy_file(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Copy an image file, or one out of a shard. Raises as :func:`read_file` does."""
    if _place(path) is None:
        shutil.copyfile(path, to)  # which the system may do without reading it
    else:
        with open(to, "wb") as file:
            file.write(read_file(path))


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
        source = path if _place(path) is None else io.BytesIO(read_file(path))
        with Image.open(source, formats=_formats()) as image:
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders of damaged files raise errors of nearly every kind
        raise ValueError(f"{path}: cannot be {purpose}: {str(error) or type(error).__name__}") from error


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
