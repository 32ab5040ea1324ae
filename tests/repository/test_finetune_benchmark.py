"""benchmarks/finetune.py: which photographs, in which order, and that what is done stays done."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from ssdlib.data import open_dataset, sample_root
from ssdlib.engine.config import config_from_dict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("finetune")


def test_the_photographs_of_a_seed_are_nested_and_hold_every_class(finetune: Any):
    images = open_dataset(sample_root(), "trainval")
    orders = [finetune.drawn(images, seed) for seed in (0, 1)]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(len(images)))
        first = finetune.part(images, order[: len(images.classes)])
        labels = torch.cat([first.target(i)["labels"] for i in range(len(first))])
        assert set(labels.tolist()) == set(range(1, len(images.classes) + 1))


def test_what_was_recorded_is_not_done_again(finetune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def measured(config: Any, images: Any, test: Any, start: str, weights: Any) -> dict[str, Any]:
        asked.append((config.seed, len(images), start))
        return {"mAP": 0.5, "AP": {}, "seconds": 1.0, "processor_seconds": 1.0}

    monkeypatch.setattr(finetune, "measure", measured)
    options = {"photographs": [3, finetune.ALL], "seeds": 2, "weights": None, "precision": "float32"}
    options |= {"results": tmp_path, "name": "some", "steps": 2}
    finetune.main(sample_root(), runs=4, **options)
    every = len(open_dataset(sample_root(), "trainval"))
    assert asked == [(0, 3, "scratch"), (0, 3, "imagenet"), (0, 3, "openimages"), (0, every, "scratch")]
    finetune.main(sample_root(), runs=0, **options)
    assert len(asked) == len(set(asked)) == 12
    assert [seed for seed, _, _ in asked] == [0] * 6 + [1] * 6
    record = json.loads((tmp_path / "some.json").read_text())
    assert [(run["seed"], run["images"], run["start"]) for run in record["runs"]] == asked
    assert all(config_from_dict(config).iterations == 2 for config in record["configs"].values())

    with pytest.raises(ValueError, match=r"is of steps 2, not 3: give another --name"):
        finetune.main(sample_root(), runs=0, **{**options, "steps": 3})
    del record["configs"]["imagenet"]["memory_format"]  # as if it had come later
    record["configs"]["scratch"]["learning_rate"] = 0.5  # as if the preset were another one now
    (tmp_path / "some.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"scratch, is of learning_rate=0.5, not 0.001: give another"):
        finetune.main(sample_root(), runs=0, **options)
    with pytest.raises(typer.BadParameter, match="not 99999"):
        finetune.main(sample_root(), runs=0, **{**options, "photographs": [99999]})
    assert len(asked) == 12


def test_a_run_is_trained_and_tested(finetune: Any):
    images = finetune.part(open_dataset(sample_root(), "trainval"), range(3))
    config = finetune.configuration("scratch", 1, 0, "float32")
    found = finetune.measure(config, images, images, "scratch", None, progress=False)
    assert 0 <= found["mAP"] <= 1
    assert found["AP"].keys() <= set(images.classes)
    assert found["processor_seconds"] > 0
