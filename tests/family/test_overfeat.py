from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_xyxy
from torch import Tensor, nn

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import decode
from ssdlib.family.overfeat import (
    OverFeat,
    fit_linear,
    merge_boxes,
    multiply_adds,
    stride_of,
    targets_of_windows,
)
from ssdlib.family.sliding_window import count_windows, pyramid_boxes, window_boxes, window_logits
from ssdlib.family.window_classifier import WindowClassifier

SIDE, STRIDE = 20, 4  # of the windows of `classifier`, which does not see their last pixel


@pytest.fixture(scope="module")
def classifier() -> WindowClassifier:
    """Of windows of 20 pixels: 20 -> 9 -> 7 -> 3, two strides of 2."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)
    )
    result = WindowClassifier(layers, 3, SIDE, torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.3))
    assert result.cells == 3
    return result.eval()


@settings(max_examples=25)
@given(height=st.integers(SIDE, 50), width=st.integers(SIDE, 50))
def test_one_pass_says_what_the_windows_say(classifier: WindowClassifier, height: int, width: int) -> None:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
    network = OverFeat(classifier)
    boxes, at_once = network.predict_windows(image)
    one_by_one = window_logits(classifier, image, STRIDE)
    assert at_once.shape == (sum(count_windows(height, width, SIDE, STRIDE)), 3)
    torch.testing.assert_close(at_once, one_by_one, rtol=0, atol=1e-5)
    torch.testing.assert_close(boxes, pyramid_boxes(height, width, SIDE, STRIDE))


@pytest.mark.parametrize(
    ("size", "places"), [((20, 20), (1, 1)), ((24, 24), (2, 2)), ((23, 24), (1, 2)), ((28, 20), (3, 1))]
)
def test_a_stride_more_is_an_answer_more(
    classifier: WindowClassifier, size: tuple[int, int], places: tuple[int, int]
) -> None:
    logits, offsets = OverFeat(classifier)(torch.rand(2, 3, *size))
    assert logits.shape == (2, 3, *places)
    assert offsets.shape == (2, 4, *places)


def test_it_moves_to_another_device_as_a_whole(classifier: WindowClassifier) -> None:
    network = OverFeat(classifier)
    here = network.state_dict().keys()
    logits, _ = copy.deepcopy(network).to("meta")(torch.rand(1, 3, 24, 24, device="meta"))
    assert logits.shape == (1, 3, 2, 2)
    assert not {"mean", "std"} & here  # they follow from the classifier


def test_what_the_heads_see_is_what_the_classifier_sees(classifier: WindowClassifier) -> None:
    image = torch.rand(3, 31, 43)  # the map has cells for one row and one column of windows more
    network = OverFeat(classifier)
    described = network.describe(image)
    boxes = window_boxes(31, 43, SIDE, STRIDE).int().tolist()
    assert described.shape == (len(boxes), 6 * 9)
    for (left, top, right, bottom), row in list(zip(boxes, described, strict=True))[::5]:
        alone = classifier.describe(image[None, :, top:bottom, left:right])[0]
        torch.testing.assert_close(row, alone, rtol=0, atol=1e-5)


def test_an_image_smaller_than_a_window_gives_nothing(classifier: WindowClassifier) -> None:
    boxes, logits = OverFeat(classifier).predict_windows(torch.rand(3, SIDE - 1, 60))
    assert boxes.shape == (0, 4)
    assert logits.shape == (0, 3)
    found = merge_boxes(boxes, logits)
    assert {key: len(value) for key, value in found.items()} == {"boxes": 0, "labels": 0, "scores": 0}


def test_stride_of_counts_poolings_too(classifier: WindowClassifier) -> None:
    assert stride_of(classifier.features) == STRIDE
    assert stride_of(nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2))) == 2
    assert stride_of(nn.Sequential()) == 1


def test_operations_are_those_that_a_hand_counts() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),  # 10 x 7 -> 5 x 4
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),  # -> 3 x 2
        nn.Conv2d(4, 6, (2, 1), groups=2),  # -> 2 x 2
    )
    assert multiply_adds(layers, 10, 7) == 5 * 4 * 4 * 27 + 2 * 2 * 6 * 2 * 2
    assert layers.training
    assert layers[0].weight.device.type == "cpu"


def test_layers_with_another_stride_than_is_counted_are_refused() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.AvgPool2d(2))
    classifier = WindowClassifier(layers, 3, SIDE, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    with pytest.raises(ValueError, match="4 strides of 2 pixels"):
        OverFeat(classifier)


def test_a_pass_over_less_than_a_window_is_refused(classifier: WindowClassifier) -> None:
    with pytest.raises(ValueError, match=r"20 pixels a side or more, got \(1, 3, 19, 40\)"):
        OverFeat(classifier)(torch.rand(1, 3, 19, 40))


# ---- learned boxes ------------------------------------------------------------------------------------------------


@given(windows=boxes_xyxy(1, 6), objects=boxes_xyxy(0, 3))
def test_a_window_learns_the_object_that_it_overlaps_most(windows: Tensor, objects: Tensor) -> None:
    near, offsets = targets_of_windows(windows, objects)
    assert offsets.shape == (int(near.sum()), 4)
    decoded = cxcywh_to_xyxy(decode(offsets, xyxy_to_cxcywh(windows[near])))
    learned = iter(decoded)
    for window, chosen in zip(windows, near.tolist(), strict=True):
        overlaps = iou(window[None], objects)[0].tolist()
        assert chosen == (max(overlaps, default=0.0) >= 0.5)
        if chosen:
            box = next(learned)
            assert any(
                torch.allclose(box, objects[k], atol=1e-5) and overlaps[k] == max(overlaps) for k in range(len(objects))
            )


def test_linear_fit_is_the_minimum_and_exact_where_there_is_no_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.randn(80, 6, generator=generator) + 2
    weight, bias = torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator)
    found = fit_linear(x, x @ weight.T + bias, weight_decay=1e-9)
    torch.testing.assert_close(found[0], weight, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1], bias, rtol=0, atol=1e-3)

    noisy = (x @ weight.T + bias + 3 * torch.randn(80, 4, generator=generator)).double()
    w, b = (part.double().requires_grad_() for part in fit_linear(x, noisy, weight_decay=0.5))
    std = x.double().std(dim=0, correction=0)
    loss = ((x.double() @ w.T + b - noisy) ** 2).sum(dim=1).mean() + 0.5 * ((w * std) ** 2).sum()
    assert all(slope.abs().max() < 1e-3 for slope in torch.autograd.grad(loss, (w, b)))


@pytest.mark.parametrize(("x", "y"), [((0, 3), (0, 4)), ((5, 3), (1, 4)), ((5, 3), (5,))])
def test_a_linear_fit_of_nothing_or_of_other_rows_is_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="N > 0"):
        fit_linear(torch.zeros(x), torch.zeros(y))


def test_boxes_move_onto_bright_squares() -> None:
    """A convolution that passes pixels through: where a window has its square can be read off linearly."""
    layers = nn.Sequential(nn.Conv2d(3, 1, 2, stride=2, bias=False))
    nn.init.constant_(layers[0].weight, 1 / 12)
    network = OverFeat(WindowClassifier(layers, 2, 16, torch.zeros(3, 1, 1), torch.ones(3, 1, 1)))

    def scene(left: int, top: int) -> tuple[Tensor, Tensor]:
        image = torch.zeros(3, 24, 24)
        image[:, top : top + 16, left : left + 16] = 1.0
        return image, torch.tensor([[left, top, left + 16, top + 16]]).float()

    images, boxes = zip(*(scene(x, y) for x in range(0, 9, 2) for y in range(0, 9, 2)), strict=True)
    still, _ = network.predict_windows(images[7])
    assert network.fit_boxes(images, boxes, weight_decay=1e-4) > 100
    image, box = scene(5, 3)  # not among those that it learned from
    moved, _ = network.predict_windows(image)
    near = iou(still, box)[:, 0] >= 0.5
    assert near.sum() > 4
    assert iou(still[near], box).mean() < 0.75
    assert iou(moved[near], box).mean() > 0.85


def test_without_an_object_there_is_no_box_to_learn(classifier: WindowClassifier) -> None:
    network = OverFeat(classifier)
    with pytest.raises(ValueError, match=r"no window overlaps an object by 0\.5"):
        network.fit_boxes([torch.rand(3, 30, 30)], [torch.zeros(0, 4)])
    with pytest.raises(ValueError, match=r"no window overlaps an object by 0\.5"):
        network.fit_boxes([torch.rand(3, SIDE - 1, 30)], [torch.tensor([[0.0, 0, 9, 9]])])
    assert (network.box_head.weight == 0).all()


# ---- merging ------------------------------------------------------------------------------------------------------


def logits_of(scores: list[list[float]]) -> Tensor:
    return (torch.tensor(scores) + 1e-9).log()


def test_two_boxes_become_their_weighted_mean() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]])
    found = merge_boxes(boxes, logits_of([[0.1, 0.9], [0.4, 0.6], [0.3, 0.7]]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.8, 0, 10.8, 10], [50, 50, 60, 60]]))
    assert found["scores"].tolist() == pytest.approx([0.9, 0.7], abs=1e-6)
    assert found["labels"].tolist() == [1, 1]


def test_three_boxes_count_by_their_scores_whatever_the_order() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10]])
    scores = torch.tensor([0.5, 0.75, 0.75])
    mean = (scores[:, None] * boxes).sum(dim=0) / scores.sum()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        found = merge_boxes(boxes[order], logits_of([[1 - s, s] for s in scores[order].tolist()]), min_score=0.4)
        torch.testing.assert_close(found["boxes"], mean[None], rtol=0, atol=1e-4)
        assert found["scores"].tolist() == pytest.approx([0.75], abs=1e-6)


def test_a_box_that_is_not_finite_is_left_out() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [float("nan")] * 4, [0, 0, float("inf"), 10]])
    found = merge_boxes(boxes, logits_of([[0.1, 0.9]] * 3))
    assert found["boxes"].tolist() == boxes[:1].tolist()


def test_classes_and_unsure_boxes_stay_apart() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    found = merge_boxes(boxes, logits_of([[0.1, 0.9, 0.0], [0.2, 0.0, 0.8], [0.6, 0.4, 0.0]]))
    assert found["boxes"].tolist() == boxes[:2].tolist()
    assert found["labels"].tolist() == [1, 2]


@given(boxes=boxes_xyxy(0, 8), data=st.data())
def test_nothing_that_is_left_overlaps_and_all_lies_within(boxes: Tensor, data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(5, 8), min_size=len(boxes), max_size=len(boxes)))
    logits = logits_of([[1 - s / 10, s / 10] for s in scores]).reshape(-1, 2)
    found = merge_boxes(boxes, logits, min_score=0.0, min_overlap=0.3)
    overlaps = iou(found["boxes"].double(), found["boxes"].double()).fill_diagonal_(0)
    assert not (overlaps > 0.3 + 1e-5).any()
    if len(boxes):
        assert (found["boxes"] >= boxes.amin(dim=0) - 1e-5).all()
        assert (found["boxes"] <= boxes.amax(dim=0) + 1e-5).all()
        assert found["scores"].max() == F.softmax(logits, dim=1)[:, 1].max()
