"""Frames in flight: against a program that goes through time in steps, and Little's law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.deploy.pipeline import pipeline, steady

STAGES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def slow_pipeline(stages: list[int], in_flight: int, frames: int) -> list[list[tuple[int, int]]]:
    """Tick by tick: a stage that is free takes the earliest frame that waits before it."""
    spans: list[list[tuple[int, int]]] = [[] for _ in range(frames)]
    taken = tick = 0
    while any(len(done) < len(stages) or done[-1][1] > tick for done in spans):
        under_way = sum(len(done) < len(stages) or done[-1][1] > tick for done in spans[:taken])
        while taken < frames and under_way < in_flight:
            taken, under_way = taken + 1, under_way + 1
        for s, duration in enumerate(stages):
            if any(len(done) > s and done[s][0] <= tick < done[s][1] for done in spans):
                continue
            for done in spans[:taken]:
                if len(done) == s and (s == 0 or done[-1][1] <= tick):
                    done.append((tick, tick + duration))
                    break
        tick += 1
    return spans


@given(STAGES, st.integers(1, 4), st.integers(1, 7))
def test_as_a_program_that_goes_tick_by_tick(stages: list[int], in_flight: int, frames: int):
    taken, spans = pipeline(stages, in_flight, frames)
    assert spans.tolist() == [[list(span) for span in done] for done in slow_pipeline(stages, in_flight, frames)]
    ends = spans[:, -1, 1]
    assert (taken[:in_flight] == 0).all()
    np.testing.assert_array_equal(taken[in_flight:], ends[:-in_flight] if in_flight < frames else [])


@given(STAGES, st.integers(1, 8))
def test_rate_latency_and_littles_law(stages: list[int], in_flight: int):
    found = steady(stages, in_flight)
    assert found["rate"] == pytest.approx(min(in_flight / sum(stages), 1 / max(stages)))
    assert found["rate"] * found["latency"] == pytest.approx(in_flight)
    assert found["latency"] >= sum(stages) - 1e-9
    assert max(found["busy"]) <= 1


@pytest.mark.parametrize(
    ("stages", "in_flight"), [([], 1), ([1, 0], 1), ([1, float("nan")], 1), ([float("inf")], 1), ([1], 0)]
)
def test_what_has_no_time(stages: list[float], in_flight: int):
    with pytest.raises(ValueError, match="must be positive, got"):
        pipeline(stages, in_flight)
