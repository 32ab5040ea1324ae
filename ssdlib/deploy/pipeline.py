"""Frames through the stages of a program, several at a time: what asynchronous work does to rate and latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def pipeline(stages: Sequence[float], in_flight: int, frames: int = 200) -> tuple[Times, Times]:
    """When each frame is in each stage, if a stage handles one frame at a time.

    A frame is taken as soon as fewer than `in_flight` others are under way, goes through the stages in their order, and
    waits before one that is not free.

    Args:
        stages: how long each takes, such as reading, computing and drawing.
        in_flight: most frames under way at a time; 1 is one after the other.
        frames: how many there are.

    Returns:
        taken (frames,), when each was taken, and spans (frames, stages, 2), when each of its stages began and ended,
        in the unit of `stages`.

    Raises:
        ValueError: if there is no stage, or a number is not positive.
    """
    if not stages or min(stages) <= 0 or not math.isfinite(sum(stages)) or min(in_flight, frames) < 1:
        raise ValueError(f"stages, in_flight and frames must be positive, got {list(stages)}, {in_flight}, {frames}")
    free, taken = [0.0] * len(stages), np.zeros(frames)
    spans = np.zeros((frames, len(stages), 2))
    for k in range(frames):
        now = spans[k - in_flight, -1, 1] if k >= in_flight else 0.0
        taken[k] = now
        for s, duration in enumerate(stages):
            start = max(now, free[s])
            now = free[s] = start + duration
            spans[k, s] = start, now
    return taken, spans


def steady(stages: Sequence[float], in_flight: int) -> dict[str, Any]:
    """What `pipeline` comes to once it has run for a while.

    Returns:
        "rate", frames in a unit of time, "latency" of a frame from when it is taken, and "busy", the share of the time
        that each stage works. Rate times latency is the number in flight (Little's law).
    """
    taken, spans = pipeline(stages, in_flight, frames=100 + in_flight)
    done = spans[:, -1, 1]
    rate = float(50 / (done[-1] - done[-51]))
    return {
        "rate": rate,
        "latency": float((done - taken)[-50:].mean()),
        "busy": [min(1.0, rate * duration) for duration in stages],
    }
