"""Checkers for the chapter on the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_positions_in_use(answer: Answer) -> None:
    """Check `positions_in_use(convolution, side)`: (k, k) bool, the positions of the kernel that ever meet a cell."""
    check(answer, _position_cases(), _POSITION_MISTAKES)


def _position_cases() -> list[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unfinished = nn.Conv2d(2, 4, 3, padding=1)
        nn.init.zeros_(unfinished.weight)
        convolutions = [
            ("a map of three cells by three", nn.Conv2d(2, 4, 3, padding=1), 3),
            ("a map of one cell, where the rest is padding", nn.Conv2d(2, 4, 3, padding=1), 1),
            ("a map of two cells by two", nn.Conv2d(2, 4, 3, padding=1), 2),
            ("no padding", nn.Conv2d(2, 4, 3), 3),
            ("a stride that leaves out cells", nn.Conv2d(2, 4, 3, stride=2, padding=1), 2),
            ("a dilation that leads beyond the map", nn.Conv2d(2, 4, 3, padding=6, dilation=6), 5),
            ("a dilation that just reaches the map", nn.Conv2d(2, 4, 3, padding=6, dilation=6), 7),
            ("a kernel of one row", nn.Conv2d(2, 4, (1, 3), padding=(0, 1)), 1),
            ("weights that are 0", unfinished, 2),
        ]
    return [Case(what, (convolution, side), _used(convolution, side)) for what, convolution, side in convolutions]


def _used(convolution: nn.Conv2d, side: int, *, strided: bool = True, dilated: bool = True) -> Tensor:
    """The right answer, by arithmetic, with a switch for each thing that goes wrong."""
    lines = []
    for axis in (0, 1):
        size, padding = convolution.kernel_size[axis], int(convolution.padding[axis])
        stride = convolution.stride[axis] if strided else 1
        dilation = convolution.dilation[axis] if dilated else 1
        places = (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
        meets = [any(0 <= stride * o - padding + dilation * i < side for o in range(places)) for i in range(size)]
        lines.append(torch.tensor(meets))
    return lines[0][:, None] & lines[1]


def _gradient(convolution: nn.Conv2d, side: int, *, scale: float = 1.0) -> Tensor:
    x = torch.full((1, convolution.in_channels, side, side), scale)
    (gradient,) = torch.autograd.grad(convolution(x).sum(), convolution.weight)
    return gradient


_POSITION_MISTAKES = [
    Mistake(
        "this is a value for each weight. A position is in use if any of the weights there is.",
        lambda convolution, side: _gradient(convolution, side) != 0,
    ),
    Mistake(
        "the weights themselves do not tell. What counts is whether the result changes with them.",
        lambda convolution, side: (convolution.weight != 0).any(dim=0).any(dim=0),
    ),
    Mistake(
        "a map of zeros gives a gradient of zero everywhere, whatever the kernel looks at. Take another map.",
        lambda convolution, side: torch.zeros(convolution.kernel_size),
    ),
    Mistake(
        "the other way round: True is for positions that can change the result.",
        lambda convolution, side: ~_used(convolution, side),
    ),
    Mistake(
        "with a stride of 2 the kernel is not put on every cell.",
        lambda convolution, side: _used(convolution, side, strided=False),
    ),
    Mistake(
        "the positions of a dilated kernel lie several cells apart.",
        lambda convolution, side: _used(convolution, side, dilated=False),
    ),
    Mistake(
        "the kernel has padding beside it on small maps: at some positions it never meets a cell.",
        lambda convolution, side: torch.ones(convolution.kernel_size),
    ),
]
