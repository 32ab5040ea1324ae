from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from support.repository import ROOT

from ssdlib.family.keypoints import load_keypoints
from ssdlib.zoo import demo_model


def test_figures_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    script = importlib.import_module("keypoints")
    boxes = torch.tensor([[0.0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]])
    points = torch.tensor([[[0.1, 0.1], [0.2, 0.2]], [[0.5, 0.6], [0.9, 0.9]]])
    visible = torch.tensor([[True, True], [True, False]])
    fish = script.Fish(torch.zeros(0), [], torch.tensor([0, 1]), boxes, points, visible)
    off = points + torch.tensor([[[0.03, 0.04], [0, 0.06]], [[0.0, 0.0], [9, 9]]])  # 0.05 is a tenth of the box
    found = script.figures(off - 1e-6, fish, torch.arange(2))
    assert found["pixels"] == pytest.approx(256 * (0.05 + 0.06) / 3, abs=0.01)
    assert found["near"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["near_each"] == [1.0, 0.0]
    # The mean place in the box: of the first keypoint (0.2, 0.4) and (0, 0.2), of the second the one that is seen.
    there = script.constant(fish, fish)
    torch.testing.assert_close(there[0], torch.tensor([[0.05, 0.075], [0.2, 0.2]]))
    torch.testing.assert_close(there[1], torch.tensor([[0.55, 0.65], [0.7, 0.9]]))


@pytest.mark.slow
def test_a_head_is_trained_tested_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    script = importlib.import_module("keypoints")
    options = ["--steps", "3", "--batch", "4", "--scenes", "10", "--tests", "10"]
    options += ["--out", str(tmp_path), "--weights", str(tmp_path)]
    try:
        script.main([*options, "--seeds", "1"])
        first = json.loads((tmp_path / "keypoints.json").read_text())["runs"]
        script.main([*options, "--seeds", "2"])
        with pytest.raises(ValueError, match="is of tests 10, not 11"):
            script.main([*options, "--tests", "11"])
    finally:
        torch.set_num_threads(threads)
    record = json.loads((tmp_path / "keypoints.json").read_text())
    assert [run["seed"] for run in record["runs"]] == [0, 1]
    assert record["runs"][:1] == first
    assert record["fish"][0] > 0
    for run in record["runs"]:
        assert 0 <= run["true_boxes"]["near"] <= 1
        assert len(run["true_boxes"]["near_each"]) == 4
        assert 0 < run["found"] <= 1
        assert run["found_boxes"]["pixels"] > 0
    heatmaps = load_keypoints(demo_model(), 4, tmp_path)(torch.zeros(1, 3, 256, 256), [torch.tensor([[0.0, 0, 1, 1]])])
    assert heatmaps.shape == (1, 4, 28, 28)
