"""Matching: a slow greedy reference, torchvision's matcher where it is right, and every object keeping a prior."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from support.strategies import boxes_cxcywh, boxes_xyxy, overlap_matrices
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.matching import UNMATCHED, best_priors, best_priors_fast, match, match_batch
from ssdlib.priors import SSD300_VOC, make_priors

# Float64 and a coarse grid: the slow reference rounds exactly as the vectorised code does, so ties are ties in both.
objects = boxes_xyxy(0, 5, grid=6, dtype=torch.float64)
priors = boxes_cxcywh(0, 8, grid=4, dtype=torch.float64)
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])

# Overlaps from which taking each object's best prior independently loses object 0: both want prior 0.
SHARED_OVERLAPS = torch.tensor([[0.45, 0.2], [0.40, 0.1]], dtype=torch.float64)
# Boxes of height 1 with these overlaps: prior 0 is the whole image, the objects are its left 45% and its right 40%, and
# prior 1 lies across the gap between them.
SHARED_OBJECTS = torch.tensor([[0.0, 0.0, 0.45, 1.0], [0.6, 0.0, 1.0, 1.0]], dtype=torch.float64)
_LOW = 0.31 / 0.98
SHARED_PRIORS = xyxy_to_cxcywh(
    torch.tensor([[0.0, 0.0, 1.0, 1.0], [_LOW, 0.0, 0.7 - 0.1 * _LOW, 1.0]], dtype=torch.float64)
)


def slow_best_priors(overlaps: list[list[float]]) -> list[int]:
    """Go through all pairs, the largest overlap first; a pair is made when both of its sides are still free."""
    pairs = [(-overlap, i, j) for i, row in enumerate(overlaps) for j, overlap in enumerate(row)]
    own = [UNMATCHED] * len(overlaps)
    for _, i, j in sorted(pairs):
        if own[i] == UNMATCHED and j not in own:
            own[i] = j
    return own


def slow_match(overlaps: list[list[float]], num_priors: int, threshold: float) -> list[int]:
    """(M, P) overlaps as lists -> an object or UNMATCHED for each prior."""
    matched = []
    for j in range(num_priors):
        best = UNMATCHED
        for i, row in enumerate(overlaps):
            if row[j] >= threshold and (best == UNMATCHED or row[j] > overlaps[best][j]):
                best = i
        matched.append(best)
    for i, j in enumerate(slow_best_priors(overlaps)):
        if j != UNMATCHED:
            matched[j] = i
    return matched


def positives(matched: Tensor) -> set[int]:
    """The objects that have a prior."""
    return set(matched.tolist()) - {UNMATCHED}


# --- references ----------------------------------------------------------------------------------------------------


@given(overlap_matrices())
def test_best_priors_equal_the_slow_greedy_choice(overlaps: Tensor) -> None:
    own = best_priors(overlaps)
    assert own.dtype == torch.int64
    assert own.tolist() == slow_best_priors(overlaps.tolist())


@given(overlap_matrices(max_objects=9, max_priors=12))
def test_fast_equals_the_plain_rule(overlaps: Tensor) -> None:
    own = best_priors_fast(overlaps)
    assert own.dtype == torch.int64
    assert torch.equal(own, best_priors(overlaps))


@pytest.mark.parametrize("levels", [1, 2, 5, 1000, None])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 1.0])
def test_fast_equals_the_plain_rule_in_crowds(levels: int | None, share: float) -> None:
    # Several portions of pairs: objects that want the same priors, few or many that they touch, equal overlaps.
    for num_objects, num_priors in ((150, 400), (120, 60), (1, 300), (300, 1)):
        overlaps = torch.rand(num_objects, num_priors) * 0.1 + torch.rand(num_priors) * 0.9
        overlaps[torch.rand_like(overlaps) >= share] = 0
        overlaps[3:40] = overlaps[:1].clone()  # one object many times
        if levels is not None:
            overlaps = (overlaps * levels).round() / levels
        before = overlaps.clone()
        assert torch.equal(best_priors_fast(overlaps), best_priors(overlaps))
        assert torch.equal(overlaps, before)


def test_five_hundred_objects_on_the_priors_of_ssd300() -> None:
    corner = torch.rand(500, 2) * 0.95
    boxes = torch.cat((corner, corner + 0.01 + 0.04 * torch.rand(500, 2)), dim=1)
    overlaps = iou(boxes, cxcywh_to_xyxy(make_priors(SSD300_VOC)[::4]))
    assert torch.equal(best_priors_fast(overlaps), best_priors(overlaps))
    assert overlaps.argmax(dim=1).unique().numel() < 450  # many want the same prior


class WithoutScatter(TorchDispatchMode):
    """Refuses what Apple's GPUs cannot do in supported versions of torch."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run any other operation."""
        if "scatter" in str(func) or "index_reduce" in str(func):
            raise RuntimeError(f"{func} is not there on this device")
        return func(*args, **(kwargs or {}))


def test_nothing_is_scattered() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4]] * 3)
    with WithoutScatter():
        match(boxes, make_priors(SSD300_VOC))
        match_batch(boxes, torch.tensor([0, 0, 2]), 3, make_priors(SSD300_VOC))


@given(objects, priors, thresholds)
def test_match_equals_a_loop(boxes: Tensor, priors_cxcywh: Tensor, threshold: float) -> None:
    overlaps = box_iou(boxes, cxcywh_to_xyxy(priors_cxcywh)).tolist()
    matched = match(boxes, priors_cxcywh, threshold)
    assert matched.dtype == torch.int64
    assert matched.tolist() == slow_match(overlaps, len(priors_cxcywh), threshold)


@given(
    boxes_xyxy(1, 3, grid=None, dtype=torch.float64),
    boxes_cxcywh(4, 8, grid=None, dtype=torch.float64),
    thresholds,
)
def test_match_equals_torchvision_if_no_best_prior_is_shared(
    boxes: Tensor, priors_cxcywh: Tensor, threshold: float
) -> None:
    overlaps = box_iou(boxes, cxcywh_to_xyxy(priors_cxcywh))
    assume(overlaps.argmax(dim=1).unique().numel() == len(boxes))
    assert torch.equal(match(boxes, priors_cxcywh, threshold), SSDMatcher(threshold)(overlaps))


def test_match_equals_torchvision_on_the_priors_of_ssd300() -> None:
    priors_cxcywh, compared = make_priors(SSD300_VOC), 0
    for _ in range(30):
        corner, size = torch.rand(6, 2) * 0.6, torch.rand(6, 2) * 0.35 + 0.05
        boxes = torch.cat((corner, corner + size), dim=1)
        overlaps = box_iou(boxes, cxcywh_to_xyxy(priors_cxcywh))
        if overlaps.argmax(dim=1).unique().numel() == len(boxes):
            assert torch.equal(match(boxes, priors_cxcywh), SSDMatcher(0.5)(overlaps))
            compared += 1
    assert compared > 20


# --- every object keeps a prior ------------------------------------------------------------------------------------


@given(objects, priors, thresholds)
def test_every_object_keeps_a_prior_of_its_own(boxes: Tensor, priors_cxcywh: Tensor, threshold: float) -> None:
    matched = match(boxes, priors_cxcywh, threshold)
    if len(priors_cxcywh) >= len(boxes):
        assert positives(matched) == set(range(len(boxes)))
    else:  # then no prior is left over
        assert UNMATCHED not in matched.tolist()
        assert len(positives(matched)) == len(priors_cxcywh)


@given(boxes_xyxy(1, 3), st.integers(1, 4), thresholds)
def test_duplicate_objects_and_duplicate_priors(boxes: Tensor, copies: int, threshold: float) -> None:
    crowd = boxes.repeat(copies, 1)
    matched = match(crowd, xyxy_to_cxcywh(crowd), threshold)
    assert positives(matched) == set(range(len(crowd)))


@given(overlap_matrices())
def test_best_priors_are_one_to_one(overlaps: Tensor) -> None:
    own = best_priors(overlaps)
    taken = own[own != UNMATCHED]
    assert len(taken) == len(taken.unique()) == min(overlaps.shape)


@given(overlap_matrices())
def test_best_priors_leave_no_pair_that_would_both_gain(overlaps: Tensor) -> None:
    # What "greedy" promises: whoever else an object would rather have is held by an object that overlaps it at least
    # as much.
    own = best_priors(overlaps).tolist()
    holder = {j: i for i, j in enumerate(own) if j != UNMATCHED}
    table = overlaps.tolist()
    for i, row in enumerate(table):
        for j, overlap in enumerate(row):
            if own[i] == UNMATCHED or overlap > row[own[i]]:
                assert table[holder[j]][j] >= overlap


def test_two_objects_with_one_best_prior() -> None:
    assert best_priors(SHARED_OVERLAPS).tolist() == [0, 1]
    torch.testing.assert_close(iou(SHARED_OBJECTS, cxcywh_to_xyxy(SHARED_PRIORS)), SHARED_OVERLAPS)
    assert match(SHARED_OBJECTS, SHARED_PRIORS).tolist() == [0, 1]
    assert match(SHARED_OBJECTS.float(), SHARED_PRIORS.float()).tolist() == [0, 1]
    # The order in which the objects come does not decide who keeps the prior.
    assert match(SHARED_OBJECTS.flip(0), SHARED_PRIORS).tolist() == [1, 0]
    # Nor does a threshold that both reach on the shared prior.
    assert match(SHARED_OBJECTS, SHARED_PRIORS, threshold=0.3).tolist() == [0, 1]


def test_torchvisions_matcher_loses_an_object_there() -> None:
    # Why this module is not a call of that one.
    assert len(positives(SSDMatcher(0.5)(SHARED_OVERLAPS))) == 1


def test_three_objects_that_want_one_prior_are_served_by_overlap() -> None:
    overlaps = torch.tensor([[0.6, 0.3, 0.2], [0.8, 0.5, 0.1], [0.7, 0.4, 0.0]])
    assert best_priors(overlaps).tolist() == [2, 0, 1]


def test_an_own_prior_is_not_taken_back_by_a_better_overlap() -> None:
    # Prior 1 overlaps object 0 by 0.8 and object 1 by 0.1 alone, but it is all that object 1 can have.
    overlaps = torch.tensor([[0.9, 0.8], [0.6, 0.1]])
    assert best_priors(overlaps).tolist() == [0, 1]
    boxes = torch.tensor([[0.0, 0.0, 1.0, 0.5], [0.9, 0.0, 1.0, 0.5]])
    near = xyxy_to_cxcywh(torch.tensor([[0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.95, 0.5]]))
    assert iou(boxes, cxcywh_to_xyxy(near))[0, 1] > 0.9
    assert match(boxes, near).tolist() == [0, 1]


def test_ties_go_to_the_earlier_object_and_the_earlier_prior() -> None:
    assert best_priors(torch.full((2, 3), 0.5)).tolist() == [0, 1]
    assert best_priors(torch.zeros(2, 3)).tolist() == [0, 1]
    assert best_priors(torch.tensor([[0.5, 0.7, 0.7], [0.7, 0.7, 0.5]])).tolist() == [1, 0]
    box = torch.tensor([[0.2, 0.2, 0.6, 0.6]])
    assert match(box.repeat(2, 1), xyxy_to_cxcywh(box.repeat(3, 1))).tolist() == [0, 1, 0]


def test_a_crowd_on_the_priors_of_ssd300() -> None:
    # Ten copies of one box, ten boxes that differ by a hair, and ten others.
    same = torch.tensor([[0.4, 0.4, 0.6, 0.6]]).repeat(10, 1)
    similar = same + torch.arange(10)[:, None] * 1e-3
    corner = torch.rand(10, 2) * 0.8
    boxes = torch.cat((same, similar, torch.cat((corner, corner + 0.15), dim=1)))
    priors_cxcywh = make_priors(SSD300_VOC)
    overlaps = iou(boxes, cxcywh_to_xyxy(priors_cxcywh))
    assert overlaps.argmax(dim=1).unique().numel() < len(boxes)  # they do get into each other's way
    own = best_priors(overlaps)
    assert own.tolist() == slow_best_priors(overlaps.tolist())
    assert torch.equal(match(boxes, priors_cxcywh)[own], torch.arange(len(boxes)))


# --- the threshold -------------------------------------------------------------------------------------------------


def test_an_overlap_equal_to_the_threshold_is_enough() -> None:
    # The first prior is the object; the others cover a half of it, or a little less.
    box = torch.tensor([[0.0, 0.0, 0.5, 0.25]])
    near = xyxy_to_cxcywh(
        torch.tensor([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.25, 0.25], [0.0, 0.0, 0.25 - 1 / 512, 0.25]])
    )
    assert iou(box, cxcywh_to_xyxy(near))[0, :2].tolist() == [1.0, 0.5]
    assert match(box, near).tolist() == [0, 0, UNMATCHED]
    assert match(box, near, threshold=0.5 + 1e-6).tolist() == [0, UNMATCHED, UNMATCHED]
    assert match(box, near, threshold=0.49).tolist() == [0, 0, 0]


def test_the_best_prior_is_kept_below_the_threshold() -> None:
    box = torch.tensor([[0.0, 0.0, 0.1, 0.1]])
    far = xyxy_to_cxcywh(torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]]))
    assert match(box, far).tolist() == [UNMATCHED, 0, UNMATCHED]


@given(objects, priors)
def test_a_higher_threshold_only_takes_matches_away(boxes: Tensor, priors_cxcywh: Tensor) -> None:
    low, high = match(boxes, priors_cxcywh, 0.3), match(boxes, priors_cxcywh, 0.6)
    kept = high != UNMATCHED
    assert torch.equal(low[kept], high[kept])


# --- edges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_image_without_objects_is_all_background(count: int) -> None:
    matched = match(torch.empty(0, 4), torch.rand(count, 4) + 0.1)
    assert matched.dtype == torch.int64
    assert matched.tolist() == [UNMATCHED] * count


def test_without_priors_nothing_is_matched() -> None:
    matched = match(torch.tensor([[0.1, 0.1, 0.2, 0.2]]), torch.empty(0, 4))
    assert (matched.dtype, matched.shape) == (torch.int64, (0,))
    assert best_priors(torch.empty(2, 0)).tolist() == [UNMATCHED] * 2
    assert best_priors(torch.empty(0, 2)).tolist() == []


def test_one_object_and_one_prior_always_match() -> None:
    assert match(torch.tensor([[0.0, 0.0, 0.1, 0.1]]), torch.tensor([[0.8, 0.8, 0.1, 0.1]])).tolist() == [0]


def test_fewer_priors_than_objects_serve_the_best_overlaps() -> None:
    assert best_priors(torch.tensor([[0.5], [0.9], [0.7]])).tolist() == [UNMATCHED, 0, UNMATCHED]
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.6, 0.6], [0.5, 0.5, 1.0, 1.0]])
    assert match(boxes, xyxy_to_cxcywh(boxes[1:2])).tolist() == [1]


def test_an_object_without_area_keeps_a_prior_but_cannot_be_encoded() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.2, 0.7], [0.1, 0.1, 0.5, 0.5]])
    priors_cxcywh = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])
    matched = match(boxes, priors_cxcywh)
    assert matched.tolist() == [1, 0]
    with pytest.raises(ValueError, match="empty"):
        encode(xyxy_to_cxcywh(boxes)[matched], priors_cxcywh)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_match_in_other_float_types(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], dtype=dtype)
    priors_cxcywh = torch.tensor([[0.75, 0.75, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.25, 0.25]], dtype=dtype)
    assert match(boxes, priors_cxcywh).tolist() == [1, 0, UNMATCHED]


def test_match_works_in_pixels_too() -> None:
    boxes = torch.tensor([[0, 0, 150, 150], [150, 150, 300, 300]])
    priors_cxcywh = torch.tensor([[225, 225, 150, 150], [75, 75, 140, 140], [150, 150, 60, 60]])
    assert match(boxes, priors_cxcywh).tolist() == [1, 0, UNMATCHED]


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        [0.5, 0.1, 0.2, 0.4],
        [0.1, 0.5, 0.2, 0.4],
        [math.nan, 0.1, 0.2, 0.4],
        [0.1, 0.1, math.nan, 0.4],
        [0.1, 0.1, 0.2, math.inf],
        [-math.inf, 0.1, 0.2, 0.4],
    ],
)
def test_match_refuses_swapped_and_not_finite_boxes_and_names_them(bad: list[float]) -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2], bad, [0.3, 0.3, 0.4, 0.4]])
    with pytest.raises(ValueError, match=r"object 1 has no valid box: \[.*\] \(xyxy\)"):
        match(boxes, torch.rand(5, 4))


@pytest.mark.parametrize("shape", [(4,), (0,), (2, 3), (1, 2, 4)])
def test_match_needs_a_list_of_boxes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"boxes_xyxy must have shape \(N, 4\), got"):
        match(torch.zeros(shape), torch.rand(5, 4))


@pytest.mark.parametrize("objects_in_image", [0, 2])
@pytest.mark.parametrize("shape", [(4,), (0,), (2, 3), (1, 2, 4)])
def test_match_needs_a_list_of_priors(shape: tuple[int, ...], objects_in_image: int) -> None:
    with pytest.raises(ValueError, match=r"priors_cxcywh must have shape \(N, 4\), got"):
        match(torch.tensor([[0.1, 0.1, 0.2, 0.2]] * objects_in_image).reshape(-1, 4), torch.zeros(shape))


@given(objects, priors)
def test_inputs_are_not_changed(boxes: Tensor, priors_cxcywh: Tensor) -> None:
    overlaps = iou(boxes, cxcywh_to_xyxy(priors_cxcywh))
    before = boxes.clone(), priors_cxcywh.clone(), overlaps.clone()
    match(boxes, priors_cxcywh)
    best_priors(overlaps)
    assert torch.equal(boxes, before[0])
    assert torch.equal(priors_cxcywh, before[1])
    assert torch.equal(overlaps, before[2])


# ---- many images at once ---------------------------------------------------------------------------------------


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    num_priors=st.sampled_from([0, 1, 3, 30]),
)
def test_a_batch_is_matched_as_its_images(counts: list[int], seed: int, threshold: float, num_priors: int) -> None:
    # Coordinates are eighths, so that overlaps are often equal, objects identical, and best priors shared.
    generator = torch.Generator().manual_seed(seed)

    def coarse(count: int) -> Tensor:
        sides = torch.randint(0, 9, (2 * count, 2, 2), generator=generator).sort(dim=1).values
        boxes = sides.flatten(1).float() / 8
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)][:count]
        return torch.cat((boxes, torch.tensor([0.0, 0, 0.5, 0.5]).expand(count - len(boxes), 4)))

    images = [coarse(count) for count in counts]
    priors = xyxy_to_cxcywh(coarse(num_priors))
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    matched = match_batch(torch.cat(images), image, len(counts), priors, threshold)
    assert matched.dtype == torch.int64
    first = 0
    for row, boxes in zip(matched, images, strict=True):
        alone = match(boxes, priors, threshold)
        assert torch.equal(row, torch.where(alone == UNMATCHED, UNMATCHED, alone + first))
        first += len(boxes)


def test_a_batch_refuses_a_wrong_box_too() -> None:
    with pytest.raises(ValueError, match="object 1 has no valid box"):
        match_batch(torch.tensor([[0.0, 0, 1, 1], [0.5, 0, 0.25, 1]]), torch.tensor([0, 1]), 2, torch.rand(3, 4))
