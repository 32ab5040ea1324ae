from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import targets as target_strategy
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import encode
from ssdlib.loss import assign_targets, background_loss, mine_hard_negatives, multibox_loss, multibox_sums
from ssdlib.matching import UNMATCHED, match
from ssdlib.priors import SSD300_VOC, PriorRecipe, make_priors

NUM_CLASSES = 4
PRIORS = make_priors(
    PriorRecipe("test", 64, (4, 2, 1), (0.25, 0.45, 0.7, 0.9), ((1.0, "extra", 2.0, 0.5),) * 3)
)  # (84, 4)
EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
SEEDS = st.integers(0, 2**31)


def random_predictions(seed: int, images: int, priors: int = len(PRIORS)) -> tuple[Tensor, Tensor]:
    """Offsets (N, P, 4) on both sides of smooth L1's corner, and logits (N, P, C)."""
    generator = torch.Generator().manual_seed(seed)
    offsets = 3 * torch.randn(images, priors, 4, generator=generator)
    return offsets, 2 * torch.randn(images, priors, NUM_CLASSES, generator=generator)


def random_target(seed: int, objects: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, objects, 2, generator=generator).unbind()
    boxes = torch.cat((0.7 * corner, 0.7 * corner + 0.05 + 0.25 * size), dim=1)
    return {"boxes": boxes, "labels": torch.randint(1, NUM_CLASSES, (objects,), generator=generator)}


def one_object(prior: int = 0, label: int = 1, priors: Tensor = PRIORS) -> dict[str, Tensor]:
    """An object exactly on a prior."""
    return {"boxes": cxcywh_to_xyxy(priors[prior : prior + 1]), "labels": torch.tensor([label])}


def slow_loss(offsets: Tensor, logits: Tensor, targets: list[dict[str, Any]]) -> tuple[float, float]:
    """Equations 1 to 3 of the paper and the mining, one prior after the other, in plain Python."""
    localization, confidence, num_positives = 0.0, 0.0, 0
    for i, target in enumerate(targets):
        negatives, positives = [], 0
        for p, number in enumerate(match(target["boxes"], PRIORS).tolist()):
            scores = logits[i, p].double().tolist()
            log_sum = math.log(sum(math.exp(score) for score in scores))
            if number == UNMATCHED:
                negatives.append(log_sum - scores[0])
                continue
            positives += 1
            confidence += log_sum - scores[int(target["labels"][number])]
            x_min, y_min, x_max, y_max = target["boxes"][number].double().tolist()
            cx, cy, w, h = PRIORS[p].double().tolist()
            wanted = (
                ((x_min + x_max) / 2 - cx) / w / 0.1,
                ((y_min + y_max) / 2 - cy) / h / 0.1,
                math.log((x_max - x_min) / w) / 0.2,
                math.log((y_max - y_min) / h) / 0.2,
            )
            for predicted, true in zip(offsets[i, p].tolist(), wanted, strict=True):
                error = abs(predicted - true)
                localization += 0.5 * error**2 if error < 1 else error - 0.5
        confidence += sum(sorted(negatives, reverse=True)[: 3 * max(positives, 1)])
        num_positives += positives
    return localization / max(num_positives, 1), confidence / max(num_positives, 1)


def slow_mining(hardness: Tensor, positive: Tensor, per_positive: int = 3) -> Tensor:
    """The usual double argsort: the rank of each prior in its image."""
    hardness = hardness.masked_fill(positive, -torch.inf)
    rank = hardness.argsort(dim=1, descending=True).argsort(dim=1)
    wanted = per_positive * positive.sum(dim=1, keepdim=True).clamp(min=1)
    return (rank < wanted) & ~positive


@given(targets=st.lists(target_strategy(NUM_CLASSES), min_size=1, max_size=3), seed=SEEDS)
def test_equals_the_slow_loop(targets: list[dict[str, Tensor]], seed: int) -> None:
    offsets, logits = random_predictions(seed, len(targets))
    found = multibox_loss(offsets, logits, targets, PRIORS)
    localization, confidence = slow_loss(offsets, logits, targets)
    assert float(found["localization"]) == pytest.approx(localization, rel=1e-4, abs=1e-5)
    assert float(found["confidence"]) == pytest.approx(confidence, rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_equals_torchvision(seed: int) -> None:
    priors = make_priors(SSD300_VOC)
    targets = [random_target(10 * seed + i, objects) for i, objects in enumerate((1, 5, 20))]
    ours = [x.requires_grad_() for x in random_predictions(seed, 3, len(priors))]
    theirs = [x.detach().clone().requires_grad_() for x in ours]

    found = multibox_loss(*ours, targets, priors)
    expected = TorchvisionSSD.compute_loss(
        SimpleNamespace(box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3),
        targets,
        {"bbox_regression": theirs[0], "cls_logits": theirs[1]},
        [cxcywh_to_xyxy(priors)] * 3,
        [match(target["boxes"], priors) for target in targets],
    )
    torch.testing.assert_close(found["localization"], expected["bbox_regression"])
    torch.testing.assert_close(found["confidence"], expected["classification"])
    (found["localization"] + found["confidence"]).backward()
    (expected["bbox_regression"] + expected["classification"]).backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-4, atol=1e-6)


def test_localization_is_a_sum_of_smooth_l1_over_the_number_of_positives() -> None:
    # Three priors far apart, two objects that lie exactly on two of them: the true offsets are 0.
    priors = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2], [0.2, 0.8, 0.2, 0.2]])
    target = {"boxes": cxcywh_to_xyxy(priors[:2]), "labels": torch.tensor([1, 2])}
    offsets = torch.tensor([[[0.5, 2.0, 0.0, -3.0], [1.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    found = multibox_loss(offsets, torch.zeros(1, 3, NUM_CLASSES), [target], priors)
    first, second = 0.125 + 1.5 + 0.0 + 2.5, 0.5
    assert float(found["localization"]) == pytest.approx((first + second) / 2, abs=1e-5)


def test_confidence_counts_the_positives_and_three_negatives_for_each() -> None:
    # Without any preference every prior costs log C; a positive of the wrong class costs more.
    target = one_object(prior=83, label=2)  # the whole image: few other priors overlap it by 0.5
    positives = int((match(target["boxes"], PRIORS) != UNMATCHED).sum())
    assert 0 < 4 * positives <= len(PRIORS)
    logits = torch.zeros(1, len(PRIORS), NUM_CLASSES)
    found = multibox_loss(torch.zeros(1, len(PRIORS), 4), logits, [target], PRIORS)
    assert float(found["confidence"]) == pytest.approx(4 * math.log(NUM_CLASSES), rel=1e-5)


@st.composite
def mining_cases(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Hardness (N, P), all different or with many ties, and positives (N, P), with images of none and of all."""
    images, priors = draw(st.integers(0, 3)), draw(st.integers(0, 12))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    hardness = torch.rand(images, priors, generator=generator)
    if draw(st.booleans()):
        hardness = (4 * hardness).round()
    return hardness, torch.rand(images, priors, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))


@given(case=mining_cases(), per_positive=st.integers(0, 4))
def test_mining_takes_the_hardest_and_only_negatives(case: tuple[Tensor, Tensor], per_positive: int) -> None:
    hardness, positive = case
    before = hardness.clone(), positive.clone()
    mined = mine_hard_negatives(hardness, positive, per_positive)
    assert mined.shape == positive.shape
    assert mined.dtype == torch.bool
    assert not (mined & positive).any()
    for i in range(len(positive)):
        wanted = per_positive * max(int(positive[i].sum()), 1)
        assert int(mined[i].sum()) == min(wanted, int((~positive[i]).sum()))
        left = hardness[i][~mined[i] & ~positive[i]]
        if mined[i].any() and len(left):
            assert hardness[i][mined[i]].min() >= left.max()
    assert torch.equal(hardness, before[0])
    assert torch.equal(positive, before[1])


@given(seed=SEEDS, density=st.sampled_from([0.0, 0.02, 0.2, 0.9, 1.0]))
def test_mining_equals_the_double_argsort(seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    hardness = torch.stack([torch.randperm(84, generator=generator) for _ in range(3)]).float()  # no ties
    positive = torch.rand(3, 84, generator=generator) < density
    assert torch.equal(mine_hard_negatives(hardness, positive), slow_mining(hardness, positive))


def test_mining_by_hand() -> None:
    hardness = torch.tensor([[9.0, 1.0, 5.0, 3.0, 8.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    positive = torch.tensor([[True, False, False, False, False, False], [False] * 6])
    expected = torch.tensor([[False, False, True, True, True, False], [False, False, False, True, True, True]])
    assert torch.equal(mine_hard_negatives(hardness, positive), expected)
    assert mine_hard_negatives(hardness, positive, 1).sum(dim=1).tolist() == [1, 1]


@given(seed=SEEDS)
def test_background_loss_is_the_cross_entropy_of_class_0(seed: int) -> None:
    logits = random_predictions(seed, 2)[1]
    expected = F.cross_entropy(logits.flatten(0, 1), torch.zeros(2 * len(PRIORS), dtype=torch.int64), reduction="none")
    torch.testing.assert_close(background_loss(logits).flatten(), expected)
    assert background_loss(torch.tensor([[-1e4, 1e4], [1e4, -1e4]])).tolist() == [2e4, 0.0]  # no overflow


def test_batch_without_any_object_is_finite_and_teaches_background() -> None:
    offsets, logits = (x.requires_grad_() for x in random_predictions(0, 2))
    found = multibox_loss(offsets, logits, [EMPTY, EMPTY], PRIORS)
    assert found["localization"].item() == 0
    expected = background_loss(logits).topk(3, dim=1).values.sum()  # three negatives an image, divided by 1
    torch.testing.assert_close(found["confidence"], expected)
    (found["localization"] + found["confidence"]).backward()
    assert offsets.grad is not None  # distributed training needs a gradient, even if it is 0
    assert not offsets.grad.any()
    assert (logits.grad != 0).any(dim=2).sum(dim=1).tolist() == [3, 3]


def test_empty_image_among_others_adds_its_three_hardest_negatives() -> None:
    target = one_object(prior=70)
    positives = int((match(target["boxes"], PRIORS) != UNMATCHED).sum())
    offsets, logits = random_predictions(1, 2)
    both = multibox_loss(offsets, logits, [target, EMPTY], PRIORS)
    alone = multibox_loss(offsets[:1], logits[:1], [target], PRIORS)
    hardest = background_loss(logits[1]).topk(3).values.sum()
    torch.testing.assert_close(both["localization"], alone["localization"])
    torch.testing.assert_close(both["confidence"], alone["confidence"] + hardest / positives)


def test_empty_target_may_be_written_as_an_empty_list() -> None:
    offsets, logits = random_predictions(2, 1)
    found = multibox_loss(offsets, logits, [{"boxes": torch.tensor([]), "labels": torch.tensor([])}], PRIORS)
    assert found == multibox_loss(offsets, logits, [EMPTY], PRIORS)


@given(targets=st.lists(target_strategy(NUM_CLASSES), min_size=2, max_size=3), seed=SEEDS)
def test_batch_is_the_mean_of_its_images_weighted_by_their_positives(
    targets: list[dict[str, Tensor]], seed: int
) -> None:
    offsets, logits = random_predictions(seed, len(targets))
    together = multibox_loss(offsets, logits, targets, PRIORS)
    positives = [int((match(target["boxes"], PRIORS) != UNMATCHED).sum()) for target in targets]
    for name in ("localization", "confidence"):
        total = sum(
            float(multibox_loss(offsets[i : i + 1], logits[i : i + 1], [target], PRIORS)[name]) * max(positives[i], 1)
            for i, target in enumerate(targets)
        )
        assert float(together[name]) == pytest.approx(total / max(sum(positives), 1), rel=1e-4, abs=1e-5)


@given(targets=st.lists(target_strategy(NUM_CLASSES), min_size=2, max_size=3), seed=SEEDS)
def test_parts_of_a_batch_add_up_to_its_loss(targets: list[dict[str, Tensor]], seed: int) -> None:
    """With the number of positives of the whole batch as the divisor, as several processes have it."""
    offsets, logits = random_predictions(seed, len(targets))
    whole = multibox_loss(offsets, logits, targets, PRIORS)
    positives = (assign_targets(targets, PRIORS, NUM_CLASSES)[0] > 0).sum()
    parts = [multibox_sums(offsets[i : i + 1], logits[i : i + 1], [target], PRIORS) for i, target in enumerate(targets)]
    assert sum(int(part.num_positives) for part in parts) == positives
    for name, value in whole.items():
        total = sum(getattr(part, name) for part in parts)
        torch.testing.assert_close(total / max(1, int(positives)), value, rtol=1e-4, atol=1e-5)


@given(seed=SEEDS, objects=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_gradients_reach_the_chosen_priors_and_no_others(seed: int, objects: list[int]) -> None:
    targets = [random_target(seed + i, count) for i, count in enumerate(objects)]
    offsets, logits = (x.requires_grad_() for x in random_predictions(seed, len(targets)))
    found = multibox_loss(offsets, logits, targets, PRIORS)
    (found["localization"] + found["confidence"]).backward()
    positive = assign_targets(targets, PRIORS, NUM_CLASSES)[0] > 0
    negative = slow_mining(background_loss(logits.detach()), positive)
    assert torch.equal((offsets.grad != 0).any(dim=2), positive)
    assert torch.equal((logits.grad != 0).any(dim=2), positive | negative)


@given(seed=SEEDS)
def test_order_of_images_and_of_priors_does_not_matter(seed: int) -> None:
    targets = [random_target(seed, 3), EMPTY, random_target(seed + 1, 1)]
    offsets, logits = random_predictions(seed, 3)
    generator = torch.Generator().manual_seed(seed)
    # No grid of priors: two of equal area around one object would overlap it equally, and the first be matched.
    priors = 0.1 + 0.5 * torch.rand(len(PRIORS), 4, generator=generator)
    expected = multibox_loss(offsets, logits, targets, priors)
    images, order = torch.randperm(3, generator=generator), torch.randperm(len(PRIORS), generator=generator)
    found = multibox_loss(
        offsets[images][:, order], logits[images][:, order], [targets[i] for i in images.tolist()], priors[order]
    )
    torch.testing.assert_close(found, expected)


def test_targets_of_every_prior() -> None:
    targets = [random_target(0, 3), EMPTY]
    labels, offsets = assign_targets(targets, PRIORS, NUM_CLASSES)
    matched = match(targets[0]["boxes"], PRIORS)
    assert labels.shape == (2, len(PRIORS))
    assert labels.dtype == torch.int64
    row = 0
    for p, number in enumerate(matched.tolist()):
        if number == UNMATCHED:
            assert labels[0, p] == 0
            continue
        assert labels[0, p] == targets[0]["labels"][number]
        x_min, y_min, x_max, y_max = targets[0]["boxes"][number]
        box = torch.stack(((x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min))
        torch.testing.assert_close(offsets[row], encode(box, PRIORS[p]))
        row += 1
    assert row == len(offsets)
    assert not labels[1].any()


def test_options_reach_matching_encoding_and_mining() -> None:
    offsets, logits = random_predictions(3, 1)
    target = random_target(3, 3)
    standard = multibox_loss(offsets, logits, [target], PRIORS)
    wider = multibox_loss(offsets, logits, [target], PRIORS, variances=(0.5, 1.0))
    stricter = multibox_loss(offsets, logits, [target], PRIORS, threshold=0.9)
    fewer = multibox_loss(offsets, logits, [target], PRIORS, negatives_per_positive=1)
    assert wider["localization"] != standard["localization"]
    assert wider["confidence"] == standard["confidence"]
    assert stricter["localization"] != standard["localization"]
    assert fewer["localization"] == standard["localization"]
    assert fewer["confidence"] < standard["confidence"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("targets", [[random_target(0, 2), EMPTY], [EMPTY, EMPTY]], ids=["objects", "none"])
def test_other_precisions_give_a_finite_float32_loss(dtype: torch.dtype, targets: list[dict[str, Tensor]]) -> None:
    offsets, logits = (x.to(dtype).requires_grad_() for x in random_predictions(4, 2))
    found = multibox_loss(offsets, logits, targets, PRIORS)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())
    expected = multibox_loss(offsets.detach().float(), logits.detach().float(), targets, PRIORS)
    torch.testing.assert_close({name: loss.detach() for name, loss in found.items()}, expected)
    (found["localization"] + found["confidence"]).backward()
    assert offsets.grad.dtype == logits.grad.dtype == dtype
    assert offsets.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_priors_of_half_precision_still_give_a_float32_loss() -> None:
    offsets, logits = random_predictions(4, 1)
    found = multibox_loss(offsets, logits, [random_target(0, 2)], PRIORS.bfloat16())
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())


@pytest.mark.parametrize("targets", [[random_target(0, 2), EMPTY], [EMPTY, EMPTY]], ids=["objects", "none"])
def test_bfloat16_autocast(targets: list[dict[str, Tensor]]) -> None:
    layer = torch.nn.Linear(8, 4 + NUM_CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = layer(30 * torch.randn(2, len(PRIORS), 8))
        assert predictions.dtype == torch.bfloat16
        found = multibox_loss(predictions[..., :4], predictions[..., 4:], targets, PRIORS)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())
    (found["localization"] + found["confidence"]).backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()


def test_inputs_are_left_as_they_were() -> None:
    offsets, logits = random_predictions(5, 2)
    arguments = [offsets, logits, [random_target(5, 3), EMPTY], PRIORS.clone()]
    before = copy.deepcopy(arguments)
    multibox_loss(*arguments)
    torch.testing.assert_close(arguments, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": torch.tensor([0])}, r"image 1 of the batch: label 0 is not one of 1\.\.3"),
        ({"labels": torch.tensor([4])}, r"image 1 of the batch: label 4 is not one of 1\.\.3"),
        ({"labels": torch.tensor([-1])}, r"image 1 of the batch: label -1"),
        ({"labels": torch.tensor([1, 2])}, r"image 1 of the batch: 1 boxes, but labels of shape \(2,\)"),
        ({"labels": torch.tensor([1.5])}, r"image 1 of the batch: labels must be int64, got torch.float32"),
        ({"boxes": torch.tensor([[0.5, 0.25, 0.5, 0.75]])}, r"image 1 .* box \[0\.5, 0\.25, 0\.5, 0\.75\]"),
        ({"boxes": torch.tensor([[0.75, 0.25, 0.5, 0.5]])}, r"image 1 .* box \[0\.75, 0\.25, 0\.5, 0\.5\]"),
        ({"boxes": torch.tensor([[0.25, 0.25, torch.nan, 0.5]])}, r"image 1 .* box \[0\.25, 0\.25, nan, 0\.5\]"),
        ({"boxes": torch.tensor([[0.25, 0.25, torch.inf, 0.5]])}, r"image 1 .* box \[0\.25, 0\.25, inf, 0\.5\]"),
    ],
)
def test_bad_target_is_refused_by_image_and_value(wrong: dict[str, Tensor], message: str) -> None:
    targets = [one_object(), {**one_object(), **wrong}]
    with pytest.raises(ValueError, match=message):
        multibox_loss(*random_predictions(0, 2), targets, PRIORS)


def test_shapes_that_do_not_fit_are_refused() -> None:
    offsets, logits = random_predictions(0, 2)
    for wrong in (
        (offsets[:1], logits, [EMPTY] * 2, PRIORS),
        (offsets, logits[:, 1:], [EMPTY] * 2, PRIORS),
        (offsets, logits[..., 0], [EMPTY] * 2, PRIORS),
        (offsets, logits, [EMPTY], PRIORS),
        (offsets, logits, [EMPTY] * 2, PRIORS[1:]),
    ):
        with pytest.raises(ValueError, match=r"targets and \d+ priors need offsets .* got \("):
            multibox_loss(*wrong)
    with pytest.raises(ValueError, match="at least one image"):
        multibox_loss(offsets[:0], logits[:0], [], PRIORS)
