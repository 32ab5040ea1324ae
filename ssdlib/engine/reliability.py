"""How far a score may be read as a chance: groups of detections by their score, and how many of each are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

TENTHS = tuple(k / 10 for k in range(11))
"""The edges of ten groups of equal width."""


@dataclass(frozen=True)
class ScoreGroup:
    """Detections with scores in low <= score < high; the last group holds its upper edge too."""

    low: float
    high: float
    count: int
    mean_score: float  # nan for none
    share_right: float  # nan for none

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the chance to be right, by so many detections; 0 to 1 for none."""
        if not self.count:
            return 0.0, 1.0
        n, p, z2 = self.count, self.share_right, 1.96**2
        reach = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n**2)))
        middle = p + z2 / (2 * n)
        return max(0.0, (middle - reach) / (1 + z2 / n)), min(1.0, (middle + reach) / (1 + z2 / n))


def reliability(scores: npt.ArrayLike, right: npt.ArrayLike, edges: Sequence[float] = TENTHS) -> list[ScoreGroup]:
    """Sort detections into groups by their score, and count how many of each are right.

    Args:
        scores: (K,).
        right: (K,) bool, by whatever rule.
        edges: of the groups, rising. Detections outside of all are left out.

    Raises:
        ValueError: for shapes that differ, fewer than two edges, or edges that do not rise.

    Source: reliability diagrams, as in Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    scores, right = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.bool_)
    if scores.ndim != 1 or scores.shape != right.shape:
        raise ValueError(f"scores {scores.shape} and right {right.shape} must both have the shape (K,)")
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges must rise and be at least two, got {list(edges)}")
    groups = []
    for low, high in pairwise(edges):
        inside = (scores >= low) & ((scores < high) | ((high == edges[-1]) & (scores == high)))
        count = int(inside.sum())
        means = (float(scores[inside].mean()), float(right[inside].mean())) if count else (math.nan, math.nan)
        groups.append(ScoreGroup(low, high, count, *means))
    return groups


def expected_calibration_error(groups: Sequence[ScoreGroup]) -> float:
    """The mean distance between mean score and share of right ones, each group weighed by its detections.

    Args:
        groups: of `reliability`. The error depends on their number: always say it.

    Returns:
        0..1; nan if all groups are empty.
    """
    count = sum(group.count for group in groups)
    if not count:
        return math.nan
    return math.fsum(g.count * abs(g.mean_score - g.share_right) for g in groups if g.count) / count
