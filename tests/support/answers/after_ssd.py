"""Answers to the exercise on matching one to one."""

from __future__ import annotations

import itertools
from typing import Any

from scipy.optimize import linear_sum_assignment
from torch import Tensor


def by_trying(cost: Tensor) -> list[int]:
    ways = itertools.permutations(range(cost.shape[1]), len(cost))
    return list(min(ways, key=lambda way: sum(float(cost[i, j]) for i, j in enumerate(way))))


def by_scipy(cost: Tensor) -> Any:
    return linear_sum_assignment(cost.numpy())[1]


def row_by_row(cost: Tensor, taken: tuple[int, ...] = ()) -> list[int]:
    """The first row's column, then the best way for the rest."""
    if len(taken) == len(cost):
        return list(taken)
    ways = [row_by_row(cost, (*taken, j)) for j in range(cost.shape[1]) if j not in taken]
    return min(ways, key=lambda way: sum(float(cost[i, j]) for i, j in enumerate(way)))


def favourites(cost: Tensor) -> Tensor:
    return cost.argmin(dim=1)


def greedily(cost: Tensor) -> list[int]:
    pairs = sorted((float(cost[i, j]), i, j) for i in range(len(cost)) for j in range(cost.shape[1]))
    own: dict[int, int] = {}
    for _, i, j in pairs:
        if i not in own and j not in own.values():
            own[i] = j
    return [own[i] for i in range(len(cost))]


def first_come(cost: Tensor) -> list[int]:
    own: list[int] = []
    for row in cost.tolist():
        own.append(min(set(range(len(row))) - set(own), key=lambda j: row[j]))
    return own


def exchanged(cost: Tensor) -> list[int]:
    """First come, first served; then two objects exchange their predictions as long as that is cheaper."""
    own = first_come(cost)
    for i, k in [*itertools.combinations(range(len(own)), 2)] * len(own):
        if cost[i, own[k]] + cost[k, own[i]] < cost[i, own[i]] + cost[k, own[k]]:
            own[i], own[k] = own[k], own[i]
    return own


def dearest(cost: Tensor) -> list[int]:
    return by_trying(-cost)


ANSWERS = {
    "check_cheapest_way": (
        [by_trying, by_scipy, row_by_row],
        [
            (favourites, "No prediction may be given twice"),
            (greedily, "that is greedy"),
            (first_come, "Compare whole ways"),
            (exchanged, "all have to move on"),
            (dearest, "not as large"),
        ],
    )
}
