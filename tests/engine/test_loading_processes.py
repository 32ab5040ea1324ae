"""Processes that load images, however the system starts them: forked, or anew with what can be pickled."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small_run import log_of, quick, same_weights

from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.transforms import Augmentation
from ssdlib.engine import detect_dataset, train
from ssdlib.zoo import load_model


@pytest.fixture(params=["spawn", "forkserver"])
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """As macOS and Windows start processes, and Linux from Python 3.14 on."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {request.param}")
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.portable
@pytest.mark.parametrize("augment_on", ["loader", "device"])
def test_two_steps_and_an_evaluation_with_workers(start_method: str, augment_on: str, tmp_path: Path):
    """The same run as without workers; what was saved loads again."""
    if (start_method, augment_on) == ("forkserver", "device"):
        pytest.skip("the images come from the loader in the same way as under spawn")
    dataset = VOCDataset(sample_root(), "val")
    config = quick(iterations=2, augmentation=Augmentation(), augment_on=augment_on)
    alone = train(config, dataset, tmp_path / "alone", progress=False)
    model = train(config, dataset, tmp_path / "workers", progress=False, workers=1)
    assert same_weights(model, alone)
    assert log_of(tmp_path / "workers") == log_of(tmp_path / "alone")
    again = load_model(tmp_path / "workers" / "model.safetensors")
    found, targets = detect_dataset(again, dataset, progress=False, workers=1)
    expected, _ = detect_dataset(again, dataset, progress=False)
    assert len(found) == len(targets) == len(dataset)
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(found, expected, strict=True))
