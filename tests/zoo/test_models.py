"""The table of published weights, and the door to every detector."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.openimages import openimages
from typer.testing import CliRunner

from ssdlib.cli import app, models
from ssdlib.model import ARCHITECTURES, ssd_tiny
from ssdlib.zoo import ZOO, open_model, save_model
from ssdlib.zoo import models as zoo
from ssdlib.zoo.checkpoint import demo_model
from ssdlib.zoo.imagenet import CLASSIFIERS

RUNNER = CliRunner()


def test_the_table_says_what_is_true() -> None:
    for name, entry in ZOO.items():
        assert entry.name == name
        assert entry.architecture in ARCHITECTURES
        assert entry.is_detector is not name.startswith("imagenet:")
        assert entry.is_detector or entry.architecture in CLASSIFIERS
        assert len(set(entry.classes)) == len(entry.classes)
    model, entry = openimages(), ZOO["openimages:ssd300_mobilenet_v2"]
    assert sum(p.numel() for p in model.parameters()) == entry.parameters
    assert (model.classes, model.architecture) == (entry.classes, entry.architecture)
    assert model.recipe.image_size == entry.input_size


def test_a_name_a_folder_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(demo_model(), tmp_path / "model.safetensors")
    for source in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        assert open_model(source).architecture == "ssd_tiny"
    monkeypatch.setattr(zoo, "openimages_model", lambda: "everyday objects")
    monkeypatch.setattr(zoo, "from_torchvision", lambda name: name)
    assert open_model("openimages:ssd300_mobilenet_v2") == "everyday objects"
    assert open_model(Path("torchvision:ssd300_vgg16")) == "ssd300_vgg16"


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no published weights 'openimages:yolo'; there are openimages:ssd300"):
        open_model("openimages:yolo")
    with pytest.raises(ValueError, match=r"is a backbone, .* architecture=ssd300_mobilenet_v2_bn and pretrained=true"):
        open_model("imagenet:mobilenet_v2")
    with pytest.raises(FileNotFoundError, match="no checkpoint at openimages"):
        open_model("openimages")


def test_the_command_lists_describes_and_fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[object] = []
    monkeypatch.setattr(models, "open_model", calls.append)
    monkeypatch.setattr(models, "openimages_model", calls.append)
    listed = RUNNER.invoke(app, ["models"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ZOO)
    described = RUNNER.invoke(app, ["models", "openimages:ssd300_mobilenet_v2"])
    assert all(text in described.output for text in ("Coffee cup", "Apache-2.0", "@mediapipe/objectron"))
    assert not calls
    assert RUNNER.invoke(app, ["models", "torchvision:ssd300_vgg16", "--get"]).exit_code == 0
    source = ["--source", str(tmp_path)]
    assert RUNNER.invoke(app, ["models", "openimages:ssd300_mobilenet_v2", *source]).exit_code == 0
    assert calls == ["torchvision:ssd300_vgg16", tmp_path]
    for arguments, message in (
        (["nothing:here"], "no published weights 'nothing:here'"),
        (["--get"], "need the NAME"),
        (["torchvision:ssd300_vgg16", *source], "--source is for openimages"),
    ):
        refused = RUNNER.invoke(app, ["models", *arguments])
        assert refused.exit_code == 2
        assert message in refused.output


def test_of_a_run_the_best_weights_are_opened(tmp_path: Path) -> None:
    save_model(ssd_tiny(2, classes=["last"]), tmp_path / "model.safetensors")
    assert open_model(tmp_path).classes == ("last",)
    save_model(ssd_tiny(2, classes=["best"]), tmp_path / "best.safetensors")
    assert open_model(tmp_path).classes == ("best",)
