"""Drawn scenes that move: short clips in which every object has a number, for trackers to be measured on.

What is hard for a tracker is drawn on purpose: two of one class that cross, one that goes behind something, one that
leaves while another comes. The objects, the light and the painting are those of `ssdlib.data.synthetic.scenes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssdlib.data.synthetic.canvas import Canvas, Patch, draw_background, draw_light, extent, finish, render
from ssdlib.data.synthetic.scenes import DIFFICULT_BELOW, MIN_VISIBLE, SceneObject
from ssdlib.data.synthetic.shapes import OBJECTS, card, pebble

SCREENS = (pebble, card)  # of the clutter, what has no holes and is not thin


class MovingObject(NamedTuple):
    """An object of a frame: its number in the clip, from 1, and what a scene says of it."""

    number: int
    seen: SceneObject


@dataclass(frozen=True)
class Mover:
    """Something that moves through a clip at a constant speed.

    Attributes:
        name: of `OBJECTS`; None is clutter, which is not labelled and may hide others.
        start, end: its centre in the first and in the last frame, in fractions of the image, which may lie outside.
        size: its radius as a share of the shorter side.
    """

    name: str | None
    start: tuple[float, float]
    end: tuple[float, float]
    size: float


def crossing(rng: np.random.Generator) -> list[Mover]:
    """Two of one class pass each other, one before the other; a third, of another class, goes its own way."""
    name, other = rng.choice(list(OBJECTS), 2, replace=False)
    y, size = rng.uniform(0.35, 0.5), rng.uniform(0.12, 0.15)
    shift = rng.uniform(0.05, 0.1)
    return [
        Mover(str(other), (0.5, 0.85), (rng.uniform(0.2, 0.8), 0.8), 0.1),
        Mover(str(name), (0.15, y), (0.85, y + shift), size),
        Mover(str(name), (0.85, y + shift), (0.15, y), size),
    ]


def occlusion(rng: np.random.Generator) -> list[Mover]:
    """One goes behind something that stands there, is not to be seen for a while, and comes out on the other side."""
    first, second = rng.choice(list(OBJECTS), 2)
    y = rng.uniform(0.3, 0.4)
    return [
        Mover(str(first), (0.12, y), (0.88, y), rng.uniform(0.1, 0.12)),
        Mover(str(second), (0.85, 0.8), (0.15, 0.75), 0.12),
        Mover(None, (0.5, y), (0.5, y), 0.24),
    ]


def leaving(rng: np.random.Generator) -> list[Mover]:
    """One leaves the image on the right while one of its class comes from the left; a third hardly moves."""
    name, other = rng.choice(list(OBJECTS), 2, replace=False)
    y, size = rng.uniform(0.25, 0.4), rng.uniform(0.11, 0.14)
    return [
        Mover(str(other), (0.4, 0.8), (0.5, 0.78), 0.13),
        Mover(str(name), (0.6, y), (1.6, y), size),
        Mover(str(name), (-0.6, y + 0.05), (0.5, y), size),
    ]


SITUATIONS: dict[str, Callable[[np.random.Generator], list[Mover]]] = {
    "crossing": crossing,
    "occlusion": occlusion,
    "leaving": leaving,
}
"""What happens in a clip, by name."""


def render_clip(
    situation: str, seed: int, frames: int = 60, size: tuple[int, int] = (320, 320)
) -> Iterator[tuple[Image.Image, list[MovingObject]]]:
    """Draw a clip, frame by frame.

    Args:
        situation: of `SITUATIONS`.
        seed: the clip depends on these four arguments only.
        frames: at least 2.
        size: width and height in pixels, at least 96 each.

    Yields:
        An RGB image and its objects, those behind first. An object that is hidden, or outside, to more than 80 % is not
        among the objects of the frame; when it comes back it has the number that it had.

    Raises:
        ValueError: if there is no such situation, or a number is out of range.
    """
    if situation not in SITUATIONS:
        raise ValueError(f"no situation {situation!r}; there are {', '.join(SITUATIONS)}")
    if frames < 2 or min(size) < 96:
        raise ValueError(f"a clip has at least 2 frames of at least 96 x 96 pixels, got {frames} of {size}")
    rng = np.random.default_rng([seed, list(SITUATIONS).index(situation)])
    movers = SITUATIONS[situation](rng)
    light = draw_light(rng)
    background = draw_background(rng, *size)
    turns, seeds = rng.uniform(-0.3, 0.3, len(movers)), rng.integers(2**31, size=len(movers) + 2)
    for frame in range(frames):
        canvas = Canvas(background.copy(), light)
        patches = []
        for mover, turn, own in zip(movers, turns, seeds, strict=False):
            shape = SCREENS[seeds[-2] % len(SCREENS)] if mover.name is None else OBJECTS[mover.name]
            share = frame / (frames - 1)
            x, y = (
                side * (begin + share * (end - begin))
                for side, begin, end in zip(size, mover.start, mover.end, strict=True)
            )
            half = mover.size * min(size)
            # Its own generator, begun anew: the colours of an object are the same in each frame.
            patch = render(shape, x, y, half, float(turn), False, np.random.default_rng(own), light)
            canvas.paint(patch, half)
            patches.append(patch)
        yield finish(canvas.rgb, np.random.default_rng(seeds[-1]), light), _objects(canvas, movers, patches)


def _objects(canvas: Canvas, movers: list[Mover], patches: list[Patch]) -> list[MovingObject]:
    """What is to be seen of each mover that has a name; the later ones lie before the earlier."""
    for index, patch in enumerate(patches):
        rows, columns, inside = canvas.inside(patch)
        canvas.owner[rows, columns][inside] = index
    found = []
    for index, (mover, patch) in enumerate(zip(movers, patches, strict=True)):
        rows, columns, inside = canvas.inside(patch)
        pixels = (patch.alpha >= 0.5).sum()
        share = float((canvas.owner[rows, columns][inside] == index).sum() / pixels)
        if mover.name is None or share < MIN_VISIBLE:
            continue
        cut = bool(inside.sum() < pixels)
        seen = SceneObject(mover.name, extent(rows, columns, inside), share, cut, share < DIFFICULT_BELOW)
        found.append(MovingObject(1 + sum(m.name is not None for m in movers[:index]), seen))
    return found
