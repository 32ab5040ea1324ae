"""WindowExplorer: windows on an image, their cells on each map of the network, and which of those are new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ssdlib.family.overfeat import OverFeat
from ssdlib.family.sliding_window import places
from ssdlib.plotting import PALETTE
from ssdlib.widgets.base import BookWidget, image_url, open_url

STEPS = (0, 1, 2, 4, 8)
"""Images to choose from: so many strides are they larger than a window."""


class WindowExplorer(BookWidget):
    """Windows on an image, one by one, and their cells on each map: those that earlier windows had, and the new ones.

    The windows go row by row, and a cell that an earlier window had is the same number again. What the windows compute
    one by one is counted beside what is computed once: after the last window that is the one pass over the image.

    Args:
        network: a window classifier as convolutions.
        image: (3, H, W) floats in 0..1; the upper left corner of it is shown.
        names: of the classes 1, 2, ...
        traits: further traits, as below.

    Attributes:
        side: of the image that the network gets, in pixels: one of `sides`.
        place: (row, column) of the window; a smaller image moves it to the nearest that it has.
        image, window, stride, sides, layers, answers, names: what a page draws; they cannot be set. Each of the layers
            is {"kernel", "stride", "each"}, the multiplications of a cell; an answer is (label, probability).

    Raises:
        ValueError: if the image is smaller than a window, or there are not as many names as classes; see also `chain`.

    Example:
        >>> from ssdlib.family.window_classifier import WindowClassifier
        >>> layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2))
        >>> classifier = WindowClassifier(layers, 3, 19, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
        >>> explorer = WindowExplorer(OverFeat(classifier), torch.zeros(3, 40, 40), ["cat", "dog"], side=23)
        >>> explorer.maps
        [(9, 2), (4, 1), (1, 1)]
        >>> explorer.place = (0, 1)
        >>> explorer.new_cells
        [(9, 2), (4, 1), (1, 1)]
    """

    _module = "window_explorer"
    _from_network = True

    title = traitlets.Unicode("Window explorer: what windows share").tag(sync=True)
    image = traitlets.Unicode(read_only=True).tag(sync=True)
    window = traitlets.Int(read_only=True).tag(sync=True)
    stride = traitlets.Int(read_only=True).tag(sync=True)
    sides = traitlets.List(traitlets.Int(), read_only=True).tag(sync=True)
    layers = traitlets.List(traitlets.Dict(), read_only=True).tag(sync=True)
    answers = traitlets.List(traitlets.List(), read_only=True).tag(sync=True)
    names = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    side = traitlets.Int().tag(sync=True)
    place = traitlets.Tuple(traitlets.Int(), traitlets.Int(), default_value=(0, 0)).tag(sync=True)

    def __init__(self, network: OverFeat, image: Tensor, names: Sequence[str], **traits: Any) -> None:
        sides = [network.side + step * network.stride for step in STEPS]
        sides = [side for side in sides if side <= min(image.shape[1:])]
        if not sides:
            raise ValueError(f"the image must have {network.side} pixels a side or more, got {tuple(image.shape)}")
        if len(names) != network.num_classes - 1:
            raise ValueError(f"{network.num_classes - 1} classes besides background, but {len(names)} names")
        corner = image[:, : sides[-1], : sides[-1]]
        with torch.no_grad():
            score, label = network(corner[None])[0][0].softmax(dim=0).max(dim=0)  # (rows, columns)
        drawn = {
            "image": image_url((255 * corner).round().byte()),
            "window": network.side,
            "stride": network.stride,
            "sides": sides,
            "layers": chain(network),
            # As a network's last digits are not the same everywhere, two are shown.
            "answers": [
                [[k, round(s, 2)] for k, s in zip(*row, strict=True)]
                for row in zip(label.tolist(), score.tolist(), strict=True)
            ],
            "names": [*map(str, names)],
        }
        for name, value in {**drawn, "side": sides[min(1, len(sides) - 1)]}.items():
            self.set_trait(name, value)
        super().__init__(**traits)

    @traitlets.validate("side")
    def _check_side(self, proposal: Any) -> int:
        if proposal.value not in self.sides:
            raise traitlets.TraitError(f"side must be one of {self.sides}; got {proposal.value}")
        return int(proposal.value)

    @traitlets.validate("place")
    def _check_place(self, proposal: Any) -> tuple[int, int]:
        if not all(0 <= at < self.count for at in proposal.value):
            raise traitlets.TraitError(
                f"place must be (row, column), each 0 to {self.count - 1} on {self.side} pixels; got {proposal.value}"
            )
        row, column = proposal.value
        return row, column

    @traitlets.observe("side")
    def _stay_inside(self, change: Any) -> None:
        row, column = self.place
        self.place = (min(row, self.count - 1), min(column, self.count - 1))

    @property
    def count(self) -> int:
        """In how many places along a side of the image a window fits."""
        return places(self.side, self.window, self.stride)

    @property
    def maps(self) -> list[tuple[int, int]]:
        """For each layer, the answers last: the cells along a side of a window, and in a stride."""
        found, cells, step = [], self.window, 1
        for layer in self.layers:
            cells, step = (cells - layer["kernel"]) // layer["stride"] + 1, step * layer["stride"]
            found.append((cells, self.stride // step))
        return found

    @property
    def new_cells(self) -> list[tuple[int, int]]:
        """For each layer, height and width of the block of cells that no earlier window had."""
        row, column = self.place
        return [(step if row else cells, step if column else cells) for cells, step in self.maps]

    @property
    def computed(self) -> list[int]:
        """For each layer, how many cells the windows up to this one have, each counted once."""
        row, column = self.place
        totals = []
        for (cells, step), (height, width) in zip(self.maps, self.new_cells, strict=True):
            above = (cells + (self.count - 1) * step) * (cells + (row - 1) * step) if row else 0
            beside = (cells + (column - 1) * step) * height if column else 0
            totals.append(above + beside + height * width)
        return totals

    @property
    def costs(self) -> tuple[int, int]:
        """Multiplications up to this window: with every window for itself, and with every number computed once."""
        each = [layer["each"] for layer in self.layers]
        window = sum(cells**2 * cost for (cells, _), cost in zip(self.maps, each, strict=True))
        once = sum(cells * cost for cells, cost in zip(self.computed, each, strict=True))
        return (self.place[0] * self.count + self.place[1] + 1) * window, once

    def describe(self) -> str:
        """The window, its answer and the counts, in words."""
        row, column = self.place
        label, score = self.answers[row][column]
        alone, once = self.costs
        number = row * self.count + column + 1
        blocks = ", ".join(
            f"{height * width} of {cells * cells}"
            for (height, width), (cells, _) in zip(self.new_cells, self.maps, strict=True)
        )
        name = self.names[label - 1] if label else "background"
        return (
            f"An image of {self.side} x {self.side} pixels, and on it window {number} of {self.count**2}, in row "
            f"{row}, column {column}, which is called {name} ({score:.2f}). "
            f"Of its cells on the maps, from layer to layer, {blocks} are new. "
            f"Up to here the windows cost {alone:,} multiplications one by one, "
            f"{once:,} if every number is computed once."
        )

    def picture(self) -> Figure:
        """The image and the maps, each with the window and what is new of it."""
        figure = Figure(figsize=(6.4, 1.5), layout="constrained")
        axes = figure.subplots(1, len(self.layers) + 1)
        blocks = [(self.window, self.stride), *self.maps]
        news = [(self.stride if at else self.window for at in self.place), *self.new_cells]
        row, column = self.place
        for k, (ax, (cells, step), (height, width)) in enumerate(zip(axes, blocks, news, strict=True)):
            whole = cells + (self.count - 1) * step
            if k == 0:
                ax.imshow(open_url(self.image).crop((0, 0, whole, whole)), extent=(0, whole, whole, 0))
            left, top = column * step, row * step
            corner = left + cells - width, top + cells - height
            ax.add_patch(Rectangle((left, top), cells, cells, color=PALETTE[0], alpha=0.35 if k else 0))
            ax.add_patch(Rectangle(corner, width, height, color=PALETTE[1], alpha=0.9 if k else 0.4))
            ax.add_patch(Rectangle((left, top), cells, cells, fill=False, linewidth=1.5))
            ax.set(xlim=(0, whole), ylim=(whole, 0), xticks=[], yticks=[], aspect="equal")
            ax.spines[:].set_visible(True)
            ax.set_title(f"{whole} x {whole}", fontsize=8)
        return figure


def chain(network: OverFeat) -> list[dict[str, int]]:
    """What the sizes of the maps and their costs follow from: {"kernel", "stride", "each"} of each layer.

    Raises:
        ValueError: if the layers are no chain that leads to one answer for a window, or if there are cells between
            neighbouring windows that belong to neither.
    """
    layers = []
    for module in [*network.features.modules(), network.class_head]:
        if isinstance(module, nn.Conv2d):
            reach = module.dilation[0] * (module.kernel_size[0] - 1) + 1
            layers.append({"kernel": reach, "stride": module.stride[0], "each": module.weight.numel()})
        elif isinstance(module, nn.MaxPool2d):
            kernel, stride = (n if isinstance(n, int) else n[0] for n in (module.kernel_size, module.stride))
            layers.append({"kernel": kernel, "stride": stride, "each": 0})
    cells, step = [network.side], 1
    for layer in layers:
        cells.append((cells[-1] - layer["kernel"]) // layer["stride"] + 1)
    if cells[-1] != 1:
        raise ValueError(f"the layers must be a chain that leaves one cell of a window, not {cells[-1]}: {layers}")
    for layer, own in zip(layers, cells[1:], strict=True):
        step *= layer["stride"]
        if own * step < network.stride:
            raise ValueError(f"windows {network.stride} pixels apart, of {own} x {own} cells, leave cells between them")
    return layers
