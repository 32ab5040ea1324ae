from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssdlib.family.relatives import IMAGE_SIZE, RELATIVES, WEIGHTS, load_relative, relative_bytes
from ssdlib.model import IMAGENET_MEAN, IMAGENET_STD
from ssdlib.training import Hyperparameters, autocast, make_optimizer, train_step

EVERY = pytest.mark.parametrize("name", RELATIVES)
CLASSES = 4
LAYERS = {"windows": "classifier.features", "overfeat": "network.features"}
"""Of those that take only the first convolutions of the backbone."""


def written(folder: Path, name: str, model: Any) -> Path:
    path = folder / f"{name}.safetensors"
    path.write_bytes(relative_bytes(name, model, CLASSES))
    return path


@EVERY
def test_what_is_found_is_a_detection_whatever_the_weights(name: str) -> None:
    torch.manual_seed(0)
    relative = RELATIVES[name]
    model = relative.build(CLASSES).eval()
    assert 0 < relative.predictions(model) < 20_000
    images = torch.rand(3, 3, IMAGE_SIZE, IMAGE_SIZE)
    together = relative.detect(model, images)
    assert len(together) == 3
    for found in together:
        assert {key: value.dtype for key, value in found.items()} == {
            "boxes": torch.float32,
            "labels": torch.int64,
            "scores": torch.float32,
        }
        count = len(found["scores"])
        assert found["boxes"].shape == (count, 4)
        assert count <= 200
        assert not any(value.requires_grad for value in found.values())
        assert found["labels"].shape == (count,)
        assert ((found["labels"] >= 1) & (found["labels"] < CLASSES)).all()
        assert ((found["boxes"] >= 0) & (found["boxes"] <= 1)).all()
        assert (found["boxes"][:, 2:] > found["boxes"][:, :2]).all()
        assert (found["scores"].diff() <= 0).all()
        assert ((found["scores"] >= 0.01) & (found["scores"] <= 1)).all()


@EVERY
def test_nothing_is_found_in_no_image(name: str) -> None:
    relative = RELATIVES[name]
    assert relative.detect(relative.build(CLASSES), torch.rand(0, 3, IMAGE_SIZE, IMAGE_SIZE)) == []


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_the_backbone_sees_normalised_images_in_the_mode_that_it_is_in(name: str, training: bool) -> None:
    torch.manual_seed(0)
    relative = RELATIVES[name]
    model: Any = relative.build(CLASSES).train(training)
    seen: list[tuple[Tensor, bool]] = []
    layers = model.get_submodule(LAYERS.get(name, "backbone"))
    layers.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], module.training)))
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    relative.detect(model, images)
    assert {mode for _, mode in seen} == {training}
    looked_at = images[:1, :, :64, :64] if name == "windows" else images  # the first window in the place of the images
    for c, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        torch.testing.assert_close(seen[0][0][: len(looked_at), c], (looked_at[:, c] - mean) / std)
    assert model.training == training


@EVERY
def test_losses_are_finite_numbers_and_fall(name: str) -> None:
    torch.manual_seed(1)
    relative = RELATIVES[name]
    model = relative.build(CLASSES).train()
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    some = {"boxes": torch.tensor([[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 0.95, 0.8]]), "labels": torch.tensor([1, 3])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for targets in ([none, none], [some, none]):
        with autocast(images.device, "bfloat16"):
            parts = relative.losses(model, images, targets)
        for part, value in parts.items():
            assert value.shape == (), part
            assert value.dtype == torch.float32, part
            assert value.isfinite(), part
    config = Hyperparameters(learning_rate=2e-4)
    optimizer, totals = make_optimizer(model, config), []
    for _ in range(8):
        measured = train_step(model, images, [some, some], optimizer, config, relative.losses)
        assert measured.pop("gradient_norm") > 0
        totals.append(sum(measured.values()))
    assert min(totals[-3:]) < 0.8 * totals[0]  # not every step is one for the better


@EVERY
def test_weights_come_back_in_half_precision(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = RELATIVES[name].build(CLASSES)
    path = written(tmp_path, name, model)
    assert path.stat().st_size < 1_500_000
    again = load_relative(name, tmp_path)
    assert not again.training
    assert type(again) is type(model)
    for key, value in model.state_dict().items():
        there = again.state_dict()[key]
        assert there.dtype == value.dtype, key
        torch.testing.assert_close(there, value.half().to(value.dtype), rtol=0, atol=0)


def test_the_weights_of_the_package_fit() -> None:
    there = {path.stem for path in WEIGHTS.glob("*.safetensors")}
    there -= {"segmentation_skip", "keypoints"}  # parts on top of a detector, which have tests of their own
    assert there == set(RELATIVES)
    for name in there:
        assert all(value.isfinite().all() for value in load_relative(name).state_dict().values()), name


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no relative 'sdd'; there are ssd"):
        load_relative("sdd")
    with pytest.raises(FileNotFoundError, match=r"no weights of 'ssd': no file .*ssd\.safetensors"):
        load_relative("ssd", tmp_path)
    path = written(tmp_path, "ssd", RELATIVES["ssd"].build(CLASSES))
    tensors = {key: value.clone() for key, value in load_file(path).items()}  # the file itself is overwritten
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"ssd\.safetensors does not hold weights of 'ssd'"):
        load_relative("ssd", tmp_path)
    for about, why in (
        (None, "relative"),
        ("nonsense", "Expecting value"),
        (json.dumps({"name": "yolo", "num_classes": CLASSES}), "it is of 'yolo'"),
        (json.dumps({"name": "ssd", "num_classes": CLASSES + 1}), "size mismatch"),
        (json.dumps({"name": "ssd", "num_classes": "4"}), "str"),
    ):
        save_file(tensors, path, metadata=None if about is None else {"relative": about})
        with pytest.raises(ValueError, match=rf"ssd\.safetensors does not hold weights of 'ssd' .*: (.|\n)*{why}"):
            load_relative("ssd", tmp_path)


def test_weights_too_large_for_half_precision_are_refused() -> None:
    model = RELATIVES["ssd"].build(CLASSES)
    with torch.no_grad():
        model.class_head.convolutions[0].bias[0] = 1e6  # type: ignore[index,operator,union-attr]
    with pytest.raises(FloatingPointError, match=r"class_head\.convolutions\.0\.bias of 'ssd'"):
        relative_bytes("ssd", model, CLASSES)
