from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_xyxy
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.data import VOCDataset
from ssdlib.data.prior_fit import fit_by_clusters, shape_overlaps
from ssdlib.data.sample import sample_root
from ssdlib.family.yolo import (
    YOLO,
    YOLO_PRIORS,
    cell_sides,
    decode_in_cell,
    encode_in_cell,
    match_responsible,
    responsible_priors,
    yolo_loss,
    yolo_losses,
)
from ssdlib.nms import nms
from ssdlib.priors import make_priors
from ssdlib.training import Hyperparameters, TrainState, autocast, training_loop

SMALL = replace(
    YOLO_PRIORS,
    name="small",
    map_sizes=(4, 2),
    ratios=(((1.0, 0.2), (2.0, 0.25)), ((1.0, 0.4), (0.5, 0.5))),
)
BOX = torch.tensor([[0.25, 0.25, 0.5, 0.625]])
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


@pytest.fixture(scope="module")
def model() -> YOLO:
    torch.manual_seed(0)
    return YOLO(4).eval()


def responsible_by_hand(box: list[float]) -> tuple[int, float]:
    """Row and similarity of the prior of `SMALL` that answers for a box, by loops."""
    best, index, start = (-1.0, -1, -1, -1), -1, 0
    for k, side in enumerate(SMALL.map_sizes):
        for n, (w, h) in enumerate(SMALL.shapes(k)):
            shared = min(box[2] - box[0], w) * min(box[3] - box[1], h)
            overlap = shared / ((box[2] - box[0]) * (box[3] - box[1]) + w * h - shared)
            if overlap > best[0] + 1e-6:
                column = min(int((box[0] + box[2]) / 2 * side), side - 1)
                row = min(int((box[1] + box[3]) / 2 * side), side - 1)
                best = (overlap, k, n, side)
                index = start + (row * side + column) * SMALL.priors_per_cell[k] + n
        start += side * side * SMALL.priors_per_cell[k]
    return index, best[0]


def loss_by_hand(raw: Tensor, boxes: Tensor, labels: Tensor) -> tuple[dict[str, float], int]:
    """The three sums of one image by loops, and the number of its objects that have a prior."""
    priors, cells = make_priors(SMALL), cell_sides(SMALL)
    owner: dict[int, tuple[float, int]] = {}
    for m, box in enumerate(boxes.tolist()):
        index, overlap = responsible_by_hand(box)
        if index not in owner or overlap > owner[index][0] + 1e-6:
            owner[index] = (overlap, m)
    sums = {"localization": 0.0, "objectness": 0.0, "class": 0.0}
    for p in range(len(priors)):
        tx, ty, tw, th, objectness, *classes = raw[p].double().tolist()
        px, py, pw, ph = priors[p].double().tolist()
        side = cells[p].item()
        inside_x, inside_y = 1 / (1 + math.exp(-tx)), 1 / (1 + math.exp(-ty))
        cx, cy = px + (inside_x - 0.5) * side, py + (inside_y - 0.5) * side
        said = torch.tensor([[cx, cy, pw * math.exp(tw), ph * math.exp(th)]])
        there = p in owner
        if not there and len(boxes) and iou(cxcywh_to_xyxy(said), boxes.double()).max() > 0.5:
            continue
        probability = 1 / (1 + math.exp(-objectness))
        sums["objectness"] += -math.log(probability) if there else -0.5 * math.log(1 - probability)
        if there:
            m = owner[p][1]
            x1, y1, x2, y2 = boxes[m].double().tolist()
            wanted = ((x1 + x2) / 2 - px) / side + 0.5, ((y1 + y2) / 2 - py) / side + 0.5
            off = [inside_x - wanted[0], inside_y - wanted[1]]
            off += [tw - math.log((x2 - x1) / pw), th - math.log((y2 - y1) / ph)]
            sums["localization"] += 5 * sum(d * d for d in off)
            for c, logit in enumerate(classes, start=1):
                right = 1 / (1 + math.exp(-logit))
                sums["class"] -= math.log(right if c == int(labels[m]) else 1 - right)
    return sums, len(owner)


# ---- coding -------------------------------------------------------------------------------------------------------


@given(boxes_xyxy(1, 6, grid=256), st.sampled_from(range(6)))
def test_decode_is_the_inverse_of_encode(boxes: Tensor, shape: int) -> None:
    """In any cell that holds the centre, whatever the prior's shape."""
    priors, cells = make_priors(YOLO_PRIORS), cell_sides(YOLO_PRIORS)
    k, n = divmod(shape, 3)
    side = YOLO_PRIORS.map_sizes[k]
    centred = xyxy_to_cxcywh(boxes)
    column, row = (centred[:, :2] * side).long().clamp(max=side - 1).unbind(1)
    own = YOLO_PRIORS.map_slices()[k].start + (row * side + column) * 3 + n
    wanted = encode_in_cell(centred, priors[own], cells[own])
    assert ((wanted[:, :2] >= -1e-5) & (wanted[:, :2] <= 1 + 1e-5)).all()
    raw = torch.cat((wanted[:, :2].logit(eps=1e-6), wanted[:, 2:]), dim=1)
    torch.testing.assert_close(decode_in_cell(raw, priors[own], cells[own]), centred, rtol=1e-4, atol=1e-5)


def test_a_centre_stays_in_its_cell_and_sizes_are_limited() -> None:
    priors, cells = make_priors(YOLO_PRIORS), cell_sides(YOLO_PRIORS)
    raw = torch.randn(len(priors), 4, generator=torch.Generator().manual_seed(0)) * 1000
    boxes = decode_in_cell(raw, priors, cells)
    assert boxes.isfinite().all()
    assert ((boxes[:, :2] - priors[:, :2]).abs() <= cells / 2 + 1e-6).all()


@pytest.mark.parametrize("box", [[0.5, 0.5, 0.0, 0.1], [0.5, 0.5, -0.1, 0.1], [float("nan"), 0.5, 0.1, 0.1]])
def test_a_box_without_area_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="empty, swapped or not finite"):
        encode_in_cell(torch.tensor([box]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.1]]))


# ---- who is responsible ---------------------------------------------------------------------------------------------


def test_priors_are_those_of_k_means() -> None:
    dataset = VOCDataset(sample_root(), "trainval")
    targets = [dataset.target(i)["boxes"] / torch.tensor([*dataset.size(i)] * 2) for i in range(len(dataset))]
    fitted = fit_by_clusters(torch.cat(targets), YOLO_PRIORS)
    torch.testing.assert_close(torch.tensor(fitted.ratios), torch.tensor(YOLO_PRIORS.ratios), rtol=0, atol=2e-3)
    assert YOLO_PRIORS.num_priors == 960


@given(boxes_xyxy(1, 6, grid=256))
def test_the_prior_of_the_most_similar_shape_in_the_cell_of_the_centre(boxes: Tensor) -> None:
    rows, overlaps = responsible_priors(boxes, SMALL)
    shapes = torch.tensor(SMALL.shapes(0) + SMALL.shapes(1))
    torch.testing.assert_close(overlaps, shape_overlaps(boxes[:, 2:] - boxes[:, :2], shapes).amax(dim=1))
    for row, overlap, box in zip(rows.tolist(), overlaps.tolist(), boxes.tolist(), strict=True):
        wanted, value = responsible_by_hand(box)
        assert overlap == pytest.approx(value, abs=1e-5)
        assert row == wanted


def test_of_two_objects_that_ask_for_one_prior_the_more_similar_has_it() -> None:
    shape = torch.tensor(SMALL.shapes(0)[0])
    middle = torch.tensor([0.375, 0.625])  # of column 1, row 2
    boxes = torch.stack([torch.cat((middle - s * shape / 2, middle + s * shape / 2)) for s in (0.9, 1.0, 0.8)])
    matched = match_responsible(boxes, SMALL)
    assert matched[(2 * 4 + 1) * 2] == 1
    assert (matched >= 0).sum() == 1
    again = match_responsible(boxes[[1, 1]], SMALL)  # equal ones: the first
    assert again.max() == 0


def test_without_objects_nobody_is_responsible() -> None:
    assert (match_responsible(torch.zeros(0, 4), YOLO_PRIORS) == -1).all()


# ---- loss -----------------------------------------------------------------------------------------------------------


@given(st.data())
def test_loss_is_that_of_the_loop(data: st.DataObject) -> None:
    boxes = [data.draw(boxes_xyxy(0, 4, grid=64)) for _ in range(2)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    raw = torch.randn(2, SMALL.num_priors, 4 + 4, generator=generator)
    targets = [{"boxes": b, "labels": torch.randint(1, 4, (len(b),), generator=generator)} for b in boxes]
    found = yolo_loss(raw, targets, SMALL)
    slow = [loss_by_hand(r, t["boxes"], t["labels"]) for r, t in zip(raw, targets, strict=True)]
    count = max(sum(n for _, n in slow), 1)
    for name, value in found.items():
        assert value.item() == pytest.approx(sum(s[name] for s, _ in slow) / count, rel=1e-4, abs=1e-5), name


def test_images_of_a_batch_do_not_mix() -> None:
    """Three images with 1, 0 and 2 objects: together they cost what they cost alone."""
    raw = torch.randn(3, 960, 8, generator=torch.Generator().manual_seed(0))
    one = {"boxes": torch.tensor([[0.1, 0.1, 0.3, 0.32]]), "labels": torch.tensor([1])}
    two = {"boxes": torch.tensor([[0.5, 0.4, 0.9, 0.8], [0.2, 0.6, 0.3, 0.9]]), "labels": torch.tensor([3, 2])}
    targets = [one, NOTHING, two]
    together = yolo_loss(raw, targets, YOLO_PRIORS)
    alone = [yolo_loss(raw[i : i + 1], [target], YOLO_PRIORS) for i, target in enumerate(targets)]
    for name, value in together.items():
        total = alone[0][name] + alone[1][name] + 2 * alone[2][name]
        torch.testing.assert_close(value, total / 3)


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.32], [0.5, 0.4, 0.9, 0.8]])
    prior, _ = responsible_priors(boxes, YOLO_PRIORS)
    own = make_priors(YOLO_PRIORS)[prior]
    wanted = encode_in_cell(xyxy_to_cxcywh(boxes), own, cell_sides(YOLO_PRIORS)[prior])
    raw = torch.full((1, 960, 4 + 3), -20.0)
    raw[0, prior, :2], raw[0, prior, 2:4], raw[0, prior, 4] = wanted[:, :2].logit(), wanted[:, 2:], 20.0
    raw[0, prior, torch.tensor([5, 6])] = 20.0
    target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
    assert sum(v.item() for v in yolo_loss(raw, [target], YOLO_PRIORS).values()) < 1e-5
    swapped = yolo_loss(raw, [{**target, "labels": torch.tensor([2, 1])}], YOLO_PRIORS)
    assert swapped["class"].item() == pytest.approx(40, rel=1e-3)


def test_a_prior_that_is_not_responsible_but_well_placed_is_left_alone() -> None:
    box = torch.tensor([[0.26, 0.26, 0.49, 0.49]])  # in the middle of a cell: two of its priors lie well
    target = [{"boxes": box, "labels": torch.tensor([1])}]
    raw = torch.zeros(1, SMALL.num_priors, 6, requires_grad=True)
    responsible = int(responsible_priors(box, SMALL)[0])
    overlaps = iou(cxcywh_to_xyxy(decode_in_cell(raw[0, :, :4].detach(), make_priors(SMALL), cell_sides(SMALL))), box)
    good = [p for p in (overlaps[:, 0] > 0.5).nonzero()[:, 0].tolist() if p != responsible]
    assert good
    yolo_loss(raw, target, SMALL)["objectness"].backward()
    assert raw.grad is not None
    slope = raw.grad[0, :, 4]
    assert (slope[good] == 0).all()
    assert slope[responsible] < 0
    others = [p for p in range(SMALL.num_priors) if p not in (*good, responsible)]
    assert torch.allclose(slope[others], torch.full((len(others),), 0.25))  # 0.5 x (sigmoid(0) - 0)


def test_an_image_without_objects_teaches_that_nothing_is_there() -> None:
    raw = torch.randn(2, 960, 8, requires_grad=True)
    found = yolo_loss(raw, [NOTHING, NOTHING], YOLO_PRIORS)
    assert found["localization"].item() == found["class"].item() == 0
    expected = 0.5 * F.softplus(raw[..., 4]).sum()
    torch.testing.assert_close(found["objectness"], expected)
    sum(found.values(), torch.tensor(0.0)).backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"boxes": BOX, "labels": torch.tensor([4])}, "image 1 of the batch: label 4 is not one of 1..3"),
        ({"boxes": BOX, "labels": torch.tensor([0])}, "label 0 is not one of 1..3"),
        ({"boxes": BOX.repeat(2, 1), "labels": torch.tensor([1])}, "2 boxes, but labels of shape"),
        ({"boxes": BOX * 256, "labels": torch.tensor([1])}, "image 1 of the batch: a box centred outside 0..1: .64"),
        ({"boxes": BOX[:, [2, 1, 0, 3]], "labels": torch.tensor([1])}, "image 1 of the batch: empty, swapped"),
        # its prior has a better one, but it is wrong all the same
        ({"boxes": torch.cat((BOX, BOX[:, [2, 3, 0, 1]])), "labels": torch.tensor([1, 1])}, "empty, swapped"),
    ],
)
def test_bad_targets_are_refused(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        yolo_loss(torch.zeros(2, 960, 8), [NOTHING, target], YOLO_PRIORS)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"need \(1, 960, 4 \+ C\), got \(2, 960, 8\)"):
        yolo_loss(torch.zeros(2, 960, 8), [NOTHING], YOLO_PRIORS)
    with pytest.raises(ValueError, match="num_classes counts background"):
        YOLO(1)
    with pytest.raises(ValueError, match="maps of 16 and 8 cells"):
        YOLO(4, SMALL)


# ---- the network --------------------------------------------------------------------------------------------------


def test_shapes_and_the_order_of_the_predictions(model: YOLO) -> None:
    raw = model(torch.rand(2, 3, 256, 256))
    assert raw.shape == (2, 960, 4 + 4)
    assert len(model.priors) == len(model.cells) == 960
    for layer in model.head.convolutions:  # of a map whose cells say nothing, the bias is what is predicted
        torch.testing.assert_close(layer.bias.view(3, 8)[:, 4].sigmoid(), torch.full((3,), 0.01))
    with pytest.raises(ValueError, match=r"\(N, 3, 256, 256\)"):
        model(torch.rand(2, 3, 255, 256))


def test_losses_are_finite_in_half_precision(model: YOLO) -> None:
    targets = [{"boxes": torch.tensor([[0.2, 0.2, 0.5, 0.6]]), "labels": torch.tensor([2])}, NOTHING]
    with autocast(torch.device("cpu"), "bfloat16"):
        found = yolo_losses(model, torch.rand(2, 3, 256, 256), targets)
    assert all(part.dtype == torch.float32 and part.isfinite() for part in found.values())


@settings(max_examples=10)
@given(st.integers(0, 99), st.sampled_from([0.05, 0.3]), st.sampled_from([3, 200]))
def test_detections_are_those_of_the_loop(model: YOLO, seed: int, min_score: float, top_k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(1, 960, 8, generator=generator)
    raw[..., 4] -= 1
    images = torch.zeros(1, 3, 256, 256)
    forward, model.forward = model.forward, lambda _: raw  # type: ignore[method-assign,assignment]
    try:
        (found,) = model.detect(images, min_score=min_score, top_k=top_k)
    finally:
        model.forward = forward  # type: ignore[method-assign]
    boxes = cxcywh_to_xyxy(decode_in_cell(raw[0, :, :4], model.priors, model.cells)).clamp(0, 1)
    rows = []
    for label in (1, 2, 3):
        scores = raw[0, :, 4].sigmoid() * raw[0, :, 4 + label].sigmoid()
        candidates = [p for p in scores.argsort(descending=True).tolist() if scores[p] >= min_score][:400]
        kept = nms(boxes[candidates], scores[candidates], 0.45).tolist()
        rows += [(scores[candidates[k]].item(), label, boxes[candidates[k]].tolist()) for k in kept]
    rows = sorted(rows, reverse=True)[:top_k]
    assert found["scores"].tolist() == pytest.approx([score for score, _, _ in rows])
    assert found["labels"].tolist() == [label for _, label, _ in rows]
    torch.testing.assert_close(found["boxes"], torch.tensor([box for _, _, box in rows]).reshape(-1, 4))


def test_it_learns_a_scene_by_heart() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 1, 1).expand(1, 3, 256, 256).clone()
    box = torch.tensor([[0.25, 0.3, 0.55, 0.62]])
    image[:, :, 77:159, 64:141] = 1 - image[:, :, 77:159, 64:141]
    target = {"boxes": box, "labels": torch.tensor([2])}
    config = Hyperparameters(iterations=30, batch_size=2, learning_rate=2e-3, ema_decay=0)
    state = TrainState.start(YOLO(4), config)
    batch = (torch.cat((image, 0.5 * image)), [target, target])
    totals = [
        sum(step[name] for name in ("localization", "objectness", "class"))
        for step in training_loop(state, [batch] * 30, config, losses=yolo_losses)
    ]
    assert totals[-1] < 0.1 * totals[0]
    state.model.train()  # with the batch's own statistics: thirty steps do not settle the running ones
    found = state.model.detect(batch[0])[0]
    assert found["labels"][0] == 2
    assert iou(found["boxes"][:1], box).item() > 0.6
