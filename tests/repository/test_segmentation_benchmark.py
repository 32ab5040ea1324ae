from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from support.repository import ROOT

from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.family.segmentation import Segmenter, load_segmenter
from ssdlib.zoo import demo_model


@pytest.mark.slow
def test_three_ways_up_are_trained_tested_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    script = importlib.import_module("segmentation")
    learned = []
    train = script.train

    def watched(model: Segmenter, *rest: object) -> None:
        train(model, *rest)
        learned.append((model.decoder.up, sum(p.double().sum().item() for p in model.decoder.parameters())))

    monkeypatch.setattr(script, "train", watched)
    options = ["--steps", "2", "--scenes", "8", "--tests", "2", "--out", str(tmp_path), "--weights", str(tmp_path)]
    try:
        script.main([*options, "--seeds", "1"])
        first = json.loads((tmp_path / "segmentation.json").read_text())["runs"]
        script.main([*options, "--seeds", "2"])
        with pytest.raises(ValueError, match="is of steps 2, not 3"):
            script.main([*options, "--steps", "3"])
    finally:
        torch.set_num_threads(threads)
    record = json.loads((tmp_path / "segmentation.json").read_text())
    assert [(run["seed"], run["up"]) for run in record["runs"]] == [
        (seed, up) for seed in (0, 1) for up in ("skip", "unpool", "transposed")
    ]
    assert record["runs"][:3] == first
    assert len(learned) == len(set(learned)) == 6, "a training was made twice, or two seeds learned the same"
    for run in record["runs"]:
        assert 0 <= run["mean_iou"] <= run["accuracy"] <= 1
    assert record["ups"]["unpool"]["parameters"] < record["ups"]["transposed"]["parameters"]
    nothing = (segmented_scenes(2, 256, seed=1)[1] == 0).double().mean().item()
    assert record["background"]["accuracy"] == pytest.approx(nothing, abs=1e-4)
    assert load_segmenter(demo_model(), 7, "skip", tmp_path)(torch.zeros(1, 3, 64, 64)).shape == (1, 7, 64, 64)
