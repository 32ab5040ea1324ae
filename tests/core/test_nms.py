from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import boxes_xyxy, scored_boxes
from torch import Tensor

from ssdlib.boxes import iou
from ssdlib.nms import nms, nms_fast

# Exact in every precision, so that "exactly equal" means the same to everybody.
THRESHOLDS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def slow_iou(a: list[float], b: list[float]) -> float:
    def area(x_min: float, y_min: float, x_max: float, y_max: float) -> float:
        return max(x_max - x_min, 0) * max(y_max - y_min, 0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return shared / union if union > 0 else 0.0


def slow_nms(boxes: list[list[float]], scores: list[float], max_overlap: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(slow_iou(boxes[i], boxes[j]) <= max_overlap for j in kept):
            kept.append(i)
    return kept


@given(case=scored_boxes(degenerate=True), max_overlap=THRESHOLDS)
def test_equals_the_slow_loop(case: tuple[Tensor, Tensor], max_overlap: float) -> None:
    boxes, scores = case
    assert nms(boxes, scores, max_overlap).tolist() == slow_nms(boxes.tolist(), scores.tolist(), max_overlap)


@given(case=scored_boxes(), max_overlap=THRESHOLDS)
def test_equals_torchvision(case: tuple[Tensor, Tensor], max_overlap: float) -> None:
    boxes, scores = case
    assert nms(boxes, scores, max_overlap).tolist() == torchvision.ops.nms(boxes, scores, max_overlap).tolist()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("max_overlap", [0.1, 0.3, 0.45])
def test_equals_torchvision_on_a_crowd(max_overlap: float, ties: bool) -> None:
    corner, size = torch.rand(2, 1000, 2).unbind()
    boxes, scores = 300 * torch.cat((corner, corner + 0.02 + 0.3 * size), dim=1), torch.rand(1000)
    if ties:
        scores = (5 * scores).round() / 5
    kept = nms(boxes, scores, max_overlap)
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, max_overlap))
    assert 10 < len(kept) < 900


@given(case=scored_boxes(degenerate=True), max_overlap=THRESHOLDS)
def test_kept_do_not_overlap_and_dropped_have_a_better_one(case: tuple[Tensor, Tensor], max_overlap: float) -> None:
    boxes, scores = case
    kept = nms(boxes, scores, max_overlap)
    assert kept.dtype == torch.int64
    overlaps = iou(boxes, boxes)
    assert (overlaps[kept][:, kept].fill_diagonal_(0) <= max_overlap).all()
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    for i in set(range(len(boxes))) - set(kept.tolist()):
        assert ((overlaps[i, kept] > max_overlap) & (scores[kept] >= scores[i])).any()


@given(case=scored_boxes(degenerate=True), max_overlap=THRESHOLDS)
def test_a_second_time_drops_nothing(case: tuple[Tensor, Tensor], max_overlap: float) -> None:
    boxes, scores = case
    kept = nms(boxes, scores, max_overlap)
    assert nms(boxes[kept], scores[kept], max_overlap).tolist() == list(range(len(kept)))


@given(boxes=boxes_xyxy(1, 10), max_overlap=THRESHOLDS, data=st.data())
def test_order_of_the_input_does_not_matter(boxes: Tensor, max_overlap: float, data: st.DataObject) -> None:
    scores = torch.linspace(1, 0, len(boxes))  # no ties
    order = torch.tensor(data.draw(st.permutations(range(len(boxes)))))
    shuffled = nms(boxes[order], scores[order], max_overlap)
    assert torch.equal(order[shuffled], nms(boxes, scores, max_overlap))


def test_exactly_equal_overlap_is_allowed() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])  # IoU exactly 1/2
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, 0.499).tolist() == [0]


def test_a_dropped_box_drops_no_other() -> None:
    # A chain: 0 overlaps 1, 1 overlaps 2, but 0 and 2 do not touch.
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.2).tolist() == [0, 2]


def test_no_box_and_one_box() -> None:
    none = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert none.shape == (0,)
    assert none.dtype == torch.int64
    assert nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.1]), 0.0).tolist() == [0]


def test_of_equal_scores_the_earlier_box_wins() -> None:
    boxes = torch.tensor([[0.5, 0.5, 1.0, 1.0]] * 3 + [[0.0, 0.0, 0.25, 0.25]])
    assert nms(boxes, torch.full((4,), 0.5), 0.5).tolist() == [0, 3]


def test_identical_boxes_leave_one_even_if_they_are_tiny() -> None:
    # With an epsilon of 1e-5 in the IoU, a box of 3 of 300 pixels would overlap itself by 0.91 only.
    boxes = torch.tensor([[0.5, 0.5, 0.51, 0.51]] * 5)
    assert nms(boxes, torch.tensor([0.1, 0.3, 0.5, 0.2, 0.4]), 0.95).tolist() == [2]


def test_degenerate_boxes_overlap_nothing() -> None:
    boxes = torch.tensor([[0.25, 0.25, 0.25, 0.75], [0.25, 0.25, 0.25, 0.75], [0.75, 0.75, 0.25, 0.25]])
    assert nms(boxes, torch.tensor([0.3, 0.2, 0.1]), 0.0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[0, 0, 300, 300], [10, 0, 300, 300], [0, 0, 20, 20]], dtype=dtype)  # areas beyond float16
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7], dtype=dtype), 0.5).tolist() == [0, 2]


def test_input_is_left_as_it_was() -> None:
    boxes, scores = torch.rand(20, 4), torch.rand(20)
    before = boxes.clone(), scores.clone()
    nms(boxes, scores, 0.1)
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


@pytest.mark.parametrize(("boxes", "scores"), [((3, 4), (2,)), ((3, 5), (3,)), ((4,), (1,)), ((3, 4), (3, 1))])
def test_shapes_that_do_not_fit_are_refused(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"nms needs boxes \(K, 4\) and scores \(K,\), got "):
        nms(torch.zeros(boxes), torch.zeros(scores), 0.5)


def test_nan_score_is_refused() -> None:
    with pytest.raises(ValueError, match="score 1 is NaN"):
        nms(torch.rand(3, 4), torch.tensor([0.5, torch.nan, 0.1]), 0.5)


@given(
    st.lists(scored_boxes(degenerate=True), min_size=1, max_size=3),
    THRESHOLDS,
    st.integers(0, 2**31),
    st.sampled_from([0, 1, 3, 99]),
    st.sampled_from([None, 1, 2, 5]),
)
def test_fast_equals_each_class_alone(
    lists: list[tuple[Tensor, Tensor]], max_overlap: float, seed: int, top_k: int, portion: int | None
) -> None:
    most = max(len(scores) for _, scores in lists)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (len(lists), most), generator=generator)
    candidates = torch.rand(len(lists), most, generator=generator) > 0.2
    batch = torch.zeros(len(lists), most, 4)
    for i, (boxes, scores) in enumerate(lists):
        batch[i, : len(boxes)] = boxes[scores.argsort(descending=True, stable=True)]
    kept = nms_fast(batch, labels, candidates, max_overlap, top_k, portion)
    for i in range(len(lists)):
        expected = []
        for label in range(3):
            rows = ((labels[i] == label) & candidates[i]).nonzero().squeeze(1)
            expected += rows[nms(batch[i, rows], torch.arange(len(rows), 0, -1.0), max_overlap)].tolist()
        assert kept[i].nonzero().squeeze(1).tolist() == sorted(expected)[:top_k]


@pytest.mark.parametrize("max_overlap", [0.45, 0.5, 0.7])
def test_whole_pixel_boxes_at_the_limit_are_judged_by_one_rule(max_overlap: float) -> None:
    # Sides of 10 to 21 of 300 pixels; many overlaps are just the limit but for rounding. In float64, or shifted
    # apart by class, several lists come out otherwise, and so they did on a CPU; on a GPU they did not.
    generator, differ = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        corner, size = torch.randint(0, 12, (2, 40, 2), generator=generator)
        boxes = torch.cat((corner, corner + 10 + size), dim=1).float() / 300
        labels, scores = torch.randint(1, 4, (40,), generator=generator), torch.linspace(1, 0, 40)
        expected = torch.zeros(40, dtype=torch.bool)
        for label in (1, 2, 3):
            rows = (labels == label).nonzero().squeeze(1)
            expected[rows[nms(boxes[rows], scores[rows], max_overlap)]] = True
        kept = nms_fast(boxes[None], labels[None], torch.ones(1, 40, dtype=torch.bool), max_overlap, 99)[0]
        assert torch.equal(kept, expected)
        shifted = torchvision.ops.batched_nms(boxes.double(), scores.double(), labels, max_overlap)
        differ += sorted(shifted.tolist()) != expected.nonzero().squeeze(1).tolist()
    assert differ > 0  # the boxes are of the kind that tells the rules apart


def test_a_chain_of_overlaps_is_judged_from_its_best_end() -> None:
    # Each box overlaps the next one: every second stays, which takes as many rounds as there are boxes.
    left = torch.arange(20) * 0.25
    boxes = torch.stack((left, torch.zeros(20), left + 0.375, torch.ones(20)), dim=1)
    every = torch.ones(1, 20, dtype=torch.bool)
    for portion in (None, 7):
        kept = nms_fast(boxes[None], torch.zeros(1, 20), every, 0.1, 20, portion)
        assert kept[0].tolist() == [i % 2 == 0 for i in range(20)]
    late = torch.arange(20)[None] >= 14  # of the first two portions of 7 nothing is kept
    assert nms_fast(boxes[None], torch.zeros(1, 20), late, 0.1, 20, 7)[0].nonzero().flatten().tolist() == [14, 16, 18]
    assert nms_fast(torch.zeros(2, 0, 4), torch.zeros(2, 0), every[:, :0].expand(2, 0), 0.5, 9).shape == (2, 0)
