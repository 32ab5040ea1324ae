"""AnatomyExplorer: a network layer by layer, from the image to the predictions for every prior."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import traitlets
from matplotlib.figure import Figure

from ssdlib.data import VOCDataset, sample_root
from ssdlib.model import SSD, ssd300_vgg16
from ssdlib.plotting import color_of
from ssdlib.widgets.activations import CHANNELS, look_inside
from ssdlib.widgets.anatomy import Anatomy, Layer, anatomy
from ssdlib.widgets.base import BookWidget, image_url, is_number, open_url
from ssdlib.zoo.checkpoint import demo_model

TITLES = {"ssd300_vgg16": "SSD300"}


class AnatomyExplorer(BookWidget):
    """The layers of a trained network with their activations on an image, and those of SSD300 with their sizes.

    Args:
        model: a trained SSD on a chain of convolutions (see `ssdlib.widgets.anatomy.anatomy`); by default the book's
            small network.
        image: a file, a tensor (3, H, W), a PIL image, or its address; by default a scene of the sample.
        traits: any of the attributes.

    Attributes:
        network: "ssd_tiny" (the architecture of the model) or "ssd300_vgg16".
        layer: 0 is the image, 1, 2, ... are the layers of the backbone, and one comes after the last: all predictions.
        point: (x, y) in fractions of the image; the cell there is the chosen one, in every layer.
        channel: which of the layer's pictures is shown large, from 0 on: the channels that vary most, then the object
            score. At the end it is the map whose scores are shown.
        image: the picture, as the address that holds it.
        networks: what is drawn, from `ssdlib.widgets.anatomy` and a pass of the model; it cannot be set.

    Example:
        >>> explorer = AnatomyExplorer()
        >>> explorer.layer = 6
        >>> explorer.current.name, explorer.current.shape, explorer.current.field
        ('conv1_6', (96, 32, 32), 55)
        >>> explorer.point = (0.2, 0.6)
        >>> explorer.cell, explorer.current.receptive_field(*explorer.cell)
        ((19, 6), (21.0, 125.0, 76.0, 180.0))
    """

    _module = "anatomy_explorer"
    _from_network = True

    title = traitlets.Unicode("Anatomy explorer: from the image to the predictions").tag(sync=True)
    image = traitlets.Unicode().tag(sync=True)
    networks = traitlets.List(traitlets.Dict(), read_only=True).tag(sync=True)
    network = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    point = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.5, 0.5)).tag(sync=True)
    channel = traitlets.Int(0, min=0, max=CHANNELS).tag(sync=True)

    def __init__(self, model: SSD | None = None, image: Any = None, **traits: Any) -> None:
        model = demo_model() if model is None else model
        if not (isinstance(image, str) and image.startswith("data:")):
            image = image_url(VOCDataset(sample_root(), "test").image_path(0) if image is None else image)
        own = model.architecture or type(model.backbone).__name__
        self._found = {own: anatomy(model), "ssd300_vgg16": _ssd300()[1]}
        pictures = look_inside(model, open_url(image), self._found[own])
        drawn = [drawn_network(own, model, self._found[own], pictures)]
        if own != "ssd300_vgg16":
            drawn.append(drawn_network("ssd300_vgg16", *_ssd300(), {}))
        self.set_trait("networks", drawn)
        super().__init__(**{"image": image, "network": own, **traits})

    @traitlets.validate("network")
    def _check_network(self, proposal: Any) -> str:
        self._layers(proposal.value)
        return str(proposal.value)

    @traitlets.validate("layer")
    def _check_layer(self, proposal: Any) -> int:
        last = len(self._layers(self.network)) + 1
        if not 0 <= proposal.value <= last:
            raise traitlets.TraitError(
                f"layer must be 0 (the image) to {last} (all predictions) for {self.network!r}; got {proposal.value}"
            )
        return int(proposal.value)

    @traitlets.validate("point")
    def _check_point(self, proposal: Any) -> tuple[float, float]:
        x, y = proposal.value
        if not all(is_number(side) and 0 <= side <= 1 for side in (x, y)):
            raise traitlets.TraitError(f"point must be (x, y) in fractions of the image, 0 to 1; got {proposal.value}")
        return float(x), float(y)

    @traitlets.observe("network")
    def _stay_inside(self, change: Any) -> None:
        self.layer = min(self.layer, len(self._layers(self.network)) + 1)

    def _layers(self, network: str) -> tuple[Layer, ...]:
        if network not in self._found:
            raise traitlets.TraitError(f"network must be one of {list(self._found)}; got {network!r}")
        return self._found[network].layers

    @property
    def current(self) -> Layer | None:
        """The layer that is shown; None for the image and for the predictions."""
        layers = self._layers(self.network)
        return layers[self.layer - 1] if 0 < self.layer <= len(layers) else None

    @property
    def cell(self) -> tuple[int, int]:
        """Row and column of the cell at the point: of the layer, or of the image, or of the map shown at the end."""
        found, drawn = self._found[self.network], self._drawn()
        side = drawn["size"] if self.layer == 0 else found.layers[self._shown_layer()].shape[1]
        x, y = self.point
        return min(int(y * side), side - 1), min(int(x * side), side - 1)

    def _shown_layer(self) -> int:
        found = self._found[self.network]
        if self.layer <= len(found.layers):
            return self.layer - 1
        return found.maps[min(self.channel, len(found.maps) - 1)]

    def _drawn(self) -> dict[str, Any]:
        return next(each for each in self.networks if each["name"] == self.network)

    def describe(self) -> str:
        """The network from end to end, and the layer that is shown, in words."""
        drawn = self._drawn()
        maps = [each for each in drawn["layers"] if each["map"] >= 0]
        sides = ", ".join(f"{each['shape'][1]} x {each['shape'][2]}" for each in maps)
        sentence = (
            f"The layers of {self.network} as bars, from the image of {drawn['size']} x {drawn['size']} pixels to "
            f"maps of {sides} cells, which give {drawn['priors']} x (4 + {drawn['classes']}) predictions."
        )
        if self.current is None:
            return sentence
        c, h, w = self.current.shape
        field, (row, column) = self.current.field, self.cell
        return (
            f"{sentence} Shown is {self.current.name}: {c} x {h} x {w}, {self.current.parameters} parameters. The cell "
            f"in row {row}, column {column} has a receptive field of {field} x {field} pixels."
        )

    def picture(self) -> Figure:
        """The layers as bars as high as their maps; those that predict are coloured."""
        found = self._found[self.network]
        figure = Figure(figsize=(5.6, 2.8), layout="constrained")
        ax = figure.add_subplot()
        for number, layer in enumerate(found.layers):
            k = found.maps.index(number) if number in found.maps else None
            ax.bar(number, layer.shape[1], color="0.8" if k is None else color_of(k + 1), width=0.8)
            if k is not None:
                ax.text(number, layer.shape[1] * 1.1, str(layer.shape[1]), ha="center", fontsize=8)
        ax.set_xticks(range(len(found.layers)), [layer.name for layer in found.layers], rotation=90, fontsize=7)
        ax.set_yscale("log", base=2)
        ax.set_ylabel("cells on a side")
        ax.set_title(f"{self.network}: coloured maps predict", fontsize=9)
        return figure


@cache
def _ssd300() -> tuple[SSD, Anatomy]:
    with torch.device("meta"):
        model = ssd300_vgg16(21)
        return model, anatomy(model)


def drawn_network(name: str, model: SSD, found: Anatomy, pictures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All of a network that the page needs."""
    recipe = model.recipe
    layers = []
    for number, layer in enumerate(found.layers):
        k = found.maps.index(number) if number in found.maps else -1
        heads = found.heads[k] if k >= 0 else ()
        layers.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "shape": list(layer.shape),
                "parameters": layer.parameters,
                "step": layer.step,
                "field": layer.field,
                "start": layer.start,
                "map": k,
                "per_cell": recipe.priors_per_cell[k] if k >= 0 else 0,
                "first": recipe.map_slices()[k].start if k >= 0 else 0,
                "head_parameters": sum(head.parameters for head in heads),
                "head_field": heads[0].field if heads else 0,
                **pictures.get(layer.name, {}),
            }
        )
    return {
        "name": name,
        "title": TITLES.get(name, name),
        "size": recipe.image_size,
        "classes": model.num_classes,
        "priors": recipe.num_priors,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained": bool(pictures),
        "colors": pictures.get("image", {}).get("picture", ""),
        "layers": layers,
    }
