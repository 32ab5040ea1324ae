"""Data sets in memory and runs of a few steps, for the tests of training."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssdlib.data import VOCDataset, sample_root
from ssdlib.engine import processes
from ssdlib.engine.config import TrainConfig
from ssdlib.engine.presets import PRESETS
from ssdlib.loss import LossSums

QUICK = TrainConfig(iterations=3, batch_size=2, warmup=0.0, augmentation=PRESETS["tiny"].augmentation)
TIMES = {"seconds", "images_per_second", "waiting"}  # of a line of the log: they differ from run to run

Item = tuple[Tensor, dict[str, Tensor]]


class Images:
    """A data set in memory."""

    def __init__(self, items: Sequence[Item], classes: Sequence[str]) -> None:
        self.items, self.classes = list(items), tuple(classes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


def sample_images(count: int = 7) -> Images:
    """Images of the sample, which are of different sizes."""
    dataset = VOCDataset(sample_root(), "train")
    return Images([dataset[i] for i in range(count)], dataset.classes)


def empty_item() -> Item:
    """A black image without objects."""
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return torch.zeros(3, 90, 70, dtype=torch.uint8), {**target, "difficult": torch.zeros(0, dtype=torch.bool)}


def log_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a log, without the times."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def quick(**changes: Any) -> TrainConfig:
    return replace(QUICK, **changes)


def losses_with_a_nan(monkeypatch: pytest.MonkeyPatch, call: int) -> list[int]:
    """Let the loss of the classes be NaN in that call of `device_sums`, from 1; the list has a number for each call."""
    calls: list[int] = []
    real = processes.device_sums

    def failing(*args: Any, **kwargs: Any) -> LossSums:
        calls.append(len(calls) + 1)
        sums = real(*args, **kwargs)
        return sums._replace(confidence=sums.confidence * (math.nan if calls[-1] == call else 1.0))

    monkeypatch.setattr(processes, "device_sums", failing)
    return calls
