"""One synthetic scene: a textured background, clutter, and objects that overlap, cast shadows and are cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdlib.data.synthetic.canvas import (
    NOBODY,
    Box,
    Canvas,
    Patch,
    Pose,
    draw_background,
    draw_light,
    extent,
    finish,
    render,
)
from ssdlib.data.synthetic.shapes import CLUTTER, MAX_TURN, OBJECTS, Array

MIN_VISIBLE = 0.20  # nothing is placed where it would leave less than this of an object
DIFFICULT_BELOW = 0.45  # visible fraction under which an object is marked difficult


class SceneObject(NamedTuple):
    """One labelled object: `box` is (left, top, right, bottom) pixel edges, the right and bottom exclusive."""

    name: str
    box: Box
    visible: float
    truncated: bool
    difficult: bool


@dataclass
class _Placed:
    name: str
    box: Box
    pixels: int  # of the whole mask, beyond the border too
    seen: int  # of those, the ones in the image that nothing lies before
    truncated: bool


class _Scene(Canvas):
    """A canvas that knows what was placed on it."""

    def __init__(self, background: Array, light: Array) -> None:
        super().__init__(background, light)
        self.placed: list[_Placed] = []
        self.poses: list[Pose] = []  # of the same objects


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
    image, scene = _draw(rng, sides)
    return image, _objects(scene)


def render_masks(
    rng: np.random.Generator, sides: tuple[int, int] = (240, 480)
) -> tuple[Image.Image, list[SceneObject], npt.NDArray[np.int16]]:
    """Draw one scene, and say of every pixel whose it is.

    Args:
        rng, sides: as for `render_scene`, which draws the same scene.

    Returns:
        An RGB image, its objects, and (height, width) the index of the object that is seen at each pixel, -1 where
        there is none: background, or clutter that lies before an object.
    """
    image, scene = _draw(rng, sides)
    return image, _objects(scene), scene.owner


def render_poses(
    rng: np.random.Generator, sides: tuple[int, int] = (240, 480)
) -> tuple[Image.Image, list[SceneObject], npt.NDArray[np.int16], list[Pose]]:
    """Draw one scene, and say of every object how it lies.

    Args:
        rng, sides: as for `render_scene`, which draws the same scene.

    Returns:
        As `render_masks`, and the poses of the objects.
    """
    image, scene = _draw(rng, sides)
    return image, _objects(scene), scene.owner, scene.poses


def _draw(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[Image.Image, _Scene]:
    width, height = _draw_size(rng, sides)
    light = draw_light(rng)
    scene = _Scene(draw_background(rng, width, height), light)

    for _ in range(rng.integers(1, 6)):
        _add(scene, rng, None)
    if rng.random() > 0.08:
        names = list(OBJECTS)
        count = 1 + min(int(rng.geometric(0.32)) - 1, 6)
        for _ in range(count):
            _add(scene, rng, names[rng.integers(len(names))], crowd=count)
    for _ in range(rng.integers(0, 3)):
        _add(scene, rng, None, small=True)

    return finish(scene.rgb, rng, light), scene


def _draw_size(rng: np.random.Generator, sides: tuple[int, int]) -> tuple[int, int]:
    low, high = sides
    long = int(rng.integers(round(low + 0.4 * (high - low)), high + 1))
    short = max(low, round(long * rng.choice([1.0, 0.8, 0.75, 0.667, 0.5625])))
    return (long, short) if rng.random() < 0.6 else (short, long)


def _add(scene: _Scene, rng: np.random.Generator, name: str | None, crowd: int = 1, small: bool = False) -> None:
    """Paint one object (or clutter, if `name` is None) where it leaves every earlier object visible enough."""
    width, height = scene.size
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
        x, y = _position(scene, rng, half)
        patch = render(shape, x, y, half, turn, mirror, patch_rng, scene.light)
        if _place(scene, patch, name):
            if name is not None:
                scene.poses.append(Pose(x, y, half, turn, mirror))
            scene.paint(patch, half)
            return


def _position(scene: _Scene, rng: np.random.Generator, half: float) -> tuple[float, float]:
    width, height = scene.size
    if scene.placed and rng.random() < 0.2:  # next to an earlier object, so that some overlap
        left, top, right, bottom = scene.placed[rng.integers(len(scene.placed))].box
        reach = rng.uniform(0.6, 1.0) * (half + max(right - left, bottom - top) / 2)
        angle = rng.uniform(0, 2 * np.pi)
        x, y = (left + right) / 2 + reach * np.cos(angle), (top + bottom) / 2 + reach * np.sin(angle)
    else:
        margin = half * (-0.15 if rng.random() < 0.15 else 0.9)
        x = rng.uniform(min(margin, width / 2), max(width - margin, width / 2))
        y = rng.uniform(min(margin, height / 2), max(height - margin, height / 2))
    return float(np.clip(x, 0, width)), float(np.clip(y, 0, height))


def _place(scene: _Scene, patch: Patch, name: str | None) -> bool:
    """Claim the patch's pixels, unless that would hide an earlier object, or the patch itself, too much."""
    rows, cols, inside = scene.inside(patch)
    pixels, shown = int((patch.alpha >= 0.5).sum()), int(inside.sum())
    if name is not None and shown < 2 * MIN_VISIBLE * pixels:
        return False
    under = scene.owner[rows, cols][inside]
    left_over = [p.seen - int(lost) for p, lost in zip(scene.placed, _count(under, len(scene.placed)), strict=True)]
    if any(seen < MIN_VISIBLE * p.pixels for p, seen in zip(scene.placed, left_over, strict=True)):
        return False
    for p, seen in zip(scene.placed, left_over, strict=True):
        p.seen = seen
    scene.owner[rows, cols][inside] = len(scene.placed) if name is not None else NOBODY
    if name is not None:
        scene.placed.append(_Placed(name, extent(rows, cols, inside), pixels, shown, shown < pixels))
    return True


def _count(owners: npt.NDArray[np.int16], objects: int) -> npt.NDArray[np.intp]:
    """Number of pixels of each object among `owners`."""
    return np.bincount(owners.ravel() + 1, minlength=objects + 1)[1:]


def _objects(scene: _Scene) -> list[SceneObject]:
    shares = ((p, p.seen / p.pixels) for p in scene.placed)
    return [SceneObject(p.name, p.box, share, p.truncated, share < DIFFICULT_BELOW) for p, share in shares]
