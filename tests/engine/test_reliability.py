"""Groups of scores: by hand, against a slow loop, and what always holds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.engine.reliability import TENTHS, expected_calibration_error, reliability

JUDGED = st.lists(st.tuples(st.integers(0, 40).map(lambda n: n / 40), st.booleans()), max_size=30)


def test_by_hand() -> None:
    low, high = reliability([0.1, 0.3, 0.5, 1.0], [False, True, True, True], (0, 0.5, 1))
    assert (low.count, low.mean_score, low.share_right) == (2, pytest.approx(0.2), 0.5)
    assert (high.count, high.mean_score, high.share_right) == (2, 0.75, 1.0)  # 0.5 begins a group, 1.0 ends the last
    assert expected_calibration_error([low, high]) == pytest.approx((2 * 0.3 + 2 * 0.25) / 4)


def test_the_interval_is_that_of_wilson() -> None:
    """Newcombe (1998), table I: 81 of 263, 0.2553 to 0.3662; 15 of 148, 0.0624 to 0.1605."""
    for right, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        (group,) = reliability([0.5] * count, [True] * right + [False] * (count - right), (0, 1))
        assert group.interval == pytest.approx((low, high), abs=5e-5)


def test_nothing_at_all() -> None:
    groups = reliability([], [])
    assert len(groups) == len(TENTHS) - 1
    assert all(g.count == 0 and math.isnan(g.mean_score) and g.interval == (0.0, 1.0) for g in groups)
    assert math.isnan(expected_calibration_error(groups))


@given(JUDGED)
def test_equals_the_slow_loop(judged: list[tuple[float, bool]]) -> None:
    groups = reliability([score for score, _ in judged], [right for _, right in judged])
    error = 0.0
    for k, group in enumerate(groups):
        inside = [one for one in judged if k == min(9, sum(one[0] >= edge for edge in TENTHS[1:]))]
        assert group.count == len(inside)
        if inside:
            mean, right = sum(score for score, _ in inside) / len(inside), sum(r for _, r in inside) / len(inside)
            assert (group.mean_score, group.share_right) == (pytest.approx(mean), pytest.approx(right))
            error += abs(sum(score - r for score, r in inside))
            assert 0 <= group.interval[0] <= right <= group.interval[1] <= 1
    if judged:
        assert expected_calibration_error(groups) == pytest.approx(error / len(judged))


@pytest.mark.parametrize("edges", [(), (0.5,), (0, 0), (1, 0)])
def test_edges_that_do_not_rise_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="edges must rise"):
        reliability([0.5], [True], edges)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(2,\) and right \(1,\) must both have the shape \(K,\)"):
        reliability([0.5, 0.6], [True])
