"""What a stage learns from: assignment against torchvision's and a slow one, and the sample."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_cxcywh, boxes_xyxy, tensors
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import decode, encode
from ssdlib.family.sampling import IGNORED, Lesson, Rule, assign, draw_sample, stage_losses, teach
from ssdlib.matching import UNMATCHED

labels = st.integers(0, 30).flatmap(lambda n: tensors((n,), st.integers(-1, 3), torch.int64))


@given(objects=boxes_xyxy(0, 4), priors=boxes_cxcywh(1, 8))
def test_assignment_by_a_slow_one(objects: Tensor, priors: Tensor) -> None:
    matched, ignored = assign(priors, objects, 0.7, 0.3)
    for p, prior in enumerate(cxcywh_to_xyxy(priors)):
        overlaps = iou(prior[None], objects)[0].tolist()
        best = max(overlaps, default=0.0)
        if best >= 0.7:
            assert matched[p] != UNMATCHED
        if matched[p] == UNMATCHED:
            assert bool(ignored[p]) == (len(objects) > 0 and best >= 0.3)
        else:
            assert not ignored[p]
    if len(priors) >= len(objects):
        assert set(range(len(objects))) <= set(matched.tolist())  # none is left without


def test_limits_by_hand() -> None:
    """An object of 10 x 10 and priors inside it: their overlaps are their areas, and both limits are included."""
    objects = torch.tensor([[0.0, 0, 10, 10]])
    heights = torch.tensor([9.0, 7.0, 6.9, 3.5, 3.0, 2.9, 0.5])
    priors = xyxy_to_cxcywh(torch.stack([torch.tensor([0.0, 0, 10, height]) for height in heights]))
    matched, ignored = assign(priors, objects, 0.7, 0.3)
    assert matched.tolist() == [0, 0] + 5 * [UNMATCHED]
    assert ignored.tolist() == [False, False, True, True, True, False, False]
    matched, ignored = assign(priors[2:], objects, 0.7, 0.3)  # the best one, though its overlap is 0.69
    assert matched.tolist() == [0] + 4 * [UNMATCHED]
    assert ignored.tolist() == [False, True, True, False, False]
    matched, ignored = assign(priors, torch.zeros(0, 4), 0.7, 0.3)
    assert (matched == UNMATCHED).all()
    assert not ignored.any()


@given(objects=boxes_xyxy(1, 4, grid=None), priors=boxes_cxcywh(1, 12, grid=None))
def test_assignment_is_torchvisions_where_no_prior_is_the_best_of_two(objects: Tensor, priors: Tensor) -> None:
    overlaps = iou(objects, cxcywh_to_xyxy(priors))
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps)  # -1 background, -2 between
    matched, ignored = assign(priors, objects, 0.7, 0.3)
    ours = torch.where(ignored, -2, torch.where(matched == UNMATCHED, -1, 0))
    best = overlaps.amax(dim=1, keepdim=True)
    if len(overlaps.argmax(dim=1).unique()) == len(objects) and ((overlaps == best).sum(dim=1) == 1).all():
        assert torch.equal(ours, theirs.clamp(max=0))
    strong = overlaps.amax(dim=0) >= 0.7
    forced = torch.zeros(len(priors), dtype=torch.bool)
    forced[overlaps.argmax(dim=1)] = True
    assert torch.equal(matched[strong & ~forced], theirs[strong & ~forced])


@given(boxes=boxes_cxcywh(1, 6, grid=None), data=st.data())
def test_offsets_of_both_stages_are_torchvisions(boxes: Tensor, data: st.DataObject) -> None:
    """The variances are the inverse of torchvision's weights: 1 in its first stage, (10, 10, 5, 5) in its second."""
    priors = data.draw(boxes_cxcywh(len(boxes), len(boxes), grid=None))
    for weights, variances in (((1.0, 1.0, 1.0, 1.0), (1.0, 1.0)), ((10.0, 10.0, 5.0, 5.0), (0.1, 0.2))):
        coder = BoxCoder(weights)
        # in float64: it takes widths as differences of corners, which leaves few digits of a small one
        theirs = coder.encode_single(cxcywh_to_xyxy(boxes.double()), cxcywh_to_xyxy(priors.double()))
        ours = encode(boxes.double(), priors.double(), variances)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        back = coder.decode_single(ours, cxcywh_to_xyxy(priors.double()))
        torch.testing.assert_close(cxcywh_to_xyxy(decode(ours, priors.double(), variances)), back, rtol=1e-6, atol=1e-6)


@given(
    labels=labels, number=st.integers(0, 20), positives=st.sampled_from([0.0, 0.25, 0.5, 1.0]), seed=st.integers(0, 9)
)
def test_sample_is_of_that_size_and_proportion(labels: Tensor, number: int, positives: float, seed: int) -> None:
    chosen = draw_sample(labels, number, positives, torch.Generator().manual_seed(seed))
    drawn = labels[chosen]
    objects = int((labels > 0).sum())
    background = int((labels == 0).sum())
    assert len(set(chosen.tolist())) == len(chosen)
    assert (drawn != IGNORED).all()
    taken = int((drawn > 0).sum())
    assert taken == min(objects, int(number * positives))
    assert len(chosen) - taken == min(background, number - taken)
    assert (drawn[:taken] > 0).all()
    torch.manual_seed(seed)
    theirs = BalancedPositiveNegativeSampler(number, positives)([labels.float()])
    assert int(theirs[0][0].sum()) == taken
    assert int(theirs[1][0].sum()) == len(chosen) - taken


def test_sample_is_drawn_anew_by_each_seed_and_the_same_by_the_same() -> None:
    labels = torch.zeros(2000, dtype=torch.int64)
    first, again, other = (draw_sample(labels, 256, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(draw_sample(labels, 256, 0.5), first)
    assert first.float().mean() == pytest.approx(1000, abs=120)  # from everywhere


@settings(max_examples=60)
@given(objects=boxes_xyxy(0, 3), priors=boxes_cxcywh(1, 10), data=st.data())
def test_a_lesson_gives_each_positive_the_way_to_its_object(
    objects: Tensor, priors: Tensor, data: st.DataObject
) -> None:
    classes = data.draw(tensors((len(objects),), st.integers(1, 5), torch.int64))
    lesson = teach(priors, objects, classes, Rule(0.5, 0.3, 8, 0.5), torch.Generator().manual_seed(0))
    positive = lesson.labels > 0
    assert len(lesson.offsets) == positive.sum() <= 4
    boxes = cxcywh_to_xyxy(decode(lesson.offsets, priors[lesson.chosen[positive]]))
    matched, _ = assign(priors, objects, 0.5, 0.3)
    for box, prior, label in zip(boxes, lesson.chosen[positive], lesson.labels[positive], strict=True):
        torch.testing.assert_close(box, objects[matched[prior]], rtol=0, atol=1e-4)
        assert label == classes[matched[prior]]


def test_losses_by_hand() -> None:
    lessons = [
        Lesson(torch.tensor([4, 7]), torch.tensor([2, 0]), torch.tensor([[0.0, 0.5, -2.0, 0.0]])),
        Lesson(torch.tensor([1]), torch.tensor([0]), torch.zeros(0, 4)),
    ]
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1], [0.5, 0.4, 0.1]]))
    confidence, localization = stage_losses(torch.zeros(3, 4), logits, lessons)
    expected = -(torch.tensor([0.25, 0.8, 0.5]).log().mean())
    torch.testing.assert_close(confidence, expected)
    assert localization.item() == pytest.approx((0.5 * 0.5**2 + (2 - 0.5)) / 3)  # over the sample, not the positives


def test_losses_of_an_empty_sample_are_zero() -> None:
    lessons = [teach(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), Rule(0.5, 0.5, 8, 0.5))]
    losses = stage_losses(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 3, requires_grad=True), lessons)
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()  # type: ignore[union-attr]


def test_bad_rules_and_boxes_are_refused() -> None:
    priors, objects = torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.1, 0.1, 0.4, 0.4]])
    with pytest.raises(ValueError, match=r"the limit of background, 0\.8"):
        assign(priors, objects, 0.7, 0.8)
    with pytest.raises(ValueError, match="object 0 has no valid box"):
        assign(priors, objects[:, [2, 1, 0, 3]], 0.7, 0.3)
    with pytest.raises(ValueError, match="got -1"):
        draw_sample(torch.zeros(3, dtype=torch.int64), -1, 0.5)
    with pytest.raises(ValueError, match=r"1\.5"):
        draw_sample(torch.zeros(3, dtype=torch.int64), 4, 1.5)
    assert xyxy_to_cxcywh(objects).shape == (1, 4)
