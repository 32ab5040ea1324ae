"""Anatomy of a network: its layers in order, with their sizes, parameters, steps and receptive fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssdlib.backbones import VGG16, L2Norm, Tiny
from ssdlib.model import SSD, PredictionConvolutions

# Layers that look at one cell only, and so leave the receptive field as it is.
_OF_ONE_CELL = (nn.BatchNorm2d, nn.ReLU, L2Norm)


@dataclass(frozen=True)
class Layer:
    """A convolution (with what follows it up to the next one) or a pooling.

    Attributes:
        name: as the paper calls it, such as "conv4_3".
        module: its path in the model, for `model.get_submodule`.
        kind: "convolution" or "pooling".
        kernel, stride, padding, dilation: in cells of its input.
        shape: (C, H, W) of its output.
        parameters: weights and biases, those of the normalisation behind it included.
        step: distance of neighbouring cells of its output, in pixels of the image.
        field: side of a cell's theoretical receptive field, in pixels of the image.
        start: centre of the receptive field of row 0 or column 0, in pixels from the border.
    """

    name: str
    module: str
    kind: str
    kernel: int
    stride: int
    padding: int
    dilation: int
    shape: tuple[int, int, int]
    parameters: int
    step: int
    field: int
    start: float

    def receptive_field(self, row: int, column: int) -> tuple[float, float, float, float]:
        """The pixels that a cell can depend on, xyxy, not cut at the border of the image."""
        x, y, half = self.start + column * self.step, self.start + row * self.step, self.field / 2
        return x - half, y - half, x + half, y + half


@dataclass(frozen=True)
class Anatomy:
    """What `anatomy` finds.

    Attributes:
        layers: of the backbone, in the order of the computation.
        maps: for each feature map, which of the layers it comes from.
        heads: for each feature map, the convolutions that predict its offsets and its class scores.
    """

    layers: tuple[Layer, ...]
    maps: tuple[int, ...]
    heads: tuple[tuple[Layer, Layer], ...]


@torch.no_grad()
def anatomy(model: SSD) -> Anatomy:
    """Look into a network while an empty image passes through it.

    Built on the device "meta" (`with torch.device("meta")`) a network needs neither memory nor time for this.

    Args:
        model: an SSD whose backbone is a chain of convolutions and poolings: VGG-16 or the tiny one.

    Raises:
        ValueError: if the backbone has other layers, or is no chain.

    Source: the rule for receptive fields is the one of the chapter on the network: r' = r + d (k - 1) j, j' = s j.
    """
    found: list[tuple[str, nn.Module, tuple[int, ...], tuple[int, ...]]] = []
    made: dict[int, tuple[Tensor, int]] = {}  # by identity of the output: the tensor, kept alive, and its layer
    maps: list[int] = []
    parameters: list[int] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                found.append((path, module, tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))
                parameters.append(0)
            elif not isinstance(module, _OF_ONE_CELL):
                raise ValueError(f"{path}: the receptive field behind a {type(module).__name__} is not known")
            parameters[-1] += sum(parameter.numel() for parameter in module.parameters())
            made[id(output)] = output, len(found) - 1

        return hook

    def note_maps(module: nn.Module, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        maps.extend(made[id(x)][1] for x in output)

    hooks = [
        layer.register_forward_hook(note(f"backbone.{path}"))
        for path, layer in model.backbone.named_modules()
        if not list(layer.children())
    ]
    hooks.append(model.backbone.register_forward_hook(note_maps))
    training, size = model.training, model.recipe.image_size
    try:
        model.eval()(torch.zeros(1, 3, size, size, device=model.priors.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()

    layers: list[Layer] = []
    names = _names(model.backbone, [path for path, *_ in found])
    for name, own, (path, layer, before, shape) in zip(names, parameters, found, strict=True):
        if layers and layers[-1].shape != before:
            raise ValueError(f"{path}: the backbone is no chain, {layers[-1].shape} is followed by {before}")
        layers.append(_after(layers[-1] if layers else None, name, path, layer, own, shape))
    heads = []
    for k, number in enumerate(maps):
        pair = []
        for head in ("offset_head", "class_head"):
            convolutions = model.get_submodule(head)
            if not isinstance(convolutions, PredictionConvolutions):
                raise ValueError(f"{head}: {type(convolutions).__name__} has no convolution for each map")
            path = f"{head}.convolutions.{k}"
            one: Any = convolutions.convolutions[k]
            shape = (one.out_channels, *layers[number].shape[1:])
            own = sum(parameter.numel() for parameter in one.parameters())
            pair.append(_after(layers[number], head.replace("_", " "), path, one, own, shape))
        heads.append((pair[0], pair[1]))
    return Anatomy(tuple(layers), tuple(maps), tuple(heads))


def _after(last: Layer | None, name: str, path: str, layer: Any, parameters: int, shape: tuple[int, ...]) -> Layer:
    """The layer behind `last` (the image, if None)."""
    kernel, stride, padding, dilation = (_one(getattr(layer, key), path) for key in _GEOMETRY)
    step, field, start = (last.step, last.field, last.start) if last else (1, 1, 0.5)
    reach = dilation * (kernel - 1)
    return Layer(
        name=name,
        module=path,
        kind="convolution" if isinstance(layer, nn.Conv2d) else "pooling",
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        shape=(shape[0], shape[1], shape[2]),
        parameters=parameters,
        step=step * stride,
        field=field + reach * step,
        start=start + (reach / 2 - padding) * step,
    )


_GEOMETRY = ("kernel_size", "stride", "padding", "dilation")


def _one(value: Any, path: str) -> int:
    """The same number for rows and columns."""
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"{path}: rows and columns differ, {value}")
    return int(values.pop())


def _names(backbone: nn.Module, paths: list[str]) -> list[str]:
    """The paper's names of the layers of a VGG-16; "conv2_1" is the first of stage 2 of the tiny network."""
    names = []
    block, number = 1, 0
    for path in paths:
        if isinstance(backbone, Tiny) and (place := re.search(r"stages\.(\d+)\.(\d+)", path)):
            names.append(f"conv{int(place[1]) + 1}_{int(place[2]) + 1}")
        elif isinstance(backbone, VGG16) and (place := re.search(r"auxiliary\.(\d+)\.(\d+)", path)):
            names.append(f"conv{int(place[1]) + 8}_{int(place[2]) + 1}")
        elif isinstance(backbone, VGG16) and isinstance(backbone.get_submodule(path[9:]), nn.MaxPool2d):
            names.append(f"pool{block}")
            block, number = block + 1, 0
        elif isinstance(backbone, VGG16):
            number += 1
            names.append(f"conv{block}_{number}" if block < 6 else f"conv{5 + number}")
        else:
            names.append(path)
    return names
