"""RoiExplorer: a box to drag on a feature map, and the grid of numbers that RoIAlign and RoI pooling make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import roi_align

from ssdlib.family.roi import pooling_bins, roi_align_plainly, roi_pool_plainly, sampling_points
from ssdlib.plotting import PALETTE, draw_boxes
from ssdlib.widgets.base import BookWidget, Box, is_number

METHODS = ("align", "pool", "shifted")

VALUES = [
    [0, 0, 1, 1, 0, 0, 0, 0],
    [0, 1, 4, 5, 2, 0, 0, 0],
    [1, 3, 8, 9, 6, 1, 0, 1],
    [0, 4, 9, 9, 7, 2, 1, 0],
    [0, 1, 5, 6, 3, 1, 2, 0],
    [0, 0, 1, 1, 0, 0, 1, 0],
]
"""A map of 6 rows and 8 columns of one channel, with an object in its middle."""

PRESETS = [
    {"name": "on the cells", "box": [32, 16, 64, 80]},
    {"name": "half a cell further", "box": [40, 24, 72, 88]},
    {"name": "within a cell", "box": [53, 41, 63, 50]},
    {"name": "between the cells", "box": [23, 20, 71, 77]},
]


class RoiExplorer(BookWidget):
    """A box on a feature map, the points at which RoIAlign reads it, the cells that RoI pooling takes, and the result.

    Attributes:
        values: the map of one channel, rows of numbers.
        stride: pixels of the image for each cell of the map.
        box: [x_min, y_min, x_max, y_max] in pixels of the image.
        method: what is drawn: "align", "pool", or "shifted", RoIAlign by the mistake of half a cell.
        bins: of a side of the result.
        samples: points along each side of a bin.
        bin, point: which bin is looked at, and which point in it, counted row by row from 0; beyond the last, the last.
        presets: boxes to choose from, each {"name", "box"}.

    Example:
        >>> explorer = RoiExplorer(values=[[0, 4], [8, 12]], box=[8, 8, 24, 24], bins=1, samples=1)
        >>> explorer.result
        [[6.0]]
        >>> explorer.method = "pool"
        >>> explorer.result
        [[12.0]]
    """

    _module = "roi_explorer"

    title = traitlets.Unicode("RoI explorer: from a box to a grid of numbers").tag(sync=True)
    values = traitlets.List(traitlets.List(), default_value=VALUES).tag(sync=True)
    stride = traitlets.Int(16, min=1).tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(128, 96)).tag(sync=True)
    box = Box([23, 20, 71, 77]).tag(sync=True)
    method = traitlets.Enum(METHODS, default_value="align").tag(sync=True)
    bins = traitlets.Int(2, min=1, max=3).tag(sync=True)
    samples = traitlets.Int(2, min=1, max=3).tag(sync=True)
    bin = traitlets.Int(0, min=0).tag(sync=True)
    point = traitlets.Int(0, min=0).tag(sync=True)
    presets = traitlets.List(traitlets.Dict(), default_value=PRESETS).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        values, stride = traits.get("values", VALUES), traits.get("stride", 16)
        if isinstance(values, Tensor):
            values = traits["values"] = values.tolist()
        _require_rows(values)
        if isinstance(stride, int):  # what is no whole number the trait refuses
            traits["size"] = (len(values[0]) * stride, len(values) * stride)
        super().__init__(**traits)

    @traitlets.validate("values")
    def _has_rows(self, proposal: Any) -> Any:
        _require_rows(proposal.value)
        return proposal.value

    @property
    def result(self) -> list[list[float]]:
        """What the chosen method makes of the box: `bins` rows of as many numbers, by :mod:`ssdlib.family.roi`."""
        return self.result_of(self.method)

    def result_of(self, method: str) -> list[list[float]]:
        """What one of the methods makes of the box."""
        feature_map, size = self._map(), (self.bins, self.bins)
        if method == "pool":
            pooled = roi_pool_plainly(feature_map, self._cells(), size)
        elif method == "align":
            pooled = roi_align_plainly(feature_map, self._cells(), size, self.samples)
        else:
            boxes = [self._cells()[None]]
            pooled = roi_align(feature_map[None], boxes, size, 1.0, sampling_ratio=self.samples, aligned=False)[0]
        numbers: list[list[float]] = pooled[0].tolist()
        return numbers

    def describe(self) -> str:
        """The map, the box, and both results, in words."""
        rows, columns = len(self.values), len(self.values[0])
        left, top, right, bottom = self._cells().tolist()
        said = {method: _words(self.result_of(method)) for method in ("align", "pool")}
        return (
            f"A feature map of {rows} rows and {columns} columns, and a box on it from column {left:.2f} to "
            f"{right:.2f} and from row {top:.2f} to {bottom:.2f}. RoIAlign makes {said['align']} of it, "
            f"RoI pooling {said['pool']}."
        )

    def picture(self) -> Figure:
        """The map with its numbers, the box, the points of RoIAlign, and dashed the cells of RoI pooling."""
        rows, columns = len(self.values), len(self.values[0])
        figure = Figure(figsize=(4.6, 4.6 * rows / columns), layout="constrained")
        ax = figure.add_subplot()
        ax.set(xlim=(0, columns), ylim=(rows, 0), xlabel="column", ylabel="row")
        ax.imshow(self.values, cmap="Blues", alpha=0.5, extent=(0, columns, rows, 0))
        for row, numbers in enumerate(self.values):
            for column, number in enumerate(numbers):
                ax.text(column + 0.5, row + 0.5, f"{number:g}", ha="center", va="center", fontsize=8)
        cells = self._cells()
        whole = pooling_bins(cells, (self.bins, self.bins), columns, rows)
        first, last = whole[0][0], whole[-1][-1]
        corner, width, height = (first.left, first.top), last.right - first.left, last.bottom - first.top
        ax.add_patch(Rectangle(corner, width, height, fill=False, linestyle="--", linewidth=2, edgecolor=PALETTE[4]))
        draw_boxes(ax, cells[None], color=PALETTE[1])
        points = sampling_points(cells, (self.bins, self.bins), self.samples).reshape(-1, 2)
        ax.plot(*points.T, "o", color=PALETTE[1], markersize=4)
        return figure

    def _map(self) -> Tensor:
        """(1, H, W)."""
        return torch.tensor([self.values], dtype=torch.float64)

    def _cells(self) -> Tensor:
        """(4,): the box in cells."""
        return torch.tensor(self.box, dtype=torch.float64) / self.stride


def _words(numbers: Sequence[Sequence[float]]) -> str:
    return "; ".join(", ".join(f"{number:.2f}" for number in row) for row in numbers)


def _require_rows(values: Any) -> None:
    rows = values if isinstance(values, (list, tuple)) else []
    widths = {len(row) if isinstance(row, (list, tuple)) else 0 for row in rows}
    if len(widths) != 1 or 0 in widths or not all(is_number(number) for row in rows for number in row):
        raise traitlets.TraitError(f"values must be rows of as many finite numbers each; got {str(values)[:80]}")
