"""Weights of torchvision's SSD300 in our network: the same predictions, the same detections."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ssdlib.detection import detect
from ssdlib.model import SSD, ssd_tiny

CLASSES = 6


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(3)
    model = torchvision.models.detection.ssd300_vgg16(
        weights=None, weights_backbone=None, num_classes=CLASSES, score_thresh=0.01, nms_thresh=0.45
    )
    for name, parameter in model.named_parameters():  # biases start at 0, and scores should differ
        if name.startswith("head"):
            nn.init.normal_(parameter, std=0.002 if name.endswith("weight") else 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 300, 300, generator=torch.Generator().manual_seed(4))


def test_raw_predictions_are_theirs(theirs: nn.Module, image: Tensor):
    ours = SSD.from_torchvision(theirs)
    with torch.no_grad():
        offsets, logits = ours(image[None])
        batch, _ = theirs.transform([image])  # normalises; 300 x 300 pixels are not resized
        features = list(theirs.backbone(batch.tensors).values())
        head = theirs.head(features)
    assert ours.recipe.name == "ssd300-coco"
    torch.testing.assert_close(offsets, head["bbox_regression"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, head["cls_logits"], atol=1e-4, rtol=1e-4)
    assert 0.1 < logits.std() < 3  # not all alike, and no scores that round to 1


def test_detections_are_theirs(theirs: nn.Module, image: Tensor):
    ours = SSD.from_torchvision(theirs)
    with torch.no_grad():
        (expected,) = theirs([image])
        (found,) = detect(*ours(image[None]), ours.priors)
    assert len(found["scores"]) == len(expected["scores"]) == 200
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=1e-4)
    # Scores this close may change places: compare as sets. Each of ours has a partner of its own among theirs.
    apart = (found["boxes"][:, None] * 300 - expected["boxes"]).abs().amax(dim=2)  # (200, 200) pixels
    apart += 1000 * (found["labels"][:, None] != expected["labels"])
    apart += 1000 * (found["scores"][:, None] - expected["scores"]).abs()
    nearest, partner = apart.min(dim=1)
    assert nearest.max() < 0.05
    assert len(partner.unique()) == 200


def test_class_names_are_kept(theirs: nn.Module):
    names = ("a", "b", "c", "d", "e")
    assert SSD.from_torchvision(theirs, classes=names).classes == names


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="SSD300"):
        SSD.from_torchvision(ssd_tiny(3))
    lite = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=CLASSES
    )
    with pytest.raises(ValueError, match="SSD300"):
        SSD.from_torchvision(lite)
