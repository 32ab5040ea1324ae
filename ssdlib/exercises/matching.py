"""Checkers for the chapter on matching."""

from __future__ import annotations

import torch
from torch import Tensor

from ssdlib.exercises.checking import Answer, Case, Mistake, check
from ssdlib.matching import UNMATCHED, best_priors


def check_match_table(answer: Answer) -> None:
    """Check `match_table(overlaps, threshold)`: for a table (M, P) of overlaps the object of each prior or -1, (P,)."""
    check(answer, _table_cases(), _TABLE_MISTAKES)


def _table_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    tables = [
        ("one object, and one prior that overlaps it enough", [[0.6, 0.3]]),
        ("a prior that overlaps an object by just the threshold", [[0.75, 0.5]]),
        ("an object that no prior overlaps enough", [[0.25, 0.125]]),
        ("a prior that overlaps two objects", [[0.9, 0.6, 0.0], [0.0, 0.7, 0.8]]),
        ("an object whose best prior overlaps another object more", [[0.9, 0.8], [0.1, 0.6]]),
        ("two objects with the same best prior", [[0.45, 0.20], [0.40, 0.10]]),
        ("two objects with the same best prior, the better one last", [[0.40, 0.10], [0.45, 0.20]]),
        ("more objects than priors", [[0.6], [0.7]]),
        ("six objects and twenty priors", torch.rand(6, 20, generator=generator).tolist()),
    ]
    cases = [Case(what, (torch.tensor(table), 0.5), _match(torch.tensor(table), 0.5)) for what, table in tables]
    high = torch.tensor([[0.6, 0.3]])
    cases.append(Case("another threshold", (high, 0.25), _match(high, 0.25)))
    empty = torch.zeros(0, 3)
    return [*cases, Case("no object at all", (empty, 0.5), _match(empty, 0.5))]


def _match(
    overlaps: Tensor, threshold: float, *, own: str = "greedy", reach: str = ">=", last_word: str = "own"
) -> Tensor:
    """The right answer, with a switch for each thing that goes wrong."""
    if overlaps.shape[0] == 0:
        return torch.full((overlaps.shape[1],), UNMATCHED)
    best_overlap, best_object = overlaps.max(dim=0)
    enough = {">=": best_overlap >= threshold, ">": best_overlap > threshold, "never": best_overlap < 0}[reach]
    matched = torch.where(enough, best_object, UNMATCHED)
    first = torch.full_like(matched, UNMATCHED)
    for m, k in enumerate(_OWN[own](overlaps)):
        if k != UNMATCHED and not (own == "enough" and overlaps[m, k] < threshold):
            first[k] = m
    if last_word == "own":
        return torch.where(first != UNMATCHED, first, matched)
    return torch.where(matched != UNMATCHED, matched, first)


def _first_come(overlaps: Tensor) -> list[int]:
    """Each object in turn takes the best prior that is still free."""
    own: list[int] = []
    for row in overlaps:
        free = [k for k in range(len(row)) if k not in own]
        own.append(max(free, key=lambda k: float(row[k])) if free else UNMATCHED)
    return own


_OWN = {
    "greedy": lambda overlaps: best_priors(overlaps).tolist(),
    "enough": lambda overlaps: best_priors(overlaps).tolist(),
    "favourite": lambda overlaps: overlaps.argmax(dim=1).tolist(),
    "first come": _first_come,
    "none": lambda overlaps: [UNMATCHED] * len(overlaps),
}

_TABLE_MISTAKES = [
    Mistake(
        "two objects wrote their number at the same prior, and the last one stayed. Hand out the priors one to one, "
        "the largest overlap first.",
        lambda table, threshold: _match(table, threshold, own="favourite"),
    ),
    Mistake(
        "each object took its best free prior in turn. Start with the largest overlap of the whole table instead.",
        lambda table, threshold: _match(table, threshold, own="first come"),
    ),
    Mistake(
        "an overlap of just the threshold is enough: >=, not >.",
        lambda table, threshold: _match(table, threshold, reach=">"),
    ),
    Mistake(
        "step one is missing: every object receives a prior of its own, however small the overlap.",
        lambda table, threshold: _match(table, threshold, own="none"),
    ),
    Mistake(
        "step one has no threshold: every object receives a prior of its own, however small the overlap.",
        lambda table, threshold: _match(table, threshold, own="enough"),
    ),
    Mistake(
        "step two is missing: the other priors take the object that they overlap most, if they overlap it enough.",
        lambda table, threshold: _match(table, threshold, reach="never"),
    ),
    Mistake(
        "step two has taken a prior away from its owner. Step one has the last word.",
        lambda table, threshold: _match(table, threshold, last_word="threshold"),
    ),
    Mistake(
        "this is a prior for each object. Wanted is an object, or -1, for each prior.",
        lambda table, threshold: best_priors(table),
    ),
    Mistake(
        "an image without objects has a table without rows, and there is no largest of nothing.",
        lambda table, threshold: table.max(dim=0).values if len(table) == 0 else _match(table, threshold),
    ),
]
