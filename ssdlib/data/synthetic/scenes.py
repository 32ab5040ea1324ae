"""One synthetic scene: a textured background, clutter, and objects that overlap, cast shadows and are cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ssdlib.data.synthetic.shapes import CLUTTER, MAX_TURN, OBJECTS, Array, Shape, pick_color

MIN_VISIBLE = 0.20  # nothing is placed where it would leave less than this of an object
DIFFICULT_BELOW = 0.45  # visible fraction under which an object is marked difficult
_NOBODY = -1  # owner of a pixel that belongs to no object


class SceneObject(NamedTuple):
    """One labelled object: `box` is (left, top, right, bottom) pixel edges, the right and bottom exclusive."""

    name: str
    box: tuple[int, int, int, int]
    visible: float
    truncated: bool
    difficult: bool


@dataclass
class _Placed:
    name: str
    box: tuple[int, int, int, int]
    pixels: int  # of the whole mask, beyond the border too
    seen: int  # of those, the ones in the image that nothing lies before
    truncated: bool


class _Patch(NamedTuple):
    """A rendered shape: `alpha` (h, w) and `colour` (h, w, 3), with its top left corner in the image."""

    alpha: Array
    colour: Array
    left: int
    top: int


@dataclass
class _Canvas:
    rgb: Array
    owner: npt.NDArray[np.int16]
    light: Array
    placed: list[_Placed] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.rgb.shape[1], self.rgb.shape[0]


def render_scene(
    rng: np.random.Generator, sides: tuple[int, int] = (240, 480)
) -> tuple[Image.Image, list[SceneObject]]:
    """Draw one scene.

    Args:
        rng: the only source of randomness.
        sides: shortest and longest side of the image, in pixels.

    Returns:
        An RGB image and its objects, in the order of painting. A box is the tight extent of the object's whole mask,
        as if nothing lay before it, clipped to the image. The visible fraction is exact: pixels of the mask that are
        still to be seen, divided by all pixels of the mask (those beyond the border of the image included).
    """
    width, height = _draw_size(rng, sides)
    azimuth = rng.uniform(0, 2 * np.pi)
    light = np.array([0.62 * np.cos(azimuth), 0.62 * np.sin(azimuth), 0.78], np.float32)
    canvas = _Canvas(_background(rng, width, height), np.full((height, width), _NOBODY, np.int16), light)

    for _ in range(rng.integers(1, 6)):
        _add(canvas, rng, None)
    if rng.random() > 0.08:
        names = list(OBJECTS)
        count = 1 + min(int(rng.geometric(0.32)) - 1, 6)
        for _ in range(count):
            _add(canvas, rng, names[rng.integers(len(names))], crowd=count)
    for _ in range(rng.integers(0, 3)):
        _add(canvas, rng, None, small=True)

    return _finish(canvas.rgb, rng, light), _objects(canvas)


def _draw_size(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int]:
    low, high = sides
    long = int(rng.integers(round(low + 0.4 * (high - low)), high + 1))
    short = max(low, round(long * rng.choice([1.0, 0.8, 0.75, 0.667, 0.5625])))
    return (long, short) if rng.random() < 0.6 else (short, long)


def _noise(rng: np.random.Generator, width: int, height: int, cells_x: float, cells_y: float) -> Array:
    """Smooth random field (height, width) in about -1..1 with so many bumps across and down."""
    grid = rng.uniform(0, 255, (max(2, round(cells_y)), max(2, round(cells_x)))).astype(np.float32)
    smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth) / 127.5 - 1


def _background(rng: np.random.Generator, width: int, height: int) -> Array:
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


def _add(canvas: _Canvas, rng: np.random.Generator, name: str | None, crowd: int = 1, small: bool = False) -> None:
    """Paint one object (or clutter, if `name` is None) where it leaves every earlier object visible enough."""
    width, height = canvas.size
    if name is None:
        shape = CLUTTER[rng.integers(len(CLUTTER))]
        side = rng.uniform(0.06, 0.14 if small else 0.3)
        turn = rng.uniform(0, 2 * np.pi)
    else:
        shape = OBJECTS[name]
        side = math.exp(rng.uniform(math.log(0.24), math.log(0.7 if crowd < 4 else 0.45)))
        limit = MAX_TURN.get(name, np.pi)
        turn = rng.uniform(-limit, limit)
    half = max(6.0, side * min(width, height) / 2)
    mirror = rng.random() < 0.5
    patch_rng = np.random.default_rng(rng.integers(2**63))
    for _ in range(6):
        x, y = _position(canvas, rng, half)
        patch = _render(shape, x, y, half, turn, mirror, patch_rng, canvas.light)
        if _place(canvas, patch, name):
            _paint(canvas, patch, half)
            return


def _position(canvas: _Canvas, rng: np.random.Generator, half: float) -> tuple[float, float]:
    width, height = canvas.size
    if canvas.placed and rng.random() < 0.2:  # next to an earlier object, so that some overlap
        left, top, right, bottom = canvas.placed[rng.integers(len(canvas.placed))].box
        reach = rng.uniform(0.6, 1.0) * (half + max(right - left, bottom - top) / 2)
        angle = rng.uniform(0, 2 * np.pi)
        x, y = (left + right) / 2 + reach * np.cos(angle), (top + bottom) / 2 + reach * np.sin(angle)
    else:
        margin = half * (-0.15 if rng.random() < 0.15 else 0.9)
        x = rng.uniform(min(margin, width / 2), max(width - margin, width / 2))
        y = rng.uniform(min(margin, height / 2), max(height - margin, height / 2))
    return float(np.clip(x, 0, width)), float(np.clip(y, 0, height))


def _render(
    shape: Shape, x: float, y: float, half: float, turn: float, mirror: bool, rng: np.random.Generator, light: Array
) -> _Patch:
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
    return _Patch(alpha[r0:r1, c0:c1], colour[r0:r1, c0:c1], left + int(c0), top + int(r0))


def _window(canvas: _Canvas, patch: _Patch) -> tuple[slice, slice, slice, slice]:
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


def _place(canvas: _Canvas, patch: _Patch, name: str | None) -> bool:
    """Claim the patch's pixels, unless that would hide an earlier object, or the patch itself, too much."""
    rows, cols, patch_rows, patch_cols = _window(canvas, patch)
    whole = patch.alpha >= 0.5
    inside = whole[patch_rows, patch_cols]
    pixels, shown = int(whole.sum()), int(inside.sum())
    if name is not None and shown < 2 * MIN_VISIBLE * pixels:
        return False
    under = canvas.owner[rows, cols][inside]
    left_over = [p.seen - int(lost) for p, lost in zip(canvas.placed, _count(under, len(canvas.placed)), strict=True)]
    if any(seen < MIN_VISIBLE * p.pixels for p, seen in zip(canvas.placed, left_over, strict=True)):
        return False
    for p, seen in zip(canvas.placed, left_over, strict=True):
        p.seen = seen
    canvas.owner[rows, cols][inside] = len(canvas.placed) if name is not None else _NOBODY
    if name is not None:
        ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (
            int(cols.start + xs[0]),
            int(rows.start + ys[0]),
            int(cols.start + xs[-1] + 1),
            int(rows.start + ys[-1] + 1),
        )
        canvas.placed.append(_Placed(name, box, pixels, shown, shown < pixels))
    return True


def _count(owners: npt.NDArray[np.int16], objects: int) -> npt.NDArray[np.intp]:
    """Number of pixels of each object among `owners`."""
    return np.bincount(owners.ravel() + 1, minlength=objects + 1)[1:]


def _paint(canvas: _Canvas, patch: _Patch, half: float) -> None:
    """Cast a soft shadow away from the light, then lay the patch over the image."""
    pad = max(2, round(half * 0.3))
    blur = Image.fromarray(np.pad((patch.alpha * 255).astype(np.uint8), pad)).filter(ImageFilter.BoxBlur(pad * 0.4))
    dx, dy = (round(float(-c * half * 0.25)) for c in canvas.light[:2])
    shadow = _Patch(np.asarray(blur, dtype=np.float32) / 255, patch.colour, patch.left - pad + dx, patch.top - pad + dy)
    rows, cols, patch_rows, patch_cols = _window(canvas, shadow)
    canvas.rgb[rows, cols] *= 1 - 0.5 * shadow.alpha[patch_rows, patch_cols, None]
    rows, cols, patch_rows, patch_cols = _window(canvas, patch)
    view = canvas.rgb[rows, cols]
    view += (patch.colour[patch_rows, patch_cols] - view) * patch.alpha[patch_rows, patch_cols, None]


def _finish(rgb: Array, rng: np.random.Generator, light: Array) -> Image.Image:
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


def _objects(canvas: _Canvas) -> list[SceneObject]:
    shares = ((p, p.seen / p.pixels) for p in canvas.placed)
    return [SceneObject(p.name, p.box, share, p.truncated, share < DIFFICULT_BELOW) for p, share in shares]
