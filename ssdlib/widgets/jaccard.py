"""JaccardPlayground: two boxes to drag, and their overlap."""

from __future__ import annotations

from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssdlib.boxes import area, iou
from ssdlib.plotting import PALETTE, draw_boxes
from ssdlib.widgets.base import BookWidget, Box

PRESETS = [
    {"name": "equal", "box_a": [80, 60, 200, 140], "box_b": [80, 60, 200, 140]},
    {"name": "half shared", "box_a": [60, 60, 160, 140], "box_b": [110, 60, 210, 140]},
    {"name": "one inside", "box_a": [60, 40, 220, 160], "box_b": [100, 60, 180, 120]},
    {"name": "a corner", "box_a": [40, 40, 140, 120], "box_b": [120, 100, 240, 160]},
    {"name": "touching", "box_a": [40, 60, 140, 140], "box_b": [140, 60, 240, 140]},
    {"name": "apart", "box_a": [20, 20, 120, 100], "box_b": [160, 100, 280, 180]},
    {"name": "without area", "box_a": [60, 60, 200, 140], "box_b": [120, 40, 120, 160]},
]


class JaccardPlayground(BookWidget):
    """Two boxes to drag and resize; their areas, intersection, union and IoU as areas and as numbers.

    Attributes:
        box_a, box_b: [x_min, y_min, x_max, y_max] in pixels of the grid.
        size: (width, height) of the grid in pixels.
        presets: corner cases to choose from, each {"name", "box_a", "box_b"}.

    Example:
        >>> playground = JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[50, 0, 150, 100])
        >>> round(playground.iou, 3)
        0.333
        >>> playground.box_b = [0, 0, 100, 50]
        >>> playground.iou
        0.5
    """

    _module = "jaccard"

    title = traitlets.Unicode("Jaccard playground: two boxes and their overlap").tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(min=20), traitlets.Int(min=20), default_value=(300, 200)).tag(sync=True)
    box_a = Box([60, 60, 160, 140]).tag(sync=True)
    box_b = Box([110, 40, 230, 130]).tag(sync=True)
    presets = traitlets.List(traitlets.Dict(), default_value=PRESETS).tag(sync=True)

    @property
    def iou(self) -> float:
        """The Jaccard overlap of the two boxes, by :func:`ssdlib.boxes.iou`."""
        return float(iou(*self._boxes().split(1)))

    def describe(self) -> str:
        """The two boxes and what they share, in words."""
        areas = area(self._boxes()).tolist()
        return (
            f"Two boxes on a grid. A covers {areas[0]:.0f} and B {areas[1]:.0f} square pixels; "
            f"the part that they share is shaded. Their IoU is {self.iou:.3f}."
        )

    def picture(self) -> Figure:
        """The boxes on their grid, with the shared part shaded."""
        width, height = self.size
        figure = Figure(figsize=(4.6, 4.6 * height / width), layout="constrained")
        ax = figure.add_subplot()
        ax.set(xlim=(0, width), ylim=(height, 0), xlabel="x in pixels", ylabel="y in pixels", title=self.title)
        ax.set_title(f"IoU = {self.iou:.3f}")
        boxes = self._boxes()
        upper, lower = boxes[:, :2].amax(0).tolist(), boxes[:, 2:].amin(0).tolist()
        if lower[0] > upper[0] and lower[1] > upper[1]:
            ax.add_patch(Rectangle(tuple(upper), lower[0] - upper[0], lower[1] - upper[1], facecolor=PALETTE[2]))
        draw_boxes(ax, boxes, labels=[1, 4], texts=["A", "B"])
        return figure

    def _boxes(self) -> Any:
        return torch.tensor([self.box_a, self.box_b], dtype=torch.float64)
