"""benchmarks/family.py: the same images for all, the same seconds for all, and what is done stays done."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from support.repository import ROOT

from ssdlib.data import open_dataset, sample_root
from ssdlib.family.relatives import RELATIVES, load_relative
from ssdlib.training import learning_rate_factor


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("family")


def ticking(step: float) -> Iterator[float]:
    """A clock that goes on by so many seconds whenever it is read."""
    now = 0.0
    while True:
        yield now
        now += step


def fitted(family: Any, losses: Any, step: float, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[float]]:
    """Steps and learning rates of a training of 10 seconds by a clock that is read once in each step."""
    rates: list[float] = []
    loop = family.training_loop

    def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
        for measured in loop(*arguments, **options):
            rates.append(measured["learning_rate"])
            yield measured

    monkeypatch.setattr(family, "training_loop", watched)
    clock = ticking(step)
    images = open_dataset(sample_root(), "trainval")
    config = replace(family.configuration("drawn", 3, "float32"), batch_size=2)
    _, steps = family.fit(replace(RELATIVES["ssd"], losses=losses), images, config, 10.0, lambda: next(clock))
    monkeypatch.undo()
    return steps, rates


def test_quick_and_slow_see_the_same_batches_and_the_same_schedule(family: Any, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[float, list[int]]] = []

    def losses(model: Any, images: Any, targets: Any) -> dict[str, Any]:
        seen.append((float(images.double().sum()), [int(label) for each in targets for label in each["labels"]]))
        return {"localization": model.offset_head.convolutions[0].bias.square().sum()}

    slow, slow_rates = fitted(family, losses, 1.0, monkeypatch)
    batches_of_slow = [*seen]
    seen.clear()
    quick, quick_rates = fitted(family, losses, 0.5, monkeypatch)
    assert (slow, quick) == (10, 20)
    assert seen[:slow] == batches_of_slow
    assert len({total for total, _ in seen}) == quick
    config = family.configuration("drawn", 3, "float32")
    for rates, tick in ((slow_rates, 1.0), (quick_rates, 0.5)):
        shares = [0.1 * tick * max(0, step - 1) for step in range(len(rates))]
        wanted = [
            config.learning_rate * learning_rate_factor(round(share * config.iterations), config) for share in shares
        ]
        assert rates == pytest.approx(wanted)
    assert quick_rates[-1] < 0.1 * max(quick_rates)


def test_a_run_is_trained_tested_and_kept(family: Any, tmp_path: Path):
    images = open_dataset(sample_root(), "trainval")
    few = open_dataset(sample_root(), "test")
    few._images = few._images[:3]
    config = replace(family.configuration("drawn", 0, "float32"), batch_size=2)
    found = family.measure("ssd", config, images, few, 0.01, tmp_path)
    assert found["steps"] == 1
    assert found["processor_seconds"] > 0
    assert 0 <= found["mAP"] <= 1
    assert found["AP_by_class"].keys() <= set(images.classes)
    assert [*found["coco"]] == [*family.COCO]
    json.dumps(found, allow_nan=False)
    assert len(family.timings(["ssd"], torch.rand(8, 3, 256, 256), tmp_path, rounds=1)["ssd"]) == 4
    assert load_relative("ssd", tmp_path).num_classes == len(images.classes) + 1


def test_what_follows_from_the_layers(family: Any):
    small, large = (family.size_of(RELATIVES["ssd"], classes) for classes in (3, 8))
    assert small["predictions"] == large["predictions"] == 4 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2)
    weights = 9 * 4 * (96 + 128 + 96 + 64 + 64)  # of the class heads, for each class
    assert large["parameters"] - small["parameters"] == 5 * (weights + 4 * 5)
    cells = sum(channels * side**2 for channels, side in ((96, 32), (128, 16), (96, 8), (64, 4), (64, 2)))
    assert large["multiply_adds"] - small["multiply_adds"] == 5 * 4 * 9 * cells


def test_what_was_recorded_is_not_done_again(family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def measured(name: str, config: Any, images: Any, test: Any, seconds: float, weights: Any) -> dict[str, Any]:
        asked.append((config.seed, config.augmentation == family.configuration("drawn", 0, "float32").augmentation))
        assert (weights is not None) == (asked[-1] == (0, True))
        return {"mAP": 0.5, "steps": 3, "seconds": 1.0}

    monkeypatch.setattr(family, "measure", measured)
    monkeypatch.setattr(family, "size_of", lambda relative, classes: {"parameters": classes})
    monkeypatch.setattr(family, "RELATIVES", {"ssd": RELATIVES["ssd"], "other": RELATIVES["ssd"]})
    options = {"name": "some", "seconds": 2.0, "seeds": 2, "only": [], "precision": "float32"}
    options |= {"results": tmp_path, "weights": tmp_path}
    family.main(sample_root(), sample_root(), runs=3, **options)
    path = tmp_path / "some.json"
    first = [("ssd", "drawn"), ("other", "drawn"), ("ssd", "photographs")]
    record = json.loads(path.read_text())
    assert [(run["relative"], run["images"]) for run in record["runs"]] == first
    assert "times" not in record  # they come with the last run
    family.main(sample_root(), sample_root(), runs=-1, **options)
    assert [seed for seed, _ in asked] == [0] * 4 + [1] * 4
    record = json.loads(path.read_text())
    assert len({(run["seed"], run["images"], run["relative"]) for run in record["runs"]}) == 8
    assert record["times"]["threads"] == torch.get_num_threads()
    family.main(sample_root(), sample_root(), runs=-1, **{**options, "only": ["other"], "seeds": 3})
    assert len(asked) == 10
    newer = {"ssd": RELATIVES["ssd"], "other": replace(RELATIVES["ssd"], version=2)}
    monkeypatch.setattr(family, "RELATIVES", newer)
    family.main(sample_root(), sample_root(), runs=1, **options)
    record = json.loads(path.read_text())  # of the one that changed, nothing old stays beside the new
    assert [(run["version"], run["seed"]) for run in record["runs"] if run["relative"] == "other"] == [(2, 0)]
    assert [run["version"] for run in record["runs"] if run["relative"] == "ssd"] == [1] * 4
    family.main(sample_root(), sample_root(), runs=-1, **options)
    assert len(asked) == 10 + 4
    for run in record["runs"]:
        del run["version"]  # as the first runs were recorded
    path.write_text(json.dumps(record))
    assert [*family.missing(record, 1, ["ssd"])] == []
    assert len([*family.missing(record, 1, ["other"])]) == 2
    monkeypatch.setattr(family, "RELATIVES", {"ssd": RELATIVES["ssd"], "other": RELATIVES["ssd"]})
    with pytest.raises(ValueError, match=r"is of seconds 2\.0, not 3\.0: give another --name"):
        family.main(sample_root(), sample_root(), runs=0, **{**options, "seconds": 3.0})
    with pytest.raises(typer.BadParameter, match="no relative 'third'; there are ssd, other"):
        family.main(sample_root(), sample_root(), runs=0, **{**options, "only": ["third"]})
    record["configs"]["drawn"]["learning_rate"] = 0.5  # as if the preset were another one now
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"drawn, is of learning_rate=0.5, not 0.002: give another"):
        family.main(sample_root(), sample_root(), runs=0, **options)
    assert len(asked) == 10 + 4
