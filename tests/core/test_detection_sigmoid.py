"""Scores of a network that judges each class by itself: detection and loss by the sigmoid, beside the softmax."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import targets as target_strategy
from torch import Tensor

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.detection import class_scores, detect, detect_plainly
from ssdlib.loss import background_loss, multibox_loss
from ssdlib.matching import UNMATCHED, match
from ssdlib.model import ssd_tiny
from ssdlib.priors import PriorRecipe, make_priors
from ssdlib.training import ssd_losses

C = 4
PRIORS = make_priors(PriorRecipe("test", 64, (3, 1), (0.3, 0.6, 0.9), ((1.0, 2.0), (1.0, "extra"))))  # (20, 4)
SEEDS = st.integers(0, 2**31)


def predictions(seed: int, images: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(images, len(PRIORS), 4, generator=generator)
    return offsets, 3 * torch.randn(images, len(PRIORS), C, generator=generator)


@given(seed=SEEDS, min_score=st.sampled_from([0.0, 0.3, 0.9]), top_k=st.integers(1, 60))
def test_detections_have_the_sigmoid_of_their_own_logit(seed: int, min_score: float, top_k: int) -> None:
    offsets, logits = predictions(seed, 2)
    options = {"min_score": min_score, "max_overlap": 1.0, "top_k": top_k}  # NMS removes nothing
    for image, found in enumerate(detect(offsets, logits, PRIORS, activation="sigmoid", **options)):
        slow = sorted(
            (
                (1 / (1 + math.exp(-logit)), label)
                for scores in logits[image].double().tolist()
                for label, logit in enumerate(scores)
                if label > 0 and 1 / (1 + math.exp(-logit)) >= min_score
            ),
            reverse=True,
        )[:top_k]
        assert found["scores"].tolist() == pytest.approx([score for score, _ in slow], abs=1e-6)
        assert found["labels"].tolist() == [label for _, label in slow]


@given(seed=SEEDS, top_k=st.integers(1, 30), max_candidates=st.integers(1, 30))
def test_fast_equals_plain(seed: int, top_k: int, max_candidates: int) -> None:
    offsets, logits = predictions(seed, 2)
    options = {"top_k": top_k, "max_candidates": max_candidates, "activation": "sigmoid"}
    for found, plain in zip(
        detect(offsets, logits, PRIORS, **options), detect_plainly(offsets, logits, PRIORS, **options), strict=True
    ):
        assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_background_is_not_asked_and_classes_do_not_compete() -> None:
    logits = torch.tensor([[[50.0, 2.0, 2.0, -9.0]]])  # the softmax would give all to background
    (found,) = detect(torch.zeros(1, 1, 4), logits, PRIORS[-1:], activation="sigmoid", min_score=0.5)
    assert found["labels"].tolist() == [1, 2]
    assert found["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-2))] * 2)
    (nothing,) = detect(torch.zeros(1, 1, 4), logits, PRIORS[-1:], min_score=0.5)
    assert len(nothing["scores"]) == 0


def test_a_box_of_no_width_is_no_detection() -> None:
    offsets = torch.zeros(1, 2, 4)
    offsets[0, 0, 2:] = -80.0  # exp(-16) of the prior, 1e-8: two different float32 numbers where the centre is small
    priors = torch.tensor([[0.026, 0.026, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]])
    for run in (detect, detect_plainly):
        (found,) = run(offsets, torch.full((1, 2, 2), 9.0), priors, activation="sigmoid")
        torch.testing.assert_close(found["boxes"], torch.tensor([[0.4, 0.4, 0.6, 0.6]]))


@given(targets=st.lists(target_strategy(C), min_size=1, max_size=3), seed=SEEDS)
def test_loss_equals_the_slow_loop(targets: list[dict[str, Tensor]], seed: int) -> None:
    offsets, logits = predictions(seed, len(targets))
    confidence, num_positives = 0.0, 0
    for i, target in enumerate(targets):
        negatives, positives = [], 0
        for p, number in enumerate(match(target["boxes"], PRIORS).tolist()):
            right = 0 if number == UNMATCHED else int(target["labels"][number])
            loss = 0.0
            for label in range(1, C):
                score = 1 / (1 + math.exp(-float(logits[i, p, label].double())))
                loss -= math.log(score if label == right else 1 - score)
            if number == UNMATCHED:
                negatives.append(loss)
            else:
                confidence, positives = confidence + loss, positives + 1
        confidence += sum(sorted(negatives, reverse=True)[: 3 * max(positives, 1)])
        num_positives += positives
    found = multibox_loss(offsets, logits, targets, PRIORS, activation="sigmoid")
    assert float(found["confidence"]) == pytest.approx(confidence / max(num_positives, 1), rel=1e-4)
    softmax = multibox_loss(offsets, logits, targets, PRIORS)
    assert torch.equal(found["localization"], softmax["localization"])


def test_the_loss_leaves_the_logits_of_background_alone() -> None:
    offsets, logits = predictions(0, 1)
    logits.requires_grad_()
    target = {"boxes": cxcywh_to_xyxy(PRIORS[:1]), "labels": torch.tensor([2])}
    multibox_loss(offsets, logits, [target], PRIORS, activation="sigmoid")["confidence"].backward()
    assert logits.grad is not None
    assert (logits.grad[..., 0] == 0).all()
    assert logits.grad[0, 0, 2] < 0 < logits.grad[0, 0, 1]  # the right class up, the others down


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[0.0, 1000.0, -1000.0]])
    assert background_loss(logits, "sigmoid").tolist() == [1000.0]
    assert class_scores(logits, "sigmoid").tolist() == [[0.5, 1.0, 0.0]]


def test_a_model_knows_its_activation() -> None:
    model = ssd_tiny(3, activation="sigmoid").eval()
    assert ssd_tiny(3).activation == "softmax"
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    (found,) = model.predict([image], top_k=5)
    assert len(found["scores"]) == 5
    assert found["scores"].min() > 0.4  # untrained: the sigmoid says about 1/2, the softmax of three classes 1/3
    target = [{"boxes": torch.tensor([[0.1, 0.1, 0.6, 0.6]]), "labels": torch.tensor([1])}]
    images = torch.rand(1, 3, 256, 256)
    expected = multibox_loss(*model(images), target, model.priors, activation="sigmoid")
    assert ssd_losses(model, images, target) == expected


def test_another_activation_is_refused() -> None:
    offsets, logits = predictions(0, 1)
    target = {"boxes": cxcywh_to_xyxy(PRIORS[:1]), "labels": torch.tensor([2])}
    for run in (detect, detect_plainly):
        with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid, got 'relu'"):
            run(offsets, logits, PRIORS, activation="relu")
    with pytest.raises(ValueError, match="activation must be one of softmax, sigmoid, got 'relu'"):
        multibox_loss(offsets, logits, [target], PRIORS, activation="relu")
