"""A training run at any scale: configuration and presets, loading, the folder of the run, processes, inference."""

from __future__ import annotations

from ssdlib.engine.config import TrainConfig, with_settings
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.presets import PRESET_NOTES, PRESETS
from ssdlib.engine.run import train

__all__ = ["PRESETS", "PRESET_NOTES", "TrainConfig", "detect_dataset", "train", "with_settings"]
