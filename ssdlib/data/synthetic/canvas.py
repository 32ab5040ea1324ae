"""The board of a drawn scene: background, light and shadow, and for every pixel the object that is seen there.

What is painted, and where, is decided by `ssdlib.data.synthetic.scenes` and `ssdlib.data.synthetic.motion`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ssdlib.data.synthetic.shapes import Array, Shape, pick_color

NOBODY = -1  # owner of a pixel that belongs to no object

Box = tuple[int, int, int, int]  # (left, top, right, bottom) pixel edges, the right and bottom exclusive
Mask = npt.NDArray[np.bool_]


class Patch(NamedTuple):
    """A rendered shape: `alpha` (h, w) and `colour` (h, w, 3), with its top left corner in the image."""

    alpha: Array
    colour: Array
    left: int
    top: int


class Pose(NamedTuple):
    """How a shape lies in the image, as `render` draws it: centre and radius in pixels, angle, and whether mirrored."""

    x: float
    y: float
    half: float
    turn: float
    mirror: bool

    def at(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(K, 2) points in the frame of the shape -> (K, 2) in pixels of the image."""
        u = -points[:, 0] if self.mirror else points[:, 0]
        v, cos, sin = points[:, 1], math.cos(self.turn), math.sin(self.turn)
        return np.stack((self.x + self.half * (cos * u - sin * v), self.y + self.half * (sin * u + cos * v)), axis=1)


class Canvas:
    """A picture in the making.

    Args:
        background: (H, W, 3), which is painted over.
        light: (3,), where it comes from.

    Attributes:
        rgb: (H, W, 3) float, before uneven light and noise.
        owner: (H, W) the index of the object that is seen at each pixel, or `NOBODY`; whoever places objects sets it.
    """

    def __init__(self, background: Array, light: Array) -> None:
        self.rgb, self.light = background, light
        self.owner: npt.NDArray[np.int16] = np.full(background.shape[:2], NOBODY, np.int16)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def inside(self, patch: Patch) -> tuple[slice, slice, Mask]:
        """Rows and columns of the image that a patch covers, and which of their pixels its shape fills."""
        rows, columns, own_rows, own_columns = _window(self, patch)
        return rows, columns, patch.alpha[own_rows, own_columns] >= 0.5

    def paint(self, patch: Patch, half: float) -> None:
        """Cast a soft shadow away from the light, then lay the patch over the image.

        Args:
            half: the radius of the shape in pixels, to which the shadow is in proportion.
        """
        pad = max(2, round(half * 0.3))
        blur = Image.fromarray(np.pad((patch.alpha * 255).astype(np.uint8), pad)).filter(ImageFilter.BoxBlur(pad * 0.4))
        dx, dy = (round(float(-c * half * 0.25)) for c in self.light[:2])
        shadow = Patch(
            np.asarray(blur, dtype=np.float32) / 255, patch.colour, patch.left - pad + dx, patch.top - pad + dy
        )
        rows, cols, patch_rows, patch_cols = _window(self, shadow)
        self.rgb[rows, cols] *= 1 - 0.5 * shadow.alpha[patch_rows, patch_cols, None]
        rows, cols, patch_rows, patch_cols = _window(self, patch)
        view = self.rgb[rows, cols]
        view += (patch.colour[patch_rows, patch_cols] - view) * patch.alpha[patch_rows, patch_cols, None]


def extent(rows: slice, columns: slice, inside: Mask) -> Box:
    """The tight box of the pixels of a shape that lie in the image (see `Canvas.inside`; there must be one)."""
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return (
        int(columns.start + xs[0]),
        int(rows.start + ys[0]),
        int(columns.start + xs[-1] + 1),
        int(rows.start + ys[-1] + 1),
    )


def draw_light(rng: np.random.Generator) -> Array:
    """Light from a random side, always from the same height."""
    azimuth = rng.uniform(0, 2 * np.pi)
    return np.array([0.62 * np.cos(azimuth), 0.62 * np.sin(azimuth), 0.78], np.float32)


def draw_background(rng: np.random.Generator, width: int, height: int) -> Array:
    """One of six: clouds, boards, tiles, gravel, cloth or marble, in two dull colours; (height, width, 3)."""
    first, second = (pick_color(rng) for _ in range(2))
    grey = rng.uniform(0.25, 0.75)
    first, second = (c * 0.45 + grey * 0.55 for c in (first, second))
    x = np.arange(width, dtype=np.float32)[None, :] / max(width, height)
    y = np.arange(height, dtype=np.float32)[:, None] / max(width, height)
    turn = rng.uniform(0, np.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    along, across = cos * x + sin * y, cos * y - sin * x
    coarse = _noise(rng, width, height, 4 * width / height + 1, 5)
    kind = rng.integers(6)
    fine = _noise(rng, width, height, width / 2.6, height / 2.6)
    tone = 1 + 0.05 * fine
    if kind == 0:  # sky or wall: a gradient with clouds
        blend = along + 0.25 * coarse + 0.1 * _noise(rng, width, height, 14, 12)
    elif kind == 1:  # floor boards
        boards = along * rng.uniform(4, 9)
        index = np.floor(boards)
        grain = (
            _noise(rng, width, height, width / 4, 4) if abs(cos) < 0.7 else _noise(rng, width, height, 4, height / 4)
        )
        blend = 0.4 + 0.25 * np.sin(index * 12.9898) + 0.2 * grain
        tone = tone * np.where(boards - index < 0.05, np.float32(0.65), np.float32(1))
    elif kind == 2:  # tiles with joints
        n = rng.uniform(3, 8)
        i, j = along * n, across * n
        blend = 0.4 + 0.3 * np.sin(np.floor(i) * 7.1 + np.floor(j) * 3.7) + 0.15 * coarse
        joint = np.minimum(i - np.floor(i), j - np.floor(j)) < 0.06
        tone = tone * np.where(joint, np.float32(0.7 if rng.random() < 0.5 else 1.25), np.float32(1))
    elif kind == 3:  # grass or gravel: noise of several sizes
        blend = 0.5 + 0.3 * fine + 0.2 * coarse + 0.4 * _noise(rng, width, height, width / 11, height / 11)
    elif kind == 4:  # cloth: a weave with broad stripes
        weave = np.sin(along * rng.uniform(150, 260)) * np.sin(across * rng.uniform(150, 260))
        blend = 0.5 + 0.4 * np.sin(along * rng.uniform(8, 30)) * (0.4 if rng.random() < 0.5 else 1.0) + 0.1 * coarse
        tone = tone + 0.07 * weave
    else:  # marble: veins bent by noise
        blend = 0.5 + 0.4 * np.sin(along * rng.uniform(8, 16) + 3 * coarse + 0.2 * fine)
    return (first + (second - first) * np.clip(blend, 0, 1)[..., None]) * tone[..., None]


def render(
    shape: Shape, x: float, y: float, half: float, turn: float, mirror: bool, rng: np.random.Generator, light: Array
) -> Patch:
    """A shape as a patch of the image.

    Args:
        shape: of `ssdlib.data.synthetic.shapes`.
        x, y: its centre in pixels.
        half: its radius in pixels.
        turn: angle in radians.
        mirror: whether left and right are swapped.
        rng: for its colours and details.
        light: as of `draw_light`.
    """
    left, top = math.floor(x - half * 1.42) - 1, math.floor(y - half * 1.42) - 1
    side = math.ceil(half * 2.84) + 3
    px = (np.arange(left, left + side, dtype=np.float32) + (0.5 - x))[None, :] / half
    py = (np.arange(top, top + side, dtype=np.float32) + (0.5 - y))[:, None] / half
    cos, sin, flip = math.cos(turn), math.sin(turn), -1 if mirror else 1
    # The light stays fixed in the image, so it is turned into the frame of the object.
    own_light = np.array(
        [flip * (cos * light[0] + sin * light[1]), cos * light[1] - sin * light[0], light[2]], np.float32
    )
    distance, colour = shape(flip * (cos * px + sin * py), cos * py - sin * px, rng, own_light)
    alpha = np.clip(0.5 - distance * half, 0, 1)
    rows, cols = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    r0, r1, c0, c1 = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
    return Patch(alpha[r0:r1, c0:c1], colour[r0:r1, c0:c1], left + int(c0), top + int(r0))


def _window(canvas: Canvas, patch: Patch) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the image that the patch covers, then the same in the patch."""
    width, height = canvas.size
    h, w = patch.alpha.shape
    x0, x1 = max(patch.left, 0), min(patch.left + w, width)
    y0, y1 = max(patch.top, 0), min(patch.top + h, height)
    if x0 >= x1 or y0 >= y1:
        return slice(0, 0), slice(0, 0), slice(0, 0), slice(0, 0)
    return (
        slice(y0, y1),
        slice(x0, x1),
        slice(y0 - patch.top, y1 - patch.top),
        slice(x0 - patch.left, x1 - patch.left),
    )


def finish(rgb: Array, rng: np.random.Generator, light: Array) -> Image.Image:
    """Uneven lighting, a tint, slight blur now and then, and sensor noise."""
    height, width = rgb.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    exposure = rng.uniform(0.75, 1.2) * (1 + rng.uniform(0.05, 0.3) * (light[0] * x + light[1] * y))
    exposure = exposure * (1 - rng.uniform(0, 0.15) * (x * x + y * y))
    tint = 1 + rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.uniform(1, 5))
    pixels = rgb * (exposure[..., None] * (255 * tint)) + grain[..., None]
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.0)))
    return image


def _noise(rng: np.random.Generator, width: int, height: int, cells_x: float, cells_y: float) -> Array:
    """Smooth random field (height, width) in about -1..1 with so many bumps across and down."""
    grid = rng.uniform(0, 255, (max(2, round(cells_y)), max(2, round(cells_x)))).astype(np.float32)
    smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth) / 127.5 - 1
