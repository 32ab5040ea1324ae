"""SSDLite on MobileNetV3: the same interface as the other networks, and it learns."""

from __future__ import annotations

import pytest
import torch

from ssdlib.backbones import MobileNetV3
from ssdlib.loss import multibox_loss
from ssdlib.model import IMAGENET_MEAN, SSD, build_model, ssdlite320_mobilenet_v3
from ssdlib.priors import SSDLITE320


def test_ssdlite() -> None:
    model = ssdlite320_mobilenet_v3(4).eval()
    assert model.recipe == SSDLITE320
    with torch.no_grad():
        offsets, logits = model(torch.rand(2, 3, 320, 320))
    assert offsets.shape == (2, 3234, 4)
    assert logits.shape == (2, 3234, 4)
    assert sum(p.numel() for p in model.parameters()) < 2_500_000  # SSD300: 24 million


def test_normalisation_follows_the_tail() -> None:
    def mean(model: SSD) -> list[float]:
        return model.mean.flatten().tolist()

    reduced, full = ssdlite320_mobilenet_v3(4), ssdlite320_mobilenet_v3(4, reduced_tail=False)
    assert (reduced.architecture, full.architecture) == ("ssdlite320_mobilenet_v3", "ssdlite320_mobilenet_v3_full")
    assert mean(reduced) == reduced.std.flatten().tolist() == [0.5] * 3
    assert mean(full) == pytest.approx(list(IMAGENET_MEAN))
    assert mean(ssdlite320_mobilenet_v3(4, mean=(0.1, 0.2, 0.3))) == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.slow
def test_a_few_steps_of_training_lower_the_loss() -> None:
    model = ssdlite320_mobilenet_v3(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, targets = torch.rand(2, 3, 320, 320), []
    for i, (low, high) in enumerate([(32, 160), (96, 224)]):  # a dark square, a bright one
        images[i, :, low:high, low:high] = i
        targets.append({"boxes": torch.tensor([[low, low, high, high]]) / 320, "labels": torch.tensor([1 + i])})
    losses = []
    for _ in range(9):
        loss = sum(multibox_loss(*model(images), targets, model.priors).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert losses[-1] < 0.6 * losses[0]


def test_classifier_weights_reach_mobilenet(monkeypatch: pytest.MonkeyPatch) -> None:
    given_weights: list[tuple[object, object]] = []
    monkeypatch.setattr(MobileNetV3, "load_classifier", lambda self, weights: given_weights.append((self, weights)))
    weights = {"features.0.0.weight": torch.zeros(1)}
    with torch.device("meta"):
        model = build_model("ssdlite320_mobilenet_v3_full", ["cat"], classifier_weights=weights)
    assert given_weights == [(model.backbone, weights)]
