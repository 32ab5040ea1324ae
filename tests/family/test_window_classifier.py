from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssdlib.boxes import iou
from ssdlib.family.window_classifier import (
    WindowClassifier,
    crop_window,
    fit_softmax,
    square_around,
    training_windows,
    without_padding,
)


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1)
    )


def blobs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (60, 5) of three classes, which overlap."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5, generator=generator) + 1.5 * F.one_hot(labels, 5)
    return features * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3, labels


def test_the_fit_is_the_minimum() -> None:
    features, labels = blobs()
    weight, bias = fit_softmax(features, labels, 3, weight_decay=0.1)
    std = features.double().std(dim=0, correction=0)

    def loss(w: Tensor, b: Tensor) -> Tensor:
        data = F.cross_entropy(features.double() @ w.T + b, labels)
        return data + 0.05 * ((w * std) ** 2).sum()

    w, b = weight.double().requires_grad_(), bias.double().requires_grad_()
    at_minimum = loss(w, b)
    slopes = torch.autograd.grad(at_minimum, (w, b))
    assert max(float((slope / std.mean()).abs().max()) for slope in slopes) < 1e-4
    for seed in range(5):  # it is convex, so every step away must cost something
        generator = torch.Generator().manual_seed(seed)
        step = 0.05 * torch.randn(3, 5, generator=generator, dtype=torch.float64) / std
        assert loss(weight.double() + step, bias.double()) > at_minimum


def test_the_scale_and_place_of_features_do_not_change_what_is_said() -> None:
    features, labels = blobs()
    moved = features * torch.tensor([2.0, 0.5, 8.0, 1.0, 4.0]) - 5
    said = [torch.softmax(x @ w.T + b, dim=1) for x in (features, moved) for w, b in [fit_softmax(x, labels, 3)]]
    torch.testing.assert_close(said[0], said[1], rtol=0, atol=1e-3)


def test_a_feature_that_never_changes_does_no_harm() -> None:
    features, labels = blobs()
    features[:, 2] = 7.0
    weight, bias = fit_softmax(features, labels, 3)
    rest = [0, 1, 3, 4]
    without, bias_without = fit_softmax(features[:, rest], labels, 3)
    said, wanted = features @ weight.T + bias, features[:, rest] @ without.T + bias_without
    torch.testing.assert_close(said.softmax(dim=1), wanted.softmax(dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "complaint"),
    [
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), "N > 0"),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), "labels"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "features"),
        (torch.zeros(3, 4), torch.tensor([0, 1, 2]), r"must be in 0\.\.1, got 0\.\.2"),
        (torch.zeros(3, 4), torch.tensor([0, -1, 1]), r"must be in 0\.\.1, got -1\.\.1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, labels: Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fit_softmax(features, labels, 2)


def test_without_padding_a_part_of_the_map_is_the_map_of_the_part() -> None:
    layers = convolutions()
    bare = without_padding(layers)
    assert layers[0].padding == (1, 1)  # the original is left as it was
    assert layers.training
    assert not bare.training
    assert not any(parameter.requires_grad for parameter in bare.parameters())
    image = torch.rand(1, 3, 33, 41)
    whole = bare(image)  # (1, 4, 14, 18)
    part = bare(image[:, :, 6:23, 10:31])  # begins three steps down and five across
    torch.testing.assert_close(part, whole[:, :, 3 : 3 + part.shape[2], 5 : 5 + part.shape[3]])
    padded = layers.eval()
    part, whole = padded(image[:, :, 6:23, 10:31]), padded(image)
    assert not torch.allclose(part, whole[:, :, 3 : 3 + part.shape[2], 5 : 5 + part.shape[3]])


def test_the_classifier_learns_two_kinds_of_windows() -> None:
    generator = torch.Generator().manual_seed(1)
    windows = 0.2 * torch.rand(80, 3, 16, 16, generator=generator)
    labels = torch.arange(80) % 2
    windows[labels == 1, 0] += 0.5  # redder
    classifier = WindowClassifier(convolutions(), 2, 16, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5))
    assert classifier.cells == 5
    assert classifier.fc.weight.shape == (2, 4 * 25)
    classifier.fit(windows[:40], labels[:40])
    with torch.no_grad():
        assert (classifier(windows[40:]).argmax(dim=1) == labels[40:]).all()
        described = classifier.describe(windows[:3])
        torch.testing.assert_close(classifier(windows[:3]), classifier.fc(described))


def test_square_around_is_centred_and_as_wide_as_the_longer_side() -> None:
    square = square_around(torch.tensor([10.0, 20.0, 50.0, 30.0]), margin=1.5)
    assert square.tolist() == [0.0, -5.0, 60.0, 55.0]


def test_crop_is_resized_and_black_outside() -> None:
    image = torch.full((3, 20, 30), 255, dtype=torch.uint8)
    inside = crop_window(image, torch.tensor([2.0, 3.0, 12.0, 13.0]), 5)
    assert inside.shape == (3, 5, 5)
    assert inside.dtype == torch.float32
    assert (inside == 1).all()
    over_the_edge = crop_window(image, torch.tensor([-10.0, 0.0, 10.0, 20.0]), 20)
    assert (over_the_edge[:, :, :9] == 0).all()
    assert (over_the_edge[:, :, 11:] == 1).all()
    assert crop_window(image, torch.tensor([4.0, 4.0, 4.0, 4.0]), 8).shape == (3, 8, 8)


def test_training_windows_show_the_objects_and_the_background() -> None:
    image = torch.zeros(3, 100, 120, dtype=torch.uint8)
    image[0, 30:50, 40:60] = 255  # a red object with label 2
    image[1, 60:90, 80:110] = 255  # a green one that is difficult
    target = {
        "boxes": torch.tensor([[40.0, 30, 60, 50], [80, 60, 110, 90]]),
        "labels": torch.tensor([2, 1]),
        "difficult": torch.tensor([False, True]),
    }

    def windows(seed: int) -> list[tuple[Tensor, int]]:
        generator = torch.Generator().manual_seed(seed)
        return list(training_windows([image], [target], 16, generator, copies=3, background=30))

    drawn = windows(0)
    assert [label for _, label in drawn[:6]] == [2] * 6  # three copies, each also mirrored
    assert all(label == 0 for _, label in drawn[6:])
    assert 10 < len(drawn) - 6 < 30  # some lay on an object
    for window, _ in drawn[:6]:
        assert window.shape == (3, 16, 16)
        assert window[0].mean() > 0.5  # mostly the object
    for (window, _), (mirrored, _) in zip(drawn[:6:2], drawn[1:6:2], strict=True):
        assert torch.equal(window.flip(2), mirrored)
    assert not torch.equal(drawn[0][0], drawn[2][0])
    again, other = windows(0), windows(1)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[0][0], other[0][0])


def test_background_windows_keep_off_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    squares: list[Tensor] = []
    monkeypatch.setattr(
        "ssdlib.family.window_classifier.crop_window",
        lambda image, box, side: squares.append(box) or torch.zeros(3, 1, 1),
    )
    boxes = torch.tensor([[20.0, 20, 80, 80]])
    target = {"boxes": boxes, "labels": torch.tensor([1]), "difficult": torch.tensor([True])}
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    list(training_windows([image], [target], 32, torch.Generator().manual_seed(0), background=200))
    drawn = torch.stack(squares)
    assert len(drawn) > 20
    assert iou(drawn, boxes).max() <= 0.3
    assert drawn.min() >= 0
    assert drawn.max() <= 100


def test_an_image_without_objects_gives_background_only() -> None:
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "difficult": torch.zeros(0, dtype=torch.bool),
    }
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    drawn = list(training_windows([image], [target], 16, torch.Generator().manual_seed(0), background=4))
    assert [label for _, label in drawn] == [0] * 4
