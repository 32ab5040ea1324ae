"""TwoStage: shapes, targets, both stages' boxes against a plain way, the four losses, and that it learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import decode
from ssdlib.family.roi import roi_align_plainly
from ssdlib.family.two_stage import FIRST_STAGE, RPN_256, TwoStage, two_stage_losses
from ssdlib.training import Hyperparameters, TrainState, autocast, training_loop

NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
TWO = {"boxes": torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.4, 0.4, 0.9, 0.8]]), "labels": torch.tensor([1, 3])}


@pytest.fixture(scope="module")
def model() -> TwoStage:
    torch.manual_seed(0)
    return TwoStage(4, num_proposals=20)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))


def test_shapes_and_counts(model: TwoStage, images: Tensor) -> None:
    out = model.eval()(images)
    assert RPN_256.priors_per_cell == (9,)
    assert RPN_256.num_priors == 16 * 16 * 9 == len(model.priors)
    assert out.rpn_offsets.shape == (2, 2304, 4)
    assert out.rpn_logits.shape == (2, 2304, 2)
    assert [len(boxes) for boxes in out.proposals] == [20, 20]
    assert out.offsets.shape == (40, 4)
    assert out.logits.shape == (40, 4)
    assert len(model.backbone.stages) == 2  # type: ignore[arg-type]
    weights = sum(value.numel() for value in TwoStage(7).state_dict().values())
    assert 2 * weights < 1_500_000  # bytes in half precision: fits into a repository


def test_proposals_are_those_of_the_plain_way(model: TwoStage, images: Tensor) -> None:
    out = model.eval()(images)
    for boxes, offsets, logits in zip(out.proposals, out.rpn_offsets, out.rpn_logits, strict=True):
        scores = logits.softmax(dim=1)[:, 1]
        all_boxes = cxcywh_to_xyxy(decode(offsets, model.priors)).clamp(0, 1)
        best = scores.argsort(descending=True, stable=True)[:400]
        kept = best[batched_nms(all_boxes[best], scores[best], torch.zeros(400), 0.7)][:20]
        torch.testing.assert_close(boxes, all_boxes[kept])
        assert (iou(boxes, boxes).fill_diagonal_(0) <= 0.7).all()


def test_regions_are_read_where_the_proposals_are(model: TwoStage) -> None:
    feature_map = torch.randn(2, 3, 16, 16)
    proposals = [torch.tensor([[0.1, 0.2, 0.33, 0.9]]), torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.52, 0.51]])]
    found = model.regions(feature_map, proposals)
    assert found.shape == (3, 3, 7, 7)
    plain = [
        roi_align_plainly(numbers, 16 * box, (7, 7))
        for numbers, boxes in zip(feature_map, proposals, strict=True)
        for box in boxes
    ]
    torch.testing.assert_close(found, torch.stack(plain), rtol=1e-4, atol=1e-5)
    half = model.regions(feature_map.bfloat16(), proposals)  # of a network in half precision
    torch.testing.assert_close(half, model.regions(feature_map.bfloat16().float(), proposals), rtol=0, atol=0)


def test_detections_are_those_of_the_plain_way(model: TwoStage, images: Tensor) -> None:
    network = copy.deepcopy(model).eval()
    network.propose = lambda *said: [boxes[:n] for boxes, n in zip(model.propose(*said), (5, 20), strict=True)]  # type: ignore[method-assign]
    out = network(images)
    found = network.detect(images, min_score=0.2, max_overlap=0.3, top_k=7)
    offsets, logits = (part.split([5, 20]) for part in (out.offsets, out.logits))
    for i, detection in enumerate(found):
        scores = logits[i].softmax(dim=1)[:, 1:]
        boxes = cxcywh_to_xyxy(decode(offsets[i], xyxy_to_cxcywh(out.proposals[i]))).clamp(0, 1)
        row, column = (scores >= 0.2).nonzero(as_tuple=True)
        kept = batched_nms(boxes[row], scores[row, column], column, 0.3)[:7]
        torch.testing.assert_close(detection["scores"], scores[row, column][kept])
        torch.testing.assert_close(detection["boxes"], boxes[row][kept])
        assert detection["labels"].tolist() == (column[kept] + 1).tolist()
        assert not detection["boxes"].requires_grad


def test_an_image_without_a_proposal_has_no_detection(model: TwoStage, images: Tensor) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.rpn.offset_head.convolutions[0].bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    found = broken.detect(images)
    assert [len(one["boxes"]) for one in found] == [0, 0]


def losses_of(model: TwoStage, images: Tensor, targets: Any, seed: int = 0) -> dict[str, float]:
    # without gradients and in evaluation mode, so that nothing of the shared model changes
    with torch.no_grad():
        losses = two_stage_losses(model.eval(), images, targets, torch.Generator().manual_seed(seed))
    return {name: float(value) for name, value in losses.items()}


def test_four_losses_with_and_without_objects(model: TwoStage, images: Tensor) -> None:
    with_objects = losses_of(model, images, [TWO, TWO])
    assert list(with_objects) == ["rpn_confidence", "rpn_localization", "confidence", "localization"]
    assert all(value > 0 for value in with_objects.values())
    without = losses_of(model, images, [NOTHING, NOTHING])
    assert without["rpn_localization"] == without["localization"] == 0
    assert without["rpn_confidence"] > 0
    assert without["confidence"] > 0


def test_losses_are_drawn_by_the_generator_or_by_the_seed(model: TwoStage, images: Tensor) -> None:
    assert losses_of(model, images, [TWO, NOTHING]) == losses_of(model, images, [TWO, NOTHING])
    assert losses_of(model, images, [TWO, NOTHING]) != losses_of(model, images, [TWO, NOTHING], seed=1)
    values = []
    for _ in range(2):
        torch.manual_seed(5)
        with torch.no_grad():
            values.append(torch.stack([*two_stage_losses(model, images, [TWO, NOTHING]).values()]))
    assert torch.equal(*values)


def test_losses_of_the_first_stage_by_hand(model: TwoStage, images: Tensor) -> None:
    """With offsets of 0 and equal logits, the losses are what the rule of the paper says."""
    plain = copy.deepcopy(model).eval()
    with torch.no_grad():
        for parameter in [*plain.rpn.offset_head.parameters(), *plain.rpn.class_head.parameters()]:
            parameter.zero_()
    losses = losses_of(plain, images[:1], [TWO])
    assert losses["rpn_confidence"] == pytest.approx(0.6931, abs=1e-4)
    overlaps = iou(TWO["boxes"], cxcywh_to_xyxy(plain.priors))
    positive = (overlaps >= FIRST_STAGE.high).any(dim=0)
    positive[overlaps.argmax(dim=1)] = True
    total = 0.0
    for prior in positive.nonzero().flatten().tolist():
        k = int(overlaps[:, prior].argmax())
        cx, cy, w, h = plain.priors[prior].tolist()
        x0, y0, x1, y1 = TWO["boxes"][k].tolist()
        offsets = [((x0 + x1) / 2 - cx) / w / 0.1, ((y0 + y1) / 2 - cy) / h / 0.1]
        offsets += torch.tensor([(x1 - x0) / w, (y1 - y0) / h]).log().div(0.2).tolist()
        total += sum(0.5 * o * o if abs(o) < 1 else abs(o) - 0.5 for o in offsets)
    assert losses["rpn_localization"] == pytest.approx(total / FIRST_STAGE.number, rel=1e-4)


def test_objects_are_among_the_proposals_that_are_taught(model: TwoStage, images: Tensor) -> None:
    network = copy.deepcopy(model).eval()
    network.propose = lambda *_: [torch.zeros(0, 4)]  # type: ignore[method-assign]
    losses = losses_of(network, images[:1], [TWO])
    with torch.no_grad():
        offsets, logits = network.head(network.regions(network.features(images[:1]), [TWO["boxes"]]))
    expected = torch.nn.functional.cross_entropy(logits, TWO["labels"])
    assert losses["confidence"] == pytest.approx(float(expected), rel=1e-5)
    expected = torch.nn.functional.smooth_l1_loss(offsets, torch.zeros(2, 4), reduction="sum") / 2
    assert losses["localization"] == pytest.approx(float(expected), rel=1e-4)


def test_every_weight_is_taught_and_proposals_carry_no_gradient(images: Tensor) -> None:
    torch.manual_seed(0)
    network = TwoStage(4)
    losses = two_stage_losses(network, images, [TWO, NOTHING])
    losses["localization"].backward(retain_graph=True)
    assert network.rpn.convolution.weight.grad is None  # the second stage does not teach the first where to look
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_losses_are_finite_in_half_precision(images: Tensor) -> None:
    torch.manual_seed(0)
    network = TwoStage(4)
    with autocast(torch.device("cpu"), "bfloat16"):
        losses = two_stage_losses(network, images, [TWO, NOTHING])
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    torch.stack([*losses.values()]).sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"boxes": torch.tensor([[0.5, 0.1, 0.4, 0.3]]), "labels": torch.tensor([1])},
            "image 1 of the batch: empty",
        ),
        ({"boxes": torch.tensor([[0.5, 0.1, torch.nan, 0.3]]), "labels": torch.tensor([1])}, "not finite"),
        ({"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.3]]), "labels": torch.tensor([4])}, r"label 4 is not one of 1"),
        ({"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.3]]), "labels": torch.tensor([0])}, "label 0 is not one"),
        (
            {"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.3]]), "labels": torch.tensor([1, 2])},
            "1 boxes, but labels",
        ),
    ],
)
def test_bad_targets_are_refused(model: TwoStage, images: Tensor, target: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_stage_losses(model, images, [TWO, target])


def test_a_network_without_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1"):
        TwoStage(1)


def test_it_learns_an_image_by_heart() -> None:
    """Both stages together: after some steps on one picture its objects are found, and nothing else is as sure."""
    torch.manual_seed(0)
    network = TwoStage(4, num_proposals=20)
    paper = torch.full((1, 3, 256, 256), 0.5)
    for box, label in zip((TWO["boxes"] * 256).int().tolist(), TWO["labels"].tolist(), strict=True):
        paper[0, label - 1, box[1] : box[3], box[0] : box[2]] = 1.0
    config = Hyperparameters(iterations=30, batch_size=1, learning_rate=2e-3, ema_decay=0.0)
    state = TrainState.start(network, config)
    steps = list(training_loop(state, [(paper, [TWO])] * 30, config, losses=two_stage_losses))
    for name in ("rpn_confidence", "confidence"):
        assert steps[-1][name] < 0.5 * steps[0][name]
    (found,) = network.eval().detect(paper)
    assert (iou(TWO["boxes"], found["boxes"][:2]).amax(dim=1) > 0.6).all()
    assert sorted(found["labels"][:2].tolist()) == [1, 3]
