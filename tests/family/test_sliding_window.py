from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ssdlib.boxes import iou
from ssdlib.family.sliding_window import (
    best_windows,
    count_windows,
    cut_windows,
    places,
    pyramid,
    pyramid_boxes,
    pyramid_sizes,
    window_boxes,
    window_logits,
)
from ssdlib.family.window_classifier import WindowClassifier

LENGTHS, SIDES, STRIDES = st.integers(1, 60), st.integers(1, 20), st.integers(1, 9)


@given(length=LENGTHS, side=SIDES, stride=STRIDES)
def test_places_are_those_that_a_loop_finds(length: int, side: int, stride: int) -> None:
    assert places(length, side, stride) == len([x for x in range(0, length, stride) if x + side <= length])


@given(height=LENGTHS, width=LENGTHS, side=SIDES, stride=STRIDES)
def test_boxes_are_the_windows_row_by_row(height: int, width: int, side: int, stride: int) -> None:
    loop = [
        [x, y, x + side, y + side]
        for y in range(0, height - side + 1, stride)
        for x in range(0, width - side + 1, stride)
    ]
    assert window_boxes(height, width, side, stride).tolist() == loop


@given(height=LENGTHS, width=LENGTHS, side=SIDES, stride=STRIDES)
def test_windows_are_cut_where_the_boxes_are(height: int, width: int, side: int, stride: int) -> None:
    image = torch.arange(3 * height * width).reshape(3, height, width).float()
    windows, boxes = cut_windows(image, side, stride), window_boxes(height, width, side, stride).int().tolist()
    assert windows.shape == (len(boxes), 3, side, side)
    every = max(1, len(boxes) // 7)
    for window, (left, top, right, bottom) in zip(windows[::every], boxes[::every], strict=True):
        assert torch.equal(window, image[:, top:bottom, left:right])


@given(height=LENGTHS, width=LENGTHS, smallest=SIDES, factor=st.sampled_from([0.5, 2**-0.5, 0.9]))
def test_pyramid_goes_down_to_the_smallest_level_that_fits(
    height: int, width: int, smallest: int, factor: float
) -> None:
    sizes = pyramid_sizes(height, width, smallest, factor)
    assert sizes == [
        size for k in range(100) if min(size := (round(height * factor**k), round(width * factor**k))) >= smallest
    ]
    levels = pyramid(torch.rand(3, height, width), smallest, factor)
    assert [tuple(level.image.shape) for level in levels] == [(3, h, w) for h, w in sizes]
    for level, (h, w) in zip(levels, sizes, strict=True):
        assert level.pixel == (width / w, height / h)


def test_first_level_is_the_image_itself_and_the_next_look_like_it() -> None:
    image = torch.linspace(0, 1, 40).expand(3, 32, 40).contiguous()
    first, second, *_ = pyramid(image, 8, 0.5)
    assert torch.equal(first.image, image)
    torch.testing.assert_close(second.image[0, 0], image[0, 0].reshape(20, 2).mean(dim=1), rtol=0, atol=0.02)


@pytest.mark.parametrize("factor", [0.0, 1.0, 1.5, -0.5])
def test_a_pyramid_that_does_not_shrink_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match=f"got {factor}"):
        pyramid(torch.rand(3, 20, 20), 8, factor)


@pytest.mark.parametrize("smallest", [0, -3])
def test_a_pyramid_without_an_end_is_refused(smallest: int) -> None:
    with pytest.raises(ValueError, match=f"got {smallest}"):
        pyramid_sizes(20, 20, smallest)


@pytest.mark.parametrize(("side", "stride"), [(8, 0), (8, -2), (0, 2)])
def test_windows_that_do_not_move_or_have_no_pixels_are_refused(side: int, stride: int) -> None:
    for call in (
        lambda: window_boxes(20, 20, side, stride),
        lambda: cut_windows(torch.rand(3, 20, 20), side, stride),
    ):
        with pytest.raises(ValueError, match=f"got side {side}, stride {stride}"):
            call()


@given(height=LENGTHS, width=LENGTHS, side=st.integers(4, 20), stride=STRIDES)
def test_counted_and_laid_out_windows_agree(height: int, width: int, side: int, stride: int) -> None:
    boxes = pyramid_boxes(height, width, side, stride)
    assert len(boxes) == sum(count_windows(height, width, side, stride))
    if len(boxes):
        assert boxes.min() >= 0
        assert (boxes[:, 2:].amax(dim=0) <= torch.tensor([width, height]) * (1 + 1e-6)).all()


def test_count_of_an_image_by_hand() -> None:
    # 212 x 264: 10 x 13 places of 64 pixels with stride 16; 150 x 187: 6 x 8; 106 x 132: 3 x 5; 75 x 93: 1 x 2
    assert count_windows(212, 264, 64, 16) == [130, 48, 15, 2]


def brightness_classifier() -> WindowClassifier:
    """Class 1 where a window of 8 pixels is bright on the whole, background elsewhere."""
    pool = nn.Conv2d(3, 1, 8)
    nn.init.constant_(pool.weight, 1 / (3 * 64))
    nn.init.zeros_(pool.bias)
    classifier = WindowClassifier(pool, 2, 8, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with torch.no_grad():
        classifier.fc.weight.copy_(torch.tensor([[0.0], [20.0]]))
        classifier.fc.bias.copy_(torch.tensor([0.0, -10.0]))
    return classifier


def test_a_bright_square_is_found_at_its_place_and_size() -> None:
    classifier = brightness_classifier()
    for side in (8, 16, 32):
        image = torch.zeros(3, 48, 64)
        image[:, 8 : 8 + side, 16 : 16 + side] = 1.0
        logits = window_logits(classifier, image, 2, factor=0.5)
        boxes = pyramid_boxes(48, 64, 8, 2, factor=0.5)
        assert logits.shape == (len(boxes), 2)
        exact = torch.tensor([[16.0, 8, 16 + side, 8 + side]])
        match = iou(boxes, exact)[:, 0].argmax()
        assert torch.equal(boxes[match][None], exact)
        assert logits[match, 1] > 7  # its rim is blurred where the image was made smaller
        assert logits[:, 1].min() == pytest.approx(-10, abs=0.1)


def test_logits_are_in_the_order_of_the_boxes() -> None:
    classifier, image = brightness_classifier(), torch.rand(3, 30, 37)
    logits, boxes = window_logits(classifier, image, 3), pyramid_boxes(30, 37, 8, 3)
    first = count_windows(30, 37, 8, 3)[0]
    for box, said in zip(boxes[:first:5].int().tolist(), logits[:first:5], strict=True):
        window = image[:, box[1] : box[3], box[0] : box[2]]
        torch.testing.assert_close(said, classifier(window[None])[0].detach())


def test_an_image_smaller_than_a_window_has_none() -> None:
    classifier, image = brightness_classifier(), torch.rand(3, 7, 40)
    assert count_windows(7, 40, 8, 2) == []
    assert cut_windows(image, 8, 2).shape == (0, 3, 8, 8)
    assert pyramid_boxes(7, 40, 8, 2).shape == (0, 4)
    found = best_windows(pyramid_boxes(7, 40, 8, 2), window_logits(classifier, image, 2))
    assert {key: len(value) for key, value in found.items()} == {"boxes": 0, "labels": 0, "scores": 0}


def test_best_windows_are_those_of_nms_class_by_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]])
    scores = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.3, 0.0, 0.7], [0.05, 0.0, 0.95], [0.6, 0.4, 0.0]])
    found = best_windows(boxes, (scores + 1e-9).log(), min_score=0.5, max_overlap=0.3)
    assert found["boxes"].tolist() == boxes[[3, 0, 2]].tolist()
    assert found["labels"].tolist() == [2, 1, 2]
    assert found["scores"].tolist() == pytest.approx([0.95, 0.9, 0.7], abs=1e-6)


def test_boxes_and_logits_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 4\) and \(2, 2\)"):
        best_windows(torch.rand(3, 4), torch.rand(2, 2))
    with pytest.raises(ValueError, match="nan"):
        best_windows(torch.rand(1, 4), torch.tensor([[0.0, float("nan")]]))


@given(count=st.integers(0, 12), seed=st.integers(0, 1000))
def test_best_windows_do_not_overlap_within_a_class(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, count, 2, generator=generator).unbind()
    boxes, logits = torch.cat((corner, corner + 0.1 + size), dim=1), 3 * torch.randn(count, 3, generator=generator)
    found = best_windows(boxes, logits, min_score=0.4)
    overlaps = iou(found["boxes"], found["boxes"]).fill_diagonal_(0)
    same: Tensor = found["labels"][:, None] == found["labels"]
    assert not (overlaps[same] > 0.3).any()
    assert (found["scores"] >= 0.4).all()
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
