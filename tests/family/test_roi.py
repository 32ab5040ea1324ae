"""RoI pooling and RoIAlign: against torchvision, by hand, and at the border."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align, roi_pool

from ssdlib.family.roi import (
    Bin,
    neighbours,
    pooling_bins,
    roi_align_plainly,
    roi_pool_plainly,
    sampling_points,
)

# float64, so that torchvision computes with the same numbers as Python, and bins fall into the same cells.
RAMP_X = (torch.arange(6, dtype=torch.float64) + 0.5).expand(1, 5, 6)  # each cell holds the x of its centre


@st.composite
def cases(draw: st.DrawFn, grid: int = 4) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """A map (2, H, W), a box in cells, which may reach over the border and be empty, and a size of bins."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    corner = st.integers(-3 * grid, 10 * grid).map(lambda i: i / grid)
    x, y = sorted([draw(corner), draw(corner)]), sorted([draw(corner), draw(corner)])
    seed = draw(st.integers(0, 1000))
    numbers = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    box = torch.tensor([x[0], y[0], x[1], y[1]], dtype=torch.float64)
    return numbers, box, (draw(st.integers(1, 4)), draw(st.integers(1, 4)))


def by_torchvision(operation: Any, numbers: Tensor, box: Tensor, size: tuple[int, int], **options: Any) -> Tensor:
    found: Tensor = operation(numbers[None], [box[None]], size, 1.0, **options)[0]
    return found


@given(case=cases(), samples=st.integers(1, 3))
def test_align_is_torchvisions(case: tuple[Tensor, Tensor, tuple[int, int]], samples: int) -> None:
    numbers, box, size = case
    expected = by_torchvision(roi_align, numbers, box, size, sampling_ratio=samples, aligned=True)
    torch.testing.assert_close(roi_align_plainly(numbers, box, size, samples), expected, rtol=0, atol=1e-12)


@given(case=cases())
def test_pooling_is_torchvisions(case: tuple[Tensor, Tensor, tuple[int, int]]) -> None:
    numbers, box, size = case
    assert torch.equal(roi_pool_plainly(numbers, box, size), by_torchvision(roi_pool, numbers, box, size))


@settings(max_examples=50)
@given(case=cases(), data=st.data())
def test_weights_are_shares(case: tuple[Tensor, Tensor, tuple[int, int]], data: st.DataObject) -> None:
    numbers, _, _ = case
    height, width = numbers.shape[1:]
    x = data.draw(st.floats(-2, width + 2))
    y = data.draw(st.floats(-2, height + 2))
    cells = neighbours(x, y, width, height)
    assert bool(cells) == (-0.5 <= x <= width + 0.5 and -0.5 <= y <= height + 0.5)
    if cells:
        assert sum(cell.weight for cell in cells) == pytest.approx(1)
        for cell in cells:
            assert 0 <= cell.weight <= 1
            assert 0 <= cell.row < height
            assert 0 <= cell.column < width
    if 0.5 <= x <= width - 0.5 and 0.5 <= y <= height - 0.5:  # between the outermost centres the mean is the point
        assert sum(cell.weight * (cell.column + 0.5) for cell in cells) == pytest.approx(x)
        assert sum(cell.weight * (cell.row + 0.5) for cell in cells) == pytest.approx(y)


def test_neighbours_by_hand() -> None:
    assert [tuple(cell) for cell in neighbours(2.0, 1.75, 6, 5)] == [
        (1, 1, 0.375),
        (1, 2, 0.375),
        (2, 1, 0.125),
        (2, 2, 0.125),
    ]
    assert neighbours(2.5, 1.5, 6, 5)[0] == (1, 2, 1.0)  # the centre of a cell
    assert neighbours(0.1, 0.1, 6, 5)[0] == (0, 0, 1.0)  # between the border and the outermost centres
    assert {cell[:2] for cell in neighbours(6.4, 5.4, 6, 5)} == {(4, 5)}
    assert neighbours(-0.6, 2, 6, 5) == neighbours(2, 5.6, 6, 5) == []


def test_points_by_hand() -> None:
    points = sampling_points(torch.tensor([1.0, 2.0, 5.0, 3.0]), (1, 2), 2)
    assert points.shape == (1, 2, 4, 2)
    assert points[0, 0].tolist() == [[1.5, 2.25], [2.5, 2.25], [1.5, 2.75], [2.5, 2.75]]
    assert points[0, 1].tolist() == [[3.5, 2.25], [4.5, 2.25], [3.5, 2.75], [4.5, 2.75]]


def test_a_map_of_places_is_read_where_the_bins_are() -> None:
    """Each cell holds the x of its centre, so that the mean of a bin is the x of its own centre."""
    box = torch.tensor([1.3, 1.1, 4.9, 3.7])
    read = roi_align_plainly(RAMP_X, box, (2, 3))
    torch.testing.assert_close(read[0, 0], torch.tensor([1.9, 3.1, 4.3], dtype=torch.float64), rtol=0, atol=1e-6)
    shifted = by_torchvision(roi_align, RAMP_X, box.double(), (2, 3), sampling_ratio=2, aligned=False)
    torch.testing.assert_close(shifted, read + 0.5, rtol=0, atol=1e-6)  # the mistake: half a cell to the right


def test_bins_by_hand() -> None:
    bins = pooling_bins(torch.tensor([0.6, 1.4, 5.2, 3.5]), (2, 3), 6, 5)
    # to cells: columns 1..5, rows 1..4; 5 columns in 3 bins of 1.67: 0..1.67, 1.67..3.33, 3.33..5, rounded outwards
    assert [cells[0] for cells in bins[0]] == [1, 2, 4]
    assert [cells[2] for cells in bins[0]] == [3, 5, 6]
    assert [(row[0].top, row[0].bottom) for row in bins] == [(1, 3), (3, 5)]
    assert pooling_bins(torch.tensor([2.2, 2.2, 2.3, 2.3]), (1, 1), 6, 5) == [
        [Bin(2, 2, 3, 3)]
    ]  # never less than a cell


@pytest.mark.parametrize("number", [0.5, 1.5, 2.5, -0.5, -1.5, 0.49999999999999994])
def test_halves_are_rounded_as_in_the_original_program(number: float) -> None:
    numbers = torch.arange(25, dtype=torch.float64).reshape(1, 5, 5)
    box = torch.tensor([number, number, 4.0, 4.0], dtype=torch.float64)
    expected = by_torchvision(roi_pool, -numbers, box, (1, 1))  # the largest of -numbers: the first row that is inside
    assert torch.equal(roi_pool_plainly(-numbers, box, (1, 1)), expected)


def test_outside_of_the_map_is_nothing() -> None:
    numbers = torch.ones(1, 5, 6)
    far = torch.tensor([20.0, 20.0, 24.0, 24.0])
    assert roi_align_plainly(numbers, far, (2, 2)).abs().sum() == 0
    assert roi_pool_plainly(numbers, far, (2, 2)).abs().sum() == 0
    half = roi_align_plainly(numbers, torch.tensor([3.0, 0.0, 9.0, 5.0]), (1, 1), 3)  # x at 4, 6, 8
    assert half.item() == pytest.approx(2 / 3)


def test_dtype_of_the_map_stays_and_nothing_is_changed() -> None:
    numbers = torch.rand(2, 4, 4).half()
    box = torch.tensor([0.2, 0.3, 3.1, 2.9])
    before = numbers.clone(), box.clone()
    assert roi_align_plainly(numbers, box, (2, 2)).dtype == torch.float16
    assert roi_pool_plainly(numbers, box, (2, 2)).dtype == torch.float16
    assert torch.equal(numbers, before[0])
    assert torch.equal(box, before[1])


@pytest.mark.parametrize(
    ("box", "size", "samples", "message"),
    [
        ([0.0, 0, 1], (2, 2), 2, "box_xyxy must have shape"),
        ([[0.0, 0, 1, 1]], (2, 2), 2, "four finite numbers"),
        ([0.0, 0, math.nan, 1], (2, 2), 2, "four finite numbers"),
        ([0.0, 0, 1, 1], (0, 2), 2, r"size \(0, 2\)"),
        ([0.0, 0, 1, 1], (2, 2), 0, "samples 0"),
    ],
)
def test_bad_input_is_refused(box: list[float], size: tuple[int, int], samples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roi_align_plainly(torch.ones(1, 4, 4), torch.tensor(box), size, samples)
    if samples:
        with pytest.raises(ValueError, match=message):
            roi_pool_plainly(torch.ones(1, 4, 4), torch.tensor(box), size)


@pytest.mark.parametrize("shape", [(4, 4), (1, 0, 4), (1, 1, 4, 4)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    for pool in (roi_align_plainly, roi_pool_plainly):
        with pytest.raises(ValueError, match="feature_map must have shape"):
            pool(torch.ones(shape), torch.tensor([0.0, 0, 1, 1]), (1, 1))
