from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_xyxy, tensors
from torch import Tensor
from torchvision import ops

from ssdlib.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssdlib.coding import decode, encode
from ssdlib.family.one_to_one import (
    ALPHA,
    CERTAIN,
    CLASS,
    GIOU,
    L1,
    NEAR,
    ONE_PER_CELL,
    OneToOne,
    assign,
    assign_by_trying,
    matching_cost,
    one_to_one_loss,
)
from ssdlib.priors import make_priors

NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
PRIORS = torch.tensor([[0.25, 0.25, 0.3, 0.3], [0.75, 0.25, 0.3, 0.3], [0.25, 0.75, 0.3, 0.3], [0.5, 0.5, 0.8, 0.8]])
CLOSE = PRIORS[:1] + torch.tensor([[0.0, 0, 0, 0], [0.02, 0, 0, 0], [0, 0.02, 0, 0], [0.02, 0.02, 0, 0]])

# ---- the assignment -----------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(objects=st.integers(0, 3), more=st.integers(0, 2), data=st.data())
def test_no_other_way_is_cheaper(objects: int, more: int, data: st.DataObject) -> None:
    cost = data.draw(tensors((objects, objects + more), st.integers(-8, 8).map(float)))
    chosen, tried = assign(cost), assign_by_trying(cost)
    assert chosen.dtype == tried.dtype == torch.int64
    assert len(set(chosen.tolist())) == len(set(tried.tolist())) == objects  # each has one of its own
    rows = torch.arange(objects)
    assert cost[rows, chosen].sum() == cost[rows, tried].sum()


def test_the_first_come_does_not_always_have_the_first_choice() -> None:
    cost = torch.tensor([[1.0, 2.0, 9.0], [1.5, 6.0, 9.0]])  # both want prediction 0; 1 + 6 is dearer than 2 + 1.5
    assert assign(cost).tolist() == assign_by_trying(cost).tolist() == [1, 0]


def test_what_is_not_finite_is_dear_and_what_does_not_fit_is_refused() -> None:
    assert assign(torch.tensor([[float("nan"), 3.0, float("inf")]])).tolist() == [1]
    with pytest.raises(ValueError, match=r"M at most P, got \(3, 2\)"):
        assign(torch.zeros(3, 2))


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ValueError, match=r"pip install 'ssdlib\[family\]'"):
        assign(torch.zeros(1, 1))


# ---- the cost and the loss ----------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(objects=boxes_xyxy(0, 3), boxes=boxes_xyxy(1, 4), data=st.data())
def test_cost_is_the_plain_one(objects: Tensor, boxes: Tensor, data: st.DataObject) -> None:
    logits = data.draw(tensors((len(boxes), 2), st.integers(-3, 3).map(float)))
    labels = torch.arange(len(objects)) % 2 + 1
    cost = matching_cost(xyxy_to_cxcywh(boxes), logits, PRIORS[: len(boxes)], xyxy_to_cxcywh(objects), labels)
    assert cost.shape == (len(objects), len(boxes))
    overlap = ops.generalized_box_iou(objects, boxes)
    for m, p in torch.cartesian_prod(torch.arange(len(objects)), torch.arange(len(boxes))).tolist():
        chance = 1 / (1 + math.exp(-float(logits[p, labels[m] - 1])))
        sides = sum(abs(xyxy_to_cxcywh(objects[m]) - xyxy_to_cxcywh(boxes[p])).tolist())
        x, y, w, h = xyxy_to_cxcywh(objects[m]).tolist()
        way = math.hypot((float(PRIORS[p, 0]) - x) / w, (float(PRIORS[p, 1]) - y) / h)
        plain = -CERTAIN * chance + L1 * sides - GIOU * float(overlap[m, p]) + NEAR * way
        assert float(cost[m, p]) == pytest.approx(plain, abs=1e-3)


@settings(max_examples=20)
@given(first=boxes_xyxy(0, 3), second=boxes_xyxy(0, 2), seed=st.integers(0, 99))
def test_loss_is_the_plain_one(first: Tensor, second: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(2, len(PRIORS), 4, generator=generator)
    logits = torch.randn(2, len(PRIORS), 2, generator=generator)
    targets = [{"boxes": b, "labels": torch.arange(len(b)) % 2 + 1} for b in (first, second)]
    classes, sides, overlap = 0.0, 0.0, 0.0
    for i, target in enumerate(targets):
        objects, labels = xyxy_to_cxcywh(target["boxes"]), target["labels"]
        boxes = decode(offsets[i], PRIORS)
        own = assign_by_trying(matching_cost(boxes, logits[i], PRIORS, objects, labels))
        right = torch.zeros(len(PRIORS), 2)
        for m, p in enumerate(own.tolist()):
            right[p, labels[m] - 1] = 1
            sides += float((boxes[p] - objects[m]).abs().sum())
            overlap += 1 - float(ops.generalized_box_iou(cxcywh_to_xyxy(boxes[p])[None], target["boxes"][m][None]))
        classes += float(ops.sigmoid_focal_loss(logits[i], right, alpha=ALPHA, reduction="sum"))
    count = max(1, len(first) + len(second))
    losses = one_to_one_loss(offsets, logits, targets, PRIORS)
    assert [*losses] == ["class", "sides", "overlap"]
    assert [float(value) for value in losses.values()] == pytest.approx(
        [CLASS * classes / count, L1 * sides / count, GIOU * overlap / count], rel=1e-4, abs=1e-4
    )


def test_a_second_prediction_of_the_same_object_is_wrong() -> None:
    box = torch.tensor([[0.1, 0.1, 0.4, 0.4]])
    target = [{"boxes": box, "labels": torch.tensor([1])}]
    offsets = encode(xyxy_to_cxcywh(box).expand(4, 4), CLOSE)[None]  # all four say the very box of the object
    once, twice = torch.full((1, 4, 1), -6.0), torch.full((1, 4, 1), -6.0)
    once[0, 2] = 6
    twice[0, 1:3] = 6
    losses = [one_to_one_loss(offsets, logits, target, CLOSE) for logits in (once, twice)]
    assert all(float(each["sides"] + each["overlap"]) == pytest.approx(0, abs=1e-5) for each in losses)
    assert float(losses[0]["class"]) < 0.01
    assert float(losses[1]["class"]) > 2.5


def test_the_surer_one_has_the_object_if_it_is_near() -> None:
    box = torch.tensor([0.25, 0.25, 0.3, 0.3]).expand(4, 4)  # what all four say, and the object
    logits = torch.tensor([[-6.0], [6.0], [-6.0], [-6.0]])
    for priors, place in ((CLOSE, 1), (PRIORS, 0)):  # the sure one lies a fifteenth of a width away, then 1.7 widths
        assert assign(matching_cost(box, logits, priors, box[:1], torch.tensor([1]))).tolist() == [place]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([], "0 targets and 4 priors need"),
        ([NONE, NONE], r"2 targets and 4 priors need offsets \(2, 4, 4\)"),
        ([{"boxes": torch.tensor([[0.5, 0.1, 0.4, 0.3]]), "labels": torch.tensor([1])}], "image 0 .*swapped"),
        ([{"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.3]]), "labels": torch.tensor([3])}], "label 3 is not one of 1..2"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets: list[dict[str, Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_to_one_loss(torch.zeros(1, 4, 4), torch.zeros(1, 4, 2), targets, PRIORS)


# ---- the network --------------------------------------------------------------------------------------------------


def test_detections_are_the_best_scores_and_duplicates_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    network = OneToOne(3).eval()
    assert len(network.priors) == ONE_PER_CELL.num_priors == 32**2
    box = torch.tensor([0.5, 0.5, 0.3, 0.2])
    offsets, logits = torch.zeros(1, 1024, 4), torch.full((1, 1024, 2), -9.0)
    for place, logit in ((900, 2.0), (400, 1.0)):
        offsets[0, place] = encode(box, make_priors(ONE_PER_CELL)[place])
        logits[0, place, 1] = logit
    monkeypatch.setattr(OneToOne, "forward", lambda self, images: (offsets, logits))
    (found,) = network.detect(torch.zeros(1, 3, 256, 256), min_score=0.5, max_overlap=0.1)
    torch.testing.assert_close(found["boxes"], cxcywh_to_xyxy(box).expand(2, 4))
    assert found["labels"].tolist() == [2, 2]
    assert found["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    (best,) = network.detect(torch.zeros(1, 3, 256, 256), min_score=0.5, top_k=1)
    assert len(best["scores"]) == 1


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes images \(N, 3, 256, 256\), got \(1, 3, 64, 64\)"):
        OneToOne(3)(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="at least 2, got 1"):
        OneToOne(1)
