"""Checkers for the chapter on two stages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_interpolate(answer: Answer) -> None:
    """Check `interpolate(feature_map, x, y)`: the number of a map (H, W) at a point inside it, in cells, bilinearly."""
    check(answer, _cases(), _MISTAKES)


def _interpolate(feature_map: Tensor, x: float, y: float, *, shift: float = 0.5) -> Tensor:
    height, width = feature_map.shape
    x, y = min(max(x - shift, 0.0), width - 1.0), min(max(y - shift, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    along, down = x - left, y - top
    upper = (1 - along) * feature_map[top, left] + along * feature_map[top, left + 1]
    lower = (1 - along) * feature_map[top + 1, left] + along * feature_map[top + 1, left + 1]
    return (1 - down) * upper + down * lower


def _cases() -> list[Case]:
    feature_map = torch.tensor([[0.0, 4, 8, 4, 1], [8, 12, 2, 6, 3], [1, 5, 9, 7, 2]])
    points = [
        ("the centre of a cell, where the map's own number stands", (1.5, 1.5)),
        ("half way between the centres of two cells of a row", (2.0, 0.5)),
        ("half way between the centres of two cells of a column", (2.5, 2.0)),
        ("where four cells meet", (1.0, 1.0)),
        ("a quarter of the way between two centres", (1.75, 0.5)),
        ("a point in no special place", (3.2, 1.9)),
        ("left of the first centres, where the outermost numbers go on", (0.2, 1.5)),
        ("below the last centres, where the outermost numbers go on", (2.5, 2.9)),
        ("the lower right corner of the map", (5.0, 3.0)),
    ]
    return [Case(what, (feature_map, x, y), _interpolate(feature_map, x, y)) for what, (x, y) in points]


def _nearest(feature_map: Tensor, x: float, y: float) -> Tensor:
    height, width = feature_map.shape
    return feature_map[min(math.floor(y), height - 1), min(math.floor(x), width - 1)]


def _weights_exchanged(feature_map: Tensor, x: float, y: float) -> Tensor:
    mirror = (2 * math.floor(value - 0.5) + 2 - value for value in (x, y))
    return _interpolate(feature_map, *mirror)


def _mean_of_four(feature_map: Tensor, x: float, y: float) -> Tensor:
    return _interpolate(feature_map, math.floor(x - 0.5) + 1.0, math.floor(y - 0.5) + 1.0)


def _swapped(feature_map: Tensor, x: float, y: float) -> Tensor:
    return _interpolate(feature_map, y, x)


_MISTAKES = [
    Mistake(
        "this is half a cell off. The centre of cell (row, column) is at (column + 0.5, row + 0.5).",
        lambda feature_map, x, y: _interpolate(feature_map, x, y, shift=0.0),
    ),
    Mistake("x counts columns and y counts rows: the map is indexed by [row, column].", _swapped),
    Mistake("this is the number of the cell that the point lies in. Four cells have a say.", _nearest),
    Mistake("the four weights are not equal: the nearer a centre, the more it counts.", _mean_of_four),
    Mistake("the weights are exchanged: the nearer a centre, the more it counts, not the less.", _weights_exchanged),
]
