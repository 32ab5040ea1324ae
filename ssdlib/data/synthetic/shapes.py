"""Shapes and textures of the synthetic scenes: what the six classes and the unlabelled clutter look like.

Every shape is a function `(u, v, rng, light) -> (distance, colour)`. `u` and `v` are (h, w) float32
coordinates in the frame of the object, whose whole extent lies inside -1..1; `distance` is the signed distance
to its outline in the same unit (negative inside), and `colour` is (h, w, 3) RGB in 0..1. The class is in the
shape and the texture: colours are drawn from one palette for all classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]  # float32 throughout
Shape = Callable[[Array, Array, np.random.Generator, Array], tuple[Array, Array]]

# Okabe and Ito's colour-blind-safe eight (black softened to a dark grey), a near-white and a tan.
PALETTE = (
    np.array(
        [
            (230, 159, 0),
            (86, 180, 233),
            (0, 158, 115),
            (240, 228, 66),
            (0, 114, 178),
            (213, 94, 0),
            (204, 121, 167),
            (70, 70, 78),
            (236, 232, 222),
            (176, 132, 88),
        ],
        dtype=np.float32,
    )
    / 255
)


def pick_color(rng: np.random.Generator, unlike: Array | None = None) -> Array:
    """Return one jittered palette colour (3,), at least 0.2 in lightness away from `unlike`."""
    for _ in range(20):
        colour = PALETTE[rng.integers(len(PALETTE))] * rng.uniform(0.8, 1.1) + rng.uniform(-0.05, 0.05, 3)
        colour = np.clip(colour, 0, 1).astype(np.float32)
        if unlike is None or abs(float(_lightness(colour)) - float(_lightness(unlike))) > 0.2:
            break
    return colour


def _lightness(colour: Array) -> Array:
    return colour @ np.array([0.3, 0.59, 0.11], dtype=np.float32)


def _smooth(x: Array, width: float = 0.02) -> Array:
    """Soft step: 1 where `x` is well below 0, 0 well above, a ramp of 2 `width` between."""
    return np.clip(0.5 - x / (2 * width), 0, 1)


def _mix(a: Array, b: Array, t: Array) -> Array:
    """Blend two colours ((3,) or (h, w, 3)) by the weights `t` (h, w)."""
    return a + (b - a) * t[..., None]


def _shade(colour: Array, amount: Array) -> Array:
    return np.clip(colour * amount[..., None], 0, 1)


def _unit(vector: Array) -> Array:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _lens(u: Array, v: Array, a: float, b: float) -> Array:
    """Distance to a lens of half length `a` and half height `b`: two circles, intersected."""
    radius = (a * a + b * b) / (2 * b)
    return np.hypot(u, np.abs(v) + (radius - b)) - radius


def ball(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Striped ball: bands or beach-ball segments that curve with the sphere, lit, with a highlight."""
    r2 = u * u + v * v
    z = np.sqrt(np.clip(1 - r2, 0, 1))
    axis = _unit(rng.normal(size=3))
    along = axis[0] * u + axis[1] * v + axis[2] * z
    if rng.random() < 0.5:
        wave = np.sin(along * rng.uniform(7, 11) + rng.uniform(0, 6))
    else:
        side = _unit(np.cross(axis, [0.3, 0.5, 0.81]))
        other = _unit(np.cross(axis, side))
        angle = np.arctan2(side[0] * u + side[1] * v + side[2] * z, other[0] * u + other[1] * v + other[2] * z)
        wave = np.sin(3 * angle)
    first = pick_color(rng)
    colour = _mix(first, pick_color(rng, first), _smooth(wave, 0.15))
    facing = np.clip(light[0] * u + light[1] * v + light[2] * z, 0, 1)
    colour = _shade(colour, 0.45 + 0.7 * facing)
    return np.sqrt(r2) - 1, np.clip(colour + 0.6 * (facing**24)[..., None], 0, 1)


def crate(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Wooden crate: planks with grain, a frame of boards with nails, and a diagonal brace or two."""
    half_w, half_h = 0.94, 0.94 * rng.uniform(0.68, 1.0)
    dx, dy = np.abs(u) - half_w, np.abs(v) - half_h
    distance = np.maximum(dx, dy)
    planks = int(rng.integers(3, 6))
    row = (v / half_h + 1) / 2 * planks
    index = np.clip(row, 0, planks - 1e-3).astype(np.intp)
    tone = 1 + rng.uniform(-0.12, 0.12, planks).astype(np.float32)[index]
    grain = 0.05 * np.sin(38 * v + 2.5 * np.sin(3 * u + rng.uniform(0, 6)) + 1.7 * index.astype(np.float32))
    inner = tone + grain
    inner = inner * (1 - 0.55 * _smooth(np.abs(row - np.round(row)) - 0.07, 0.04))
    board = 0.17
    frame = np.maximum(dx, dy) > -board
    brace_kind = int(rng.integers(3))
    slope = half_h / half_w
    diagonal = np.abs(v - slope * u)
    if brace_kind == 1:
        diagonal = np.abs(v + slope * u)
    elif brace_kind == 2:
        diagonal = np.minimum(diagonal, np.abs(v + slope * u))
    brace = diagonal < 0.12
    boards = 1.12 + 0.05 * np.sin(31 * (u + v) + 2 * np.sin(4 * (u - v)))
    tone = np.where(frame | brace, boards, inner)
    seam = np.minimum(np.abs(distance + board), np.where(distance < -board, np.abs(diagonal - 0.12), 1))
    tone = tone * (1 - 0.5 * _smooth(seam - 0.015, 0.02))
    nail = np.hypot(np.abs(dx + board / 2), np.abs(dy + board / 2))
    tone = tone * (1 - 0.7 * _smooth(nail - 0.045, 0.02))
    tone = tone * (0.88 + 0.16 * (light[0] * u + light[1] * v))
    wood = pick_color(rng) * 0.6 + PALETTE[9] * 0.4 * rng.uniform(0.6, 1.2)
    return distance, _shade(wood.astype(np.float32), tone)


def donut(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Donut: a tilted ring, rounded by its shading, with wavy icing and sprinkles."""
    tilt = rng.uniform(0.68, 1.0)
    y = v / tilt
    r = np.hypot(u, y) + 1e-6
    thick = rng.uniform(0.28, 0.34)
    q = (r - (1 - thick)) / thick
    angle = np.arctan2(y, u)
    height = np.sqrt(np.clip(1 - q * q, 0, 1))
    icing_edge = 0.72 + 0.1 * np.sin(angle * int(rng.integers(5, 9)) + rng.uniform(0, 6))
    dough = pick_color(rng)
    icing = pick_color(rng, dough)
    colour = _mix(dough, icing, _smooth(np.abs(q) - icing_edge, 0.08))
    cells = 22
    place = (angle / (2 * np.pi) + 0.5) * cells
    cell = np.clip(place, 0, cells - 1e-3).astype(np.intp)
    middle = rng.uniform(-0.45, 0.45, cells).astype(np.float32)[cell]
    slant = rng.uniform(-1, 1, cells).astype(np.float32)[cell]
    across, radial = (place - np.floor(place) - 0.5) * 0.9, q - middle
    sprinkle = np.maximum(np.abs(across - slant * radial) - 0.13, np.abs(radial) - 0.22)
    colour = _mix(colour, pick_color(rng, icing), _smooth(sprinkle, 0.06))
    facing = np.clip((light[0] * u + light[1] * y) / r * q + light[2] * height, 0, 1)
    colour = np.clip(_shade(colour, 0.45 + 0.65 * facing) + 0.35 * (facing**20)[..., None], 0, 1)
    return (np.abs(r - (1 - thick)) - thick) * ((1 + tilt) / 2), colour


def fish(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Fish: a lens-shaped body with scales or stripes, a notched tail, fins, gill and eye."""
    height = rng.uniform(0.44, 0.58)
    body = _lens(u - 0.3, v, 0.7, height)
    spread = np.abs(v)
    tail = np.maximum(spread - 0.07 + 0.75 * (u + 0.35), np.maximum(u, 0.3 * (0.5 - spread) - 0.98 - u))
    fin = np.maximum(-v - height - 0.16 + 0.35 * np.abs(u - 0.3), np.maximum(np.abs(u - 0.25) - 0.33, v))
    distance = np.minimum(np.minimum(body, tail * 0.85), fin)
    first = pick_color(rng)
    second = pick_color(rng, first)
    if rng.random() < 0.5:
        pattern = _smooth(np.sin(u * rng.uniform(12, 16) + 3 * v * v + rng.uniform(0, 6)) - 0.1, 0.2)
    else:
        k = rng.uniform(16, 22)
        pattern = 0.7 * np.abs(np.sin(k * u + k * 0.6 * v) * np.sin(k * u - k * 0.6 * v)) ** 0.5
    colour = _mix(first, second, pattern * _smooth(u - 0.55, 0.05))
    rays = 0.75 + 0.2 * np.sin(np.arctan2(v, u + 0.2) * 30)
    colour = np.where((body > 0)[..., None], _shade(second, rays), colour)
    across = np.clip(v / height, -1, 1)
    tone = 0.8 + 0.3 * np.sqrt(1 - across * across) + 0.15 * (light[0] * u + light[1] * v)
    tone = tone * (1 - 0.35 * _smooth(np.abs(np.hypot(u - 0.85, v) - 0.42) - 0.02, 0.02) * (body < 0) * (u < 0.6))
    colour = _shade(colour, tone)
    eye = np.hypot(u - 0.7, v + 0.25 * height)
    colour = _mix(colour, np.array([0.97, 0.97, 0.95], np.float32), _smooth(eye - 0.085))
    return distance, _mix(colour, np.array([0.05, 0.05, 0.08], np.float32), _smooth(eye - 0.045))


def leaf(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Leaf: a pointed blade with a toothed edge, a midrib, side veins and a stem."""
    width = rng.uniform(0.5, 0.68)
    bend = rng.uniform(-0.12, 0.12)
    v = v + bend * (1 - u * u)
    x = u - 0.12
    teeth = rng.uniform(0, 0.03) * np.abs(np.sin(u * 22))
    blade = _lens(x, v, 0.86, width) + teeth
    stem = np.maximum(np.abs(v) - 0.035, np.maximum(-0.98 - u, u))
    distance = np.minimum(blade, stem)
    base = pick_color(rng)
    vein = pick_color(rng, base)
    step = (x - 0.75 * np.abs(v)) * rng.uniform(4.5, 6.5)
    veins = _smooth(np.abs(step - np.round(step)) - 0.08, 0.06)
    lines = np.maximum(0.75 * veins, _smooth(np.abs(v) - 0.03))
    colour = _mix(base, vein, np.where(blade < -0.02, lines, np.float32(0)))
    # The blade is folded along the midrib, so its halves catch the light differently.
    fold = 0.17 * np.sign(v) * (light[1] + 0.3) + 0.12 * (light[0] * u + light[1] * v)
    tone = 0.95 + fold + 0.1 * np.cos(step * 2 * np.pi)
    return distance, _shade(np.where((blade > 0)[..., None], base * 0.6, colour), tone)


def star(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Star: five points, bevelled into ten facets that are lit one by one."""
    sector = 2 * math.pi / 5
    inner = rng.uniform(0.42, 0.55)
    angle = np.arctan2(v, u)
    near = np.round(angle / sector) * sector
    offset = angle - near
    r = np.hypot(u, v)
    ix, iy = inner * math.cos(sector / 2), inner * math.sin(sector / 2)
    norm = math.hypot(iy, 1 - ix)
    nx, ny = iy / norm, (1 - ix) / norm
    distance = (r * np.cos(offset) - 1) * nx + r * np.abs(np.sin(offset)) * ny
    facet = near + np.sign(offset) * math.atan2(ny, nx)
    tone = 0.85 + 0.4 * (light[0] * np.cos(facet) + light[1] * np.sin(facet))
    rim = _smooth(np.abs(distance + 0.1) - 0.03, 0.03)
    base = pick_color(rng)
    colour = _mix(base, pick_color(rng, base), 0.8 * rim)
    return distance, _shade(colour, tone)


def stick(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: a thin rod with bark-like rings."""
    thick = rng.uniform(0.05, 0.11)
    distance = np.hypot(np.maximum(np.abs(u) - (0.97 - thick), 0), v) - thick
    tone = 0.8 + 0.3 * light[1] * v / thick + 0.12 * np.sin(u * 25 + rng.uniform(0, 6))
    return distance, _shade(pick_color(rng), tone)


def wedge(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: a triangle with stripes, like a slice or a pennant."""
    slope = rng.uniform(0.35, 0.6)
    distance = np.maximum((np.abs(v) - slope * (0.9 - u) / 1.8) * 0.9, np.maximum(-0.9 - u, u - 0.9))
    tone = 0.95 + 0.15 * np.sin(u * rng.uniform(6, 16)) + 0.15 * (light[0] * u + light[1] * v)
    return distance, _shade(pick_color(rng), tone)


def plus(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: a cross with a darker rim."""
    arm = rng.uniform(0.18, 0.34)
    a, b = np.abs(u), np.abs(v)
    distance = np.minimum(np.maximum(a - 0.95, b - arm), np.maximum(b - 0.95, a - arm))
    tone = np.where(distance > -0.08, np.float32(0.65), np.float32(0.95)) + 0.15 * (light[0] * u + light[1] * v)
    return distance, _shade(pick_color(rng), tone)


def pebble(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: an uneven, speckled stone."""
    flat = rng.uniform(0.5, 0.75)
    y = v / flat
    angle, r = np.arctan2(y, u), np.hypot(u, y)
    edge = 0.88 + 0.07 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))
    z = np.sqrt(np.clip(1 - (r / edge) ** 2, 0, 1))
    speckle = 0.1 * np.sin(23 * u + 5 * np.sin(17 * v)) * np.sin(19 * v + 4 * np.sin(13 * u))
    tone = 0.55 + 0.45 * np.clip(light[0] * u + light[1] * v + light[2] * z, 0, 1) + speckle
    return (r - edge) * flat, _shade(pick_color(rng) * 0.5 + 0.25, tone)


def card(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: a narrow printed card, with lines like writing."""
    half = rng.uniform(0.25, 0.42)
    distance = np.maximum(np.abs(u) - 0.92, np.abs(v) - half)
    line = np.sin(v * 26) > 0.3
    word = np.sin(u * 19 + 3 * np.round(v * 26 / (2 * np.pi))) > -0.6
    ink = line & word & (distance < -0.1)
    paper = pick_color(rng)
    colour = np.where(ink[..., None], pick_color(rng, paper), paper)
    return distance, _shade(colour, 0.92 + 0.12 * (light[0] * u + light[1] * v))


def crescent(u: Array, v: Array, rng: np.random.Generator, light: Array) -> tuple[Array, Array]:
    """Clutter: a crescent, like a rind."""
    shift = rng.uniform(0.35, 0.6)
    r = np.hypot(u, v)
    distance = np.maximum(r - 0.95, 0.85 - np.hypot(u - shift, v))
    tone = 0.8 + 0.3 * r * (light[0] * u + light[1] * v) + 0.15 * np.sin(r * 30)
    return distance, _shade(pick_color(rng), tone)


OBJECTS: dict[str, Shape] = {
    "ball": ball,
    "crate": crate,
    "donut": donut,
    "fish": fish,
    "leaf": leaf,
    "star": star,
}
CLUTTER: tuple[Shape, ...] = (stick, wedge, plus, pebble, card, crescent)
# How far each class may be turned from upright, in radians; the others may lie at any angle.
MAX_TURN = {"crate": 0.5, "fish": 0.5, "donut": 0.6, "leaf": 0.6}
