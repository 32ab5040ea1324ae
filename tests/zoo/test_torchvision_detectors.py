"""Weights of torchvision's detectors in our networks: the same predictions, the same detections."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.detection import detect
from ssdlib.model import ARCHITECTURES, ssd_tiny
from ssdlib.zoo import from_torchvision

CLASSES = 6
LITE = "ssdlite320_mobilenet_v3_large"
# What each takes as its thresholds, and ours must be told if it is not SSD300's.
OPTIONS: dict[str, dict[str, Any]] = {
    "ssd300_vgg16": {},
    LITE: {"min_score": 0.001, "max_overlap": 0.55, "top_k": 300, "max_candidates": 300},
}


def randomised(name: str, seed: int) -> nn.Module:
    """Torchvision's model with weights and running averages that differ everywhere."""
    torch.manual_seed(seed)
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d) and name == LITE:
            nn.init.kaiming_normal_(module.weight)
    for key, parameter in model.named_parameters():  # biases start at 0, and scores should differ
        if name != LITE and key.startswith("head"):
            nn.init.normal_(parameter, std=0.002 if key.endswith("weight") else 0.5)
        if name == LITE and ".1.bias" in key and key.startswith("head"):
            nn.init.normal_(parameter, std=0.5)
        if name == LITE and ".1.weight" in key and key.startswith("head"):
            nn.init.normal_(parameter, std=0.01)
    return model.eval()


@pytest.fixture(scope="module", params=list(OPTIONS))
def theirs(request: pytest.FixtureRequest) -> nn.Module:
    model = randomised(request.param, 3)
    model.name = request.param
    return model


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    return randomised(LITE, 5)


@pytest.fixture(scope="module")
def image(theirs: nn.Module) -> Tensor:
    side = theirs.transform.fixed_size[0]
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(4))


def raw(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The predictions of torchvision's model and its priors ("anchors", in pixels)."""
    with torch.no_grad():
        batch, _ = model.transform([image])  # normalises; an image of the model's size is not resized
        features = list(model.backbone(batch.tensors).values())
        return {**model.head(features), "anchors": model.anchor_generator(batch, features)[0]}


@pytest.mark.slow
def test_raw_predictions_are_theirs(theirs: nn.Module, image: Tensor):
    ours = from_torchvision(theirs)
    with torch.no_grad():
        offsets, logits = ours(image[None])
    expected = raw(theirs, image)
    assert ours.recipe.name == {"ssd300_vgg16": "ssd300-coco", LITE: "ssdlite320"}[theirs.name]
    torch.testing.assert_close(
        cxcywh_to_xyxy(ours.priors) * ours.recipe.image_size, expected["anchors"], rtol=0, atol=1e-3
    )
    torch.testing.assert_close(offsets, expected["bbox_regression"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, expected["cls_logits"], atol=1e-4, rtol=1e-4)
    assert 0.1 < logits.std() < 3  # not all alike, and no scores that round to 1
    assert offsets.std() > 0.05


@pytest.mark.slow
def test_detections_are_theirs(theirs: nn.Module, image: Tensor):
    ours = from_torchvision(theirs)
    with torch.no_grad():
        (expected,) = theirs([image])
        (found,) = detect(*ours(image[None]), ours.priors, **OPTIONS[theirs.name])
    count = OPTIONS[theirs.name].get("top_k", 200)
    assert len(found["scores"]) == len(expected["scores"]) == count
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=1e-4)
    # Scores this close may change places: compare as sets. Each of ours has a partner of its own among theirs.
    apart = (found["boxes"][:, None] * image.shape[1] - expected["boxes"]).abs().amax(dim=2)  # (K, K) pixels
    apart += 1000 * (found["labels"][:, None] != expected["labels"])
    apart += 1000 * (found["scores"][:, None] - expected["scores"]).abs()
    nearest, partner = apart.min(dim=1)
    assert nearest.max() < 0.05
    assert len(partner.unique()) == count


def test_the_full_tail_is_recognised():
    theirs = _with_full_tail()
    ours = from_torchvision(theirs)
    assert ours.architecture == "ssdlite320_mobilenet_v3_full"
    image = torch.rand(3, 320, 320)
    with torch.no_grad():
        offsets, logits = ours(image[None])
    torch.testing.assert_close(offsets, raw(theirs, image)["bbox_regression"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, raw(theirs, image)["cls_logits"], atol=1e-4, rtol=1e-4)


def _with_full_tail() -> nn.Module:
    """What torchvision builds when it starts from ImageNet's weights, which only a reader online has."""
    backbone = ARCHITECTURES["ssdlite320_mobilenet_v3_full"](CLASSES).backbone
    classifier = torchvision.models.mobilenet_v3_large(weights=None)
    classifier.features.load_state_dict(backbone.features.state_dict())
    patch = pytest.MonkeyPatch()
    enum = torchvision.models.MobileNet_V3_Large_Weights
    with patch.context() as context:
        context.setattr(enum, "get_state_dict", lambda self, **options: classifier.state_dict())
        model = torchvision.models.get_model(
            LITE, weights=None, weights_backbone=enum.IMAGENET1K_V1, num_classes=CLASSES
        )
    return model.eval()


def test_normalisation_is_theirs():
    theirs = torchvision.models.get_model(
        LITE, weights=None, weights_backbone=None, num_classes=3, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    ours = from_torchvision(theirs)
    torch.testing.assert_close(ours.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(ours.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_class_names_are_kept(lite: nn.Module):
    names = ("a", "b", "c", "d", "e")
    assert from_torchvision(lite, classes=names).classes == names
    assert from_torchvision(lite).classes == ("1", "2", "3", "4", "5")
    with pytest.raises(ValueError, match="6 classes with background need 5 names"):
        from_torchvision(lite, classes=("a", "b"))


def test_by_name_it_loads_the_weights_for_coco(monkeypatch: pytest.MonkeyPatch):
    made_up = torchvision.models.get_model(LITE, weights=None, weights_backbone=None, num_classes=91).state_dict()
    asked: list[str] = []

    def load(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append(url)
        return made_up

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)
    model = from_torchvision(LITE)
    assert len(asked) == 1
    assert "coco" in asked[0]
    assert model.num_classes == 91
    assert (model.classes[0], model.classes[-1]) == ("person", "toothbrush")
    assert len(set(model.classes)) == 90
    assert sum(name.startswith("N/A") for name in model.classes) == 10
    torch.testing.assert_close(
        model.class_head.convolutions[0][1].weight, made_up["head.classification_head.module_list.0.1.weight"]
    )
    with pytest.raises(ValueError, match="no model 'retinanet' of torchvision can be taken over, only ssd300_vgg16"):
        from_torchvision("retinanet")


def test_other_models_are_refused(lite: nn.Module):
    with pytest.raises(ValueError, match="SSD is not torchvision's ssd300_vgg16 or ssdlite320"):
        from_torchvision(ssd_tiny(3))
    changed = copy.deepcopy(lite)
    changed.anchor_generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.1, max_ratio=0.9)
    with pytest.raises(ValueError, match=r"priors have the scales \[0\.1, .* not those of 'ssdlite320'"):
        from_torchvision(changed)


def test_what_does_not_fit_is_said_by_name(lite: nn.Module):
    changed = copy.deepcopy(lite)
    changed.backbone.extra[1][0][0] = nn.Conv2d(512, 64, 1, bias=False)
    shape = r"backbone\.auxiliary\.1\.0\.0\.weight has the shape \(64, 512, 1, 1\), not \(128, 512, 1, 1\)"
    with pytest.raises(ValueError, match=f"SSD does not fit ssdlite320_mobilenet_v3: 1 tensors have .*: {shape}"):
        from_torchvision(changed)
    changed = copy.deepcopy(lite)
    del changed.head.regression_head.module_list[5]
    changed.head.extra = nn.Conv2d(3, 1, 1)
    missing = r"8 tensors are missing: offset_head\.convolutions\.5\.0\.0\.weight, "
    with pytest.raises(ValueError, match=rf"{missing}.*2 tensors are too many: 'head\.extra\.weight', "):
        from_torchvision(changed)


def test_the_order_of_the_tensors_does_not_matter(theirs: nn.Module):
    """Another version of torchvision may make its layers in another order."""
    changed = copy.deepcopy(theirs)
    for module in changed.modules():  # bias before weight: of the same shape in a batch normalisation
        module._parameters = dict(reversed(module._parameters.items()))
    assert list(changed.state_dict()) != list(theirs.state_dict())
    ours, expected = from_torchvision(changed), from_torchvision(theirs)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in expected.state_dict().items())
