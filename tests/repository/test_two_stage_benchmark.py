"""benchmarks/two_stage.py: its parts are those of a detection, and it writes what it measured."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdlib.family.two_stage import TwoStage
from ssdlib.model import ssd_tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("two_stage")


def test_the_parts_that_are_timed_are_those_of_a_detection(benchmark: Any):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 256, 256)
    results: dict[str, Any] = {}

    def timed(part: str, call: Any, *arguments: Any) -> Any:
        results[part] = call(*arguments)
        return results[part]

    model = TwoStage(4).eval()
    with torch.no_grad():
        benchmark.of_two_stages(model, image, timed)
    (expected,) = model.detect(image)
    (found,) = results["detections, with NMS"]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert len(results) == 6

    results.clear()
    ssd = ssd_tiny(4).eval()
    with torch.no_grad():
        benchmark.of_ssd(ssd, image, timed)
        assert all(map(torch.equal, results["heads"], ssd(image)))
    assert list(results) == ["backbone", "heads", "detections, with NMS"]


def test_it_writes_what_it_measured(benchmark: Any, tmp_path: Path):
    benchmark.main(steps=1, rounds=2, folder=tmp_path)
    record = json.loads((tmp_path / "two_stage.json").read_text())
    assert (record["steps"], record["rounds"]) == (1, 2)
    assert "--steps 1 --rounds 2" in record["command"]
    assert {name: len(parts) for name, parts in record["milliseconds"].items()} == {"two_stage": 6, "ssd": 3}
    assert all(value > 0 for parts in record["milliseconds"].values() for value in parts.values())
