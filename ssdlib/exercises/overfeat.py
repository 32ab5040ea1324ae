"""Checker for the chapter on OverFeat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check

Scores = Answer
"""A network: images (1, 3, H, W) -> answers (1, K, rows, columns), 8 pixels apart."""


def check_half_the_stride(answer: Answer) -> None:
    """Check `half_the_stride(network, image)`: (K, rows, columns), answers every 4 pixels from a stride of 8.

    The network that it is tried with has windows of 16 pixels.
    """
    check(answer, _cases(), _MISTAKES)


class _Windows:
    """The brightest and the mean red, green and blue of each window, which tells every place from every other."""

    name = "network"

    def __call__(self, images: Tensor, stride: int = 8) -> Tensor:
        side = 16
        if min(images.shape[2:]) < side:
            raise ValueError(f"images must have {side} pixels a side or more, got {tuple(images.shape)}")
        return torch.cat((F.max_pool2d(images, side, stride), F.avg_pool2d(images, side, stride)), dim=1)


def _cases() -> list[Case]:
    pixels = torch.rand(3, 45, 50, generator=torch.Generator().manual_seed(0))
    cases = [
        ("an image of two strides more than a window, a network with windows of 16 pixels", (32, 32)),
        ("an image that is wider than high", (24, 44)),
        ("an image that is higher than wide, where the shifts do not all give as many answers", (44, 28)),
        ("an image whose sides are no multiples of 4", (45, 50)),
    ]
    network = _Windows()
    return [
        Case(what, (network, pixels[:, :height, :width]), network(pixels[None, :, :height, :width], stride=4)[0])
        for what, (height, width) in cases
    ]


def _parts(network: Scores, image: Tensor, *, shift: int = 4) -> dict[tuple[int, int], Tensor]:
    shifts = (0, shift)
    return {(down, right): network(image[None, :, down:, right:])[0] for down in shifts for right in shifts}


def _interleaved(parts: dict[tuple[int, int], Tensor], *, swapped: bool = False) -> Tensor:
    first, last = parts[0, 0], parts[max(parts)]
    dense = torch.zeros(len(first), first.shape[1] + last.shape[1], first.shape[2] + last.shape[2])
    for (down, right), part in parts.items():
        y, x = (right, down) if swapped else (down, right)
        dense[:, int(y > 0) :: 2, int(x > 0) :: 2] = part
    return dense


def _side_by_side(network: Scores, image: Tensor) -> Tensor:
    parts = _parts(network, image)
    upper, lower = (torch.cat((parts[down, 0], parts[down, 4]), dim=2) for down in (0, 4))
    return torch.cat((upper, lower), dim=1)


def _only_one_way(network: Scores, image: Tensor) -> Tensor:
    parts = _parts(network, image)
    dense = torch.zeros_like(_interleaved(parts))
    dense[:, ::2, ::2], dense[:, 1::2, 1::2] = parts[0, 0], parts[4, 4]
    return dense


def _enlarged(network: Scores, image: Tensor) -> Tensor:
    height, width = _interleaved(_parts(network, image)).shape[1:]
    return network(image[None])[0].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)[:, :height, :width]


_MISTAKES = [
    Mistake(
        "the four maps lie side by side. Neighbouring answers are 4 pixels apart, so they come from different maps: "
        "every second row and column of the result is one map's.",
        _side_by_side,
    ),
    Mistake(
        "rows and columns are exchanged: the map of the image without its first rows gives the odd rows.",
        lambda network, image: _interleaved(_parts(network, image), swapped=True),
    ),
    Mistake("the two images that were shifted in one direction only are missing.", _only_one_way),
    Mistake(
        "a shift by 8 pixels is a whole stride: these answers are there already. Shift by half of it.",
        lambda network, image: _interleaved(_parts(network, image, shift=8)),
    ),
    Mistake("the answers were repeated, not computed: every window of 4 pixels further has its own.", _enlarged),
    Mistake(
        "this is the map of one pass, with answers 8 pixels apart.", lambda network, image: network(image[None])[0]
    ),
]
