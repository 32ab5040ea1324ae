"""Backbones: convolutional networks that turn an image into the feature maps that SSD predicts from.

Each backbone returns a list of feature maps, finest first, and says their channels in `out_channels`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, mobilenet_v3_large
from torchvision.ops import Conv2dNormActivation

# Output channels of VGG-16's convolutions ("D" of the paper's table 1); "M" is a 2 x 2 max-pooling.
_VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
_CONV4_3 = 13  # how many entries of _VGG16 come up to conv4_3


class L2Norm(nn.Module):
    """Scale every cell's feature vector to a learned length per channel, 20 to begin with.

    conv4_3 has much larger activations than the deeper maps; without this its gradients drown the others.

    Source: Liu et al., ParseNet (2015); used by SSD on conv4_3.
    """

    def __init__(self, channels: int, initial: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W). Computed in float32 (the sum of squares overflows in float16)."""
        # eps keeps a cell whose activations are all zero (after ReLU that happens) at zero instead of NaN.
        unit = F.normalize(x.float(), dim=1, eps=1e-12)
        return (unit * self.scale.float()[:, None, None]).to(x.dtype)


def _conv(inputs: int, outputs: int, kernel: int, norm: bool, **options: Any) -> nn.Sequential:
    """Convolution, optional batch normalisation, ReLU. Padding keeps the size unless said otherwise."""
    options.setdefault("padding", kernel // 2)
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, bias=not norm, **options)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class VGG16(nn.Module):
    """VGG-16 as SSD uses it, and the auxiliary convolutions after it.

    Differences to the classifier: pool3 rounds up (75 -> 38), pool5 is 3 x 3 with stride 1, fc6 and fc7 are
    convolutions (conv6 with dilation 6, conv7), fc8 is gone, conv4_3 is L2-normalised.

    Args:
        size: side of the input image, 300 or 512; it decides the auxiliary convolutions.
        batch_norm: batch normalisation after every convolution, for training from scratch.

    Source: Liu et al. (2016), section 3, and the original code for 512; Simonyan and Zisserman (2015).
    """

    def __init__(self, size: int = 300, *, batch_norm: bool = False) -> None:
        super().__init__()
        if size not in (300, 512):
            raise ValueError(f"VGG16 features exist for images of 300 and 512 pixels, not {size}")
        layers: list[nn.Module] = []
        channels, pools = 3, 0
        for entry in _VGG16:
            if isinstance(entry, str):
                pools += 1
                layers.append(nn.MaxPool2d(2, stride=2, ceil_mode=pools == 3))
            else:
                layers.append(_conv(channels, entry, 3, batch_norm))
                channels = entry
        self.to_conv4_3 = nn.Sequential(*layers[:_CONV4_3])
        self.l2_norm = L2Norm(512)
        self.to_conv7 = nn.Sequential(
            *layers[_CONV4_3:],
            nn.MaxPool2d(3, stride=1, padding=1),  # pool5
            _conv(512, 1024, 3, batch_norm, padding=6, dilation=6),  # conv6, from fc6
            _conv(1024, 1024, 1, batch_norm),  # conv7, from fc7
        )
        self.auxiliary = nn.ModuleList(
            nn.Sequential(
                _conv(inputs, squeezed, 1, batch_norm), _conv(squeezed, outputs, kernel, batch_norm, **shrink)
            )
            for inputs, squeezed, outputs, kernel, shrink in _auxiliary(size)
        )
        self.out_channels = (512, 1024, *(outputs for _, _, outputs, _, _ in _auxiliary(size)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, S, S), normalised -> feature maps; for S = 300 their sides are 38, 19, 10, 5, 3, 1."""
        x = self.to_conv4_3(x)  # (N, 512, 38, 38)
        maps = [self.l2_norm(x)]
        x = self.to_conv7(x)  # (N, 1024, 19, 19)
        maps.append(x)
        for block in self.auxiliary:
            x = block(x)  # (N, 512, 10, 10), (N, 256, 5, 5), (N, 256, 3, 3), (N, 256, 1, 1)
            maps.append(x)
        return maps

    def load_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of torchvision's `vgg16` or `vgg16_bn`, fc6 and fc7 included.

        Args:
            weights: the classifier's state dict ("features.0.weight", ..., "classifier.3.bias").

        Raises:
            KeyError: if a tensor is missing.
            ValueError: if a tensor has another shape than VGG-16's.
        """
        blocks = [layer for layer in (*self.to_conv4_3, *self.to_conv7) if isinstance(layer, nn.Sequential)]
        ours = [layer for block in blocks[:13] for layer in block if not isinstance(layer, nn.ReLU)]
        # By number, not in the order of the dict: a safetensors file sorts "features.10" before "features.2".
        theirs = sorted(int(found[1]) for name in weights if (found := re.fullmatch(r"features\.(\d+)\.weight", name)))
        if len(theirs) != len(ours):
            raise ValueError(f"expected {len(ours)} convolutions and normalisations, the classifier has {len(theirs)}")
        conv_bias: Tensor | float = 0.0
        for layer, number in zip(ours, theirs, strict=True):
            name = f"features.{number}"
            _copy(layer.weight, weights[f"{name}.weight"], f"{name}.weight")
            if layer.bias is not None:
                _copy(layer.bias, weights[f"{name}.bias"], f"{name}.bias")
            else:
                conv_bias = weights[f"{name}.bias"]
            if isinstance(layer, nn.BatchNorm2d):
                # We have no bias before a normalisation: what it added is taken off the mean instead.
                _copy(layer.running_mean, weights[f"{name}.running_mean"] - conv_bias, f"{name}.running_mean")
                _copy(layer.running_var, weights[f"{name}.running_var"], f"{name}.running_var")
        # fc6: every 4th output, every 3rd row and column; fc7: every 4th output and every 4th input
        _load_fc(blocks[13], weights, "classifier.0", 7, (4, None, 3, 3))
        _load_fc(blocks[14], weights, "classifier.3", 1, (4, 4, None, None))


def _load_fc(
    block: nn.Sequential, weights: Mapping[str, Tensor], name: str, size: int, steps: tuple[int | None, ...]
) -> None:
    """Fill a convolution block with a fully connected layer, decimated; a normalisation after it takes the bias."""
    weight, bias = fc_to_conv(weights[f"{name}.weight"], weights[f"{name}.bias"], size)
    with_bias = block[1] if isinstance(block[1], nn.BatchNorm2d) else block[0]
    _copy(block[0].weight, decimate(weight, steps), f"{name}.weight, decimated,")
    _copy(with_bias.bias, decimate(bias, steps[:1]), f"{name}.bias, decimated,")


def _copy(ours: Any, theirs: Tensor, name: str) -> None:
    if theirs.shape != ours.shape:
        raise ValueError(f"{name} has shape {tuple(theirs.shape)}, VGG-16 needs {tuple(ours.shape)}")
    with torch.no_grad():
        ours.copy_(theirs)


def _auxiliary(size: int) -> list[tuple[int, int, int, int, dict[str, int]]]:
    """(inputs, channels of the 1 x 1, outputs, kernel, options) of conv8, conv9, ...: each shrinks the map."""
    halve, trim = {"stride": 2, "padding": 1}, {"padding": 0}
    first = [(1024, 256, 512, 3, halve), (512, 128, 256, 3, halve)]
    if size == 300:  # 19 -> 10 -> 5 -> 3 -> 1
        return [*first, (256, 128, 256, 3, trim), (256, 128, 256, 3, trim)]
    # 32 -> 16 -> 8 -> 4 -> 2 -> 1: the last kernel covers the 2 x 2 map and its border
    return [*first, (256, 128, 256, 3, halve), (256, 128, 256, 3, halve), (256, 128, 256, 4, {"padding": 1})]


def fc_to_conv(weight: Tensor, bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Write a fully connected layer over a (C, size, size) map as the convolution that computes the same.

    Args:
        weight: (outputs, C * size * size).
        bias: (outputs,).
        size: side of the map that the layer was made for.

    Returns:
        weight (outputs, C, size, size) and the same bias.

    Raises:
        ValueError: if the inputs do not divide into such a map.
    """
    outputs, inputs = weight.shape
    if inputs % (size * size):
        raise ValueError(f"{inputs} inputs are no map of {size} x {size} cells")
    return weight.reshape(outputs, inputs // (size * size), size, size), bias


def decimate(tensor: Tensor, steps: tuple[int | None, ...]) -> Tensor:
    """Keep every step-th entry of each dimension, from the first; None keeps the dimension whole.

    Args:
        tensor: any shape.
        steps: one for each dimension.

    Source: the "subsampled parameters from fc6 and fc7" of Liu et al. (2016), section 3.
    """
    if len(steps) != tensor.dim():
        raise ValueError(f"{tensor.dim()} dimensions need as many steps, got {steps}")
    return tensor[tuple(slice(None, None, step) for step in steps)]


class Tiny(nn.Module):
    """A small network for the CPU: five maps of 32, 16, 8, 4 and 2 cells from an image of 256 pixels."""

    out_channels = (96, 128, 96, 64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(  # 256 -> 128 -> 64 -> 32
                    _conv(3, 16, 3, True, stride=2),
                    _conv(16, 32, 3, True, stride=2),
                    _conv(32, 32, 3, True),
                    _conv(32, 64, 3, True, stride=2),
                    _conv(64, 96, 3, True),
                    _conv(96, 96, 3, True),
                ),
                nn.Sequential(_conv(96, 128, 3, True, stride=2), _conv(128, 128, 3, True)),  # 16
                nn.Sequential(_conv(128, 64, 1, True), _conv(64, 96, 3, True, stride=2)),  # 8
                nn.Sequential(_conv(96, 32, 1, True), _conv(32, 64, 3, True, stride=2)),  # 4
                nn.Sequential(_conv(64, 32, 1, True), _conv(32, 64, 3, True, stride=2)),  # 2
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, 256, 256), normalised -> maps (N, 96, 32, 32), (N, 128, 16, 16), ..., (N, 64, 2, 2)."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


# Its running averages change slowly, as is usual for mobile networks; the epsilon is part of what weights are for.
_lite_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


def lite_conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """One layer of SSDLite: convolution, batch normalisation, ReLU6 (at most 6).

    With a kernel of more than one cell, each channel is filtered on its own ("depthwise"): a ninth of the parameters
    of a 3 x 3 convolution for every channel that it does not mix. A 1 x 1 convolution before or after mixes them.

    Args:
        inputs, outputs: channels; they must be the same for a kernel of more than one cell.
        kernel: side in cells.
        stride: 2 halves the map, rounding up.

    Source: Sandler et al., MobileNetV2 (2018), section 6.2.
    """
    groups = inputs if kernel > 1 else 1
    return Conv2dNormActivation(
        inputs, outputs, kernel, stride, groups=groups, norm_layer=_lite_norm, activation_layer=nn.ReLU6
    )


def lite_init(module: nn.Module) -> None:
    """Start every convolution from a normal distribution of width 0.03 and without bias, as torchvision's SSDLite."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.03)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _mobile_maps(
    x: Tensor, blocks: nn.Sequential, c4: int, parts: nn.Sequential, auxiliary: nn.ModuleList
) -> list[Tensor]:
    """Maps inside block number `c4`, made of `parts`, after its expansion; at the end; after each auxiliary block."""
    expand, *shrink = parts
    for layer in (*blocks[:c4], expand):
        x = layer(x)
    maps = [x]  # (N, 672, 20, 20) of MobileNetV3 on 320 pixels
    for layer in (*shrink, *blocks[c4 + 1 :]):
        x = layer(x)
    maps.append(x)  # (N, 480, 10, 10)
    for block in auxiliary:
        x = block(x)  # (N, 512, 5, 5), (N, 256, 3, 3), (N, 256, 2, 2), (N, 128, 1, 1)
        maps.append(x)
    return maps


class MobileNetV3(nn.Module):
    """MobileNetV3-Large, by torchvision, and four auxiliary blocks: six maps for SSDLite on images of 320 pixels.

    The first map is taken inside the block that goes from 20 x 20 to 10 x 10 cells, after its expansion.

    Args:
        reduced_tail: the last blocks have half their channels, as for detection the many classes of ImageNet do not
            matter. Weights of the classifier fit only the full tail.

    Source: Howard et al., Searching for MobileNetV3 (2019), section 6.3; the layers of torchvision's SSDLite.
    """

    _C4 = 13  # the block of `features` in which the map shrinks to 10 x 10

    def __init__(self, *, reduced_tail: bool = True) -> None:
        super().__init__()
        self.features = mobilenet_v3_large(weights=None, norm_layer=_lite_norm, reduced_tail=reduced_tail).features
        last = 480 if reduced_tail else 960
        sizes = ((last, 512), (512, 256), (256, 256), (256, 128))
        self.auxiliary = nn.ModuleList(
            nn.Sequential(
                lite_conv(inputs, outputs // 2, 1),
                lite_conv(outputs // 2, outputs // 2, 3, stride=2),
                lite_conv(outputs // 2, outputs, 1),
            )
            for inputs, outputs in sizes
        )
        self.out_channels = (672, last, *(outputs for _, outputs in sizes))
        lite_init(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, 320, 320), normalised -> six maps; their sides are 20, 10, 5, 3, 2, 1."""
        return _mobile_maps(x, self.features, self._C4, self.features[self._C4].block, self.auxiliary)

    def load_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of torchvision's `mobilenet_v3_large`.

        Args:
            weights: the classifier's state dict ("features.0.0.weight", ...); its fully connected layers are left out.

        Raises:
            ValueError: if a tensor is missing or has another shape; those of ImageNet need the full tail.
        """
        _load_features(self.features, weights, "MobileNetV3 (is its tail reduced?)")


def same_padding(side: int, kernel: int, stride: int = 1) -> tuple[int, int]:
    """Cells to add before and after a side so that a convolution gives ceil(side / stride) of them, as TensorFlow does.

    Where their sum is odd, the one more comes after: with a kernel of 3 and a stride of 2, an even side is padded on
    the right and at the bottom only. PyTorch's `padding=1` is the same for odd sides alone; on even ones every cell
    looks at a place that is one pixel further up and left, and a network that was trained in the other way half works.

    Source: TensorFlow's `padding="SAME"` (documentation of `tf.nn.convolution`).
    """
    outputs = -(-side // stride)
    total = max((outputs - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution that is padded as in TensorFlow (see `same_padding`), whatever its `padding` says."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        rows, columns = (same_padding(x.shape[d], self.kernel_size[d - 2], self.stride[d - 2]) for d in (2, 3))
        return F.conv2d(F.pad(x, (*columns, *rows)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class ChannelBias(nn.Module):
    """What is left of a batch normalisation that was folded into the convolution before it: a bias for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x + self.bias[:, None, None]


class MobileNetV2(nn.Module):
    """MobileNetV2, by torchvision, and four auxiliary blocks: six maps for SSD on images of 300 pixels.

    The first map is taken inside block 13, which goes from 19 x 19 to 10 x 10 cells, after its expansion; the
    auxiliary blocks are whole convolutions, not those of SSDLite.

    Args:
        batch_norm: batch normalisation after every convolution, and PyTorch's padding, as in torchvision's classifier.
            Without it, biases and TensorFlow's padding, as in the programs that TensorFlow exports.

    Source: Sandler et al., MobileNetV2 (2018), table 2; Huang et al., Speed/accuracy trade-offs (2017), for the
    auxiliary layers.
    """

    _C4 = 14  # the block of `features` in which the map shrinks to 10 x 10: the stem is number 0
    out_channels = (576, 1280, 512, 256, 256, 128)

    def __init__(self, *, batch_norm: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if batch_norm else ChannelBias
        layer = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.ReLU6)
        self.features = mobilenet_v2(weights=None, norm_layer=norm).features
        sizes = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))
        self.auxiliary = nn.ModuleList(
            nn.Sequential(layer(inputs, squeezed, 1), layer(squeezed, outputs, 3, stride=2))
            for inputs, squeezed, outputs in sizes
        )
        if not batch_norm:
            _pad_as_tensorflow(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, 300, 300), normalised -> six maps; their sides are 19, 10, 5, 3, 2, 1."""
        return _mobile_maps(x, self.features, self._C4, self.features[self._C4].conv, self.auxiliary)

    def load_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of torchvision's `mobilenet_v2`; they need batch normalisation.

        Args:
            weights: the classifier's state dict ("features.0.0.weight", ...); its fully connected layer is left out.

        Raises:
            ValueError: if a tensor is missing or has another shape.
        """
        _load_features(self.features, weights, "MobileNetV2 (has it batch normalisation?)")


def _pad_as_tensorflow(network: nn.Module) -> None:
    """Turn each convolution with a stride into a `SameConv2d`; without, an odd kernel is padded evenly anyway."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
            layer.__class__ = SameConv2d  # weights, options and name stay; only `forward` is another


def _load_features(features: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Fill the convolutions of a classifier of torchvision from its state dict."""
    own = {name.removeprefix("features."): w for name, w in weights.items() if name.startswith("features.")}
    try:
        features.load_state_dict(own)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of this {what}: {error}") from error
