"""Weights of a classifier to start from: made up here, as nothing is downloaded in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, mobilenet_v3_large, vgg16, vgg16_bn

from ssdlib.engine.config import TrainConfig
from ssdlib.engine.run import starting_model
from ssdlib.model import ARCHITECTURES, SSD
from ssdlib.zoo import imagenet
from ssdlib.zoo.imagenet import CLASSIFIERS, classifier_weights

CLASSES = ["cat", "dog"]


def made_up(build: Any) -> dict[str, Tensor]:
    """A classifier's state dict without its 138 million numbers: one number a tensor, another for each."""
    with torch.device("meta"):
        shapes: dict[str, Tensor] = build(weights=None).state_dict()
    return {name: torch.tensor(0.001 * (i + 1)).expand(t.shape) for i, (name, t) in enumerate(shapes.items())}


def config(architecture: str, pretrained: bool = True) -> TrainConfig:
    return TrainConfig(architecture=architecture, pretrained=pretrained)


def first_and_fc7(model: SSD) -> tuple[float, float]:
    convolutions = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
    return float(convolutions[0].weight.detach().mean()), float(convolutions[14].weight.detach().mean())


@pytest.mark.parametrize(("architecture", "build"), [("ssd300_vgg16", vgg16), ("ssd300_vgg16_bn", vgg16_bn)])
def test_a_run_starts_from_the_classifier(architecture: str, build: Any, tmp_path: Path):
    state = made_up(build)
    torch.save(state, tmp_path / "vgg.pth")
    model = starting_model(config(architecture), CLASSES, tmp_path / "vgg.pth")
    expected = float(state["features.0.weight"][0, 0, 0, 0]), float(state["classifier.3.weight"][0, 0])
    assert first_and_fc7(model) == pytest.approx(expected, rel=1e-4)
    assert model.classes == tuple(CLASSES)
    random = starting_model(config(architecture, pretrained=False), CLASSES, tmp_path / "vgg.pth")
    assert first_and_fc7(random) != pytest.approx(expected, rel=0.5)


def test_safetensors(tmp_path: Path):
    state = {"features.0.weight": torch.rand(3), "classifier.0.bias": torch.rand(2)}
    save_file(state, tmp_path / "vgg.safetensors")
    loaded = classifier_weights("ssd300_vgg16", tmp_path / "vgg.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_the_weights_fit_the_architectures():
    builders = {"VGG16_Weights": vgg16, "VGG16_BN_Weights": vgg16_bn}
    builders |= {"MobileNet_V2_Weights": mobilenet_v2, "MobileNet_V3_Large_Weights": mobilenet_v3_large}
    assert CLASSIFIERS.keys() <= ARCHITECTURES.keys()
    for weights in CLASSIFIERS.values():
        assert type(weights).__name__ in builders
        assert "ImageNet-1K" in weights.meta["_metrics"]


def test_torchvision_downloads(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, dict[str, Any]]] = []

    def download(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append((url, options))
        return {"x": torch.ones(1)}

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    assert classifier_weights("ssd512_vgg16")["x"] == 1
    ((url, options),) = asked
    assert "vgg16-" in url
    assert options["progress"] is options["check_hash"] is True


def test_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def download(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(OSError, match=r"cannot download the weights http.*vgg16.*\.pth .*not known.*--weights"):
        starting_model(config("ssd300_vgg16"), CLASSES)


def test_architectures_without_weights():
    with pytest.raises(ValueError, match="no weights for ImageNet for ssd_tiny: set pretrained=false, or take ssd300_"):
        starting_model(config("ssd_tiny"), CLASSES)


class Hostile:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a program in a file of weights was run",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.pth", "hello", "no weights that can be loaded safely"),
        ("text.safetensors", "hello", "no weights that can be loaded safely"),
        ("hostile.pth", {"x": Hostile()}, "no weights that can be loaded safely"),
        ("list.pth", [1, 2], "no state dict, which maps names to tensors"),
        ("numbers.pth", {"x": 3}, "no state dict, which maps names to tensors"),
    ],
)
def test_files_that_are_no_weights(name: str, content: Any, message: str, tmp_path: Path):
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} holds {message}"):
        classifier_weights("ssd300_vgg16", tmp_path / name)
    with pytest.raises(FileNotFoundError):
        classifier_weights("ssd300_vgg16", tmp_path / f"no-{name}")


def test_weights_of_another_network(tmp_path: Path):
    state = made_up(vgg16)
    torch.save({name: value for name, value in state.items() if name != "classifier.0.weight"}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part.pth lacks the tensor 'classifier.0.weight'"):
        starting_model(config("ssd300_vgg16"), CLASSES, tmp_path / "part.pth")
    torch.save(made_up(vgg16_bn), tmp_path / "bn.pth")
    with pytest.raises(ValueError, match="expected 13 convolutions and normalisations, the classifier has 26"):
        starting_model(config("ssd300_vgg16"), CLASSES, tmp_path / "bn.pth")
    assert imagenet.CLASSIFIERS["ssd300_vgg16"] is CLASSIFIERS["ssd512_vgg16"]
