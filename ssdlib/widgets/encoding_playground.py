"""EncodingPlayground: an object to drag, a prior, and the four offsets between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import VARIANCES, decode, encode
from ssdlib.plotting import PALETTE, draw_boxes
from ssdlib.widgets.base import BookWidget, Box, is_number

PRIORS = [
    {"name": "30 × 30", "prior": [135, 85, 165, 115]},
    {"name": "60 × 60", "prior": [120, 70, 180, 130]},
    {"name": "120 × 120", "prior": [90, 40, 210, 160]},
    {"name": "120 × 60", "prior": [90, 70, 210, 130]},
    {"name": "40 × 80", "prior": [130, 60, 170, 140]},
]


class EncodingPlayground(BookWidget):
    """An object to drag, a prior, and the four offsets that lead from the prior to the object, worked out.

    The offsets can be dragged as well: the object follows.

    Attributes:
        box: the object, [x_min, y_min, x_max, y_max] in pixels of the grid; its sides are at least 1 pixel.
        prior: the prior, likewise.
        variances: what the offsets of the centre and those of the size are divided by.
        size: (width, height) of the grid in pixels.
        priors: shapes to choose from, each {"name", "prior"}.

    Example:
        >>> playground = EncodingPlayground(prior=[100, 100, 200, 150], box=[100, 105, 220, 165])
        >>> [round(offset, 2) for offset in playground.offsets]
        [1.0, 2.0, 0.91, 0.91]
        >>> playground.offsets = [0, 0, 0, 0]
        >>> playground.box
        [100.0, 100.0, 200.0, 150.0]
    """

    _module = "encoding_playground"

    title = traitlets.Unicode("Encoding playground: a box as offsets from its prior").tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(min=20), traitlets.Int(min=20), default_value=(300, 200)).tag(sync=True)
    box = Box([125, 65, 215, 135]).tag(sync=True)
    prior = Box([120, 70, 180, 130]).tag(sync=True)
    variances = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=VARIANCES).tag(sync=True)
    priors = traitlets.List(traitlets.Dict(), default_value=PRIORS).tag(sync=True)

    @traitlets.validate("box", "prior")
    def _has_sides(self, proposal: Any) -> Any:
        x_min, y_min, x_max, y_max = proposal.value
        # 1 pixel, give or take the rounding of a box that was decoded from offsets.
        if min(x_max - x_min, y_max - y_min) < 1 - 1e-3:
            raise traitlets.TraitError(
                f"{proposal.trait.name} must be at least 1 pixel wide and high, or its offsets would have "
                f"the logarithm of zero; got {proposal.value}"
            )
        return proposal.value

    @traitlets.validate("variances")
    def _above_zero(self, proposal: Any) -> Any:
        if not all(is_number(value) and value > 0 for value in proposal.value):
            raise traitlets.TraitError(f"variances must be two finite numbers above 0; got {proposal.value}")
        return proposal.value

    @property
    def offsets(self) -> list[float]:
        """The offsets [g_cx, g_cy, g_w, g_h] of the object, by :func:`ssdlib.coding.encode`; setting them moves it."""
        box, prior = xyxy_to_cxcywh(self._boxes())
        values: list[float] = encode(box, prior, self.variances).tolist()
        return values

    @offsets.setter
    def offsets(self, values: Any) -> None:
        given = values.tolist() if isinstance(values, Tensor) else values
        numbers = list(given) if isinstance(given, Iterable) else []
        if len(numbers) != 4 or not all(is_number(number) for number in numbers):
            raise traitlets.TraitError(f"offsets must be four finite numbers; got {values!r}")
        offsets = torch.tensor(numbers, dtype=torch.float64)
        self.box = cxcywh_to_xyxy(decode(offsets, xyxy_to_cxcywh(self._boxes()[1]), self.variances)).tolist()

    def describe(self) -> str:
        """The prior, the object and the offsets, in words."""
        box, prior = xyxy_to_cxcywh(self._boxes()).tolist()
        g_cx, g_cy, g_w, g_h = self.offsets
        return (
            f"A dashed prior of {prior[2]:.0f} by {prior[3]:.0f} pixels and an object of {box[2]:.0f} by {box[3]:.0f} "
            f"pixels. The offsets of the object are {g_cx:.2f} and {g_cy:.2f} for the centre and {g_w:.2f} and "
            f"{g_h:.2f} for the size."
        )

    def picture(self) -> Figure:
        """Prior and object on their grid, with the way from centre to centre."""
        width, height = self.size
        figure = Figure(figsize=(4.6, 4.6 * height / width), layout="constrained")
        ax = figure.add_subplot()
        ax.set(xlim=(0, width), ylim=(height, 0), xlabel="x in pixels", ylabel="y in pixels")
        ax.set_title("offsets: " + ", ".join(f"{offset:.2f}" for offset in self.offsets), fontsize=10)
        boxes = self._boxes()
        draw_boxes(ax, boxes[1:], texts=["prior"], color=PALETTE[0], linestyle="--")
        draw_boxes(ax, boxes[:1], texts=["object"], color=PALETTE[1])
        end, start = xyxy_to_cxcywh(boxes)[:, :2].tolist()
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "linewidth": 1.6})
        return figure

    def _boxes(self) -> Tensor:
        """(2, 4) xyxy: the object and the prior."""
        return torch.tensor([self.box, self.prior], dtype=torch.float64)
