"""Trained weights: checkpoints of our own, and weights that come from elsewhere."""

from __future__ import annotations

from ssdlib.zoo.checkpoint import demo_model, load_model, read_description, save_model
from ssdlib.zoo.models import ZOO, open_model
from ssdlib.zoo.torchvision_detectors import from_torchvision

__all__ = [
    "ZOO",
    "demo_model",
    "from_torchvision",
    "load_model",
    "open_model",
    "read_description",
    "save_model",
]
