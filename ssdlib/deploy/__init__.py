"""Use of a trained detector: on photographs and folders of them, exported to other runtimes, timed."""

from __future__ import annotations

from ssdlib.deploy.detector import Detector, Result
from ssdlib.deploy.found import Found
from ssdlib.zoo import open_model

__all__ = ["Detector", "Found", "Result", "open_model"]
