from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.coding import encode
from ssdlib.detection import detect, detect_plainly
from ssdlib.nms import nms
from ssdlib.priors import SSD300_COCO, SSD300_VOC, PriorRecipe, make_priors

RECIPE = PriorRecipe("test", 64, (4, 2, 1), (0.25, 0.45, 0.7, 0.9), ((1.0, 2.0, 0.5), (1.0, "extra"), (1.0,)))
PRIORS = make_priors(RECIPE)  # (57, 4)
BACKGROUND = 20.0  # a logit that leaves the other classes a score of about 1e-9
Detections = list[tuple[int, float, list[float]]]


def random_predictions(seed: int, images: int, num_classes: int, priors: int = len(PRIORS)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = 2 * torch.randn(images, priors, 4, generator=generator)
    return offsets, 2 * torch.randn(images, priors, num_classes, generator=generator)


def planted(boxes_xyxy: list[list[float]], scores: list[list[float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions (one image) that decode to these boxes and, for the C classes, these scores; and their priors."""
    boxes = torch.tensor(boxes_xyxy).reshape(-1, 4)
    priors = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)
    return torch.zeros(1, len(boxes), 4), torch.tensor(scores).log()[None], priors


def slow_detect(
    offsets: Tensor, logits: Tensor, min_score: float, max_overlap: float, top_k: int, max_candidates: int
) -> Detections:
    """One image: (label, score, box), best first, one class and one prior after the other."""
    found: Detections = []
    for label in range(1, logits.shape[1]):
        candidates = []
        for p, scores in enumerate(logits.double().tolist()):
            score = math.exp(scores[label]) / sum(math.exp(s) for s in scores)
            if score >= min_score:
                candidates.append((score, p))
        candidates = sorted(candidates, reverse=True)[:max_candidates]
        boxes = []
        for _, p in candidates:
            (g_cx, g_cy, g_w, g_h), (cx, cy, w, h) = offsets[p].double().tolist(), PRIORS[p].double().tolist()
            cx, cy = cx + 0.1 * g_cx * w, cy + 0.1 * g_cy * h
            w, h = w * math.exp(0.2 * g_w), h * math.exp(0.2 * g_h)
            corners = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
            boxes.append([min(max(c, 0.0), 1.0) for c in corners])
        kept: list[int] = []
        for i, box in enumerate(boxes):
            overlaps = iou(torch.tensor([box]), torch.tensor([boxes[j] for j in kept]).reshape(-1, 4))
            if (overlaps <= max_overlap).all():
                kept.append(i)
        found += [(label, candidates[i][0], boxes[i]) for i in kept]
    return sorted(found, key=lambda detection: -detection[1])[:top_k]


@given(
    seed=st.integers(0, 2**31),
    num_classes=st.integers(2, 4),
    min_score=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    max_overlap=st.sampled_from([0.0, 0.3, 0.45, 1.0]),
    limits=st.tuples(st.sampled_from([1, 5, 200]), st.sampled_from([1, 7, 400])),
)
def test_equals_the_slow_loop(
    seed: int, num_classes: int, min_score: float, max_overlap: float, limits: tuple[int, int]
) -> None:
    offsets, logits = random_predictions(seed, 2, num_classes)
    top_k, max_candidates = limits
    results = detect(offsets, logits, PRIORS, min_score, max_overlap, top_k, max_candidates=max_candidates)
    for i, found in enumerate(results):
        expected = slow_detect(offsets[i], logits[i], min_score, max_overlap, top_k, max_candidates)
        assert found["labels"].tolist() == [label for label, _, _ in expected]
        torch.testing.assert_close(found["scores"], torch.tensor([score for _, score, _ in expected]))
        boxes = torch.tensor([box for _, _, box in expected]).reshape(-1, 4)
        torch.testing.assert_close(found["boxes"], boxes, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**31), top_k=st.integers(1, 20))
def test_what_holds_for_all_detections(seed: int, top_k: int) -> None:
    offsets, logits = random_predictions(seed, 2, 4)
    for found in detect(10 * offsets, logits, PRIORS, 0.1, 0.45, top_k):
        boxes, labels, scores = found["boxes"], found["labels"], found["scores"]
        assert boxes.shape == (len(labels), 4)
        assert len(labels) == len(scores) <= top_k
        assert (boxes.dtype, labels.dtype, scores.dtype) == (torch.float32, torch.int64, torch.float32)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert ((labels >= 1) & (labels <= 3)).all()
        assert (scores >= 0.1).all()
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        overlaps = iou(boxes, boxes).fill_diagonal_(0)
        assert (overlaps[labels[:, None] == labels] <= 0.45 + 1e-6).all()


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchvision(seed: int) -> None:
    priors = make_priors(SSD300_COCO)
    offsets, logits = random_predictions(seed, 2, 6, len(priors))
    expected = TorchvisionSSD.postprocess_detections(
        SimpleNamespace(
            box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
            score_thresh=0.01,
            topk_candidates=400,
            nms_thresh=0.45,
            detections_per_img=4000,
        ),
        {"bbox_regression": offsets, "cls_logits": logits},
        [cxcywh_to_xyxy(priors)] * 2,
        [(1, 1)] * 2,
    )
    for found, their in zip(detect(offsets, logits, priors), expected, strict=True):
        assert len(found["labels"]) == 200
        inside = (their["boxes"][:, 2:] > their["boxes"][:, :2]).all(dim=1)  # torchvision keeps boxes without area
        their = {name: column[inside][:200] for name, column in their.items()}
        assert torch.equal(found["labels"], their["labels"])
        torch.testing.assert_close(found["scores"], their["scores"])
        torch.testing.assert_close(found["boxes"], their["boxes"], rtol=1e-4, atol=1e-5)


@given(index=st.integers(0, SSD300_VOC.num_priors - 1), label=st.integers(1, 20))
def test_planted_prediction_is_found_in_its_cell(index: int, label: int) -> None:
    logits = torch.zeros(1, SSD300_VOC.num_priors, 21)
    logits[..., 0] = BACKGROUND
    logits[0, index, label] = 2 * BACKGROUND
    offsets = torch.randn(1, SSD300_VOC.num_priors, 4)
    offsets[0, index] = 0
    (found,) = detect(offsets, logits, make_priors(SSD300_VOC))
    assert found["labels"].tolist() == [label]
    assert found["scores"].tolist() == pytest.approx([1.0])
    k, row, column, prior = SSD300_VOC.locate(index)
    side = SSD300_VOC.map_sizes[k]
    w, h = SSD300_VOC.shapes(k)[prior]
    cx, cy = (column + 0.5) / side, (row + 0.5) / side
    expected = [max(cx - w / 2, 0), max(cy - h / 2, 0), min(cx + w / 2, 1), min(cy + h / 2, 1)]
    assert found["boxes"][0].tolist() == pytest.approx(expected, abs=1e-5)


def test_encoded_box_comes_back() -> None:
    box = torch.tensor([0.4, 0.45, 0.3, 0.2])
    logits = torch.zeros(1, len(PRIORS), 3)
    logits[..., 0] = BACKGROUND
    logits[0, 10, 2] = 2 * BACKGROUND
    for variances in ((0.1, 0.2), (0.2, 0.5)):
        offsets = encode(box, PRIORS[10], variances).expand(1, len(PRIORS), 4)
        (found,) = detect(offsets, logits, PRIORS, variances=variances)
        torch.testing.assert_close(found["boxes"], torch.tensor([[0.25, 0.35, 0.55, 0.55]]))


def test_background_is_never_detected() -> None:
    offsets, logits = random_predictions(0, 1, 4)
    logits[..., 0] = 10.0
    (found,) = detect(offsets, logits, PRIORS, 0.0)
    assert len(found["labels"]) > 0
    assert (found["labels"] > 0).all()
    assert (found["scores"] < 0.5).all()
    (only_background,) = detect(offsets, logits[..., :1], PRIORS, 0.0)
    assert len(only_background["labels"]) == 0


def test_the_least_score_is_enough() -> None:
    offsets, logits, priors = planted([[0.0, 0.0, 0.25, 0.25], [0.5, 0.5, 1.0, 1.0]], [[0.5, 0.5], [0.75, 0.25]])
    assert detect(offsets, logits, priors, 0.5)[0]["scores"].tolist() == [0.5]
    assert len(detect(offsets, logits, priors, 0.5001)[0]["scores"]) == 0


def test_nms_is_done_for_each_class() -> None:
    # The same box twice: as class 1 (0.6 and 0.3) and as class 2 (0.3 and 0.6).
    same = [0.25, 0.25, 0.75, 0.75]
    (found,) = detect(*planted([same, same], [[0.1, 0.6, 0.3], [0.1, 0.3, 0.6]]))
    assert sorted(found["labels"].tolist()) == [1, 2]
    assert found["scores"].tolist() == pytest.approx([0.6, 0.6])


def test_overlap_just_at_the_limit_is_kept() -> None:
    offsets, logits, priors = planted([[0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.25, 0.25]], [[0.1, 0.9], [0.2, 0.8]])
    assert len(detect(offsets, logits, priors, max_overlap=0.5)[0]["labels"]) == 2
    assert len(detect(offsets, logits, priors, max_overlap=0.49)[0]["labels"]) == 1


@given(seed=st.integers(0, 2**31))
def test_small_boxes_of_the_last_of_91_classes(seed: int) -> None:
    # Boxes of 1 to 4 of 300 pixels. Shifting the classes apart in float32 gets several of these examples wrong.
    generator = torch.Generator().manual_seed(seed)
    corner, size, scores = torch.rand(60, 5, generator=generator).split((2, 2, 1), dim=1)
    boxes = torch.cat((0.5 + 0.005 * corner, 0.503 + 0.005 * corner + 0.01 * size), dim=1)
    offsets, _, priors = planted(boxes.tolist(), [])
    logits = torch.full((1, 60, 91), -20.0)
    logits[..., 0], logits[..., 90:] = 0, scores
    (found,) = detect(offsets, logits, priors)
    expected = cxcywh_to_xyxy(priors)
    torch.testing.assert_close(found["boxes"], expected[nms(expected, scores[:, 0], 0.45)])


def test_cap_of_each_class_before_nms() -> None:
    offsets, logits = random_predictions(0, 1, 3, SSD300_VOC.num_priors)
    offsets = offsets / 100  # no box leaves the image
    priors = make_priors(SSD300_VOC)
    (found,) = detect(offsets, logits, priors, 0.0, 1.0, 10**6)  # nothing is below or overlaps too much
    assert torch.bincount(found["labels"]).tolist() == [0, 400, 400]
    scores = logits[0].softmax(dim=1)
    for label in (1, 2):
        ours = found["scores"][found["labels"] == label]
        torch.testing.assert_close(ours, scores[:, label].sort(descending=True).values[:400])
    (found,) = detect(offsets, logits, priors, 0.0, 1.0, 10**6, max_candidates=7)
    assert torch.bincount(found["labels"]).tolist() == [0, 7, 7]


def test_top_k_takes_the_best_of_all_classes() -> None:
    boxes = [[0.1 * i, 0.0, 0.1 * i + 0.05, 0.5] for i in range(4)]
    scores = [[0.1, 0.7, 0.2], [0.1, 0.1, 0.8], [0.3, 0.6, 0.1], [0.1, 0.4, 0.5]]
    (found,) = detect(*planted(boxes, scores), top_k=3)
    assert found["labels"].tolist() == [2, 1, 1]
    assert found["scores"].tolist() == pytest.approx([0.8, 0.7, 0.6])


def test_boxes_are_clipped_to_the_image_also_when_the_size_overflows() -> None:
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5]])
    offsets = torch.tensor([[[0.0, 0.0, 1000.0, 1000.0], [0.0, 0.0, 0.0, 0.0]]])  # exp(200) is beyond float32
    logits = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 8.0]]])
    (found,) = detect(offsets, logits, priors, 0.5)
    assert found["boxes"].tolist() == [[0.0, 0.0, 1.0, 1.0], [0.0, 0.75, 0.25, 1.0]]


def test_nothing_to_detect() -> None:
    logits = torch.zeros(2, len(PRIORS), 4)
    logits[..., 0] = BACKGROUND
    logits[1, 0, 3] = 2 * BACKGROUND
    nothing, one = detect(torch.zeros(2, len(PRIORS), 4), logits, PRIORS)
    assert nothing["boxes"].shape == (0, 4)
    assert nothing["labels"].shape == nothing["scores"].shape == (0,)
    assert nothing["labels"].dtype == torch.int64
    assert one["labels"].tolist() == [3]
    assert detect(torch.zeros(0, 57, 4), torch.zeros(0, 57, 4), PRIORS) == []
    (no_priors,) = detect(torch.zeros(1, 0, 4), torch.zeros(1, 0, 4), PRIORS[:0])
    assert no_priors["boxes"].shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_give_float32_detections(dtype: torch.dtype) -> None:
    offsets, logits = (x.to(dtype) for x in random_predictions(0, 1, 4))
    (found,) = detect(offsets, logits, PRIORS)
    (expected,) = detect(offsets.float(), logits.float(), PRIORS)
    torch.testing.assert_close(found, expected)
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


def test_inputs_are_left_as_they_were_and_no_gradient_is_kept() -> None:
    offsets, logits = random_predictions(0, 1, 4)
    before = offsets.clone(), logits.clone(), PRIORS.clone()
    (found,) = detect(offsets.requires_grad_(), logits.requires_grad_(), PRIORS)
    assert not found["boxes"].requires_grad
    assert not found["scores"].requires_grad
    for now, then in zip((offsets, logits, PRIORS), before, strict=True):
        assert torch.equal(now, then)


def test_shapes_that_do_not_fit_are_refused() -> None:
    offsets, logits = random_predictions(0, 2, 4)
    for wrong in (
        (offsets, logits, PRIORS[1:]),
        (offsets[0], logits[0], PRIORS),
        (offsets[:1], logits, PRIORS),
        (offsets, logits[:, 1:], PRIORS),
        (offsets, logits[..., 0], PRIORS),
        (offsets[..., :3], logits, PRIORS),
    ):
        with pytest.raises(ValueError, match=r"detect needs offsets .* got \("):
            detect(*wrong)


@pytest.mark.parametrize("find", [detect, detect_plainly])
def test_a_least_score_that_nothing_can_have_is_refused(find):
    offsets, logits = torch.zeros(1, len(PRIORS), 4), torch.zeros(1, len(PRIORS), 3)
    for nonsense in (2, 30.0, float("nan")):
        with pytest.raises(ValueError, match=f"min_score is a score, at most 1, got {nonsense}"):
            find(offsets, logits, PRIORS, min_score=nonsense)
    assert len(find(offsets, logits, PRIORS, min_score=1.0)[0]["boxes"]) == 0
    assert len(find(offsets, logits, PRIORS, min_score=-1.0)[0]["boxes"]) > 0


@given(seed=st.integers(0, 2**31), top_k=st.integers(1, 30), max_candidates=st.integers(1, 60))
def test_few_candidates_are_enough_only_if_they_decide(seed: int, top_k: int, max_candidates: int) -> None:
    # Crowded boxes, of which NMS drops most: the first candidates give less than top_k, and the others count.
    generator = torch.Generator().manual_seed(seed)
    offsets, logits = random_predictions(seed, 2, 4)
    offsets[0] = 0.01 * offsets[0]
    logits[0] = logits[0] + 4 * torch.rand(len(PRIORS), 1, generator=generator) * torch.tensor([0, 2, 1, 1])
    for i, found in enumerate(detect(offsets, logits, PRIORS, 0.05, 0.1, top_k, max_candidates=max_candidates)):
        expected = slow_detect(offsets[i], logits[i], 0.05, 0.1, top_k, max_candidates)
        assert found["labels"].tolist() == [label for label, _, _ in expected]
        torch.testing.assert_close(found["scores"], torch.tensor([score for _, score, _ in expected]))


def test_fast_equals_plain_to_the_last_digit() -> None:
    # Two thousand images: ties, crowds, no candidate, one class, caps of all sizes, NaN and infinite numbers.
    generator = torch.Generator().manual_seed(0)

    def one_of(*values: Any) -> Any:
        return values[int(torch.randint(len(values), (), generator=generator))]

    for turn in range(700):
        shape = one_of(0, 1, 2, 3, 8), len(PRIORS)
        offsets = torch.randn(*shape, 4, generator=generator) * one_of(0, 0.01, 1, 10)
        logits = torch.randn(*shape, one_of(1, 2, 3, 6), generator=generator) * one_of(0, 1, 4)
        if turn % 2 == 0:  # many equal scores and equal boxes
            offsets, logits = offsets.round(), logits.round()
        if turn % 5 == 0 and shape[0]:
            logits[0, 3:5], offsets[0, 5], offsets[0, 6:9] = torch.nan, torch.nan, torch.inf
            offsets[0, 7:9, 2:] = torch.tensor([1e38, -torch.inf])
        options = {
            "min_score": one_of(0.0, 0.01, 0.25, 0.5, 1.0),
            "max_overlap": one_of(0.0, 0.3, 0.45, 0.5, 1.0),
            "top_k": one_of(0, 1, 5, 20, 200),
            "max_candidates": one_of(0, 1, 5, 7, 30, 56, 400),
        }
        fast, plain = detect(offsets, logits, PRIORS, **options), detect_plainly(offsets, logits, PRIORS, **options)
        assert len(fast) == len(plain) == shape[0]
        for ours, theirs in zip(fast, plain, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ("boxes", "labels", "scores")), (turn, options)


def test_offsets_that_are_not_finite_or_leave_nothing_are_no_detections() -> None:
    boxes = [[0.1 * i, 0.1, 0.1 * i + 0.08, 0.3] for i in range(9)]
    offsets, logits, priors = planted(boxes, [[0.1, 0.9]] * 9)
    odd = [math.nan, math.inf, -math.inf]
    offsets[0, :3, 0] = offsets[0, 3:6, 3] = torch.tensor(odd)
    offsets[0, 6, 1] = 1e30  # far outside the image
    offsets[0, 7, 2] = -1e4  # no width
    for found in (*detect(offsets, logits, priors), *detect_plainly(offsets, logits, priors)):
        assert found["boxes"].isfinite().all()
        assert len(found["labels"]) == 2  # box 4, whose height is limited, and box 8
        torch.testing.assert_close(found["boxes"], torch.tensor([[0.4, 0.0, 0.48, 1.0], boxes[8]]))


def test_no_image_has_no_detections_and_nan_is_none() -> None:
    offsets, logits = random_predictions(0, 2, 4)
    assert detect(offsets[:0], logits[:0], PRIORS) == []
    logits[0, :20] = torch.nan
    logits[1] = torch.nan
    some, none = detect(offsets, logits, PRIORS, 0.3)
    assert len(none["labels"]) == 0
    (expected,) = detect(offsets[:1, 20:], logits[:1, 20:], PRIORS[20:], 0.3)
    torch.testing.assert_close(some, expected)
