"""Augmentation of a batch on the device that trains: the choices of `model_input`, for all pixels of a batch at once.

What is drawn by lot and what becomes of the boxes is decided image by image (`draw_view`), which costs little. The
pixels wait: zoom, crop, flip and resize are one resampling of the original image, and the colours follow in the same
place (`Views.to`). From the same seed come the same images as from `model_input`, within the rounding of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ssdlib.data.transforms import CROP_OVERLAPS, FILL, Augmentation, RandomIoUCrop, Target

NO_AUGMENTATION = Augmentation(color=False, zoom_out=1.0, crop=1.0, horizontal_flip=0.0)
UNCHANGED = (1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 2.0)


class View(NamedTuple):
    """How an image is to be seen: a window in its pixels, which may reach beyond it, mirrored, in other colours."""

    window: tuple[int, int, int, int]  # left, top, right, bottom
    mirrored: tuple[bool, bool]  # left and right, top and bottom
    # Factors of brightness, contrast, saturation, shift of the hue (a full turn is 1), factor of the contrast if it
    # comes last, and which channels become red, green and blue.
    colour: tuple[float, ...] = UNCHANGED


def draw_view(augmentation: Augmentation, size: int, width: int, height: int, target: Target) -> tuple[View, Target]:
    """Draw how an image is varied, as `model_input(size, augmentation)` does from the same state of the generator.

    Args:
        augmentation: what is varied, and how often.
        size: side of the network's input.
        width, height: of the image, in pixels.
        target: in pixels of the image.

    Returns:
        The view, and the target of the objects that stay, fractional.
    """
    left, top, right, bottom = 0, 0, width, height
    boxes, kept = target["boxes"], torch.ones(len(target["boxes"]), dtype=torch.bool)
    if augmentation.zoom_out > 1 and torch.rand(1) < augmentation.zoom_out_p:
        side = 1 + torch.rand(1) * (augmentation.zoom_out - 1)
        canvas_width, canvas_height = int(width * side), int(height * side)
        share = torch.rand(2)
        left, top = -int((canvas_width - width) * share[0]), -int((canvas_height - height) * share[1])
        right, bottom = left + canvas_width, top + canvas_height
    if augmentation.crop < 1 and torch.rand(1) < augmentation.crop_p:
        on_canvas = boxes - torch.tensor([left, top, left, top])
        objects = tv_tensors.BoundingBoxes(on_canvas, format="XYXY", canvas_size=(bottom - top, right - left))
        crop = RandomIoUCrop(min_scale=augmentation.crop, sampler_options=CROP_OVERLAPS).make_params([objects])
        if crop:
            left, top = left + crop["left"], top + crop["top"]
            right, bottom = left + crop["width"], top + crop["height"]
            kept = crop["is_within_crop_area"]
    flips = (augmentation.horizontal_flip, augmentation.vertical_flip)
    mirrored_x, mirrored_y = (bool(p > 0 and torch.rand(1) < p) for p in flips)
    colour = _drawn_colour() if augmentation.color else UNCHANGED

    corner, extent = torch.tensor([left, top] * 2), torch.tensor([right - left, bottom - top] * 2)
    boxes = ((boxes - corner) / extent).clamp(0, 1)  # fractions of the window
    kept = kept & ((boxes[:, 2:] - boxes[:, :2]) * size >= 1).all(dim=1)
    x_min, y_min, x_max, y_max = boxes.unbind(-1)
    if mirrored_x:
        x_min, x_max = 1 - x_max, 1 - x_min
    if mirrored_y:
        y_min, y_max = 1 - y_max, 1 - y_min
    varied = {key: value[kept] for key, value in target.items() if key != "boxes"}
    varied["boxes"] = torch.stack((x_min, y_min, x_max, y_max), dim=-1)[kept]
    return View((left, top, right, bottom), (mirrored_x, mirrored_y), colour), varied


def _drawn_colour() -> tuple[float, ...]:
    drawn = v2.RandomPhotometricDistort().make_params([torch.empty(3, 1, 1)])
    contrast, first = drawn["contrast_factor"], drawn["contrast_before"]
    channels = drawn["channel_permutation"]
    factors = (
        drawn["brightness_factor"],
        contrast if first else None,
        drawn["saturation_factor"],
        drawn["hue_factor"],
        None if first else contrast,
        *(() if channels is None else channels.tolist()),
    )
    return tuple(plain if f is None else float(f) for f, plain in zip(factors, UNCHANGED, strict=False)) + (
        UNCHANGED[5:] if channels is None else ()
    )


@dataclass
class Views:
    """A batch of images that are not yet seen; `to(device)` makes the network's input of them, on that device."""

    images: Tensor  # (N, 3, H, W) uint8, each in the upper left corner
    sizes: Tensor  # (N, 2) int64: width and height of each
    windows: Tensor  # (N, 4) int64
    mirrored: Tensor  # (N, 2) bool
    colours: Tensor  # (N, 8)
    size: int

    @classmethod
    def of(cls, images: Sequence[Tensor], views: Sequence[View], size: int) -> Views:
        """Collect images (3, H, W) uint8 and a view of each, for an input of `size` pixels."""
        sizes = torch.tensor([(image.shape[2], image.shape[1]) for image in images])
        width, height = sizes.amax(dim=0).tolist()
        batch = torch.empty(len(images), 3, height, width, dtype=torch.uint8)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        windows, mirrored, colours = (torch.tensor(column) for column in zip(*views, strict=True))
        return cls(batch, sizes, windows, mirrored, colours, size)

    def pin_memory(self) -> Views:
        """As `Tensor.pin_memory`, which a DataLoader calls."""
        return replace(self, **{f.name: getattr(self, f.name).pin_memory() for f in fields(self) if f.name != "size"})

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, memory_format: Any = torch.contiguous_format, **options: Any) -> Tensor:
        """(N, 3, size, size) float32 in 0..1, computed on the device; the arguments are those of `Tensor.to`."""
        longest = int((self.windows[:, 2:] - self.windows[:, :2]).max()) if len(self) else 1  # while it is on the CPU
        tensors = (self.images, self.sizes, self.windows, self.mirrored, self.colours)
        images, sizes, windows, mirrored, colours = (tensor.to(device, **options) for tensor in tensors)
        across, down = (
            _weights(windows[:, axis::2], sizes[:, axis], mirrored[:, axis], images.shape[3 - axis], self.size, longest)
            for axis in (0, 1)
        )  # (N, size, W) and (N, size, H)
        # Made there: to bring numbers to a GPU, the program would wait for all that it is at work on.
        fill = torch.stack([torch.full((1, 1), each, device=device) for each in FILL])  # (3, 1, 1)
        # What is outside the image is the fill: where that is taken as 0, nothing has to be put around the image.
        seen = down[:, None] @ (images - fill) @ across[:, None].transpose(2, 3) + fill  # (N, 3, size, size)
        return distort_colours(seen.div_(255).clamp_(0, 1), colours).contiguous(memory_format=memory_format)


def _weights(window: Tensor, length: Tensor, mirrored: Tensor, most: int, size: int, longest: int) -> Tensor:
    """How much each pixel counts in each of the window's `size` samples, along one axis: (N, size, most).

    The triangle filter of an antialiased bilinear resize: as wide as the step from one sample to the next, and at
    least as one pixel to each side. Pixels beyond the window count nothing, and the rest adds up to 1.
    """
    first, extent = window[:, 0], window[:, 1] - window[:, 0]  # (N,)
    step = (extent / size)[:, None, None]
    centre = (torch.arange(size, device=window.device) + 0.5)[:, None] * step  # (N, size, 1), from the window's edge

    def triangle(pixel: Tensor) -> Tensor:  # (..., K), counted from the window's first -> (N, size, K)
        inside = (pixel >= 0) & (pixel < extent[:, None, None])
        return (1 - (pixel + 0.5 - centre).abs() / step.clamp(min=1)).clamp(min=0) * inside

    total = triangle(torch.arange(longest, device=window.device)).sum(dim=2, keepdim=True)
    pixel = torch.arange(most, device=window.device)
    weights = triangle(pixel - first[:, None, None]) * (pixel < length[:, None, None]) / total
    return torch.where(mirrored[:, None, None], weights.flip(1), weights)


def distort_colours(images: Tensor, colours: Tensor) -> Tensor:
    """Photometric distortion, as torchvision's, with factors of each image.

    Args:
        images: (N, 3, S, S) in 0..1.
        colours: (N, 8), see `View`.
    """
    brightness, contrast, saturation, hue, contrast_last = colours[:, :5, None, None, None].unbind(1)  # (N, 1, 1, 1)
    images = (images * brightness).clamp(0, 1)
    images = _blended(images, _gray(images).mean(dim=(2, 3), keepdim=True), contrast)
    images = _blended(images, _gray(images), saturation)
    images = _turned(images, hue)
    images = _blended(images, _gray(images).mean(dim=(2, 3), keepdim=True), contrast_last)
    channels = colours[:, 5:].long()[:, :, None, None].expand_as(images)
    return images.gather(1, channels)


def _blended(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    return (share * images + (1 - share) * others).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue  # (N, 1, S, S)


def _turned(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue: (N, 3, S, S), by (N, 1, 1, 1) of a full turn."""
    low, high = images.aminmax(dim=1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    chroma = high - low
    by = chroma.where(chroma > 0, 1.0)  # a gray has no hue: any will do
    of_blue = torch.where(high == green, (blue - red) / by + 2, (red - green) / by + 4)
    hue = torch.where(high == red, (green - blue) / by, of_blue) + 6 * shift  # in sixths of a turn: red 0, green 2
    # Each channel falls from the highest value to the lowest and rises again as the hue goes round.
    phase = (5 - 2.0 * torch.arange(3, device=images.device)[:, None, None] + hue) % 6  # (N, 3, S, S)
    return high - chroma * torch.minimum(phase, 4 - phase).clamp(0, 1)
