from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import boxes_xyxy
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.family.yolo_v1 import (
    NOBODY,
    cell_owners,
    encode_in_grid,
    output_shape,
    read_grid,
    responsible_boxes,
    responsible_cells,
    yolo_v1_loss,
)


def iou_by_hand(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def loss_by_hand(output: Tensor, boxes: Tensor, labels: Tensor, predictors: int) -> dict[str, float]:
    """Equation 3 cell by cell, predictor by predictor."""
    side, numbers = output.shape[0], output.double().tolist()
    parts = dict.fromkeys(("centre", "size", "object", "no_object", "class"), 0.0)
    for row in range(side):
        for column in range(side):
            cell = numbers[row][column]
            mine = None
            for m, box in enumerate(boxes.double().tolist()):
                x, y = (box[0] + box[2]) / 2 * side, (box[1] + box[3]) / 2 * side
                at = (min(int(y), side - 1), min(int(x), side - 1))
                if at == (row, column) and mine is None:
                    mine = (m, x - column, y - row, box)
            overlaps = []
            for b in range(predictors):
                x, y, root_w, root_h, _ = cell[5 * b : 5 * b + 5]
                cx, cy, w, h = (column + x) / side, (row + y) / side, root_w**2, root_h**2
                corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                overlaps.append(iou_by_hand(corners, mine[3]) if mine else 0.0)
            for b in range(predictors):
                x, y, root_w, root_h, confidence = cell[5 * b : 5 * b + 5]
                if mine is None or b != overlaps.index(max(overlaps)):
                    parts["no_object"] += 0.5 * confidence**2
                    continue
                m, true_x, true_y, box = mine
                parts["centre"] += 5 * ((x - true_x) ** 2 + (y - true_y) ** 2)
                roots = math.sqrt(box[2] - box[0]), math.sqrt(box[3] - box[1])
                parts["size"] += 5 * ((root_w - roots[0]) ** 2 + (root_h - roots[1]) ** 2)
                parts["object"] += (confidence - overlaps[b]) ** 2
            if mine is not None:
                for c, said in enumerate(cell[5 * predictors :], start=1):
                    parts["class"] += (said - (c == int(labels[mine[0]]))) ** 2
    return parts


def test_the_tensor_of_voc_has_1470_numbers() -> None:
    assert output_shape() == (7, 7, 30)
    assert math.prod(output_shape()) == 1470
    assert output_shape(13, 5, 3) == (13, 13, 28)


def test_rows_come_before_columns() -> None:
    boxes = torch.tensor([[0.8, 0.0, 1.0, 0.2], [0.0, 0.5, 0.5, 0.5625]])  # top right; left, below the middle
    assert responsible_cells(boxes, 4).tolist() == [[0, 3], [2, 1]]
    owners = cell_owners(boxes, 4)
    assert owners[0, 3] == 0
    assert owners[2, 1] == 1
    assert (owners == NOBODY).sum() == 14


def test_a_centre_on_the_border_belongs_to_the_last_cell() -> None:
    assert responsible_cells(torch.tensor([[0.5, 1.0, 1.5, 1.0]]), 7).tolist() == [[6, 6]]


def test_of_two_centres_in_a_cell_the_first_stays() -> None:
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.3, 0.3, 0.7, 0.7], [0.0, 0.0, 0.2, 0.2]])
    owners = cell_owners(boxes, 7)
    assert owners[3, 3] == 0
    assert owners[0, 0] == 2
    assert (owners != NOBODY).sum() == 2


@given(boxes_xyxy(0, 6, grid=64), st.integers(1, 9))
def test_each_owner_has_its_centre_in_its_cell(boxes: Tensor, cells: int) -> None:
    owners = cell_owners(boxes, cells)
    wanted = {}
    for m, box in enumerate(boxes.tolist()):
        x, y = (box[0] + box[2]) / 2 * cells, (box[1] + box[3]) / 2 * cells
        wanted.setdefault((min(int(y), cells - 1), min(int(x), cells - 1)), m)
    found = {(r, c): int(owners[r, c]) for r in range(cells) for c in range(cells) if owners[r, c] != NOBODY}
    assert found == wanted


@given(boxes_xyxy(1, 5, grid=64), st.integers(1, 9), st.integers(1, 3))
def test_what_is_encoded_is_read_back(boxes: Tensor, cells: int, predictors: int) -> None:
    where, numbers = responsible_cells(boxes, cells), encode_in_grid(boxes, cells)
    assert ((numbers[:, :2] >= 0) & (numbers[:, :2] <= 1)).all()
    for (row, column), own, box in zip(where.tolist(), numbers, boxes, strict=True):
        output = torch.zeros(output_shape(cells, predictors, 2))
        output[row, column, 5 * (predictors - 1) :][:4] = own
        back = cxcywh_to_xyxy(read_grid(output, predictors).boxes[row, column, predictors - 1])
        torch.testing.assert_close(back, box, rtol=0, atol=1e-5)


def test_scores_are_class_times_confidence() -> None:
    output = torch.zeros(2, 2, 2 * 5 + 3)
    output[1, 0, 4], output[1, 0, 9] = 0.5, 0.25
    output[1, 0, 10:] = torch.tensor([0.5, 0.25, 0.0])
    grid = read_grid(output)
    assert grid.scores.shape == (2, 2, 2, 3)
    assert grid.scores[1, 0].tolist() == [[0.25, 0.125, 0.0], [0.125, 0.0625, 0.0]]
    assert grid.scores.sum() == grid.scores[1, 0].sum()


def test_the_box_of_the_highest_overlap_is_responsible() -> None:
    true = torch.tensor([[0.25, 0.25, 0.75, 0.75]] * 2)
    near, far, half = [0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.5, 0.25]
    best, overlap = responsible_boxes(torch.tensor([[far, near], [half, far]]), true)
    assert best.tolist() == [1, 0]
    assert overlap.tolist() == [1.0, 0.5]


def test_loss_of_one_object_by_hand() -> None:
    output = torch.zeros(1, 2, 2, 2 * 5 + 2)
    box = torch.tensor([[0.0, 0.5, 0.5, 1.0]])  # the lower left cell: its middle, roots of 0.5
    output[0, 1, 0, :5] = torch.tensor([0.5, 0.75, 0.5**0.5, 0.5**0.5, 0.8])  # an eighth of the image too low
    output[0, 1, 0, 9] = 0.4  # the other box of the cell: no overlap
    output[0, 0, 1, 4] = 0.2  # a box of an empty cell
    output[0, 1, 0, 10:] = torch.tensor([0.7, 0.1])
    parts = yolo_v1_loss(output, [{"boxes": box, "labels": torch.tensor([1])}])
    assert parts["centre"].item() == pytest.approx(5 * 0.25**2)
    assert parts["size"].item() == pytest.approx(0, abs=1e-9)
    assert parts["object"].item() == pytest.approx((0.8 - 0.6) ** 2)  # 3/8 shared of 1/2 + 1/8
    assert parts["no_object"].item() == pytest.approx(0.5 * (0.4**2 + 0.2**2))
    assert parts["class"].item() == pytest.approx(0.3**2 + 0.1**2)


def test_an_error_of_size_counts_more_on_a_small_box() -> None:
    def size_loss(w: float) -> float:
        output = torch.zeros(1, 1, 1, 6)
        output[..., :4] = torch.tensor([0.5, 0.5, math.sqrt(w + 0.05), math.sqrt(w)])
        box = torch.tensor([[0.5 - w / 2, 0.5 - w / 2, 0.5 + w / 2, 0.5 + w / 2]])
        return yolo_v1_loss(output, [{"boxes": box, "labels": torch.tensor([1])}], boxes=1)["size"].item()

    assert size_loss(0.1) == pytest.approx(5 * (math.sqrt(0.15) - math.sqrt(0.1)) ** 2, rel=1e-4)
    assert size_loss(0.1) > 5 * size_loss(0.7)


@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_loss_is_that_of_the_loop(data: st.DataObject, cells: int, predictors: int) -> None:
    boxes = [data.draw(boxes_xyxy(0, 4, grid=64)) for _ in range(2)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    output = torch.rand(2, cells, cells, predictors * 5 + 3, generator=generator)
    targets = [{"boxes": b, "labels": torch.randint(1, 4, (len(b),), generator=generator)} for b in boxes]
    found = yolo_v1_loss(output, targets, predictors)
    slow = [loss_by_hand(o, t["boxes"], t["labels"], predictors) for o, t in zip(output, targets, strict=True)]
    for name, value in found.items():
        assert value.item() == pytest.approx(sum(each[name] for each in slow) / 2, rel=1e-4, abs=1e-5), name


def test_without_objects_only_confidence_costs_and_gradients_are_finite() -> None:
    output = torch.rand(2, 7, 7, 30, requires_grad=True)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    parts = yolo_v1_loss(output, [nothing, nothing])
    assert {name for name, part in parts.items() if part.item() != 0} == {"no_object"}
    sum(parts.values(), torch.tensor(0.0)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 30\)"):
        read_grid(torch.zeros(3, 4, 30))
    with pytest.raises(ValueError, match=r"\(30,\)"):
        read_grid(torch.zeros(30))
    with pytest.raises(ValueError, match=r"\(7, 7, 9\)"):
        read_grid(torch.zeros(7, 7, 9))
    with pytest.raises(ValueError, match="1 targets need"):
        yolo_v1_loss(torch.zeros(2, 7, 7, 30), [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}])


@pytest.mark.parametrize(
    ("box", "labels", "message"),
    [
        ([0.6, 0.2, 0.4, 0.8], [1], "image 0 of the batch: empty, swapped"),
        ([0.2, 0.2, float("nan"), 0.8], [1], "not finite"),
        ([0.2, 0.2, 0.4, 0.8], [0], "label 0 is not one of 1..2"),
        ([0.2, 0.2, 0.4, 0.8], [3], "label 3 is not one of 1..2"),
        ([0.2, 0.2, 0.4, 0.8], [1, 2], "1 boxes, but labels of shape"),
    ],
)
def test_bad_targets_are_refused(box: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        yolo_v1_loss(torch.rand(1, 7, 7, 12), [{"boxes": torch.tensor([box]), "labels": torch.tensor(labels)}])
