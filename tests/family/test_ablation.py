"""Variants of SSD: each differs in one thing, and does what its name says."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_cxcywh, boxes_xyxy
from torch import Tensor, nn
from torchvision import ops

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.coding import decode, encode
from ssdlib.detection import detect
from ssdlib.family.ablation import (
    FOCAL_START,
    VARIANTS,
    ReadMaps,
    assign,
    box_loss,
    match_by_overlap,
    recipe_of,
    variant_losses,
)
from ssdlib.loss import assign_targets, multibox_loss
from ssdlib.matching import UNMATCHED, match
from ssdlib.model import TINY, ssd_tiny
from ssdlib.training import Hyperparameters, ssd_losses, train_step

SSD = VARIANTS["ssd"]


def a_target(*rows: tuple[float, float, float, float, int]) -> dict[str, Tensor]:
    boxes = torch.tensor([row[:4] for row in rows]).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64)}


TARGETS = [
    a_target((0.1, 0.2, 0.5, 0.7, 1), (0.6, 0.6, 0.95, 0.8, 2), (0.01, 0.02, 0.03, 0.9, 1)),
    a_target(),
    a_target((0.0, 0.0, 1.0, 1.0, 2)),
]
PRIORS = torch.tensor([[0.3, 0.45, 0.4, 0.5], [0.3, 0.5, 0.4, 0.4], [0.8, 0.7, 0.3, 0.3], [0.5, 0.5, 0.1, 0.1]])


class Fixed(nn.Module):
    """A network that says the same of every image."""

    activation = "softmax"

    def __init__(self, count: int, priors: Tensor, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.priors = priors
        self.offsets = nn.Parameter(torch.randn(count, len(priors), 4, generator=generator))
        self.logits = nn.Parameter(torch.randn(count, len(priors), classes, generator=generator))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.offsets, self.logits


# ---- the table ----------------------------------------------------------------------------------------------------


def test_every_variant_differs_in_one_thing_from_the_one_beside_it() -> None:
    ingredients = [f.name for f in fields(SSD) if f.name not in ("title", "group", "beside")]
    for name, variant in VARIANTS.items():
        if name == "ssd":
            continue
        other = VARIANTS[variant.beside]
        assert [each for each in ingredients if getattr(variant, each) != getattr(other, each)] != [], name
        assert sum(getattr(variant, each) != getattr(other, each) for each in ingredients) == 1, name
        assert [*VARIANTS].index(variant.beside) < [*VARIANTS].index(name)  # so it is trained before
    assert len({variant.title for variant in VARIANTS.values()}) == len(VARIANTS)


def test_ssd_as_it_is_is_the_small_network_of_the_book() -> None:
    assert recipe_of(SSD) == TINY
    torch.manual_seed(3)
    ours = SSD.build(3)
    torch.manual_seed(3)
    theirs = ssd_tiny(3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    images = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    loss, expected = SSD.losses(ours, images, TARGETS), ssd_losses(theirs, images, TARGETS)
    for name in ("localization", "confidence"):
        torch.testing.assert_close(loss[name], expected[name])


@pytest.mark.parametrize(
    ("name", "sides", "count"),
    [
        ("ssd", (32, 16, 8, 4, 2), 4 * (1024 + 256 + 64 + 16 + 4)),
        ("maps_4", (32, 16, 8, 4), 4 * (1024 + 256 + 64) + 8 * 16),
        ("maps_3", (32, 16, 8), 4 * (1024 + 256) + 12 * 64),
        ("no_finest", (16, 8, 4, 2), 8 * 256 + 4 * (64 + 16 + 4)),
        ("one_map", (16,), 20 * 256),
        ("square", (32, 16, 8, 4, 2), 2 * 1364),
        ("three", (32, 16, 8, 4, 2), 6 * 1364),
    ],
)
def test_priors_of_maps_that_are_not_read_keep_their_shapes(name: str, sides: tuple[int, ...], count: int) -> None:
    variant = VARIANTS[name]
    recipe = recipe_of(variant)
    assert (recipe.map_sizes, recipe.num_priors) == (sides, count)
    model = variant.build(3).eval()
    with torch.no_grad():
        offsets, logits = model(torch.zeros(1, 3, 256, 256))
    assert offsets.shape == (1, count, 4)
    assert logits.shape == (1, count, 3)
    shapes = sorted(shape for k in range(len(sides)) for shape in recipe.shapes(k))
    every = replace(TINY, ratios=(variant.ratios,) * 5)
    wanted = sorted(shape for k in range(5) for shape in every.shapes(k))
    assert torch.tensor(shapes).allclose(torch.tensor(wanted))
    least = [min(w * h for w, h in recipe.shapes(k)) for k in range(len(sides))]
    assert least == sorted(least)  # small priors stay on fine maps


def test_no_layer_is_kept_that_leads_to_no_map_that_is_read() -> None:
    read = ReadMaps(1, 2)
    assert (len(read.stages), tuple(read.out_channels)) == (2, (128,))
    maps = read(torch.rand(2, 3, 256, 256))
    assert [tuple(x.shape) for x in maps] == [(2, 128, 16, 16)]


# ---- matching -----------------------------------------------------------------------------------------------------


def slow_match(boxes: Tensor, priors: Tensor, threshold: float) -> list[int]:
    matched = []
    for prior in cxcywh_to_xyxy(priors):
        overlaps = [float(iou(box[None], prior[None])) for box in boxes]
        best = max(overlaps, default=-1.0)
        matched.append(overlaps.index(best) if best >= threshold else UNMATCHED)
    return matched


@settings(max_examples=60)
@given(boxes=boxes_xyxy(0, 4), priors=boxes_cxcywh(1, 8), threshold=st.sampled_from([0.25, 0.5, 0.75]))
def test_matching_by_overlap_is_the_plain_one_and_force_only_adds(
    boxes: Tensor, priors: Tensor, threshold: float
) -> None:
    plain = match_by_overlap(boxes, priors, threshold)
    assert plain.tolist() == slow_match(boxes, priors, threshold)
    exactly = torch.tensor([[0.25, 0.5, 0.5, 1.0]])  # half of the image: at the threshold it counts
    assert match_by_overlap(torch.tensor([[0.0, 0, 1, 1]]), exactly, 0.5).tolist() == [0]
    forced = match(boxes, priors, threshold)
    served = set(forced.tolist()) - {UNMATCHED}
    assert set(plain.tolist()) - {UNMATCHED} <= served
    assert len(served) == min(len(boxes), len(priors)) or len(served) == len(boxes)
    overlaps = iou(boxes, cxcywh_to_xyxy(priors))
    for prior, (without, by_force) in enumerate(zip(plain.tolist(), forced.tolist(), strict=True)):
        if without == UNMATCHED and by_force != UNMATCHED:
            assert overlaps[by_force, prior] < threshold


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_with_force_the_priors_learn_what_they_learn_in_the_core(threshold: float) -> None:
    priors = SSD.build(3).priors
    labels, boxes = assign(TARGETS, priors, threshold, True)
    wanted, offsets = assign_targets(TARGETS, priors, 3, threshold)
    assert torch.equal(labels, wanted)
    own = priors.expand(3, -1, -1)[labels > 0]
    back = cxcywh_to_xyxy(decode(offsets, own))
    torch.testing.assert_close(boxes, back, atol=1e-5, rtol=1e-5)


def test_without_force_an_object_that_fits_no_prior_teaches_nothing() -> None:
    thin = [a_target((0.45, 0.05, 0.47, 0.95, 1))]
    priors = SSD.build(3).priors
    assert (assign(thin, priors, 0.5, True)[0] > 0).sum() == 1
    labels, boxes = assign(thin, priors, 0.5, False)
    assert (int(labels.sum()), tuple(boxes.shape)) == (0, (0, 4))
    counts = [int((assign(TARGETS, priors, t, False)[0] > 0).sum()) for t in (0.4, 0.5, 0.6)]
    assert counts[0] > counts[1] > counts[2]


# ---- losses -------------------------------------------------------------------------------------------------------


def test_box_losses_are_the_plain_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randn(4, 4, generator=generator)
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.2, 0.2, 0.5, 0.6], [0.6, 0.6, 0.9, 0.8], [0.4, 0.5, 0.6, 0.55]])
    wanted = encode(ops.box_convert(boxes, "xyxy", "cxcywh"), PRIORS)
    gaps = [abs(a - b) for a, b in zip(offsets.flatten().tolist(), wanted.flatten().tolist(), strict=True)]
    assert box_loss(offsets, boxes, PRIORS, "l1").item() == pytest.approx(sum(gaps), rel=1e-5)
    smooth = sum(0.5 * gap**2 if gap < 1 else gap - 0.5 for gap in gaps)
    assert box_loss(offsets, boxes, PRIORS, "smooth_l1").item() == pytest.approx(smooth, rel=1e-5)
    decoded = cxcywh_to_xyxy(decode(offsets, PRIORS))
    for kind, theirs in (("giou", ops.generalized_box_iou_loss), ("ciou", ops.complete_box_iou_loss)):
        expected = theirs(decoded, boxes, reduction="sum")
        torch.testing.assert_close(box_loss(offsets, boxes, PRIORS, kind), expected, atol=1e-4, rtol=1e-4)
    for kind in ("smooth_l1", "l1", "giou", "ciou"):
        exact = wanted.clone().requires_grad_()
        right = box_loss(exact, boxes, PRIORS, kind)
        assert right.item() == pytest.approx(0, abs=1e-5)
        assert box_loss(offsets[:0], boxes[:0], PRIORS[:0], kind).item() == 0  # an image without objects


def chosen_confidence(**changes: Any) -> tuple[float, Fixed, Tensor]:
    model = Fixed(3, SSD.build(3).priors)
    variant = replace(SSD, **changes)
    model.activation = variant.activation
    loss = variant_losses(variant, model, torch.zeros(3, 3, 256, 256), TARGETS)
    return loss["confidence"].item(), model, assign(TARGETS, model.priors, 0.5, True)[0]


def test_negatives_are_as_many_as_the_variant_says() -> None:
    for wanted in (1, 3):
        got, model, labels = chosen_confidence(negatives=wanted)
        expected = multibox_loss(model.offsets, model.logits, TARGETS, model.priors, negatives_per_positive=wanted)[
            "confidence"
        ]
        assert got == pytest.approx(expected.item(), rel=1e-5)
    got, model, labels = chosen_confidence(negatives="all")
    every = F.cross_entropy(model.logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert got == pytest.approx((every / (labels > 0).sum()).item(), rel=1e-5)
    got, model, labels = chosen_confidence(negatives="focal", activation="sigmoid")
    right = F.one_hot(labels, 3)[..., 1:].float()
    focal = ops.sigmoid_focal_loss(model.logits[..., 1:], right, reduction="sum")
    assert got == pytest.approx((focal / (labels > 0).sum()).item(), rel=1e-5)


def test_focal_loss_starts_from_a_network_that_expects_nothing() -> None:
    torch.manual_seed(0)
    model = VARIANTS["focal"].build(3).eval()
    with torch.no_grad():
        _, logits = model(torch.zeros(1, 3, 256, 256))
    assert logits[..., 1:].sigmoid().median().item() == pytest.approx(FOCAL_START, rel=0.5)
    assert VARIANTS["sigmoid"].build(3).class_head.convolutions[0].bias.abs().max() == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns_in_half_precision_also_from_nothing(name: str) -> None:
    variant = VARIANTS[name]
    torch.manual_seed(1)
    model = variant.build(3).train()
    images = torch.rand(3, 3, 256, 256)
    config = Hyperparameters(precision="bfloat16")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for targets in (TARGETS, [a_target()] * 3):
        before = [p.detach().clone() for p in model.parameters()]
        measured = train_step(model, images, targets, optimizer, config, variant.losses)
        assert all(math.isfinite(value) for value in measured.values())
        assert measured["confidence"] > 0
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert all(p.grad is not None for p in model.parameters())  # no layer leads nowhere
    model.eval()
    with torch.no_grad():
        found = detect(*model(images), model.priors, activation=model.activation)
    assert len(found) == 3


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"some: maps \(3, 3\) are none of the five"):
        replace(SSD, title="some", maps=(3, 3))
    with pytest.raises(ValueError, match="some: focal loss needs the activation 'sigmoid', got 'softmax'"):
        replace(SSD, title="some", negatives="focal")
    for negatives in (0, "some"):
        with pytest.raises(ValueError, match=f"some: negatives is 'all', 'focal' or 1 and more, got {negatives!r}"):
            replace(SSD, title="some", negatives=negatives)
    for threshold in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"some: threshold must be above 0 and at most 1, got {threshold}"):
            replace(SSD, title="some", threshold=threshold)
    with pytest.raises(ValueError, match="box_loss is one of smooth_l1, l1, giou, ciou, got 'l3'"):
        replace(SSD, box_loss="l3")
    with pytest.raises(ValueError, match=r"ratio \(1.0, 0.1\) has a scale of its own and cannot be moved"):
        recipe_of(replace(SSD, maps=(1, 5), ratios=((1.0, 0.1),)))
