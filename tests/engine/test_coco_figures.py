"""COCO's figures: the same numbers as torchmetrics, small cases by hand, and what is refused."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from support.metric_cases import scattered, torchmetrics_figures

from ssdlib.engine.coco_figures import evaluate_coco


def test_coco_figures_equal_torchmetrics_and_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    names = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "APs": "map_small", "APm": "map_medium"}
    names |= {"APl": "map_large", "AR100": "mar_100"}
    # Its own thresholds are float32 numbers: some are above the recall that they stand for. These are COCO's.
    settings = {
        "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
        "rec_thresholds": np.linspace(0, 1, 101).tolist(),
    }
    pytest.importorskip("pycocotools")
    for seed in range(6):
        case = scattered(seed, difficult=seed % 2 == 0)
        result = evaluate_coco(*case, 4)
        figures = result.figures
        assert capfd.readouterr().out == ""
        theirs = torchmetrics_figures(case, **settings)
        capfd.readouterr()
        expected = {name: math.nan if theirs[key] < 0 else theirs[key] for name, key in names.items()}
        assert figures == pytest.approx(expected, abs=1e-6, nan_ok=True)
        per_class = dict(zip(theirs["classes"], theirs["map_per_class"], strict=True))
        assert result.per_class == pytest.approx({k: v for k, v in per_class.items() if v >= 0}, abs=1e-6)
        assert figures["AP"] == pytest.approx(np.mean(list(result.per_class.values())), abs=1e-9)


def test_coco_figures_by_hand() -> None:
    pytest.importorskip("pycocotools")
    boxes = torch.tensor([[0.0, 0, 20, 20], [100, 100, 150, 150], [200, 200, 300, 260]])
    objects = {"boxes": boxes, "labels": torch.tensor([1, 1, 1]), "difficult": torch.tensor([False, False, True])}
    found = {"boxes": boxes[[0, 2]], "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.5, 0.9])}
    figures = evaluate_coco([found], [objects], 3).figures
    # One of two objects found: precision is 1 at the recalls 0, .01, ..., .5; the difficult one is ignored.
    half = pytest.approx(51 / 101, abs=1e-9)
    assert (figures["AP"], figures["AP50"], figures["AP75"], figures["AR100"]) == (half, half, half, 0.5)
    assert (figures["APs"], figures["APm"]) == (pytest.approx(1.0), 0.0)
    assert math.isnan(figures["APl"])
    many = torch.arange(12)[:, None] * 50 + torch.tensor([0, 0, 40, 40])  # more than the 10 of COCO's AR10
    objects = {"boxes": many, "labels": torch.ones(12, dtype=torch.int64)}
    figures = evaluate_coco([objects | {"scores": torch.rand(12)}], [objects], 2).figures
    assert (figures["AR100"], figures["APm"]) == (1.0, pytest.approx(1.0))
    empty = evaluate_coco([], [], 3)
    assert all(math.isnan(figure) for figure in empty.figures.values())
    assert empty.per_class == {}


def test_coco_refuses_fractions_of_an_image() -> None:
    pytest.importorskip("pycocotools")
    objects = {"boxes": torch.tensor([[0.1, 0.1, 0.5, 0.75]]), "labels": torch.tensor([1])}
    with pytest.raises(ValueError, match=r"largest coordinate in targets is 0\.75"):
        evaluate_coco([objects | {"scores": torch.ones(1)}], [objects], 2)


def test_coco_without_pycocotools_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(ImportError, match="pip install pycocotools"):
        evaluate_coco([], [], 2)
