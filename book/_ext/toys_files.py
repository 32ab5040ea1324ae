"""What the tray of toys is made of: pictures of the toys and their board, the network's weights, and a still picture.

The toys are those of the scenes that the network was trained on (`ssdlib.data.synthetic`), each drawn once, upright. A
toy is turned and put on the board by the arithmetic of `put_toys`, which book/toys/board.mjs has, too: the network
sees the board's pixels, and these are the same here and in every browser.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from ssdlib.data.synthetic import TOY_CLASSES
from ssdlib.data.synthetic.canvas import draw_background
from ssdlib.data.synthetic.shapes import OBJECTS
from ssdlib.model import SSD
from ssdlib.plotting import draw_on_image
from ssdlib.zoo.checkpoint import demo_model

Pixels = npt.NDArray[np.uint8]

BOARD = 512  # pixels of a side
BACKGROUND = 17  # seed of the board: dark boards of wood
SEEDS = {
    "ball": 1,
    "crate": 0,
    "donut": 4,
    "fish": 0,
    "leaf": 10,
    "star": 2,
}  # of the toys: they look well together
HALF, SIDE = 80, 192  # pixels: half a toy, and its picture with shadow
LIGHT = np.array([-0.36, -0.5, 0.78], np.float32)  # from the upper left
SHADOW: dict[str, Any] = {"shift": [0.09, 0.125], "strength": 0.5}  # as in the scenes, with this light
_PLACES = np.mgrid[0:BOARD, 0:BOARD]


class Toy(NamedTuple):
    """A toy on the board: its kind, its centre and size in fractions of the board, and its turn in degrees."""

    kind: int
    x: float
    y: float
    turn: float
    size: float


# What lies on the board at first. The star hides a part of the crate, and the leaf is small.
FIRST = (
    Toy(0, 0.27, 0.28, 20, 0.34),
    Toy(1, 0.68, 0.30, -8, 0.36),
    Toy(3, 0.33, 0.70, -12, 0.40),
    Toy(5, 0.82, 0.52, 15, 0.28),
    Toy(2, 0.70, 0.78, 0, 0.30),
)


@cache
def network() -> SSD:
    """The detector of drawn scenes that the package brings."""
    return demo_model().eval()


@cache
def background() -> Image.Image:
    """The board without toys."""
    rgb = draw_background(np.random.default_rng(BACKGROUND), BOARD, BOARD)
    return Image.fromarray(np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8))


@cache
def sprites() -> tuple[tuple[Pixels, Pixels], ...]:
    """Of each class: colours (SIDE, SIDE, 3), and masks (SIDE, SIDE, 2) of the toy and of its shadow."""
    return tuple(sprite(name) for name in TOY_CLASSES)


def sprite(name: str) -> tuple[Pixels, Pixels]:
    """Draw a toy upright, as the scenes have it."""
    place = (np.arange(SIDE, dtype=np.float32) + 0.5 - SIDE / 2) / HALF
    u, v = np.meshgrid(place, place)
    distance, colours = OBJECTS[name](u, v, np.random.default_rng(SEEDS[name]), LIGHT)
    cover = as_bytes(np.clip(0.5 - distance * HALF, 0, 1) * 255)
    shadow = np.asarray(Image.fromarray(cover).filter(ImageFilter.BoxBlur(0.12 * HALF)))
    return as_bytes(np.broadcast_to(colours * 255, (SIDE, SIDE, 3))), np.stack([cover, shadow], axis=-1)


def as_bytes(values: npt.NDArray[np.floating]) -> Pixels:
    """Numbers in 0..255, rounded to bytes."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def put_toys(board: npt.ArrayLike, toys: Iterable[Toy], pictures: tuple[tuple[Pixels, Pixels], ...]) -> Pixels:
    """The board (BOARD, BOARD, 3) with toys on it, the later ones above, as book/toys/board.mjs puts them."""
    rgb = np.array(board, dtype=np.float32)
    for toy in toys:
        colours, masks = pictures[toy.kind]
        half = toy.size * BOARD / 2
        place, value = covered(toy, half, SHADOW["shift"])
        rgb[place] *= 1 - SHADOW["strength"] * value(masks[..., 1:]) / 255
        place, value = covered(toy, half, [0, 0])
        rgb[place] += (value(colours) - rgb[place]) * value(masks[..., :1]) / 255
    return as_bytes(rgb)


def covered(toy: Toy, half: float, shift: list[float]) -> tuple[Any, Callable[[Pixels], Any]]:
    """The pixels of the board that a toy's picture covers, and what reads the values of a picture there."""
    centre = toy.x * BOARD + shift[0] * half, toy.y * BOARD + shift[1] * half
    reach = math.ceil(SIDE / HALF * half / math.sqrt(2))
    beside = [slice(max(0, math.floor(middle) - reach), max(0, math.ceil(middle) + reach)) for middle in centre]
    rows, columns = _PLACES[:, beside[1], beside[0]]
    right, down = columns + 0.5 - centre[0], rows + 0.5 - centre[1]
    scale, angle = HALF / half, math.radians(toy.turn)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    u, v = cos * right + sin * down + SIDE / 2 - 0.5, cos * down - sin * right + SIDE / 2 - 0.5
    inside = (u >= 0) & (v >= 0) & (u < SIDE - 1) & (v < SIDE - 1)
    place = rows[inside], columns[inside]
    u, v = u[inside], v[inside]
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    across, along = (u - left)[:, None], (v - top)[:, None]

    def value(picture: Pixels) -> Any:
        above = picture[top, left] * (1 - across) + picture[top, left + 1] * across
        below = picture[top + 1, left] * (1 - across) + picture[top + 1, left + 1] * across
        return above * (1 - along) + below * along

    return place, value


def as_image(board: Pixels) -> Tensor:
    """A board as `SSD.predict` takes images."""
    return torch.from_numpy(board).permute(2, 0, 1)


def about() -> dict[str, Any]:
    """All that the page has to know of toys, board and network."""
    model = network()
    maps, start = [], 0
    for cells, count in zip(model.recipe.map_sizes, model.recipe.priors_per_cell, strict=True):
        maps.append({"cells": cells, "shapes": [box[2:] for box in model.priors[start : start + count].tolist()]})
        start += cells * cells * count
    return {
        "classes": list(model.classes),
        "maps": maps,
        "side": model.recipe.image_size,
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "layers": [layer for layer, _, _ in layers()],
        "sprites": {"side": SIDE, "half": HALF},
        "shadow": SHADOW,
        "first": [toy._asdict() for toy in FIRST],
    }


def layers() -> list[tuple[dict[str, Any], Tensor, Tensor]]:
    """The network layer by layer, in the order in which the page runs them.

    Returns:
        of each: what it is; its weights (outputs, inputs, cells, cells), not yet multiplied; and of each output
        (outputs, 2) the factor and the summand that batch normalisation and bias come to.
    """
    model, found = network(), []
    side = model.recipe.image_size
    for stage in model.backbone.stages:  # type: ignore[union-attr]
        for n, (convolution, norm, _) in enumerate(stage):
            side //= convolution.stride[0]
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            channels = torch.stack([scale, norm.bias - norm.running_mean * scale], dim=1)
            found.append((spec(convolution, side, last=n == len(stage) - 1, head=-1), convolution.weight, channels))
    for number, cells in enumerate(model.recipe.map_sizes):
        for head in (model.offset_head, model.class_head):
            convolution = head.convolutions[number]  # type: ignore[union-attr,index]
            channels = torch.stack([torch.ones_like(convolution.bias), convolution.bias], dim=1)
            found.append((spec(convolution, cells, last=False, head=number), convolution.weight, channels))
    return [(one, weight.detach(), channels.detach()) for one, weight, channels in found]


def spec(convolution: nn.Conv2d, side: int, *, last: bool, head: int) -> dict[str, Any]:
    """What the page has to know of a convolution: `last` of a stage, or the `head` of a map."""
    return {
        "inputs": convolution.in_channels,
        "outputs": convolution.out_channels,
        "stride": convolution.stride[0],
        "cells": convolution.kernel_size[0],
        "side": side,
        "map": last,
        "head": head,
    }


def weights() -> tuple[bytes, bytes]:
    """The weights as float16, which they are in the package's file, and the factors and summands as float32.

    Raises:
        ValueError: if a weight would lose something.
    """
    all_weights = torch.cat([weight.flatten() for _, weight, _ in layers()])
    if not torch.equal(all_weights.half().float(), all_weights):
        raise ValueError("the weights of the toys' network do not fit into float16")
    channels = torch.cat([channels.flatten() for _, _, channels in layers()])
    return all_weights.half().numpy().tobytes(), channels.numpy().tobytes()  # little-endian, as JavaScript reads them


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def pictures() -> dict[str, bytes]:
    """The files with the board, with the toys' colours and, exactly, with their masks; the toys below each other."""
    colours, masks = (np.concatenate(parts) for parts in zip(*sprites(), strict=True))
    masks = np.concatenate([masks, np.zeros_like(masks[..., :1])], axis=-1)
    options = {"quality": 88, "subsampling": 0}
    return {
        "background": encoded(background(), "JPEG", **options),
        "colours": encoded(Image.fromarray(colours), "JPEG", **options),
        "masks": encoded(Image.fromarray(masks), "PNG", optimize=True),
    }


def shown() -> tuple[Pixels, tuple[tuple[Pixels, Pixels], ...]]:
    """Board and toys as the page has them: their colours went through a JPEG file."""
    board, colours = (np.asarray(Image.open(io.BytesIO(pictures()[name]))) for name in ("background", "colours"))
    parts = np.split(colours, len(TOY_CLASSES))
    return board, tuple((part, masks) for part, (_, masks) in zip(parts, sprites(), strict=True))


@cache
def payload() -> str:
    """The script that the page asks for on a click: it calls `ssdToys` with pictures, weights and what they are."""
    halves, channels = weights()
    files = {**pictures(), "halves": halves, "channels": channels}
    texts = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return f"ssdToys({json.dumps({'about': about(), **texts}, sort_keys=True)});\n"


def still() -> tuple[bytes, str]:
    """The first board with what the network finds on it, as a JPEG file, and in words."""
    board, pictures = shown()
    pixels = put_toys(board, FIRST, pictures)
    (found,) = network().predict([as_image(pixels)])
    drawn = draw_on_image(Image.fromarray(pixels), found, TOY_CLASSES)
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
    names = ", ".join(f"{TOY_CLASSES[label - 1]} {score:.2f}" for label, score in rows if score >= 0.5)
    words = f"Drawn toys on a board of dark wood, each framed by the detector, with its class and score: {names}."
    return encoded(drawn, "JPEG", quality=85), words
