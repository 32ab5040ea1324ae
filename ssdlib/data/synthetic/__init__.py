"""Drawn scenes: data sets of any size whose every object is known exactly."""

from __future__ import annotations

from ssdlib.data.synthetic.toy_voc import TOY_CLASSES, make_toy_voc

__all__ = ["TOY_CLASSES", "make_toy_voc"]
