from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import boxes_xyxy
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from ssdlib.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from ssdlib.coding import encode
from ssdlib.family.sliding_window import pyramid_boxes
from ssdlib.family.trained_windows import (
    SIDE,
    SlidingWindows,
    TrainedOverFeat,
    overfeat_loss,
    overfeat_losses,
    sliding_window_losses,
)
from ssdlib.training import Hyperparameters, TrainState, training_loop

NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
WINDOWS = xyxy_to_cxcywh(pyramid_boxes(256, 256, SIDE, 48) / 256)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


def test_each_window_is_classified_by_itself_and_is_its_own_box(images: Tensor) -> None:
    torch.manual_seed(0)
    model = SlidingWindows(4).eval()
    with torch.no_grad():
        logits = model(images)
        found = model.detect(images, min_score=0.2, max_overlap=0.9)
        whole = model.classifier(TF.resize(images, [SIDE, SIDE], antialias=True))
        cut = model.classifier(images[:, :, 48 : 48 + SIDE, 96 : 96 + SIDE])
    windows = cxcywh_to_xyxy(model.priors) * 256
    assert logits.shape == (2, len(windows), 4)
    assert windows[45].tolist() == [96, 48, 160, 112]  # 3 x 13 + 6: the first level has 13 in a row
    assert windows[-1].tolist() == [0, 0, 256, 256]
    for k, said in ((45, cut), (-1, whole)):
        torch.testing.assert_close(logits[:, k], said, rtol=1e-4, atol=1e-4)
    for each, said in zip(found, logits, strict=True):
        score, place = said.softmax(dim=1)[:, 1:].flatten().max(dim=0)  # of all windows and classes
        assert float(each["scores"][0]) == pytest.approx(float(score), abs=1e-5)
        assert int(each["labels"][0]) == int(place) % 3 + 1
        torch.testing.assert_close(each["boxes"][0] * 256, windows[int(place) // 3])


def test_one_pass_over_a_batch_says_what_overfeat_says_of_each_image(images: Tensor) -> None:
    torch.manual_seed(0)
    model = TrainedOverFeat(4).eval()
    torch.nn.init.normal_(model.network.box_head.weight, std=0.02)
    with torch.no_grad():
        offsets, logits = model(images)
        found = model.detect(images, min_score=0.2)
    assert offsets.shape == (2, len(model.priors), 4)
    for i, image in enumerate(images):
        boxes, said = model.network.predict_windows(image)
        torch.testing.assert_close(logits[i], said, rtol=1e-4, atol=1e-4)
        scores = said.softmax(dim=1)[:, 1:].amax(dim=1)
        assert len(found[i]["scores"]) > 0
        assert float(found[i]["scores"][0]) == pytest.approx(float(scores.max()), abs=1e-4)
        best = (boxes[int(scores.argmax())] / 256).clamp(0, 1)
        torch.testing.assert_close(found[i]["boxes"][0], best, rtol=1e-4, atol=1e-4)


def test_every_level_has_a_part_in_the_averages_of_normalisation(images: Tensor) -> None:
    model = TrainedOverFeat(3).train()
    norm = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    means: list[Tensor] = []
    norm.register_forward_pre_hook(lambda layer, inputs: means.append(inputs[0].mean(dim=(0, 2, 3))))
    with torch.no_grad():
        model(images)
    assert len(means) == 5  # 256, 181, 128, 91 and 64 pixels
    average = torch.zeros(16)
    for mean in means:
        average = 0.9 * average + 0.1 * mean
    torch.testing.assert_close(norm.running_mean, average)


@pytest.mark.parametrize("kind", [SlidingWindows, TrainedOverFeat])
def test_images_of_another_size_are_refused(kind: type, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(N, 3, 256, 256\), got \(1, 3, 128, 256\)"):
        kind(3)(images[:1, :, :128])
    with pytest.raises(ValueError, match="at least 2, got 1"):
        kind(1)


def plain_loss(offsets: Tensor, logits: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, float]:
    """By loops: each window's name, then the sums."""
    windows, box, name, count = cxcywh_to_xyxy(WINDOWS), 0.0, 0.0, 0
    for said, moved, target in zip(logits, offsets, targets, strict=True):
        background, positives = [], 0
        for k, window in enumerate(windows):
            overlaps = iou(window[None], target["boxes"])[0].tolist()
            best = max(overlaps, default=0.0)
            if best >= 0.5:
                own = overlaps.index(best)
                positives += 1
                name -= float(said[k].log_softmax(0)[target["labels"][own]])
                wanted = encode(xyxy_to_cxcywh(target["boxes"][own]), WINDOWS[k])
                box += float((moved[k] - wanted).square().sum())
            elif best <= 0.3:
                background.append(-float(said[k].log_softmax(0)[0]))
        name += sum(sorted(background, reverse=True)[: 3 * max(positives, 1)])
        count += positives
    return {"box": box / max(count, 1), "class": name / max(count, 1)}


@settings(max_examples=12)
@given(first=boxes_xyxy(0, 3), second=boxes_xyxy(0, 2), seed=st.integers(0, 99))
def test_loss_is_the_plain_one(first: Tensor, second: Tensor, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(2, len(WINDOWS), 4, generator=generator)
    logits = torch.randn(2, len(WINDOWS), 3, generator=generator)
    targets = [{"boxes": b, "labels": torch.arange(len(b)) % 2 + 1} for b in (first, second)]
    losses = overfeat_loss(offsets, logits, targets, WINDOWS)
    plain = plain_loss(offsets, logits, targets)
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(plain, rel=1e-3)


def test_an_ignored_window_is_not_mined_where_background_is_scarce() -> None:
    """Of five windows, one frames the object and the others overlap it by 0.4: there is no background."""
    windows = torch.tensor([[0.5, 0.5, 0.2, 0.2], *[[0.5, 0.5, 0.2, 0.5]] * 4])
    target = {"boxes": torch.tensor([[0.4, 0.4, 0.6, 0.6]]), "labels": torch.tensor([1])}
    losses = overfeat_loss(torch.zeros(1, 5, 4), torch.zeros(1, 5, 3), [target], windows)
    assert losses["class"].item() == pytest.approx(math.log(3))
    assert losses["box"].item() == pytest.approx(0, abs=1e-6)


def test_windows_that_are_cut_for_training_are_named(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a picture whose objects are white and black: the classifier is shown them, with their names."""
    model = SlidingWindows(4)
    two = {"boxes": torch.tensor([[0.1, 0.2, 0.25, 0.35], [0.8, 0.75, 0.95, 0.9]]), "labels": torch.tensor([1, 3])}
    paper = torch.full((1, 3, 256, 256), 0.5)
    for (left, top, right, bottom), shade in zip((two["boxes"] * 256).int().tolist(), (1.0, 0.0), strict=True):
        paper[:, :, top:bottom, left:right] = shade
    seen: list[Tensor] = []
    names: list[Tensor] = []
    real = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda logits, right: names.append(right) or real(logits, right))
    model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    sliding_window_losses(model, paper, [two])
    middle = seen[0][:, 0, 28:36, 28:36].mean(dim=(1, 2))
    assert names[0].tolist().count(1) == names[0].tolist().count(3) == 4  # two around each, and mirrored
    assert (middle[names[0] == 1] > 0.9).all()
    assert (middle[names[0] == 3] < 0.1).all()
    assert (names[0] == 0).any()


def test_losses_without_windows_or_objects(images: Tensor) -> None:
    model = SlidingWindows(4)
    whole = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([2])}
    for targets in ([NONE, NONE], [whole, NONE]):
        assert sliding_window_losses(model, images, targets)["class"].item() > 0
    with pytest.raises(ValueError, match=r"image 1 of the batch: label 4 is not one of 1\.\.3"):
        sliding_window_losses(model, images, [NONE, {**whole, "labels": torch.tensor([4])}])
    with pytest.raises(ValueError, match="image 0 of the batch: empty, swapped"):
        overfeat_loss(
            torch.zeros(1, len(WINDOWS), 4),
            torch.zeros(1, len(WINDOWS), 4),
            [{"boxes": whole["boxes"][:, [2, 3, 0, 1]], "labels": torch.tensor([1])}],
            WINDOWS,
        )


def test_it_learns_boxes_by_heart() -> None:
    """An object three fifths as wide as high: a window cannot frame it well, and its learned box does."""
    torch.manual_seed(0)
    model = TrainedOverFeat(3)
    paper = torch.full((1, 3, 256, 256), 0.5)
    box = torch.tensor([[0.25, 0.25, 0.4375, 0.5625]])
    paper[:, 0, 64:144, 64:112] = 1.0
    config = Hyperparameters(iterations=20, batch_size=1, learning_rate=4e-3, ema_decay=0.0)
    state = TrainState.start(model, config)
    target = {"boxes": box, "labels": torch.tensor([2])}
    steps = [*training_loop(state, [(paper, [target])] * 20, config, losses=overfeat_losses)]
    assert steps[-1]["box"] < 0.2 * steps[0]["box"]
    (found,) = model.train().detect(paper)  # with the batch's own statistics
    assert found["labels"][0] == 2
    fixed = iou(cxcywh_to_xyxy(model.priors), box).max()
    assert float(iou(found["boxes"][:1], box)) > max(0.7, float(fixed))
