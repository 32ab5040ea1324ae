"""Boxes: conversions, area and IoU against plain loops, torchvision, and facts that can be checked by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision.ops as tv
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import boxes_cxcywh, boxes_xyxy
from torch import Tensor

from ssdlib.boxes import area, cxcywh_to_xyxy, intersection, iou, xyxy_to_cxcywh

ANY_BOXES = boxes_xyxy(degenerate=True)
HALF = (torch.float16, torch.bfloat16)


def slow_area(box: list[float]) -> float:
    x_min, y_min, x_max, y_max = box
    return (x_max - x_min) * (y_max - y_min) if x_max > x_min and y_max > y_min else 0.0


def slow_intersection(a: list[float], b: list[float]) -> float:
    return slow_area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def slow_iou(a: list[float], b: list[float]) -> float:
    shared = slow_intersection(a, b)
    union = slow_area(a) + slow_area(b) - shared
    return shared / union if union > 0 else 0.0


def table(function: Callable[[list[float], list[float]], float], a: Tensor, b: Tensor) -> Tensor:
    """Call a function of two boxes for every pair, one by one."""
    rows = [[function(x, y) for y in b.tolist()] for x in a.tolist()]
    return torch.tensor(rows, dtype=a.dtype).reshape(len(a), len(b))


# --- conversions ---------------------------------------------------------------------------------------------------


def test_conversions_by_hand() -> None:
    corners = torch.tensor([[10.0, 20.0, 50.0, 30.0]])
    centre = torch.tensor([[30.0, 25.0, 40.0, 10.0]])
    assert torch.equal(xyxy_to_cxcywh(corners), centre)
    assert torch.equal(cxcywh_to_xyxy(centre), corners)


@given(ANY_BOXES)
def test_conversions_equal_a_loop(boxes: Tensor) -> None:
    as_centre = [[(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes.tolist()]
    assert torch.equal(xyxy_to_cxcywh(boxes), torch.tensor(as_centre).reshape(-1, 4))
    as_corners = [[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] for cx, cy, w, h in boxes.tolist()]
    assert torch.equal(cxcywh_to_xyxy(boxes), torch.tensor(as_corners).reshape(-1, 4))


@given(ANY_BOXES)
def test_conversions_are_inverse_even_for_swapped_corners(boxes: Tensor) -> None:
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    assert torch.equal(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


@given(boxes_xyxy(grid=None))
def test_conversions_equal_torchvision(boxes: Tensor) -> None:
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), tv.box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(boxes), tv.box_convert(boxes, "cxcywh", "xyxy"))


@pytest.mark.parametrize("convert", [cxcywh_to_xyxy, xyxy_to_cxcywh])
@pytest.mark.parametrize("shape", [(4,), (0, 4), (1, 4), (2, 0, 4), (2, 3, 4), (2, 3, 5, 4)])
def test_conversions_keep_leading_dimensions(convert: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    boxes = torch.rand(shape)
    converted = convert(boxes)
    assert converted.shape == shape
    rows = [convert(box) for box in boxes.reshape(-1, 4)]
    assert torch.equal(converted.reshape(-1, 4), torch.stack(rows) if rows else torch.empty(0, 4))


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_conversions_keep_the_float_type(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0.25, 0.5, 0.75, 1.0]], dtype=dtype)
    assert xyxy_to_cxcywh(boxes).dtype == dtype
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_conversions_of_whole_pixels_give_halves(dtype: torch.dtype) -> None:
    centre = xyxy_to_cxcywh(torch.tensor([[0, 0, 3, 5]], dtype=dtype))
    assert torch.equal(centre, torch.tensor([[1.5, 2.5, 3.0, 5.0]]))
    corners = cxcywh_to_xyxy(torch.tensor([[2, 3, 3, 5]], dtype=dtype))
    assert torch.equal(corners, torch.tensor([[0.5, 0.5, 3.5, 5.5]]))


# --- area ----------------------------------------------------------------------------------------------------------


@given(ANY_BOXES)
def test_area_equals_a_loop(boxes: Tensor) -> None:
    assert torch.equal(area(boxes), torch.tensor([slow_area(box) for box in boxes.tolist()]))


@given(boxes_xyxy(grid=None))
def test_area_equals_torchvision(boxes: Tensor) -> None:
    torch.testing.assert_close(area(boxes), tv.box_area(boxes))


def test_area_of_swapped_corners_is_zero_also_when_both_axes_are_swapped() -> None:
    # -2 times -3 would be a plausible 6.
    boxes = torch.tensor([[3.0, 0.0, 1.0, 3.0], [0.0, 3.0, 2.0, 0.0], [3.0, 3.0, 1.0, 0.0]])
    assert torch.equal(area(boxes), torch.zeros(3))


def test_area_keeps_leading_dimensions() -> None:
    assert area(torch.rand(2, 3, 4)).shape == (2, 3)
    assert area(torch.tensor([0.0, 0.0, 2.0, 3.0])) == 6
    assert area(torch.empty(0, 4)).shape == (0,)


@pytest.mark.parametrize("dtype", [*HALF, torch.int32, torch.int64])
def test_area_of_a_whole_image_does_not_overflow(dtype: torch.dtype) -> None:
    image = torch.tensor([[0, 0, 300, 300]], dtype=dtype)
    assert torch.equal(area(image), torch.tensor([90000.0]))
    assert torch.equal(iou(image, image), torch.ones(1, 1))


# --- intersection and IoU ------------------------------------------------------------------------------------------


@given(ANY_BOXES, ANY_BOXES)
def test_intersection_and_iou_equal_a_loop(a: Tensor, b: Tensor) -> None:
    assert torch.equal(intersection(a, b), table(slow_intersection, a, b))
    torch.testing.assert_close(iou(a, b), table(slow_iou, a, b), rtol=1e-6, atol=0)


@given(boxes_xyxy(grid=None), boxes_xyxy(grid=None))
def test_iou_equals_torchvision(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(iou(a, b), tv.box_iou(a, b))


@given(ANY_BOXES, ANY_BOXES)
def test_iou_is_symmetric_and_between_0_and_1(a: Tensor, b: Tensor) -> None:
    overlap = iou(a, b)
    assert torch.equal(overlap, iou(b, a).T)
    assert ((overlap >= 0) & (overlap <= 1)).all()  # also false for NaN


@given(boxes_xyxy(grid=None), boxes_xyxy(grid=None))
def test_iou_of_arbitrary_floats_never_exceeds_1(a: Tensor, b: Tensor) -> None:
    overlap = iou(a, b)
    assert ((overlap >= 0) & (overlap <= 1)).all()


@given(boxes_xyxy(grid=None, min_size=1))
def test_a_box_overlaps_itself_by_exactly_1(boxes: Tensor) -> None:
    assert torch.equal(iou(boxes, boxes).diagonal(), torch.ones(len(boxes)))


@given(boxes_xyxy(), boxes_xyxy(), st.sampled_from([1 / 512, 1 / 8, 2.0, 512.0]))
def test_iou_has_no_unit(a: Tensor, b: Tensor, factor: float) -> None:
    assert torch.equal(iou(a, b), iou(a * factor, b * factor))


@given(boxes_cxcywh(), boxes_cxcywh())
def test_iou_is_1_only_for_equal_boxes(a: Tensor, b: Tensor) -> None:
    same = (a[:, None] == b[None]).all(dim=-1)
    assert torch.equal(iou(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)) == 1, same)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [
        ([0.0, 0.0, 4.0, 2.0], 1.0),
        ([0.0, 0.0, 2.0, 2.0], 4 / 8),  # inside
        ([2.0, 0.0, 6.0, 2.0], 4 / 12),  # shifted by half
        ([2.0, 1.0, 6.0, 3.0], 2 / 14),  # shifted in both axes
        ([4.0, 0.0, 8.0, 2.0], 0.0),  # shares an edge
        ([4.0, 2.0, 8.0, 4.0], 0.0),  # shares a corner
        ([5.0, 0.0, 9.0, 2.0], 0.0),  # apart in x alone
        ([5.0, 3.0, 9.0, 5.0], 0.0),  # apart in both: -1 times -1 would be 1
        ([1.0, 1.0, 1.0, 1.0], 0.0),  # a point inside
        ([0.0, 1.0, 4.0, 1.0], 0.0),  # a line inside
        ([4.0, 2.0, 0.0, 0.0], 0.0),  # the same box with swapped corners
    ],
)
def test_iou_by_hand(other: list[float], overlap: float) -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    torch.testing.assert_close(iou(box, torch.tensor([other])), torch.tensor([[overlap]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("pixels", [0.1, 1, 3, 30])
def test_iou_has_no_epsilon(pixels: float) -> None:
    # In fractions of 300 pixels a box of 3 x 3 has the area 1e-4: with 1e-5 added to the union, it would overlap itself
    # by 0.91.
    box = torch.tensor([[100.0, 100.0, 100.0 + pixels, 100.0 + pixels]], dtype=torch.float64) / 300
    assert iou(box, box).item() == 1.0


def test_boxes_without_area_overlap_by_0_even_with_themselves() -> None:
    empty = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.1, 0.2, 0.9], [0.9, 0.9, 0.1, 0.1]])
    assert torch.equal(iou(empty, empty), torch.zeros(3, 3))


def test_iou_divides_by_the_union() -> None:
    # Divided by the first box the overlaps would be 1 and 1/2; by the second 1/4 and 1/4.
    a, b = torch.tensor([[1.0, 0.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.0, 4.0, 1.0], [1.5, 0.0, 3.5, 1.0]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[1 / 4, 0.5 / 2.5]]))


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (1, 1), (2, 3)])
def test_iou_of_any_number_of_boxes(n: int, m: int) -> None:
    a, b = torch.rand(n, 2).repeat(1, 2), torch.rand(m, 2).repeat(1, 2)
    a[:, 2:] += 0.5
    b[:, 2:] += 0.5
    assert intersection(a, b).shape == iou(a, b).shape == (n, m)
    torch.testing.assert_close(iou(a, b), table(slow_iou, a, b))


def test_iou_broadcasts_leading_dimensions() -> None:
    a = torch.rand(2, 1, 3, 2).repeat(1, 1, 1, 2) + torch.tensor([0, 0, 0.3, 0.5])
    b = torch.rand(5, 4, 2).repeat(1, 1, 2) + torch.tensor([0, 0, 0.4, 0.2])
    overlap = iou(a, b)
    assert overlap.shape == (2, 5, 3, 4)
    for i in range(2):
        for j in range(5):
            assert torch.equal(overlap[i, j], iou(a[i, 0], b[j]))


@pytest.mark.parametrize("dtype", HALF)
def test_iou_of_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    a = torch.tensor([[0.0, 0.0, 300.0, 300.0]], dtype=dtype)
    b = torch.tensor([[100.0, 0.0, 300.0, 300.0]], dtype=dtype)
    assert iou(a, b).dtype == torch.float32
    torch.testing.assert_close(iou(a, b), torch.tensor([[2 / 3]]))


def test_iou_of_whole_pixels_is_a_ratio() -> None:
    a, b = torch.tensor([[0, 0, 4, 2]]), torch.tensor([[2, 0, 6, 2]])
    torch.testing.assert_close(iou(a, b), torch.tensor([[1 / 3]]))


def test_float64_stays_float64() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4]], dtype=torch.float64)
    assert area(boxes).dtype == iou(boxes, boxes).dtype == torch.float64


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [cxcywh_to_xyxy, xyxy_to_cxcywh, area])
@pytest.mark.parametrize("shape", [(), (3,), (5,), (4, 3), (4, 0)])
def test_boxes_have_four_numbers(function: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 4\), got"):
        function(torch.zeros(shape))


@pytest.mark.parametrize("function", [intersection, iou])
@pytest.mark.parametrize("shape", [(), (4,), (4, 3), (0,)])
def test_iou_needs_lists_of_boxes(function: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    boxes = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"a_xyxy must have shape \(N, 4\), got"):
        function(torch.zeros(shape), boxes)
    with pytest.raises(ValueError, match=r"b_xyxy must have shape \(N, 4\), got"):
        function(boxes, torch.zeros(shape))


@given(ANY_BOXES)
def test_inputs_are_not_changed(boxes: Tensor) -> None:
    before = boxes.clone()
    for function in (cxcywh_to_xyxy, xyxy_to_cxcywh, area):
        function(boxes)
    iou(boxes, boxes)
    assert torch.equal(boxes, before)
