"""Answers for the checker of the chapter on ablations: right ones, and wrong ones with words of the reply."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np


def by_places(a: list[int], b: list[int]) -> float:
    every = a + b
    seen = abs(sum(a) / len(a) - sum(b) / len(b))
    found = []
    for chosen in combinations(range(len(every)), len(a)):
        here = [every[i] for i in chosen]
        there = [every[i] for i in range(len(every)) if i not in chosen]
        found.append(abs(sum(here) / len(here) - sum(there) / len(there)) >= seen)
    return sum(found) / len(found)


def by_orders(a: list[int], b: list[int]) -> Any:
    """Each division comes up equally often among all orders."""
    orders = np.array([*permutations(a + b)])
    gaps = np.abs(orders[:, : len(a)].mean(axis=1) - orders[:, len(a) :].mean(axis=1))
    return (gaps >= abs(np.mean(a) - np.mean(b)) - 1e-9).mean()


def gaps_of(a: list[int], b: list[int]) -> tuple[list[float], float]:
    """What every division gives for mean of b less mean of a, and what was seen."""
    every, gaps = a + b, []
    for chosen in combinations(range(len(every)), len(a)):
        here = sum(every[i] for i in chosen)
        gaps.append((sum(every) - here) / len(b) - here / len(a))
    return gaps, sum(b) / len(b) - sum(a) / len(a)


def strictly(a: list[int], b: list[int]) -> float:
    gaps, seen = gaps_of(a, b)
    return sum(abs(gap) > abs(seen) for gap in gaps) / len(gaps)


def with_sign(a: list[int], b: list[int]) -> float:
    gaps, seen = gaps_of(a, b)
    return sum(gap >= seen for gap in gaps) / len(gaps)


def of_sums(a: list[int], b: list[int]) -> float:
    every = a + b
    sums = [sum(every[i] for i in chosen) for chosen in combinations(range(len(every)), len(a))]
    gaps = [abs(sum(every) - 2 * here) for here in sums]
    return sum(gap >= abs(sum(b) - sum(a)) for gap in gaps) / len(gaps)


def a_count(a: list[int], b: list[int]) -> float:
    gaps, seen = gaps_of(a, b)
    return sum(abs(gap) >= abs(seen) for gap in gaps)


def by_numbers(a: list[int], b: list[int]) -> float:
    """What is not in the one group by its number is in the other."""
    every, seen, far = a + b, abs(sum(a) / len(a) - sum(b) / len(b)), 0
    chosen = [*combinations(every, len(a))]
    for here in chosen:
        there = [run for run in every if run not in here]
        far += bool(there) and abs(sum(here) / len(here) - sum(there) / len(there)) >= seen
    return far / len(chosen)


ANSWERS = {
    "check_share_of_splits": (
        [by_places, by_orders],
        [
            (strictly, ">= and not >"),
            (with_sign, "without its sign"),
            (of_sums, "compare means"),
            (by_numbers, "not by numbers"),
            (a_count, "a share is wanted"),
        ],
    ),
}
