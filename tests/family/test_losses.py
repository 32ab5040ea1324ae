from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.strategies import boxes_xyxy
from torch import Tensor
from torchvision import ops

from ssdlib.boxes import iou
from ssdlib.family.losses import aligned_iou, ciou_loss, giou, giou_loss, sigmoid_focal_loss


def pairs(grid: int | None) -> Any:
    """Two lists of boxes of the same length, in pixels: the epsilons of torchvision are small there."""
    return st.integers(1, 4).flatmap(
        lambda n: st.tuples(*[boxes_xyxy(n, n, grid=grid, side=1024.0, dtype=torch.float64)] * 2)
    )


LOSSES = ((giou_loss, ops.generalized_box_iou_loss), (ciou_loss, ops.complete_box_iou_loss))

# ---- focal loss ---------------------------------------------------------------------------------------------------


def slow_focal(logit: float, target: int, alpha: float | None, gamma: float) -> float:
    chance = 1 / (1 + math.exp(-logit))
    right = chance if target == 1 else 1 - chance
    weight = 1.0 if alpha is None else alpha if target == 1 else 1 - alpha
    return -weight * (1 - right) ** gamma * math.log(right)


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=6),
    ones=st.integers(0, 63),
    alpha=st.sampled_from([None, 0.0, 0.25, 1.0]),
    gamma=st.sampled_from([0.0, 1.0, 2.0, 2.5]),
)
def test_focal_loss_is_the_plain_one_and_torchvisions(
    logits: list[float], ones: int, alpha: float | None, gamma: float
) -> None:
    targets = [ones >> i & 1 for i in range(len(logits))]
    ours = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = sigmoid_focal_loss(ours, torch.tensor(targets), alpha, gamma)
    plain = [slow_focal(x, t, alpha, gamma) for x, t in zip(logits, targets, strict=True)]
    assert loss.tolist() == pytest.approx(plain, rel=1e-9, abs=1e-12)
    theirs = ours.detach().clone().requires_grad_()
    expected = ops.sigmoid_focal_loss(theirs, torch.tensor(targets).double(), -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_focal_loss_turns_down_the_easy_and_stays_finite() -> None:
    easy, hard = sigmoid_focal_loss(torch.tensor([4.0, -4.0]), torch.tensor([1, 1]), alpha=None)
    plain = torch.nn.functional.softplus(torch.tensor([-4.0, 4.0]))
    assert easy / plain[0] < 1e-3
    assert hard / plain[1] > 0.9
    far = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    loss = sigmoid_focal_loss(far, torch.tensor([1, 0, 0, 1]))
    assert loss.tolist() == pytest.approx([0, 0, 0.75 * 200, 0.25 * 200])
    loss.sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5])
def test_focal_loss_has_a_gradient_where_nothing_is_left_to_learn(gamma: float) -> None:
    """A power below 1 is infinitely steep at 0, and 1 - p is 0 there in this precision."""
    sure = torch.tensor([200.0, -200.0], requires_grad=True)
    sigmoid_focal_loss(sure, torch.tensor([1, 0]), gamma=gamma).sum().backward()
    assert sure.grad is not None
    assert sure.grad.tolist() == [0, 0]


def test_focal_loss_computes_half_precision_in_full() -> None:
    logits = torch.tensor([-3.0, 2.0], dtype=torch.bfloat16)
    assert sigmoid_focal_loss(logits, torch.tensor([0, 1])).dtype == torch.float32
    assert sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2)), r"logits \(2, 3\) and targets \(2,\)"),
        ((torch.zeros(2), torch.zeros(2), 1.5), r"alpha must be in 0\.\.1 or None.*1\.5"),
        ((torch.zeros(2), torch.zeros(2), 0.25, -1.0), r"gamma at least 0.*-1\.0"),
        ((torch.zeros(2), torch.zeros(2), 0.25, math.nan), "nan"),
    ],
)
def test_focal_loss_refuses_what_cannot_be(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(*arguments)


# ---- boxes --------------------------------------------------------------------------------------------------------


def slow_giou(a: list[float], b: list[float]) -> float:
    def size(box: list[float]) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = size(a) + size(b) - shared
    hull = size([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return shared / union - (hull - union) / hull


@given(both=pairs(grid=32))
def test_losses_of_boxes_are_the_plain_ones_and_torchvisions(both: tuple[Tensor, Tensor]) -> None:
    a, b = both
    plain = [slow_giou(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert giou(a, b).tolist() == pytest.approx(plain, abs=1e-12)
    torch.testing.assert_close(aligned_iou(a, b), iou(a, b).diagonal())
    for ours, theirs in LOSSES:
        torch.testing.assert_close(ours(a, b), theirs(a, b), rtol=1e-6, atol=1e-7)


@given(both=pairs(grid=None))
def test_gradients_of_the_losses_of_boxes_are_torchvisions(both: tuple[Tensor, Tensor]) -> None:
    a, b = both
    assume(not (a[:, :, None] == b[:, None, :]).any())  # where sides meet, minimum and maximum have two gradients
    for ours, theirs in LOSSES:
        x, y = a.clone().requires_grad_(), a.clone().requires_grad_()
        ours(x, b).sum().backward()
        theirs(y, b).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-9)


@given(a=boxes_xyxy(0, 4), b=boxes_xyxy(0, 4))
def test_all_pairs_by_broadcasting(a: Tensor, b: Tensor) -> None:
    every = giou(a[:, None], b[None])
    assert every.shape == (len(a), len(b))
    torch.testing.assert_close(every, ops.generalized_box_iou(a, b))
    assert (every <= iou(a, b) + 1e-6).all()
    assert (every > -1).all()


def test_what_does_not_touch_is_drawn_together_by_giou_and_not_by_iou() -> None:
    box = torch.tensor([0.1, 0.1, 0.3, 0.3], requires_grad=True)
    far = torch.tensor([0.6, 0.1, 0.8, 0.3])
    (1 - aligned_iou(box, far)).backward()
    assert box.grad is not None
    assert not box.grad.any()
    giou_loss(box, far).backward()
    assert box.grad[2] < 0  # going down the gradient moves its right side to the right
    assert giou_loss(far, far) == 0
    assert ciou_loss(far, far) == 0


def test_half_precision_and_empty_boxes() -> None:
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5]], dtype=torch.bfloat16)
    for loss in (giou_loss, ciou_loss):
        assert loss(box, box).dtype == torch.float32
        assert loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
        with pytest.raises(ValueError, match="b_xyxy must have shape"):
            loss(box, torch.zeros(3))
    point = torch.tensor([0.2, 0.2, 0.2, 0.2])
    assert giou(point, point) == 0
    assert giou(point, box.float()[0]) == 0  # the hull is filled by the box
