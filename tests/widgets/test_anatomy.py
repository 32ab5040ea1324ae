"""Anatomy of a network: receptive fields against gradients, sizes and parameters against the network itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ssdlib.backbones import L2Norm
from ssdlib.model import SSD, ssd300_vgg16, ssd512_vgg16, ssd_tiny, ssdlite320_mobilenet_v3
from ssdlib.priors import SSD300_VOC, SSD512_VOC
from ssdlib.widgets.anatomy import anatomy
from ssdlib.zoo.checkpoint import demo_model


def light(build: Callable[[int], SSD]) -> SSD:
    """A network on the device "meta", for its sizes."""
    with torch.device("meta"):
        return build(21)


def thin(module: nn.Module) -> None:
    """One channel everywhere, positive weights, means for maxima: each path from a pixel to a cell has a gradient."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            one = nn.Conv2d(1, 1, child.kernel_size, child.stride, child.padding, child.dilation, bias=False)  # type: ignore[arg-type]
            nn.init.constant_(one.weight, 1 / one.weight.numel())
            setattr(module, name, one)
        elif isinstance(child, nn.MaxPool2d):
            mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
            setattr(module, name, mean)
        elif isinstance(child, L2Norm | nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            thin(child)


@pytest.mark.parametrize("build", [ssd300_vgg16, ssd512_vgg16, ssd_tiny])
def test_receptive_fields_are_the_pixels_with_a_gradient(build: Callable[[int], SSD]) -> None:
    expected = anatomy(light(build)).heads
    model = build(2)
    thin(model.backbone)
    thin(model.offset_head)
    model.double()
    size = model.recipe.image_size
    pixels = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    maps = model.backbone(pixels)
    partly = 0
    for k, (side, x) in enumerate(zip(model.recipe.map_sizes, maps, strict=True)):
        predicted = model.offset_head.convolutions[k](x)  # type: ignore[union-attr, operator, index]
        assert predicted.shape[2:] == (side, side)
        for row, column in {(0, side - 1), (side // 2, side // 2), (side - 1, side // 3)}:
            (influence,) = torch.autograd.grad(predicted[0, 0, row, column], pixels, retain_graph=True)
            rows, columns = (influence[0, 0].sum(dim).nonzero() for dim in (1, 0))
            seen = [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]
            x_min, y_min, x_max, y_max = expected[k][0].receptive_field(row, column)
            assert seen == [max(x_min, 0), max(y_min, 0), min(x_max, size), min(y_max, size)], (k, row, column)
            partly += seen != [0, 0, size, size]
    assert partly > 5  # not only fields that cover the whole image


@pytest.mark.parametrize("build", [ssd300_vgg16, ssd512_vgg16, ssd_tiny])
def test_layers_hold_all_parameters_and_the_shapes_of_the_forward_pass(build: Callable[[int], SSD]) -> None:
    model = light(build)
    found = anatomy(model)
    of_all = [*found.layers, *(head for pair in found.heads for head in pair)]
    assert sum(layer.parameters for layer in of_all) == sum(parameter.numel() for parameter in model.parameters())
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in of_all:
        model.get_submodule(layer.module).register_forward_hook(
            lambda module, inputs, output, name=layer.module: shapes.update({name: tuple(output.shape[1:])})
        )
    size = model.recipe.image_size
    model(torch.zeros(1, 3, size, size, device="meta"))
    assert shapes == {layer.module: layer.shape for layer in of_all}


def test_names_are_those_of_the_paper() -> None:
    for build, recipe in ((ssd300_vgg16, SSD300_VOC), (ssd512_vgg16, SSD512_VOC)):
        found = anatomy(light(build))
        names = ["conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2", "conv12_2"]
        assert [found.layers[i].name for i in found.maps] == names[: len(recipe.map_sizes)]
        assert len({layer.name for layer in found.layers}) == len(found.layers)
    with torch.device("meta"):
        normalised = anatomy(ssd300_vgg16(21, batch_norm=True))
    assert [layer.name for layer in normalised.layers] == [layer.name for layer in anatomy(light(ssd300_vgg16)).layers]


def test_the_model_is_left_as_it_was() -> None:
    model = demo_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    anatomy(model)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_backbone_with_unknown_layers_is_refused() -> None:
    with torch.device("meta"):
        model = ssdlite320_mobilenet_v3(3)
    with pytest.raises(ValueError, match=r"backbone\.features.*Hardswish"):
        anatomy(model)
    assert not any(module._forward_hooks for module in model.modules())
