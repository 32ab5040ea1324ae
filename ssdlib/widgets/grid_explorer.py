"""GridExplorer: YOLO's grid on an image, and which cell answers for which object."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from ssdlib.family.yolo_v1 import NOBODY, cell_owners, encode_in_grid, output_shape, responsible_cells
from ssdlib.plotting import color_of, draw_boxes, draw_grid
from ssdlib.widgets.base import BookWidget, image_url, open_url

SIDES = (3, 5, 7, 9, 13)
"""Grids to choose from, by the cells of a side."""


class GridExplorer(BookWidget):
    """A grid on an image with its objects: the cell that holds an object's centre answers for it, as in YOLOv1.

    A cell can be chosen: it says whose centres it holds, what it has to put out, and which object is lost because
    another one has the cell.

    Args:
        image: a JPEG or PNG file, a PIL image, a tensor (3, H, W), or its address.
        boxes_xyxy: (M, 4), the objects in pixels of the image; M = 0 is legal.
        names: what the M objects are.
        traits: further traits, as below.

    Attributes:
        cells: of a side of the grid, one of 3, 5, 7, 9, 13.
        cell: (row, column) of the chosen cell; a coarser grid moves it to the nearest that it has.
        predictors: B, boxes that each cell predicts.
        classes: C, of objects.
        image, size, boxes, names: what a page draws; they cannot be set.

    Raises:
        ValueError: if names and boxes do not fit, or a box is empty, swapped, or not in the image.

    Example:
        >>> boxes = torch.tensor([[10.0, 10, 90, 90], [20, 30, 80, 90]])
        >>> explorer = GridExplorer(torch.zeros(3, 100, 100), boxes, ["cup", "coffee"])
        >>> explorer.owners[3, 3].item(), explorer.lost
        (0, [])
        >>> explorer.cells = 3
        >>> explorer.lost
        ['coffee']
    """

    _module = "grid_explorer"

    title = traitlets.Unicode("Grid explorer: which cell answers for which object").tag(sync=True)
    image = traitlets.Unicode(read_only=True).tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(1, 1), read_only=True).tag(sync=True)
    boxes = traitlets.List(traitlets.List(traitlets.Float()), read_only=True).tag(sync=True)
    names = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    cells = traitlets.Enum(SIDES, default_value=7).tag(sync=True)
    cell = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(3, 3)).tag(sync=True)
    predictors = traitlets.Int(2, min=1, max=9).tag(sync=True)
    classes = traitlets.Int(20, min=1, max=9999).tag(sync=True)

    def __init__(
        self,
        image: str | os.PathLike[str] | Tensor | Image.Image,
        boxes_xyxy: Tensor,
        names: Sequence[str],
        **traits: Any,
    ) -> None:
        address = image if isinstance(image, str) and image.startswith("data:image/") else image_url(image)
        width, height = open_url(address).size
        corners = boxes_xyxy.reshape(-1, 4).double()
        if len(corners) != len(names):
            raise ValueError(f"{len(corners)} boxes, but {len(names)} names")
        for m, (x0, y0, x1, y1) in enumerate(corners.tolist()):
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise ValueError(f"object {m} has no valid box in {width} x {height} pixels: {[x0, y0, x1, y1]}")
        drawn = {"image": address, "size": (width, height), "boxes": corners.tolist(), "names": [*map(str, names)]}
        for name, value in drawn.items():
            self.set_trait(name, value)
        super().__init__(**traits)

    @traitlets.validate("cell")
    def _check_cell(self, proposal: Any) -> tuple[int, int]:
        if not all(0 <= place < self.cells for place in proposal.value):
            raise traitlets.TraitError(
                f"cell must be (row, column), each 0 to {self.cells - 1} on this grid; got {proposal.value}"
            )
        row, column = proposal.value
        return row, column

    @traitlets.observe("cells")
    def _stay_inside(self, change: Any) -> None:
        self.cell = (min(self.cell[0], self.cells - 1), min(self.cell[1], self.cells - 1))

    @property
    def fractions(self) -> Tensor:
        """(M, 4) float64: the objects in fractions of the image."""
        return torch.tensor(self.boxes, dtype=torch.float64).reshape(-1, 4) / torch.tensor([*self.size, *self.size])

    @property
    def owners(self) -> Tensor:
        """(S, S) int64: the object that each cell answers for, or -1, by :func:`ssdlib.family.yolo_v1.cell_owners`."""
        return cell_owners(self.fractions, self.cells)

    @property
    def lost(self) -> list[str]:
        """Names of the objects whose cell answers for another one."""
        kept = self._kept
        return [name for m, name in enumerate(self.names) if m not in kept]

    @property
    def _kept(self) -> set[int]:
        """Numbers of the objects that a cell answers for; several may have one name."""
        return set(self.owners[self.owners != NOBODY].tolist())

    @property
    def centred(self) -> list[int]:
        """Numbers of the objects whose centres lie in the chosen cell."""
        there = responsible_cells(self.fractions, self.cells).tolist()
        return [m for m, place in enumerate(there) if place == [*self.cell]]

    def describe(self) -> str:
        """Grid, chosen cell and lost objects, in words."""
        numbers = math.prod(output_shape(self.cells, self.predictors, self.classes))
        row, column = self.cell
        whose = " and ".join(self.names[m] for m in self.centred)
        return (
            f"An image with {len(self.names)} objects under a grid of {self.cells} x {self.cells} cells, whose output "
            f"has {numbers:,} numbers. The cell in row {row}, column {column} holds "
            f"{f'the centre of {whose}' if whose else 'no centre'}. Lost, as another object has their cell: "
            f"{', '.join(self.lost) or 'none'}."
        )

    def picture(self) -> Figure:
        """The image, the grid, the objects with their centres, and the cells that answer for them."""
        width, height = self.size
        figure = Figure(figsize=(4.6, 4.6 * height / width), layout="constrained")
        ax = figure.add_subplot()
        coarse = open_url(self.image).resize((150, round(150 * height / width)))
        small = coarse.quantize(24, dither=Image.Dither.NONE).convert("RGB")  # pages carry many pictures
        ax.imshow(small, extent=(0, width, height, 0), alpha=0.6)
        draw_grid(ax, self.cells, width, height, color="black", linewidth=0.5)
        wide, high = width / self.cells, height / self.cells
        owners, kept = self.owners, self._kept
        for row, column in (owners != NOBODY).nonzero().tolist():
            color = color_of(int(owners[row, column]) + 1)
            ax.add_patch(Rectangle((column * wide, row * high), wide, high, facecolor=color, alpha=0.5))
        row, column = self.cell
        ax.add_patch(Rectangle((column * wide, row * high), wide, high, fill=False, linewidth=2.5))
        for m, (name, box) in enumerate(zip(self.names, torch.tensor(self.boxes).reshape(-1, 4), strict=True)):
            draw_boxes(ax, box[None], [m + 1], [name], linestyle="-" if m in kept else "--")
            ax.plot(*((box[:2] + box[2:]) / 2).tolist(), "o", color=color_of(m + 1), markeredgecolor="white")
        ax.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        lost = len(self.names) - len(kept)
        ax.set_title(f"{self.cells} x {self.cells} cells, {lost} of {len(self.names)} objects lost", fontsize=10)
        return figure

    def targets(self) -> list[float]:
        """What the chosen cell has to say of its object: x, y, and the roots of w and h; empty without one.

        By :func:`ssdlib.family.yolo_v1.encode_in_grid`.
        """
        mine = self.centred[:1]
        return encode_in_grid(self.fractions[mine], self.cells).flatten().tolist()
