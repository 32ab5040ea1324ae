"""Videos, frame by frame: read, and written again with the times that they had; as little in memory as a few frames."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdlib.deploy.extras import require

H264, FALLBACK = "libx264", "mpeg4"
_TICKS = 90_000  # of a second: what times of frames are rounded to


STDIN, CAMERA = "-", "camera:"
"""Names that are no files: what is piped in, and how those of cameras begin, as in "camera:0"."""

CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}
"""For each system, the format that PyAV reads cameras in, and how it names them: Windows by the name of the device."""


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a video has no end that is known: what is piped in, and cameras."""
    return os.fspath(path) == STDIN or os.fspath(path).startswith(CAMERA)


class Frame(NamedTuple):
    """A frame of a video: its number from 0, its time in seconds, and its pixels, uint8 (3, H, W), RGB, upright."""

    number: int
    time: float
    pixels: Tensor


class Video:
    """A video, to be read once, from its beginning to its end.

    Sound is left out, and frames keep their own times, which need not be equally far apart.

    Args:
        path: the file; "-" is what is piped in (MPEG-TS, Matroska, or MP4 with its index in front), and "camera:0" the
            first camera.

    Attributes:
        rate: frames a second, on the average.
        expected: the number of frames, as the file states it; 0 where it does not.
        problem: why reading ended early; None if it did not.
        stop: set it to end after the next frame.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no video that can be read, which names it; or the package av is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._av = require("av", "video")
        self.path = os.fspath(path)
        source, options = _source(self.path)
        try:
            self._container = self._av.open(source, **options)
            self._stream = self._container.streams.video[0]
        except (self._av.FFmpegError, IndexError) as error:
            reason = "it has no pictures" if isinstance(error, IndexError) else error
            raise ValueError(f"{path}: cannot be read as a video: {reason}") from error
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or Fraction(25)
        self.expected: int = self._stream.frames
        self.problem: str | None = None
        self.stop = False

    def __iter__(self) -> Iterator[Frame]:
        """The frames, one after the other; of a file that is cut off, those that are there."""
        number, last = 0, -1.0
        try:
            for frame in self._container.decode(self._stream):
                # A file may leave out times: then frames follow each other at the rate.
                moment = frame.time if frame.time is not None else last + float(1 / self.rate)
                last = max(moment, last)
                yield Frame(number, last, self._upright(frame))
                number += 1
                if self.stop:
                    return
        except self._av.FFmpegError as error:
            self.problem = f"{self.path}: cannot be read after frame {number}: {error}"
        finally:
            self._container.close()
        if self.problem is None and number < self.expected:
            self.problem = f"{self.path}: ends after {number} of {self.expected} frames"

    @staticmethod
    def _upright(frame: Any) -> Tensor:
        pixels = frame.to_ndarray(format="rgb24")
        turns = round(getattr(frame, "rotation", 0) / 90) % 4  # quarters, against the clock
        return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, turns).transpose(2, 0, 1)))


def _source(path: str) -> tuple[Any, dict[str, Any]]:
    """What PyAV opens, and its options.

    Raises:
        FileNotFoundError: if there is no such file or camera.
        ValueError: if cameras cannot be read on this system.
    """
    if path == STDIN:
        return sys.stdin.buffer, {}
    if not path.startswith(CAMERA):
        if not Path(path).exists():
            raise FileNotFoundError(f"no video at {path}")
        return path, {}
    if sys.platform not in CAMERAS:
        raise ValueError(f"{path}: cameras cannot be read on {sys.platform}")
    kind, name = CAMERAS[sys.platform]
    device = name.format(path.removeprefix(CAMERA))
    if device.startswith("/dev/") and not Path(device).exists():
        raise FileNotFoundError(f"{path}: there is no {device}")
    return device, {"format": kind}


class VideoWriter:
    """A video file that is written frame by frame: H.264 where the library has it, and else MPEG-4.

    Args:
        path: the file, with the ending of a container such as .mp4.
        rate: frames a second, on the average; each frame has its own time nevertheless.
    """

    def __init__(self, path: str | os.PathLike[str], rate: Fraction) -> None:
        self._av = require("av", "video")
        self._container = self._av.open(os.fspath(path), "w")
        self.codec = H264 if H264 in self._av.codecs_available else FALLBACK
        self._stream = self._container.add_stream(self.codec, rate=rate)
        self._stream.pix_fmt = "yuv420p"  # what every player shows
        self._stream.codec_context.time_base = Fraction(1, _TICKS) if self.codec == H264 else 1 / rate
        self._last = -1
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None and self._size is not None:
            self._container.mux(self._stream.encode())
        self._container.close()

    def write(self, image: Image.Image, time: float) -> None:
        """Add a frame.

        Args:
            image: RGB; all of one size, of which an odd last row or column is left out, as the format has it.
            time: in seconds, after that of the frame before.
        """
        if self._size is None:
            self._size = (max(2, image.width // 2 * 2), max(2, image.height // 2 * 2))
            self._stream.width, self._stream.height = self._size
        frame = self._av.VideoFrame.from_ndarray(np.asarray(image.crop((0, 0, *self._size))), format="rgb24")
        base = self._stream.codec_context.time_base
        self._last = frame.pts = max(self._last + 1, round(time / base))
        frame.time_base = base
        self._container.mux(self._stream.encode(frame))
