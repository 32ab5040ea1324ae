"""Hypothesis strategies that the tests share: boxes, scores, predictions, targets and prior recipes.

Most numbers are multiples of a power of two. They are exact in float32, so a slow reference and the vectorised code may
be compared without rounding in the way, and duplicates, ties and touching edges, which random floats hardly ever give,
come up all the time. `grid=None` gives arbitrary float32 numbers instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from ssdlib.priors import PriorRecipe

GRID = 32


def tensors(shape: tuple[int, ...], elements: st.SearchStrategy[Any], dtype: torch.dtype = torch.float32) -> Any:
    """A tensor of that shape, filled with `elements`."""
    count = math.prod(shape)
    numbers = st.lists(elements, min_size=count, max_size=count)
    return numbers.map(lambda values: torch.tensor(values, dtype=dtype).reshape(shape))


def coordinates(grid: int | None = GRID) -> st.SearchStrategy[float]:
    """A number in 0..1."""
    if grid is None:
        return st.floats(0, 1, width=32, allow_subnormal=False)
    return st.integers(0, grid).map(lambda i: i / grid)


def _span(grid: int | None) -> st.SearchStrategy[tuple[float, float]]:
    """(low, high) with 0 <= low < high <= 1, at least 1 / grid (or 0.001) apart."""
    if grid is None:
        low = st.floats(0, 0.75, width=32, allow_subnormal=False)
        return st.tuples(low, st.floats(2**-10, 0.25, width=32)).map(lambda span: (span[0], span[0] + span[1]))
    return st.integers(0, grid - 1).flatmap(
        lambda i: st.integers(i + 1, grid).map(lambda j: (i / grid, j / grid)),
    )


@st.composite
def boxes_xyxy(
    draw: st.DrawFn,
    min_size: int = 0,
    max_size: int = 6,
    *,
    degenerate: bool = False,
    grid: int | None = GRID,
    side: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(N, 4) xyxy boxes inside 0..side, min_size <= N <= max_size.

    Every box has an area above 0, unless `degenerate`: then there are also boxes whose corners are drawn
    independently, so that boxes without width or height and boxes with swapped corners come up.
    """
    row = st.tuples(_span(grid), _span(grid)).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))
    if degenerate:
        row |= st.tuples(*[coordinates(grid)] * 4)
    rows = draw(st.lists(row, min_size=min_size, max_size=max_size))
    return torch.tensor(rows, dtype=dtype).reshape(-1, 4) * side


@st.composite
def boxes_cxcywh(
    draw: st.DrawFn,
    min_size: int = 0,
    max_size: int = 6,
    *,
    grid: int | None = GRID,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(N, 4) cxcywh boxes with an area above 0, sizes up to 1; like priors, they may reach over the border."""
    size = st.floats(2**-10, 1, width=32) if grid is None else st.integers(1, grid).map(lambda i: i / grid)
    row = st.tuples(coordinates(grid), coordinates(grid), size, size)
    rows = draw(st.lists(row, min_size=min_size, max_size=max_size))
    return torch.tensor(rows, dtype=dtype).reshape(-1, 4)


def scores(count: int, grid: int | None = 8) -> Any:
    """(count,) scores in 0..1; on the coarse default grid ties are frequent."""
    return tensors((count,), coordinates(grid))


@st.composite
def scored_boxes(
    draw: st.DrawFn, min_size: int = 0, max_size: int = 10, *, degenerate: bool = False
) -> tuple[Tensor, Tensor]:
    """(K, 4) xyxy boxes and their (K,) scores, with ties."""
    boxes = draw(boxes_xyxy(min_size, max_size, degenerate=degenerate))
    return boxes, draw(scores(len(boxes)))


def offsets(*shape: int, limit: float = 4.0) -> Any:
    """(*shape, 4) predicted offsets."""
    return tensors((*shape, 4), st.floats(-limit, limit, width=32, allow_subnormal=False))


def logits(*shape: int, limit: float = 8.0) -> Any:
    """(*shape) predicted class scores before the softmax; multiples of 1/4, so that ties are frequent."""
    steps = int(4 * limit)
    return tensors(shape, st.integers(-steps, steps).map(lambda i: i / 4))


@st.composite
def targets(
    draw: st.DrawFn,
    num_classes: int = 4,
    min_objects: int = 0,
    max_objects: int = 4,
    *,
    difficult: bool = True,
    side: float = 1.0,
) -> dict[str, Tensor]:
    """One image's objects: "boxes" (M, 4) xyxy, "labels" (M,) in 1..num_classes-1, "difficult" (M,) bool."""
    boxes = draw(boxes_xyxy(min_objects, max_objects, side=side))
    flags = st.booleans() if difficult else st.just(False)
    return {
        "boxes": boxes,
        "labels": draw(tensors((len(boxes),), st.integers(1, num_classes - 1), torch.int64)),
        "difficult": draw(tensors((len(boxes),), flags, torch.bool)),
    }


@st.composite
def detections(
    draw: st.DrawFn, num_classes: int = 4, min_size: int = 0, max_size: int = 6, *, side: float = 1.0
) -> dict[str, Tensor]:
    """One image's detections: "boxes" (K, 4) xyxy, "labels" (K,) in 1..num_classes-1, "scores" (K,), in any order."""
    boxes = draw(boxes_xyxy(min_size, max_size, side=side))
    return {
        "boxes": boxes,
        "labels": draw(tensors((len(boxes),), st.integers(1, num_classes - 1), torch.int64)),
        "scores": draw(scores(len(boxes))),
    }


@st.composite
def overlap_matrices(draw: st.DrawFn, max_objects: int = 5, max_priors: int = 7, steps: int = 6) -> Tensor:
    """(M, P) overlaps in 0..1, M >= 0 and P >= 0, coarse enough that most examples have ties and shared best priors."""
    shape = (draw(st.integers(0, max_objects)), draw(st.integers(0, max_priors)))
    return draw(tensors(shape, coordinates(steps)))


@st.composite
def recipes(draw: st.DrawFn, max_maps: int = 3, max_side: int = 4, *, own_scales: bool = False) -> PriorRecipe:
    """A small prior recipe; each cell has the square and "extra" first, then pairs of ratios r and 1 / r.

    With `own_scales`, a ratio with a scale of its own may come after them.
    """
    maps = draw(st.integers(1, max_maps))
    image_size = draw(st.sampled_from([32, 64, 300]))
    ratio = st.sampled_from([2.0, 3.0, 1.5])
    pairs = draw(st.lists(st.lists(ratio, max_size=2, unique=True), min_size=maps, max_size=maps))
    map_sizes = tuple(draw(st.lists(st.integers(1, max_side), min_size=maps, max_size=maps)))
    own = st.tuples(ratio, st.floats(0.05, 1.1)) if own_scales else st.nothing()
    last = draw(st.lists(st.lists(own, max_size=int(own_scales)), min_size=maps, max_size=maps))
    return PriorRecipe(
        name="drawn",
        image_size=image_size,
        map_sizes=map_sizes,
        scales=tuple(draw(st.lists(st.floats(0.05, 1.1), min_size=maps + 1, max_size=maps + 1))),
        ratios=tuple(
            (1.0, "extra", *(x for r in cell for x in (r, 1 / r)), *more)
            for cell, more in zip(pairs, last, strict=True)
        ),
        steps=draw(st.none() | st.just(tuple(image_size / side * 0.9 for side in map_sizes))),
        clip_sizes=draw(st.booleans()),
    )
