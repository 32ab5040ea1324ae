"""RoI pooling and RoIAlign: from a box of any size to a grid of numbers of a fixed size, in plain loops.

Both read the part of a feature map that a box covers (a "region of interest"). RoI pooling rounds twice, the box to
whole cells and its bins to whole cells; RoIAlign rounds nothing and interpolates. `torchvision.ops` has both, compiled,
with the same results (tested), and is what `ssdlib.family.two_stage` trains with.

In all of this file a map's cell (row, column) covers the square from (column, row) to (column + 1, row + 1), and boxes
are in cells: a box in pixels divided by the stride of the map, or a fractional box times its side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssdlib.boxes import require_boxes


class Neighbour(NamedTuple):
    """A cell that a point is interpolated from, and how much it counts."""

    row: int
    column: int
    weight: float


def neighbours(x: float, y: float, width: int, height: int) -> list[Neighbour]:
    """The four cells whose centres surround a point, with the weights of bilinear interpolation.

    The centre of cell (row, column) is at (column + 0.5, row + 0.5). A point between the outermost centres and the
    border, or up to half a cell outside, is moved to the line of the outermost centres; further away all is 0.

    Args:
        x, y: the point, in cells.
        width, height: of the map, in cells.

    Returns:
        Four cells (some of them the same one at the border) whose weights sum to 1; none if the point lies more than
        half a cell outside of the map.

    Source: He et al., Mask R-CNN (2017), section 3; at the border as in torchvision's `roi_align(aligned=True)`.
    """
    x, y = x - 0.5, y - 0.5  # from here on a cell is where its centre is
    if not (-1 <= x <= width and -1 <= y <= height):
        return []
    left, right, to_right = _between(x, width)
    top, bottom, to_bottom = _between(y, height)
    return [
        Neighbour(top, left, (1 - to_bottom) * (1 - to_right)),
        Neighbour(top, right, (1 - to_bottom) * to_right),
        Neighbour(bottom, left, to_bottom * (1 - to_right)),
        Neighbour(bottom, right, to_bottom * to_right),
    ]


def _between(position: float, length: int) -> tuple[int, int, float]:
    """The two whole numbers around a position, inside 0..length-1, and how far it is behind the first."""
    position = max(position, 0.0)
    low = int(position)
    if low >= length - 1:
        return length - 1, length - 1, 0.0
    return low, low + 1, position - low


def sampling_points(box_xyxy: Tensor, size: tuple[int, int], samples: int = 2) -> Tensor:
    """Where RoIAlign reads the map: `samples` x `samples` points, evenly spread, in each bin of a box.

    Args:
        box_xyxy: (4,), in cells.
        size: (rows, columns) of bins.
        samples: points along each side of a bin.

    Returns:
        (rows, columns, samples * samples, 2): x and y of each point, in cells, float64; row by row in its bin.

    Raises:
        ValueError: if the box is not (4,) or a number is not above 0.
    """
    _require(box_xyxy, size, samples)
    x_min, y_min, x_max, y_max = box_xyxy.tolist()
    rows, columns = size
    bin_width, bin_height = (x_max - x_min) / columns, (y_max - y_min) / rows
    points = torch.zeros(rows, columns, samples * samples, 2, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for k in range(samples * samples):
                down, along = divmod(k, samples)
                points[row, column, k, 0] = x_min + column * bin_width + (along + 0.5) * bin_width / samples
                points[row, column, k, 1] = y_min + row * bin_height + (down + 0.5) * bin_height / samples
    return points


def roi_align_plainly(feature_map: Tensor, box_xyxy: Tensor, size: tuple[int, int], samples: int = 2) -> Tensor:
    """RoIAlign of one box: the mean of the interpolated points of each bin.

    Args:
        feature_map: (C, H, W).
        box_xyxy: (4,), in cells; it may reach over the border, and may have no area.
        size: (rows, columns) of bins.
        samples: points along each side of a bin.

    Returns:
        (C, rows, columns), in the dtype of the map; computed in float64.

    Raises:
        ValueError: if the shapes are others, or a number is not above 0.

    Source: He et al., Mask R-CNN (2017), section 3; `torchvision.ops.roi_align` with aligned=True gives the same.
    """
    _require_map(feature_map)
    height, width = feature_map.shape[1:]
    numbers = feature_map.double()
    pooled = numbers.new_zeros(len(numbers), *size)
    points = sampling_points(box_xyxy, size, samples)
    for row in range(size[0]):
        for column in range(size[1]):
            for x, y in points[row, column].tolist():
                for cell in neighbours(x, y, width, height):
                    pooled[:, row, column] += cell.weight * numbers[:, cell.row, cell.column]
    return (pooled / samples**2).to(feature_map.dtype)


class Bin(NamedTuple):
    """The cells of one bin of RoI pooling: rows top..bottom-1 and columns left..right-1; it may be empty."""

    left: int
    top: int
    right: int
    bottom: int


def pooling_bins(box_xyxy: Tensor, size: tuple[int, int], width: int, height: int) -> list[list[Bin]]:
    """Which cells each bin of RoI pooling takes: those that its two roundings leave.

    First the corners of the box are rounded to cells, both of which belong to it: a box is never smaller than one cell.
    Then each bin, a fraction of that, is rounded outwards, so that neighbouring bins may share a row or a column.

    Args:
        box_xyxy: (4,), in cells.
        size: (rows, columns) of bins.
        width, height: of the map, in cells; bins end at its border.

    Returns:
        rows lists of as many bins as there are columns.

    Raises:
        ValueError: if the box is not (4,) or a number is not above 0.

    Source: Girshick, Fast R-CNN (2015), section 2.1, which is SPPnet's pooling (He et al., 2014) with one level;
        the roundings are those of its program and of `torchvision.ops.roi_pool`.
    """
    _require(box_xyxy, size, 1)
    left, top, right, bottom = (_round(side) for side in box_xyxy.tolist())
    columns = _whole_bins(left, right, size[1], width)
    rows = _whole_bins(top, bottom, size[0], height)
    return [[Bin(x[0], y[0], x[1], y[1]) for x in columns] for y in rows]


def roi_pool_plainly(feature_map: Tensor, box_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """RoI pooling of one box: the largest number in the cells of each bin, and 0 where a bin has none.

    Args:
        feature_map: (C, H, W).
        box_xyxy: (4,), in cells.
        size: (rows, columns) of bins.

    Returns:
        (C, rows, columns).

    Raises:
        ValueError: if the shapes are others, or a number is not above 0.

    Source: as `pooling_bins`.
    """
    _require_map(feature_map)
    height, width = feature_map.shape[1:]
    pooled = feature_map.new_zeros(len(feature_map), *size)
    for row, bins in enumerate(pooling_bins(box_xyxy, size, width, height)):
        for column, cells in enumerate(bins):
            inside = feature_map[:, cells.top : cells.bottom, cells.left : cells.right].flatten(1)
            if inside.shape[1] > 0:
                pooled[:, row, column] = inside.amax(dim=1)
    return pooled


def _round(number: float) -> int:
    """To the nearest whole number, halves away from 0 as in C: Python's own `round` takes them to even numbers."""
    whole = math.floor(abs(number))
    return int(math.copysign(whole + (abs(number) - whole >= 0.5), number))


def _whole_bins(first: int, last: int, count: int, length: int) -> list[tuple[int, int]]:
    """(begin, end) of each bin along one side."""
    size = max(last - first + 1, 1) / count
    begins = [first + math.floor(k * size) for k in range(count)]
    ends = [first + math.ceil((k + 1) * size) for k in range(count)]
    return [(min(max(b, 0), length), min(max(e, 0), length)) for b, e in zip(begins, ends, strict=True)]


def _require(box_xyxy: Tensor, size: tuple[int, int], samples: int) -> None:
    require_boxes(box_xyxy, "box_xyxy")
    if box_xyxy.dim() != 1 or not box_xyxy.isfinite().all():
        raise ValueError(f"box_xyxy must be four finite numbers, got {box_xyxy.tolist()}")
    if min(*size, samples) < 1:
        raise ValueError(f"bins and samples must be 1 or more, got size {size} and samples {samples}")


def _require_map(feature_map: Tensor) -> None:
    if feature_map.dim() != 3 or 0 in feature_map.shape:
        raise ValueError(f"feature_map must have shape (C, H, W) without a 0, got {tuple(feature_map.shape)}")
