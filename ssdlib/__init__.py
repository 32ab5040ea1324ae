"""SSD from scratch: the Single Shot MultiBox Detector, one module for each idea.

Read the modules in the order of the book: boxes, priors, coding, matching, loss, nms and detection,
model, data, metrics, training. Nothing is imported here, so ``import ssdlib.boxes`` stays light.
"""

from __future__ import annotations

__version__ = "0.1.0"
