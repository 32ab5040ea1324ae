from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import tensors
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.family.template_matching import correlation, correlation_plainly, find_template, window_sums


def picture(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_correlation(image: Tensor, template: Tensor, y: int, x: int) -> float:
    """Pearson's correlation at one place, in plain Python, with the mean of each channel taken off."""
    top = bottom_a = bottom_b = 0.0
    for channel, pattern in zip(image.tolist(), template.tolist(), strict=True):
        window = [row[x : x + len(pattern[0])] for row in channel[y : y + len(pattern)]]
        a, b = list(chain(*window)), list(chain(*pattern))
        mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
        top += math.fsum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
        bottom_a += math.fsum((p - mean_a) ** 2 for p in a)
        bottom_b += math.fsum((q - mean_b) ** 2 for q in b)
    return top / math.sqrt(bottom_a * bottom_b) if bottom_a > 1e-8 and bottom_b > 1e-8 else 0.0


PIXELS = st.integers(0, 8).map(lambda i: i / 8)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """An image and a template that fits into it, with few shades, so that flat windows come up."""
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    return draw(tensors((channels, height, width), PIXELS)), draw(tensors((channels, h, w), PIXELS))


@settings(max_examples=40)
@given(pair=pairs())
def test_equals_pearsons_correlation_at_every_place(pair: tuple[Tensor, Tensor]) -> None:
    image, template = pair
    scores = correlation_plainly(image, template)
    assert scores.shape == (image.shape[1] - template.shape[1] + 1, image.shape[2] - template.shape[2] + 1)
    for y, row in enumerate(scores.tolist()):
        for x, score in enumerate(row):
            assert score == pytest.approx(slow_correlation(image, template, y, x), abs=1e-9)


@settings(max_examples=40)
@given(pair=pairs())
def test_all_places_at_once_equal_the_loops(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(correlation(*pair), correlation_plainly(*pair), rtol=0, atol=1e-9)


@settings(max_examples=40)
@given(pair=pairs(), gain=st.sampled_from([0.25, 1.0, 3.0]), offset=st.sampled_from([-0.5, 0.0, 0.25]))
def test_brightness_and_contrast_do_not_matter(pair: tuple[Tensor, Tensor], gain: float, offset: float) -> None:
    image, template = pair
    torch.testing.assert_close(correlation(gain * image + offset, template), correlation(image, template))
    torch.testing.assert_close(correlation(-image, template), -correlation(image, template))


@pytest.mark.parametrize("channels", [1, 3])
def test_equals_opencv(channels: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is missing")
    image, template = picture(0, channels, 40, 50).float(), picture(1, channels, 9, 12).float()
    arrays = [x.permute(1, 2, 0).contiguous().numpy() for x in (image, template)]
    theirs = torch.from_numpy(cv2.matchTemplate(*arrays, cv2.TM_CCOEFF_NORMED)).double()
    ours = correlation(image, template)
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_part_of_the_image_is_found_where_it_was_cut_out() -> None:
    image = picture(2, 3, 30, 40)
    found = find_template(image, image[:, 7:19, 21:36])
    assert found["boxes"].tolist() == [[21, 7, 36, 19]]
    assert found["scores"].tolist() == pytest.approx([1.0])
    assert found["labels"].tolist() == [1]


def test_a_window_of_one_colour_correlates_with_nothing() -> None:
    image = torch.full((3, 8, 8), 0.3)
    assert (correlation(image, picture(3, 3, 4, 4)) == 0).all()
    assert (correlation(picture(3, 3, 8, 8), torch.full((3, 4, 4), 0.3)) == 0).all()
    image[:, 4:, 4:] = 1.0  # one bright corner; only windows that hold some of it and some of the rest have a pattern
    scores = correlation(image, image[:, 2:6, 2:6])
    assert scores[2, 2] == pytest.approx(1.0)
    assert scores[0, 0] == scores[4, 4] == 0


def test_a_smaller_copy_is_found_at_its_scale_only() -> None:
    ramp = torch.linspace(0, 1, 24, dtype=torch.float64)
    template = torch.stack([ramp[None] * ramp[:, None], (ramp[:, None] - 0.5) ** 2 + 0 * ramp, ramp.expand(24, 24)])
    image = 0.1 * picture(4, 3, 40, 60)
    image[:, 10:22, 30:42] += torch.nn.functional.avg_pool2d(template[None], 2)[0]
    assert len(find_template(image, template)["boxes"]) == 0
    found = find_template(image, template, scales=(1.0, 0.5, 3.0))  # at 3 it does not fit into the image
    assert iou(found["boxes"][:1], torch.tensor([[30.0, 10, 42, 22]])).item() > 0.8
    assert found["boxes"][0, 2] - found["boxes"][0, 0] == 12


def test_places_that_overlap_are_found_once() -> None:
    wave = torch.sin(torch.arange(40.0) / 4).expand(1, 40, 40)  # every column of places fits anywhere along it
    found = find_template(wave, wave[:, :10, :10], min_score=0.99, max_overlap=0.0)
    overlaps = iou(found["boxes"], found["boxes"]).fill_diagonal_(0)
    assert len(found["boxes"]) > 1
    assert overlaps.max() == 0
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


@settings(max_examples=40)
@given(image=tensors((2, 5, 6), PIXELS), h=st.integers(1, 5), w=st.integers(1, 6))
def test_window_sums_are_sums(image: Tensor, h: int, w: int) -> None:
    sums = window_sums(image, h, w)
    assert sums.shape == (2, 6 - h, 7 - w)
    for y in range(6 - h):
        for x in range(7 - w):
            assert sums[:, y, x].tolist() == image[:, y : y + h, x : x + w].sum(dim=(1, 2)).tolist()


@pytest.mark.parametrize(
    ("image", "template", "complaint"),
    [
        ((3, 8, 8), (1, 4, 4), r"got image \(3, 8, 8\), template \(1, 4, 4\)"),
        ((8, 8), (4, 4), "must be"),
        ((3, 8, 8), (3, 0, 4), "must be"),
        ((3, 8, 8), (3, 4, 9), "larger than the image"),
        ((3, 8, 8), (3, 9, 4), "larger than the image"),
    ],
)
def test_what_does_not_fit_is_refused(image: tuple[int, ...], template: tuple[int, ...], complaint: str) -> None:
    for compute in (correlation, correlation_plainly):
        with pytest.raises(ValueError, match=complaint):
            compute(torch.zeros(image), torch.zeros(template))


def test_numbers_that_are_not_finite_and_scales_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        correlation(torch.full((1, 4, 4), math.nan), torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match=r"scale 0\.1 leaves nothing"):
        find_template(torch.rand(1, 9, 9), torch.rand(1, 4, 4), scales=(0.1,))
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"positive numbers, got {scale}"):
            find_template(torch.rand(1, 9, 9), torch.rand(1, 4, 4), scales=(scale,))
    with pytest.raises(ValueError, match=r"got image \(9, 9\), template \(4, 4\)"):
        find_template(torch.rand(9, 9), torch.rand(4, 4))
