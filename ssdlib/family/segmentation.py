"""Semantic segmentation: a class for every pixel, by a network that goes down and up again, or stays at full size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ssdlib.backbones import Tiny
from ssdlib.family.pixel_metrics import IGNORE
from ssdlib.model import SSD

Up = Literal["unpool", "transposed", "skip"]
WEIGHTS = Path(__file__).parent / "weights"


# ---- up again -----------------------------------------------------------------------------------------------------


def unpool_plainly(values: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """Max-unpooling, cell by cell: each maximum goes back to where it came from, and everywhere else is 0.

    Args:
        values: (C, h, w).
        places: (C, h, w) int64, where each maximum stood in its channel, counted row by row: row * width + column, as
            `F.max_pool2d(..., return_indices=True)` gives them.
        height, width: of the map before the pooling.

    Returns:
        (C, height, width). Of two maxima at one place, which overlapping windows can have, the last one counts.

    Raises:
        ValueError: if the shapes differ, or a place is outside the map.

    Source: Zeiler et al., Adaptive Deconvolutional Networks (2011); Badrinarayanan et al., SegNet (2017).
    """
    if values.dim() != 3 or places.shape != values.shape:
        raise ValueError(f"need values and places (C, h, w), got {tuple(values.shape)} and {tuple(places.shape)}")
    result = values.new_zeros(len(values), height, width)
    for channel in range(values.shape[0]):
        for value, place in zip(values[channel].flatten(), places[channel].flatten().tolist(), strict=True):
            if not 0 <= place < height * width:
                raise ValueError(f"there is no place {place} in a map of {height} x {width}")
            result[channel, place // width, place % width] = value
    return result


def transposed_conv_plainly(maps: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Transposed convolution, cell by cell: each cell stamps the kernel onto the larger map; stamps add up.

    A convolution gathers: one cell of the result from a window of the input. This one scatters: a window of the result
    from one cell of the input. Written as matrices, one is the other transposed; nothing is undone ("deconvolution" is
    a misnomer).

    Args:
        maps: (C, h, w).
        weight: (C, D, k, k), a stamp of D channels for each channel of the input.
        stride: how far two neighbouring stamps lie apart.
        padding: so much is cut off each border of the result, as the convolution the other way would add it.

    Returns:
        (D, (h - 1) * stride + k - 2 * padding, likewise for the width).

    Raises:
        ValueError: if the shapes do not fit together or nothing is left.

    Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning (2016), chapter 4.
    """
    if maps.dim() != 3 or weight.dim() != 4 or len(maps) != len(weight) or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"need maps (C, h, w), weight (C, D, k, k): {tuple(maps.shape)}, {tuple(weight.shape)}")
    (_, h, w), (_, outputs, k, _) = maps.shape, weight.shape
    height, width = (h - 1) * stride + k, (w - 1) * stride + k
    if stride < 1 or padding < 0 or min(height, width) <= 2 * padding:
        raise ValueError(f"stride {stride} and padding {padding} leave nothing of {height} x {width} cells")
    result = maps.new_zeros(outputs, height, width)
    for y in range(h):
        for x in range(w):
            stamp = torch.einsum("c,cdij->dij", maps[:, y, x], weight)  # (D, k, k)
            result[:, y * stride : y * stride + k, x * stride : x * stride + k] += stamp
    return result[:, padding : height - padding, padding : width - padding]


# ---- networks -----------------------------------------------------------------------------------------------------


def full_size(layers: nn.Module) -> nn.Module:
    """The same convolutions without strides: what they said of every s-th pixel, they say of every pixel.

    Where a layer would have skipped every second cell, all layers after it skip cells with their kernels instead: a
    stride of 2 becomes a dilation by 2 from there on. So conv6 of SSD got its dilation when pool5 lost its stride.

    Args:
        layers: a chain of convolutions with odd kernels that are padded to keep the size (but for the stride), and of
            layers that work on single cells; they are copied.

    Returns:
        (N, C, H, W) -> (N, D, H, W); its cells [::s, ::s] are the output of `layers`, whose stride is s.

    Raises:
        ValueError: if there is a pooling or a layer that enlarges, or a convolution with other padding.

    Source: Holschneider et al. (1989), "algorithme a trous"; Long et al. (2015), section 3.2; Chen et al., DeepLab.
    """
    layers = copy.deepcopy(layers).eval()
    dilation = 1
    for layer in layers.modules():
        if type(layer).__module__ == nn.MaxPool2d.__module__ or isinstance(layer, nn.Upsample | nn.ConvTranspose2d):
            raise ValueError(f"{layer} is no convolution")
        if isinstance(layer, nn.Conv2d):
            reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            padded = tuple(r // 2 for r in reach)
            if any(r % 2 for r in reach) or layer.padding != padded or layer.stride[0] != layer.stride[1]:
                raise ValueError(f"{layer} would change the size without its stride")
            layer.dilation = tuple(d * dilation for d in layer.dilation)
            layer.padding = tuple(p * dilation for p in padded)
            dilation *= layer.stride[0]
            layer.stride = (1, 1)
    return layers


def enlarge(logits: Tensor, factor: int) -> Tensor:
    """(N, C, h, w) -> (N, C, h * factor, w * factor), between cells by straight lines.

    Cell i of a padded convolution with stride s looks at the pixels around s * i, and there its value stays; beyond the
    last cell its value goes on.
    """
    height, width = logits.shape[2:]
    more = F.pad(logits, (0, 1, 0, 1), mode="replicate")
    size = (height * factor + 1, width * factor + 1)
    return F.interpolate(more, size=size, mode="bilinear", align_corners=True)[:, :, :-1, :-1]


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Decoder(nn.Module):
    """The way up, from a map of 8 x 8 cells to one of 64 x 64 (of an image of 256 pixels).

    Args:
        num_classes: background counted.
        up: "unpool" puts each value where the encoder's map of that channel is largest among the 2 x 2 cells;
            "transposed" learns the way up; "skip" learns it, and gets the encoder's map of each size beside its own.

    Source: Badrinarayanan et al., SegNet (2017), for "unpool" (the maxima there are those of the encoder's poolings;
    this encoder has strides); Noh et al. (2015) for "transposed"; Ronneberger et al., U-Net (2015), for "skip".
    """

    ENCODER = (96, 128, 96, 32)
    """Channels of the encoder's maps, coarsest first."""

    def __init__(self, num_classes: int, up: Up) -> None:
        super().__init__()
        # To unpool, each channel needs one of the encoder's that says where.
        self.up, channels = up, (64, 48, 32) if up == "skip" else self.ENCODER[1:]
        self.first = _conv(self.ENCODER[0], channels[0], 1)
        grow = [nn.Identity() if up == "unpool" else nn.ConvTranspose2d(c, c, 2, stride=2) for c in channels]
        self.grow = nn.ModuleList(grow)
        beside = self.ENCODER[1:] if up == "skip" else (0, 0, 0)
        after = (*channels[1:], channels[-1])
        self.mix = nn.ModuleList(_conv(a + b, c) for a, b, c in zip(channels, beside, after, strict=True))
        self.head = nn.Conv2d(channels[-1], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, 96, h, w), (N, 128, 2 h, 2 w), ..., (N, 32, 8 h, 8 w) -> logits (N, num_classes, 8 h, 8 w)."""
        x = self.first(maps[0])
        for grow, mix, finer in zip(self.grow, self.mix, maps[1:], strict=True):
            if self.up == "unpool":
                _, places = F.max_pool2d(finer, 2, return_indices=True)
                x = F.max_unpool2d(x, places, [2, 2])
            else:
                x = grow(x)
            x = mix(torch.cat((x, finer), dim=1) if self.up == "skip" else x)
        logits: Tensor = self.head(x)
        return logits


class Segmenter(nn.Module):
    """Down and up: the first layers of a detector as they are, and a decoder that doubles their map again and again.

    Args:
        detector: an `ssd_tiny`, whose backbone and normalisation are shared and are not to be trained.
        num_classes, up: of the :class:`Decoder`.

    Source: Long et al., Fully Convolutional Networks (2015).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: SSD, num_classes: int, up: Up = "skip") -> None:
        super().__init__()
        assert isinstance(detector.backbone, Tiny)
        self.encoder = detector.backbone.stages
        self.register_buffer("mean", detector.mean)
        self.register_buffer("std", detector.std)
        self.decoder = Decoder(num_classes, up)

    def encode(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) floats in 0..1 -> the encoder's maps, coarsest first.

        Raises:
            ValueError: if a side is no multiple of 32.
        """
        if images.shape[2] % 32 or images.shape[3] % 32:
            raise ValueError(f"sides must be multiples of 32: {images.shape[2]} x {images.shape[3]}")
        first, second, third = self.encoder[:3]
        assert isinstance(first, nn.Sequential)
        maps = [(images - self.mean) / self.std]
        for part in (first[:3], first[3:], second, third):
            maps.append(part(maps[-1]))
        return maps[:0:-1]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) floats in 0..1, sides multiples of 32 -> logits (N, num_classes, H, W)."""
        return enlarge(self.decoder(self.encode(images)), 4)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of all pixels that have a label; 0 if none has.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) int64 below C, or `IGNORE`.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


# ---- weights ------------------------------------------------------------------------------------------------------


def decoder_bytes(model: Segmenter) -> bytes:
    """What `load_segmenter` reads: the weights of the decoder, in half precision."""
    weights = model.decoder.state_dict().items()
    return save({name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in weights})


def load_segmenter(detector: SSD, num_classes: int, up: Up = "skip", folder: str | Path = WEIGHTS) -> Segmenter:
    """A trained decoder on the detector whose backbone it was trained with, in evaluation mode.

    Raises:
        FileNotFoundError: if there are no weights for that way up.
        ValueError: if the file is damaged, or for another decoder.
    """
    path = Path(folder) / f"segmentation_{up}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"there are no weights {path}")
    model = Segmenter(detector, num_classes, up)
    try:
        model.decoder.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold a decoder of {num_classes} classes that goes up by {up!r}: {error}"
        ) from error
    return model.eval()
