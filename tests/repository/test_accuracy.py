"""The comparison with torchvision: both networks go through the loop of `ssd train`, and keep their own losses."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdlib.data import make_toy_voc, open_dataset
from ssdlib.detection import detect
from ssdlib.engine import detect_dataset, train
from ssdlib.engine.presets import PRESETS
from ssdlib.loss import multibox_loss
from ssdlib.metrics import evaluate

ROOT = Path(__file__).resolve().parents[2]
LITE = "torchvision:ssdlite320_mobilenet_v3_large"
CPU = torch.device("cpu")


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("accuracy")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    return make_toy_voc(folder, train=4, val=1, test=2, sides=(96, 140), progress=False)


def test_the_loop_is_that_of_ssd_train(accuracy: Any, toy: Path, tmp_path: Path):
    dataset = open_dataset(toy, "trainval")  # 5 images: the second epoch begins in the third step
    config = replace(PRESETS["tiny_few"], iterations=4, batch_size=2, seed=3)
    trained = train(config, dataset, tmp_path / "run", progress=False)
    network, log = accuracy.fit("ssd_tiny", dataset, config, CPU)
    state = network.ssd.state_dict()
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, msg=name)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == len(lines) == 2
    for ours, theirs in zip(log, lines, strict=True):
        for key in ("epoch", "step", "localization", "confidence"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-6)


def test_the_measure_is_that_of_ssd_evaluate(accuracy: Any, toy: Path):
    dataset = open_dataset(toy, "test")
    torch.manual_seed(1)
    network = accuracy.build("ssd_tiny", dataset.classes).eval()
    figures = accuracy.measure(network, dataset, CPU, "11point")
    wanted = evaluate(*detect_dataset(network.ssd, dataset, progress=False), network.ssd.num_classes, ap="11point")
    assert figures["mAP"] == pytest.approx(wanted.mean, abs=1e-9)
    assert set(figures["AP"]) == {dataset.classes[label - 1] for label in wanted.per_class}


@pytest.mark.slow
def test_each_network_has_its_own_losses_and_detections(accuracy: Any):
    classes = ("a", "b")
    targets = [
        {"boxes": torch.tensor([[0.1, 0.2, 0.5, 0.6]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    ours = accuracy.build("ssd_tiny", classes)
    images = torch.rand(2, 3, ours.size, ours.size)
    ours.eval()
    wanted = multibox_loss(*ours.ssd(images), targets, ours.ssd.priors)
    torch.testing.assert_close(ours(images, targets), wanted)
    torch.testing.assert_close(ours(images), detect(*ours.ssd(images), ours.ssd.priors))

    theirs = accuracy.build(LITE, classes)
    images = torch.rand(2, 3, 320, 320)
    in_pixels = [{**target, "boxes": 320 * target["boxes"]} for target in targets]
    assert theirs.size == 320
    torch.manual_seed(0)
    losses = theirs(images, targets)
    wanted = theirs.detector(list(images), in_pixels)
    torch.testing.assert_close(losses["localization"], wanted["bbox_regression"])
    torch.testing.assert_close(losses["confidence"], wanted["classification"])
    assert losses.keys() == {"localization", "confidence"}
    theirs.eval()
    with torch.no_grad():
        for found, in_pixels in zip(theirs(images), theirs.detector(list(images)), strict=True):
            torch.testing.assert_close(found["boxes"] * 320, in_pixels["boxes"])
            assert found["boxes"].max() <= 1
            assert torch.equal(found["labels"], in_pixels["labels"])


def test_the_large_networks_can_be_compared_too(accuracy: Any):
    """Those of the command in the script's head; without their weights, which would take half a minute to draw."""
    with torch.device("meta"):
        ours, theirs = (accuracy.build(name, ("a", "b")) for name in ("ssd300_vgg16_bn", "torchvision:ssd300_vgg16"))
    assert ours.size == theirs.size == 300
    assert ours.ssd.num_classes == theirs.detector.head.classification_head.num_columns == 3


@pytest.mark.slow
def test_a_comparison(accuracy: Any, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    architecture, peer, steps = "ssd_tiny", "ssdlite320_mobilenet_v3_large", 2
    settings = [f"iterations={steps}", "batch_size=2"]
    accuracy.main(
        data=toy,
        name="small",
        architecture=[architecture],
        peer=peer,
        settings=settings,
        ap="11point",
        results=tmp_path,
        **{"preset": "tiny_few", "seed": 1, "train_set": "trainval", "test_set": "test", "bfloat16": False},
        **{"device": "cpu", "workers": 0, "threads": 0},
    )
    record = json.loads((tmp_path / "small.json").read_text())
    assert record["command"].startswith("python benchmarks/accuracy.py --data data/toy --name small")
    assert str(tmp_path) not in json.dumps(record)
    assert (record["config"]["iterations"], record["config"]["batch_size"], record["config"]["seed"]) == (steps, 2, 1)
    assert record["images"] == {"trainval": 5, "test": 2}
    assert {"commit", "date", "hardware", "versions"} <= record.keys()
    printed = capsys.readouterr().out
    assert [row["network"] for row in record["networks"]] == [architecture, f"torchvision:{peer}"]
    for row in record["networks"]:
        assert 0 <= row["mAP"] <= 1
        assert row["log"][-1]["step"] == steps
        assert row["log"][-1]["localization"] > 0
        assert f"{row['mAP']:.3f}  {row['image_size']:5d}" in printed
    with torch.device("meta"):
        weights = accuracy.build(f"torchvision:{peer}", open_dataset(toy, "test").classes).parameters()
    assert record["networks"][1]["parameters"] == sum(p.numel() for p in weights)
