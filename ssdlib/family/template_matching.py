"""Template matching: look for a picture in a picture, by normalised cross-correlation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.detection import Detection
from ssdlib.nms import nms

FLAT = 1e-9
"""A window or template whose variance is below this, in units of 1 = white, is of one colour: it has no pattern."""


def correlation_plainly(image: Tensor, template: Tensor) -> Tensor:
    """How well a template fits at every place, in two loops; `correlation` computes the same faster.

    At each place the window and the template have the mean of each of their channels subtracted, which makes the
    result independent of brightness; then the cosine of the angle between the two is taken, which makes it independent
    of contrast.

    Args:
        image: (C, H, W) floats.
        template: (C, h, w) floats, not larger than the image.

    Returns:
        (H - h + 1, W - w + 1) float64 in -1..1: 1 where the window is the template, but for brightness and contrast;
        0 where the window, or the template, is of one colour.

    Raises:
        ValueError: if the shapes do not fit together, or a number is not finite.

    Source: Lewis, Fast Template Matching (1995); the TM_CCOEFF_NORMED of OpenCV's `matchTemplate`.
    """
    image, template = _checked(image, template)
    (_, height, width), (_, h, w) = image.shape, template.shape
    pattern = template - template.mean(dim=(1, 2), keepdim=True)  # (C, h, w)
    scores = image.new_zeros(height - h + 1, width - w + 1)
    for y in range(height - h + 1):
        for x in range(width - w + 1):
            window = image[:, y : y + h, x : x + w]
            window = window - window.mean(dim=(1, 2), keepdim=True)
            if min((window**2).mean(), (pattern**2).mean()) > FLAT:
                scores[y, x] = (window * pattern).sum() / (window.norm() * pattern.norm())
    return scores


def correlation(image: Tensor, template: Tensor) -> Tensor:
    """As `correlation_plainly`, for all places at once.

    The numerator is a convolution whose kernel is the template, computed as a product of Fourier transforms, since the
    kernel is so large. What the mean and the length of each window need, the sums of its pixels and of their squares,
    are differences of running sums.
    """
    image, template = _checked(image, template)
    channels, h, w = template.shape
    size = image.shape[1:]
    pattern = template - template.mean(dim=(1, 2), keepdim=True)
    # Correlation does not change when a constant is subtracted, and squares of small numbers lose fewer digits.
    image = image - image.mean(dim=(1, 2), keepdim=True)
    spectrum = torch.fft.rfft2(image) * torch.fft.rfft2(pattern, s=size).conj()
    # At the last places the template would go on at the other side of the image; they are no places of a window.
    product = torch.fft.irfft2(spectrum.sum(dim=0), s=size)[: size[0] - h + 1, : size[1] - w + 1]
    sums, squares = window_sums(image, h, w), window_sums(image**2, h, w)  # (C, H - h + 1, W - w + 1)
    spread = (squares - sums**2 / (h * w)).sum(dim=0)  # sum of squared deviations from the mean
    flat = (spread / (channels * h * w) <= FLAT) | ((pattern**2).mean() <= FLAT)
    scores = product / (spread.clamp(min=FLAT).sqrt() * pattern.norm().clamp(min=FLAT))
    return scores.masked_fill(flat, 0.0).clamp(-1, 1)


def window_sums(image: Tensor, h: int, w: int) -> Tensor:
    """(C, H - h + 1, W - w + 1): the sum of every window of h x w pixels of an image (C, H, W).

    Each is four numbers of the integral image, whose pixel (y, x) is the sum of all above and left of it.

    Source: Crow, Summed-Area Tables (1984); Viola and Jones (2001).
    """
    integral = F.pad(image.cumsum(dim=1).cumsum(dim=2), (1, 0, 1, 0))  # (C, H + 1, W + 1)
    return integral[:, h:, w:] - integral[:, :-h, w:] - integral[:, h:, :-w] + integral[:, :-h, :-w]


def find_template(
    image: Tensor,
    template: Tensor,
    *,
    scales: tuple[float, ...] = (1.0,),
    min_score: float = 0.7,
    max_overlap: float = 0.3,
) -> Detection:
    """Find a picture in an image: the places that correlate most, also with the template in other sizes.

    Args:
        image: (C, H, W) floats.
        template: (C, h, w) floats.
        scales: factors by which the template is resized; sizes that do not fit into the image are left out.
        min_score: the least correlation of what is found.
        max_overlap: of two places that overlap by more than this IoU, the better one is kept.

    Returns:
        "boxes" (K, 4) xyxy in pixels, "labels" (K,) all 1, and "scores" (K,), best first.

    Raises:
        ValueError: as `correlation`; or a scale is not positive, or leaves less than one pixel of the template.
    """
    _check_shapes(image, template)
    _, height, width = image.shape
    boxes, scores = [], []
    for scale in scales:
        if not 0 < scale < math.inf:
            raise ValueError(f"scales must be positive numbers, got {scale}")
        h, w = round(template.shape[1] * scale), round(template.shape[2] * scale)
        if min(h, w) < 1:
            raise ValueError(f"scale {scale} leaves nothing of a template of {tuple(template.shape[1:])} pixels")
        if h > height or w > width:
            continue
        resized = template if scale == 1 else TF.resize(template, [h, w], antialias=True)
        fits = correlation(image, resized)
        y, x = (fits >= min_score).nonzero(as_tuple=True)
        boxes.append(torch.stack((x, y, x + w, y + h), dim=1))
        scores.append(fits[y, x])
    found, score = torch.cat([torch.zeros(0, 4), *boxes]).float(), torch.cat([torch.zeros(0), *scores]).float()
    kept = nms(found, score, max_overlap)
    return {"boxes": found[kept], "labels": torch.ones_like(kept), "scores": score[kept]}


def _checked(image: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, which sums of squares need."""
    sizes = _check_shapes(image, template)
    if template.shape[1] > image.shape[1] or template.shape[2] > image.shape[2]:
        raise ValueError(f"the template is larger than the image: {sizes}")
    if not (image.isfinite().all() and template.isfinite().all()):
        raise ValueError("image and template must be finite numbers")
    return image.double(), template.double()


def _check_shapes(image: Tensor, template: Tensor) -> str:
    """The shapes in words, if they are those of two pictures with as many channels."""
    sizes = f"image {tuple(image.shape)}, template {tuple(template.shape)}"
    if image.dim() != 3 or template.dim() != 3 or image.shape[0] != template.shape[0] or 0 in template.shape:
        raise ValueError(f"image and template must be (C, H, W) and (C, h, w), got {sizes}")
    return sizes
