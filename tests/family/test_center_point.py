from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_xyxy, coordinates, tensors
from torch import Tensor
from torchvision import ops

from ssdlib.boxes import iou, xyxy_to_cxcywh
from ssdlib.family.center_point import (
    CELLS,
    RARE,
    CenterPoint,
    Points,
    center_point_loss,
    draw_heat,
    gaussian_radius,
    heat_loss,
    peaks,
    read_points,
)

NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def said(num_images: int = 1, classes: int = 3, cells: int = 4, seed: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    return Points(*(torch.randn(num_images, k, cells, cells, generator=generator) for k in (classes - 1, 2, 2)))


# ---- the heatmap --------------------------------------------------------------------------------------------------


@given(width=st.floats(0.5, 40), height=st.floats(0.5, 40), overlap=st.floats(0.1, 0.95))
def test_a_box_that_is_moved_by_the_radius_has_just_that_overlap(width: float, height: float, overlap: float) -> None:
    r = float(gaussian_radius(*torch.tensor([width, height], dtype=torch.float64), overlap))
    assert 0 < r < min(width, height)
    box = torch.tensor([[0.0, 0.0, width, height]], dtype=torch.float64)
    for signs in ((1, 1, 1, 1), (1, -1, 1, -1)):
        assert float(iou(box, box + r * torch.tensor(signs))) == pytest.approx(overlap, abs=1e-6)


def slow_heat(centres: list[list[int]], sigma: list[float], labels: list[int], classes: int, cells: int) -> Tensor:
    heat = torch.zeros(classes - 1, cells, cells)
    for (x, y), s, label in zip(centres, sigma, labels, strict=True):
        for row in range(cells):
            for column in range(cells):
                value = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * s**2))
                heat[label - 1, row, column] = max(float(heat[label - 1, row, column]), value)
    return heat


@settings(max_examples=25)
@given(data=st.data(), count=st.integers(0, 4))
def test_heat_is_the_plain_one(data: st.DataObject, count: int) -> None:
    cells, classes = 6, 3
    centres = data.draw(st.lists(st.tuples(*[st.integers(0, cells - 1)] * 2), min_size=count, max_size=count))
    sigma = data.draw(st.lists(st.floats(0.2, 4), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(1, classes - 1), min_size=count, max_size=count))
    at = torch.tensor(centres, dtype=torch.float32).reshape(-1, 2)
    heat = draw_heat(at, torch.tensor(sigma), torch.tensor(labels, dtype=torch.int64), classes, cells)
    torch.testing.assert_close(heat, slow_heat([*map(list, centres)], sigma, labels, classes, cells))
    assert {(k, y, x) for k, y, x in (heat == 1).nonzero().tolist()} == {
        (label - 1, y, x) for (x, y), label in zip(centres, labels, strict=True)
    }


def test_loss_of_the_heat_is_the_plain_one_and_focal_loss_where_nothing_is_near() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    heat = torch.rand(2, 5, 5, generator=generator, dtype=torch.float64)
    heat[0, 1, 2] = 1
    plain = 0.0
    for x, y in zip(logits.flatten().tolist(), heat.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        plain -= (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
    assert float(heat_loss(logits, heat)) == pytest.approx(plain, rel=1e-9)
    centres = (heat == 1).double()
    theirs = ops.sigmoid_focal_loss(logits, centres, alpha=-1, gamma=2, reduction="sum")
    torch.testing.assert_close(heat_loss(logits, centres), theirs)
    far = torch.tensor([300.0, -300.0, 300.0], requires_grad=True)
    loss = heat_loss(far, torch.tensor([0.0, 1.0, 0.99]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(600, rel=1e-3)
    assert far.grad is not None
    assert far.grad.isfinite().all()


# ---- the loss of a batch ------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(first=boxes_xyxy(0, 3), second=boxes_xyxy(0, 2), seed=st.integers(0, 99))
def test_loss_is_the_plain_one(first: Tensor, second: Tensor, seed: int) -> None:
    points, cells = said(num_images=2, seed=seed), 4
    targets = [{"boxes": b, "labels": torch.arange(len(b)) % 2 + 1} for b in (first, second)]
    wanted, size, offset = 0.0, 0.0, 0.0
    for i, target in enumerate(targets):
        centres, sigma = [], []
        for (x0, y0, x1, y1), _ in zip((target["boxes"] * cells).tolist(), target["labels"].tolist(), strict=True):
            cx, cy, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
            x, y = min(int(cx), cells - 1), min(int(cy), cells - 1)
            centres.append([x, y])
            # Moved both ways by r, the box shares 14/17 of its area: that is an IoU of 0.7.
            r = ((w + h) - math.sqrt((w + h) ** 2 - 4 * w * h * 3 / 17)) / 2
            sigma.append((2 * r + 1) / 6)
            said_size, said_offset = points.log_sizes[i, :, y, x].tolist(), points.offsets[i, :, y, x].tolist()
            size += abs(said_size[0] - math.log(w)) + abs(said_size[1] - math.log(h))
            offset += abs(said_offset[0] - (cx - x)) + abs(said_offset[1] - (cy - y))
        wanted += float(heat_loss(points.heat[i], slow_heat(centres, sigma, target["labels"].tolist(), 3, cells)))
    count = max(1, len(first) + len(second))
    losses = center_point_loss(points, targets)
    assert [*losses] == ["heat", "size", "offset"]
    assert [float(value) for value in losses.values()] == pytest.approx(
        [wanted / count, size / count, offset / count], rel=1e-4, abs=1e-5
    )


def test_a_larger_object_spares_more_of_its_neighbours() -> None:
    """By the width of its Gaussian: half a cell more than the radius is three of them."""
    points = Points(torch.full((1, 1, CELLS, CELLS), 2.0), *(torch.zeros(1, 2, CELLS, CELLS) for _ in range(2)))
    for width, height in ((20, 12), (3, 5)):
        box = torch.tensor([[4.5, 8.5, 4.5 + width, 8.5 + height]])
        r = ((width + height) - math.sqrt((width + height) ** 2 - 4 * width * height * 3 / 17)) / 2
        x, y = int(4.5 + width / 2), int(8.5 + height / 2)
        wanted = float(heat_loss(points.heat[0], slow_heat([[x, y]], [(r + 0.5) / 3], [1], 2, CELLS)))
        losses = center_point_loss(points, [{"boxes": box / CELLS, "labels": torch.tensor([1])}])
        assert float(losses["heat"]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "1 images need as many targets, at least one, got 0"),
        ([NONE, NONE], "got 2"),
        ([{"boxes": torch.tensor([[0.5, 0.1, 0.4, 0.3]]), "labels": torch.tensor([1])}], "image 0 .*swapped"),
        ([{"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.3]]), "labels": torch.tensor([3])}], "label 3 is not one of 1..2"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets: list[dict[str, Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        center_point_loss(said(), targets)


# ---- reading ------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(heat=tensors((2, 2, 5, 5), st.integers(-4, 4).map(float)), top_k=st.integers(1, 12), data=st.data())
def test_what_is_read_is_what_a_plain_loop_reads(heat: Tensor, top_k: int, data: st.DataObject) -> None:
    sizes = data.draw(tensors((2, 2, 5, 5), st.sampled_from([-1.0, 0.0, 1.0])))
    offsets = data.draw(tensors((2, 2, 5, 5), coordinates(4)))
    min_score = 0.2
    found = read_points(Points(heat, sizes, offsets), min_score, top_k)
    for i in range(2):
        rows = []
        for label in (1, 2):
            for y in range(5):
                for x in range(5):
                    here = heat[i, label - 1]
                    around = here[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                    if here[y, x] >= around.max():
                        w, h = (math.exp(v) for v in sizes[i, :, y, x].tolist())
                        cx, cy = x + float(offsets[i, 0, y, x]), y + float(offsets[i, 1, y, x])
                        box = [(cx - w / 2) / 5, (cy - h / 2) / 5, (cx + w / 2) / 5, (cy + h / 2) / 5]
                        rows.append((1 / (1 + math.exp(-float(here[y, x]))), label, [min(max(v, 0), 1) for v in box]))
        rows.sort(key=lambda row: -row[0])
        rows = [row for row in rows[:top_k] if row[0] >= min_score]
        assert found[i]["scores"].tolist() == pytest.approx([row[0] for row in rows])
        assert found[i]["labels"].tolist() == [row[1] for row in rows]
        torch.testing.assert_close(found[i]["boxes"], torch.tensor([row[2] for row in rows]).reshape(-1, 4))


def test_of_neighbours_only_the_highest_is_a_peak() -> None:
    heat = torch.zeros(1, 1, 4, 4)
    heat[0, 0, 1, 1], heat[0, 0, 1, 2], heat[0, 0, 3, 3] = 3.0, 2.0, 1.0
    high = peaks(heat) & (heat > 0)
    assert high.nonzero()[:, 2:].tolist() == [[1, 1], [3, 3]]


def test_what_is_written_is_read_again() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.33, 0.71], [0.52, 0.4, 0.9, 0.55], [0.0, 0.0, 1.0, 1.0]])
    labels = torch.tensor([2, 1, 2])
    centre, size = (xyxy_to_cxcywh(boxes) * CELLS).split(2, dim=1)
    cell = centre.floor()
    heat = draw_heat(cell, torch.ones(3), labels, 3)
    points = Points(torch.full((1, 2, CELLS, CELLS), -5.0), *(torch.zeros(1, 2, CELLS, CELLS) for _ in range(2)))
    column, row = cell.long().unbind(1)
    points.heat[0] += 10 * heat
    points.log_sizes[0, :, row, column], points.offsets[0, :, row, column] = size.log().T, (centre - cell).T
    (found,) = read_points(points, min_score=0.9)
    assert sorted(found["labels"].tolist()) == [1, 2, 2]
    overlaps = iou(found["boxes"], boxes) * (found["labels"][:, None] == labels)
    torch.testing.assert_close(overlaps.amax(dim=0), torch.ones(3))
    losses = center_point_loss(points, [{"boxes": boxes, "labels": labels}])
    assert losses["size"] < 1e-5
    assert losses["offset"] < 1e-5


def test_numbers_without_bounds_make_no_boxes_without_bounds() -> None:
    points = said()
    points.log_sizes.fill_(1e4)
    points.offsets[:, :, 0] = float("nan")
    (found,) = read_points(points, min_score=0.0)
    assert found["boxes"].isfinite().all()
    assert found["boxes"].shape[1] == 4


def test_a_cell_of_the_heat_sees_what_the_coarse_maps_see() -> None:
    """The finest map alone sees less than 40 pixels around the cell; what lies beyond was carried down."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    CenterPoint(2).eval()(image).heat[0, 0, 16, 16].backward()
    assert image.grad is not None
    seen = image.grad.abs().sum(dim=(0, 1)) > 0  # (256, 256)
    assert seen[:, 200:].any()
    assert seen[:, :60].any()


def test_an_untrained_network_finds_centres_rare() -> None:
    torch.manual_seed(0)
    network = CenterPoint(4)
    points = network(torch.rand(1, 3, 256, 256))
    assert points.heat.shape == (1, 3, CELLS, CELLS)
    assert 0.2 * RARE < float(points.heat.detach().sigmoid().mean()) < 5 * RARE
    with pytest.raises(ValueError, match=r"takes images \(N, 3, 256, 256\), got \(1, 3, 64, 64\)"):
        network(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        CenterPoint(1)
