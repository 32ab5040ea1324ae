"""Use of a trained detector: on photographs and folders of them, exported to other runtimes, timed."""

from __future__ import annotations

from ssdlib.deploy.detector import Detector, Result, open_model
from ssdlib.deploy.found import Found

__all__ = ["Detector", "Found", "Result", "open_model"]
