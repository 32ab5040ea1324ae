"""Keypoints: targets and decoding against plain loops and torchvision, the loss by hand, the head on its detector."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss, keypoints_to_heatmap

from ssdlib.data.synthetic.keypoints import FISH_KEYPOINTS, keypoint_scenes
from ssdlib.family.keypoints import (
    HIDDEN,
    KeypointReader,
    decode_keypoints,
    head_bytes,
    keypoint_loss,
    keypoint_targets,
    load_keypoints,
)
from ssdlib.model import SSD, ssd_tiny
from ssdlib.zoo import demo_model


def targets_plainly(points: Tensor, visible: Tensor, boxes: Tensor, cells: int) -> list[list[int]]:
    """The rule as it is written down, keypoint by keypoint."""
    found = []
    for of_object, seen, (x0, y0, x1, y1) in zip(points.tolist(), visible.tolist(), boxes.tolist(), strict=True):
        own = []
        for (x, y), is_seen in zip(of_object, seen, strict=True):
            if not (is_seen and x0 <= x <= x1 and y0 <= y <= y1):
                own.append(HIDDEN)
                continue
            column = min(int((x - x0) / (x1 - x0) * cells), cells - 1)
            row = min(int((y - y0) / (y1 - y0) * cells), cells - 1)
            own.append(row * cells + column)
        found.append(own)
    return found


def decoded_plainly(heatmaps: Tensor, boxes: Tensor) -> list[list[list[float]]]:
    """x, y and probability of each keypoint, cell by cell."""
    found = []
    for maps, (x0, y0, x1, y1) in zip(heatmaps.tolist(), boxes.tolist(), strict=True):
        own = []
        for grid in maps:
            cells = [(value, row, column) for row, line in enumerate(grid) for column, value in enumerate(line)]
            largest, row, column = max(cells, key=lambda cell: cell[0])
            share = 1 / sum(math.exp(value - largest) for value, _, _ in cells)
            x, y = x0 + (column + 0.5) / len(grid[0]) * (x1 - x0), y0 + (row + 0.5) / len(grid) * (y1 - y0)
            own.append([x, y, share])
        found.append(own)
    return found


# Eighths, so that nothing is rounded and edges of cells are met.
places = st.integers(-4, 36).map(lambda k: k / 8)


@st.composite
def objects(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Points (R, K, 2), visible (R, K) and boxes (R, 4) with sides that are powers of two."""
    r, k = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    points = torch.tensor([[[draw(places), draw(places)] for _ in range(k)] for _ in range(r)]).reshape(r, k, 2)
    visible = torch.tensor([[draw(st.booleans()) for _ in range(k)] for _ in range(r)], dtype=torch.bool).reshape(r, k)
    corners = torch.tensor([[draw(places), draw(places)] for _ in range(r)]).reshape(r, 2)
    sizes = torch.tensor([[draw(st.sampled_from([0.5, 1.0, 2.0, 4.0])) for _ in range(2)] for _ in range(r)])
    return points, visible, torch.cat((corners, corners + sizes.reshape(r, 2)), dim=1)


@given(objects=objects(), cells=st.sampled_from([1, 4, 7, 28]))
def test_targets_are_those_of_a_plain_loop_and_of_torchvision(
    objects: tuple[Tensor, Tensor, Tensor], cells: int
) -> None:
    points, visible, boxes = objects
    found = keypoint_targets(points, visible, boxes, cells)
    assert found.tolist() == targets_plainly(points, visible, boxes, cells)
    there, valid = keypoints_to_heatmap(torch.cat((points, visible[..., None].float()), dim=2), boxes, cells)
    # torchvision puts what lies exactly on the right or lower edge into the last cell whatever its other side is.
    inside = ((points >= boxes[:, None, :2]) & (points <= boxes[:, None, 2:])).all(dim=2)
    assert torch.equal(found != HIDDEN, (valid == 1) & inside)
    assert torch.equal(found[found != HIDDEN], there[found != HIDDEN])


@given(objects=objects(), scale=st.sampled_from([0.25, 2.0, 64.0]), shift=st.integers(-8, 8))
def test_targets_do_not_depend_on_the_unit(objects: tuple[Tensor, Tensor, Tensor], scale: float, shift: int) -> None:
    points, visible, boxes = objects
    moved = keypoint_targets((points + shift) * scale, visible, (boxes + shift) * scale)
    assert torch.equal(moved, keypoint_targets(points, visible, boxes))


@given(objects=objects(), cells=st.sampled_from([4, 7, 28]))
def test_what_is_learned_is_decoded_to_half_a_cell(objects: tuple[Tensor, Tensor, Tensor], cells: int) -> None:
    points, visible, boxes = objects
    targets = keypoint_targets(points, visible, boxes, cells)
    heatmaps = torch.nn.functional.one_hot(targets.clamp(min=0), cells**2).float().unflatten(2, (cells, cells))
    decoded, scores = decode_keypoints(50 * heatmaps, boxes)
    taught = targets != HIDDEN
    half = (boxes[:, None, 2:] - boxes[:, None, :2]).expand_as(points)[taught] / cells / 2
    assert ((decoded - points)[taught].abs() <= half + 1e-5).all()
    assert torch.equal(keypoint_targets(decoded, visible, boxes, cells)[taught], targets[taught])
    assert (scores > 0.99).all()


@given(seed=st.integers(0, 10_000), r=st.integers(0, 3), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_decoding_is_that_of_a_plain_loop(seed: int, r: int, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(r, 2, rows, columns, generator=generator)
    corners = torch.rand(r, 2, generator=generator)
    boxes = torch.cat((corners, corners + 0.1 + torch.rand(r, 2, generator=generator)), dim=1)
    points, scores = decode_keypoints(heatmaps, boxes)
    expected = torch.tensor(decoded_plainly(heatmaps, boxes)).reshape(r, 2, 3)
    torch.testing.assert_close(torch.cat((points, scores[..., None]), dim=2), expected, rtol=0, atol=1e-5)


def test_decoding_is_that_of_torchvision_to_a_cell() -> None:
    """It enlarges the map to the pixels of the box first, smoothly; of 28 pixels, there is nothing to enlarge."""
    heatmaps = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[0.0, 0], [10, 5], [3, 70], [40, 40], [8, 8]])
    points, _ = decode_keypoints(heatmaps, torch.cat((corners, corners + 28), dim=1))
    there, _ = heatmaps_to_keypoints(heatmaps, torch.cat((corners, corners + 28), dim=1))
    torch.testing.assert_close(points, there[..., :2], rtol=0, atol=1e-4)
    x = torch.arange(28.0)
    bump = -((x - 20.3) ** 2)[None, :] / 9 - ((x - 6.8) ** 2)[:, None] / 9
    large = torch.tensor([[0.0, 0, 280, 280]])
    points, _ = decode_keypoints(bump[None, None], large)
    there, _ = heatmaps_to_keypoints(bump[None, None], large)
    assert (points - there[..., :2]).abs().max() <= 5


def test_the_loss_is_one_cross_entropy_for_each_keypoint_that_teaches() -> None:
    heatmaps = torch.zeros(2, 2, 3, 3)
    heatmaps[0, 0, 1, 2] = 2.0
    targets = torch.tensor([[5, HIDDEN], [HIDDEN, 0]])
    right = math.log(8 + math.e**2) - 2
    assert keypoint_loss(heatmaps, targets).item() == pytest.approx((right + math.log(9)) / 2, rel=1e-6)
    there = keypointrcnn_loss(
        heatmaps,
        [torch.tensor([[0.0, 0, 3, 3]] * 2)],
        [torch.tensor([[[2.5, 1.5, 1], [0, 0, 0]], [[0, 0, 0], [0.5, 0.5, 1]]])],
        [torch.arange(2)],
    )
    assert keypoint_loss(heatmaps, targets).item() == pytest.approx(there.item(), rel=1e-6)


def test_without_objects_and_in_half_precision() -> None:
    heatmaps = torch.zeros(0, 4, 28, 28, requires_grad=True)
    targets = keypoint_targets(torch.zeros(0, 4, 2), torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0, 4))
    loss = keypoint_loss(heatmaps, targets)
    loss.backward()
    assert loss == 0
    assert [part.shape for part in decode_keypoints(heatmaps, torch.zeros(0, 4))] == [(0, 4, 2), (0, 4)]
    hidden = torch.full((2, 4), HIDDEN)
    maps = torch.full((2, 4, 28, 28), 60000.0, dtype=torch.float16, requires_grad=True)
    keypoint_loss(maps, hidden).backward()
    assert keypoint_loss(maps, hidden) == 0
    assert keypoint_loss(maps, hidden + 8).item() == pytest.approx(math.log(784), rel=1e-5)
    assert keypoint_loss(maps, hidden + 8).dtype == torch.float32


def test_bad_boxes_and_shapes_are_refused() -> None:
    points, visible = torch.zeros(2, 1, 2), torch.ones(2, 1, dtype=torch.bool)
    for box in ([0.5, 0.2, 0.5, 0.9], [0.9, 0.2, 0.5, 0.9], [0.0, 0.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match="box 1 has no area or is not finite"):
            keypoint_targets(points, visible, torch.tensor([[0.0, 0, 1, 1], box]))
    for shape in ((1, 1, 2), (2, 1, 3), (2, 2, 2)):
        with pytest.raises(ValueError, match=r"need points \(R, K, 2\)"):
            keypoint_targets(torch.zeros(shape), visible, torch.tensor([[0.0, 0, 1, 1]] * 2))
    lost = torch.tensor([[[float("nan"), 0.5]], [[float("inf"), 0.5]]])
    assert keypoint_targets(lost, visible, torch.tensor([[0.0, 0, 1, 1]] * 2)).tolist() == [[HIDDEN], [HIDDEN]]


@pytest.fixture(scope="module")
def detector() -> SSD:
    torch.manual_seed(0)
    return ssd_tiny(3).eval()


def test_heatmaps_of_boxes_follow_their_images(detector: SSD) -> None:
    torch.manual_seed(1)
    model = KeypointReader(detector, 3).eval()
    images = torch.rand(3, 3, 256, 256)
    boxes = [torch.tensor([[0.1, 0.2, 0.6, 0.8], [0.0, 0.0, 1.0, 1.0]]), torch.zeros(0, 4), torch.rand(1, 4).sort()[0]]
    with torch.no_grad():
        heatmaps = model(images, boxes)
        assert heatmaps.shape == (3, 3, 28, 28)
        alone = model(images[2:], boxes[2:])
    torch.testing.assert_close(heatmaps[2:], alone, rtol=0, atol=1e-4)
    found = model.read(images, boxes)
    assert [one["points"].shape for one in found] == [(2, 3, 2), (0, 3, 2), (1, 3, 2)]
    for one, own in zip(found, boxes, strict=True):
        assert (one["points"] >= own[:, None, :2]).all()
        assert (one["points"] <= own[:, None, 2:]).all()


def test_only_the_head_learns_and_a_keypoint_can_be_learned(detector: SSD) -> None:
    torch.manual_seed(1)
    model = KeypointReader(detector, 1).eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    images = 0.3 * torch.rand(4, 3, 256, 256)
    for i, (x, y) in enumerate(((60, 60), (190, 60), (60, 190), (190, 190))):
        images[i, :, y - 16 : y + 16, x - 16 : x + 16] = 1.0
    boxes = [torch.tensor([[0.0, 0, 1, 1]])] * 4
    points = torch.tensor([[[60.0, 60]], [[190, 60]], [[60, 190]], [[190, 190]]]) / 256
    targets = keypoint_targets(points, torch.ones(4, 1, dtype=torch.bool), torch.cat(boxes))
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        keypoint_loss(model(images, boxes), targets).backward()
        optimizer.step()
    found = torch.cat([one["points"] for one in model.read(images, boxes)])
    assert (found - points).abs().max() < 2 / 28
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_weights_come_back(detector: SSD, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = KeypointReader(detector, 4)
    (tmp_path / "keypoints.safetensors").write_bytes(head_bytes(model))
    again = load_keypoints(detector, 4, tmp_path)
    assert not again.training
    for name, value in model.head.state_dict().items():
        torch.testing.assert_close(again.head.state_dict()[name], value.half().float(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="does not hold a head for 17 keypoints"):
        load_keypoints(detector, 17, tmp_path)
    (tmp_path / "keypoints.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"keypoints\.safetensors does not hold a head"):
        load_keypoints(detector, 4, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there are no weights .*keypoints\.safetensors"):
        load_keypoints(detector, 4, tmp_path / "nowhere")


def test_the_weights_of_the_package_find_eyes_and_tails() -> None:
    model = load_keypoints(demo_model(), len(FISH_KEYPOINTS))
    images, targets = keypoint_scenes(40, seed=3)  # neither those of the training nor those of the test
    own = [i for i, target in enumerate(targets) if len(target["boxes"])]
    boxes = [targets[i]["boxes"] / 256 for i in own]
    found = torch.cat([one["points"] for one in model.read(images[own].float() / 255, boxes)])
    points, visible = (torch.cat([targets[i][key] for i in own]) for key in ("points", "visible"))
    longer = torch.cat([(targets[i]["boxes"][:, 2:] - targets[i]["boxes"][:, :2]).amax(dim=1) for i in own])
    near = (256 * found - points).norm(dim=2) <= 0.1 * longer[:, None]
    assert visible.sum() > 30
    assert near[visible].float().mean() > 0.7
