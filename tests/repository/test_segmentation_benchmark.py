from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from support.repository import ROOT

from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.family.segmentation import load_segmenter
from ssdlib.zoo import demo_model


@pytest.mark.slow
def test_three_ways_up_are_trained_tested_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    script = importlib.import_module("segmentation")
    options = ["--steps", "2", "--scenes", "8", "--tests", "2", "--seeds", "1"]
    try:
        script.main([*options, "--out", str(tmp_path), "--weights", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    record = json.loads((tmp_path / "segmentation.json").read_text())
    assert list(record["ups"]) == ["skip", "unpool", "transposed"]
    for row in record["ups"].values():
        assert len(row["mean_iou"]) == len(row["accuracy"]) == 1
        assert 0 <= row["mean_iou"][0] <= row["accuracy"][0] <= 1
    assert record["ups"]["unpool"]["parameters"] < record["ups"]["transposed"]["parameters"]
    nothing = (segmented_scenes(2, 256, seed=1)[1] == 0).double().mean().item()
    assert record["background"]["accuracy"] == pytest.approx(nothing, abs=1e-4)
    assert load_segmenter(demo_model(), 7, "skip", tmp_path)(torch.zeros(1, 3, 64, 64)).shape == (1, 7, 64, 64)
